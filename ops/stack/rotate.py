"""`rotate`: gives a stack's secrets new random values while it runs."""

import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

from configs.loader import load_stack_file
from configs.names import DB_HOST, DB_SUPERUSER
from configs.problems import nearest
from configs.secrets import CA_KEY, DB_PASSWORD, PRIVATE_KEY, is_private_key, parties_of, private_key_key, secret_keys
from configs.settings import StackSettings
from ops.setup.console import SetupError, say
from ops.setup.prepare import stack_config, stack_file
from ops.stack.authority import AUTHORITY, is_own
from ops.stack.certs import certificates_in, renew_certificates
from ops.stack.secrets import random_secret, set_secrets
from ops.stack.stack import Stack, deployed
from ops.stack.up import up

#: The password comes in by standard input, as a variable that psql quotes; the statement is kept out of the server's log.
_ALTER: Final = """\\set password {password}
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
SET log_min_duration_statement = -1;
ALTER ROLE "{role}" PASSWORD :'password';
"""


def rotate(name: str, keys: Sequence[str], *, everything: bool) -> int:
    """Give secrets new random values while the stack runs, and deploy it with them; the exit status.

    Args:
        name: the stack's name.
        keys: which.
        everything: instead of keys, all that nobody outside of the stack has to be told of.
    """
    settings = load_stack_file(name)
    held = certificates_in(stack_config(name))
    chosen = all_keys(settings, held) if everything else checked(keys, known_keys(settings))
    stack = deployed(name)
    if private := [key for key in chosen if is_private_key(key)]:
        renew_certificates(stack, settings, [AUTHORITY if key == CA_KEY else key.removeprefix(f"{PRIVATE_KEY}.") for key in private])
    if passwords := [key for key in chosen if not is_private_key(key)]:
        renew(stack, passwords)
        say("Rotate", f"new random values: {', '.join(passwords)}")
    return up(name)


def known_keys(settings: StackSettings) -> list[str]:
    """The secrets that can be rotated: passwords, and private keys, each with its certificate; the authority's with all that it signed."""
    parties = parties_of(settings)
    return [*secret_keys(settings), *(private_key_key(party.name) for party in parties), *([CA_KEY] if parties else [])]


def all_keys(settings: StackSettings, held: Mapping[str, str]) -> list[str]:
    """The secrets that nobody outside the stack has to be told of. A device has its key, and knows the authority's certificate."""
    inside = [party.name for party in parties_of(settings) if not party.outside and not is_own(party.name, held)]
    return [*secret_keys(settings), *map(private_key_key, inside)]


def checked(keys: Sequence[str], known: Sequence[str]) -> list[str]:
    """The keys, each once.

    Raises:
        SetupError: there is none, or one that the stack has not.
    """
    if unknown := [key for key in keys if key not in known]:
        raise SetupError(f"{unknown[0]} is no secret of this stack.{nearest(unknown[0], known)} There are: {', '.join(known)}.")
    if not keys:
        raise SetupError(f"say which secret, or --all. There are: {', '.join(known)}.")
    return sorted(set(keys))


def renew(stack: Stack, keys: Sequence[str]) -> Mapping[str, str]:
    """Set secrets to new random values.

    The next deployment does the rest: it sets the passwords of the nodes' roles before it replaces the nodes. Only the superuser's has to
    be changed here, because PostgreSQL reads its file once, when it makes its data. Cut short in between, the same command, run again,
    puts it right: on the server's own socket no password is asked for.

    Returns:
        the new values.
    """
    values = {key: random_secret() for key in keys}
    if DB_PASSWORD in values:
        _alter_superuser(stack, values[DB_PASSWORD])
    set_secrets(stack, values, stack_file(stack.name, stack.root))
    return values


def _alter_superuser(stack: Stack, password: str) -> None:
    # By the docker command: Docker's SDK has no way to close a command's input over every kind of connection (docker/docker-py#983).
    command = ["docker", "exec", "-i", "--user", "postgres", f"{stack.prefix}-{DB_HOST}", "psql", "-h", "/var/run/postgresql"]
    done = subprocess.run(
        [*command, "-U", DB_SUPERUSER, "-d", "postgres", "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1"],
        input=_ALTER.format(password=password, role=DB_SUPERUSER),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode != 0:
        raise SetupError(f"{DB_PASSWORD} was not changed: the database has to run for that. It said: {done.stderr.strip()}")
