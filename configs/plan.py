"""What follows from the settings of a stack, worked out once. Components take a plan and outputs, and work out nothing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from configs import names
from configs.orthanc import options_of
from configs.promises import PROTECTIONS, unlike_ends
from configs.secrets import forwarder_key, linked_with, needs_certificate, node_db_key, user_key
from configs.settings import NodeSettings, Operation, StackSettings

#: The permissions of storage commitment in DicomModalities: N-ACTION asks for it, N-EVENT-REPORT answers. The answer has no operation of
#: its own in the stack file.
COMMITMENT_REQUEST: Final = "AllowNAction"
_COMMITMENT_REPORT: Final = "AllowEventReport"

#: The name of each operation in DicomModalities.
PERMISSION_OF: Final[Mapping[Operation, str]] = {
    **{operation: f"Allow{operation.capitalize()}" for operation in Operation},
    Operation.WORKLIST: "AllowFindWorklist",
    Operation.COMMIT: COMMITMENT_REQUEST,
}
#: Every permission of an entry of DicomModalities. Orthanc's default of each is true, so an entry names them all.
PERMISSIONS: Final = tuple(sorted({*PERMISSION_OF.values(), _COMMITMENT_REPORT}))

#: By the ``confirm`` of a link: what the node allows its destination, and what the destination allows the node.
_AS_SERVER: Final = {
    "auto": {"AllowEcho", _COMMITMENT_REPORT},
    "commitment": {"AllowEcho", _COMMITMENT_REPORT},
    "query": {"AllowEcho"},
    "stored": {"AllowEcho"},
}
_AS_CLIENT: Final = {
    "auto": {"AllowEcho", "AllowStore", COMMITMENT_REQUEST},
    "commitment": {"AllowEcho", "AllowStore", COMMITMENT_REQUEST},
    "query": {"AllowEcho", "AllowStore", "AllowFind"},
    "stored": {"AllowEcho", "AllowStore"},
}


@dataclass(frozen=True)
class PeerPlan:
    """A node or a device that a node knows."""

    name: str  #: its name in the stack file, and in the node's DicomModalities
    permissions: frozenset[str]  #: what it may ask of the node, by Orthanc's names; everything else is refused
    tls: bool  #: whether the node reaches it by DICOM TLS


@dataclass(frozen=True)
class UserPlan:
    """A user of a node."""

    role: str  #: admin, viewer, uploader or forwarder
    secret: str  #: the key of the user's password in the stack file


@dataclass(frozen=True)
class NodePlan:
    """What follows for one node."""

    settings: NodeSettings
    address: str  #: the host's IP address that its ports are bound to
    peers: tuple[PeerPlan, ...]  #: sorted by name
    options: Mapping[str, Any]  #: Orthanc's options, except those that depend on outputs
    users: Mapping[str, UserPlan]  #: by name, with its forwarder
    serves_tls: bool  #: whether it takes connections by TLS only
    certificate: bool  #: whether it has a certificate: it serves TLS, or one of its peers does
    trusts: tuple[str, ...]  #: the peers whose certificates it accepts, sorted
    database: str  #: its database in PostgreSQL; empty with an index in SQLite

    @property
    def database_secret(self) -> str:
        """The key of the password of the node's role in PostgreSQL."""
        return node_db_key(self.settings.name)


@dataclass(frozen=True)
class Plan:
    """What follows for a stack."""

    settings: StackSettings
    nodes: Mapping[str, NodePlan]  #: by name, in the stack file's order
    databases: Mapping[str, str]  #: the database of each node whose index is in PostgreSQL, by the node's name
    #: Three networks at most, however many nodes: Docker's default address ranges give about 30 to a whole engine.
    networks: tuple[str, ...]
    images: tuple[str, ...]  #: orthanc, postgres, adminer: those that it runs
    topology: str  #: a Mermaid graph
    warnings: tuple[str, ...]  #: what the stack file weakens on purpose, and what its links cannot carry


def plan_of(settings: StackSettings) -> Plan:
    """What follows from the settings of a stack."""
    databases = {node.name: names.database_of(node.name) for node in settings.index_nodes}
    parts = (
        (names.DICOM_NETWORK, "orthanc", True),
        (names.INDEX_NETWORK, "postgres", bool(databases)),
        (names.ADMIN_NETWORK, "adminer", settings.adminer is not None),
    )
    return Plan(
        settings=settings,
        nodes={node.name: _node(node, settings) for node in settings.nodes},
        databases=databases,
        networks=tuple(network for network, _, wanted in parts if wanted),
        images=tuple(image for _, image, wanted in parts if wanted),
        topology=_mermaid(settings),
        warnings=(*_warnings(settings), *unlike_ends(settings)),
    )


def _node(node: NodeSettings, settings: StackSettings) -> NodePlan:
    users = {user.name: UserPlan(user.role.value, user_key(node.name, user.name)) for user in node.users}
    if node.forward_to:
        users[names.FORWARDER_USER] = UserPlan(names.FORWARDER_USER, forwarder_key(node.name))
    return NodePlan(
        settings=node,
        address=settings.bind_of(node),
        peers=_peers(node, settings),
        options=options_of(node, settings),
        users=users,
        serves_tls=settings.tls_of(node),
        certificate=needs_certificate(node, settings),
        # DCMTK does not compare the name in a certificate with anything (DcmTLSTransportLayer has no way to ask for that). So a node does
        # not trust one authority of all, but for each peer the authority that signed the peer's certificate, and nothing else.
        trusts=tuple(sorted(peer.name for peer in linked_with(node, settings) if needs_certificate(peer, settings))),
        database=names.database_of(node.name) if node.index == "postgresql" else "",
    )


def _peers(node: NodeSettings, settings: StackSettings) -> tuple[PeerPlan, ...]:
    """The peers of a node, sorted by name.

    A link ``client: forwardTo: [server]`` makes an entry at both ends. At the server, the client may echo, store, and ask for storage
    commitment; at the client, the server may echo and report what it committed to. With ``confirm: query``, the client may find
    instead, and the server reports nothing; with ``confirm: stored``, neither. A modality may do what its ``allow`` says, and, where
    the node forwards to it, what a server may.
    """
    peers = sorted(linked_with(node, settings), key=lambda peer: peer.name)
    permissions: dict[str, set[str]] = {peer.name: set() for peer in peers}
    for link in node.forward_to:
        permissions[link.to] |= _AS_SERVER[link.confirm]
    for other in settings.nodes:
        for link in other.forward_to:
            if link.to == node.name:
                permissions[other.name] |= _AS_CLIENT[link.confirm]
    for modality in settings.modalities:
        if node.name in modality.nodes:
            permissions[modality.name] |= {PERMISSION_OF[operation] for operation in modality.allow}
    return tuple(PeerPlan(peer.name, frozenset(permissions[peer.name]), settings.tls_of(peer)) for peer in peers)


def _warnings(settings: StackSettings) -> Iterator[str]:
    """What the stack file weakens on purpose."""
    for node in settings.nodes:
        for option in node.unsafe:
            yield f"{node.name}: {option} is weakened on purpose (unsafe): {PROTECTIONS[option].against}."
    if settings.is_prod:
        for node in settings.nodes:
            if not settings.tls_of(node):
                yield f"{node.name}: tls is false: images, patients' names and passwords go over the network in clear."
        if settings.index_nodes and not settings.db_tls:
            yield "indexDb: tls is false: patients' names go between the nodes and PostgreSQL in clear, inside this machine."


def _mermaid(settings: StackSettings) -> str:
    """The topology as a Mermaid graph: nodes, links, modalities, databases."""

    def box(name: str) -> str:  # a prefix, because a keyword of Mermaid (end, graph, …) is no identifier
        return f"n_{name.replace('-', '_')}"

    lines = ["graph LR"]
    for node in sorted(settings.nodes, key=lambda node: node.name):
        lines.append(f'  {box(node.name)}["{node.name}<br/>{node.aet}"]')
        lines += [f"  {box(node.name)} -->|C-STORE| {box(target)}" for target in sorted(node.targets)]
        lines += [f"  {box(node.name)} -.->|index| db[(PostgreSQL)]"] if node.index == "postgresql" else []
    for modality in sorted(settings.modalities, key=lambda modality: modality.name):
        lines.append(f'  {box(modality.name)}(["{modality.name}<br/>{modality.aet}"])')
        allowed = ", ".join(sorted(modality.allow)) or "nothing"
        lines += [f"  {box(modality.name)} -->|{allowed}| {box(name)}" for name in sorted(modality.nodes)]
    if settings.adminer:
        lines.append("  adminer[Adminer] -.-> db")
    return "\n".join(lines) + "\n"
