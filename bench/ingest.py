"""HTTP uploads to the archive: images per second and errors, and the same for each number of connections to the index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bench.orthanc import Node, upload
from bench.phantom import CT, SMALL, Kind, Phantom
from bench.pulumi_stack import PulumiStack
from bench.results import Results, Row
from bench.session import BenchError, Session
from bench.stack import running
from configs.loader import parse
from configs.orthanc import index_connections

#: What is sent in one run: enough that an error in a thousand is seen.
COUNTS: Final = {SMALL: 4_000, CT: 400}
CLIENTS: Final = (4, 16)
CONNECTIONS: Final = (1, 2, 4, 8, 16)
#: The counts that the project does not choose are there to compare with: this many runs at most.
_RUNS_OF_OTHERS: Final = 3
#: Images of one series. All clients send from the same series at a time, as a modality with several associations does: the transactions
#: collide on the rows of patient, study and series.
_PER_SERIES: Final = 100


def measure(session: Session, runs: int) -> None:
    """Upload to the server of a dev stack."""
    sender = _Sender(session.results("ingest"), session.size(1.0, 0.01))
    with running(session, "ingest") as stack:
        chosen = _connections(stack.project)
        others = [count for count in session.size(CONNECTIONS, CONNECTIONS[-1:]) if count != chosen]
        for count in (chosen, *others):
            _set_connections(stack.project, count)
            for run in range(1, (runs if count == chosen else min(runs, _RUNS_OF_OTHERS)) + 1):
                if count == chosen:
                    for kind in COUNTS:
                        for clients in CLIENTS:
                            sender.send(stack.server, count, kind, clients, run)
                else:
                    sender.send(stack.server, count, SMALL, CLIENTS[-1], run)


class _Sender:
    """Sends and counts; each series that it sends is a new one."""

    def __init__(self, results: Results, scale: float) -> None:
        self._results = results
        self._scale = scale
        self._phantoms = {kind: Phantom(kind) for kind in COUNTS}
        self._series = 0

    def send(self, server: Node, connections: int, kind: Kind, clients: int, run: int) -> None:
        """One upload; the archive is empty before and after."""
        files = self._files(kind, max(clients, round(COUNTS[kind] * self._scale)))
        done = upload(server, files, clients)
        stored, held = len(done.identifiers), server.instances()
        system, parameter = f"{connections} connections", f"{kind.name}, {clients} clients"
        lost = f"; the archive holds {held} of {stored} that it said were stored" if held != stored else ""
        self._results.add(Row("ingest", system, parameter, run, stored / done.seconds, "images/s", f"{len(files)} sent{lost}"))
        bodies = " | ".join(sorted(set(done.errors)))[:1500]
        self._results.add(Row("ingest errors", system, parameter, run, len(done.errors), f"of {len(files)}", bodies))
        server.empty()

    def _files(self, kind: Kind, count: int) -> Sequence[bytes]:
        phantom, first = self._phantoms[kind], self._series
        self._series += -(-count // _PER_SERIES)
        return [phantom.file(first + i // _PER_SERIES, first * _PER_SERIES + i) for i in range(count)]


def _connections(stack: PulumiStack) -> int:
    """What the project's own settings say for the server."""
    settings, _, problems = parse(stack.settings or {})
    if settings is None:
        raise BenchError(str(problems))
    return index_connections(next(node for node in settings.nodes if node.name == "server"), settings)


def _set_connections(stack: PulumiStack, count: int) -> None:
    """Deploy with so many connections between the server and its index; said in its `orthanc:` block, as a user does."""
    assert stack.settings
    server = next(node for node in stack.settings["nodes"] if node["name"] == "server")
    server["orthanc"] = {"PostgreSQL": {"IndexConnectionsCount": count}}
    stack.write()
    stack.up()
