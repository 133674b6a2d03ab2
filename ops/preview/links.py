"""The topology as a picture: what is there before or after, and what of it comes, goes or changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from configs import names
from ops.preview.model import Fate, Link, Place
from ops.preview.parts import Change
from ops.preview.sides import Side, allowed

#: The two ends of an arrow, and what tells apart two arrows between the same ends.
_Key = tuple[str, str, str]


def picture(change: Change) -> tuple[tuple[Place, ...], tuple[Link, ...]]:
    """The boxes and the arrows, by name."""
    old, new = _links(change.old), _links(change.new)
    links = tuple(
        Link(key[0], key[1], _label(key, old.get(key), new.get(key)), _fate(old.get(key), new.get(key))) for key in sorted({*old, *new})
    )
    before, after = _places(change.old), _places(change.new)
    places = []
    for name in sorted({*before, *after}):
        kind, label = after.get(name) or before[name]
        fate = change.fate(name) if kind != "device" else None
        if name not in before or name not in after:
            fate = Fate.ADDED if name not in before else Fate.REMOVED
        elif fate is None and before[name] != after[name]:
            fate = Fate.CHANGED
        places.append(Place(name, kind, label, fate))
    return tuple(places), links


def _fate(old: Any, new: Any) -> Fate | None:
    if old is None or new is None:
        return Fate.ADDED if old is None else Fate.REMOVED
    return None if old == new else Fate.CHANGED


def _label(key: _Key, old: Any, new: Any) -> str:
    if key[2] == "store":
        return "C-STORE"
    return "index" if key[2] == "index" else str(new if new is not None else old) if key[2] == "ask" else ""


def _links(side: Side) -> Mapping[_Key, Any]:
    """The arrows: a node's links with their rules, what each device may ask, the indexes, Adminer."""
    found: dict[_Key, Any] = {}
    for name, node in side.nodes.items():
        for to, link in (node.links or {}).items():
            found[(name, to, "store")] = dict(link)
        if node.indexed:
            found[(name, names.DB_HOST, "index")] = True
        for peer, entry in node.peers.items():
            if peer not in side.nodes:
                found[(peer, name, "ask")] = ", ".join(allowed(entry)) or "nothing"
    if side.adminer and side.databases:
        found[(names.ADMINER, names.DB_HOST, "adminer")] = True
    return found


def _places(side: Side) -> Mapping[str, tuple[str, str]]:
    found = {name: ("node", node.aet) for name, node in side.nodes.items()}
    for node in side.nodes.values():
        for peer, entry in node.peers.items():
            if peer not in side.nodes:
                found[peer] = ("device", str(entry.get("AET", "")))
    if side.databases:
        found[names.DB_HOST] = ("database", "PostgreSQL")
    if side.adminer:
        found[names.ADMINER] = ("adminer", "Adminer")
    return found
