"""A node that forwards to devices outside the stack, each with one habit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.devices.device import Device
from tests.stack.forwarding import link
from tests.stack.harness import Node, Stack, eventually, without_nodes

NODE, SENDER = "room", "WORKSTATION"
HOST = "host.docker.internal"


@dataclass
class Zoo:
    """The stack, and the devices by their names."""

    stack: Stack
    devices: dict[str, Device]

    @property
    def node(self) -> Node:
        return self.stack.node(NODE)

    def link(self, to: str) -> dict[str, Any]:
        """What the forwarder says of the link to a device."""
        return link(self.stack, NODE, to)

    def port_of(self, name: str) -> int:
        """Where a device listens."""
        return int(next(one["port"] for one in self.stack.settings["modalities"] if one["name"] == name))

    def settled(self, to: str, seconds: float = 60) -> dict[str, Any]:
        """What the forwarder says of a link once nothing is to be sent on it any more."""

        def idle() -> dict[str, Any] | None:
            said = self.link(to)
            return said if not (said["waiting"] or said["inFlight"] or said["more"]) else None

        said: dict[str, Any] = eventually(f"{to} has nothing left to get", idle, seconds)
        return said

    def row(self, to: str, said: dict[str, Any], seconds: float) -> None:
        """Print what came of a device."""
        device = self.devices[to]
        images = len(set(device.transfers))
        print(
            f"{to}: {images} images, {len(device.transfers)} transfers, confirmed {said['delivered']} by {said['confirmedBy']}, "
            f"unconfirmed {said['unconfirmed']}, set aside {said['setAside']}, {seconds:.0f} s; {said['note'] or said['reason'] or '-'}"
        )


@pytest.fixture(scope="package")
def zoo(program: Path) -> Iterator[Zoo]:
    """The stack and the devices, which listen."""
    devices = [
        Device("plain"),
        Device("plain-named", {"confirm": "commitment"}),
        Device("finder", finds=True),
        Device("one-uid", {"confirm": "query"}, finds=True, one_uid=True),
        Device("committer", commits=True),
        Device("no-echo", echoes=False, finds=True),
        Device("uncompressed", uncompressed=True),
    ]
    stack = without_nodes(program)
    outside = [{"name": one.name, "aet": one.aet, "host": HOST, "nodes": [NODE], "allow": []} for one in devices]
    stack.settings["modalities"] = [*outside, {"name": "sender", "aet": SENDER, "host": HOST, "nodes": [NODE], "allow": ["store"]}]
    stack.add_node(NODE, index="sqlite", forwardTo=[{"to": one.name, **one.link} for one in devices])
    stack.give_ports()
    made = Zoo(stack, {one.name: one for one in devices})
    try:
        for one in devices:
            one.start(made.port_of(one.name))
        with stack.deployed():
            for one in devices:
                one.node = (made.node.host, made.node.port, made.node.aet)
            yield made
    finally:
        for one in devices:
            one.stop()
