"""The topology as a Mermaid picture in which a change is seen: what comes is green, what goes is red and dashed, what restarts is amber."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from ops.preview.escape import label
from ops.preview.model import Fate, Link, Place

#: More boxes than anybody looks at: beyond it, what has no part in the change is left out.
MOST_PLACES: Final = 24

_SHAPES: Final[Mapping[str, tuple[str, str]]] = {
    "node": ("[", "]"),
    "device": ("([", "])"),
    "database": ("[(", ")]"),
    "adminer": ("[", "]"),
}
#: Colours that can be read on white and on black.
_CLASSES: Final[Mapping[Fate, str]] = {
    Fate.ADDED: "fill:#1a7f37,stroke:#1a7f37,color:#ffffff",
    Fate.REMOVED: "fill:#cf222e,stroke:#cf222e,color:#ffffff,stroke-dasharray:6 4",
    Fate.REPLACED: "fill:#9a6700,stroke:#9a6700,color:#ffffff",
    Fate.CHANGED: "fill:#0969da,stroke:#0969da,color:#ffffff",
}
_ARROWS: Final[Mapping[Fate | None, str]] = {Fate.ADDED: "==>", Fate.REMOVED: "-.->", Fate.CHANGED: "-->", None: "-->"}
_STROKES: Final[Mapping[Fate, str]] = {
    Fate.ADDED: "stroke:#1a7f37,stroke-width:3px",
    Fate.REMOVED: "stroke:#cf222e,stroke-width:2px",
    Fate.CHANGED: "stroke:#0969da,stroke-width:3px",
}
_WORDS: Final[Mapping[Fate, str]] = {Fate.ADDED: "new", Fate.REMOVED: "removed", Fate.REPLACED: "restarts", Fate.CHANGED: "changed"}


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
    for fate, style in _CLASSES.items():
        members = [ids[place.name] for place in shown if place.fate is fate]
        lines += [f"  classDef {fate} {style}", f"  class {','.join(members)} {fate}"] if members else []
    for fate, stroke in _STROKES.items():
        numbers = [str(i) for i, link in enumerate(drawn) if link.fate is fate]
        lines += [f"  linkStyle {','.join(numbers)} {stroke}"] if numbers else []
    return "\n".join(lines), len(places) - len(shown)


def _box(identifier: str, place: Place) -> str:
    begin, end = _SHAPES.get(place.kind, ("[", "]"))
    below = [place.label] if place.label and place.kind != "adminer" else []
    below += [_WORDS[place.fate]] if place.fate else []
    return f'{identifier}{begin}"{"<br/>".join(label(text) for text in (place.name, *below))}"{end}'


def _shown(places: Sequence[Place], links: Sequence[Link]) -> list[Place]:
    """All, or, of very many, those of the change and their neighbours, those that change first."""
    if len(places) <= MOST_PLACES:
        return list(places)
    touched = {place.name for place in places if place.fate} | {end for link in links if link.fate for end in (link.begin, link.end)}
    near = {end for link in links if {link.begin, link.end} & touched for end in (link.begin, link.end)}
    order = [place for place in places if place.name in touched]
    order += [place for place in places if place.name in near - touched]
    kept = {place.name for place in order[:MOST_PLACES]}
    return [place for place in places if place.name in kept]
