"""`make verify`: checks a running stack as its users meet it, and says what it found in a table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from configs.names import forwarder_of
from ops.setup.console import SetupError
from ops.stack.containers import ROLE_ONE_SHOT, Container, Docker, expected_names, list_containers
from ops.stack.probes import CheckFailedError, Node, check_adminer, check_echo, check_forwarder, check_index, check_login, nodes_of
from ops.stack.table import table

#: For containers that have just been started; a first start on an empty database takes seconds, an upgrade of one longer.
WAIT_SECONDS = 180
#: For checks that fail: a node whose database was just replaced answers 503 for some seconds.
_AGAIN_SECONDS = 15
_THREADS = 16


@dataclass(frozen=True)
class Result:
    """What a check found.

    Attributes:
        what: the part of the stack.
        check: what was checked.
        ok: whether it passed.
        detail: what was found, or why it failed.
    """

    what: str
    check: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Check:
    """A check to make: run() says what it found, or raises CheckFailedError."""

    what: str
    check: str
    run: Callable[[], str]


def verify(outputs: Mapping[str, Any], prefix: str, docker: Docker, wait_seconds: float = WAIT_SECONDS) -> list[Result]:
    """Check a stack.

    Args:
        outputs: its outputs, secrets in clear.
        prefix: what its containers' names begin with.
        docker: the docker command.
        wait_seconds: how long containers that are still starting are waited for; checks that fail, no longer than _AGAIN_SECONDS.

    Returns:
        what each check found, in the table's order.
    """
    nodes = nodes_of(outputs)
    found = settled(prefix, docker, wait_seconds)
    expected = expected_names(
        prefix,
        [node.name for node in nodes],
        index_db=bool(outputs.get("indexDb")),
        adminer=bool(outputs.get("adminerUrl")),
        forwarding=[node.name for node in nodes if node.forward_to],
    )
    results = container_results(found, expected)
    checks = list(service_checks(outputs, nodes, prefix, docker))
    with ThreadPoolExecutor(_THREADS) as threads:
        return results + list(threads.map(lambda check: _make(check, min(wait_seconds, _AGAIN_SECONDS)), checks))


def settled(prefix: str, docker: Docker, wait_seconds: float) -> list[Container]:
    """The stack's containers, when none is starting any more or the time is up."""
    end = time.monotonic() + wait_seconds
    while True:
        found = list_containers(docker, prefix)
        if not any(container.starting for container in found) or time.monotonic() > end:
            return found
        time.sleep(0.5)


def container_results(found: Iterable[Container], expected: Iterable[str]) -> list[Result]:
    """What the containers' states mean; the one-shot container is expected to have ended well."""
    containers = {container.name: container for container in found}
    one_shots = {name for name, container in containers.items() if container.role == ROLE_ONE_SHOT}
    results = []
    for name in sorted({*expected, *one_shots}):
        container = containers.get(name)
        if container is None:
            results.append(Result(name, "container", False, "there is none: run `make up`"))
        elif container.well:
            results.append(Result(name, "container", True, container.status))
        else:
            results.append(Result(name, "container", False, f"{container.status}; see: docker logs --tail 30 {name}"))
    return results


def service_checks(outputs: Mapping[str, Any], nodes: Sequence[Node], prefix: str, docker: Docker) -> Iterable[Check]:
    """Everything to check besides the containers themselves."""
    by_name = {node.name: node for node in nodes}
    for node in nodes:
        for user in node.users:
            yield Check(node.name, f"login of {user}", lambda node=node, user=user: check_login(node, user))  # type: ignore[misc]
    for node in nodes:
        # A modality that a node forwards to is somebody else's, and may be off: that is no fault of this stack.
        for peer in (by_name[name] for name in node.forward_to if name in by_name):
            for one, other in ((node, peer), (peer, node)):
                yield Check(one.name, f"C-ECHO to {other.name}", lambda one=one, other=other: check_echo(one, other))  # type: ignore[misc]
    for node in nodes:
        yield Check(node.name, "index", lambda node=node: check_index(node, docker, f"{prefix}-db"))  # type: ignore[misc]
    for node in nodes:
        if node.forward_to:
            container = f"{prefix}-{forwarder_of(node.name)}"
            yield Check(node.name, "forwarder", lambda container=container: check_forwarder(docker, container))  # type: ignore[misc]
    if url := outputs.get("adminerUrl"):
        yield Check("adminer", "web page", lambda: check_adminer(url))


def report(results: Sequence[Result]) -> tuple[str, int]:
    """The table with a closing line, and the exit status."""
    rows = [(result.what, result.check, "ok" if result.ok else "FAILED", result.detail) for result in results]
    failed = sum(not result.ok for result in results)
    closing = f"{len(results)} checks, all ok" if not failed else f"{failed} of {len(results)} checks FAILED"
    return f"{table(('part', 'check', 'result', 'what was found'), rows)}\n\n  {closing}", 1 if failed else 0


def _make(check: Check, seconds: float) -> Result:
    """Make a check, again and again for some seconds where it fails."""
    end = time.monotonic() + seconds
    while True:
        try:
            return Result(check.what, check.check, True, check.run())
        except (CheckFailedError, SetupError) as error:
            detail = " ".join(str(error).split())
        except (KeyError, ValueError, StopIteration) as error:
            detail = f"an answer that was not expected: {type(error).__name__} {error}"
        if time.monotonic() >= end:
            return Result(check.what, check.check, False, detail)
        time.sleep(1)
