"""One stack, through the pulumi command: the only module that starts it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from configs.held import VOLUME, Held, held_of
from configs.names import PROJECT, prefix, short_name
from ops.setup.console import ROOT, SetupError, cache_dir, say
from ops.setup.prepare import Tools, prepare
from ops.setup.state import SECRETS_PROVIDER, STATE_FOLDER


class Stack:
    """A stack of the project and the tools to work on it."""

    def __init__(self, name: str, tools: Tools, root: Path = ROOT) -> None:
        self.name = name
        self.tools = tools
        self.root = root
        #: What its containers', volumes' and networks' names begin with.
        self.short = short_name(name)
        self.prefix = prefix(self.short)
        self._exported: dict[str, Any] | None = None

    def ask(self, *arguments: str, stdin: str | None = None) -> str:
        """Run pulumi on the stack and return what it prints.

        Raises:
            SetupError: it failed; the message is its own.
        """
        done = self._capture(*arguments, stdin=stdin)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise SetupError(f"`pulumi {' '.join(arguments[:2])}` failed (exit status {done.returncode}):\n{said}")
        return done.stdout

    def try_(self, *arguments: str) -> bool:
        """Run pulumi on the stack, silently; whether it succeeded."""
        return self._capture(*arguments).returncode == 0

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> int:
        """Run pulumi on the stack before the user's eyes; its exit status. Leaves the marker when it does not end well.

        Args:
            arguments: the command and its options.
            env: variables of its environment beside this process's.

        Raises:
            KeyboardInterrupt: the user interrupted it; it has ended by then.
        """
        command = [str(self.tools.pulumi), *arguments, "--stack", self.name]
        self._exported = None
        marker = self.marker()
        write_marker(marker, os.getpid())
        process = subprocess.Popen(command, cwd=self.root, env=os.environ | dict(env or {}))
        write_marker(marker, os.getpid(), process.pid)
        status = wait_through_interrupts(process)
        if status == 0:
            marker.unlink(missing_ok=True)
        return status

    def exists(self) -> bool:
        """Whether the backend knows the stack. A local backend is looked into; others are asked."""
        folder = self.tools.state.folder
        if folder is not None and "/" not in self.name:
            files = (folder / "stacks" / PROJECT / f"{self.name}.json{packed}" for packed in ("", ".gz"))
            return any(file.exists() for file in files)
        return self.try_("stack", "select")

    def create(self) -> None:
        """Make the stack and select it, so that plain `pulumi` works on it. SECRETS_PROVIDER says what encrypts its secrets."""
        provider = os.environ.get(SECRETS_PROVIDER)
        self.ask("stack", "init", "--non-interactive", *([f"--secrets-provider={provider}"] if provider else []))
        say("Stack", f"{self.name} made")

    def export(self) -> dict[str, Any]:
        """The stack's deployment: resources and pending operations, secrets still encrypted. Read once between two runs."""
        if self._exported is None:
            self._exported = dict(json.loads(self.ask("stack", "export")).get("deployment") or {})
        return self._exported

    def held(self) -> Held:
        """What the state holds."""
        resources = self.export().get("resources") or ()
        return held_of({str(resource["urn"]): resource for resource in resources if not resource.get("delete")})

    def volumes(self) -> dict[str, bool]:
        """The names of the data volumes that the state holds, and whether each is protected and stays when the stack goes."""
        volumes = (one for one in self.export().get("resources") or () if one.get("type") == VOLUME)
        return {str(one["outputs"]["name"]): bool(one.get("protect") and one.get("retainOnDelete")) for one in volumes}

    def outputs(self, *, show_secrets: bool) -> dict[str, Any]:
        """The stack's outputs."""
        arguments = ["stack", "output", "--json", *(["--show-secrets"] if show_secrets else [])]
        return dict(json.loads(self.ask(*arguments) or "{}"))

    def marker(self) -> Path:
        """The file that is there while pulumi changes the stack, and stays when it does not end well."""
        folder = self.root / STATE_FOLDER
        if self.tools.state.url != f"file://{folder}":
            folder = cache_dir() / "running"
            folder.mkdir(exist_ok=True)
        return folder / f"running-{self.name.replace('/', '-')}.json"

    def _capture(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [str(self.tools.pulumi), *arguments, "--stack", self.name, "--color", "never"]
        with_input: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        return subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False, **with_input)


def opened(name: str, *, engine: bool = True) -> Stack:
    """A stack with its tools, made where the backend does not know it yet."""
    stack = Stack(name, prepare(name, engine=engine))
    if not stack.exists():
        stack.create()
    return stack


def deployed(name: str, *, engine: bool = True) -> Stack:
    """A stack that was deployed before.

    Raises:
        SetupError: it was not.
    """
    stack = Stack(name, prepare(name, engine=engine))
    if not stack.exists():
        raise SetupError(f"there is no stack {name} in {stack.tools.state.origin}. `./orthanc-stack up {name}` deploys it.")
    return stack


def write_marker(marker: Path, *pids: int) -> None:
    """Note which processes work on a stack, complete at any moment."""
    draft = marker.with_suffix(".new")
    draft.write_text(json.dumps({"pids": pids}))
    draft.replace(marker)


def at_work(marker: Path) -> int | None:
    """The process that still works on the stack of a marker, or None when all have ended."""
    try:
        pids = json.loads(marker.read_text())["pids"]
    except (OSError, ValueError, KeyError):
        return None
    for pid in pids:
        # -ww: with COLUMNS set, ps would cut the line there, and the program's name behind a long path with it.
        shown = subprocess.run(["ps", "-ww", "-p", str(pid), "-o", "stat=,args="], capture_output=True, text=True, check=False).stdout
        # Its number may have gone to another program since. A zombie (stat Z) has ended; in a container nobody may take it away.
        if pid != os.getpid() and not shown.startswith("Z") and ("pulumi" in shown or "-m ops" in shown):
            return int(pid)
    return None


def wait_through_interrupts(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process that gets the terminal's interrupts as well, so that it can end in good order.

    Raises:
        KeyboardInterrupt: there was an interrupt, and the process has ended.
    """
    interrupted = False
    with _terminate_as_interrupt(process):
        while True:
            try:
                status = process.wait()
                break
            except KeyboardInterrupt:
                interrupted = True
    if interrupted:
        raise KeyboardInterrupt
    return status


@contextlib.contextmanager
def _terminate_as_interrupt(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """A SIGTERM goes to this process alone: pass it on as the interrupt that pulumi ends in good order on."""

    def forward(_signal: int, _frame: FrameType | None) -> None:
        process.send_signal(signal.SIGINT)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, forward)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
