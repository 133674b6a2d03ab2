"""`make down` and `make destroy`: a stack stops, or goes. Both go by its state: what another state made is not theirs to touch."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from ops.setup.console import SetupError, say
from ops.stack.containers import Container, docker_runner, list_containers
from ops.stack.recover import recover, was_interrupted
from ops.stack.stack import Stack
from ops.stack.up import deployed

#: Orthanc and PostgreSQL write down what they hold when they are asked to stop, and are killed after this.
_GRACE_SECONDS = 60


def down(name: str) -> int:
    """Stop a stack's containers and keep everything; the exit status."""
    stack = deployed(name)
    docker = docker_runner(stack.tools.docker)
    found = list_containers(docker, stack.prefix, stack.held().containers.values())
    running = [container for container in found if container.state in ("running", "restarting", "paused")]
    if not running:
        say("Down", f"nothing of the stack {name} is running")
        return 0
    for group in stop_order(running):
        docker(["stop", "-t", str(_GRACE_SECONDS), *(container.name for container in group)])
        say("Down", f"stopped {', '.join(container.name for container in group)}")
    say("Down", f"its containers, data and settings are kept; `make up STACK={name}` starts it again")
    return 0


def stop_order(running: list[Container]) -> list[list[Container]]:
    """What is stopped together, in order: forwarders first, so that what they have sent is still confirmed; the database last."""
    forwarders = [container for container in running if container.role == "forwarder"]
    users = [container for container in running if container.role not in ("forwarder", "db")]
    servers = [container for container in running if container.role == "db"]
    return [group for group in (forwarders, users, servers) if group]


def destroy(name: str, *, yes: bool) -> int:
    """Remove a stack; volumes that its state protects stay. The exit status.

    Args:
        name: the stack's name.
        yes: do not ask for it again.
    """
    stack = deployed(name)
    docker = docker_runner(stack.tools.docker)
    held, volumes = stack.held(), stack.volumes()
    if held.keeps_data and not all(volumes.values()):
        raise SetupError(
            f"nothing was touched: the last run was to protect the data volumes, and did not end. `make up STACK={name}` does that; then "
            "destroy keeps them."
        )
    if not yes:
        _ask(stack, volumes)
    if was_interrupted(stack):
        recover(stack, docker)
    status = stack.run("destroy", "--yes", "--skip-preview", *(["--exclude-protected"] if held.keeps_data or any(volumes.values()) else []))
    if status != 0:
        raise SetupError(f"the stack {name} is not gone: pulumi ended with exit status {status}; what it says is above.")
    print()
    if kept := sorted(stack.held().volumes.values()):
        say("Destroy", f"kept, with their data: {', '.join(kept)}")
        say("Destroy", f"`make up STACK={name}` takes them up again; `docker volume rm` deletes them for good")
    else:
        say("Destroy", "no data volume is left")
    say("Destroy", f"settings and secrets stay in Pulumi.{name.rpartition('/')[2]}.yaml")
    return 0


def _ask(stack: Stack, volumes: Mapping[str, bool]) -> None:
    """Ask for the stack's name.

    Raises:
        SetupError: it is not said, or nobody is there to say it.
    """
    kept, lost = (", ".join(sorted(name for name, stays in volumes.items() if stays is wanted)) or "none" for wanted in (True, False))
    print(f"\n  This removes the stack {stack.name}.\n  Data volumes that go with it: {lost}\n  that stay: {kept}", flush=True)
    if not sys.stdin.isatty():
        raise SetupError(f"nothing was touched: nobody is there to ask. In a pipeline: make destroy STACK={stack.name} YES=1")
    if input("  Its name, to go on: ").strip() != stack.name:
        raise SetupError("nothing was touched: that is not the stack's name.")
