"""The stacks of tests/stack, on the contract images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract import images
from tests.stack.conftest import Dev, artifacts, deployed_like_dev, forwarded, program, received, study
from tests.stack.harness import Stack


@pytest.fixture(scope="session", autouse=True)
def contract() -> Iterator[dict[str, str]]:
    """The `images` block of a stack file that runs them."""
    try:
        images.build()
        yield {"source": "registry", **images.IMAGES}
    finally:
        images.remove()


@pytest.fixture(scope="session")
def dev(program: Path, contract: dict[str, str]) -> Iterator[Dev]:
    """A stack like dev."""
    yield from deployed_like_dev(program, images=contract)


@pytest.fixture(scope="module")
def prod(program: Path, contract: dict[str, str]) -> Iterator[Stack]:
    """A stack like prod: TLS everywhere."""
    stack = Stack(program, "prod", images=contract)
    try:
        stack.up()
        yield stack
    finally:
        stack.remove()
