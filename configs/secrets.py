"""The secrets and certificates of a stack: which keys of the stack file they have, and which values the images would misread.

Secrets are flat keys, set with ``pulumi config set --secret``. None has a default. What is in a certificate is certificates.py's concern.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from configs.names import DB_HOST
from configs.problems import Problem
from configs.settings import ModalitySettings, NodeSettings, StackSettings

#: The password of PostgreSQL's superuser.
DB_PASSWORD = "dbPassword"
#: What the keys of the passwords of nodes' users, and of their forwarders, begin with.
USER_PASSWORD = "userPassword"
FORWARDER_PASSWORD = "forwarderPassword"
#: What the keys begin with that hold, for each party: its certificate, with those that lead to what others trust; what others trust to know
#: it; its private key.
CERTIFICATE = "tlsCertificate"
TRUST = "tlsTrust"
PRIVATE_KEY = "tlsKey"
#: The keys of the stack's own certificate authority.
CA_CERTIFICATE = "tlsCaCertificate"
CA_KEY = "tlsCaKey"

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


def certificate_key(party: str) -> str:
    """The key of a party's certificate."""
    return f"{CERTIFICATE}.{party}"


def trust_key(party: str) -> str:
    """The key of what others trust, to know a party."""
    return f"{TRUST}.{party}"


def private_key_key(party: str) -> str:
    """The key of a party's private key, a secret."""
    return f"{PRIVATE_KEY}.{party}"


def is_private_key(key: str) -> bool:
    """Whether a key of a stack file is a private key's, needed or not."""
    return key == CA_KEY or key.startswith(f"{PRIVATE_KEY}.")


def is_certificate(key: str) -> bool:
    """Whether a key of a stack file is a certificate's, needed or not."""
    return key == CA_CERTIFICATE or key.startswith((f"{CERTIFICATE}.", f"{TRUST}."))


def is_secret_key(key: str) -> bool:
    """Whether a key of a stack file is a secret's, needed or not."""
    passwords = (f"{DB_PASSWORD}.", f"{USER_PASSWORD}.", f"{FORWARDER_PASSWORD}.")
    return key == DB_PASSWORD or key.startswith(passwords) or is_private_key(key)


def is_setting(key: str) -> bool:
    """Whether a key of a stack file is a setting, and no secret or certificate."""
    return not is_secret_key(key) and not is_certificate(key)


def secret_keys(settings: StackSettings) -> tuple[str, ...]:
    """The key of each password that a stack needs, sorted. Private keys come with certificates: parties_of() has their owners."""
    keys = {user_key(node.name, user.name) for node in settings.nodes for user in node.users}
    keys |= {forwarder_key(node.name) for node in settings.forwarding_nodes}
    if settings.index_nodes:
        keys |= {DB_PASSWORD, *(node_db_key(node.name) for node in settings.index_nodes)}
    return tuple(sorted(keys))


@dataclass(frozen=True)
class Certificate:
    """The certificate of a party, as the stack file holds it; all that others and the party itself need of it but the private key.

    Attributes:
        chain: the certificate and those that lead to what is trusted, as PEM; empty for a device that only has to be known.
        trust: what others trust to know the party, as PEM.
        expires: the day on which the first of all these ends, as 2027-01-31.
        fingerprint: the SHA-256 of the party's own certificate; empty for a device.
        trust_fingerprint: the SHA-256 of the first certificate that others trust.
    """

    chain: str
    trust: str
    expires: str
    fingerprint: str
    trust_fingerprint: str

    def shown(self) -> dict[str, str]:
        """What a preview shows of it: a renewal changes files only, which the preview masks."""
        return {"expires": self.expires, "sha256": self.fingerprint}


@dataclass(frozen=True)
class Party:
    """A node, a device or the database that has a certificate.

    Attributes:
        name: the name of a node or a modality, or the database's.
        serves: whether it is a server of this stack's, and others look whether the certificate is for its name.
        outside: whether it is a device outside the stack, which keeps its private key itself.
    """

    name: str
    serves: bool
    outside: bool = False


def parties_of(settings: StackSettings) -> tuple[Party, ...]:
    """The parties that need a certificate, sorted by name.

    A node without ``tls`` needs one where it is linked to a party that has it: DICOM TLS asks both sides for theirs.
    """
    nodes = [Party(node.name, settings.tls_of(node)) for node in settings.nodes if needs_certificate(node, settings)]
    devices = [Party(modality.name, serves=False, outside=True) for modality in settings.modalities if modality.tls]
    database = [Party(DB_HOST, serves=True)] if settings.db_tls else []
    return tuple(sorted([*nodes, *devices, *database], key=lambda party: party.name))


def needs_certificate(node: NodeSettings, settings: StackSettings) -> bool:
    """Whether a node speaks DICOM TLS in any direction."""
    return settings.tls_of(node) or any(
        peer.tls if isinstance(peer, ModalitySettings) else settings.tls_of(peer) for peer in linked_with(node, settings)
    )


def linked_with(node: NodeSettings, settings: StackSettings) -> list[NodeSettings | ModalitySettings]:
    """The nodes and devices that a node is linked with, in either direction."""
    linked = [other for other in settings.nodes if other.name in node.targets or node.name in other.targets]
    return [*linked, *(modality for modality in settings.modalities if node.name in modality.nodes)]


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
