"""A stack for faults: an archive, clients that forward to it, and what is known of each while parts of it are down."""

from __future__ import annotations

import itertools
import json
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from tests.faults.archive import Archive
from tests.faults.images import CT, SMALL, Series
from tests.faults.ledger import Audit, Ledger
from tests.faults.parts import Part
from tests.faults.rest import Rest
from tests.stack.harness import Node, Stack, docker, eventually, free_ports

SERVER = "server"
SCANNER = "WORKSTATION"
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def stack_settings(clients: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """What the stack file says: the archive on PostgreSQL, which takes CT alone; clients; one scanner that may store at each.

    Args:
        clients: of each what is not said here: ``name``, ``forwardTo`` and so on.
        others: nodes that do not forward.
    """
    server = {"name": SERVER, "aet": "SERVER", "index": "postgresql", "orthanc": {"AcceptedSopClasses": [CT]}}
    nodes = [server, *({"index": "sqlite"} | node | {"aet": node["name"].upper().replace("-", "_")} for node in (*clients, *others))]
    for client, port in zip(clients, free_ports(len(clients)), strict=True):
        next(node for node in nodes if node["name"] == client["name"])["metricsPort"] = port
    everywhere = [node["name"] for node in nodes]
    scanner = {
        "name": "scanner",
        "aet": SCANNER,
        "host": "host.docker.internal",
        "port": 0,
        "nodes": everywhere,
        "allow": ["echo", "store"],
    }
    return {"nodes": nodes, "modalities": [scanner]}


@dataclass
class Link:
    """The status of a forwarding link, as the forwarder tells it."""

    to: str
    waiting: int
    in_flight: int
    set_aside: int
    tries: int
    delivered: int
    oldest_waiting: str | None
    next_try: str | None
    reason: str
    aside: list[dict[str, Any]]

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return self.waiting == self.in_flight == 0


@dataclass
class World:
    """The stack, with the ledger of what was acknowledged to its senders."""

    stack: Stack
    ledger: Ledger = field(default_factory=Ledger)
    _nodes: dict[str, Node] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def deploy(self) -> None:
        """pulumi up, also after settings were changed."""
        self.stack.up()
        self._nodes = self.stack.nodes()

    def new_series(self, count: int, size: int = SMALL) -> Series:
        """A series that nobody has seen before."""
        return Series(next(self._numbers), count, size)

    # --- parts ---

    def node(self, name: str) -> Node:
        """A node."""
        return self._nodes[name]

    def part(self, name: str) -> Part:
        """A container: of a node, of a forwarder (``client-forwarder``), or ``db``."""
        return Part(f"{self.stack.prefix}-{name}")

    @property
    def archive(self) -> Archive:
        """The archive."""
        return Archive(self.stack, SERVER)

    def at(self, name: str) -> Archive:
        """Another node, to see what it has."""
        return Archive(self.stack, name)

    @property
    def clients(self) -> list[str]:
        """The nodes that forward."""
        return [node["name"] for node in self.stack.settings["nodes"] if node.get("forwardTo")]

    def serves(self, name: str) -> bool:
        """Whether a part does what it is there for."""
        if name == "db":
            users = [node["name"] for node in self.stack.settings["nodes"] if node["index"] == "postgresql"]
            return all(Rest(self.node(user), seconds=3).answers() for user in users)
        if name.endswith("-forwarder"):
            return self.try_status(name.removesuffix("-forwarder")) is not None
        return Rest(self.node(name), seconds=3).answers()

    def await_service(self, *parts: str, seconds: float = 90) -> None:
        """Wait until parts do what they are there for."""
        for name in parts:
            eventually(f"{name} serves", lambda name=name: self.serves(name), seconds)  # type: ignore[misc]

    # --- forwarding ---

    def try_status(self, client: str) -> list[Link] | None:
        """The links of a client; None where its forwarder does not answer."""
        port = self.stack.node_settings(client)["metricsPort"]
        try:
            with _OPENER.open(f"http://127.0.0.1:{port}/status", timeout=5) as answer:
                return [_link(said) for said in json.loads(answer.read())["links"]]
        except (OSError, ValueError):
            return None

    def status(self, client: str) -> list[Link]:
        """The links of a client, as whoever is on the machine asks for them."""
        said = docker("exec", f"{self.stack.prefix}-{client}-forwarder", "python3", "-SB", "-m", "forwarder", "status")
        return [_link(link) for link in json.loads(said)["links"]]

    def link(self, client: str, to: str = SERVER) -> Link:
        """The status of one link."""
        return next(link for link in self.try_status(client) or self.status(client) if link.to == to)

    def retry(self, client: str) -> None:
        """Everything is tried again at once."""
        docker("exec", f"{self.stack.prefix}-{client}-forwarder", "python3", "-SB", "-m", "forwarder", "retry")

    def idle(self) -> bool:
        """Whether no forwarder has anything to do."""
        links = [self.try_status(client) for client in self.clients]
        return all(of_client is not None and all(link.idle for link in of_client) for of_client in links)

    # --- what became of the images ---

    def audit(self, ids: Sequence[str] | None = None, *, archive: Archive | None = None, rest: bool = True) -> Audit:
        """Compare the archive with what was acknowledged, by its files and by what its REST API gives.

        Args:
            ids: these images alone.
            archive: the node to look at; the server where left out.
            rest: ask the REST API, too.
        """
        archive = archive or self.archive
        wanted = list(self.ledger.promised()) if ids is None else list(ids)
        found = archive.on_disk(wanted)
        if rest:
            given = archive.by_rest(sorted(found))
            found = {id_: md5 if given.get(id_) == md5 else "" for id_, md5 in found.items()}
        return self.ledger.audit(found, wanted)

    def recover(self, ids: Sequence[str], seconds: float = 60) -> float:
        """Wait until nothing waits and images are at the archive as they were sent; the seconds that it took."""
        started = time.monotonic()
        eventually("forwarders are idle", self.idle, seconds)
        eventually("images are there", lambda: not self.audit(ids, rest=False).lost, seconds)
        took = time.monotonic() - started
        audit = self.audit(ids)
        assert audit.lost == 0, f"lost: {audit}"
        return took


def make_world(program: Path, clients: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]] = ()) -> World:
    """A stack that is not deployed yet."""
    settings = stack_settings(clients, others)
    stack = Stack(program, "dev", **settings)
    del stack.settings["adminer"]
    return World(stack)


def _link(said: dict[str, Any]) -> Link:
    return Link(
        to=said["to"],
        waiting=said["waiting"],
        in_flight=said["inFlight"],
        set_aside=said["setAside"],
        tries=said["tries"],
        delivered=said["delivered"],
        oldest_waiting=said["oldestWaiting"],
        next_try=said["nextTry"],
        reason=said["reason"],
        aside=cast("list[dict[str, Any]]", said["aside"]),
    )
