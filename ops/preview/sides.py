"""The stack before and after a change, read from the inputs of its components and containers, in the words of the stack file.

What only the update will know of a component after the change (a forwarder's links, when an image is not pulled yet) is taken from the
stack file's settings, which a preview hands over as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import urlsplit

from components.engine import host_and_port
from configs import names
from configs.loader import parse, said
from configs.secrets import DB_PASSWORD, forwarder_key, node_db_key, private_key_key, user_key
from configs.settings import StackSettings
from ops.preview.steps import UNKNOWN, Preview, State, Step

NODE: Final = "orthanc-stack:index:OrthancNode"
FORWARDER: Final = "orthanc-stack:index:Forwarder"
DATABASE: Final = "orthanc-stack:index:OrthancIndexDb"
IMAGES: Final = "orthanc-stack:index:StackImages"
IMAGE: Final = "docker:index/remoteImage:RemoteImage"
VOLUME: Final = "docker:index/volume:Volume"
NETWORK: Final = "docker:index/network:Network"

#: What DicomModalities calls what the stack file's `allow` lists.
_ALLOW: Final[Mapping[str, str]] = {
    "AllowEcho": "echo",
    "AllowStore": "store",
    "AllowFind": "find",
    "AllowGet": "get",
    "AllowMove": "move",
    "AllowFindWorklist": "worklist",
    "AllowNAction": "commit",
}
#: What a link's entry in the forwarder's configuration says beside the stack file: computed from it.
REVISION: Final = "revision"
_OF_LINKS: Final = frozenset({"to", "record", REVISION})


@dataclass(frozen=True)
class Node:
    """A node as it is on one side of a change.

    Attributes:
        name: its name.
        aet: its AE title.
        ports: the host's ports by their number inside the container, each with its address.
        memory: MiB.
        cpus: how many CPUs' time; None for no limit.
        indexed: whether its index is in PostgreSQL.
        roles: its users' roles.
        unsafe: the options that weaken it on purpose.
        configuration: its public configuration.
        links: where it forwards: the destination with the link's settings; None where it is not known.
        revisions: what stands for each destination's deployment.
        delete_after: seconds after which its forwarder deletes; None for never.
        program: a digest of the forwarder's program; empty without one.
        metrics: where its metrics are published; empty where they are not.
        certificate: its certificate: when it ends, and its fingerprint; empty without one.
        trusts: the fingerprints of what it, and its forwarder, know others by, by their names.
    """

    name: str
    aet: str
    ports: Mapping[int, tuple[str, int]]
    memory: int | None
    cpus: float | None
    indexed: bool
    roles: Mapping[str, str]
    unsafe: tuple[str, ...]
    configuration: Mapping[str, Any]
    links: Mapping[str, Mapping[str, Any]] | None
    revisions: Mapping[str, str]
    delete_after: int | None
    program: str
    metrics: str
    certificate: Mapping[str, str] = field(default_factory=dict)
    trusts: Mapping[str, str] = field(default_factory=dict)

    @property
    def tls(self) -> bool:
        """Whether it speaks TLS only."""
        return self.configuration.get("DicomTlsEnabled") is True

    def published(self, port: int) -> str:
        """Where the host publishes a port of it: ``127.0.0.1:4242``; empty where that is not known."""
        address, external = self.ports.get(port, ("", 0))
        return host_and_port(address, external) if external else ""

    @property
    def secrets(self) -> set[str]:
        """The names of the secrets that it needs, less the superuser's."""
        keys = {user_key(self.name, user) for user in self.roles if user != names.FORWARDER_USER}
        keys |= {node_db_key(self.name)} if self.indexed else set()
        keys |= {private_key_key(self.name)} if self.certificate else set()
        return keys | ({forwarder_key(self.name)} if names.FORWARDER_USER in self.roles else set())

    @property
    def peers(self) -> Mapping[str, Mapping[str, Any]]:
        """Whom it knows: the entries of its DicomModalities."""
        found = self.configuration.get("DicomModalities")
        return found if isinstance(found, Mapping) else {}


@dataclass(frozen=True)
class Side:
    """The stack before or after."""

    nodes: Mapping[str, Node]
    databases: Mapping[str, str]
    adminer: bool
    images: Mapping[str, str]
    #: The database's certificate, as a node's; empty without TLS.
    db_certificate: Mapping[str, str] = field(default_factory=dict)
    #: The containers that are there, by their names in the stack.
    containers: Mapping[str, State] = field(default_factory=dict)

    @property
    def secrets(self) -> set[str]:
        """The names of all secrets that the stack needs."""
        keys = {key for node in self.nodes.values() for key in node.secrets}
        keys |= {private_key_key(names.DB_HOST)} if self.db_certificate else set()
        return keys | ({DB_PASSWORD} if self.databases else set())


def allowed(peer: Mapping[str, Any]) -> list[str]:
    """What an entry of DicomModalities lets a peer ask."""
    return sorted(word for key, word in _ALLOW.items() if peer.get(key) is True)


def part_of(container: State) -> str:
    """A container's name in the stack: its host name among the others."""
    return str(container.inputs.get("hostname") or container.inputs.get("name") or "")


def role_of(container: State) -> str:
    """What a container is: node, forwarder, db, db-roles, adminer; empty for one that is not of the components."""
    labels = container.inputs.get("labels")
    found = labels if isinstance(labels, list) else []
    return next((str(each.get("value")) for each in found if isinstance(each, Mapping) and each.get("label") == names.LABEL_ROLE), "")


def sides(preview: Preview) -> tuple[Side, Side]:
    """The stack before and after.

    A preview that failed, or that was told without what stays, lacks components. What the stack's outputs said of nodes stands in for them,
    and what the stack file still has, and no step removes, counts as staying.
    """
    settings = settings_of(preview)
    before = _side([(step, step.old) for step in preview.steps if step.old], None)
    after = _side([(step, step.new) for step in preview.steps if step.new and step.op != "delete"], settings)
    told = {step.name for step in preview.steps if step.type == NODE} | {part_of(step.state) for step in preview.steps if step.is_container}
    said = _mapping(preview.outputs[0].get("nodes"))
    missing = {str(name): _of_outputs(str(name), _mapping(node)) for name, node in sorted(said.items()) if name not in before.nodes}
    before = replace(before, nodes=dict(sorted({**before.nodes, **missing}.items())))
    wanted = {node.name for node in settings.nodes} if settings else set(before.nodes)
    staying = {name: node for name, node in before.nodes.items() if name in wanted and name not in told}
    after = replace(after, nodes=dict(sorted({**staying, **after.nodes}.items())))
    if not any(step.type == DATABASE for step in preview.steps):
        known = {name: names.database_of(name) for name, node in before.nodes.items() if node.indexed}
        before, after = (
            replace(before, databases=known),
            replace(after, databases={name: known[name] for name in known if name in after.nodes}),
        )
    return before, after


def settings_of(preview: Preview) -> StackSettings | None:
    """The stack file's settings, from the configuration of the preview; None where it is refused."""
    return parse(said(names.own(preview.config)))[0]


def _side(resources: Iterable[tuple[Step, State]], settings: StackSettings | None) -> Side:
    found = list(resources)
    components = {(step.type, step.name): state for step, state in found if not step.type.startswith("docker:")}
    containers = {part_of(state): state for step, state in found if step.is_container}
    database = components.get((DATABASE, names.DB_HOST), State({})).inputs
    databases = _mapping(database.get("databases"))
    links = (
        {node.name: {link.to: link.model_dump(mode="json", by_alias=True) for link in node.forward_to} for node in settings.nodes}
        if settings
        else {}
    )
    nodes = {
        name: _node(
            name,
            (state, components.get((FORWARDER, names.forwarder_of(name)))),
            containers,
            indexed=name in databases,
            said=links.get(name),
        )
        for (type_, name), state in sorted(components.items())
        if type_ == NODE
    }
    images = {step.name.removeprefix("images-"): str(state.inputs.get("name", "")) for step, state in found if step.type == IMAGE}
    return Side(nodes, databases, names.ADMINER in containers, images, _mapping(database.get("certificate")), containers)


def _node(
    name: str,
    components: tuple[State, State | None],
    containers: Mapping[str, State],
    *,
    indexed: bool,
    said: Mapping[str, Mapping[str, Any]] | None,
) -> Node:
    component, forwarder = components
    container = containers.get(name, State({})).inputs
    own = containers.get(names.forwarder_of(name), State({})).inputs
    configuration = _mapping(component.inputs.get("configuration"))
    forwarding = _mapping(forwarder.inputs.get("configuration")) if forwarder else {}
    links: Mapping[str, Mapping[str, Any]] | None = {}
    revisions: dict[str, str] = {}
    if forwarding:
        listed = [link for link in forwarding.get("links") or () if isinstance(link, Mapping)]
        links = {str(link.get("to")): {key: value for key, value in link.items() if key not in _OF_LINKS} for link in listed}
        revisions = {str(link.get("to")): str(link.get(REVISION, "")) for link in listed}
    elif forwarder:
        links = {to: {key: value for key, value in link.items() if key not in _OF_LINKS} for to, link in said.items()} if said else None
        revisions = dict.fromkeys(links or (), UNKNOWN)
    cpus = container.get("cpuQuota")
    period = container.get("cpuPeriod")
    return Node(
        name=name,
        aet=str(configuration.get("DicomAet", "")),
        ports=_ports(container),
        memory=container.get("memory"),
        cpus=cpus / period if cpus and period else None,
        indexed=indexed,
        roles={str(user): str(role) for user, role in sorted(_mapping(component.inputs.get("roles")).items())},
        unsafe=tuple(map(str, component.inputs.get("unsafe") or ())),
        configuration=configuration,
        links=links,
        revisions=revisions,
        delete_after=forwarding.get("deleteAfterSeconds"),
        program=str(forwarder.inputs.get("program", "")) if forwarder else "",
        metrics=next((f"{address}:{port}" for address, port in _ports(own).values()), ""),
        certificate=_mapping(component.inputs.get("certificate")),
        trusts={**_mapping(component.inputs.get("trusts")), **(_mapping(forwarder.inputs.get("trusts")) if forwarder else {})},
    )


def _of_outputs(name: str, said: Mapping[str, Any]) -> Node:
    """A node as the stack's outputs describe it: less its options, and what its forwarder does."""
    ports: dict[int, tuple[str, int]] = {}
    if isinstance(said.get("dicomPort"), int):
        ports[names.DICOM_PORT] = (str(said.get("dicomHost", "")), said["dicomPort"])
    web = urlsplit(str(said.get("httpUrl", "")))
    if web.hostname and web.port:
        ports[names.HTTP_PORT] = (web.hostname, web.port)
    forwards = [str(to) for to in said.get("forwardTo") or ()]
    return Node(
        name=name,
        aet=str(said.get("aet", "")),
        ports=ports,
        memory=None,
        cpus=None,
        indexed=said.get("index") == "postgresql",
        roles={str(user): str(role) for user, role in _mapping(said.get("roles")).items()}
        | ({names.FORWARDER_USER: ""} if forwards else {}),
        unsafe=(),
        configuration={},
        links={to: {} for to in forwards},
        revisions={},
        delete_after=None,
        program="",
        metrics="",
    )


def _ports(container: Mapping[str, Any]) -> dict[int, tuple[str, int]]:
    ports = container.get("ports")
    return {
        int(port["internal"]): (str(port.get("ip", "")), int(port["external"]))
        for port in (ports if isinstance(ports, list) else ())
        if isinstance(port, Mapping) and isinstance(port.get("internal"), (int, float)) and isinstance(port.get("external"), (int, float))
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
