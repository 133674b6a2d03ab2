"""What the set-up says: one line a step, progress for what takes long, errors without a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

#: The checkout: the folder that holds Pulumi.yaml.
ROOT = Path(__file__).resolve().parents[2]

_LABEL_WIDTH = 10
_LOG_TAIL_LINES = 20


class SetupError(Exception):
    """Something that the user must put right. The message says what, where, and how; it is printed as it is."""


def cache_dir() -> Path:
    """The project's folder in the user's cache, made if it is missing."""
    base = os.environ.get("XDG_CACHE_HOME")
    path = (Path(base) if base else Path.home() / ".cache") / "orthanc-stack"
    path.mkdir(parents=True, exist_ok=True)
    return path


def say(label: str, text: str) -> None:
    """Print one line: what a step found or made."""
    print(f"  {label:<{_LABEL_WIDTH}} {text}", flush=True)


def run_slow(
    label: str,
    doing: str,
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    hint: str = "",
) -> None:
    """Run a command that may take minutes, showing the time that has passed and keeping its output in a log.

    Args:
        label: the step's label, as in say().
        doing: what is going on, for the progress line ("building pulumi").
        command: the command and its arguments.
        cwd: where to run it.
        env: its whole environment; the caller's when None.
        hint: how to put it right, for the error.

    Raises:
        SetupError: the command failed; the message holds the end of its output.
    """
    log = cache_dir() / "logs" / f"{label.lower()}.log"
    log.parent.mkdir(exist_ok=True)
    started = time.monotonic()
    with log.open("ab") as out:
        start_of_output = out.tell()
        process = subprocess.Popen([str(c) for c in command], cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        _watch(process, label, doing, started)
    if process.returncode != 0:
        with log.open("rb") as written:
            written.seek(start_of_output)
            tail = written.read().decode(errors="replace").strip().splitlines()[-_LOG_TAIL_LINES:]
        lines = "\n".join(f"    {line}" for line in tail)
        raise SetupError(f"{doing} failed (exit status {process.returncode}):\n{lines}\n    all of it: {log}\n{hint}".rstrip())


def _watch(process: subprocess.Popen[bytes], label: str, doing: str, started: float) -> None:
    """Wait for a process; on a terminal redraw one line each second, elsewhere print a line each 30 seconds."""
    live = sys.stdout.isatty()
    every = 1 if live else 30
    while True:
        try:
            process.wait(timeout=every)
        except subprocess.TimeoutExpired:
            line = f"  {label:<{_LABEL_WIDTH}} {doing} … {int(time.monotonic() - started)} s"
            print(f"\r{line}" if live else line, end="" if live else "\n", flush=True)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        else:
            break
    if live:
        print("\r\033[K", end="", flush=True)
