"""A stack like dev, on the images that are built here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.like_dev import Dev, deployed_like_dev, forwarded, stack

__all__ = ["forwarded", "stack"]


@pytest.fixture(scope="package")
def dev(program: Path) -> Iterator[Dev]:
    """The stack."""
    yield from deployed_like_dev(program)
