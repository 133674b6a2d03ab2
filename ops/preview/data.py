"""Data at risk: volumes that would be deleted or replaced, and what else an update cannot take back."""

from __future__ import annotations

from collections.abc import Iterator

from configs import names
from ops.preview.model import Code, DataAtRisk, Fate, Words, listed, say
from ops.preview.parts import Change, fate_of
from ops.preview.sides import VOLUME
from ops.preview.steps import UNKNOWN, Step

#: Steps that leave a volume's data where it is.
_HARMLESS = frozenset({"same", "create", "update", "refresh", "read", "import"})


def at_risk(change: Change) -> tuple[DataAtRisk, ...]:
    """The volumes that would be deleted or replaced, those that would be lost first."""
    found = [_risk(change, step) for step in change.of_type(VOLUME) if step.op not in _HARMLESS]
    return tuple(sorted(found, key=lambda risk: (not risk.lost, risk.volume)))


def _risk(change: Change, step: Step) -> DataAtRisk:
    old = step.old or step.state
    volume = str(old.inputs.get("name") or step.name)
    fate = fate_of(step) or Fate.REMOVED
    if old.protect:
        words = say("refused: it is protected (", Code("protect"), "), and the update would stop there")
    elif old.retain:
        words = say("leaves the stack, and stays on the engine with its data (", Code("retain_on_delete"), ")")
    else:
        words = say("deleted for good: nothing protects it", "" if fate is not Fate.REPLACED else ". An empty one takes its place")
    return DataAtRisk(volume, _holds(change, step), fate, old.protect, old.retain, words)


def _holds(change: Change, step: Step) -> Words:
    part = step.name.removesuffix("-data")
    if part == names.DB_HOST:
        nodes = sorted(change.old.databases)
        return say("the indexes of ", listed(nodes)) if nodes else say("the index database")
    node = change.old.nodes.get(part)
    if node is None:
        return say("a volume of ", Code(part))
    return say("the images of ", Code(node.name), "" if node.indexed else " and their index")


def cautions(change: Change) -> tuple[Words, ...]:
    """What endangers data without touching a volume."""
    return (*_renamed(change), *_upgraded(change), *_left_behind(change))


def _renamed(change: Change) -> Iterator[Words]:
    """A node that goes and one that comes with the same AE title: for the stack, they have nothing in common."""
    gone = {node.aet: node for name, node in change.old.nodes.items() if name not in change.new.nodes}
    for name, node in change.new.nodes.items():
        before = gone.get(node.aet)
        if name not in change.old.nodes and before is not None:
            yield say(
                *("It looks as if ", Code(before.name), " were renamed to ", Code(name), ". To the stack that is another node: "),
                *("it begins empty, and the images of ", Code(before.name), " do not go with the name."),
            )


def _upgraded(change: Change) -> Iterator[Words]:
    """Another image may upgrade what is in the volumes, which cannot be taken back."""
    for role, what in (("orthanc", "Orthanc may upgrade its index"), ("postgres", "PostgreSQL reads the old one's data")):
        old, new = change.old.images.get(role), change.new.images.get(role)
        if old and new and old != new and UNKNOWN not in (old, new):
            yield say(
                *("Another image, ", Code(f"images.{role}"), ": at its first start, ", what),
                ". An upgrade of an index cannot go back to the old image: back up first.",
            )


def _left_behind(change: Change) -> Iterator[Words]:
    gone = sorted(set(change.old.databases) - set(change.new.databases))
    if gone and change.new.databases:
        for node in gone:
            yield say(
                "The index database keeps the database ", Code(change.old.databases[node]), " of ", Code(node), ", which nobody uses then."
            )
