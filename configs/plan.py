"""What follows from the settings of a stack: for each node its peers and what each may ask, whom it trusts, its options and users; for the
stack its databases, its networks, its topology, and what a person should be warned of.

Everything that follows from the settings is worked out here, once. Components take a plan and outputs, and work out nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from configs import names
from configs.orthanc import options_of
from configs.promises import PROTECTIONS, unlike_ends
from configs.secrets import forwarder_key, linked_with, needs_certificate, node_db_key, user_key
from configs.settings import ModalitySettings, NodeSettings, Operation, StackSettings

#: What DicomModalities calls the permissions of storage commitment: N-ACTION asks for it, N-EVENT-REPORT answers. The answer has no
#: operation of its own in the stack file.
COMMITMENT_REQUEST: Final = "AllowNAction"
_COMMITMENT_REPORT: Final = "AllowEventReport"

#: What DicomModalities calls each operation.
PERMISSION_OF: Final[Mapping[Operation, str]] = {
    Operation.ECHO: "AllowEcho",
    Operation.STORE: "AllowStore",
    Operation.FIND: "AllowFind",
    Operation.GET: "AllowGet",
    Operation.MOVE: "AllowMove",
    Operation.WORKLIST: "AllowFindWorklist",
    Operation.COMMIT: COMMITMENT_REQUEST,
}
#: Every permission of an entry of DicomModalities. Orthanc's default of each is true, so that all are said.
PERMISSIONS: Final = tuple(sorted({*PERMISSION_OF.values(), _COMMITMENT_REPORT}))

#: What a node lets its destination do, by how the destination confirms.
_AS_SERVER: Final[Mapping[str, frozenset[str]]] = {
    "commitment": frozenset({"AllowEcho", _COMMITMENT_REPORT}),
    "query": frozenset({"AllowEcho"}),
}
#: What a destination lets the node do that forwards to it, likewise.
_AS_CLIENT: Final[Mapping[str, frozenset[str]]] = {
    "commitment": frozenset({"AllowEcho", "AllowStore", COMMITMENT_REQUEST}),
    "query": frozenset({"AllowEcho", "AllowStore", "AllowFind"}),
}


@dataclass(frozen=True)
class PeerPlan:
    """A node or a device that a node knows.

    Attributes:
        name: its name in the stack file, and in the node's DicomModalities.
        permissions: what it may ask of the node, as Orthanc names it; everything else is refused.
        tls: whether it is reached by DICOM TLS.
    """

    name: str
    permissions: frozenset[str]
    tls: bool


@dataclass(frozen=True)
class UserPlan:
    """A user of a node.

    Attributes:
        role: admin, viewer, uploader or forwarder.
        secret: the key of the user's password in the stack file.
    """

    role: str
    secret: str


@dataclass(frozen=True)
class NodePlan:
    """What follows for one node.

    Attributes:
        settings: its settings.
        address: the host's IP address that its ports are bound to.
        peers: the peers that it knows, sorted by name.
        options: Orthanc's options, less what depends on outputs.
        users: its users by name, its forwarder among them.
        serves_tls: whether it takes connections by TLS only.
        certificate: whether it has a certificate: it serves TLS, or one of its peers does.
        trusts: the peers whose certificates it accepts, sorted.
        database: its database in PostgreSQL; empty with an index in SQLite.
    """

    settings: NodeSettings
    address: str
    peers: tuple[PeerPlan, ...]
    options: Mapping[str, Any]
    users: Mapping[str, UserPlan]
    serves_tls: bool
    certificate: bool
    trusts: tuple[str, ...]
    database: str

    @property
    def database_secret(self) -> str:
        """The key of the password of the node's role in PostgreSQL."""
        return node_db_key(self.settings.name)


@dataclass(frozen=True)
class Plan:
    """What follows for a stack.

    Attributes:
        settings: its settings.
        nodes: its nodes by name, in the stack file's order.
        databases: the database of each node whose index is in PostgreSQL, by the node's name; empty without PostgreSQL.
        networks: its networks: three at most, however many nodes. Docker's default address ranges give about 30 to a whole engine.
        images: the images that it runs: orthanc, postgres, adminer.
        topology: the stack as a Mermaid graph.
        warnings: what weakens it on purpose, and what its links cannot carry.
    """

    settings: StackSettings
    nodes: Mapping[str, NodePlan]
    databases: Mapping[str, str]
    networks: tuple[str, ...]
    images: tuple[str, ...]
    topology: str
    warnings: tuple[str, ...]


def plan_of(settings: StackSettings) -> Plan:
    """What follows from the settings of a stack."""
    databases = {node.name: names.database_of(node.name) for node in settings.index_nodes}
    adminer = settings.adminer is not None
    return Plan(
        settings=settings,
        nodes={node.name: _node(node, settings) for node in settings.nodes},
        databases=databases,
        networks=(names.DICOM_NETWORK, *([names.INDEX_NETWORK] if databases else []), *([names.ADMIN_NETWORK] if adminer else [])),
        images=("orthanc", *(["postgres"] if databases else []), *(["adminer"] if adminer else [])),
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
        trusts=_trusts(node, settings),
        database=names.database_of(node.name) if node.index == "postgresql" else "",
    )


def _peers(node: NodeSettings, settings: StackSettings) -> tuple[PeerPlan, ...]:
    """The peers of a node, sorted by name.

    A link ``client: forwardTo: [server]`` makes both entries. At the server, the client may echo, store, and ask for storage
    commitment; at the client, the server may echo and report what it committed to. With ``confirm: query``, the client may find
    instead, and the server reports nothing. A modality may do what its ``allow`` says, and, where the node forwards to it, what a
    server may.
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
            permissions.setdefault(modality.name, set()).update(PERMISSION_OF[operation] for operation in modality.allow)
    tls = {other.name for other in settings.nodes if settings.tls_of(other)} | {one.name for one in settings.modalities if one.tls}
    return tuple(PeerPlan(name, frozenset(permissions[name]), name in tls) for name in sorted(permissions))


def _trusts(node: NodeSettings, settings: StackSettings) -> tuple[str, ...]:
    """The peers whose certificates a node accepts: those that it is linked with.

    DCMTK does not compare the name in a certificate with anything (DcmTLSTransportLayer has no way to ask for that). So a node does not
    trust the authority of all, but for each peer the authority that signed this peer's certificate and nothing else.
    """
    linked = linked_with(node, settings)
    certified = [peer for peer in linked if (peer.tls if isinstance(peer, ModalitySettings) else needs_certificate(peer, settings))]
    return tuple(sorted(peer.name for peer in certified))


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
