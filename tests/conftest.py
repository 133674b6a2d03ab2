"""The two sizes of the tests and the processes that they run in; what tests of several tiers use."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stack.dicom import Study, ct_series, sample_images
from tests.stack.harness import ROOT, copy_program, need_pulumi

#: Tiers whose tests wait for stacks begin first: the short ones fill in where a process would have nothing to do at the end.
_WAITING = ("stack", "contract", "faults", "bench", "toolchain")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Check that a slow test says why it is slow, and give each test its group: what runs in one process, one after the other.

    Tests beside a conftest.py share the stack that it makes, and so a group. Other tests are grouped by file.
    """
    for item in items:
        for mark in item.iter_markers("slow"):
            if not mark.args:
                raise pytest.UsageError(f'{item.nodeid}: a slow test says why: @pytest.mark.slow("a new stack: 40 s")')
        shares = item.path.with_name("conftest.py").exists()
        group = item.path.parent if shares else item.path
        item.add_marker(pytest.mark.xdist_group(str(group.relative_to(ROOT))))
    items.sort(key=lambda item: _rank(item.path.relative_to(ROOT / "tests").parts[0]))


def _rank(tier: str) -> int:
    return _WAITING.index(tier) if tier in _WAITING else len(_WAITING)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the program."""
    need_pulumi()
    return copy_program(tmp_path_factory.mktemp("program"))


@pytest.fixture(scope="session")
def study() -> Study:
    """Images that ship with pydicom, and a generated CT series."""
    return Study(samples=sample_images(), series=ct_series(slices=60, size=512))


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """Where screenshots and tables are kept; git ignores it."""
    folder = ROOT / "artifacts"
    folder.mkdir(exist_ok=True)
    return folder
