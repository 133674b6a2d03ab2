"""Puts a stack right that an interrupted run left: its lock, what Docker has and Pulumi does not know, what Pulumi waits for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ops.containers import CONTAINER_TYPE, Docker, Thing, list_containers, list_networks
from ops.setup.console import SetupError, say
from ops.stack import Stack, at_work

_LABEL = "Recovery"
#: In the order in which they can be removed. Volumes hold data: making one that exists does no harm, so none is ever removed.
_REMOVED_KINDS: Final = ("container", "network")
_STATE_TYPES: Final = frozenset({CONTAINER_TYPE, "docker:index/network:Network"})


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
    remove(docker, leftovers([*_held(docker, stack.prefix), *list_networks(docker, stack.prefix)], deployment.get("resources") or ()))
    if not deployment.get("pending_operations"):
        return True
    # What was being made when it was killed was removed above, or is a volume, which is made again without harm.
    status = stack.run("refresh", "--yes", "--skip-preview", "--clear-pending-creates", "--suppress-outputs")
    if status != 0:
        raise SetupError(f"`pulumi refresh` failed (exit status {status}); what it says is above.")
    return False


def leftovers(found: Iterable[Thing], resources: Sequence[Mapping[str, Any]]) -> list[Thing]:
    """What the engine holds of a stack and its state does not know, and may be removed: never a volume.

    Args:
        found: what carries the stack's label on the engine.
        resources: the state's resources.

    Returns:
        containers first, since a network in use cannot be removed.
    """
    known = {resource.get("id") for resource in resources if resource.get("type") in _STATE_TYPES}
    unknown = [thing for thing in found if thing.kind in _REMOVED_KINDS and thing.id not in known]
    return sorted(unknown, key=lambda thing: (_REMOVED_KINDS.index(thing.kind), thing.name))


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
        say(_LABEL, f"removed the {thing.kind} {thing.name}, which Pulumi did not know of")


def _held(docker: Docker, prefix: str) -> list[Thing]:
    return [Thing("container", container.id, container.name) for container in list_containers(docker, prefix)]
