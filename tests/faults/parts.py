"""One container of a stack, from the outside: killed, stopped, started, cut off."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tests.stack.harness import docker, eventually


@dataclass(frozen=True)
class Part:
    """A container.

    Attributes:
        container: its name.
    """

    container: str

    @property
    def pid(self) -> int:
        """The process identifier, on this machine, of its first process; 0 while it does not run."""
        said = docker("inspect", "--format", "{{.State.Pid}}", self.container, check=False)
        return int(said) if said.isdigit() else 0

    @property
    def restarts(self) -> int:
        """How often the engine has started it anew by itself."""
        return int(docker("inspect", "--format", "{{.RestartCount}}", self.container))

    def kill(self) -> None:
        """SIGKILL to its first process, as the kernel does it when memory is out.

        Not `docker kill`: after that the engine takes it for stopped on purpose and does not start it again.
        """
        pid = eventually(f"{self.container} runs", lambda: self.pid)
        os.kill(pid, signal.SIGKILL)
        eventually(f"{self.container} ends", lambda: not Path(f"/proc/{pid}").exists() or self.pid != pid)

    def stop(self, seconds: int = 60) -> None:
        """docker stop."""
        docker("stop", "--time", str(seconds), self.container)

    def start(self) -> None:
        """docker start."""
        docker("start", self.container)

    def log(self, lines: int) -> str:
        """The end of what it printed."""
        return docker("logs", "--tail", str(lines), self.container, check=False)

    def log_since(self, since: float) -> list[tuple[float, str]]:
        """What it printed since a time, each line with when it did; times in seconds since 1970."""
        said = docker("logs", "--timestamps", "--since", f"{since:.3f}", self.container).splitlines()
        return [(_seconds(line.partition(" ")[0]), line.partition(" ")[2]) for line in said]

    def inside(self, command: str, *namespaces: str, check: bool = True) -> str:
        """Run a shell's command in namespaces of the container, with this machine's rights.

        Args:
            command: for sh -c. With the namespace ``mount`` it is the container's own programs.
            namespaces: ``mount``, with ``pid`` for its /proc; ``net``.
            check: fail when it fails.
        """
        return run("nsenter", f"--target={self.pid}", *(f"--{namespace}" for namespace in namespaces), "sh", "-c", command, check=check)


def _seconds(timestamp: str) -> float:
    """A time as the engine writes it, in UTC with nanoseconds."""
    whole, _, fraction = timestamp.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")


def run(*command: str, check: bool = True) -> str:
    """A command of this machine; what it prints."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False, timeout=60)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}"
    return done.stdout.strip()
