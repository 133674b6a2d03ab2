"""`down` and `destroy`: a stack stops, or goes. Both go by its state: what another state made is not theirs to touch."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from configs.names import LABEL_OWNER, LABEL_UPGRADED, backup_volume
from ops.backup.data import remove_volume
from ops.backup.oneshot import remove_left
from ops.setup.console import SetupError, say
from ops.stack.engine import GRACE_SECONDS, Container, client, engine_errors, list_containers
from ops.stack.interrupted import put_right
from ops.stack.stack import deployed
from ops.stack.terminal import confirm

_STOPPABLE: Final = ("running", "restarting", "paused")


def down(name: str) -> int:
    """Stop a stack's containers and keep everything; the exit status."""
    stack = deployed(name)
    # Those as well that an interrupted run has made, which the state does not know.
    held = stack.held()
    running = [one for one in list_containers(stack.prefix, held.containers.values(), held.owner) if one.state in _STOPPABLE]
    if not running:
        say("Down", f"nothing of the stack {name} is running")
        return 0
    stop(running, "Down")
    say("Down", f"its containers, data and settings are kept; `./orthanc-stack up {name}` starts it again")
    return 0


def stop(containers: Sequence[Container], label: str) -> None:
    """Stop containers in their order, and say so; those that have ended are left."""
    for group in stop_order([one for one in containers if one.state in _STOPPABLE]):
        with ThreadPoolExecutor(len(group)) as threads:
            list(threads.map(_stop, group))
        say(label, f"stopped {', '.join(container.name for container in group)}")


def _stop(container: Container) -> None:
    with engine_errors():
        container.handle.stop(timeout=GRACE_SECONDS)


def stop_order(running: Sequence[Container]) -> list[list[Container]]:
    """What is stopped together, in order: forwarders first, so that what they have sent is still confirmed; the database last."""
    forwarders = [container for container in running if container.role == "forwarder"]
    users = [container for container in running if container.role not in ("forwarder", "db")]
    servers = [container for container in running if container.role == "db"]
    return [group for group in (forwarders, users, servers) if group]


def destroy(name: str, *, yes: bool) -> int:
    """Remove a stack, after asking unless `yes`; volumes that its state protects stay. The exit status."""
    stack = deployed(name)
    held, volumes = stack.held(), stack.volumes()
    if held.keeps_data and not all(volumes.values()):
        raise SetupError(
            f"nothing was touched: the last run was to protect the data volumes, and did not end. `./orthanc-stack up {name}` does that; "
            "then destroy keeps them."
        )
    if not yes:
        kept, lost = (", ".join(sorted(one for one, stays in volumes.items() if stays is wanted)) or "none" for wanted in (True, False))
        confirm(stack.name, f"This removes the stack {stack.name}.\n  Data volumes that go with it: {lost}\n  that stay: {kept}", "destroy")
    remove_left(stack.prefix)
    if stack.pending:
        put_right(stack)
    options = ["--yes", "--skip-preview", "--non-interactive"]
    status = stack.run("destroy", *options, *(["--exclude-protected"] if held.keeps_data or any(volumes.values()) else []))
    if status != 0:
        raise stack.failure(f"the stack {name} is not gone", status)
    print()
    # What restic has cached of the backups' repository, which stays; how far a check has come; and what an upgrade of PostgreSQL that was
    # broken off has filled: the state does not know it.
    left, passing = {*stack.held().volumes.values()}, tuple(backup_volume(stack.prefix, what) for what in ("cache", "check-"))
    with engine_errors():
        on_engine = client().volumes
        gone = {one.name for one in on_engine.list(filters={"name": backup_volume(stack.prefix, "")}) if one.name.startswith(passing)}
        gone |= {one.name for one in on_engine.list(filters={"label": [f"{LABEL_OWNER}={held.owner}", LABEL_UPGRADED]})}
    for volume in gone - left:
        remove_volume(volume)
    if left:
        say("Destroy", f"kept, with their data: {', '.join(sorted(left))}")
        say("Destroy", f"`./orthanc-stack up {name}` takes them up again; `docker volume rm` deletes them for good")
    else:
        say("Destroy", "of what this state had made, no data volume is left")
    if others := list_containers(stack.prefix):
        names = ", ".join(container.name for container in others)
        say("Destroy", f"another checkout or login made a stack of the same name, which was not touched: {names}")
    say("Destroy", f"settings and secrets stay in Pulumi.{stack.short}.yaml")
    return 0
