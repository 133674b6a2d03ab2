"""What changes of each part of the stack, in the words of the stack file; what has no such words is told as Docker or Pulumi says it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from configs import names, secrets
from configs.held import STASH
from configs.orthanc import COMPUTED, OF_LINKS
from ops.preview.differ import ABSENT, differences, shown
from ops.preview.files import OF_TLS
from ops.preview.model import Change as Told
from ops.preview.model import Code, Fate, Part, Words, say
from ops.preview.parts import Change, fate_of, role
from ops.preview.sides import DATABASE, FORWARDER, IMAGE, IMAGES, NETWORK, NODE, VOLUME, Node, allowed
from ops.preview.steps import UNKNOWN, Step

#: The inputs of a container that are told in other words: of all, of a node, of each kind.
_EVERYBODYS: Final = frozenset({"image", "networksAdvanced", "uploads"})
_TOLD: Final[Mapping[str, frozenset[str]]] = {
    "node": frozenset({"ports", "memory", "memorySwap", "cpuPeriod", "cpuQuota"}),
    "forwarder": frozenset({"ports"}),
    "db": frozenset({"memory", "memorySwap", "shmSize", "cpuPeriod", "cpuQuota"}),
    "db-roles": frozenset(),
    "adminer": frozenset({"ports"}),
}
#: The inputs of a component that are told in other words.
_COMPONENTS: Final[Mapping[str, frozenset[str]]] = {
    NODE: frozenset({"configuration", "roles", "unsafe", "certificate", "trusts"}),
    FORWARDER: frozenset({"configuration", "program", "trusts"}),
    DATABASE: frozenset({"databases", "certificate"}),
    IMAGES: frozenset({"source"}),
}
_MAX_CONNECTIONS: Final = re.compile(r"max_connections=(\d+)")
_COMPUTED_TOPS: Final = frozenset(path[0] for path in COMPUTED if len(path) == 1)

STACK_PART: Final = "stack"


def parts(change: Change) -> tuple[Part, ...]:
    """The parts of the stack that change, nodes first, by name."""
    found = [_node_part(change, name) for name in sorted({*change.old.nodes, *change.new.nodes})]
    found += [_database(change), _adminer(change), Part(STACK_PART, "stack", None, tuple(_stack(change)))]
    return tuple(part for part in found if part.changes or part.fate)


def raw(change: Change) -> tuple[Told, ...]:
    """The steps that no part tells of, as they are."""
    return tuple(told for step in change.preview.steps if step.changes and not _is_told(change, step) for told in _raw_step(step))


def _node_part(change: Change, name: str) -> Part:
    old, new = change.old.nodes.get(name), change.new.nodes.get(name)
    told = [*_between(old, new), *_forwarding(old, new), *_configured(old, new)]
    for part in (name, names.forwarder_of(name)):
        told += _rest_of(change, part)
    for type_, component in ((NODE, name), (FORWARDER, names.forwarder_of(name))):
        step = change.components.get((type_, component))
        told += _rest_of_component(step) if step else []
    return Part(name, "node", change.fate(name), tuple(told))


def _between(old: Node | None, new: Node | None) -> Iterator[Told]:
    """What the stack file says of a node."""
    yield from _told("aet", old.aet if old else ABSENT, new.aet if new else ABSENT)
    for key, port in (("dicomPort", names.DICOM_PORT), ("httpPort", names.HTTP_PORT)):
        before, after = (side.ports.get(port) if side else None for side in (old, new))
        yield from _told(key, before[1] if before else ABSENT, after[1] if after else ABSENT)
        if before and after and before[0] != after[0]:
            yield from _told(f"bind of {key}", before[0], after[0])
    if old is None or new is None:
        yield from _told("index", _index(old), _index(new))
        return
    yield from _told("memory", old.memory, new.memory, say("in place: the container goes on"))
    yield from _told("cpus", old.cpus, new.cpus)
    for path, before, after in differences(old.roles, new.roles, "users"):
        if path != f"users.{names.FORWARDER_USER}":
            yield Told(path, shown(before), shown(after))
    yield from _told("unsafe", list(old.unsafe), list(new.unsafe))
    yield from _told("tls", old.tls, new.tls)
    yield from _certificate(secrets.certificate_key(old.name), old.certificate, new.certificate)
    for peer in sorted({*old.trusts, *new.trusts}):
        known, from_now_on = (_short(side.trusts.get(peer)) for side in (old, new))
        yield from _told(secrets.trust_key(peer), known, from_now_on, say("what it knows ", Code(peer), " by"))


def _certificate(key: str, old: Mapping[str, str], new: Mapping[str, str]) -> list[Told]:
    """A certificate by its end and the beginning of its fingerprint."""
    before, after = (f"until {side.get('expires')}, SHA-256 {_short(side.get('sha256'))}…" if side else ABSENT for side in (old, new))
    return _told(key, before, after)


def _short(fingerprint: str | None) -> Any:
    return fingerprint[:16] if fingerprint else ABSENT


def _configured(old: Node | None, new: Node | None) -> Iterator[Told]:
    """What differs in the configuration of a node's Orthanc: its options, and what follows from its links and its peers."""
    if old is None or new is None:
        return
    for peer in sorted({*old.peers, *new.peers}):
        yield from _peer(peer, old.peers.get(peer, ABSENT), new.peers.get(peer, ABSENT))
    for path, before, after in differences(old.configuration, new.configuration):
        top = path.partition(".")[0].partition("[")[0]
        if top not in ("DicomAet", "DicomModalities") and not (top in OF_TLS and (old.tls != new.tls or path == "PostgreSQL.EnableSsl")):
            note = say("follows from its links") if top in OF_LINKS else say("computed by the program") if top in _COMPUTED_TOPS else say()
            yield Told(f"orthanc.{path}", shown(before), shown(after), note)


def _index(node: Node | None) -> Any:
    return ABSENT if node is None else "postgresql" if node.indexed else "sqlite"


def _peer(peer: str, old: Any, new: Any) -> Iterator[Told]:
    """A peer of a node: whole, when it comes or goes."""
    path = f"DicomModalities.{peer}"
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for inner, before, after in differences(old, new, path):
            yield Told(inner, shown(before), shown(after))
    elif old is not new:
        entry = new if old is ABSENT else old
        note = say(f"it may {', '.join(allowed(entry)) or 'ask nothing'}") if isinstance(entry, Mapping) else say()
        yield Told(path, shown(_aet(old)), shown(_aet(new)), note if old is ABSENT else say())


def _aet(entry: Any) -> Any:
    return entry.get("AET", ABSENT) if isinstance(entry, Mapping) else entry


def _forwarding(old: Node | None, new: Node | None) -> Iterator[Told]:
    """What the stack file says of a node's links."""
    before, after = (side.links if side else {} for side in (old, new))
    if before is None or after is None:
        yield Told("forwardTo", shown(ABSENT if before is None else before), shown(UNKNOWN))
        return
    for to in sorted({*before, *after}):
        path = f"forwardTo.{to}"
        if to not in before:
            yield Told(path, None, shown(_said(after[to])))
        elif to not in after:
            yield Told(path, shown(_said(before[to])), None)
        else:
            for inner, one, other in differences(before[to], after[to], path):
                yield Told(inner, shown(one), shown(other))
    if old is None or new is None:
        return
    if UNKNOWN not in new.revisions.values():
        yield from _told("keep", _keep(old.delete_after), _keep(new.delete_after))
    yield from _told("metricsPort", old.metrics or ABSENT, new.metrics or ABSENT)
    if old.program and new.program:
        yield from _told("the forwarder's program", old.program, new.program)


def _said(link: Mapping[str, Any]) -> dict[str, Any]:
    """A link as the stack file says it: less what is left out there."""
    only = {key: value for key, value in (link.get("only") or {}).items() if value}
    return {key: value for key, value in link.items() if key != "only"} | ({"only": only} if only else {})


def _keep(delete_after: int | None) -> str:
    return "forever" if delete_after is None else f"until-confirmed after {delete_after}s"


def _database(change: Change) -> Part:
    told: list[Told] = []
    for path, before, after in differences(dict(change.old.databases), dict(change.new.databases), "databases"):
        note = say("made by db-roles" if before is ABSENT else "it stays on the server")
        told.append(Told(path, shown(before), shown(after), note))
    if bool(change.old.db_certificate) != bool(change.new.db_certificate) and change.old.databases and change.new.databases:
        told += _told("indexDb.tls", bool(change.old.db_certificate), bool(change.new.db_certificate))
    told += _certificate(secrets.certificate_key(names.DB_HOST), change.old.db_certificate, change.new.db_certificate)
    step = change.containers.get(names.DB_HOST)
    if step and step.old and step.new:
        old, new = step.old.inputs, step.new.inputs
        told += _told("indexDb.maxConnections", _connections(old), _connections(new))
        told += _told("indexDb.memory", old.get("memory"), new.get("memory"))
        told += _told("indexDb.cpus", _cpus(old), _cpus(new))
    told += [*_rest_of(change, names.DB_HOST), *_rest_of(change, names.DB_ROLES)]
    component = change.components.get((DATABASE, names.DB_HOST))
    return Part(names.DB_HOST, "database", change.fate(names.DB_HOST), (*told, *(_rest_of_component(component) if component else ())))


def _connections(inputs: Mapping[str, Any]) -> Any:
    """PostgreSQL's max_connections, as its command line says it."""
    found = _MAX_CONNECTIONS.search(" ".join(map(str, inputs.get("command") or ())))
    return int(found[1]) if found else ABSENT


def _cpus(inputs: Mapping[str, Any]) -> Any:
    quota, period = inputs.get("cpuQuota"), inputs.get("cpuPeriod")
    return quota / period if quota and period else None


def _adminer(change: Change) -> Part:
    step = change.containers.get(names.ADMINER)
    told: list[Told] = []
    if step:
        before, after = (_published(state.inputs) if state else ABSENT for state in (step.old, step.new))
        told += _told("adminer.port", before, after)
    return Part(names.ADMINER, "Adminer", change.fate(names.ADMINER), (*told, *_rest_of(change, names.ADMINER)))


def _published(inputs: Mapping[str, Any]) -> Any:
    ports = inputs.get("ports")
    return (
        next((f"{port.get('ip')}:{port.get('external')}" for port in ports if isinstance(port, Mapping)), ABSENT)
        if isinstance(ports, list)
        else ABSENT
    )


def _stack(change: Change) -> Iterator[Told]:
    """What is of no part: images, networks, how volumes are protected."""
    for role_ in sorted({*change.old.images, *change.new.images}):
        yield from _told(f"images.{role_}", change.old.images.get(role_, ABSENT), change.new.images.get(role_, ABSENT))
    for step in change.preview.steps:
        if step.type == VOLUME and step.old and step.new:
            for key in ("protect", "retain"):
                yield from _told(f"volume {step.name}: {key}", getattr(step.old, key), getattr(step.new, key))
    for step in change.of_type(NETWORK):
        name = change.network(str(step.state.inputs.get("name", step.name)))
        fate = fate_of(step)
        if fate in (Fate.ADDED, Fate.REMOVED):
            yield Told("network", name if fate is Fate.REMOVED else None, name if fate is Fate.ADDED else None)
        else:
            yield from _raw_step(step)


def _told(path: str, old: Any, new: Any, note: Words | None = None) -> list[Told]:
    """A setting, if it differs."""
    found = [(shown(before), shown(after)) for _, before, after in differences(old, new)] if old is not new else []
    return [Told(path, before, after, (note or say()) if None not in (before, after) else say()) for before, after in found]


def _rest_of(change: Change, container: str) -> list[Told]:
    """What differs of a container and is told nowhere else."""
    step = change.containers.get(container)
    if step is None or step.old is None or step.new is None or not step.changes:
        return []
    kind = role(step)
    told = _EVERYBODYS | _TOLD.get(kind, frozenset())
    if kind == "db" and _connections(step.old.inputs) != _connections(step.new.inputs):
        told |= {"command"}
    if bool(change.old.db_certificate) != bool(change.new.db_certificate):
        told |= {"db": {"command", "entrypoints"}, "db-roles": {"envs"}}.get(kind, set())
    if any(volume.op == "replace" for volume in change.of_type(VOLUME)):
        told |= {"volumes"}
    return [each for key in sorted(change.differing(step) - told) for each in _raw_input(step, key, f"container {container}: {key}")]


def _rest_of_component(step: Step) -> list[Told]:
    known = _COMPONENTS.get(step.type, frozenset())
    old, new = (state.inputs if state else {} for state in (step.old, step.new))
    if step.old is None or step.new is None:
        return []
    return [each for key in sorted({*old, *new} - known) for each in _raw_input(step, key, f"{step.name}: {key}")]


def _raw_input(step: Step, key: str, path: str) -> list[Told]:
    """One input as Docker or Pulumi says it; what the provider alone compares is told by what it gave back before."""
    old, new = (state.inputs if state else {} for state in (step.old, step.new))
    before, after = old.get(key, ABSENT), new.get(key, ABSENT)
    if before == after and key in step.differs:
        before = step.old.outputs.get(key, before) if step.old else before
        return [Told(path, shown(before), shown(after), raw=True)]
    return [Told(inner, shown(one), shown(other), raw=True) for inner, one, other in differences(before, after, path)]


def _is_told(change: Change, step: Step) -> bool:
    """Whether another part of the report tells of a step."""
    fate = fate_of(step)
    if step.is_container:
        return fate is not None and bool(role(step)) and _has_part(change, step)
    if step.type == VOLUME:
        return fate in (Fate.ADDED, Fate.REMOVED, Fate.REPLACED)
    if step.type == NETWORK:
        return fate is not None
    if step.type == STASH:  # Whose the stack is. That its data is no longer protected is told as Pulumi says it.
        return fate in (Fate.ADDED, Fate.REMOVED)
    if step.type == IMAGE:
        return fate in (Fate.ADDED, Fate.REMOVED, Fate.REPLACED)
    return step.type in (*_COMPONENTS, "orthanc-stack:index:StackNetwork", "orthanc-stack:index:Adminer") and fate is not None


def _has_part(change: Change, step: Step) -> bool:
    known = {*change.old.nodes, *change.new.nodes}
    own = str(step.state.inputs.get("hostname"))
    return own in {names.DB_HOST, names.DB_ROLES, names.ADMINER} | known | {names.forwarder_of(node) for node in known}


def _raw_step(step: Step) -> list[Told]:
    """A step as Pulumi says it."""
    path = f"{step.op} {step.type} {step.name}"
    old, new = (dict(state.inputs) if state else ABSENT for state in (step.old, step.new))
    found = [Told(f"{path}: {inner}" if inner else path, shown(one), shown(other), raw=True) for inner, one, other in differences(old, new)]
    return found or [Told(path, None, None, raw=True)]
