"""`check` holds a stack file to every rule. `verify` checks a running stack as its users meet it, and prints what it found in a table."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from configs.loader import load_stack_file
from configs.names import DB_HOST, forwarder_of, short_name
from configs.plan import plan_of
from configs.problems import SettingsError
from configs.secrets import secret_keys
from ops.setup.console import SetupError
from ops.stack.engine import Container, amiss, containers_of, is_here
from ops.stack.probes import CheckFailedError, check_adminer, check_echo, check_forwarder, check_index, check_login, nodes_of
from ops.stack.stack import Stack, deployed
from ops.stack.terminal import NOT_WELL, table

#: For containers that have just been started; a first start on an empty database takes seconds, an upgrade of one longer.
WAIT_SECONDS: Final = 180
#: For checks that fail: a node whose database was just replaced answers 503 for some seconds.
_AGAIN_SECONDS: Final = 15
_THREADS: Final = 16


@dataclass(frozen=True)
class Result:
    """What a check found."""

    what: str  #: the part of the stack
    check: str  #: what was checked
    outcome: str  #: "ok", "FAILED", or "not checked" where it cannot be checked from here
    detail: str  #: what was found, or why it failed


@dataclass(frozen=True)
class Check:
    """A check to make."""

    what: str  #: the part of the stack
    check: str  #: what is checked
    run: Callable[[], str]  #: says what it found, or raises CheckFailedError
    away: str = ""  #: why it cannot be made from here; empty where it can


def check(name: str, *, as_json: bool) -> int:
    """Print what a stack file describes, or everything that is wrong with it; 1 where it is refused. Asks neither engine nor state."""
    short = short_name(name)
    try:
        settings = load_stack_file(name)
    except SettingsError as error:
        if not as_json:
            raise
        print(json.dumps({"stack": short, "accepted": False, "problems": str(error)}, indent=1))
        return 1
    if as_json:
        print(json.dumps({"stack": short, "accepted": True, "topology": plan_of(settings).topology}, indent=1))
        return 0
    nodes = ", ".join(node.name for node in settings.nodes)
    links = ", ".join(f"{node.name} -> {', '.join(sorted(node.targets))}" for node in settings.forwarding_nodes)
    print(f"  Pulumi.{short}.yaml is accepted: {len(settings.nodes)} nodes ({nodes}); links: {links or 'none'}.")
    print(f"  It needs these secrets: {', '.join(secret_keys(settings))}.")
    return 0


def verify_stack(name: str) -> int:
    """Check a stack that runs; 0, or NOT_WELL where a check failed."""
    stack = deployed(name)
    if not stack.held().containers:
        raise SetupError(f"there is nothing to check: no container of the stack {name} is deployed. `./orthanc-stack up {name}` does that.")
    return report(verify(stack, stack.outputs(show_secrets=True)))


def verify(stack: Stack, outputs: Mapping[str, Any], wait_seconds: float = WAIT_SECONDS) -> list[Result]:
    """What each check of a stack finds, in the table's order.

    Args:
        stack: the stack.
        outputs: its outputs, secrets in clear.
        wait_seconds: how long containers that are still starting are waited for; checks that fail, no longer than _AGAIN_SECONDS.
    """
    end = time.monotonic() + wait_seconds
    while True:
        found = containers_of(stack)
        if not any(container.starting for container in found) or time.monotonic() > end:
            break
        time.sleep(0.5)
    checks = service_checks(outputs, {container.name: container for container in found}, stack.prefix)
    with ThreadPoolExecutor(_THREADS) as threads:
        made = list(threads.map(lambda check: _make(check, min(wait_seconds, _AGAIN_SECONDS)), checks))
    earlier = f"ended, or is at work, while it changes {', '.join(stack.unfinished)}: `./orthanc-stack up {stack.name}` puts that right"
    run = [Result("stack", "earlier run", "FAILED", earlier)] if stack.unfinished else []
    return run + container_results(found, amiss(stack.resources, found)) + made


def container_results(found: Sequence[Container], lost: Mapping[str, str]) -> list[Result]:
    """Whether each container is as it was deployed."""
    results = [Result(one.name, "container", "ok", one.said) for one in found if one.well]
    results += [Result(one.name, "container", "FAILED", "is still starting") for one in found if one.starting]
    for name, what in lost.items():
        mend = "there is none: `up` makes it" if what == "missing" else f"{what}; see: docker logs --tail 30 {name}"
        results.append(Result(name, "container", "FAILED", mend))
    return sorted(results, key=lambda result: result.what)


def service_checks(outputs: Mapping[str, Any], containers: Mapping[str, Container], prefix: str) -> Iterator[Check]:
    """Everything to check besides the containers themselves."""
    nodes = nodes_of(outputs)
    by_name = {node.name: node for node in nodes}
    # 127.0.0.1 of another machine is not ours: another stack may answer there.
    away = {
        node.name: "" if is_here() or not node.loopback else "its port is bound to 127.0.0.1 of the engine's machine: verify there"
        for node in nodes
    }
    for node in nodes:
        for user in node.users:
            yield Check(node.name, f"login of {user}", partial(check_login, node, user), away[node.name])
    for node in nodes:
        # A modality that a node forwards to is somebody else's, and may be off: that is no fault of this stack.
        for peer in (by_name[name] for name in node.forward_to if name in by_name):
            for one, other in ((node, peer), (peer, node)):
                yield Check(one.name, f"C-ECHO to {other.name}", partial(check_echo, one, other), away[one.name])
    for node in nodes:
        yield Check(node.name, "index", partial(check_index, node, containers.get(f"{prefix}-{DB_HOST}")), away[node.name])
    for node in nodes:
        if node.forward_to:
            container = containers.get(f"{prefix}-{forwarder_of(node.name)}")
            yield Check(node.name, "forwarder", partial(check_forwarder, container))
    if url := outputs.get("adminerUrl"):
        yield Check("adminer", "web page", partial(check_adminer, url), "" if is_here() else "it is the engine's machine's alone")


def report(results: Sequence[Result]) -> int:
    """Print the table with a closing line; the exit status."""
    colours = {"ok": "", "FAILED": "red", "not checked": "yellow"}
    rows = [(result.what, result.check, result.outcome, result.detail) for result in results]
    table(("part", "check", "result", "what was found"), rows, [colours[result.outcome] for result in results])
    counted = Counter(result.outcome for result in results)
    failed, away = counted["FAILED"], counted["not checked"]
    made = len(results) - away
    print(f"\n  {failed} of {made} checks FAILED" if failed else f"\n  {made} checks, all ok", end="")
    print(f"; {away} more cannot be made from here" if away else "")
    return NOT_WELL if failed else 0


def _make(check: Check, seconds: float) -> Result:
    """Make a check, again and again for some seconds where it fails."""
    if check.away:
        return Result(check.what, check.check, "not checked", check.away)
    end = time.monotonic() + seconds
    while True:
        try:
            return Result(check.what, check.check, "ok", check.run())
        except (CheckFailedError, SetupError) as error:
            detail = " ".join(str(error).split())
        except (LookupError, ValueError, TypeError, AttributeError, StopIteration) as error:
            detail = f"an answer that was not expected: {type(error).__name__} {error}"
        if time.monotonic() >= end:
            return Result(check.what, check.check, "FAILED", detail)
        time.sleep(1)
