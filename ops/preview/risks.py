"""What a change endangers: data volumes, nodes that go down, what waits meanwhile."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from components.engine import host_and_port
from configs import names
from ops.preview.change import IMAGE, STOPS, VOLUME, Change, Fate, fate_of, label_of
from ops.preview.escape import Code, Words, listed, say
from ops.preview.events import State, Step
from ops.preview.resources import Resource

#: Steps that leave a volume's data where it is.
_HARMLESS: Final = frozenset({"same", "create", "update", "refresh", "read", "import"})


@dataclass(frozen=True)
class DataAtRisk:
    """A data volume that would be deleted or replaced."""

    volume: str  #: its name on the engine
    holds: Words  #: what is in it
    fate: Fate  #: removed or replaced
    protected: bool  #: whether Pulumi refuses to delete it
    retained: bool  #: whether it stays on the engine
    words: Words  #: what that means

    @property
    def lost(self) -> bool:
        """Whether its data would be gone after an update."""
        return not self.protected and not self.retained


@dataclass(frozen=True)
class Downtime:
    """A node whose container is stopped."""

    node: str
    aet: str  #: its AE title until now; empty where that is not known
    dicom: str  #: where its DICOM port is published until now, ``127.0.0.1:4242``
    web: str  #: the same for its web interface
    for_good: bool  #: whether it does not come back
    words: Words  #: for how long, and where it is found afterwards
    why: tuple[Words, ...]  #: the reasons


def at_risk(change: Change) -> tuple[DataAtRisk, ...]:
    """The volumes that would be deleted or replaced, those that would be lost first."""
    found = [_risk(change, step) for step in change.of_type(VOLUME) if step.op not in _HARMLESS]
    return tuple(sorted(found, key=lambda risk: (not risk.lost, risk.volume)))


def _risk(change: Change, step: Step) -> DataAtRisk:
    old = step.old or step.state
    fate = fate_of(step) or Fate.REMOVED
    if old.protect:
        words = say("refused: it is protected (", Code("protect"), "), and the update would stop there")
    elif old.retain:
        words = say("leaves the stack, and stays on the engine with its data (", Code("retain_on_delete"), ")")
    else:
        words = say("deleted for good: nothing protects it", ". An empty one takes its place" if fate is Fate.REPLACED else "")
    return DataAtRisk(str(old.inputs.get("name") or step.name), _holds(change, step, old), fate, old.protect, old.retain, words)


def _holds(change: Change, step: Step, old: State) -> Words:
    part, form = step.name.removesuffix("-data"), label_of(old, names.LABEL_FORMAT)
    if names.INDEX_VOLUME.fullmatch(step.name):
        nodes = sorted(change.databases(after=False))
        return say("the indexes of ", listed(nodes)) if nodes else say("the index database")
    if not form and part not in change.aets(after=False):
        return say("a volume of ", Code(part))
    return say("the images of ", Code(part), " and their index" if form == names.sqlite_format() else "")


def cautions(change: Change) -> Iterator[Words]:
    """What endangers data without touching a volume."""
    # A node that goes and one that comes with the same AE title: to the stack, they have nothing in common.
    gone = {change.aets(after=False).get(name): name for name in change.nodes if change.fate(name) is Fate.REMOVED}
    for name in change.nodes:
        before = gone.get(change.aets(after=True).get(name, ""))
        if before and change.fate(name) is Fate.ADDED:
            yield say(
                *("It looks as if ", Code(before), " were renamed to ", Code(name), ". To the stack that is another node: "),
                *("it begins empty, and the images of ", Code(before), " do not move along."),
            )
    for role, what in (("orthanc", "Orthanc may move its index forward"), ("postgres", "PostgreSQL reads the old one's data")):
        if any(step.name == f"images-{role}" and step.old and step.new for step in change.of_type(IMAGE)):
            yield say(
                *("Another image, ", Code(f"images.{role}"), ": at its first start, ", what),
                ". There is no simple way back to the old image then: back up first.",
            )
    databases, kept = change.databases(after=False), change.databases(after=True)
    for node in sorted(set(databases) - set(kept)) if kept else ():
        yield say("The index database keeps the database ", Code(str(databases[node])), " of ", Code(node), ", which nobody uses then.")


def downtime(change: Change, resources: tuple[Resource, ...]) -> tuple[Downtime, ...]:
    """The nodes whose containers are stopped, by name."""
    why = {name: resource.why for resource in resources if resource.type == "Container" for name in resource.names}
    aets = change.aets(after=False)
    found = []
    for name, step in change.nodes.items():
        fate = fate_of(step)
        if step.old is None or fate not in STOPS:
            continue
        gone = fate is Fate.REMOVED
        before, after = _ports(step.old), {} if gone or step.new is None else _ports(step.new)
        words = say("for good" if gone else "some seconds")
        for what, port in (("DICOM", names.DICOM_PORT), ("web", names.HTTP_PORT)):
            if port in after and after[port] != before.get(port):
                words = say(words, f"; {what} is then at ", Code(after[port]))
        found.append(
            Downtime(
                node=name,
                aet=aets.get(name, ""),
                dicom=before.get(names.DICOM_PORT, ""),
                web=before.get(names.HTTP_PORT, ""),
                for_good=gone,
                words=words,
                why=(say("the stack file has it no more"),) if gone else why.get(name, ()),
            )
        )
    return tuple(found)


def _ports(container: State) -> dict[int, str]:
    """Where the host publishes each port of a container."""
    found: Any = container.inputs.get("ports")
    ports = [port for port in (found if isinstance(found, list) else ()) if isinstance(port, Mapping)]
    known = [port for port in ports if isinstance(port.get("internal"), (int, float)) and isinstance(port.get("external"), (int, float))]
    return {int(port["internal"]): host_and_port(str(port.get("ip", "")), int(port["external"])) for port in known}


def waits(change: Change) -> Iterator[Words]:
    """How long some seconds are, and what is interrupted while all nodes' ports stay up."""
    stopped = [step.old for step in change.nodes.values() if step.old and fate_of(step) is Fate.REPLACED]
    graces = [int(seconds) for old in stopped if isinstance(seconds := old.inputs.get("destroyGraceSeconds"), (int, float))]
    if stopped:
        within = f", at once when it is idle, within {max(graces)} s otherwise" if graces else ""
        yield say(f"Some seconds: the container stops (its associations end{within}), starts, and becomes healthy.")
    both = set(change.databases(after=False)) & set(change.databases(after=True))
    waiting = sorted(node for node in both if change.fate(node) not in STOPS)
    if change.fate(names.DB_HOST) is Fate.REMOVED:
        yield say("The index database goes.")
    elif change.fate(names.DB_HOST) is Fate.REPLACED and waiting:
        yield say(
            *("The index database is replaced. That stops no node, but ", listed(waiting), " can neither store nor answer (503) for "),
            "some seconds, until it is back.",
        )
    elif change.fate(names.DB_HOST) is Fate.REPLACED:
        yield say("The index database is replaced, in the time in which its nodes are.")
    fates = {node: change.fate(names.forwarder_of(node)) for node in change.nodes}
    if pausing := [node for node, fate in fates.items() if fate is Fate.REPLACED]:
        yield say("Forwarding from ", listed(pausing), " pauses for some seconds. Nothing is lost: it goes on where it was.")
    if ending := [node for node, fate in fates.items() if fate is Fate.REMOVED]:
        yield say("Forwarding from ", listed(ending), " ends. What waits there is sent no more.")
    if change.fate(names.ADMINER) in STOPS:
        yield say("Adminer is replaced: some seconds without it." if change.fate(names.ADMINER) is Fate.REPLACED else "Adminer goes.")
