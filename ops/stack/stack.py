"""One stack, through the pulumi command: the only module that starts it."""

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from configs.held import VOLUME, Held, held_of
from configs.names import backup_volume, prefix, short_name
from configs.problems import nearest
from ops.setup.console import ROOT, SetupError, say, without_passwords
from ops.setup.prepare import Tools, prepare, stack_names
from ops.setup.state import SECRETS_PROVIDER

#: What Pulumi is told to hold the program to: the project's own policy pack. It costs half a second of a core, most of it Python's start.
#: Its exceptions are for plain `pulumi` (docs/policy.md): these commands make none.
POLICIES = ("--policy-pack", "policy")


class Stack:
    """A stack of the project and the tools to work on it."""

    def __init__(self, name: str, tools: Tools, root: Path = ROOT) -> None:
        self.name = name  #: as it was given: ``prod`` or ``organization/orthanc-stack/prod``
        self.short = short_name(name)  #: the last part of it, which its stack file has
        self.prefix = prefix(self.short)  #: what the names of its containers, volumes and networks begin with
        self.tools, self.root = tools, root
        self._exported: dict[str, Any] | None = None

    @property
    def restore_mark(self) -> str:
        """The volume that is on the engine while a restore has begun and not ended."""
        return backup_volume(self.prefix, "restore")

    def ask(self, *arguments: str, stdin: str | None = None) -> str:
        """Run pulumi on the stack and return what it prints; a SetupError with its own message where it fails."""
        command = [str(self.tools.pulumi), *arguments, "--stack", self.name, "--color", "never"]
        done = subprocess.run(command, cwd=self.root, input=stdin or "", capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = without_passwords((done.stderr or done.stdout).strip())
            raise SetupError(f"`pulumi {' '.join(arguments[:2])}` failed (exit status {done.returncode}):\n{said}")
        return done.stdout

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> int:
        """Run pulumi on the stack before the user's eyes, with more variables in its environment; its exit status.

        Raises:
            KeyboardInterrupt: the user interrupted it; it has ended by then.
        """
        self._exported = None
        command = [str(self.tools.pulumi), *arguments, "--stack", self.name]
        return wait_through_interrupts(subprocess.Popen(command, cwd=self.root, env=os.environ | dict(env or {})))

    def failure(self, what: str, status: int) -> SetupError:
        """What to raise where run() ended with another status than 0."""
        ended = f"was killed (signal {-status}), and may have left its lock" if status < 0 else f"ended with exit status {status}"
        return SetupError(
            f"{what}: pulumi {ended}; what it says is above.\n"
            f"If it says that the stack is locked: wait for that run, or, where it has died, `./orthanc-stack unlock {self.name}`."
        )

    def exists(self) -> bool:
        """Whether the backend knows the stack.

        Raises:
            SetupError: it cannot be asked: no network, no login, no right to read, a passphrase that is wrong.
        """
        try:
            self.export()
        except SetupError as error:
            # As pulumi.automation has it (not_found_regex), whose import takes half a second.
            if "no stack named" in str(error):
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


def deployed(name: str, *, engine: bool = True) -> Stack:
    """A stack that was deployed before, with its tools; a SetupError where the backend does not know it."""
    stack = Stack(name, prepare(name, engine=engine))
    if not stack.exists():
        known = stack_names()
        way = f" `./orthanc-stack up {name}` deploys it." if stack.short in known else nearest(stack.short, known)
        raise SetupError(f"there is no stack {name} in {stack.tools.state.origin}.{way}")
    return stack


def wait_through_interrupts(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process that gets the terminal's interrupts as well, so that it can end in good order.

    Raises:
        KeyboardInterrupt: there was an interrupt, and the process has ended.
    """
    interrupted = False

    def forward(_signal: int, _frame: FrameType | None) -> None:
        process.send_signal(signal.SIGINT)
        raise KeyboardInterrupt

    # A SIGTERM goes to this process alone: pulumi ends in good order on an interrupt.
    before = signal.signal(signal.SIGTERM, forward)
    try:
        while True:
            try:
                status = process.wait()
                break
            except KeyboardInterrupt:
                interrupted = True
    finally:
        signal.signal(signal.SIGTERM, before)
    if interrupted:
        raise KeyboardInterrupt
    return status
