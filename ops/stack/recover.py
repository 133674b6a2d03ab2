"""Puts a stack right that an interrupted run left: its lock, and what the run was making when it ended.

Acts on what Pulumi's state names as pending, where this state made it, and on nothing else: on the same engine may be a stack of the same
name that another checkout made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from configs.names import LABEL_OWNER
from ops.setup.console import SetupError, say
from ops.stack.containers import CONTAINER_TYPE, Docker, Thing
from ops.stack.stack import Stack, at_work

_LABEL = "Recovery"
#: Volumes hold data: making one that exists does no harm, so none is ever removed. In the order in which they can be.
_REMOVED: Final = {CONTAINER_TYPE: "container", "docker:index/network:Network": "network"}


def refuse_interrupted(stack: Stack) -> None:
    """Refuse to look at a stack that is between two states.

    Raises:
        SetupError: its last run did not end well.
    """
    if was_interrupted(stack):
        raise SetupError(f"the last run on {stack.name} did not end well: `make up STACK={stack.name}` puts that right first.")


def was_interrupted(stack: Stack) -> bool:
    """Whether an earlier run left the stack in the middle of a change.

    Raises:
        SetupError: that run is still at work.
    """
    marker = stack.marker()
    if not marker.exists():
        return False
    if (pid := at_work(marker)) is not None:
        raise SetupError(f"process {pid} is working on the stack {stack.name}. Let it finish, or stop it (kill {pid}), and try again.")
    return True


def recover(stack: Stack, docker: Docker) -> bool:
    """Make an interrupted stack ready for the next `pulumi up`.

    Returns:
        whether that `up` has to refresh first; False when this has refreshed already.
    """
    say(_LABEL, f"the last run on {stack.name} did not end well: putting it right first")
    # Fails when there is nothing to cancel, which is as well.
    stack.try_("cancel", "--yes")
    deployment = stack.export()
    pending = deployment.get("pending_operations") or ()
    if not pending:
        return True
    remove(docker, half_made(pending, stack.held().owner, docker))
    # What was being made is gone now, or is a volume, which is made again without harm.
    status = stack.run("refresh", "--yes", "--skip-preview", "--clear-pending-creates", "--suppress-outputs")
    if status != 0:
        raise SetupError(f"`pulumi refresh` failed (exit status {status}); what it says is above.")
    return False


def half_made(pending: Iterable[Mapping[str, Any]], owner: str, docker: Docker) -> list[Thing]:
    """What a run was making when it ended, and this state made: never a volume.

    Args:
        pending: the state's pending operations.
        owner: the identifier that the state gives to what it makes; empty where it has made nothing.
        docker: the docker command.

    Returns:
        containers first, since a network in use cannot be removed.
    """
    wanted: dict[str, set[str]] = {kind: set() for kind in _REMOVED.values()}
    for operation in pending:
        resource = operation.get("resource") or {}
        if operation.get("type") == "creating" and resource.get("type") in _REMOVED:
            wanted[_REMOVED[resource["type"]]].add(str((resource.get("inputs") or {}).get("name")))
    if not owner:
        return []
    ours = ["--no-trunc", "--filter", f"label={LABEL_OWNER}={owner}"]
    found = []
    for kind, listed, name in (("container", ("ps", "--all"), "{{.Names}}"), ("network", ("network", "ls"), "{{.Name}}")):
        shown = docker([*listed, *ours, "--format", "{{.ID}} " + name]) if wanted[kind] else ""
        things = (Thing(kind, *line.split(" ")) for line in shown.splitlines())
        found += sorted((thing for thing in things if thing.name in wanted[kind]), key=lambda thing: thing.name)
    return found


def remove(docker: Docker, things: Sequence[Thing]) -> None:
    """Remove containers, stopping them as they want to be stopped, and networks."""
    containers = [thing for thing in things if thing.kind == "container"]
    networks = [thing for thing in things if thing.kind == "network"]
    if containers:
        identifiers = [thing.id for thing in containers]
        docker(["stop", "-t", "60", *identifiers])
        docker(["rm", *identifiers])
    if networks:
        docker(["network", "rm", *(thing.id for thing in networks)])
    for thing in things:
        say(_LABEL, f"removed the {thing.kind} {thing.name}, which was not made to its end")
