"""The command: looks, compares, writes the report."""

import contextlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from configs.names import short_name
from ops.drift.containers import ReadFile, check_container, read_file
from ops.drift.deployed import Engine, State, look, state_of
from ops.drift.findings import Finding, listed, markdown, ordered, report_json
from ops.drift.others import check_image, check_network, check_unknown, check_volume
from ops.drift.refresh import check_refresh
from ops.setup.console import ROOT, SetupError, say
from ops.stack.engine import client, engine_errors
from ops.stack.stack import Stack
from ops.stack.stack import deployed as deployed_stack
from ops.stack.terminal import NOT_WELL


def drift(name: str, *, as_json: bool = False) -> int:
    """Report what of a stack was changed by hand, in artifacts/drift/<stack>.md and .json; after an error there is neither.

    It prints one of them to standard output. Returns 0 for nothing, NOT_WELL for something.

    Raises:
        SetupError: it could not be found out.
    """
    text, data = (ROOT / "artifacts" / "drift" / f"{short_name(name)}.{suffix}" for suffix in ("md", "json"))
    for file in (text, data):
        file.unlink(missing_ok=True)
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        stack = deployed_stack(name)
        findings, names = look_for_drift(stack), listed(set(stack.unfinished))
        first = f"`./orthanc-stack up {name}` puts that right (after `unlock`, where it died): run it first, and then look again."
        note = f"An earlier run is still at work or ended in the middle; it was changing {names}. {first}" if names else ""
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(markdown(name, findings, note), encoding="utf-8")
        data.write_text(report_json(name, findings, note), encoding="utf-8")
        say("Drift", f"this report is in {text.relative_to(ROOT)}, for programs in {data.relative_to(ROOT)}")
    print((data if as_json else text).read_text(encoding="utf-8"))
    return NOT_WELL if findings else 0


def look_for_drift(stack: Stack) -> list[Finding]:
    """All that is not as it was deployed, in the report's order.

    Raises:
        SetupError: Pulumi or the engine does not answer, or the engine holds nothing of the stack.
    """
    # Secrets in clear: they are compared with what is inside the containers, and go nowhere else.
    exported = json.loads(stack.ask("stack", "export", "--show-secrets"))
    state = state_of((exported.get("deployment") or {}).get("resources") or (), stack.prefix)
    with ThreadPoolExecutor(1) as side:
        refreshed = side.submit(stack.ask, "refresh", "--preview-only", "--json", "--non-interactive")
        engine = look(client(), state)
        found = compare(state, engine, partial(read_file, client()))
        steps = json.loads(refreshed.result()).get("steps") or ()
    if state.deployed and all(kind == "image" for kind, _ in engine):
        # No commands here that would make the state forget data volumes.
        asked = "is it the engine that the stack was deployed to? DOCKER_HOST, `docker context` or docker:host in the stack file choose it"
        raise SetupError(f"this Docker engine holds nothing of the stack {stack.name}: {asked}.")
    with engine_errors():
        limits_swap = bool(client().info().get("SwapLimit", True))
    return ordered([*found, *check_refresh(steps, state, found, limits_swap=limits_swap)])


def compare(state: State, engine: Engine, read: ReadFile) -> list[Finding]:
    """What differs between the state and the engine and a refresh does not see."""
    found = list(check_unknown(state, engine))
    for one in state.deployed:
        if one.kind == "container":
            found += check_container(one, state, engine, read)
        elif one.kind == "volume":
            found += check_volume(one, state, engine)
        elif one.kind == "network":
            found += check_network(one, state, engine)
        else:
            found += check_image(one, engine)
    return found
