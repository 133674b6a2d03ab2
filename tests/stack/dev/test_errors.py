"""What is refused before anything is touched: an error that names the setting, and no traceback."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tests.stack.like_dev import Dev
from tests.stack.test_errors import assert_refused, nothing_touched

#: Settings of nodes, or of the whole stack file, and what is said of them.
REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a port in quotes": ({"client": {"httpPort": "8043"}}, ["nodes[1].httpPort"]),
    "a control character": ({"client": {"aet": "A\x1b[2JB"}}, ["nodes[1].aet"]),
    "options of Orthanc's": (
        {"client": {"orthanc": {"StableAge": -1, "Locale": "${HOME}"}}},
        ["nodes[1].orthanc.StableAge", "nodes[1].orthanc.Locale"],
    ),
    # The volumes exist and were made by something else.
    "another major version of PostgreSQL": (
        {"images": {"source": "registry", "postgres": "postgres:16.10"}, "indexDb": {"majorVersion": 16}},
        ["indexDb.majorVersion = '16'", "{prefix}-db", "PostgreSQL 17 wrote"],
    ),
    "another kind of index": (
        {"server": {"index": "sqlite"}, "client": {"index": "postgresql"}},
        ["nodes[0].index = 'sqlite'", "{prefix}-server", "nodes[1].index = 'postgresql'", "{prefix}-client"],
    ),
}


@pytest.mark.parametrize(("settings", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_before_anything_is_touched(dev: Dev, settings: dict[str, Any], said: list[str]) -> None:
    with nothing_touched(dev.stack) as changed:
        for key, value in settings.items():
            if key in ("server", "client"):
                dev.stack.node_settings(key).update(value)
            else:
                changed[key] = value
        done = dev.stack.try_up()
    assert_refused(done, *(words.format(prefix=dev.stack.prefix) for words in said), "Nothing was touched")
    assert "\x1b" not in done.text


def test_a_port_that_is_taken(dev: Dev) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, nothing_touched(dev.stack):
        dev.stack.node_settings("client")["httpPort"] = taken.getsockname()[1]
        done = dev.stack.try_up()
    assert_refused(done, "nodes[1].httpPort", "is taken on this host", "Nothing was touched")
