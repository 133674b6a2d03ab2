"""A stack like dev on the contract images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.images import built
from tests.stack.like_dev import Dev, deployed_like_dev, forwarded, stack

__all__ = ["forwarded", "stack"]


@pytest.fixture(scope="package")
def contract() -> Iterator[dict[str, str]]:
    """The `images` block of a stack file that runs them."""
    with built("dev") as images:
        yield images


@pytest.fixture(scope="package")
def dev(program: Path, contract: dict[str, str]) -> Iterator[Dev]:
    """The stack."""
    yield from deployed_like_dev(program, images=contract)
