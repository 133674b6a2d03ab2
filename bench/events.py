"""When what happened: each line that Pulumi prints, and each of the Docker engine's events."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.session import BenchError

#: The Docker engine writes an event within milliseconds; this is how long one may be waited for.
_SETTLE_SECONDS = 0.3


def timed(command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> Timed:
    """Run a pulumi command and note when each line of its output came.

    Pulumi's --event-log would say more, but with it the engine also writes its debugging messages, thousands of them, and a first up
    takes twice as long.

    Raises:
        BenchError: it failed; with the end of what it said.
    """
    started = time.time()
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=cwd, env=env, text=True, errors="replace", **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout
        lines = [(time.time(), line.rstrip()) for line in process.stdout]
    ended = time.time()
    if process.returncode != 0:
        said = "\n".join(line for _, line in lines)[-4000:]
        raise BenchError(f"`{' '.join(command[:3])}` failed:\n{said}")
    return Timed(started, ended, lines)


#: " +  docker:index:Container db-container creating (0s)", and "created" with the seconds, rounded.
_STATE = re.compile(r"^ \+ +(?P<type>\S+) (?P<name>\S+) (?P<state>creating|created)\b")
_COUNT = re.compile(
    r"^ +(?:[+~-]+ ?|\d+ changes?\. )?(?P<count>\d+) (?P<what>to create|created|unchanged|updated|replaced|to update|to replace|deleted)"
)


@dataclass(frozen=True)
class Timed:
    """One pulumi command.

    Attributes:
        started: when it was called.
        ended: when it had ended.
        lines: what it printed meanwhile, each line with when.
    """

    started: float
    ended: float
    lines: list[tuple[float, str]] = field(repr=False)

    @property
    def seconds(self) -> float:
        """How long it took, as a user sees it."""
        return self.ended - self.started

    @property
    def changes(self) -> dict[str, int]:
        """How many resources were created, changed, or the same."""
        return {found["what"]: int(found["count"]) for _, line in self.lines if (found := _COUNT.match(line))}

    @property
    def is_no_op(self) -> bool:
        """Whether nothing changed: even a program without resources has its stack, unchanged."""
        return set(self.changes) == {"unchanged"}

    def resource(self, name: str) -> tuple[float, float]:
        """When the engine began to create a resource, and when it was done; by its logical name."""
        times: dict[str, float] = {}
        for seen, line in self.lines:
            if (found := _STATE.match(line)) and found["name"] == name:
                times.setdefault(found["state"], seen)
        if len(times) != 2:
            raise BenchError(f"pulumi did not say that it made {name}: bench/deploy.py waits for it, and the program has it no longer")
        return times["creating"], times["created"]

    def _when(self, pattern: str) -> float:
        """When a line that begins like this was printed; the command's end where none was."""
        return next((seen for seen, line in self.lines if re.match(pattern, line)), self.ended)

    def phases(self, parts: Mapping[str, str], docker: DockerEvents, prefix: str) -> dict[str, float]:
        """What the time from the call to the end was spent on, phase after phase on the way that is waited for.

        Args:
            parts: the resources of that way in their order: logical name -> the name of the container, or "" for what is none.
            docker: what the Docker engine said meanwhile.
            prefix: of the stack's containers.
        """
        spent: dict[str, float] = {}
        at = self.started
        began_with = {"start of the command": self._when(r"Updating"), "start of the program": self._when(r" \+ +(?!pulumi:pulumi:Stack)")}
        for phase, until in began_with.items():
            spent[phase], at = max(0.0, until - at), max(at, until)
        for name, part in parts.items():
            began, done = self.resource(name)
            spent["between resources"] = spent.get("between resources", 0.0) + max(0.0, began - at)
            ready = docker.ready(f"{prefix}-{part}") if part else None
            label = part or name.partition("-")[0]
            if ready and began <= ready <= done:
                spent[label], spent["seen late (polling)"] = ready - max(began, at), spent.get("seen late (polling)", 0.0) + done - ready
            else:
                spent[label] = done - max(began, at)
            at = done
        end = self._when(r"Resources:")
        spent["others not yet done"] = max(0.0, end - at)
        spent["end of the command"] = self.ended - max(end, at)
        return spent


class DockerEvents:
    """What the Docker engine said of containers: when, of which, what happened."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, str, str]] = []

    def ready(self, container: str) -> float | None:
        """When a container was healthy for the first time, or, where it has no health check, when it had ended."""
        actions = {action: seen for seen, name, action in reversed(self.seen) if name == container}
        return actions.get("health_status: healthy", actions.get("die"))


@contextmanager
def docker_events() -> Iterator[DockerEvents]:
    """The Docker engine's events of containers, from here to the end of the block."""
    found = DockerEvents()
    filters = [f"--filter={key}" for key in ("type=container", "event=create", "event=start", "event=die", "event=health_status")]
    process = subprocess.Popen(["docker", "events", *filters, "--format", "{{json .}}"], stdout=subprocess.PIPE, text=True)

    def read() -> None:
        assert process.stdout
        for line in process.stdout:
            event = json.loads(line)
            found.seen.append((event["timeNano"] / 1e9, event["Actor"]["Attributes"].get("name", ""), str(event["Action"])))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    time.sleep(_SETTLE_SECONDS)  # until the engine has taken the subscription
    try:
        yield found
        time.sleep(_SETTLE_SECONDS)
    finally:
        process.terminate()
        process.wait()
        thread.join(timeout=5)
