"""From nothing to all healthy, and with nothing to do: Pulumi against docker compose and against a Pulumi program that does nothing."""

from __future__ import annotations

import time
from typing import Final

from bench.compose import Compose
from bench.events import DockerEvents, docker_events
from bench.pulumi_stack import PulumiStack, copy_program, dev_settings, empty_program
from bench.results import Results, Row
from bench.session import BenchError, Session

#: What a first up of the dev topology waits for, one after the other: logical name -> container.
_WAY: Final = {"index": "", "db-container": "db", "db-roles": "db-roles", "server-container": "server"}


def measure(session: Session, runs: int) -> None:
    """Deploy, again with nothing to do, preview, remove; in turns, each time with a new stack and new volumes."""
    results = session.results("deploy")
    program = copy_program(session.folder / "deploy")
    empty = PulumiStack(session, empty_program(session.folder / "empty"))
    empty.up()
    # Run 0 is not measured: files that are read for the first time, Python's compiled modules, and compose's file.
    for run in range(session.size(0, 1), runs + 1):
        # Who begins changes, so that neither always finds the machine as the other left it.
        for turn in ("pulumi", "compose") if run % 2 else ("compose", "pulumi"):
            stack = PulumiStack(session, program, dev_settings(session))
            if turn == "pulumi":
                _pulumi(stack, empty, results, run)
            else:
                _compose(stack, results, run)
    empty.destroy()


def _pulumi(stack: PulumiStack, empty: PulumiStack, results: Results, run: int) -> None:
    with docker_events() as docker:
        first = stack.up()
    with stack.paused():
        systems = {"pulumi": stack, "empty program": empty}
        no_ops = {(system, operation): one.no_op(operation) for system, one in systems.items() for operation in ("up", "preview")}
    stack.destroy()
    if not run:
        return
    results.add(Row("first up", "pulumi", "", run, first.seconds, "s"))
    for phase, seconds in first.phases(_WAY, docker, stack.prefix).items():
        results.add(Row("first up, phase", "pulumi", phase, run, seconds, "s"))
    for (system, operation), seconds in no_ops.items():
        results.add(Row(f"no-op {operation}", system, "", run, seconds, "s"))


def _compose(stack: PulumiStack, results: Results, run: int) -> None:
    project = Compose(stack)
    try:
        with docker_events() as docker:
            started = time.time()
            first = project.up()
        again, quick = project.up(), project.up(wait=False)
    finally:
        project.down()
    if not run:
        return
    results.add(Row("first up", "compose", "", run, first, "s"))
    for phase, seconds in _compose_phases(docker, stack.prefix, started, first).items():
        results.add(Row("first up, phase", "compose", phase, run, seconds, "s"))
    results.add(Row("no-op up", "compose", "up -d --wait", run, again, "s"))
    results.add(Row("no-op up", "compose", "up -d", run, quick, "s"))


def _compose_phases(docker: DockerEvents, prefix: str, started: float, seconds: float) -> dict[str, float]:
    """What compose's time was spent on; it makes networks, volumes and all containers first, then starts them in their order."""
    created = max(seen for seen, name, action in docker.seen if name.startswith(prefix) and action == "create")
    spent, at = {"networks, volumes, containers made": created - started}, created
    for part in ("db", "db-roles", "server"):
        ready = docker.ready(f"{prefix}-{part}")
        if ready is None:
            raise BenchError(f"{part} of {prefix} was never ready")
        spent[part], at = max(0.0, ready - at), max(ready, at)
    spent["seen late (polling)"] = max(0.0, started + seconds - at)
    return spent
