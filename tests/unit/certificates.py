"""Certificates for tests: made once for all stacks with the same parties."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from configs.secrets import parties_of
from configs.settings import StackSettings
from ops.stack import authority

#: Making keys is what takes the time, and of the real length, 3072, four times as much.
KEY_BITS = 2048

_made: dict[tuple[object, ...], authority.Made] = {}


def certificates_for(settings: StackSettings) -> authority.Made:
    """What `./orthanc-stack certs STACK` would make for a stack that has none, with shorter keys."""
    nodes = tuple((node.name, settings.bind_of(node), node.tls_names) for node in settings.nodes)
    parties = (parties_of(settings), nodes)
    if parties not in _made:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(authority, "_KEY_BITS", KEY_BITS)
            _made[parties] = authority.make(settings, {}, datetime.now(UTC))
    return _made[parties]
