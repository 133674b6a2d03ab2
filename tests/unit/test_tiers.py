"""The two sizes of the tests: what their report counts, and the group of each test."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from dev.lint import shell_scripts
from dev.tiers import outcomes, report, run_tests
from ops.setup.console import SetupError
from tests.conftest import ByStack, pytest_collection_modifyitems

_JUNIT = """<testsuites><testsuite>
  <testcase classname="tests.unit.test_a" name="test_one" time="0.5"/>
  <testcase classname="tests.unit.test_a.TestB" name="test_two" time="1.5"><failure/></testcase>
  <testcase classname="tests.stack.dev.test_c" name="test_three[x]" time="60"/>
  <testcase classname="tests.stack.dev.test_c" name="test_four" time="1"><error/></testcase>
  <testcase classname="tests.stack.test_d" name="test_five" time="0"><skipped/></testcase>
  <testcase classname="" name="tests.program.test_e" time="0"><error/></testcase>
</testsuite></testsuites>"""


def test_the_report_counts_by_tier_and_ends_with_the_sum(tmp_path: Path) -> None:
    (tmp_path / "test.xml").write_text(_JUNIT)
    text, failed = report(outcomes(tmp_path / "test.xml"), 61.4)
    rows = [line.split() for line in text.splitlines()]
    assert ["unit", "1", "1", "0", "2", "s"] in rows
    assert ["program", "0", "1", "0", "0", "s"] in rows
    assert ["stack", "1", "1", "1", "61", "s"] in rows
    assert text.splitlines()[-2:] == ["All of it took 61 s.", "2 passed, 3 failed"]
    assert failed


def test_no_test_at_all_is_no_success(tmp_path: Path) -> None:
    assert report(outcomes(tmp_path / "missing.xml"), 1)[1]
    assert report({("unit", "skipped"): 3}, 1)[1]
    assert not report({("unit", "passed"): 3}, 1)[1]


@pytest.mark.parametrize("status", [1, 4, -9])
def test_a_pytest_that_failed_without_a_failed_test_counts_as_one(tmp_path: Path, status: int) -> None:
    (tmp_path / "test.xml").write_text('<testsuite><testcase classname="tests.unit.test_a" name="test_one" time="1"/></testsuite>')
    text, failed = report(outcomes(tmp_path / "test.xml", status), 1)
    assert (text.splitlines()[-1], failed) == ("1 passed, 1 failed", True)


def test_an_unknown_tier_is_refused() -> None:
    with pytest.raises(SetupError, match="no tier nonsense: there are unit, program"):
        run_tests("dev", "test", ["unit", "nonsense"])


class _Item:
    """What is asked of a test when all are collected."""

    def __init__(self, nodeid: str, *marks: pytest.Mark) -> None:
        self.nodeid, self._marks = nodeid, marks

    def iter_markers(self, name: str) -> list[pytest.Mark]:
        return [mark for mark in self._marks if mark.name == name]


def _collected(*items: _Item) -> list[str]:
    found = list(items)
    pytest_collection_modifyitems(cast("list[pytest.Item]", found))
    return [item.nodeid for item in found]


def test_what_waits_for_stacks_comes_first() -> None:
    nodeids = ("tests/unit/test_a.py::test_b", "tests/faults/test_c.py::test_d", "tests/stack/dev/test_e.py::test_f")
    assert _collected(*map(_Item, nodeids)) == [nodeids[1], nodeids[2], nodeids[0]]


def test_a_slow_test_says_why() -> None:
    _collected(_Item("tests/unit/test_a.py::test_b", pytest.mark.slow("a new stack: 40 s").mark))
    with pytest.raises(pytest.UsageError, match=r"test_a\.py::test_b: a slow test says why"):
        _collected(_Item("tests/unit/test_a.py::test_b", pytest.mark.slow.mark))


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        ("tests/unit/test_tiers.py::TestA::test_b[x/y]", "tests/unit/test_tiers.py"),
        ("tests/stack/dev/test_dicom.py::test_a", "tests/stack/dev"),
        ("tests/stack/dev/test_access.py::test_b", "tests/stack/dev"),
        ("tests/faults/test_faults.py::test_a", "tests/faults+tests/bench"),
        ("tests/bench/test_bench.py::test_b", "tests/faults+tests/bench"),
    ],
)
def test_tests_beside_a_conftest_share_a_process_and_others_do_by_file(nodeid: str, group: str) -> None:
    assert ByStack._split_scope(cast("ByStack", None), nodeid) == group


def test_scripts_are_known_by_name_or_first_line(tmp_path: Path) -> None:
    files = {"a.sh": "", "run": "#!/bin/sh -eu\n", "b": "#!/usr/bin/env bash\n", "c": "#!/usr/bin/env python3\n", "d": "", "e.md": "sh\n"}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert shell_scripts(tmp_path, [*files, "deleted.sh"]) == ["a.sh", "run", "b"]
