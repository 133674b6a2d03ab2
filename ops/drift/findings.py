"""What drifted, in words."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

#: A finding covers all that Pulumi's refresh says of its resource.
EVERYTHING: Final = "*"

#: The order of the report. Volumes are their node's or the database's.
_ORDER: Final = ("node", "database", "adminer", "network", "image", "unknown")

_LONGEST = 80


@dataclass(frozen=True)
class Part:
    """A part of a stack, as its stack file knows it.

    Attributes:
        of: node, database, adminer, network, image, or unknown for what the stack did not make.
        name: the node's name; the network's without the stack's prefix; the image's.
    """

    of: str
    name: str = ""

    @property
    def title(self) -> str:
        """The part, for a heading."""
        title = {"database": "The database", "adminer": "Adminer", "unknown": "Not made by this stack"}.get(self.of, self.of.capitalize())
        return f"{title} {code(self.name)}" if self.name else title

    @property
    def order(self) -> tuple[int, str]:
        """Where it comes in a report."""
        return _ORDER.index(self.of), self.name


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it was deployed.

    Attributes:
        part: of what.
        change: what kind of change: stopped, removed, port, …; a fixed word for programs.
        said: what is known of it, a sentence in Markdown. Holds no content of a file and no value of a variable.
        thing: the engine's name of the container, network, volume or image.
        data: whether patients' data or an index is gone or somewhere else.
        urn: the resource in Pulumi's state; empty where it has none.
        covers: the resource's properties that Pulumi's refresh would show for this, by their names there.
        replace: whether a refresh does not see it, so that the container has to be replaced to put it right.
        by_hand: docker commands that must come first.
    """

    part: Part
    change: str
    said: str
    thing: str
    data: bool = False
    urn: str = ""
    covers: frozenset[str] = field(default_factory=frozenset)
    replace: bool = False
    by_hand: tuple[str, ...] = ()

    @property
    def order(self) -> tuple[object, ...]:
        """Where it comes in a report."""
        return self.part.order, not self.data, self.thing, self.change, self.said


def code(text: object) -> str:
    """Text from the engine, or from a file that somebody edited, as code in Markdown: it cannot end, nor be anything else there."""
    plain = re.sub(r"[^\x20-\x7e\xa0-\uffff]+", " ", str(text)).replace("`", "'").strip()
    return f"`{plain if len(plain) <= _LONGEST else plain[: _LONGEST - 1] + '…'}`" if plain else "nothing"


def listed(texts: list[str], most: int = 10) -> str:
    """Some texts as code, in a row; of many, how many more there are."""
    shown = ", ".join(code(text) for text in texts[:most])
    return f"{shown} and {len(texts) - most} more" if len(texts) > most else shown
