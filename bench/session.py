"""One run of the bench: its names, ports and temporary folder, and the removal of all that it made, also when it is interrupted."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Final, TypeVar

from bench.results import FOLDER, Results
from configs import names

#: Every container, volume and network of the bench begins with it; the number of the bench's process follows.
PREFIX: Final = names.prefix("bench-")
_REMOVE: Final = (("container", ("rm", "--force", "--volumes")), ("network", ("network", "rm")), ("volume", ("volume", "rm", "--force")))


T = TypeVar("T")


class BenchError(Exception):
    """Something that stops a measurement. Its text is for the user."""


def run(command: Sequence[str], *, cwd: Path | None = None, env: dict[str, str] | None = None, timeout: float = 900) -> str:
    """Run a command and return what it prints.

    Raises:
        BenchError: it failed; with the end of what it said.
    """
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, errors="replace", check=False, timeout=timeout)
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()[-4000:]
        raise BenchError(f"`{' '.join(command[:4])}` failed (exit status {done.returncode}):\n{said}")
    return done.stdout


class Session:
    """Names, ports and a folder that are nobody else's.

    Args:
        folder: what the stacks are made in.
        short: where the short form's figures go; None for all of it, into docs/bench/.
    """

    def __init__(self, folder: Path, short: Path | None = None) -> None:
        self.folder = folder
        self._short = short
        self.passphrase = secrets.token_hex(12)
        self._ports: set[int] = set()
        self._stacks = 0

    def size(self, whole: T, short: T) -> T:
        """How much is measured: in the short form, what just shows that each figure comes."""
        return short if self._short else whole

    def results(self, suite: str) -> Results:
        """Where the rows of a suite go."""
        return Results(suite, self._short or FOLDER)

    def stack_name(self) -> str:
        """The name of a new stack: its containers are orthanc-stack-bench_<pid>_<number>-…"""
        self._stacks += 1
        return f"bench-{os.getpid()}-{self._stacks}"

    def free_port(self) -> int:
        """A port that nothing listens on, below those that the tests take, and those that the kernel gives to outgoing connections."""
        for _ in range(10_000):
            port = random.randrange(15_000, 20_000)
            with socket.socket() as attempt, contextlib.suppress(OSError):
                attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                attempt.bind(("127.0.0.1", port))
                if port not in self._ports:
                    self._ports.add(port)
                    return port
        raise BenchError("no free port between 15000 and 20000")


@contextlib.contextmanager
def session(short: Path | None = None) -> Iterator[Session]:
    """A session; at its end, however it comes, everything of it is gone."""
    _remove_left_overs()
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}_"))
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield Session(folder, short)
    finally:
        # A second interrupt must not stop the removal.
        impatient = signal.signal(signal.SIGINT, signal.SIG_IGN)
        remove(f"{PREFIX}{os.getpid()}_")
        shutil.rmtree(folder, ignore_errors=True)
        signal.signal(signal.SIGINT, impatient)
        signal.signal(signal.SIGTERM, before)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def things(kind: str, prefix: str) -> list[str]:
    """The names of all containers, networks or volumes that begin with a prefix."""
    listing = {"container": ["ps", "--all"], "network": ["network", "ls"], "volume": ["volume", "ls"]}[kind]
    column = "{{.Names}}" if kind == "container" else "{{.Name}}"
    return [name for name in run(["docker", *listing, "--format", column]).split() if name.startswith(prefix)]


def remove(prefix: str) -> None:
    """Remove all containers, networks and volumes whose names begin with a prefix of the bench."""
    if not prefix.startswith(PREFIX):
        raise ValueError(prefix)
    for kind, command in _REMOVE:
        if found := things(kind, prefix):
            subprocess.run(["docker", *command, *found], stdout=subprocess.DEVNULL, check=False, timeout=300)


def _remove_left_overs() -> None:
    """Remove what a bench that was killed left; one that still runs is left alone."""
    names = {name for kind, _ in _REMOVE for name in things(kind, PREFIX)}
    names |= {path.name for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*")}
    for pid in {name.removeprefix(PREFIX).partition("_")[0] for name in names}:
        if pid.isdigit() and not _is_bench(int(pid)):
            remove(f"{PREFIX}{pid}_")
            for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}{pid}_*"):
                shutil.rmtree(folder, ignore_errors=True)


def _is_bench(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"bench" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False
