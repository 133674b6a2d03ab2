"""What a node costs when there is nothing to do: no-op up and preview at 2, 10, 25 and 50 nodes that are deployed."""

from __future__ import annotations

from typing import Any, Final

from bench.pulumi_stack import PulumiStack, copy_program
from bench.results import Row
from bench.session import Session

NODES: Final = (2, 10, 25, 50)


def measure(session: Session, runs: int) -> None:
    """Deploy more and more nodes by editing only the stack file, and measure at each step."""
    results, steps = session.results("scale"), session.size(NODES, (2, 3))
    whole = star(session, max(steps))
    settings = {count: {**whole, "nodes": whole["nodes"][:count]} for count in steps}
    stack = PulumiStack(session, copy_program(session.folder / "scale"), settings[steps[0]])
    for count in steps:
        stack.settings = settings[count]
        stack.write()
        grown = stack.up()
        results.add(Row("growing up", "pulumi", f"{count} nodes", 1, grown.seconds, "s", str(grown.changes)))
        with stack.paused():
            for run in range(1, runs + 1):
                for operation in ("up", "preview"):
                    results.add(Row(f"no-op {operation}", "pulumi", f"{count} nodes", run, stack.no_op(operation), "s"))
    stack.destroy()


def star(session: Session, count: int) -> dict[str, Any]:
    """Settings of so many nodes: an archive, and clients that forward to it, so that each further node brings its forwarder with it.

    Each index is in SQLite, so that nothing else grows with the nodes.
    """
    names = ["archive", *(f"client-{number}" for number in range(1, count))]
    return {
        "environment": "dev",
        "images": {"source": "auto"},
        "nodes": [
            {
                "name": name,
                "aet": name.upper(),
                "httpPort": session.free_port(),
                "dicomPort": session.free_port(),
                "index": "sqlite",
                "forwardTo": [] if name == "archive" else ["archive"],
            }
            for name in names
        ],
    }
