"""Who in a stack speaks TLS: whose certificates there must be, and whose each node accepts.

Pure. What is in a certificate is certificates.py's concern.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from configs import names
from configs.problems import Problem, visible
from configs.settings import ModalitySettings, NodeSettings, StackSettings

#: What the keys of the stack file begin with that hold, for each party: its certificate, with those that lead to what others trust; what
#: others trust to know it; its private key.
CERTIFICATE = "tlsCertificate"
TRUST = "tlsTrust"
PRIVATE_KEY = "tlsKey"
#: The keys of the stack's own certificate authority.
CA_CERTIFICATE = "tlsCaCertificate"
CA_KEY = "tlsCaKey"


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


@dataclass(frozen=True)
class Party:
    """Somebody who has a certificate.

    Attributes:
        name: the name of a node or a modality, or the database's.
        serves: whether it is a server of this stack's, and others look whether the certificate is for its name.
        outside: whether it is a device outside the stack, which keeps its private key itself.
    """

    name: str
    serves: bool
    outside: bool = False


def parties_of(settings: StackSettings) -> tuple[Party, ...]:
    """Whoever needs a certificate, sorted by name.

    A node without ``tls`` needs one where it is linked to somebody who has it: DICOM TLS asks both sides for theirs.
    """
    nodes = [Party(node.name, settings.tls_of(node)) for node in settings.nodes if needs_certificate(node, settings)]
    devices = [Party(modality.name, serves=False, outside=True) for modality in settings.modalities if modality.tls]
    database = [Party(names.DB_HOST, serves=True)] if settings.db_tls else []
    return tuple(sorted([*nodes, *devices, *database], key=lambda party: party.name))


def needs_certificate(node: NodeSettings, settings: StackSettings) -> bool:
    """Whether a node speaks DICOM TLS in any direction."""
    return settings.tls_of(node) or any(_has_tls(peer, settings) for peer in _peers_of(node, settings))


def trusted_by(node: NodeSettings, settings: StackSettings) -> tuple[str, ...]:
    """The peers whose certificates a node accepts, sorted: those that it is linked to, and nobody else.

    DCMTK does not compare the name in a certificate with anything (DcmTLSTransportLayer has no way to ask for that). So a node does not
    trust the authority of all, but for each peer the one that signed this peer's certificate and nothing else.
    """
    return tuple(sorted(peer.name for peer in _peers_of(node, settings) if _has_certificate(peer, settings)))


def check_tls(settings: StackSettings, positions: Mapping[int, int]) -> Iterator[Problem]:
    """Devices that could not reach a node that they are to reach: a node with TLS has no port without it.

    Args:
        settings: the stack.
        positions: where each of its modalities stands in the stack file's list, by its place among the valid ones.
    """
    tls = {node.name for node in settings.nodes if settings.tls_of(node)}
    waiting = {(link.to, node.name) for node in settings.nodes for link in node.forward_to if link.confirm == "commitment"}
    for i, modality in enumerate(settings.modalities):
        closed = [name for name in modality.nodes if name in tls and (modality.allow or (modality.name, name) in waiting)]
        if closed and not modality.tls:
            yield Problem(
                f"modalities[{positions[i]}].tls",
                f"is not true, and {visible(', '.join(closed))} speaks with nobody without TLS. Set it, where the device can (make certs "
                "makes its certificate); else let it send to a node with tls: false that forwards.",
                False,
            )


def _has_tls(peer: NodeSettings | ModalitySettings, settings: StackSettings) -> bool:
    return peer.tls if isinstance(peer, ModalitySettings) else settings.tls_of(peer)


def _has_certificate(peer: NodeSettings | ModalitySettings, settings: StackSettings) -> bool:
    return peer.tls if isinstance(peer, ModalitySettings) else needs_certificate(peer, settings)


def _peers_of(node: NodeSettings, settings: StackSettings) -> list[NodeSettings | ModalitySettings]:
    """Whom a node is linked to, in either direction."""
    linked = [other for other in settings.nodes if other.name in node.targets or node.name in other.targets]
    return [*linked, *(modality for modality in settings.modalities if node.name in modality.nodes)]
