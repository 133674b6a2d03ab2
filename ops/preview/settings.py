"""The settings before and after a change, and where they differ, in the stack file's words."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from configs import names
from configs.fields import Settings
from configs.loader import parse, said
from configs.secrets import parties_of, private_key_key, secret_keys
from configs.settings import AdminerSettings, LinkSettings, ModalitySettings, NodeSettings, StackSettings
from ops.preview.escape import Code, Words, say
from ops.preview.events import SECRET, UNKNOWN, Preview

#: There is no value.
ABSENT: Final = object()
#: What is shown for what only the update will know.
LATER: Final = "known at the update"
#: The keys that name a thing in a list: of nodes, devices and users; of links.
_NAMES: Final = ("name", "to")

Plain = Mapping[str, Any]


@dataclass(frozen=True)
class Setting:
    """A setting that changes."""

    part: Words  #: the node, or "database", "Adminer", "stack"
    path: str  #: its path in the stack file; of a node's, without the node
    old: str | None  #: its value before, as JSON; None where there was none
    new: str | None  #: its value after; None where there is none


def settings_before(preview: Preview) -> Plain | None:
    """The settings of the last deployment; nothing for a stack that is not deployed yet; None where that deployment kept none."""
    found = preview.outputs.get("settings")
    if isinstance(found, Mapping):
        return found
    return None if preview.outputs or any(step.old for step in preview.steps) else {}


def settings_after(preview: Preview) -> Plain | None:
    """The settings in the stack file; None where it is refused."""
    settings = parse(said(names.own(preview.config)))[0]
    return settings.model_dump(mode="json", by_alias=True) if settings else None


def changes(old: Plain, new: Plain) -> tuple[Setting, ...]:
    """The settings that differ: nodes first, by name, then the database, Adminer, and what is of the whole stack."""
    found = []
    for path, before, after in differences(old, new, _defaults()):
        top, _, rest = path.partition(".")
        name, _, inner = rest.partition(".")
        if top == "nodes":
            found.append((0, name, Setting(say("node ", Code(name)), inner or path, before, after)))
        else:
            order = {"indexDb": 1, "adminer": 2}.get(top, 3)
            found.append((order, "", Setting(say(("database", "Adminer", "stack")[order - 1]), path, before, after)))
    return tuple(setting for *_, setting in sorted(found, key=lambda each: (each[0], each[1], each[2].path)))


def secrets_of(settings: Plain | None) -> set[str]:
    """The keys of the secrets that a stack with these settings needs; none where another version wrote them."""
    # Read as a stack file: what is empty is left out, which a stack file cannot say otherwise.
    found = parse(telling(settings, ABSENT))[0] if settings else None
    if found is None:
        return set()
    return {*secret_keys(found), *(private_key_key(party.name) for party in parties_of(found) if not party.outside)}


def differences(old: Any, new: Any, default: Any = ABSENT, path: str = "") -> Iterator[tuple[str, str | None, str | None]]:
    """The places where two values differ, in the order of their paths: the path, and both values as JSON.

    Mappings are compared key by key, lists of named things (nodes, links, users) by their names; another list is one value. A setting that
    is left out on one side, and empty or the default on the other, is no difference.

    Args:
        old: the value before.
        new: the value after.
        default: what a value is when it is left out; of a mapping, by its keys, where "*" is any key.
        path: where the two are.
    """
    before, after = _by_name(old), _by_name(new)
    if before is not old and _is_nothing(new):
        after = {}
    if after is not new and _is_nothing(old):
        before = {}
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        known = default if isinstance(default, Mapping) else {}
        for key in sorted({*before, *after}):
            inner = known.get(key, known.get("*", None if known else ABSENT))
            yield from differences(before.get(key, ABSENT), after.get(key, ABSENT), inner, f"{path}.{key}" if path else key)
    elif old != new and not _left_out(old, new, default):
        yield path, _shown(old, default), _shown(new, default)


def _left_out(old: Any, new: Any, default: Any) -> bool:
    """Whether a value is left out on one side, or on both, where that means the same."""
    # Of what has no default, an option of Orthanc's say, an empty value may mean another thing than none.
    if all(value is None or value is ABSENT if default is ABSENT else _is_nothing(value) for value in (old, new)):
        return True
    return (old is ABSENT and new == default) or (new is ABSENT and old == default)


def _by_name(value: Any) -> Any:
    """A list of named things as a mapping; anything else as it is."""
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        return value
    named = {name: item for item in value for name in [next((item[key] for key in _NAMES if key in item), None)] if isinstance(name, str)}
    return named if value and len(named) == len(value) else value


def _is_nothing(value: Any) -> bool:
    return value is ABSENT or value is None or value in ("", [], {})


def telling(value: Any, default: Any) -> Any:
    """A value without what is empty in it, or the default."""
    if isinstance(value, list):
        known = default.get("*", ABSENT) if isinstance(default, Mapping) else ABSENT
        return [telling(item, known) for item in value]
    if not isinstance(value, Mapping):
        return LATER if value == UNKNOWN else value
    known = default if isinstance(default, Mapping) else {}
    told = {key: telling(inner, known.get(key, ABSENT)) for key, inner in value.items() if inner != known.get(key, ABSENT)}
    return {key: inner for key, inner in told.items() if not _is_nothing(inner)}


def _shown(value: Any, default: Any) -> str | None:
    if value is ABSENT or value is None:
        return None
    if value in (SECRET, UNKNOWN):
        return SECRET if value == SECRET else LATER
    return json.dumps(telling(value, default) or telling(value, ABSENT), sort_keys=True, ensure_ascii=False)


def _defaults() -> Plain:
    """The defaults of all settings, as differences() takes them."""

    def of(model: type[Settings]) -> dict[str, Any]:
        return model.model_construct().model_dump(mode="json", by_alias=True, warnings=False)

    node = of(NodeSettings) | {"forwardTo": {"*": of(LinkSettings)}, "users": {}}
    adminer = of(AdminerSettings) | {"*": ABSENT}  # more than any Adminer has: without settings it is still another thing than none
    return of(StackSettings) | {"nodes": {"*": node}, "modalities": {"*": of(ModalitySettings)}, "adminer": adminer}
