"""The pages name tests as proofs: each is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ops.setup.console import ROOT

_TESTS = "".join(file.read_text() for file in ROOT.glob("tests/**/*.py"))
_PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("[a-z]*/README.md"), *ROOT.glob("tests/*/README.md")])


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_test_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    for path, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text):
        assert (ROOT / path).is_file(), path
        assert not name or re.search(rf"^(class|def) {name}\b", (ROOT / path).read_text(), re.MULTILINE), f"{path}::{name}"
    for name in re.findall(r"`(test_\w+)`", text):
        assert re.search(rf"def {name}\b", _TESTS), name
