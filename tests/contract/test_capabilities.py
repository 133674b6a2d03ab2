"""What the program gives a container is what its image needs: with one capability less, it does not start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.stack.docker_bench import inspect
from tests.stack.harness import docker, eventually
from tests.stack.like_dev import Dev

pytestmark = pytest.mark.slow("starts a server for each capability that it has: 60 s")


@pytest.fixture
def containers(dev: Dev) -> dict[str, dict[str, Any]]:
    """What the engine shows of each container, by its name in the stack."""
    return inspect(dev.stack.containers())


class TestOfANode:
    """The entry point of a node's image, in a container of its own."""

    @pytest.fixture
    def name(self, dev: Dev) -> Iterator[str]:
        """A container's name."""
        yield f"{dev.stack.prefix}-capabilities"
        docker("rm", "--force", "--volumes", f"{dev.stack.prefix}-capabilities", check=False)

    def serves(self, name: str, node: dict[str, Any], capabilities: list[str]) -> bool:
        """Whether a container of the node's image serves, before it ends."""
        adds = [f"--cap-add={one}" for one in capabilities]
        options = ["--cap-drop=ALL", *adds, "--security-opt=no-new-privileges", "--network=none"]
        docker("run", "--detach", f"--name={name}", *options, '--env=ORTHANC__REGISTERED_USERS={"one": "pw-5c1e"}', node["Image"])
        eventually("it serves or ends", lambda: _answers(name) or not _running(name))
        return _answers(name)

    def test_with_what_it_has_it_serves(self, name: str, containers: dict[str, dict[str, Any]]) -> None:
        assert self.serves(name, containers["server"], containers["server"]["HostConfig"]["CapAdd"])

    def test_without_it_it_does_not(self, name: str, containers: dict[str, dict[str, Any]]) -> None:
        assert containers["server"]["HostConfig"]["CapAdd"] == ["CAP_DAC_OVERRIDE"]
        assert not self.serves(name, containers["server"], [])
        assert "/etc/hostid: Permission denied" in docker("logs", name)


def _answers(container: str) -> bool:
    return docker("exec", container, "sh", "-c", "/probes/test-aliveness.py > /dev/null 2>&1 && echo yes", check=False) == "yes"


class TestOfPostgresql:
    """Those that PostgreSQL's container has are needed: with one less, there is no server on a new volume, or none the second time."""

    @pytest.fixture
    def volume(self, dev: Dev) -> Iterator[str]:
        name = docker("volume", "create", f"{dev.stack.prefix}-capabilities")
        yield name
        docker("rm", "--force", name, check=False)
        docker("volume", "rm", "--force", name)

    def serves(self, volume: str, image: str, capabilities: set[str], *, roots: bool = False) -> bool:
        """Whether a server on a new volume comes up twice; the second time it finds its data.

        Args:
            volume: the volume's name, and the container's.
            image: PostgreSQL's.
            capabilities: what the container has.
            roots: the volume's folder is root's, as after a backup was put back into it; else the engine makes it as the image has it.
        """
        adds = [f"--cap-add={name}" for name in sorted(capabilities)]
        mount = f"--mount=type=volume,source={volume},target=/var/lib/postgresql/data{',volume-nocopy' if roots else ''}"
        for _ in range(2):
            options = ["--cap-drop=ALL", *adds, "--security-opt=no-new-privileges", "--network=none", "--env=POSTGRES_PASSWORD=unused-5c1e"]
            docker("run", "--detach", f"--name={volume}", *options, mount, image)
            try:
                eventually("it serves or ends", lambda: _ready(volume) or not _running(volume))
                if not _ready(volume):
                    return False
            finally:
                docker("stop", volume)
                docker("rm", volume)
        return True

    @pytest.mark.parametrize("roots", [False, True])
    def test_with_all_it_serves(self, containers: dict[str, dict[str, Any]], volume: str, roots: bool) -> None:
        assert self.serves(volume, containers["db"]["Image"], set(containers["db"]["HostConfig"]["CapAdd"]), roots=roots)

    @pytest.mark.parametrize(("less", "roots"), [("CHOWN", True), ("DAC_OVERRIDE", False), ("SETGID", False), ("SETUID", False)])
    def test_with_one_less_it_does_not(self, containers: dict[str, dict[str, Any]], volume: str, less: str, roots: bool) -> None:
        has = set(containers["db"]["HostConfig"]["CapAdd"])
        assert f"CAP_{less}" in has
        assert not self.serves(volume, containers["db"]["Image"], has - {f"CAP_{less}"}, roots=roots)


def _ready(container: str) -> bool:
    return "accepting" in docker("exec", container, "pg_isready", "-h", "127.0.0.1", check=False).partition(" - ")[2]


def _running(container: str) -> bool:
    return docker("inspect", "--format", "{{.State.Running}}", container) == "true"
