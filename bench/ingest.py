"""HTTP uploads to the archive: images per second and errors, and the same for each number of connections to the index."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Final

from bench.orthanc import Node, upload
from bench.phantom import CT, SMALL, Phantom
from bench.pulumi_stack import PulumiStack
from bench.results import Row
from bench.session import Session
from bench.stack import running
from configs.orthanc import index_connections

#: What is sent in one run: enough that an error in a thousand is seen. All clients send from the same series at a time, as a modality with
#: several associations does: the transactions collide on the rows of patient, study and series.
COUNTS: Final = {SMALL: 4_000, CT: 400}
CLIENTS: Final = (4, 16)
CONNECTIONS: Final = (1, 2, 4, 8, 16)
#: The counts that the project does not choose are there to compare with: this many runs at most.
_RUNS_OF_OTHERS: Final = 3


def measure(session: Session, runs: int) -> None:
    """Upload to the server of a dev stack; each upload has new series."""
    results, scale = session.results("ingest"), session.size(1.0, 0.01)
    phantoms = {kind: Phantom(kind) for kind in COUNTS}
    new_series = itertools.count(0, max(COUNTS.values()))
    with running(session, "ingest") as stack:
        chosen = _connections(stack)
        others = [count for count in session.size(CONNECTIONS, CONNECTIONS[-1:]) if count != chosen]
        for count in (chosen, *others):
            _set_connections(stack, count)
            own = count == chosen
            for run in range(1, (runs if own else min(runs, _RUNS_OF_OTHERS)) + 1):
                for kind, clients in itertools.product(COUNTS, CLIENTS) if own else [(SMALL, CLIENTS[-1])]:
                    files = list(phantoms[kind].files(max(clients, round(COUNTS[kind] * scale)), next(new_series)))
                    system, parameter = f"{count} connections", f"{kind.name}, {clients} clients"
                    for row in _rows(stack.server, files, clients, system=system, parameter=parameter, run=run):
                        results.add(row)


def _rows(server: Node, files: Sequence[bytes], clients: int, *, system: str, parameter: str, run: int) -> Iterator[Row]:
    """One upload; the archive is empty before and after."""
    done = upload(server, files, clients)
    stored, held = len(done.identifiers), server.instances()
    server.empty()
    lost = f"; the archive holds {held} of {stored} that it said were stored" if held != stored else ""
    yield Row("ingest", system, parameter, run, stored / done.seconds, "images/s", f"{len(files)} sent{lost}")
    bodies = " | ".join(sorted(set(done.errors)))[:1500]
    yield Row("ingest errors", system, parameter, run, len(done.errors), f"of {len(files)}", bodies)


def _connections(stack: PulumiStack) -> int:
    """What the project's own settings say for the server."""
    settings = stack.parsed()
    return index_connections(next(node for node in settings.nodes if node.name == "server"), settings)


def _set_connections(stack: PulumiStack, count: int) -> None:
    """Deploy with so many connections between the server and its index; said in its `orthanc:` block, as a user does."""
    assert stack.settings
    server = next(node for node in stack.settings["nodes"] if node["name"] == "server")
    server["orthanc"] = {"PostgreSQL": {"IndexConnectionsCount": count}}
    stack.write()
    stack.up()
