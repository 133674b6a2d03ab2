"""A stack for faults: an archive, clients that forward to it, and what is known of each while parts of it are down."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.phantom import Phantom
from tests.faults import pacs
from tests.faults.archive import Archive, DownError, fetch
from tests.faults.images import CT, SMALL, Series
from tests.faults.ledger import Audit, Ledger
from tests.faults.pacs import Pacs
from tests.stack.harness import Node, Stack, docker, eventually, free_ports

SERVER, SCANNER = "server", "WORKSTATION"


@dataclass(frozen=True)
class Part:
    """One container of a stack, from the outside."""

    container: str

    @property
    def pid(self) -> int:
        """The process identifier, on this machine, of its first process; 0 while it does not run."""
        said = docker("inspect", "--format", "{{.State.Pid}}", self.container, check=False)
        return int(said) if said.isdigit() else 0

    @property
    def restarts(self) -> int:
        """How often the engine has started it anew by itself."""
        return int(docker("inspect", "--format", "{{.RestartCount}}", self.container))

    def kill(self) -> None:
        """SIGKILL to its first process, as the kernel does it when memory is out.

        Not `docker kill`: after that the engine takes it for stopped on purpose and does not start it again.
        """
        pid = eventually(f"{self.container} runs", lambda: self.pid)
        os.kill(pid, signal.SIGKILL)
        eventually(f"{self.container} ends", lambda: not Path(f"/proc/{pid}").exists() or self.pid != pid)

    def log(self, *options: str) -> str:
        return docker("logs", *options, self.container, check=False)

    def inside(self, command: str, *namespaces: str, check: bool = True) -> str:
        """Run a shell's command in namespaces of the container, with this machine's rights; what it prints.

        Args:
            command: for sh -c. With the namespace ``mount`` it is the container's own programs.
            namespaces: ``mount``, with ``pid`` for its /proc; ``net``.
            check: fail when it fails.
        """
        entered = ["nsenter", f"--target={self.pid}", *(f"--{namespace}" for namespace in namespaces), "sh", "-c", command]
        done = subprocess.run(
            entered, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False, timeout=60
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}"
        return done.stdout.strip()


@dataclass
class World:
    """The stack, with the ledger of what was acknowledged to its senders."""

    stack: Stack
    ledger: Ledger = field(default_factory=Ledger)
    #: A device outside the stack that the clients forward to besides; only the soak has one.
    device: Pacs | None = None
    _nodes: dict[str, Node] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def deploy(self) -> None:
        """pulumi up, also after settings were changed."""
        self.stack.up()
        self._nodes = self.stack.nodes()

    def new_series(self, count: int, template: Phantom = SMALL) -> Series:
        """A series that nobody has seen before."""
        return Series(next(self._numbers), count, template)

    # --- parts ---

    def node(self, name: str) -> Node:
        return self._nodes[name]

    def part(self, name: str) -> Part:
        """A container: of a node, of a forwarder (``client-forwarder``), or ``db``."""
        return Part(f"{self.stack.prefix}-{name}")

    def at(self, name: str) -> Archive:
        """What a node has."""
        return Archive(self.stack, self.node(name))

    @property
    def archive(self) -> Archive:
        return self.at(SERVER)

    @property
    def clients(self) -> list[str]:
        """The nodes that forward."""
        return [node["name"] for node in self.stack.settings["nodes"] if node.get("forwardTo")]

    def serves(self, name: str) -> bool:
        """Whether a part does what it is there for."""
        if name == "db":
            return all(self.at(node["name"]).answers() for node in self.stack.settings["nodes"] if node["index"] == "postgresql")
        if name.endswith("-forwarder"):
            return self.try_status(name.removesuffix("-forwarder")) is not None
        return self.at(name).answers()

    def await_service(self, *parts: str) -> None:
        """Wait until parts do what they are there for."""
        for name in parts:
            eventually(f"{name} serves", lambda name=name: self.serves(name), 90)  # type: ignore[misc]

    # --- forwarding ---

    def try_status(self, client: str) -> list[dict[str, Any]] | None:
        """The links of a client, as its forwarder tells them; None where it does not answer."""
        port = self.stack.node_settings(client)["metricsPort"]
        try:
            _, content = fetch(f"http://127.0.0.1:{port}/status", seconds=5)
            links: list[dict[str, Any]] = json.loads(content)["links"]
        except (DownError, ValueError):
            return None
        return links

    def link(self, client: str, to: str = SERVER) -> dict[str, Any]:
        links: list[dict[str, Any]] = eventually(f"{client}-forwarder answers", lambda: self.try_status(client))
        return next(link for link in links if link["to"] == to)

    def retry(self, client: str) -> None:
        """Everything is tried again at once."""
        docker("exec", f"{self.stack.prefix}-{client}-forwarder", "python3", "-SB", "-m", "forwarder", "retry")

    def idle(self) -> bool:
        links = [self.try_status(client) for client in self.clients]
        return all(of_client is not None and not any(map(undelivered, of_client)) for of_client in links)

    # --- what became of the images ---

    def audit(self, ids: Sequence[str] | None = None, *, at: str = SERVER, rest: bool = True) -> Audit:
        """Compare a node with what was acknowledged, by its files and by what its REST API gives.

        Args:
            ids: these images alone.
            at: the node to look at.
            rest: ask the REST API, too.
        """
        archive, wanted = self.at(at), list(self.ledger.promised() if ids is None else ids)
        found = archive.on_disk(wanted)
        if rest:
            given = archive.by_rest(sorted(found))
            found = {id_: md5 if given[id_] == md5 else "" for id_, md5 in found.items()}
        return self.ledger.audit(found, wanted)

    def recover(self, ids: Sequence[str], seconds: float = 60) -> None:
        """Wait until nothing waits and images are at the archive as they were sent."""
        eventually("forwarders are idle", self.idle, seconds)
        eventually("images are there", lambda: not self.audit(ids, rest=False).lost, seconds)
        audit = self.audit(ids)
        assert audit.lost == 0, f"lost: {audit}"


def add_device(world: World, kept: Path) -> Pacs:
    """Let each client forward to a device outside the stack, too, and start it; ``kept`` is a file for what it is sent."""
    modality = {"name": pacs.NAME, "aet": pacs.NAME.upper(), "host": "host.docker.internal", "port": 0, "nodes": world.clients, "allow": []}
    world.stack.settings["modalities"].append(modality)
    for client in world.clients:
        settings = world.stack.node_settings(client)
        settings["forwardTo"] = [*settings["forwardTo"], pacs.NAME]
    world.stack.give_ports()
    world.device = Pacs(int(str(modality["port"])), kept)
    world.device.start()
    return world.device


def undelivered(link: dict[str, Any]) -> int:
    """How many images a link still has to deliver, less those that are set aside."""
    return int(link["waiting"]) + int(link["inFlight"]) + int(link["unconfirmed"])


def make_world(program: Path, clients: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]] = ()) -> World:
    """A stack that is not deployed yet: the archive on PostgreSQL, which takes CT alone; clients; one scanner that may store at each.

    Args:
        program: the copy of the program.
        clients: of each what is not said here: ``name``, ``forwardTo`` and so on.
        others: nodes that do not forward.
    """
    nodes = [{"name": SERVER, "index": "postgresql", "orthanc": {"AcceptedSopClasses": [CT]}}]
    nodes += [node | {"metricsPort": port} for node, port in zip(clients, free_ports(len(clients)), strict=True)]
    nodes = [{"index": "sqlite", "aet": node["name"].upper()} | node for node in (*nodes, *others)]
    scanner = {
        "name": "scanner",
        "aet": SCANNER,
        "host": "host.docker.internal",
        "port": 0,
        "nodes": [node["name"] for node in nodes],
        "allow": ["echo", "store"],
    }
    stack = Stack(program, "dev", nodes=nodes, modalities=[scanner])
    del stack.settings["adminer"]
    return World(stack)
