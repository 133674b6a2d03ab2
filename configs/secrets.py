"""The secrets of a stack: which there are, and which values the images would misread.

Secrets are flat keys, set with ``pulumi config set --secret``. None has a default.
"""

from __future__ import annotations

import re

from configs.problems import Problem
from configs.settings import StackSettings
from configs.tls import is_certificate, is_private_key

#: The password of PostgreSQL's superuser.
DB_PASSWORD = "dbPassword"
#: What the keys of the passwords of nodes' users, and of their forwarders, begin with.
USER_PASSWORD = "userPassword"
FORWARDER_PASSWORD = "forwarderPassword"

#: What every image reads unchanged. Elsewhere: `$` starts a variable in Orthanc's configuration files, blanks, quotes and backslashes end a
#: value in the index plugin's connection string, which it does not quote.
_SAFE = re.compile(r"[A-Za-z0-9_.~+=-]+")
_MISREAD = re.compile(r"[0-9.+-]+|true|false|null|none", re.IGNORECASE)
#: Outside dev: shorter ones can be guessed, these are in every list of passwords.
_MINIMUM_LENGTH = 12
_PLACEHOLDERS = (
    "changeme",
    "changethis",
    "password",
    "orthanc",
    "postgres",
    "secret",
    "admin",
    "example",
    "qwerty",
    "123456",
)


def node_db_key(node: str) -> str:
    """The key of the password of a node's role in PostgreSQL."""
    return f"{DB_PASSWORD}.{node}"


def user_key(node: str, user: str) -> str:
    """The key of a user's password at a node."""
    return f"{USER_PASSWORD}.{node}.{user}"


def forwarder_key(node: str) -> str:
    """The key of the password with which a node's forwarder logs in at the node."""
    return f"{FORWARDER_PASSWORD}.{node}"


def is_secret_key(key: str) -> bool:
    """Whether a key of a stack file is a secret's, needed or not."""
    passwords = (f"{DB_PASSWORD}.", f"{USER_PASSWORD}.", f"{FORWARDER_PASSWORD}.")
    return key == DB_PASSWORD or key.startswith(passwords) or is_private_key(key)


def is_setting(key: str) -> bool:
    """Whether a key of a stack file is a setting, and no secret or certificate."""
    return not is_secret_key(key) and not is_certificate(key)


def secret_keys(settings: StackSettings) -> tuple[str, ...]:
    """Every password that a stack needs, sorted. Its private keys come with certificates, and are tls.py's concern."""
    keys = {user_key(node.name, user.name) for node in settings.nodes for user in node.users}
    keys |= {forwarder_key(node.name) for node in settings.forwarding_nodes}
    if settings.index_nodes:
        keys |= {DB_PASSWORD, *(node_db_key(node.name) for node in settings.index_nodes)}
    return tuple(sorted(keys))


def how_to_set(key: str) -> str:
    """The commands that set a secret."""
    return f"Set it: pulumi config set --secret {key}   (or all that are missing, to random values: make secrets)"


def check_secret(key: str, value: str | None, *, encrypted: bool, strict: bool) -> Problem | None:
    """What is wrong with a secret, never showing its value.

    Args:
        key: the secret's key.
        value: its value, or None when it is missing.
        encrypted: whether the stack file holds it encrypted.
        strict: refuse weak and placeholder values (everywhere but in dev).
    """
    if value is None:
        return Problem(key, f"is missing. {how_to_set(key)}")
    if not encrypted:
        return Problem(key, f"stands in the stack file in clear. {how_to_set(key)}")
    if not _SAFE.fullmatch(value):
        return Problem(
            key,
            "is empty or holds a character that the images would misread ($, blank, quote, …); use letters, digits, and _ . ~ + = -",
        )
    if _MISREAD.fullmatch(value):
        return Problem(
            key,
            "would be read as a number, a truth value or nothing instead of text; take a longer one, with letters.",
        )
    if strict and len(value) < _MINIMUM_LENGTH:
        return Problem(key, f"is weak: it has fewer than {_MINIMUM_LENGTH} characters. {how_to_set(key)}")
    if strict and any(word in value.lower() for word in _PLACEHOLDERS):
        return Problem(key, f"is a placeholder: it holds one of the words {', '.join(_PLACEHOLDERS)}. {how_to_set(key)}")
    return None
