"""What the program gives a container is what its image needs: with one capability less, it does not start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.stack.conftest import Dev
from tests.stack.harness import docker, eventually
from tests.stack.test_containers import TestCapabilities, _running, containers


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
