"""A stack that an earlier commit deployed moves over to this program: its volumes and images stay."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.stack.dicom import as_file, ct_series
from tests.stack.forwarding import await_delivery, link
from tests.stack.harness import ROOT, Stack, copy_program, docker, need_pulumi

pytestmark = pytest.mark.slow("deploys by an earlier commit, then by this one: 50 s for each stack")

#: The last commit with a network for each pair of containers, and volumes inside the components of nodes and database.
BEFORE: Final = "d0568f58c47e82c418a2cc7a8ef991ea60539056"


@pytest.fixture(params=["dev", "prod"])
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stack]:
    """A stack as the earlier commit deploys it."""
    need_pulumi()
    made = subprocess.run(["git", "archive", "--format=tar", BEFORE], cwd=ROOT, capture_output=True, check=False)
    if made.returncode:
        pytest.skip("this checkout has no commit from before (git fetch --unshallow)")
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as archive:
        archive.extractall(tmp_path / "before", filter="data")
    program = tmp_path / "program"
    program.mkdir()
    stack = Stack(copy_program(program, tmp_path / "before"), request.param)
    try:
        stack.up()
        yield stack
    finally:
        stack.wipe()


def test_it_moves_over(stack: Stack) -> None:
    images = ct_series(slices=3, size=64)
    uids = {str(image.SOPInstanceUID) for image in images}
    for image in images:
        stack.node("client").post("/instances", as_file(image))
    await_delivery(stack, "client", "server")
    held = {name: node.holds(uids) for name, node in stack.nodes().items()}
    volumes, networks = volumes_of(stack), len(stack.networks())
    assert networks > 3, "it has a network for each pair"

    for part in ("__main__.py", "components", "configs", "forwarder", "images"):
        old = stack.program / part
        if old.is_dir():
            shutil.rmtree(old)
            shutil.copytree(ROOT / part, old, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, old)
    done = stack.up()

    containers = {"client-container", "server-container", "client-forwarder-container", "db-container"}
    assert containers <= done.replaced
    assert {name for name in done.steps if name.endswith("-data")} == set(), "no volume is touched"
    assert volumes_of(stack) == volumes
    assert len(stack.networks()) == (3 if stack.settings.get("adminer") else 2)
    assert {name: node.holds(uids) for name, node in stack.nodes().items()} == held
    assert link(stack, "client", "server")["delivered"] == 0, "nothing is sent again"
    stack.preview(expect_no_changes=True)
    if stack.like == "prod":
        assert not stack.destroy().ok, "its volumes are protected still"
        assert volumes_of(stack) == volumes


def volumes_of(stack: Stack) -> list[str]:
    """The stack's volumes with their labels; a volume that was made anew has another identifier among them."""
    return [
        docker("volume", "inspect", "--format", "{{.Name}} {{json .Labels}}", f"{stack.prefix}-{name}") for name in sorted(stack.volumes())
    ]
