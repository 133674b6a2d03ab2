"""Where Pulumi keeps the stacks' state and what encrypts their secrets: the user's login, else a folder of the checkout."""

import contextlib
import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from configs.loader import stack_file_name
from configs.stack_file import read
from ops.setup.console import ROOT, SetupError, home, without_passwords

STATE_FOLDER = ".pulumi-state"
#: The variable that says what encrypts the secrets of a stack that is made: passphrase, awskms://…, hashivault://… (docs/ci.md).
SECRETS_PROVIDER = "SECRETS_PROVIDER"


@dataclass(frozen=True)
class State:
    """A state backend."""

    url: str  #: its address
    origin: str  #: where that address comes from, for people
    env: dict[str, str] = field(default_factory=dict)  #: what Pulumi needs in its environment, beyond the caller's, to use it

    @property
    def folder(self) -> Path | None:
        """The folder of a backend on this machine's disk; None for any other."""
        parts = urlsplit(self.url)
        # As Pulumi reads it, which is started in the checkout (massageBlobPath in its backend/diy).
        return ROOT / Path(unquote(parts.netloc + parts.path)).expanduser() / ".pulumi" if parts.scheme == "file" else None


def on_runner(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this is a job of GitHub's or GitLab's: nobody keeps what it writes into its checkout."""
    return "true" in (environ.get("GITHUB_ACTIONS"), environ.get("GITLAB_CI"))


def ensure_state(stack: str, environ: Mapping[str, str] = os.environ, root: Path = ROOT) -> State:
    """Choose the backend, and make the local one and its passphrase when there is no other.

    A login that exists is used: PULUMI_BACKEND_URL, PULUMI_ACCESS_TOKEN, or the one that `pulumi login` left. A SetupError where the
    stack's secrets are encrypted with a passphrase that is not here; where there is no login on a runner, whose checkout goes, and the
    state with it; where the checkout cannot be written to. A SettingsError where the stack file cannot be read.
    """
    local, file = root / STATE_FOLDER, root / stack_file_name(stack)
    content = read(file) if file.exists() else {}
    url, origin = _login(environ)
    env: dict[str, str] = {}
    if not url and on_runner(environ):
        raise SetupError(
            "this is a runner, and its checkout is deleted after the job: a state in it would be lost, and with it what Pulumi knows\n"
            "of the containers. Set PULUMI_BACKEND_URL, or PULUMI_ACCESS_TOKEN for Pulumi Cloud (docs/ci.md, State backends)."
        )
    try:
        if not url:
            _private_folder(local)
            url, origin = f"file://{quote(str(local))}", f"{STATE_FOLDER}/ in this checkout"
            env["PULUMI_BACKEND_URL"] = url
        if _wants_passphrase(url, environ, content):
            env["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(_passphrase(local, file.name, known="encryptionsalt" in content))
    except OSError as error:
        raise SetupError(f"{local} cannot be written to: {error.strerror}. Pulumi's state or passphrase has its place there.") from error
    return State(url, origin, env)


def _login(environ: Mapping[str, str]) -> tuple[str, str]:
    if url := environ.get("PULUMI_BACKEND_URL"):
        return url, f"{without_passwords(url)} (PULUMI_BACKEND_URL)"
    folder = Path(environ.get("PULUMI_HOME") or Path(environ.get("HOME") or home()) / ".pulumi")
    try:
        current = json.loads((folder / "credentials.json").read_bytes()).get("current", "")
    except (OSError, ValueError, AttributeError):
        current = ""
    if current:
        return str(current), f"{without_passwords(str(current))} (pulumi login)"
    if environ.get("PULUMI_ACCESS_TOKEN"):
        return "https://api.pulumi.com", "Pulumi Cloud (PULUMI_ACCESS_TOKEN)"
    return "", ""


def _wants_passphrase(url: str, environ: Mapping[str, str], content: Mapping[str, Any]) -> bool:
    """Whether secrets are encrypted with a passphrase that the caller does not give."""
    # An empty passphrase is one as well: what counts is whether the variable is set.
    if "PULUMI_CONFIG_PASSPHRASE" in environ or environ.get("PULUMI_CONFIG_PASSPHRASE_FILE"):
        return False
    # What the stack was made with goes before what a new one is to be made with.
    salted = bool(content.get("encryptionsalt"))
    if provider := content.get("secretsprovider") or (not salted and environ.get(SECRETS_PROVIDER)):
        return bool(provider == "passphrase")
    # Pulumi Cloud encrypts by itself, unless the stack was made with a passphrase.
    return salted or not url.startswith(("https://", "http://"))


def _passphrase(folder: Path, encrypted: str, *, known: bool) -> Path:
    """The file with the passphrase, made if it is missing and nothing is encrypted with a known one."""
    path = folder / "passphrase"
    if path.exists():
        return path
    if known:
        raise SetupError(
            f"{encrypted} holds secrets that were encrypted with a passphrase, and {path} is missing.\n"
            "Either set PULUMI_CONFIG_PASSPHRASE (or PULUMI_CONFIG_PASSPHRASE_FILE) to it, or, to begin with new secrets, delete the line\n"
            "`encryptionsalt: …` and each key with `secure: …` below it. Databases that exist keep their old passwords."
        )
    _private_folder(folder)
    descriptor, draft = tempfile.mkstemp(dir=folder, prefix="passphrase.")  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
        # It is there complete or not at all; and of two runs at once, both use that of the first.
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        Path(draft).unlink()
    return path


def _private_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
