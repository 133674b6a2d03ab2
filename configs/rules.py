"""The rules between the settings of a stack: uniqueness, links, ports, connections, what prod requires.

Pure: components/preflight.py looks at the machine and the engine. A node or a modality with a mistake of its own is left out here, so that
its bad AE title does not hide a forwarding loop between others. Its name stays known, so that a link to it is not called unknown.
"""

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
from images import POSTGRES

#: Connections that PostgreSQL keeps for others than nodes: 3 for superusers, its default, and 10 for backups, checks and Adminer.
RESERVED_CONNECTIONS = 13


@dataclass(frozen=True)
class Parts:
    """The valid parts of a stack file."""

    nodes: tuple[tuple[int, NodeSettings], ...]  #: the valid nodes, each with its index in the stack file's list
    modalities: tuple[tuple[int, ModalitySettings], ...]  #: likewise
    node_names: frozenset[str]  #: the names of all nodes, valid or not
    modality_names: frozenset[str]  #: likewise
    settings: StackSettings  #: everything else, with the valid nodes and modalities


class HostPort(NamedTuple):
    """A port that the stack takes on the host."""

    path: str
    address: str
    port: int


def check(parts: Parts) -> list[Problem]:
    """Everything that is wrong between the settings of a stack."""
    rules = (_unique, _links, _modalities, _loops, _forwarding, _host_ports, _connections, _each_node, _tls, _backup, _environment, _images)
    return list(islice(chain.from_iterable(rule(parts) for rule in rules), MOST_PROBLEMS + 1))


def host_ports(parts: Parts) -> list[HostPort]:
    """Every port that the stack takes on the host, in the stack file's order."""
    settings = parts.settings
    ports = [
        HostPort(f"nodes[{i}].{key}", settings.bind_of(node), port)
        for i, node in parts.nodes
        for key, port in (("httpPort", node.http_port), ("dicomPort", node.dicom_port), ("metricsPort", node.metrics_port))
        if port is not None
    ]
    if settings.adminer:
        ports.append(HostPort("adminer.port", settings.bind_of(settings.adminer), settings.adminer.port))
    return ports


def _unique(parts: Parts) -> Iterator[Problem]:
    named = [(f"nodes[{i}]", node.name, node.aet) for i, node in parts.nodes]
    named += [(f"modalities[{i}]", modality.name, modality.aet) for i, modality in parts.modalities]
    forwarders = {names.forwarder_of(node.name): node.name for _, node in parts.nodes if node.forward_to}
    first_name: dict[str, str] = {}
    first_aet: dict[str, str] = {}
    for path, name, aet in named:
        # Orthanc compares AE titles without regard to case (StrictAetComparison is false).
        if (other := first_name.setdefault(name, path)) != path:
            yield Problem(f"{path}.name", f"is the name of {other}, too; every node and modality needs a name of its own.", name)
        if (other := first_aet.setdefault(aet.upper(), path)) != path:
            yield Problem(f"{path}.aet", f"is the AE title of {other}, too (case does not count); each needs its own.", aet)
        if name in forwarders:
            yield Problem(f"{path}.name", f"is the name of the forwarder of the node {forwarders[name]}; take another one.", name)


def _links(parts: Parts) -> Iterator[Problem]:
    modalities = {modality.name: modality for _, modality in parts.modalities}
    known = parts.node_names | parts.modality_names
    for i, node in parts.nodes:
        for j, target in enumerate(node.targets):
            before = node.targets[:j]
            reason = ""
            if target == node.name:
                reason = "is the node itself; a node forwards to others."
            elif target not in known:
                reason = f"is neither a node nor a modality of this stack.{_known(target, known)}"
            elif target in before:
                reason = "stands in the list twice; leave one out."
            elif same := [other for other in before if names.record_number(other) == names.record_number(target)]:
                how = "give the one that was never deployed another name (a node that runs loses its images with its name)."
                reason = f"has by chance the same record number as {same[0]}: {how}"
            elif target in modalities and target not in parts.node_names and node.name not in modalities[target].nodes:
                reason = f"is a modality that does not know this node: add {node.name} to its `nodes`."
            if reason:
                yield Problem(f"nodes[{i}].forwardTo[{j}]", reason, target)


def _modalities(parts: Parts) -> Iterator[Problem]:
    own = parts.node_names | {names.forwarder_of(node.name) for _, node in parts.nodes} | RESERVED_NAMES
    for i, modality in parts.modalities:
        if modality.host.lower() in own:
            reason = "is the name of a container of this stack, and no device outside it: link its nodes by forwardTo, or correct it."
            yield Problem(f"modalities[{i}].host", reason, modality.host)
        for j, name in enumerate(modality.nodes):
            if name not in parts.node_names:
                reason = f"is not a node of this stack.{_known(name, parts.node_names)}"
                yield Problem(f"modalities[{i}].nodes[{j}]", reason, name)


def _known(name: str, known: Iterable[str]) -> str:
    return nearest(name, known) or f" There are: {visible(', '.join(sorted(known)))}."


def _loops(parts: Parts) -> Iterator[Problem]:
    """Forwarding loops: an image would go round for ever. Each is reported once, at its first node in the stack file."""
    targets = {node.name: [target for target in node.targets if target != node.name] for _, node in parts.nodes}
    reported: set[frozenset[str]] = set()
    for i, node in parts.nodes:
        loop = _way_back(node.name, targets)
        if loop and frozenset(loop) not in reported:
            reported.add(frozenset(loop))
            way = " -> ".join([*loop, node.name])
            yield Problem(f"nodes[{i}].forwardTo", f"begins a forwarding loop: {way}. Leave out one of its links.", list(node.targets))


def _way_back(start: str, targets: dict[str, list[str]]) -> list[str]:
    """The nodes on the shortest way from a node over links back to itself; empty where there is none."""
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
    """Settings of a forwarder, which only a node that forwards has."""
    for i, node in parts.nodes:
        if not node.forward_to:
            reason = "is for a node that forwards; add forwardTo, or leave it out."
            if node.keep != "forever":
                yield Problem(f"nodes[{i}].keep", reason, node.keep)
            if node.metrics_port is not None:
                yield Problem(f"nodes[{i}].metricsPort", reason, node.metrics_port)
        unsure = [link.to for link in node.forward_to if not link.may_commit]
        if node.delete_after is not None and unsure:
            reason = "needs confirm: commitment, or auto, of every link, because a node deletes only what storage commitment has confirmed"
            how = f"not so: {visible(', '.join(unsure))}. Keep the images forever, or change these links."
            yield Problem(f"nodes[{i}].keep", f"{reason}; {how}", node.keep)


def _host_ports(parts: Parts) -> Iterator[Problem]:
    seen: dict[int, list[HostPort]] = {}
    for this in host_ports(parts):
        others = seen.setdefault(this.port, [])
        # Two addresses meet where they are the same, or one of them is every address.
        if other := next((one for one in others if one.address == this.address or {one.address, this.address} & {"0.0.0.0", "::"}), None):
            yield Problem(this.path, f"is the same port of {this.address} as {other.path}; each needs its own.", this.port)
        others.append(this)


def _connections(parts: Parts) -> Iterator[Problem]:
    settings = parts.settings
    wanted = {node.name: index_connections(node, settings) for _, node in parts.nodes if node.index == "postgresql"}
    needed = sum(wanted.values()) + RESERVED_CONNECTIONS
    if needed > settings.index_db.max_connections:
        each = ", ".join(f"{name} {count}" for name, count in sorted(wanted.items()))
        reason = f"the nodes keep {sum(wanted.values())} connections ({each}) and {RESERVED_CONNECTIONS} are in reserve"
        how = f"Set it to {needed} or more, or lower the nodes' orthanc.PostgreSQL.IndexConnectionsCount."
        yield Problem("indexDb.maxConnections", f"is too few: {reason}. {how}", settings.index_db.max_connections)


def _each_node(parts: Parts) -> Iterator[Problem]:
    for i, node in parts.nodes:
        path = f"nodes[{i}]"
        yield from check_options(node.orthanc, f"{path}.orthanc")
        yield from check_promises(node, parts.settings, f"{path}.orthanc")
        yield from check_protection(node, path, strict=parts.settings.is_prod)
        users = [user.name for user in node.users]
        for j, name in enumerate(users):
            if name in users[:j]:
                yield Problem(f"{path}.users[{j}].name", "is the name of another user of this node, too; leave one out.", name)
        if not any(user.role is Role.ADMIN for user in node.users):
            yield Problem(f"{path}.users", "holds no admin, and somebody has to look after the node: give one of them role: admin.")


def _tls(parts: Parts) -> Iterator[Problem]:
    """Names for a certificate that is never made, and devices without TLS at a node with TLS, which has no port without it."""
    tls = {node.name for _, node in parts.nodes if parts.settings.tls_of(node)}
    waiting = {(link.to, node.name) for _, node in parts.nodes for link in node.forward_to if link.may_commit}
    for i, node in parts.nodes:
        if node.tls_names and node.name not in tls:
            yield Problem(f"nodes[{i}].tlsNames", "is for a node with tls: true; set that, or leave it out.", list(node.tls_names))
    for i, modality in parts.modalities:
        closed = [name for name in modality.nodes if name in tls and (modality.allow or (modality.name, name) in waiting)]
        if closed and not modality.tls:
            reason = f"is not true, and {visible(', '.join(closed))} takes connections by TLS only"
            how = "Set it, where the device can; `./orthanc-stack certs` makes its certificate. Else let it send to a node without TLS."
            yield Problem(f"modalities[{i}].tls", f"{reason}. {how}", False)


def _backup(parts: Parts) -> Iterator[Problem]:
    backup = parts.settings.backup
    if backup and backup.to.startswith("sftp:") and not backup.host_key:
        host, _, port = backup.to.split("@")[1].partition("/")[0].partition(":")
        how = f"Add what `ssh-keyscan -t ed25519 -p {port or 22} {host}` prints after the host"
        yield Problem("backup.hostKey", f"is missing: without it, another machine could pose as the server. {how} (ssh-ed25519 AAAA…).")


def _environment(parts: Parts) -> Iterator[Problem]:
    settings = parts.settings
    # A node with a mistake of its own may be the one whose index is there.
    if settings.adminer and not settings.index_nodes and len(parts.nodes) == len(parts.node_names) > 0:
        yield Problem("adminer", "has no database to show: no node has index: postgresql. Leave it out.")
    if not settings.is_prod:
        return
    if settings.release_data:
        yield Problem("releaseData", "is for environment: dev only: prod keeps its data. Leave it out.", True)
    if settings.adminer:
        yield Problem("adminer", "is for environment: dev only; leave it out.")
    unbound = [node.name for _, node in parts.nodes if node.bind is None]
    if settings.bind is None and unbound:
        reason = "is missing: environment: prod requires the address of the host that the ports are bound to"
        how = f"Set it for the stack, or for each of the nodes {', '.join(unbound)} (127.0.0.1: this host alone)."
        yield Problem("bind", f"{reason}. {how}")


def _images(parts: Parts) -> Iterator[Problem]:
    images, major = parts.settings.images, parts.settings.index_db.major_version
    if images.source == "auto" and parts.settings.is_prod:
        yield Problem("images.source", "is for environment: dev only; say 'registry' or 'local'.", "auto")
    tag = images.postgres.partition("@")[0].rpartition(":")[2]
    if images.source != "local" and tag.partition(".")[0] != str(major):
        reason = f"is not of the major version in indexDb.majorVersion, {major}: its tag must begin with it."
        yield Problem("images.postgres", reason, images.postgres)
    if images.source != "registry" and major not in POSTGRES:
        built = " and ".join(map(str, POSTGRES))
        reason = f"is not what images/ builds: Debian's PostgreSQL {built}. Set it to one of them, or images.source to 'registry'."
        yield Problem("indexDb.majorVersion", reason, major)
    if (volume := parts.settings.index_db.volume) not in (names.DB_HOST, upgraded := names.upgraded_volume(major)):
        reason = f"is no volume of PostgreSQL {major}'s: '{names.DB_HOST}' or '{upgraded}'. Only ./orthanc-stack upgrade-db changes it."
        yield Problem("indexDb.volume", reason, volume)
