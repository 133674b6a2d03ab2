"""Which node knows which, and what each may ask of the other: computed from the topology, written once in the stack file.

Pure. Hosts are whatever type the caller has for them (an Output in the program, text in a test).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from configs.settings import ModalitySettings, NodeSettings, Operation, StackSettings

Host = TypeVar("Host")

#: What DicomModalities calls the permissions of storage commitment: N-ACTION asks for it, N-EVENT-REPORT answers. The answer has no
#: operation of its own in the stack file.
_COMMITMENT_REQUEST = "AllowNAction"
_COMMITMENT_REPORT = "AllowEventReport"

_PERMISSION: Mapping[Operation, str] = {
    Operation.ECHO: "AllowEcho",
    Operation.STORE: "AllowStore",
    Operation.FIND: "AllowFind",
    Operation.GET: "AllowGet",
    Operation.MOVE: "AllowMove",
    Operation.WORKLIST: "AllowFindWorklist",
    Operation.COMMIT: _COMMITMENT_REQUEST,
}

#: What a node lets its destination do, by how the destination confirms.
_AS_SERVER: Mapping[str, frozenset[str]] = {
    "commitment": frozenset({"AllowEcho", _COMMITMENT_REPORT}),
    "query": frozenset({"AllowEcho"}),
}
#: What a destination lets the node do that forwards to it, likewise.
_AS_CLIENT: Mapping[str, frozenset[str]] = {
    "commitment": frozenset({"AllowEcho", "AllowStore", _COMMITMENT_REQUEST}),
    "query": frozenset({"AllowEcho", "AllowStore", "AllowFind"}),
}

#: Every permission of an entry of DicomModalities. Orthanc's default of each is true, so that all are said.
PERMISSIONS = tuple(sorted({*_PERMISSION.values(), _COMMITMENT_REPORT}))


@dataclass(frozen=True)
class DicomEndpoint(Generic[Host]):
    """Where a DICOM application entity is reached."""

    aet: str
    host: Host
    port: int


@dataclass(frozen=True)
class Peer(Generic[Host]):
    """One entry of a node's DicomModalities.

    Attributes:
        name: the entry's symbolic name: the peer's name in the stack file.
        endpoint: where the peer is reached.
        permissions: what the peer may ask of the node, as Orthanc names it; everything else is refused.
        tls: whether the peer is reached by DICOM TLS.
    """

    name: str
    endpoint: DicomEndpoint[Host]
    permissions: frozenset[str]
    tls: bool = False

    def modality(self) -> dict[str, object]:
        """The entry in the long form of Orthanc's configuration."""
        return {
            "AET": self.endpoint.aet,
            "Host": self.endpoint.host,
            "Port": self.endpoint.port,
            **{permission: permission in self.permissions for permission in PERMISSIONS},
            **({"UseDicomTls": True} if self.tls else {}),
        }


def peers_of(
    node: NodeSettings,
    settings: StackSettings,
    endpoints: Mapping[str, DicomEndpoint[Host]],
) -> tuple[Peer[Host], ...]:
    """The peers of a node, sorted by name.

    A link ``client: forwardTo: [server]`` makes both entries. At the server, the client may echo, store, and ask for storage
    commitment; at the client, the server may echo and report what it committed to. With ``confirm: query``, the client may find
    instead, and the server reports nothing. A modality may do what its ``allow`` says, and, where the node forwards to it, what a
    server may.

    Args:
        node: the node.
        settings: the stack that it belongs to.
        endpoints: where each node and each modality is reached, by name.
    """
    permissions: dict[str, set[str]] = {}
    for link in node.forward_to:
        permissions.setdefault(link.to, set()).update(_AS_SERVER[link.confirm])
    for other in settings.nodes:
        for link in other.forward_to:
            if link.to == node.name:
                permissions.setdefault(other.name, set()).update(_AS_CLIENT[link.confirm])
    for modality in settings.modalities:
        if node.name in modality.nodes:
            permissions.setdefault(modality.name, set()).update(_permissions_of(modality))
    tls = {other.name for other in settings.nodes if settings.tls_of(other)} | {one.name for one in settings.modalities if one.tls}
    return tuple(Peer(name, endpoints[name], frozenset(permissions[name]), name in tls) for name in sorted(permissions))


def commits(node: NodeSettings, settings: StackSettings) -> bool:
    """Whether anybody may ask a node for storage commitment."""
    return any(link.confirm == "commitment" for link in settings.links_to(node.name)) or any(
        Operation.COMMIT in modality.allow for modality in settings.modalities if node.name in modality.nodes
    )


def _permissions_of(modality: ModalitySettings) -> frozenset[str]:
    return frozenset(_PERMISSION[operation] for operation in modality.allow)


def mermaid(settings: StackSettings) -> str:
    """The topology as a Mermaid graph: nodes, links, modalities, databases."""
    lines = ["graph LR"]
    for node in sorted(settings.nodes, key=lambda n: n.name):
        lines.append(f'  {_id(node.name)}["{node.name}<br/>{node.aet}"]')
        lines += [f"  {_id(node.name)} -->|C-STORE| {_id(target)}" for target in sorted(node.targets)]
        lines += [f"  {_id(node.name)} -.->|index| db[(PostgreSQL)]"] if node.index == "postgresql" else []
    for modality in sorted(settings.modalities, key=lambda m: m.name):
        lines.append(f'  {_id(modality.name)}(["{modality.name}<br/>{modality.aet}"])')
        allowed = ", ".join(sorted(modality.allow)) or "nothing"
        lines += [f"  {_id(modality.name)} -->|{allowed}| {_id(name)}" for name in sorted(modality.nodes)]
    if settings.adminer:
        lines.append("  adminer[Adminer] -.-> db")
    return "\n".join(lines) + "\n"


def _id(name: str) -> str:
    """A name as a Mermaid identifier: its keywords (end, graph, …) are no identifiers, a prefix keeps clear of them."""
    return f"n_{name.replace('-', '_')}"
