"""The reports in docs/examples: what recorded previews of real stacks make, to the letter. UPDATE_EXAMPLES=1 writes them anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ops.report.markdown import markdown
from tests.unit.reports import report_of

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "examples"
EXAMPLES = ("aet-changed", "node-added", "node-removed", "prod-node-removed")


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_what_the_report_says_today(name: str) -> None:
    written, cut = markdown(report_of(name))
    assert not cut
    file = FOLDER / f"{name}.md"
    if os.environ.get("UPDATE_EXAMPLES") == "1":
        file.parent.mkdir(exist_ok=True)
        file.write_text(written, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == written, "the report has changed: look at it, then UPDATE_EXAMPLES=1"


def test_there_are_no_other_examples() -> None:
    assert sorted(file.stem for file in FOLDER.glob("*.md")) == sorted(EXAMPLES)
