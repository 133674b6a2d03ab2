"""The rules that hold between the settings of a stack: uniqueness, links, ports, connections, what prod wants.

Nothing here looks at the machine or at an engine: components/preflight.py does. Each check takes the parts that are valid in
themselves, so that one bad AE title does not hide a forwarding loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import NamedTuple

from configs import names
from configs.fields import RESERVED_NAMES
from configs.orthanc import check_options, index_connections
from configs.problems import MOST_PROBLEMS, Problem, nearest, visible
from configs.promises import check_promises, check_protection
from configs.settings import ModalitySettings, NodeSettings, Role, StackSettings

#: Connections that PostgreSQL keeps for what is not a node: 3 for superusers, its default, and 10 for backups, checks and Adminer.
RESERVED_CONNECTIONS = 13

#: The major version of the PostgreSQL that images/postgres is built from.
LOCAL_POSTGRES_MAJOR = 17

_ANY_ADDRESS = frozenset({"0.0.0.0", "::"})


@dataclass(frozen=True)
class Parts:
    """What a stack file holds, as far as it is valid in itself.

    Attributes:
        nodes: the valid nodes, each with its index in the stack file's list.
        modalities: the valid modalities, likewise.
        node_names: the names of all nodes, valid or not.
        modality_names: the names of all modalities, valid or not.
        settings: everything else; its own ``nodes`` and ``modalities`` are the valid ones.
    """

    nodes: tuple[tuple[int, NodeSettings], ...]
    modalities: tuple[tuple[int, ModalitySettings], ...]
    node_names: frozenset[str]
    modality_names: frozenset[str]
    settings: StackSettings


class HostPort(NamedTuple):
    """A port that the stack takes on the host."""

    path: str
    address: str
    port: int


def check(parts: Parts) -> list[Problem]:
    """Everything that is wrong between the settings of a stack."""
    checks = (
        _unique,
        _links,
        _modalities,
        _loops,
        _forwarding,
        _host_ports,
        _connections,
        _each_node,
        _tls,
        _environment,
        _images,
    )
    return list(islice(chain.from_iterable(one(parts) for one in checks), MOST_PROBLEMS + 1))


def host_ports(parts: Parts) -> list[HostPort]:
    """Every port that the stack takes on the host, in the stack file's order."""
    settings = parts.settings
    ports = []
    for i, node in parts.nodes:
        ports.append(HostPort(f"nodes[{i}].httpPort", settings.bind_of(node), node.http_port))
        ports.append(HostPort(f"nodes[{i}].dicomPort", settings.bind_of(node), node.dicom_port))
        if node.metrics_port is not None:
            ports.append(HostPort(f"nodes[{i}].metricsPort", settings.bind_of(node), node.metrics_port))
    if settings.adminer:
        ports.append(HostPort("adminer.port", settings.bind_of(settings.adminer), settings.adminer.port))
    return ports


def _unique(parts: Parts) -> Iterator[Problem]:
    named = [(f"nodes[{i}]", node.name, node.aet) for i, node in parts.nodes]
    named += [(f"modalities[{i}]", modality.name, modality.aet) for i, modality in parts.modalities]
    first_name: dict[str, str] = {}
    first_aet: dict[str, str] = {}
    for path, name, aet in named:
        # Orthanc compares AE titles without regard to case (StrictAetComparison is false).
        if (other := first_name.setdefault(name, path)) != path:
            yield Problem(f"{path}.name", f"is the name of {other}, too; every node and modality needs a name of its own.", name)
        if (other := first_aet.setdefault(aet.upper(), path)) != path:
            yield Problem(f"{path}.aet", f"is the AE title of {other}, too (case does not count); each needs its own.", aet)
    forwarders = {names.forwarder_of(node.name): node.name for _, node in parts.nodes if node.forward_to}
    for path, name, _ in named:
        if name in forwarders:
            yield Problem(f"{path}.name", f"is the name of the forwarder of the node {forwarders[name]}; take another one.", name)


def _links(parts: Parts) -> Iterator[Problem]:
    modalities = {modality.name: modality for _, modality in parts.modalities}
    known = parts.node_names | parts.modality_names
    for i, node in parts.nodes:
        for j, target in enumerate(node.targets):
            path = f"nodes[{i}].forwardTo[{j}]"
            if target == node.name:
                yield Problem(path, "is the node itself; a node forwards to others.", target)
            elif target not in known:
                yield Problem(path, f"is neither a node nor a modality of this stack.{_known(target, known)}", target)
            elif target in node.targets[:j]:
                yield Problem(path, "stands in the list twice; leave one out.", target)
            elif same := [other for other in node.targets[:j] if names.record_number(other) == names.record_number(target)]:
                yield Problem(path, f"has by chance the same record number as {same[0]}: give one of the two another name.", target)
            elif target in modalities and target not in parts.node_names and node.name not in modalities[target].nodes:
                yield Problem(path, f"is a modality that does not know this node: add {node.name} to its `nodes`.", target)


def _modalities(parts: Parts) -> Iterator[Problem]:
    own = parts.node_names | {names.forwarder_of(node.name) for _, node in parts.nodes} | RESERVED_NAMES
    for i, modality in parts.modalities:
        if modality.host.lower() in own:
            reason = "is the name of a container of this stack, and no device outside it: link its nodes by forwardTo, or correct it."
            yield Problem(f"modalities[{i}].host", reason, modality.host)
        for j, name in enumerate(modality.nodes):
            if name not in parts.node_names:
                path = f"modalities[{i}].nodes[{j}]"
                yield Problem(path, f"is not a node of this stack.{_known(name, parts.node_names)}", name)


def _known(name: str, known: Iterable[str]) -> str:
    return nearest(name, known) or f" There are: {visible(', '.join(sorted(known)))}."


def _loops(parts: Parts) -> Iterator[Problem]:
    """Forwarding loops: an image would go round for ever. Each is reported once, at its first node in the stack file."""
    targets = {node.name: [t for t in node.targets if t != node.name] for _, node in parts.nodes}
    reported: set[frozenset[str]] = set()
    for i, node in parts.nodes:
        loop = _way_back(node.name, targets)
        if loop and frozenset(loop) not in reported:
            reported.add(frozenset(loop))
            way = " -> ".join([*loop, node.name])
            yield Problem(f"nodes[{i}].forwardTo", f"begins a forwarding loop: {way}. Leave out one of its links.", list(node.targets))


def _way_back(start: str, targets: dict[str, list[str]]) -> list[str]:
    """The nodes on the shortest way from a node over links back to itself; empty when there is none."""
    ways = [[start]]
    seen: set[str] = set()
    for way in ways:  # grows while it is read: breadth first
        for following in targets.get(way[-1], []):
            if following == start:
                return way
            if following not in seen:
                seen.add(following)
                ways.append([*way, following])
    return []


def _forwarding(parts: Parts) -> Iterator[Problem]:
    """What a node says about its forwarder, which only a node that forwards has."""
    for i, node in parts.nodes:
        path = f"nodes[{i}]"
        if not node.forward_to:
            if node.keep != "forever":
                yield Problem(f"{path}.keep", "is for a node that forwards; add forwardTo, or leave it out.", node.keep)
            if node.metrics_port is not None:
                yield Problem(f"{path}.metricsPort", "is for a node that forwards; add forwardTo, or leave it out.", node.metrics_port)
            continue
        unsure = [link.to for link in node.forward_to if link.confirm != "commitment"]
        if node.delete_after is not None and unsure:
            yield Problem(
                f"{path}.keep",
                "needs confirm: commitment of every link, because nothing is deleted that was not confirmed by storage commitment; "
                f"not so: {visible(', '.join(unsure))}. Keep the images forever, or change these links.",
                node.keep,
            )


def _host_ports(parts: Parts) -> Iterator[Problem]:
    seen: dict[int, list[HostPort]] = {}
    for this in host_ports(parts):
        others = seen.setdefault(this.port, [])
        other = next((s for s in others if _overlap(s.address, this.address)), None)
        if other:
            yield Problem(this.path, f"is the same port of {this.address} as {other.path}; each needs its own.", this.port)
        others.append(this)


def _overlap(a: str, b: str) -> bool:
    return a == b or not _ANY_ADDRESS.isdisjoint({a, b})


def _connections(parts: Parts) -> Iterator[Problem]:
    settings = parts.settings
    wanted = {node.name: index_connections(node, settings) for _, node in parts.nodes if node.index == "postgresql"}
    needed = sum(wanted.values()) + RESERVED_CONNECTIONS
    limit = settings.index_db.max_connections
    if needed > limit:
        each = ", ".join(f"{name} {count}" for name, count in sorted(wanted.items()))
        yield Problem(
            "indexDb.maxConnections",
            f"is too few: the nodes keep {needed - RESERVED_CONNECTIONS} connections ({each}) and {RESERVED_CONNECTIONS} are in reserve. "
            f"Set it to {needed} or more, or lower the nodes' orthanc.PostgreSQL.IndexConnectionsCount.",
            limit,
        )


def _each_node(parts: Parts) -> Iterator[Problem]:
    for i, node in parts.nodes:
        yield from check_options(node.orthanc, f"nodes[{i}].orthanc")
        yield from check_promises(node, parts.settings, f"nodes[{i}].orthanc")
        yield from check_protection(node, f"nodes[{i}]", strict=parts.settings.is_prod)
        yield from _users(node, f"nodes[{i}].users")


def _users(node: NodeSettings, path: str) -> Iterator[Problem]:
    seen: set[str] = set()
    for i, user in enumerate(node.users):
        if user.name in seen:
            yield Problem(f"{path}[{i}].name", "is the name of another user of this node, too; leave one out.", user.name)
        seen.add(user.name)
    if not any(user.role is Role.ADMIN for user in node.users):
        yield Problem(path, "holds no admin, and somebody has to look after the node: give one of them role: admin.")


def _tls(parts: Parts) -> Iterator[Problem]:
    """Names that no certificate will hold, and devices that could not reach a node: a node with TLS has no port without it."""
    tls = {node.name for _, node in parts.nodes if parts.settings.tls_of(node)}
    waiting = {(link.to, node.name) for _, node in parts.nodes for link in node.forward_to if link.confirm == "commitment"}
    for i, node in parts.nodes:
        if node.tls_names and node.name not in tls:
            yield Problem(f"nodes[{i}].tlsNames", "is for a node with tls: true; set that, or leave it out.", list(node.tls_names))
    for i, modality in parts.modalities:
        closed = [name for name in modality.nodes if name in tls and (modality.allow or (modality.name, name) in waiting)]
        if closed and not modality.tls:
            yield Problem(
                f"modalities[{i}].tls",
                f"is not true, and {visible(', '.join(closed))} speaks with nobody without TLS. Set it, where the device can (make certs "
                "makes its certificate); else let it send to a node with tls: false that forwards.",
                False,
            )


def _environment(parts: Parts) -> Iterator[Problem]:
    settings = parts.settings
    if settings.adminer and not any(node.index == "postgresql" for _, node in parts.nodes) and parts.nodes:
        yield Problem("adminer", "has no database to show: no node has index: postgresql. Leave it out.")
    if not settings.is_prod:
        return
    if settings.release_data:
        yield Problem("releaseData", "is for environment: dev only: prod keeps its data. Leave it out.", True)
    if settings.adminer:
        yield Problem("adminer", "is for environment: dev only; leave it out.")
    unbound = [node.name for _, node in parts.nodes if node.bind is None]
    if settings.bind is None and unbound:
        yield Problem(
            "bind",
            "is missing: environment: prod wants to be told which address of the host the ports are bound to. Set it for the stack, "
            f"or for each of the nodes {', '.join(unbound)} (127.0.0.1: this host alone).",
        )


def _images(parts: Parts) -> Iterator[Problem]:
    settings = parts.settings
    images = settings.images
    if images.source == "auto" and settings.is_prod:
        yield Problem("images.source", "is for environment: dev only; say 'registry' or 'local'.", "auto")
    major = settings.index_db.major_version
    if images.source != "local" and images.postgres.partition("@")[0].rpartition(":")[2].partition(".")[0] != str(major):
        yield Problem(
            "images.postgres",
            f"is not of the major version that indexDb.majorVersion says, {major}: its tag must begin with it.",
            images.postgres,
        )
    if images.source != "registry" and major != LOCAL_POSTGRES_MAJOR:
        yield Problem(
            "indexDb.majorVersion",
            f"is not what images/ builds: Debian's PostgreSQL {LOCAL_POSTGRES_MAJOR}. Set it to that, or images.source to 'registry'.",
            major,
        )
