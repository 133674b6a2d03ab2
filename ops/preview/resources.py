"""What Pulumi would do to each resource, and why: told from the differences of its inputs, and of its component's."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ops.preview.change import CONTAINER, Change, Fate, fate_of, host_name
from ops.preview.escape import Code, Words, listed, say
from ops.preview.events import State, Step
from ops.preview.settings import LATER, differences

#: What a container is replaced for, by its input; other inputs are told as Docker calls them. Its files are told by its component's inputs.
_CAUSES: Final = {
    "image": "its image changes",
    "networksAdvanced": "its networks change",
    "ports": "it is published elsewhere",
    "volumes": "its volume is another one",
}
#: What the provider had not read of a container whose start failed, and takes for another value.
_UNREAD: Final = frozenset({"#initerror", "entrypoints", "command", "networkDatas"})
#: Where the inputs of a component name another part of the stack.
_OTHERS: Final = re.compile(r"(?:configuration\.)?(DicomModalities|links|trusts)\.([^.]+)(?:\.(.+))?")
#: The reason where a file changes and nothing public says why.
SECRET_FILE: Final = say("a file with secrets changes")
#: More differences of one resource are counted.
_MOST: Final = 12


@dataclass(frozen=True)
class Resource:
    """What becomes of resources: one, or several of a type that have the same reasons."""

    op: str  #: Pulumi's word: create, update, replace, delete, or another
    type: str  #: Container, Volume, OrthancNode, …; a type of nobody's here as Pulumi has it
    names: tuple[str, ...]  #: of containers their names in the stack, of others their logical names
    why: tuple[Words, ...]  #: of a container that is replaced, the reasons; else what of it changes


def resources(change: Change) -> tuple[Resource, ...]:
    """All that changes, by type and name. What nothing else in a report tells of is here, too."""
    found: dict[tuple[str, str, tuple[Words, ...]], list[str]] = {}
    for step in change.preview.steps:
        if step.changes:
            name = host_name(step) if step.type == CONTAINER else step.name
            found.setdefault((step.op, _short(step.type), tuple(dict.fromkeys(_why(change, step)))), []).append(name)
    return tuple(Resource(op, type_, tuple(names), why) for (op, type_, why), names in found.items())


def _short(type_: str) -> str:
    return type_.rpartition(":")[2] if type_.startswith(("docker:", "orthanc-stack:")) else type_


def _why(change: Change, step: Step) -> Iterator[Words]:
    if step.old is None or step.new is None:
        return
    if step.type != CONTAINER or fate_of(step) is not Fate.REPLACED:
        yield from _differing(step, step.old, step.new)
        return
    causes = step.causes or step.differs
    if "#initerror" in causes:
        yield say("its last start failed")
        causes -= _UNREAD
    elif not causes:
        yield say("Pulumi does not say why")
    if "uploads" in causes:
        yield from list(_component(change, step)) or [SECRET_FILE]
    for cause in sorted(causes - {"uploads"}):
        yield say(_CAUSES[cause]) if cause in _CAUSES else say("Docker's ", Code(cause), " changes")


def _component(change: Change, step: Step) -> Iterator[Words]:
    """What is public of the reasons why a container's files change. Pulumi shows none of the files as soon as one is secret."""
    component = change.component(step)
    if component is None or component.old is None or component.new is None:
        return
    own: list[str] = []
    others: dict[str, set[str]] = {}
    for path, old, new in differences(component.old.inputs, component.new.inputs):
        if new == LATER:
            yield say("its ", Code(path), " is only known at the update")
        elif other := _OTHERS.fullmatch(path):
            whole = "came" if old is None else "went" if new is None else "changed"
            others.setdefault(other[2], set()).add("certificate" if other[1] == "trusts" else other[3] or whole)
        else:
            own.append(path.removeprefix("configuration."))
    for name, seen in sorted(others.items()):
        if seen & {"came", "went"}:
            yield say("it gets to know " if "came" in seen else "it no longer knows ", Code(name))
        else:
            yield say("what it knows of ", Code(name), " changes: ", listed(sorted(seen)))
    if own:
        yield say("its settings change: ", listed(own))


def _differing(step: Step, old: State, new: State) -> list[Words]:
    """The inputs that differ, with both values; those that only the provider finds different, by their names."""
    found = list(differences(old.inputs, new.inputs))
    words = [say(Code(path), ": ", _value(before), " → ", _value(after)) for path, before, after in found]
    unseen = sorted((step.differs | step.causes) - {re.split(r"[.\[]", path)[0] for path, *_ in found})
    words += [say(Code(key)) for key in unseen]
    for flag in ("protect", "retain"):
        was, will = getattr(old, flag), getattr(new, flag)
        words += [say(Code(flag), f": {was} → {will}")] if was != will else []
    return words if len(words) <= _MOST else [*words[:_MOST], say(f"and {len(words) - _MOST} more")]


def _value(value: str | None) -> str:
    return "-" if value is None else Code(value)
