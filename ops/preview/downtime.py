"""Which nodes go down, for how long, and what is interrupted without a node going down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from configs import names
from ops.preview.model import Code, Downtime, Fate, Reason, Words, listed, say
from ops.preview.parts import Change
from ops.preview.sides import Node


def downtime(change: Change, because: Sequence[Reason]) -> tuple[Downtime, ...]:
    """The nodes whose containers are stopped, by name."""
    why = {reason.container: reason.because for reason in because}
    found = []
    for name, node in sorted(change.old.nodes.items()):
        fate = change.fate(name)
        if fate in (Fate.REPLACED, Fate.REMOVED):
            for_good = fate is Fate.REMOVED
            words = say("for good") if for_good else _some_seconds(change, node)
            found.append(
                Downtime(
                    name,
                    node.aet,
                    node.published(names.DICOM_PORT),
                    node.published(names.HTTP_PORT),
                    for_good,
                    words,
                    why.get(name, ()) if not for_good else (say("the stack file has it no more"),),
                    _grace(change, name),
                )
            )
    return tuple(found)


def _some_seconds(change: Change, node: Node) -> Words:
    words = say("some seconds")
    after = change.new.nodes.get(node.name)
    moved = [
        (what, after.published(port))
        for what, port in (("DICOM", names.DICOM_PORT), ("web", names.HTTP_PORT))
        if after and after.published(port) != node.published(port)
    ]
    for what, where in moved:
        words = say(words, f"; {what} is then at ", Code(where))
    return words


def _grace(change: Change, container: str) -> int | None:
    step = change.containers[container]
    seconds = step.old.inputs.get("destroyGraceSeconds") if step.old else None
    return int(seconds) if isinstance(seconds, (int, float)) else None


def waits(change: Change) -> tuple[Words, ...]:
    """What is interrupted while all nodes' ports stay up."""
    return (*_database(change), *_forwarders(change), *_adminer(change))


def _database(change: Change) -> Iterator[Words]:
    fate = change.fate(names.DB_HOST)
    waiting = sorted(node for node in change.old.databases if node in change.new.databases and change.fate(node) is None)
    if fate is Fate.REPLACED:
        if waiting:
            yield say(
                *("The index database is replaced. That stops no node, but ", listed(waiting), " can neither store nor answer (503) for "),
                "some seconds, until it is back.",
            )
        else:
            yield say("The index database is replaced, in the time in which its nodes are.")
    elif fate is Fate.REMOVED:
        yield say("The index database goes.")


def _forwarders(change: Change) -> Iterator[Words]:
    pausing = sorted(
        name for name in change.old.nodes if name in change.new.nodes and change.fate(names.forwarder_of(name)) is Fate.REPLACED
    )
    if pausing:
        yield say("Forwarding from ", listed(pausing), " pauses for some seconds. Nothing is lost: it goes on where it was.")
    ending = sorted(name for name in change.old.nodes if change.fate(names.forwarder_of(name)) is Fate.REMOVED)
    if ending:
        yield say("Forwarding from ", listed(ending), " ends. What waits there is sent no more.")


def _adminer(change: Change) -> Iterator[Words]:
    if change.fate(names.ADMINER) is Fate.REPLACED:
        yield say("Adminer is replaced: some seconds without it.")
    elif change.fate(names.ADMINER) is Fate.REMOVED:
        yield say("Adminer goes.")
