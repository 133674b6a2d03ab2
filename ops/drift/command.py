"""The command: gathers, compares, writes the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from ops.drift.containers import check_container
from ops.drift.deployed import deployed_of
from ops.drift.engine import Engine, ReadFiles, file_reader, look
from ops.drift.findings import Finding
from ops.drift.others import check_image, check_network, check_unknown, check_volume
from ops.drift.refresh import check_refresh
from ops.drift.report import as_json, markdown, ordered, verdict
from ops.setup.console import ROOT, say
from ops.stack.containers import docker_runner
from ops.stack.recover import refuse_interrupted
from ops.stack.stack import Stack
from ops.stack.stack import deployed as deployed_stack

FOLDER: Final = "artifacts/drift"
#: The exit status for drift; 1 is for errors.
DRIFTED: Final = 2
_THREADS: Final = 8


def drift(name: str) -> int:
    """Report what of a stack was changed by hand; 0 for nothing, DRIFTED for something.

    Writes artifacts/drift/<stack>.md and .json. After an error there is neither: `make` itself ends with 2 whatever the status was.

    Raises:
        SetupError: it could not be found out.
    """
    files = [ROOT / FOLDER / f"{name.replace('/', '-')}.{suffix}" for suffix in ("md", "json")]
    for file in files:
        file.unlink(missing_ok=True)
    stack = deployed_stack(name)
    refuse_interrupted(stack)
    findings = look_for_drift(stack)
    files[0].parent.mkdir(parents=True, exist_ok=True)
    for file, text in zip(files, (markdown(name, findings), as_json(name, findings)), strict=True):
        file.write_text(text, encoding="utf-8")
    _tell(name, findings, files[0])
    return DRIFTED if findings else 0


def look_for_drift(stack: Stack) -> list[Finding]:
    """All that is not as it was deployed, in the report's order."""
    # In this process alone, to be compared with what is inside the containers.
    exported = json.loads(stack.ask("stack", "export", "--show-secrets"))
    resources = (exported.get("deployment") or {}).get("resources") or ()
    docker = docker_runner(stack.tools.docker)
    engine = look(docker, deployed_of(resources, stack.prefix), stack.prefix)
    with ThreadPoolExecutor(1) as side:
        refreshed = side.submit(stack.ask, "refresh", "--preview-only", "--json", "--non-interactive")
        found = compare(resources, engine, file_reader(stack.tools.docker), stack.prefix)
        steps = json.loads(refreshed.result()).get("steps") or ()
    return ordered([*found, *check_refresh(steps, deployed_of(resources, stack.prefix), engine, found)])


def compare(resources: Sequence[Mapping[str, Any]], engine: Engine, read: ReadFiles, prefix: str) -> list[Finding]:
    """What the engine tells, against a state.

    Args:
        resources: the state's, secrets in clear.
        engine: what the engine holds.
        read: reads files out of containers.
        prefix: what the names of the stack's containers begin with.
    """
    deployed = deployed_of(resources, prefix)
    containers = [one for one in deployed if one.kind == "container"]
    networks = {one.name: one.id for one in deployed if one.kind == "network"}
    with ThreadPoolExecutor(_THREADS) as threads:
        checks = threads.map(lambda one: list(check_container(one, engine, read, prefix, networks)), containers)
        found = [finding for check in checks for finding in check]
    for one in deployed:
        if one.kind == "volume":
            found += check_volume(one, engine)
        elif one.kind == "network":
            found += check_network(one, engine, containers)
        elif one.kind == "image":
            found += check_image(one, engine)
    return [*found, *check_unknown(deployed, engine, prefix)]


def _tell(name: str, findings: Sequence[Finding], file: Path) -> None:
    print()
    for finding in findings:
        print(f"  {finding.part.title}: {finding.said}")
    print(f"\n  {verdict(name, findings)}")
    say("Drift", f"{file.relative_to(ROOT)} has this, with what puts it right")
