"""`restore`: a stack from a backup, on an engine that has nothing of it.

Volumes, database and roles are made first, by the program itself; then indexes and images are put into them; nodes and forwarders come
last. So no node runs before its data is there, and nothing that a device sends meanwhile is lost.
"""

import contextlib
import getpass
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

import yaml
from docker.errors import NotFound
from pydantic import ValidationError

from configs.loader import load_stack_file
from configs.names import LABEL_ROLE, LABEL_STACK, PROJECT, backup_volume
from configs.secrets import BACKUP_PASSWORD, secret_keys
from configs.settings import BackupSettings, ImageSettings, StackSettings
from configs.stack_file import read
from ops.backup.backup import alone, repository_of
from ops.backup.data import remove_volume
from ops.backup.found import Found, find
from ops.backup.load import load
from ops.backup.restic import Repository
from ops.setup.console import ROOT, SetupError, say
from ops.setup.images import ensure_images, ensure_restic
from ops.setup.prepare import prepare, stack_file
from ops.setup.state import STATE_FOLDER
from ops.stack.engine import client, engine_errors
from ops.stack.stack import Stack
from ops.stack.up import up

_LABEL: Final = "Restore"
#: On the volume that marks a restore that has begun: the snapshot of its manifest.
_MARK: Final = f"{PROJECT}.restore"


def restore(name: str, *, origin: str, at: str) -> int:
    """Restore a stack from its newest complete backup, or the newest one before a time; the exit status.

    Args:
        name: the stack's name.
        origin: the repository; empty for the one that the stack file names.
        at: a time in ISO 8601, UTC where it does not say otherwise; empty for now.
    """
    stack = Stack(name, prepare(name, state=False))
    # A stack file that is there beside --from may be the clone's own, of another stack.
    settings = load_stack_file(name) if not origin and stack_file(name, stack.root).exists() else None
    image = ensure_restic(settings.images if settings else ImageSettings(source="auto"))
    with alone(stack, image):
        started = time.monotonic()
        refuse_containers(stack)
        begun = _begun(stack)
        repository = _repository(stack, settings, origin, image)
        repository.exists()  # sooner than anything else would
        found = find(repository, at, begun)
        if not begun:
            refuse_volumes(stack)
        say(_LABEL, f"the backup of {found.manifest['time']}, made by version {found.manifest['version']}")
        put_back(found, stack)
        engine = os.environ.get("DOCKER_HOST")
        stack = Stack(name, prepare(name))
        refuse_other_engine(stack, engine)
        settings = load_stack_file(name)
        if not stack.exists():
            stack.create()
        check_secrets(stack, settings)
        ensure_images(settings)
        with engine_errors():
            client().volumes.create(stack.restore_mark, labels={LABEL_STACK: stack.prefix, _MARK: found.snapshot})
        load(stack, settings, found)
        remove_volume(stack.restore_mark)
        say(_LABEL, f"the data is back, after {time.monotonic() - started:.0f} s; now the nodes")
    return up(name, saves=False)


def _repository(stack: Stack, settings: StackSettings | None, origin: str, image: str) -> Repository:
    """The repository, with a password that is asked for where neither RESTIC_PASSWORD nor the stack file says it."""
    password = os.environ.get("RESTIC_PASSWORD", "")
    if settings and settings.backup and not password:
        # The passphrase may be gone with the machine. It is in the backup.
        with contextlib.suppress(SetupError):
            known = Stack(stack.name, prepare(stack.name))
            if not known.exists():
                known.create()
            return repository_of(known, settings, settings.backup)
    named = settings.backup if settings else None
    to, host_key = origin or (named.to if named else ""), os.environ.get("ORTHANC_BACKUP_HOST_KEY") or (named.host_key if named else None)
    if not to:
        raise SetupError(f"say which repository: ./orthanc-stack restore {stack.name} --from REPOSITORY (it is on the recovery sheet).")
    if not password:
        if not (sys.stdin and sys.stdin.isatty()):
            raise SetupError("the repository's password is on the recovery sheet: set RESTIC_PASSWORD to it.")
        password = getpass.getpass("  Password of the repository: ")
    try:
        where = BackupSettings.model_validate({"to": to, "hostKey": host_key})
    except ValidationError as error:
        wrong = error.errors()[0]
        what = f"--from {to}" if wrong["loc"] == ("to",) else "ORTHANC_BACKUP_HOST_KEY"
        raise SetupError(f"{what} {wrong['msg'].removeprefix('Value error, ')}") from None
    return Repository(to, image, stack.prefix, password, _login(where), where.host_key or "")


def _login(where: BackupSettings) -> tuple[str, str]:
    """The login at the repository's server, from the environment; for SFTP, a private key from a file."""
    to = where.to
    if to.startswith("sftp:"):
        file = Path(os.environ.get("ORTHANC_BACKUP_KEY_FILE", ""))
        if not where.host_key or not file.is_file():
            raise SetupError(
                f"{to}: set ORTHANC_BACKUP_KEY_FILE to a file with a private key that the server accepts, and "
                "ORTHANC_BACKUP_HOST_KEY to the server's host key, which is on the recovery sheet."
            )
        return file.read_text(encoding="utf-8", errors="replace"), ""
    variables = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if to.startswith("s3:") else ("RESTIC_REST_USERNAME", "RESTIC_REST_PASSWORD")
    user, secret = (os.environ.get(one, "") for one in variables)
    return user, secret


# --- Refusals --------------------------------------------------------------------------------------------------------


def refuse_containers(stack: Stack) -> None:
    """Refuse where a node of the stack is on the engine, running or not: what it has stored would be overwritten."""
    with engine_errors():
        found = client().containers.list(all=True, filters={"label": f"{LABEL_STACK}={stack.prefix}"}, ignore_removed=True)
    nodes = sorted(str(one.name) for one in found if one.labels.get(LABEL_ROLE) in ("node", "forwarder", "adminer"))
    if nodes:
        held = _volumes(stack)
        volumes = f"; then remove those of its volumes that are left: docker volume rm {' '.join(held)}" if held else "."
        raise SetupError(
            f"nothing was touched: the stack {stack.name} is on this engine ({', '.join(nodes)}), and a restore overwrites nothing. "
            f"To give up what it holds, and restore: `./orthanc-stack destroy {stack.name}`{volumes}"
        )


def refuse_volumes(stack: Stack) -> None:
    """Refuse where a data volume of the stack is on the engine, other than by a restore that was broken off."""
    if held := _volumes(stack):
        raise SetupError(
            f"nothing was touched: there are volumes of the stack {stack.name} on this engine, which may hold images: {', '.join(held)}. "
            f"`./orthanc-stack up {stack.name}` uses them. To give them up, and restore: docker volume rm {' '.join(held)}"
        )


def _volumes(stack: Stack) -> list[str]:
    """The names of the stack's data volumes that are on the engine, whoever made them."""
    with engine_errors():
        found = client().volumes.list(filters={"name": f"{stack.prefix}-"})
    return sorted(
        one.name for one in found if one.name.startswith(f"{stack.prefix}-") and not one.name.startswith(backup_volume(stack.prefix, ""))
    )


def refuse_other_engine(stack: Stack, engine: str | None) -> None:
    """Refuse where the stack file, which is back now, names another engine than the one that was found to have nothing of the stack."""
    named = os.environ.get("DOCKER_HOST")
    if named != engine:
        raise SetupError(
            f"nothing was restored yet: {stack_file(stack.name, stack.root).name} is back, and names the engine {named} (docker:host or "
            f"docker:context), which is not the one that was asked until now ({engine}). Give the same command again to restore there. To "
            "restore to another engine, first change these keys, or take them out."
        )


def _begun(stack: Stack) -> str:
    """The backup whose restore was begun and not ended; empty where there is none."""
    with engine_errors():
        try:
            return str((client().volumes.get(stack.restore_mark).attrs.get("Labels") or {}).get(_MARK, ""))
        except NotFound:
            return ""


# --- Stack file and secrets ------------------------------------------------------------------------------------------


def put_back(found: Found, stack: Stack) -> None:
    """Put the stack file back, and the passphrase that was made for it. A SetupError where there is another one with secrets."""
    content, file = found.file("stack.yaml"), stack_file(stack.name, stack.root)
    own = {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & os.environ.keys()
    passphrase = found.file("passphrase") if found.manifest["passphrase"] and not own else b""
    kept = ROOT / STATE_FOLDER / "passphrase"
    if passphrase and kept.exists() and kept.read_bytes() != passphrase:
        raise SetupError(
            f"nothing was touched: {kept} holds another passphrase than the backup: other stacks of this checkout need it. "
            "Restore in a clone of its own."
        )
    if file.exists() and not _alike(file, content):
        if b"secure:" in file.read_bytes():
            raise SetupError(
                f"nothing was touched: {file.name} is not the stack file of the backup. Move it away, and give the same command again:\n"
                f"    mv {file.name} {file.name}.mine"
            )
        # The clone's own, which nobody has used.
        file.rename(file.with_name(f"{file.name}.before-restore"))
        say(_LABEL, f"{file.name} had no secrets, and was moved to {file.name}.before-restore")
    if not file.exists():
        file.write_bytes(content)
        say(_LABEL, f"{file.name} is back")
    if passphrase and not kept.exists():
        kept.parent.mkdir(mode=0o700, exist_ok=True)
        with os.fdopen(os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(passphrase)
        say(_LABEL, f"{STATE_FOLDER}/passphrase is back")


def _alike(file: Path, saved: bytes) -> bool:
    """Whether a stack file is the saved one, or names another engine or other images: a restore may go there, or to an older Orthanc."""
    both: list[dict[str, Any]] = [read(file), yaml.safe_load(saved)]
    for one in both:
        config = one.get("config") or {}
        one["config"] = {key: value for key, value in config.items() if key != f"{PROJECT}:images" and not str(key).startswith("docker:")}
    return both[0] == both[1]


def check_secrets(stack: Stack, settings: StackSettings) -> None:
    """Refuse where the secrets cannot be decrypted, before anything is made."""
    key = (*(one for one in secret_keys(settings) if one != BACKUP_PASSWORD), BACKUP_PASSWORD)[0]
    try:
        stack.ask("config", "get", f"{PROJECT}:{key}")
    except SetupError as error:
        raise SetupError(
            f"{error}\nThe secrets in {stack_file(stack.name).name} cannot be decrypted: set PULUMI_CONFIG_PASSPHRASE to the passphrase "
            "that they were encrypted with (see the recovery sheet), and give the same command again. Nothing was deployed."
        ) from error
