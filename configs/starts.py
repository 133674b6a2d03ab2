"""A start that takes long is not ended by the next `up`: what is starting still is waited for before anything is touched."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

from configs.names import DB_HOST
from configs.settings import StackSettings

_TIMEOUT_SECONDS = 20
#: The container's name, and whether it runs, its probe has neither passed nor failed for good, and it has not ended and been started again.
_STATE = "{{.Name}} {{.State.Status}} {{with .State.Health}}{{.Status}}{{end}} {{.RestartCount}}"


def limits_of(settings: StackSettings, prefix: str) -> dict[str, int]:
    """How many seconds each container that may upgrade its data at a start has for it, by the container's name."""
    database = {f"{prefix}-{DB_HOST}": settings.index_db.start_timeout} if settings.index_nodes else {}
    return database | {f"{prefix}-{node.name}": node.start_timeout for node in settings.nodes}


def await_starts(limits: Mapping[str, int], docker: Sequence[str], say: Callable[[str], None]) -> str | None:
    """Wait for containers that are starting, each for as long as it has. One that was started again because it ended has failed.

    Args:
        limits: how many seconds each container has, by its name; those that are not there, or serve, are not waited for.
        docker: the docker command.
        say: shows the user a line.

    Returns:
        what to do about one that is starting still; None where there is none.
    """
    begun = time.monotonic()
    said: set[str] = set()
    while starting := _starting(limits, docker):
        for name in sorted(starting - said):
            say(f"{name} is still starting: waiting {limits[name]} s at most, so as not to end an upgrade of its data in the middle.")
        said |= starting
        if late := sorted(name for name in starting if time.monotonic() > begun + limits[name]):
            return (
                f"{late[0]} is still starting after another {limits[late[0]]} s. Nothing was touched. What it does: docker logs {late[0]}\n"
                "If it is at work, leave it alone: the next `up` waits again; a longer startTimeout in the stack file interrupts nothing. "
                f"If it hangs: docker stop {late[0]}, and the next `up` makes it anew."
            )
        time.sleep(1)
    return None


def _starting(names: Mapping[str, int], docker: Sequence[str]) -> set[str]:
    command = [*docker, "container", "inspect", "--format", _STATE, *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    states = (line.removeprefix("/").partition(" ") for line in done.stdout.splitlines())
    return {name for name, _, state in states if state == "running starting 0"}
