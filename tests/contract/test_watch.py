"""`up` on an image that does not start: said within 20 s, while Pulumi goes on waiting."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from configs import names
from tests.stack.engine import docker, eventually
from tests.stack.test_backends import checkout, stack

pytestmark = pytest.mark.slow("a node that never starts, and a checkout's own set-up: 30 s")

_BROKEN = "contract.invalid/broken/orthanc:26.8.1"
_SOON_SECONDS = 20


@pytest.fixture
def broken(contract: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """An image of Orthanc's whose entry point ends."""
    (tmp_path / "Dockerfile").write_text(f'FROM {contract["orthanc"]}\nENTRYPOINT ["sh", "-c", "echo no licence; exit 7"]\n')
    docker("build", "--quiet", "--tag", _BROKEN, str(tmp_path))
    yield _BROKEN
    docker("rmi", _BROKEN)


def test_a_node_that_does_not_start_is_told_while_pulumi_waits(
    checkout: Path, contract: dict[str, str], broken: str, stack: str, tmp_path: Path
) -> None:
    file, said = checkout / f"Pulumi.{stack}.yaml", tmp_path / "said"
    content = yaml.safe_load(file.read_text())
    content["config"][f"{names.PROJECT}:images"] = contract | {"orthanc": broken}
    file.write_text(yaml.safe_dump(content))
    # On a runner, `up` makes no secrets.
    desk = {key: value for key, value in os.environ.items() if key not in ("GITHUB_ACTIONS", "GITLAB_CI")}
    env = desk | {"PULUMI_BACKEND_URL": f"file://{tmp_path}", "PULUMI_CONFIG_PASSPHRASE": "a passphrase of the tests"}
    command: list[str | Path] = [checkout / "orthanc-stack", "up", stack]
    with said.open("w") as out:
        # A session of its own, as a terminal's: its interrupt goes to all of it.
        up = subprocess.Popen(command, cwd=checkout, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        container = f"{names.prefix(stack)}-archive"
        eventually("the container is there", lambda: docker("ps", "--all", "--quiet", "--filter", f"name={container}"))
        began = time.monotonic()
        text = eventually("it is told", lambda: said.read_text() if "docker logs" in said.read_text() else "")
        assert time.monotonic() - began < _SOON_SECONDS
        assert up.poll() is None
    finally:
        for _ in range(2):
            os.killpg(up.pid, signal.SIGINT)
            time.sleep(2)
        up.wait(60)
    assert f"archive: the container {container} ends and is started again" in text
    assert "    | no licence" in text
    assert f"./orthanc-stack up {stack}" in text
    assert said.read_text().count("ends and is started again") == 1
