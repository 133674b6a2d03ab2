"""Fixtures of several files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.forwarding import World


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A node and a forwarder, which is not started."""
    made = World(monkeypatch)
    yield made
    made.kill()
    made.node.close()
