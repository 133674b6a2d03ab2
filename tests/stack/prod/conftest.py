"""The stack of secured.py, which these tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.images import built
from tests.stack.harness import Stack
from tests.stack.prod.secured import Secured, deployed


@pytest.fixture(scope="package")
def secured(program: Path) -> Iterator[Secured]:
    """The stack, deployed."""
    with built("prod") as images, deployed(program, images) as made:
        yield made


@pytest.fixture(scope="package")
def stack(secured: Secured) -> Stack:
    """The same, for what is asked of every stack (claims.py)."""
    return secured.stack
