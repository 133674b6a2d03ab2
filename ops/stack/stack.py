"""One stack, through the pulumi command: the only module that starts it."""

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
from configs.names import prefix, short_name
from ops.setup.console import ROOT, SetupError, say
from ops.setup.prepare import Tools, prepare
from ops.setup.state import SECRETS_PROVIDER

#: What Pulumi is told to hold the program to: the project's own policy pack. It costs half a second of a core, most of it Python's start.
#: Its exceptions are for plain `pulumi` (docs/policy.md): these commands make none.
POLICIES = ("--policy-pack", "policy")


class Stack:
    """A stack of the project and the tools to work on it.

    Attributes:
        name: its name as it was given: ``prod`` or ``organization/orthanc-stack/prod``.
        short: the last part of it, which its stack file has.
        prefix: what the names of its containers, volumes and networks begin with.
    """

    def __init__(self, name: str, tools: Tools, root: Path = ROOT) -> None:
        self.name, self.short, self.prefix = name, short_name(name), prefix(short_name(name))
        self.tools, self.root = tools, root
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

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> int:
        """Run pulumi on the stack before the user's eyes; its exit status.

        Args:
            arguments: the command and its options.
            env: variables of its environment beside this process's.

        Raises:
            KeyboardInterrupt: the user interrupted it; it has ended by then.
        """
        self._exported = None
        command = [str(self.tools.pulumi), *arguments, "--stack", self.name]
        return wait_through_interrupts(subprocess.Popen(command, cwd=self.root, env=os.environ | dict(env or {})))

    def failure(self, what: str, status: int) -> SetupError:
        """What to raise where run() ended with another status than 0."""
        return SetupError(
            f"{what}: pulumi ended with exit status {status}; what it says is above.\n"
            f"If it says that the stack is locked: wait for that run, or, where it has died, `./orthanc-stack unlock {self.name}`."
        )

    def exists(self) -> bool:
        """Whether the backend knows the stack.

        Raises:
            SetupError: it cannot be asked: no network, no login, no right to read, a passphrase that is wrong.
        """
        from pulumi.automation.errors import not_found_regex  # noqa: PLC0415 - half a second

        try:
            self.export()
        except SetupError as error:
            if not_found_regex.search(str(error)):
                return False
            raise
        return True

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

    @property
    def resources(self) -> list[dict[str, Any]]:
        """The resources in the state, less those of which only a deletion is left."""
        return [resource for resource in self.export().get("resources") or () if not resource.get("delete")]

    @property
    def pending(self) -> list[dict[str, Any]]:
        """What a run had begun and not ended when it ended, or does just now: Pulumi's pending operations."""
        return list(self.export().get("pending_operations") or ())

    @property
    def unfinished(self) -> list[str]:
        """The names of the resources of these operations."""
        return sorted({str((one.get("resource") or {}).get("urn")).rpartition("::")[2] for one in self.pending})

    def held(self) -> Held:
        """What the state holds."""
        return held_of({str(resource["urn"]): resource for resource in self.resources})

    def volumes(self) -> dict[str, bool]:
        """The names of the data volumes that the state holds, and whether each is protected and stays when the stack goes."""
        volumes = (one for one in self.export().get("resources") or () if one.get("type") == VOLUME)
        return {str(one["outputs"]["name"]): bool(one.get("protect") and one.get("retainOnDelete")) for one in volumes}

    def outputs(self, *, show_secrets: bool) -> dict[str, Any]:
        """The stack's outputs. Pulumi leaves out what is null."""
        arguments = ["stack", "output", "--json", *(["--show-secrets"] if show_secrets else [])]
        return {"adminerUrl": None, "indexDb": None, **json.loads(self.ask(*arguments) or "{}")}

    def _capture(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [str(self.tools.pulumi), *arguments, "--stack", self.name, "--color", "never"]
        with_input: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        return subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False, **with_input)


def deployed(name: str, *, engine: bool = True) -> Stack:
    """A stack that was deployed before.

    Raises:
        SetupError: it was not.
    """
    stack = Stack(name, prepare(name, engine=engine))
    if not stack.exists():
        raise SetupError(f"there is no stack {name} in {stack.tools.state.origin}. `./orthanc-stack up {name}` deploys it.")
    return stack


def opened(name: str, *, engine: bool = True) -> Stack:
    """A stack with its tools, made where the backend does not know it yet."""
    stack = Stack(name, prepare(name, engine=engine))
    if not stack.exists():
        stack.create()
    return stack


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
