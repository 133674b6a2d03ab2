"""The secrets and certificates of a stack: their keys in the stack file, who needs one, and which values the images would misread.

Secrets are flat keys, set with ``pulumi config set --secret``. None has a default. certificates.py reads the certificates.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from configs.names import DB_HOST
from configs.problems import Problem
from configs.settings import ModalitySettings, NodeSettings, StackSettings

#: The key of the password of PostgreSQL's superuser; also what the keys of the nodes' roles begin with.
DB_PASSWORD = "dbPassword"
#: What the keys of the passwords of nodes' users and forwarders begin with.
USER_PASSWORD = "userPassword"
FORWARDER_PASSWORD = "forwarderPassword"
#: The key of the password of the backups' repository; those of a login of its server, which only its operator knows: none is made.
BACKUP_PASSWORD = "backupPassword"
BACKUP_KEY = "backupKey"
BACKUP_SECRET = "backupSecret"
#: What the keys of each party begin with: its certificate and those up to what others trust; what others trust; its private key.
CERTIFICATE = "tlsCertificate"
TRUST = "tlsTrust"
PRIVATE_KEY = "tlsKey"
#: The keys of the stack's own certificate authority.
CA_CERTIFICATE = "tlsCaCertificate"
CA_KEY = "tlsCaKey"

#: What every image reads unchanged. Elsewhere: `$` starts a variable in Orthanc's configuration files. Blanks, quotes and backslashes end
#: a value in the connection string of the index plugin, which does not quote it.
SAFE_SECRET = re.compile(r"[A-Za-z0-9_.~+=-]+")
UNSAFE_SECRET = "is empty or holds a character that the images would misread ($, blank, quote, …); use letters, digits, and _ . ~ + = -"
_MISREAD = re.compile(r"[0-9.+-]+|true|false|null|none", re.IGNORECASE)
#: Outside dev: a shorter password can be guessed, and these words are in every list of passwords.
_MINIMUM_LENGTH = 12
_PLACEHOLDERS = ("changeme", "changethis", "password", "orthanc", "postgres", "secret", "admin", "example", "qwerty", "123456")


def _key(kind: str) -> Callable[[str], str]:
    return lambda name: f"{kind}.{name}"


#: The keys of a node: the password of its role in PostgreSQL; the password with which its forwarder logs in at the node.
node_db_key = _key(DB_PASSWORD)
forwarder_key = _key(FORWARDER_PASSWORD)
#: The keys of a party: its certificate; what others trust, to know it; its private key, a secret.
certificate_key = _key(CERTIFICATE)
trust_key = _key(TRUST)
private_key_key = _key(PRIVATE_KEY)


def user_key(node: str, user: str) -> str:
    """The key of a user's password at a node."""
    return f"{USER_PASSWORD}.{node}.{user}"


def is_private_key(key: str) -> bool:
    """Whether a key of a stack file is for a private key, needed or not."""
    return key == CA_KEY or key.startswith(f"{PRIVATE_KEY}.")


def is_certificate(key: str) -> bool:
    """Whether a key of a stack file is for a certificate, needed or not."""
    return key == CA_CERTIFICATE or key.startswith((f"{CERTIFICATE}.", f"{TRUST}."))


def is_secret_key(key: str) -> bool:
    """Whether a key of a stack file is for a secret, needed or not."""
    passwords = (f"{DB_PASSWORD}.", f"{USER_PASSWORD}.", f"{FORWARDER_PASSWORD}.")
    alone = (DB_PASSWORD, BACKUP_PASSWORD, BACKUP_KEY, BACKUP_SECRET)
    return key in alone or key.startswith(passwords) or is_private_key(key)


def is_setting(key: str) -> bool:
    """Whether a key of a stack file is a setting: neither a secret nor a certificate."""
    return not is_secret_key(key) and not is_certificate(key)


def secret_keys(settings: StackSettings) -> tuple[str, ...]:
    """The key of each password that a stack needs, sorted. The private keys are those of parties_of()."""
    keys = {user_key(node.name, user.name) for node in settings.nodes for user in node.users}
    keys |= {forwarder_key(node.name) for node in settings.forwarding_nodes}
    if settings.index_nodes:
        keys |= {DB_PASSWORD, *(node_db_key(node.name) for node in settings.index_nodes)}
    if settings.backup:
        keys.add(BACKUP_PASSWORD)
    return tuple(sorted(keys))


@dataclass(frozen=True)
class Certificate:
    """The certificate of a party, as the stack file holds it: all that the party and others need, except the private key."""

    chain: str  #: PEM: the certificate and those that lead to what is trusted; empty for a device, which only has to be known
    trust: str  #: PEM: what others trust to know the party
    expires: str  #: the day on which the first of all these ends: 2027-01-31
    fingerprint: str  #: SHA-256 of the party's own certificate; empty for a device
    trust_fingerprint: str  #: SHA-256 of the first certificate that others trust

    def shown(self) -> dict[str, str]:
        """What a preview shows: a renewal changes only files, which the preview masks."""
        return {"expires": self.expires, "sha256": self.fingerprint}


@dataclass(frozen=True)
class Party:
    """A node, a device or the database that has a certificate."""

    name: str  #: the name of a node or a modality, or DB_HOST
    serves: bool  #: whether it is a server of this stack: others check that the certificate is for its name
    outside: bool = False  #: whether it is a device outside the stack, which keeps its private key itself


def parties_of(settings: StackSettings) -> tuple[Party, ...]:
    """The parties that need a certificate, sorted by name."""
    parties = [Party(node.name, settings.tls_of(node)) for node in settings.nodes if needs_certificate(node, settings)]
    parties += [Party(modality.name, serves=False, outside=True) for modality in settings.modalities if modality.tls]
    parties += [Party(DB_HOST, serves=True)] if settings.db_tls else []
    return tuple(sorted(parties, key=lambda party: party.name))


def needs_certificate(party: NodeSettings | ModalitySettings, settings: StackSettings) -> bool:
    """Whether a node or a device speaks DICOM TLS: a node without ``tls`` also does where a peer has it, and TLS asks both sides."""
    if settings.tls_of(party) or isinstance(party, ModalitySettings):
        return settings.tls_of(party)
    return any(settings.tls_of(peer) for peer in linked_with(party, settings))


def linked_with(node: NodeSettings, settings: StackSettings) -> list[NodeSettings | ModalitySettings]:
    """The nodes and devices that a node is linked with, in either direction."""
    linked = [other for other in settings.nodes if other.name in node.targets or node.name in other.targets]
    return [*linked, *(modality for modality in settings.modalities if node.name in modality.nodes)]


def how_to_set(key: str) -> str:
    """The commands that set a secret."""
    return f"Set it: pulumi config set --secret {key}   (or all that are missing, to random values: ./orthanc-stack secrets STACK)"


def check_secret(key: str, value: str | None, *, encrypted: bool, strict: bool) -> Problem | None:
    """What is wrong with a secret, whose value is None when it is missing, and never shown.

    ``encrypted``: the stack file holds it encrypted. ``strict``: weak and placeholder values are refused, as everywhere except in dev.
    """
    if value is None:
        reason = f"is missing. {how_to_set(key)}"
    elif not encrypted:
        reason = f"stands in the stack file in clear. {how_to_set(key)}"
    elif not SAFE_SECRET.fullmatch(value):
        reason = UNSAFE_SECRET
    elif _MISREAD.fullmatch(value):
        reason = "would be read as a number, a truth value or nothing instead of text; take a longer one, with letters."
    elif strict and len(value) < _MINIMUM_LENGTH:
        reason = f"is weak: it has fewer than {_MINIMUM_LENGTH} characters. {how_to_set(key)}"
    elif strict and any(word in value.lower() for word in _PLACEHOLDERS):
        reason = f"is a placeholder: it holds one of the words {', '.join(_PLACEHOLDERS)}. {how_to_set(key)}"
    else:
        return None
    return Problem(key, reason)
