"""`secrets`, `certs`, `rotate`: the passwords, private keys and certificates in a stack file.

What is missing is made at a desk, and demanded in a pipeline. No secret is ever on a command line, where every user of the machine could
read it.
"""

import contextlib
import os
import secrets as randomness
import shutil
import string
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from configs.loader import load_stack_file
from configs.names import DB_HOST, DB_SUPERUSER, PROJECT, own
from configs.problems import nearest
from configs.secrets import (
    BACKUP_PASSWORD,
    CA_CERTIFICATE,
    CA_KEY,
    DB_PASSWORD,
    PRIVATE_KEY,
    certificate_key,
    is_certificate,
    is_private_key,
    parties_of,
    private_key_key,
    secret_keys,
)
from configs.settings import StackSettings
from ops.setup.cache import lock
from ops.setup.console import SetupError, say
from ops.setup.prepare import prepare, stack_config, stack_file
from ops.setup.state import on_runner
from ops.stack.authority import AUTHORITY, due, is_own, make
from ops.stack.stack import Stack, deployed

#: Stands for every certificate that the stack's authority has made.
ALL: Final = "all"
_LENGTH: Final = 32
#: The password comes in by standard input, as a variable that psql quotes; the statement is kept out of the server's log.
_ALTER: Final = """\\set password {password}
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
SET log_min_duration_statement = -1;
ALTER ROLE "{role}" PASSWORD :'password';
"""


def secrets(name: str) -> int:
    """Set the secrets of a stack that are missing; the exit status."""
    settings = load_stack_file(name)
    ensure_secrets(_at_a_desk(name), settings)
    return 0


def certs(name: str, renew: Sequence[str] = (), export: Sequence[str] = ()) -> int:
    """Make the certificates that are missing or end soon; the exit status.

    Args:
        name: the stack's name.
        renew: those to make anew in any case.
        export: the devices whose own to write into a folder, with the key and what they are to trust.
    """
    settings = load_stack_file(name)
    parties = [party.name for party in parties_of(settings)]
    if not parties:
        raise SetupError("nobody in this stack speaks TLS: set tls of a node, of a modality or of indexDb.")
    stack, held = _at_a_desk(name), certificates_in(stack_config(name))
    made_here = [party for party in parties if not is_own(party, held)]
    renewed = renew_certificates(stack, settings, _named(renew, parties, made_here))
    for party in _named(export, parties, made_here):
        _export(stack, party)
    if renewed:
        say("Certificates", f"`./orthanc-stack up {name}` gives them to the stack")
    return 0


def rotate(name: str, keys: Sequence[str], *, everything: bool) -> int:
    """Give secrets new random values while the stack runs; the next `up` deploys it with them. The exit status.

    Args:
        name: the stack's name.
        keys: which.
        everything: instead of keys, all that nobody outside of the stack has to be told of.
    """
    settings = load_stack_file(name)
    if BACKUP_PASSWORD in keys:
        raise SetupError(f"{BACKUP_PASSWORD} is what the backups are encrypted with: restic changes it (docs/backup.md, Its password).")
    chosen = all_keys(settings, certificates_in(stack_config(name))) if everything else checked(keys, known_keys(settings))
    refuse_on_runner(name)
    stack = deployed(name)
    if private := [key for key in chosen if is_private_key(key)]:
        renew_certificates(stack, settings, [AUTHORITY if key == CA_KEY else key.removeprefix(f"{PRIVATE_KEY}.") for key in private])
    if passwords := [key for key in chosen if not is_private_key(key)]:
        renew(stack, passwords)
        say("Rotate", f"new random values: {', '.join(passwords)}")
    return 0


def refuse_on_runner(name: str) -> None:
    """Refuse to write the stack file in a pipeline, which deletes its checkout; a SetupError there."""
    if on_runner():
        raise SetupError(
            f"nothing was touched: this is a runner, and what is written into the stack file of {name} goes with its checkout. "
            "Do it at a desk, and commit the stack file."
        )


def _at_a_desk(name: str) -> Stack:
    """A stack with its tools, made where the backend does not know it yet; refused on a runner."""
    refuse_on_runner(name)
    stack = Stack(name, prepare(name, engine=False))
    if not stack.exists():
        stack.create()
    return stack


# --- Passwords -------------------------------------------------------------------------------------------------------


def random_secret() -> str:
    """32 letters and digits (190 bits), which every image reads unchanged; beginning with a letter, so never a number."""
    first = randomness.choice(string.ascii_letters)
    return first + "".join(randomness.choice(string.ascii_letters + string.digits) for _ in range(_LENGTH - 1))


def missing_keys(needed: Iterable[str], config: Mapping[str, Any]) -> list[str]:
    """Those secrets that a stack file's config does not hold in any form."""
    return [key for key in needed if f"{PROJECT}:{key}" not in config]


def ensure_secrets(stack: Stack, settings: StackSettings) -> None:
    """Set to random values what is missing, and never change what is set. Of two runs at once, the second takes the first one's."""
    needed = secret_keys(settings)
    with _writing(stack):
        missing = missing_keys(needed, stack_config(stack.name, stack.root))
        if missing:
            set_secrets(stack, {key: random_secret() for key in missing}, stack_file(stack.name, stack.root))
    say("Secrets", f"set to random values: {', '.join(missing)}" if missing else f"all {len(needed)} set")


def require_secrets(stack: Stack, settings: StackSettings) -> None:
    """Refuse a stack file that lacks a secret: neither a pipeline nor a preview makes one. The SetupError names them."""
    if missing := missing_keys(secret_keys(settings), stack_config(stack.name, stack.root)):
        raise SetupError(
            f"{stack_file(stack.name).name} lacks secrets: {', '.join(missing)}. "
            f"At a desk: `./orthanc-stack secrets {stack.name}` sets them to random values; then commit the stack file."
        )


def _writing(stack: Stack) -> contextlib.AbstractContextManager[None]:
    """One run at a time changes a stack file: the draft of two would be one file."""
    return lock(f"secrets-{stack.short}")


def set_secrets(stack: Stack, values: Mapping[str, str], file: Path, plain: Mapping[str, str] | None = None) -> None:
    """Set secrets, and other values in clear, all of them or none."""
    with _draft(file) as draft:
        # `pulumi config set-all` has secrets on its command line.
        for key, value in values.items():
            stack.ask("config", "set", "--secret", f"{PROJECT}:{key}", "--config-file", str(draft), stdin=value)
        if plain:
            pairs = (f"--plaintext={PROJECT}:{key}={value}" for key, value in sorted(plain.items()))
            stack.ask("config", "set-all", *pairs, "--config-file", str(draft))


def set_settings(stack: Stack, values: Mapping[str, str]) -> None:
    """Set settings in the stack file by their paths (`indexDb.volume`), all of them or none. Comments stay."""
    with _writing(stack), _draft(stack_file(stack.name, stack.root)) as draft:
        pairs = (f"--plaintext={PROJECT}:{path}={value}" for path, value in sorted(values.items()))
        stack.ask("config", "set-all", "--path", *pairs, "--config-file", str(draft))


@contextlib.contextmanager
def _draft(file: Path) -> Iterator[Path]:
    """A copy of a stack file, which takes its place at the end, if there is no error."""
    file = file.resolve()  # it may be a link to where stack files are kept
    draft = file.with_name(f".{file.stem}.draft.yaml")  # Pulumi goes by the suffix
    shutil.copy(file, draft)
    try:
        yield draft
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


# --- Certificates ----------------------------------------------------------------------------------------------------


def certificates_in(config: Mapping[str, Any]) -> dict[str, str]:
    """The certificates that the configuration of a stack file holds, by their keys."""
    return {key: str(value) for key, value in own(config).items() if is_certificate(key)}


def require_certificates(stack: Stack, settings: StackSettings) -> None:
    """Refuse a stack file that lacks a certificate, or has one that is over. Decrypts nothing. The SetupError names them."""
    config = stack_config(stack.name, stack.root)
    why = due(settings, certificates_in(config), datetime.now(UTC), only_needed=True)
    missing = [f"{certificate_key(party)} ({reason})" for party, reason in sorted(why.items())]
    keys = [private_key_key(party.name) for party in parties_of(settings) if not party.outside and party.name not in why]
    missing += [f"{key} (there is none)" for key in missing_keys(keys, config)]
    if missing:
        raise SetupError(
            f"{stack_file(stack.name).name} lacks certificates: {', '.join(missing)}. At a desk: "
            f"`./orthanc-stack certs {stack.name}` makes them; then commit the stack file."
        )


def ensure_certificates(stack: Stack, settings: StackSettings) -> None:
    """Make the certificates that a stack needs and has not; renew none that still serves."""
    if parties_of(settings):
        renew_certificates(stack, settings, only_needed=True)


def renew_certificates(stack: Stack, settings: StackSettings, renew: Sequence[str] = (), *, only_needed: bool = False) -> bool:
    """Make certificates and set them in the stack file, with their keys as secrets; whether any were made.

    Args:
        stack: the stack.
        settings: what its stack file says.
        renew: those to make anew in any case: names of parties, AUTHORITY.
        only_needed: leave what ends soon as it is.

    Raises:
        SetupError: the stack file's certificates are one's own, and were asked to be made anew.
    """
    with _writing(stack):
        config = stack_config(stack.name, stack.root)
        held, now = certificates_in(config), datetime.now(UTC)
        if foreign := [party for party in renew if is_own(party, held)]:
            key = certificate_key(foreign[0])
            raise SetupError(f"the certificate of {foreign[0]} is not of this stack's authority: set {key} to a new one.")
        if AUTHORITY not in renew and not due(settings, held, now, renew, only_needed=only_needed):
            say("Certificates", f"all {len(parties_of(settings))} there")
            return False
        # The authority's private key is decrypted only where it has to sign.
        if f"{PROJECT}:{CA_KEY}" in config:
            held[CA_KEY] = stack.ask("config", "get", f"{PROJECT}:{CA_KEY}")
        made = make(settings, held, now, renew, only_needed=only_needed)
        for party, why in made.why.items():
            say("Certificates", f"made for {party}: {why}")
        set_secrets(stack, made.secret, stack_file(stack.name, stack.root), made.plain)
    return True


def _named(said: Sequence[str], parties: Sequence[str], everything: Sequence[str]) -> list[str]:
    """The parties that an option names; `everything` for ALL."""
    return list(everything) if ALL in said else _each_once(said, parties, "has no certificate in this stack")


def _each_once(said: Sequence[str], known: Sequence[str], problem: str) -> list[str]:
    """What was said, each once; a SetupError where one is unknown."""
    if unknown := [one for one in said if one not in known]:
        raise SetupError(f"{unknown[0]} {problem}.{nearest(unknown[0], known)} There are: {', '.join(known)}.")
    return sorted(set(said))


def _export(stack: Stack, party: str) -> None:
    """Write what a device needs to speak TLS with the stack: its certificate, its key, and what it is to trust."""
    config = own(stack_config(stack.name, stack.root))
    texts = {"certificate.pem": config.get(certificate_key(party)), "ca.pem": config.get(CA_CERTIFICATE)}
    if not all(texts.values()):
        raise SetupError(f"the stack has made no certificate for {party}: it has one of its own.")
    folder = stack.root / "certificates" / stack.short / party
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    texts["key.pem"] = stack.ask("config", "get", f"{PROJECT}:{private_key_key(party)}")
    for name, text in texts.items():
        (folder / name).unlink(missing_ok=True)
        # Nobody else reads it, from its first byte on.
        with os.fdopen(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
            out.write(str(text).strip() + "\n")
    say("Certificates", f"{folder.relative_to(stack.root)}/: certificate.pem and key.pem for {party}, ca.pem for it to trust")


# --- New values for a stack that runs --------------------------------------------------------------------------------


def known_keys(settings: StackSettings) -> list[str]:
    """The secrets that can be rotated: passwords, and private keys, each with its certificate; the authority's with all that it signed."""
    parties = parties_of(settings)
    return [*_passwords(settings), *(private_key_key(party.name) for party in parties), *([CA_KEY] if parties else [])]


def all_keys(settings: StackSettings, held: Mapping[str, str]) -> list[str]:
    """The secrets that nobody outside the stack has to be told of. A device has its key, and knows the authority's certificate."""
    inside = [party.name for party in parties_of(settings) if not party.outside and not is_own(party.name, held)]
    return [*_passwords(settings), *map(private_key_key, inside)]


def _passwords(settings: StackSettings) -> list[str]:
    """The passwords that the next deployment can change: not that of the backups."""
    return [key for key in secret_keys(settings) if key != BACKUP_PASSWORD]


def checked(keys: Sequence[str], known: Sequence[str]) -> list[str]:
    """The keys, each once; a SetupError where there is none, or one that the stack has not."""
    if not keys:
        raise SetupError(f"say which secret, or --all. There are: {', '.join(known)}.")
    return _each_once(keys, known, "is no secret of this stack")


def renew(stack: Stack, keys: Sequence[str]) -> Mapping[str, str]:
    """Set secrets to new random values, which it returns.

    The next deployment does the rest: it sets the passwords of the nodes' roles before it replaces the nodes. Only the superuser's has to
    be changed here, because PostgreSQL reads its file once, when it makes its data. Cut short in between, the same command, run again,
    puts it right: on the server's own socket no password is asked for.
    """
    values = {key: random_secret() for key in keys}
    with _writing(stack):
        if DB_PASSWORD in values:
            _alter_superuser(stack, values[DB_PASSWORD])
        set_secrets(stack, values, stack_file(stack.name, stack.root))
    return values


def _alter_superuser(stack: Stack, password: str) -> None:
    # By the docker command: Docker's SDK has no way to close a command's input over every kind of connection (docker/docker-py#983).
    command = ["docker", "exec", "-i", "--user", "postgres", f"{stack.prefix}-{DB_HOST}", "psql", "-h", "/var/run/postgresql"]
    command += ["-U", DB_SUPERUSER, "-d", "postgres", "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1"]
    script = _ALTER.format(password=password, role=DB_SUPERUSER)
    try:
        done = subprocess.run(command, input=script, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"whether {DB_PASSWORD} was changed is not known: {error}. Give the same command again.") from None
    if done.returncode != 0:
        raise SetupError(f"{DB_PASSWORD} was not changed: the database has to run for that. It said: {done.stderr.strip()}")
