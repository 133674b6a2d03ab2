"""What a run leaves that ended in the middle: Pulumi's lock, and the operations that it had begun.

Both are Pulumi's to say. Nothing here goes by what a command of this project noted about itself, and only `unlock`, which a user has to
ask for, takes a lock away. The lock also guards put_right(): it begins with a refresh, which Pulumi refuses while another run lives.
"""

import json
import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from docker.models.containers import Container as Handle
from docker.models.networks import Network

from configs.names import LABEL_OWNER, PROJECT
from configs.problems import visible
from ops.setup.console import SetupError, say
from ops.stack.engine import CONTAINER_TYPE, GRACE_SECONDS, client, engine_errors
from ops.stack.stack import Stack, deployed
from ops.stack.terminal import confirm

_LABEL: Final = "Recovery"
_NETWORK_TYPE: Final = "docker:index/network:Network"


def put_right(stack: Stack) -> None:
    """Make a stack whose last run ended in the middle ready for the next `pulumi up` or `destroy`. Refreshes its state.

    What the run was making when it ended may exist on the engine without being known to the state: it is removed, and made again by the
    next run. Never a volume: making one that exists does no harm.

    Raises:
        SetupError: that run still lives (Pulumi's lock says so), or the refresh failed.
    """
    pending = stack.pending
    say(_LABEL, f"an earlier run ended while it was changing {', '.join(stack.unfinished)}: putting that right first")
    # Takes Pulumi's lock: while another run lives, everything ends here.
    # On a terminal, Pulumi would ask about each of the operations, whatever the other options say.
    options = ("--yes", "--skip-preview", "--non-interactive", "--clear-pending-creates", "--suppress-outputs")
    status = stack.run("refresh", *options)
    if status != 0:
        raise stack.failure(f"what the earlier run on {stack.name} left is still there", status)
    held = stack.held()
    known = {*held.containers.values(), *(str(one.get("id")) for one in stack.resources if one.get("type") == _NETWORK_TYPE)}
    for thing in half_made(pending, held.owner, known):
        with engine_errors():
            if isinstance(thing, Handle):
                thing.stop(timeout=GRACE_SECONDS)
            thing.remove()
        say(_LABEL, f"removed {thing.name}, which was not made to its end")


def half_made(pending: Iterable[Mapping[str, Any]], owner: str, known: set[str]) -> list[Handle | Network]:
    """What a run of this state was making when it ended: containers, then networks, since one in use cannot be removed.

    On the same engine may be a stack of the same name that another checkout made: what has not this state's owner is not ours.

    Args:
        pending: the state's pending operations.
        owner: the identifier that the state gives to what it makes; empty where it has made nothing.
        known: the identifiers on the engine of what the state knows all the same.
    """
    wanted: dict[str, set[str]] = {CONTAINER_TYPE: set(), _NETWORK_TYPE: set()}
    for operation in pending:
        resource = operation.get("resource") or {}
        if operation.get("type") == "creating" and resource.get("type") in wanted:
            wanted[resource["type"]].add(str((resource.get("inputs") or {}).get("name")))
    if not owner or not any(wanted.values()):
        return []
    ours: dict[str, str | list[str] | bool] = {"label": f"{LABEL_OWNER}={owner}"}
    with engine_errors():
        found: list[Handle | Network] = [*client().containers.list(all=True, filters=ours, ignore_removed=True)]
        found = [one for one in found if one.name in wanted[CONTAINER_TYPE]]
        found += [one for one in client().networks.list(filters=ours) if one.name in wanted[_NETWORK_TYPE]]
    return [one for one in found if one.id not in known]


def unlock(name: str, *, yes: bool) -> int:
    """Take away the lock of a run that died, after asking unless `yes`; the exit status.

    Raises:
        SetupError: the run still lives, as far as can be seen from here.
    """
    stack = deployed(name, engine=False)
    folder = stack.tools.state.folder
    locks = holders(folder, stack.short) if folder else []
    if folder and not locks:
        say("Unlock", f"nobody holds a lock on the stack {name}: there is nothing to do")
        return 0
    for lock in locks:
        if _lives(lock):
            raise SetupError(
                f"nothing was touched: process {lock['pid']} of {visible(lock['username'])} holds the lock, and is at work on this "
                f"machine. Let it finish, or stop it (kill -INT {lock['pid']})."
            )
    for lock in locks:
        say("Lock", visible(f"of process {lock['pid']} of {lock['username']} on {lock['hostname']}, since {lock['timestamp']}"))
    if not yes:
        confirm(stack.name, "This takes the stack's lock away. While a run lives, two would change the stack at once.", "unlock")
    stack.ask("cancel", "--yes")
    say("Unlock", f"done; `./orthanc-stack up {name}` puts right what that run has left")
    return 0


def holders(folder: Path, short: str) -> list[dict[str, Any]]:
    """The locks of a stack in a backend on this machine's disk: pid, username, hostname, timestamp (Pulumi's backend/diy/lock.go)."""
    found = []
    for file in sorted((folder / "locks" / "organization" / PROJECT / short).glob("*.json")):
        lock: dict[str, Any] = {"pid": 0, "username": "?", "hostname": "?", "timestamp": "?"}
        with suppress(OSError, ValueError, AttributeError):  # a run that died may not have written it to its end
            said = json.loads(file.read_text())
            lock |= {key: said[key] for key, unknown in lock.items() if isinstance(said.get(key), type(unknown))}
        found.append(lock)
    return found


def _lives(lock: Mapping[str, Any]) -> bool:
    """Whether a lock's process is one of this machine, and is Pulumi; where the system does not tell its name, any will do."""
    pid = lock["pid"]
    if lock["hostname"] != socket.gethostname() or pid < 1:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # another user's
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().startswith("pulumi")
    return True
