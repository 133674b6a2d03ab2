"""What TLS and hardening cost: three stacks that run at the same time, each measured in turn. One is the project's own, one is the same
with TLS everywhere, and of one the program has the hardening taken out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Final

from bench.dicom import send
from bench.forward import PER_SERIES, Stack, empty, running, until
from bench.orthanc import store_side_by_side, upload
from bench.phantom import CT, SMALL, Phantom
from bench.results import Results, Row
from bench.session import BenchError, Session

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
        "                data_bytes=_DATA_BYTES,\n": "",
        '            "LuaScripts": [_ROLES_SCRIPT],\n': "",
    },
    "configs/orthanc/base.yaml": {
        "DicomCheckCalledAet: true": "DicomCheckCalledAet: false",
        **{f"DicomAlwaysAllow{caller}: false": f"DicomAlwaysAllow{caller}: true" for caller in _CALLERS},
    },
}


def measure(session: Session, runs: int, *, images: int = IMAGES, uploads: int = UPLOADS, results: Results | None = None) -> None:
    """All ways through all three stacks, run after run; each run begins with another one.

    Args:
        session: the run of the bench.
        runs: how often.
        images: CT images of each transfer.
        uploads: small images of each upload.
        results: where the rows go.
    """
    sender = _Sender(session, results or Results("security"), images, uploads)
    with contextlib.ExitStack() as made:
        stacks = {
            PROJECT: made.enter_context(running(session, "security-project")),
            TLS: made.enter_context(running(session, "security-tls", tls=True)),
            BARE: made.enter_context(running(session, "security-bare", replace=WITHOUT_HARDENING)),
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


class _Sender:
    """Sends the same images by each way."""

    def __init__(self, session: Session, results: Results, images: int, uploads: int) -> None:
        self._results = results
        self._images = images
        self._small = list(_files(Phantom(SMALL), uploads))
        self._folder = session.folder / "security"
        self._folder.mkdir()
        for i, file in enumerate(_files(Phantom(CT), images)):
            (self._folder / f"{i:05}.dcm").write_bytes(file)

    def send(self, system: str, stack: Stack, run: int) -> None:
        """From outside to the client, and from there to the server, by hand and by the forwarder, which does not run before and after."""
        empty(stack)
        done = upload(stack.client, self._small, _CLIENTS)
        if done.errors:
            raise BenchError(f"{system}: the client refused an upload: {done.errors[0]}")
        self._add("upload", system, f"{SMALL.name}, {_CLIENTS} clients", run, len(self._small) / done.seconds)
        empty(stack)
        seconds = send(stack.client, self._folder, stack.workstation)
        self._arrived(system, stack.client.instances())
        self._add("C-STORE", system, "workstation to client", run, self._images / seconds)
        seconds = store_side_by_side(stack.client, [[stack.client.call("GET", "/series")]])
        self._arrived(system, stack.server.instances())
        self._add("C-STORE", system, "client to server, 1 job", run, self._images / seconds)
        stack.server.empty()
        started = time.monotonic()
        stack.start()
        until(stack, self._images)
        seconds = time.monotonic() - started
        self._arrived(system, stack.server.instances())
        self._add("backlog", system, "forwarder, 2 associations", run, self._images / seconds)
        stack.stop()
        empty(stack)

    def _arrived(self, system: str, held: int) -> None:
        if held != self._images:
            raise BenchError(f"{system}: {held} of {self._images} images arrived")

    def _add(self, measure: str, system: str, parameter: str, run: int, rate: float) -> None:
        self._results.add(Row(measure, system, parameter, run, rate, "images/s"))


def _files(phantom: Phantom, count: int) -> Iterator[bytes]:
    return (phantom.file(i // PER_SERIES, i) for i in range(count))
