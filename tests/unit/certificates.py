"""Certificates for tests: made once for all stacks with the same parties, which takes a second."""

from __future__ import annotations

from datetime import UTC, datetime

from configs.settings import StackSettings
from configs.tls import parties_of
from ops.authority import Made, make

_made: dict[tuple[object, ...], Made] = {}


def certificates_for(settings: StackSettings) -> Made:
    """What `make certs` would make for a stack that has none."""
    nodes = tuple((node.name, settings.bind_of(node), node.tls_names) for node in settings.nodes)
    parties = (parties_of(settings), nodes)
    if parties not in _made:
        _made[parties] = make(settings, {}, datetime.now(UTC))
    return _made[parties]
