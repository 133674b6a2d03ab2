"""The two sizes of the tests and the processes that they run in; what tests of several tiers use."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.stack.dicom import Study, ct_series, sample_images
from tests.stack.harness import ROOT, copy_program, need_pulumi

#: Tiers whose tests wait for stacks begin first: the short ones fill in where a process would have nothing to do at the end.
_WAITING = ("faults", "devices", "bench", "stack", "contract", "toolchain")
#: Each needs half of the networks that an engine has addresses for: they run one after the other.
_MANY_NETWORKS = ("tests/faults", "tests/bench")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Check that a slow test says why it is slow, and put first what waits for stacks."""
    for item in items:
        for mark in item.iter_markers("slow"):
            if not mark.args:
                raise pytest.UsageError(f'{item.nodeid}: a slow test says why: @pytest.mark.slow("a new stack: 40 s")')
    items.sort(key=lambda item: _rank(item.nodeid.split("/")[1]))


def _rank(tier: str) -> int:
    return _WAITING.index(tier) if tier in _WAITING else len(_WAITING)


class ByStack(LoadScopeScheduling):  # type: ignore[misc]
    """Gives each process a group of tests at a time, which run one after the other.

    Not by the mark `xdist_group`: pytest 9.2 passes it over (pytest-xdist#1386).
    """

    def _split_scope(self, nodeid: str) -> str:
        """The group of a test: tests beside a conftest.py share the stack that it makes, and so a group; all others are grouped by file."""
        file = PurePosixPath(nodeid.partition("::")[0])
        if str(file.parent) in _MANY_NETWORKS:
            return "+".join(_MANY_NETWORKS)
        return str(file.parent if (ROOT / file).with_name("conftest.py").exists() else file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByStack:
    """Called by pytest-xdist, in the process that the tests are distributed from."""
    return ByStack(config, log)


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
