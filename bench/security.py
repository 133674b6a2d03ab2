"""What TLS and hardening cost: three stacks that run at the same time, each measured in turn. One is the project's own, one is the same
with TLS everywhere, and of one the program has the hardening taken out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bench.dicom import send
from bench.orthanc import Node, store_side_by_side, upload
from bench.phantom import CT, SMALL, Phantom
from bench.results import Row
from bench.session import BenchError, Session
from bench.stack import PER_SERIES, Stack, cpu_seconds, empty, running, until

#: CT images of a run: so many that 5 % of the shortest transfer is longer than a process takes to start.
IMAGES: Final = 2_000
#: Small images of an upload, where each is a request of its own: what a request costs shows most.
UPLOADS: Final = 2_000
_CLIENTS: Final = 4
#: The systems, as the rows name them.
PROJECT, TLS, BARE = "project", "TLS", "not hardened"

_CAPABILITIES: Final = """        capabilities=docker.ContainerCapabilitiesArgs(
            adds=[f"CAP_{name}" for name in sorted(spec.capabilities)] or None,
            drops=["ALL"],
        ),
"""
_CALLERS: Final = ("Echo", "Store", "Find", "FindWorklist", "Get", "Move")
#: What takes the hardening out of a copy of the program: texts by file, each with what stands there instead.
WITHOUT_HARDENING: Final = {
    "components/base.py": {
        _CAPABILITIES: "",
        "        security_opts=list(_SECURITY_OPTS),\n": "",
        "        memory=spec.limits.memory,\n": "",
        "        memory_swap=spec.limits.memory,\n": "",
        "        cpu_shares=spec.limits.shares,\n": "",
    },
    "components/orthanc_node.py": {
        '            "LuaScripts": [_ROLES_SCRIPT],\n': "",
    },
    "configs/orthanc/base.yaml": {
        "DicomCheckCalledAet: true": "DicomCheckCalledAet: false",
        **{f"DicomAlwaysAllow{caller}: false": f"DicomAlwaysAllow{caller}: true" for caller in _CALLERS},
    },
}


def measure(session: Session, runs: int) -> None:
    """All ways through all three stacks, run after run; each run begins with another one."""
    sender = _Sender(session)
    with contextlib.ExitStack() as made:
        stacks = {
            PROJECT: made.enter_context(running(session, "security")),
            TLS: made.enter_context(running(session, "security", "tls", tls=True)),
            BARE: made.enter_context(running(session, "security", "bare", replace=WITHOUT_HARDENING)),
        }
        for stack in stacks.values():
            stack.stop()
        for number in range(1, runs + 1):
            for system in in_turn(list(stacks), number):
                sender.send(system, stacks[system], number)


def in_turn(systems: Sequence[str], run: int) -> list[str]:
    """The systems in their order, from another one on in each run: what comes first after a pause is not always the same."""
    first = (run - 1) % len(systems)
    return [*systems[first:], *systems[:first]]


@dataclass(frozen=True)
class _Way:
    """A way that images go.

    Attributes:
        measure: what the rows call its kind.
        name: what they call it.
        to: the node that holds the images afterwards.
        images: how many.
        send: sends them; the seconds that it took.
    """

    measure: str
    name: str
    to: Node
    images: int
    send: Callable[[], float]


class _Sender:
    """Sends the same images by each way."""

    def __init__(self, session: Session) -> None:
        self._results = session.results("security")
        self._images, uploads = session.size((IMAGES, UPLOADS), (10, 10))
        self._small = list(_files(Phantom(SMALL), uploads))
        self._folder = session.folder / "security"
        self._folder.mkdir()
        for i, file in enumerate(_files(Phantom(CT), self._images)):
            (self._folder / f"{i:05}.dcm").write_bytes(file)

    def send(self, system: str, stack: Stack, run: int) -> None:
        """Each way once; the nodes are empty before and after. Images in a second, and what each cost both nodes and the database."""
        parts = [f"{stack.prefix}-{part}" for part in ("client", "server", "db")]
        for way in self._ways(stack):
            before = sum(map(cpu_seconds, parts))
            seconds = way.send()
            cpu = sum(map(cpu_seconds, parts)) - before
            if (held := way.to.instances()) != way.images:
                raise BenchError(f"{system}, {way.name}: {held} of {way.images} images arrived")
            self._results.add(Row(way.measure, system, way.name, run, way.images / seconds, "images/s"))
            self._results.add(Row("CPU", system, f"{way.measure}, {way.name}", run, 1000 * cpu / way.images, "ms per image"))

    def _ways(self, stack: Stack) -> Iterator[_Way]:
        """From outside to the client, and from there to the server, by hand and by the forwarder, which runs for that alone."""
        client, server, folder = stack.client, stack.server, self._folder
        empty(stack)
        yield _Way("upload", f"{SMALL.name}, {_CLIENTS} clients", client, len(self._small), lambda: self._upload(client))
        empty(stack)
        yield _Way("C-STORE", "workstation to client", client, self._images, lambda: send(client, folder, stack.workstation))
        series = client.call("GET", "/series")
        yield _Way("C-STORE", "client to server, 1 job", server, self._images, lambda: store_side_by_side(client, [[series]]))
        server.empty()
        yield _Way("backlog", "forwarder, 2 associations", server, self._images, lambda: self._forward(stack))
        stack.stop()
        empty(stack)

    def _upload(self, client: Node) -> float:
        done = upload(client, self._small, _CLIENTS)
        if done.errors:
            raise BenchError(f"{client.name} refused an upload: {done.errors[0]}")
        return done.seconds

    def _forward(self, stack: Stack) -> float:
        started = time.monotonic()
        stack.start()
        until(stack, self._images)
        return time.monotonic() - started


def _files(phantom: Phantom, count: int) -> Iterator[bytes]:
    return (phantom.file(i // PER_SERIES, i) for i in range(count))
