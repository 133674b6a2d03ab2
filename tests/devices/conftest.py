"""Two nodes that forward to devices outside the stack, each with one habit; and the table of what came of each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.stack.terminal import drawn
from tests.devices.zoo import HALL, KEPT_SECONDS, ROOM, ROUTER_OUT, SCU_TIMEOUT, SENDER, Zoo, of_the_hall, of_the_room
from tests.stack.harness import without_nodes

_HOST = "host.docker.internal"
_TITLES = ("device", "habit", "images", "transfers", "confirmed", "set aside", "why", "s")
_ROWS = pytest.StashKey[list[tuple[str, ...]]]()


@pytest.fixture(scope="package")
def zoo(program: Path, request: pytest.FixtureRequest) -> Iterator[Zoo]:
    """The stack and the devices, which listen. Every device's first images are on their way: the slow ones take their time together."""
    stack = without_nodes(program)
    made = Zoo(stack, of_the_room(), of_the_hall())
    both = {"host": _HOST, "nodes": [ROOM, HALL], "allow": ["store"]}
    stack.settings["modalities"] = [{"name": title.lower().replace("_", "-"), "aet": title, **both} for title in (SENDER, ROUTER_OUT)]
    for node, devices, options in (
        (ROOM, made.room, {"orthanc": {"DicomScuTimeout": SCU_TIMEOUT}}),
        (HALL, made.hall, {"keep": f"until-confirmed after {KEPT_SECONDS}s"}),
    ):
        for one in devices:
            device = {"name": one.name, "aet": one.aet, "host": _HOST, "nodes": [node], "allow": one.allow}
            stack.settings["modalities"].append(device)
        links = [{"to": one.name, "only": {"station": [one.name]}, **one.link} for one in devices]
        stack.add_node(node, index="sqlite", forwardTo=links, **options)
    stack.give_ports()
    ports = {one["name"]: one["port"] for one in stack.settings["modalities"]}
    try:
        for one in made.devices:
            one.start(ports[one.name])
        with stack.deployed():
            made.open()
            yield made
    finally:
        _keep(request.config, list(made.rows.values()))
        for one in made.devices:
            one.stop()


def _keep(config: Any, rows: list[tuple[str, ...]]) -> None:
    """Keep the rows for the end: pytest-xdist hands this mapping of a process to the one that prints."""
    if hasattr(config, "workeroutput"):
        config.workeroutput["zoo"] = rows
    else:
        config.stash[_ROWS] = rows


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Called by pytest-xdist when a process of its own has ended."""
    if rows := getattr(node, "workeroutput", {}).get("zoo"):
        node.config.stash[_ROWS] = [tuple(row) for row in rows]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table of the zoo."""
    if rows := config.stash.get(_ROWS, []):
        terminalreporter.section("zoo")
        terminalreporter.write_line(drawn(_TITLES, rows))
