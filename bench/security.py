"""What TLS and hardening cost: three stacks that run at the same time, each measured in turn. One is the project's own, one is the same
with TLS everywhere, and of one the program has the hardening taken out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Final

from bench.dicom import send
from bench.orthanc import Node, send_by_jobs, store
from bench.phantom import CT, SMALL, Phantom, write
from bench.results import Row
from bench.session import BenchError, Session
from bench.stack import Stack, cpu_seconds, running

#: CT images of a run: so many that 5 % of the shortest transfer is longer than a process takes to start.
IMAGES: Final = 2_000
#: Small images of an upload, where each is a request of its own: what a request costs shows most.
UPLOADS: Final = 2_000
_CLIENTS: Final = 4
#: The systems, as the rows name them.
PROJECT, TLS, BARE = "project", "TLS", "not hardened"

_CAPABILITIES: Final = """        capabilities=docker.ContainerCapabilitiesArgs(
            adds=[f"CAP_{capability}" for capability in sorted(capabilities)] or None,
            drops=["ALL"],
        ),
"""
_CALLERS: Final = ("Echo", "Store", "Find", "FindWorklist", "Get", "Move")
#: What takes the hardening out of a copy of the program: texts by file, each with what stands there instead.
WITHOUT_HARDENING: Final = {
    "components/container.py": {
        _CAPABILITIES: "",
        "        security_opts=list(_SECURITY_OPTS),\n": "",
        "        memory=limits.memory,\n": "",
        "        memory_swap=limits.memory,\n": "",
        "        cpu_shares=limits.shares,\n": "",
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
            stack.hold()
        for number in range(1, runs + 1):
            for system in in_turn(list(stacks), number):
                sender.send(system, stacks[system], number)


def in_turn(systems: Sequence[str], run: int) -> list[str]:
    """The systems in their order, from another one on in each run: what comes first after a pause is not always the same."""
    first = (run - 1) % len(systems)
    return [*systems[first:], *systems[:first]]


class _Sender:
    """Sends the same images by each way."""

    def __init__(self, session: Session) -> None:
        self._results = session.results("security")
        self._images, uploads = session.size((IMAGES, UPLOADS), (10, 10))
        self._small = list(Phantom(SMALL).files(uploads))
        self._folder = write(Phantom(CT).files(self._images), session.folder / "security")

    def send(self, system: str, stack: Stack, run: int) -> None:
        """Images in a second by each way, and what each image cost both nodes and the database; the nodes are empty before and after.

        From outside to the client, and from there to the server, by hand and by the forwarder, which runs for that alone.
        """
        client, server, images = stack.client, stack.server, self._images
        parts = [f"{stack.prefix}-{part}" for part in ("client", "server", "db")]
        #: Kind, way, the node that holds the images afterwards and is emptied before, how many they are, and what sends them.
        ways: tuple[tuple[str, str, Node, int, Callable[[], float]], ...] = (
            ("upload", f"{SMALL.name}, {_CLIENTS} clients", client, len(self._small), lambda: store(client, self._small, _CLIENTS).seconds),
            ("C-STORE", "workstation to client", client, images, lambda: send(client, self._folder, stack.workstation)),
            ("C-STORE", "client to server, 1 job", server, images, lambda: send_by_jobs(client, [[client.call("GET", "/series")]])),
            ("backlog", "forwarder, 2 associations", server, images, lambda: stack.deliver(images)),
        )
        for kind, way, to, sent, transfer in ways:
            to.empty()
            before = sum(map(cpu_seconds, parts))
            seconds = transfer()
            cpu = sum(map(cpu_seconds, parts)) - before
            if (held := to.instances()) != sent:
                raise BenchError(f"{system}, {way}: {held} of {sent} images arrived")
            self._results.add(Row(kind, system, way, run, sent / seconds, "images/s"))
            self._results.add(Row("CPU", system, f"{kind}, {way}", run, 1000 * cpu / sent, "ms per image"))
        stack.hold()
        stack.empty()
