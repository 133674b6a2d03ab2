"""Where Pulumi keeps the stacks' state and what encrypts their secrets: the user's login, else a folder of the checkout."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ops.setup.console import ROOT, SetupError

STATE_FOLDER = ".pulumi-state"
#: The variable that says what encrypts the secrets of a stack that is made: passphrase, awskms://…, hashivault://… (docs/ci.md).
SECRETS_PROVIDER = "SECRETS_PROVIDER"


@dataclass(frozen=True)
class State:
    """A state backend.

    Attributes:
        url: the backend's address.
        origin: where that address comes from, for people.
        env: what Pulumi needs in its environment, beyond the caller's, to use it.
    """

    url: str
    origin: str
    env: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path | None:
        """The folder of a backend on this machine's disk; None for any other."""
        if not self.url.startswith("file://"):
            return None
        return Path(self.url.removeprefix("file://") or "/").expanduser() / ".pulumi"


def ensure_state(stack: str, environ: Mapping[str, str] = os.environ, root: Path = ROOT) -> State:
    """Choose the backend, and make the local one and its passphrase when there is no other.

    A login that exists is used: PULUMI_BACKEND_URL, PULUMI_ACCESS_TOKEN, or the one that `pulumi login` left.

    Args:
        stack: the stack's name.
        environ: the caller's environment.
        root: the checkout.

    Raises:
        SetupError: the stack's secrets are encrypted with a passphrase that is not here; or there is no login on a runner, whose
            checkout goes, and the state with it.
    """
    local = root / STATE_FOLDER
    url, origin = _login(environ)
    env: dict[str, str] = {}
    if not url:
        if "true" in (environ.get("GITHUB_ACTIONS"), environ.get("GITLAB_CI")):
            raise SetupError(
                "this is a runner, and its checkout is deleted after the job: a state in it would be lost, and with it what Pulumi knows\n"
                "of the containers. Set PULUMI_BACKEND_URL, or PULUMI_ACCESS_TOKEN for Pulumi Cloud (docs/ci.md, State backends)."
            )
        _private_folder(local)
        url, origin = f"file://{local}", f"{STATE_FOLDER}/ in this checkout"
        env["PULUMI_BACKEND_URL"] = url
    if _wants_passphrase(url, environ, root / f"Pulumi.{stack}.yaml"):
        env["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(_passphrase(local, root / f"Pulumi.{stack}.yaml"))
    return State(url, origin, env)


def _login(environ: Mapping[str, str]) -> tuple[str, str]:
    if url := environ.get("PULUMI_BACKEND_URL"):
        return url, f"{url} (PULUMI_BACKEND_URL)"
    home = Path(environ.get("PULUMI_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".pulumi")
    try:
        current = json.loads((home / "credentials.json").read_text()).get("current", "")
    except (OSError, ValueError, AttributeError):
        current = ""
    if current:
        return str(current), f"{current} (pulumi login)"
    if environ.get("PULUMI_ACCESS_TOKEN"):
        return "https://api.pulumi.com", "Pulumi Cloud (PULUMI_ACCESS_TOKEN)"
    return "", ""


def _wants_passphrase(url: str, environ: Mapping[str, str], stack_file: Path) -> bool:
    """Whether secrets are encrypted with a passphrase that the caller does not give."""
    # An empty passphrase is one as well: what counts is whether the variable is set.
    if "PULUMI_CONFIG_PASSPHRASE" in environ or environ.get("PULUMI_CONFIG_PASSPHRASE_FILE"):
        return False
    # What the stack was made with goes before what a new one is to be made with.
    provider = _field(stack_file, "secretsprovider")
    if not provider and not _field(stack_file, "encryptionsalt"):
        provider = environ.get(SECRETS_PROVIDER, "")
    if provider:
        return provider == "passphrase"
    # Pulumi Cloud encrypts by itself, unless the stack was made with a passphrase.
    return not url.startswith(("https://", "http://")) or bool(_field(stack_file, "encryptionsalt"))


def _field(stack_file: Path, name: str) -> str:
    """A top-level field of a stack file. Not with a YAML parser: there may be none before the virtual environment."""
    try:
        match = re.search(rf"^{name}:\s*(\S+)", stack_file.read_text(), re.MULTILINE)
    except OSError:
        return ""
    return match[1].strip("\"'") if match else ""


def _passphrase(folder: Path, stack_file: Path) -> Path:
    """The file with the passphrase, made if it is missing."""
    path = folder / "passphrase"
    if path.exists():
        return path
    if _field(stack_file, "encryptionsalt"):
        raise SetupError(
            f"{stack_file.name} holds secrets that were encrypted with a passphrase, and {path} is missing.\n"
            "Either set PULUMI_CONFIG_PASSPHRASE (or PULUMI_CONFIG_PASSPHRASE_FILE) to it,\n"
            f"or, to begin with new secrets, delete from {stack_file.name} the line `encryptionsalt: …` and each key with\n"
            "`secure: …` below it. Databases that exist keep their old passwords."
        )
    _private_folder(folder)
    # Renamed into place when it is complete: an interrupted run must not leave an empty passphrase.
    draft = folder / f"passphrase.{os.getpid()}"
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
    draft.rename(path)
    return path


def _private_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
