"""What the set-up says, on standard error: one line a step, progress for what takes long, errors without a traceback."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

#: The checkout: the folder that holds Pulumi.yaml.
ROOT = Path(__file__).resolve().parents[2]

_LABEL_WIDTH = 10
_LOG_TAIL_LINES = 20
#: Variables that hold a secret, or the way to one. What the set-up starts needs none of them, and some of it runs for months.
_SECRET = re.compile(r"^(PULUMI|AWS|AZURE|GOOGLE|VAULT)_|TOKEN|PASSPHRASE|PASSWORD|SECRET")


class SetupError(Exception):
    """Something that the user must put right. The message says what, where, and how; it is printed as it is."""


def home() -> Path:
    """The user's home folder. A SetupError where HOME is not set, and the system knows none for this user."""
    try:
        return Path.home()
    except RuntimeError as error:
        raise SetupError(f"{error}. Set HOME to a folder of this user's own.") from error


def cache_dir() -> Path:
    """The project's folder in the user's cache, made if it is missing. A SetupError where it cannot be written to."""
    base = os.environ.get("XDG_CACHE_HOME")
    path = (Path(base) if base else home() / ".cache") / "orthanc-stack"
    try:
        path.mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(path, os.W_OK) else "permission denied, or a read-only file system"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise SetupError(f"the cache folder {path} cannot be written to: {reason}.\nSet XDG_CACHE_HOME to a folder of this user's own.")
    return path


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment less the variables that hold secrets, by their names."""
    return {name: value for name, value in environ.items() if not _SECRET.search(name.upper())}


def without_passwords(text: str) -> str:
    """A text less the passwords of the addresses in it: `postgres://user:…@host`, `?password=…`."""
    return re.sub(r"(://[^\s/:@]*:)[^\s/]+(?=@)|(password=)[^\s&]+", r"\1\2…", text)


def say(label: str, text: str) -> None:
    """Print one line: what a step found or made. Standard output is for programs."""
    print(f"  {label:<{_LABEL_WIDTH}} {text}", file=sys.stderr, flush=True)


def run_slow(
    label: str, doing: str, command: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, hint: str = ""
) -> None:
    """Run a command that may take minutes, showing the time that has passed and keeping its output in a log.

    `doing` is for the progress line ("building pulumi"), `env` the command's whole environment, this process's when None. A SetupError
    where there is no such command, or it failed: it holds the end of the output, and `hint`, which says how to put it right.
    """
    log = cache_dir() / "logs" / f"{label.lower()}.log"
    log.parent.mkdir(exist_ok=True)
    started = time.monotonic()
    with log.open("ab") as out:
        start_of_output = out.tell()
        try:
            process = subprocess.Popen([str(c) for c in command], cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        except OSError as error:
            raise SetupError(f"{doing} failed: {command[0]} does not start: {error.strerror}.\n{hint}".rstrip()) from error
        _watch(process, label, doing, started)
    if process.returncode != 0:
        with log.open("rb") as written:
            written.seek(start_of_output)
            tail = written.read().decode(errors="replace").strip().splitlines()[-_LOG_TAIL_LINES:]
        lines = "\n".join(f"    {line}" for line in tail)
        raise SetupError(f"{doing} failed (exit status {process.returncode}):\n{lines}\n    all of it: {log}\n{hint}".rstrip())


def _watch(process: subprocess.Popen[bytes], label: str, doing: str, started: float) -> None:
    """Wait for a process; on a terminal redraw one line each second, elsewhere print a line each 30 seconds."""
    live = sys.stderr.isatty()
    while True:
        try:
            process.wait(timeout=1 if live else 30)
        except subprocess.TimeoutExpired:
            line = f"{doing} … {time.monotonic() - started:.0f} s"
            if live:
                print(f"\r  {label:<{_LABEL_WIDTH}} {line}", end="", file=sys.stderr, flush=True)
            else:
                say(label, line)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        else:
            break
    if live:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
