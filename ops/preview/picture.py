"""The topology before and after as a Mermaid picture: what comes is green, what goes is red and dashed, what restarts is amber."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from configs import names
from ops.preview.change import Change, Fate
from ops.preview.escape import label
from ops.preview.settings import ABSENT, Plain, telling

#: More boxes than anybody looks at: beyond it, what has no part in the change is left out.
_MOST_PLACES: Final = 24
_SHAPES: Final = {"device": ("([", "])"), "database": ("[(", ")]")}
#: Colours that can be read on white and on black.
_COLOURS: Final = {Fate.ADDED: "#1a7f37", Fate.REMOVED: "#cf222e", Fate.REPLACED: "#9a6700", Fate.CHANGED: "#0969da"}
_ARROWS: Final[Mapping[Fate | None, str]] = {Fate.ADDED: "==>", Fate.REMOVED: "-.->"}
_WORDS: Final[Mapping[Fate, str]] = {Fate.ADDED: "new", Fate.REMOVED: "removed", Fate.REPLACED: "restarts", Fate.CHANGED: "changed"}


@dataclass(frozen=True)
class Place:
    """A box: a node, a device, the database, Adminer."""

    name: str
    kind: str  #: node, device, database, adminer
    label: str  #: its AE title or what it is, below its name
    fate: Fate | None


@dataclass(frozen=True)
class Link:
    """An arrow: a link, what a device may ask, the way to an index."""

    begin: str
    end: str
    label: str
    fate: Fate | None


#: The two ends of an arrow, and what tells apart two arrows between the same ends.
_Key = tuple[str, str, str]


def topology(change: Change) -> tuple[tuple[Place, ...], tuple[Link, ...]]:
    """The boxes and the arrows, by name. Where the last deployment kept no settings, those of the stack file alone are drawn."""
    if change.new is None:
        return (), ()
    old = change.new if change.old is None else change.old
    before, after = _places(old), _places(change.new)
    places = []
    for name in sorted({*before, *after}):
        kind, text = after.get(name) or before[name]
        fate = _fate(before.get(name), after.get(name))
        if fate in (None, Fate.CHANGED) and kind != "device":
            fate = change.fate(name) or fate
        places.append(Place(name, kind, text, fate))
    gone, come = _links(old), _links(change.new)
    keys = sorted({*gone, *come})
    links = [Link(key[0], key[1], (come.get(key) or gone[key])[0], _fate(gone.get(key), come.get(key))) for key in keys]
    return tuple(places), tuple(links)


def _fate(old: object, new: object) -> Fate | None:
    if old is None or new is None:
        return Fate.ADDED if old is None else Fate.REMOVED
    return None if old == new else Fate.CHANGED


def _places(settings: Plain) -> Mapping[str, tuple[str, str]]:
    """The boxes with their kinds and labels."""
    nodes = settings.get("nodes") or ()
    found = {str(node["name"]): ("node", str(node.get("aet"))) for node in nodes}
    found |= {str(device["name"]): ("device", str(device.get("aet"))) for device in settings.get("modalities") or ()}
    if any(node.get("index") == "postgresql" for node in nodes):
        found[names.DB_HOST] = ("database", "PostgreSQL")
    return found | ({names.ADMINER: ("adminer", "")} if settings.get("adminer") else {})


def _links(settings: Plain) -> Mapping[_Key, tuple[str, object]]:
    """The arrows, each with its label and what else can change of it: links with their rules, what devices may ask, indexes, Adminer."""
    found: dict[_Key, tuple[str, object]] = {}
    for node in settings.get("nodes") or ():
        # Without what is empty: another version has other keys.
        sent = [(str(link["to"]), telling(link, ABSENT)) for link in node.get("forwardTo") or ()]
        found |= {(str(node["name"]), to, "store"): ("C-STORE", link) for to, link in sent}
        if node.get("index") == "postgresql":
            found[(str(node["name"]), names.DB_HOST, "index")] = ("index", None)
    for device in settings.get("modalities") or ():
        asks = ", ".join(sorted(map(str, device.get("allow") or ()))) or "nothing"
        found |= {(str(device["name"]), str(node), "ask"): (asks, None) for node in device.get("nodes") or ()}
    return found | ({(names.ADMINER, names.DB_HOST, "adminer"): ("", None)} if settings.get("adminer") else {})


def mermaid(places: Sequence[Place], links: Sequence[Link]) -> tuple[str, int]:
    """The picture, and how many boxes were left out of it."""
    shown = _shown(places, links)
    ids = {place.name: f"p{i}" for i, place in enumerate(shown)}
    lines = ["graph LR", *(f"  {_box(ids[place.name], place)}" for place in shown)]
    drawn = [link for link in links if link.begin in ids and link.end in ids]
    for link in drawn:
        arrow = "-.->" if link.label == "index" and link.fate is None else _ARROWS.get(link.fate, "-->")
        words = f"{_WORDS[link.fate]}: {link.label}" if link.fate and link.label else link.label
        told = f'|"{label(words)}"|' if words else ""
        lines.append(f"  {ids[link.begin]} {arrow}{told} {ids[link.end]}")
    for fate, colour in _COLOURS.items():
        dashes = ",stroke-dasharray:6 4" if fate is Fate.REMOVED else ""
        members = [ids[place.name] for place in shown if place.fate is fate]
        style = f"fill:{colour},stroke:{colour},color:#ffffff{dashes}"
        lines += [f"  classDef {fate} {style}", f"  class {','.join(members)} {fate}"] if members else []
        numbers = [str(i) for i, link in enumerate(drawn) if link.fate is fate]
        lines += [f"  linkStyle {','.join(numbers)} stroke:{colour},stroke-width:3px"] if numbers else []
    return "\n".join(lines), len(places) - len(shown)


def _box(identifier: str, place: Place) -> str:
    begin, end = _SHAPES.get(place.kind, ("[", "]"))
    below = [*([place.label] if place.label else []), *([_WORDS[place.fate]] if place.fate else [])]
    return f'{identifier}{begin}"{"<br/>".join(label(text) for text in (place.name, *below))}"{end}'


def _shown(places: Sequence[Place], links: Sequence[Link]) -> list[Place]:
    """All, or, of very many, those of the change and their neighbours, those that change first."""
    if len(places) <= _MOST_PLACES:
        return list(places)
    touched = {place.name for place in places if place.fate} | {end for link in links if link.fate for end in (link.begin, link.end)}
    near = {end for link in links if {link.begin, link.end} & touched for end in (link.begin, link.end)}
    order = [place for place in places if place.name in touched] + [place for place in places if place.name in near - touched]
    kept = {place.name for place in order[:_MOST_PLACES]}
    return [place for place in places if place.name in kept]
