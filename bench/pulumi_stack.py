"""Stacks of the bench's own: copies of the program, run by the pulumi command with a state backend in the session's folder."""

from __future__ import annotations

import contextlib
import copy
import os
import secrets as randomness
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from bench.events import Timed, timed
from bench.session import BenchError, Session, run
from configs.loader import parse
from configs.names import PROJECT, prefix
from configs.secrets import certificate_key, is_setting, private_key_key, secret_keys
from configs.settings import StackSettings
from ops.setup.console import ROOT
from ops.stack.authority import make

#: How often it is tried to pause containers.
_PAUSES: Final = 10
_PROGRAM: Final = ("__main__.py", "Pulumi.yaml", "components", "configs", "forwarder", "images")

#: The program that does nothing: what Pulumi itself costs on this machine.
_EMPTY: Final = '"""Nothing."""\n\nimport pulumi  # noqa: F401\n'


def copy_program(folder: Path, *, replace: Mapping[str, Mapping[str, str]] | None = None) -> Path:
    """Copy the program into a new folder, so that nobody edits it meanwhile.

    Args:
        folder: which must not exist.
        replace: texts to replace, by file: each must be there.
    """
    folder.mkdir()
    for part in _PROGRAM:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / part)
    for file, texts in (replace or {}).items():
        content = (folder / file).read_text(encoding="utf-8")
        for old, new in texts.items():
            if old not in content:
                raise BenchError(f"{file} no longer holds {old!r}: the bench cannot take it away; correct bench/")
            content = content.replace(old, new)
        (folder / file).write_text(content, encoding="utf-8")
    return _own_interpreter(folder)


def empty_program(folder: Path) -> Path:
    """A program without resources, with the project's name and interpreter."""
    folder.mkdir()
    shutil.copy(ROOT / "Pulumi.yaml", folder)
    (folder / "__main__.py").write_text(_EMPTY, encoding="utf-8")
    return _own_interpreter(folder)


def _own_interpreter(folder: Path) -> Path:
    project = yaml.safe_load((folder / "Pulumi.yaml").read_text(encoding="utf-8"))
    project["runtime"]["options"]["virtualenv"] = sys.prefix
    (folder / "Pulumi.yaml").write_text(yaml.safe_dump(project), encoding="utf-8")
    return folder


def dev_settings(session: Session, *, tls: bool = False) -> dict[str, Any]:
    """What Pulumi.dev.yaml says, on free ports.

    Args:
        session: the run of the bench.
        tls: with TLS everywhere: nodes, devices and database.
    """
    config = yaml.safe_load((ROOT / "Pulumi.dev.yaml").read_text(encoding="utf-8"))["config"]
    settings = {key.partition(":")[2]: value for key, value in config.items()}
    # Secrets that `./orthanc-stack up STACK` put there are the user's stack's.
    settings = {key: value for key, value in settings.items() if is_setting(key)}
    for node in settings["nodes"]:
        node["httpPort"], node["dicomPort"] = session.free_port(), session.free_port()
    settings["adminer"]["port"] = session.free_port()
    if tls:
        for party in (*settings["nodes"], *settings["modalities"], settings.setdefault("indexDb", {})):
            party["tls"] = True
    return settings


class PulumiStack:
    """A stack.

    Args:
        session: the run of the bench that it belongs to.
        program: the folder of its program.
        settings: what its stack file says, less the secrets; None for a program that has none. Edit them, then call write().
    """

    def __init__(self, session: Session, program: Path, settings: dict[str, Any] | None = None) -> None:
        self.session, self.program, self.settings = session, program, copy.deepcopy(settings)
        self.name = session.stack_name()
        self._file = program / f"Pulumi.{self.name}.yaml"
        #: In clear.
        self.secrets: dict[str, str] = {}
        self._certificates: dict[str, str] = {}
        state = session.folder / "state"
        state.mkdir(exist_ok=True)
        self._env = os.environ | {
            "PULUMI_BACKEND_URL": f"file://{state}",
            "PULUMI_CONFIG_PASSPHRASE": session.passphrase,
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        }
        self._env.pop("PULUMI_CONFIG_PASSPHRASE_FILE", None)
        self._pulumi("stack", "init", self.name)
        self.write()

    @property
    def prefix(self) -> str:
        """What the names of its containers begin with."""
        return prefix(self.name)

    def write(self) -> None:
        """The stack file from the settings, with a secret for each key that has none; Pulumi encrypts them."""
        if self.settings is None:
            # One value, as every stack has; language hosts differ in what they make of none.
            self._file.write_text(f"config:\n  {PROJECT}:environment: dev\n", encoding="utf-8")
            return
        settings = self.parsed()
        missing = [key for key in secret_keys(settings) if key not in self.secrets]
        self.secrets |= {key: f"pw{randomness.token_hex(12)}" for key in missing}
        made = make(settings, self._certificates | self.secrets, datetime.now(UTC))
        self._certificates |= made.plain
        self.secrets |= made.secret
        content = yaml.safe_load(self._file.read_text(encoding="utf-8")) or {}
        held = {key: value for key, value in (content.get("config") or {}).items() if isinstance(value, dict) and "secure" in value}
        plain = {f"{PROJECT}:{key}": value for key, value in (self.settings | self._certificates).items()}
        self._file.write_text(yaml.safe_dump(content | {"config": plain | held}, sort_keys=False), encoding="utf-8")
        if secret := [*missing, *made.secret]:
            self._pulumi("config", "set-all", *(f"--secret={key}={self.secrets[key]}" for key in secret))

    def parsed(self) -> StackSettings:
        """The settings, as the program reads them."""
        settings, _, problems = parse(self.settings or {})
        if settings is None:
            raise BenchError(f"the bench's own settings are refused: {problems}")
        return settings

    def up(self) -> Timed:
        """pulumi up without a preview before it, timed as a user sees it: from the command to its end."""
        return self._timed("up", "--yes", "--skip-preview")

    def no_op(self, operation: str) -> float:
        """Seconds of an "up", or of a "preview", that has nothing to do.

        Raises:
            BenchError: it had something to do.
        """
        done = self.up() if operation == "up" else self._timed(operation)
        if not done.is_no_op:
            raise BenchError(f"`pulumi {operation}` of {self.name} should have nothing to do, but: {done.changes}")
        return done.seconds

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Its containers do nothing meanwhile: the health checks of a hundred would take the CPU time that Pulumi runs on.

        Paused, not stopped: for the engine and the program's checks they still run and hold their ports, and no later `up` has to wait for
        their start.
        """
        for _ in range(_PAUSES):
            if not (running := self._containers("running")):
                break
            # On a busy machine, some cannot be frozen at once.
            subprocess.run(["docker", "pause", *running], capture_output=True, check=False)
        else:
            raise BenchError(f"not paused: {', '.join(running)}")
        try:
            yield
        finally:
            run(["docker", "unpause", *self._containers("paused")])

    def _containers(self, status: str) -> list[str]:
        """Its containers that are in some status."""
        return run(["docker", "ps", "--quiet", f"--filter=name=^/?{self.prefix}-", f"--filter=status={status}"]).split()

    def destroy(self) -> None:
        """Remove what it made, its state and its stack file."""
        self._pulumi("destroy", "--yes", "--skip-preview")
        self._pulumi("stack", "rm", "--yes", "--force")

    def identity(self, device: str) -> Path | None:
        """A file with the certificate of a device and its key, as the device has it; None without TLS."""
        if certificate_key(device) not in self._certificates:
            return None
        file = self.session.folder / f"{self.name}-{device}.pem"
        file.write_text(self._certificates[certificate_key(device)] + self.secrets[private_key_key(device)], encoding="utf-8")
        return file

    def outputs(self) -> dict[str, Any]:
        """The stack's outputs, secrets in clear."""
        loaded: dict[str, Any] = yaml.safe_load(self._pulumi("stack", "output", "--json", "--show-secrets"))
        return loaded

    def _pulumi(self, *arguments: str) -> str:
        command = ["pulumi", *arguments, "--non-interactive", "--color=never", *([] if "init" in arguments else ["--stack", self.name])]
        return run(command, cwd=self.program, env=self._env)

    def _timed(self, *arguments: str) -> Timed:
        return timed(["pulumi", *arguments, "--non-interactive", "--color=never", f"--stack={self.name}"], self.program, self._env)
