"""What a container costs when there is nothing to do: no-op up and preview at 2, 10, 25 and 50 nodes that really run."""

from __future__ import annotations

from typing import Any, Final

from bench.pulumi_stack import PulumiStack, copy_program
from bench.results import Row
from bench.session import BenchError, Session

NODES: Final = (2, 10, 25, 50)


def measure(session: Session, runs: int) -> None:
    """Deploy more and more nodes by editing only the stack file, and measure at each step.

    Nodes with their index in SQLite, one container each, in pairs: the second of a pair forwards to the first.
    """
    results = session.results("scale")
    settings: dict[str, Any] = {"environment": "dev", "images": {"source": "auto"}, "nodes": []}
    stack: PulumiStack | None = None
    program = copy_program(session.folder / "scale")
    for count in session.size(NODES, (2, 3)):
        held = len(settings["nodes"])
        settings["nodes"] += [_node(session, number, first=held + 1) for number in range(held + 1, count + 1)]
        if stack is None:
            stack = PulumiStack(session, program, settings)
        stack.settings = settings
        stack.write()
        first = stack.up()
        results.add(Row("growing up", "pulumi", f"{count} containers", 1, first.seconds, "s", str(first.changes)))
        for run in range(1, runs + 1):
            for measure_, operation in (("no-op up", stack.up), ("no-op preview", stack.preview)):
                timed = operation()
                if not timed.is_no_op:
                    raise BenchError(f"there should be nothing to do with {count} nodes, but: {timed.changes}")
                results.add(Row(measure_, "pulumi", f"{count} containers", run, timed.seconds, "s"))
    if stack:
        stack.destroy()


def _node(session: Session, number: int, *, first: int) -> dict[str, Any]:
    """A node; its link goes to one that comes with it, since one that runs would have to be replaced to know it."""
    return {
        "name": f"node-{number}",
        "aet": f"NODE_{number}",
        "httpPort": session.free_port(),
        "dicomPort": session.free_port(),
        "index": "sqlite",
        "forwardTo": [f"node-{number - 1}"] if (number - first) % 2 else [],
    }
