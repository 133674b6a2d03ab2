"""What a node costs when there is nothing to do: no-op up and preview at 2, 10, 25 and 50 nodes that are deployed."""

from __future__ import annotations

from typing import Any, Final

from bench.pulumi_stack import PulumiStack, copy_program
from bench.results import Row
from bench.session import Session

NODES: Final = (2, 10, 25, 50)
_ARCHIVE: Final = "archive"


def measure(session: Session, runs: int) -> None:
    """Deploy more and more nodes by editing only the stack file, and measure at each step.

    An archive, and clients that forward to it: each further node brings its forwarder with it. Each index is in SQLite, so that nothing
    else grows.
    """
    results, steps = session.results("scale"), session.size(NODES, (2, 3))
    nodes = [_node(session, number) for number in range(max(steps))]
    settings = {"environment": "dev", "images": {"source": "auto"}}
    stack = PulumiStack(session, copy_program(session.folder / "scale"), {**settings, "nodes": nodes[: steps[0]]})
    for count in steps:
        stack.settings = {**settings, "nodes": nodes[:count]}
        stack.write()
        grown = stack.up()
        results.add(Row("growing up", "pulumi", f"{count} nodes", 1, grown.seconds, "s", str(grown.changes)))
        with stack.paused():
            for run in range(1, runs + 1):
                for operation in ("up", "preview"):
                    results.add(Row(f"no-op {operation}", "pulumi", f"{count} nodes", run, stack.no_op(operation), "s"))
    stack.destroy()


def _node(session: Session, number: int) -> dict[str, Any]:
    """The archive, for number 0, or a client of it."""
    return {
        "name": f"client-{number}" if number else _ARCHIVE,
        "aet": f"CLIENT_{number}" if number else _ARCHIVE.upper(),
        "httpPort": session.free_port(),
        "dicomPort": session.free_port(),
        "index": "sqlite",
        "forwardTo": [_ARCHIVE] if number else [],
    }
