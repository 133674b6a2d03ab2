"""What `make up` says while Pulumi waits: a container that ends, is started again, and ends again will not become healthy.

pulumi-docker waits for a new container's health until its time is up, and looks at nothing else meanwhile.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ops.setup.console import SetupError
from ops.stack.containers import Docker, docker_runner, list_containers

_EVERY_SECONDS: Final = 2.0
#: One may be an accident: a database that was not there yet.
_RESTARTS: Final = 2
_LOG_LINES: Final = 12
_LINE_LENGTH: Final = 300
_SHOWN: Final = "{{.Id}} {{.RestartCount}} {{.State.Status}} {{.State.ExitCode}} {{.Config.Hostname}} {{.Name}}"


@dataclass(frozen=True)
class _Seen:
    """A container at one look."""

    restarts: int
    state: str
    exit_status: int
    part: str
    name: str


@contextlib.contextmanager
def watching(command: Sequence[str], prefix: str, stack: str) -> Iterator[None]:
    """Look at a stack's containers while the block runs, and tell once of each that restarts again and again.

    Args:
        command: the docker command with its options.
        prefix: what the names of the stack's containers begin with.
        stack: the stack's name, for what to do.
    """
    docker, done = docker_runner(command), threading.Event()
    # A container that has been there for a year may have been started again before.
    before = {one: seen.restarts for one, seen in _look(docker, prefix).items()}

    def watch() -> None:
        told = set()
        while not done.wait(_EVERY_SECONDS):
            for one, seen in _look(docker, prefix).items():
                if one not in told and seen.restarts - before.get(one, 0) >= _RESTARTS:
                    told.add(one)
                    print(_told(seen, _log(command, one), stack), flush=True)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _look(docker: Docker, prefix: str) -> Mapping[str, _Seen]:
    """The stack's containers by identifier; none where the engine does not answer: Pulumi says so itself."""
    try:
        found = [container.id for container in list_containers(docker, prefix)]
        lines = docker(["inspect", "--format", _SHOWN, *found]).splitlines() if found else []
    except (SetupError, OSError, subprocess.SubprocessError):
        return {}  # also where one was removed between the two
    split = (line.split(" ", 5) for line in lines)
    return {one: _Seen(int(restarts), state, int(status), part, name[1:]) for one, restarts, state, status, part, name in split}


def _log(command: Sequence[str], container: str) -> list[str]:
    asked = [*command, "logs", "--tail", str(_LOG_LINES), container]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(asked, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=10, check=False)
        return ["".join(filter(str.isprintable, line))[:_LINE_LENGTH] for line in done.stdout.splitlines()]
    return []


def _told(seen: _Seen, log: Sequence[str], stack: str) -> str:
    how = f", the last time with exit status {seen.exit_status}" if seen.state == "restarting" else ""
    return "\n".join(
        [
            # Pulumi's own line may not have ended.
            f"\n{seen.part}: the container {seen.name} ends and is started again, {seen.restarts} times by now{how}. Its log ends:",
            *(f"    | {line}" for line in log),
            f"    Waiting will not help: press Ctrl-C (again to end at once), correct what the log says, and run `make up STACK={stack}`.",
            f"    The whole log: docker logs {seen.name}\n",
        ]
    )
