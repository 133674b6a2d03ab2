"""What a report says. Plain data, in an order that does not change from run to run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from ops.preview.steps import Violation


@dataclass(frozen=True)
class Code:
    """A name or a value that comes from the stack file, Pulumi or Docker: shown as it is, and never read as markup."""

    text: str


class Words(tuple[str | Code, ...]):
    """A sentence: our own words, and what is quoted in them."""

    __slots__ = ()

    def __str__(self) -> str:
        return "".join(piece.text if isinstance(piece, Code) else piece for piece in self)


def say(*pieces: str | Code | Words) -> Words:
    """A sentence from its pieces."""
    flat: list[str | Code] = []
    for piece in pieces:
        flat += [piece] if isinstance(piece, (str, Code)) else piece
    return Words(flat)


#: No sentence.
NO_WORDS: Final = Words()

#: Longer enumerations are cut: a sentence is to be read.
_MOST_NAMES = 8


def listed(names: Iterable[str], most: int = _MOST_NAMES) -> Words:
    """Names as an enumeration; of very many, the first ones and their number."""
    found = list(names)
    pieces: list[str | Code] = []
    for name in found[:most]:
        pieces += [", ", Code(name)] if pieces else [Code(name)]
    return Words([*pieces, f" and {len(found) - most} more"] if len(found) > most else pieces)


class Level(StrEnum):
    """How much a reviewer has to worry, from the least."""

    NOTHING = "nothing"
    QUIET = "quiet"
    DOWNTIME = "downtime"
    DATA = "data"
    FAILED = "failed"


class Fate(StrEnum):
    """What becomes of a container, a volume, a link."""

    ADDED = "added"
    CHANGED = "changed"
    REPLACED = "replaced"
    REMOVED = "removed"


@dataclass(frozen=True)
class DataAtRisk:
    """A data volume that would be deleted or replaced.

    Attributes:
        volume: its name on the engine.
        holds: what is in it.
        fate: removed or replaced.
        protected: Pulumi refuses to delete it.
        retained: it stays on the engine.
        words: what that means.
    """

    volume: str
    holds: Words
    fate: Fate
    protected: bool
    retained: bool
    words: Words

    @property
    def lost(self) -> bool:
        """Whether its data would be gone after an update."""
        return not self.protected and not self.retained


@dataclass(frozen=True)
class Downtime:
    """A node whose ports go down.

    Attributes:
        node: its name.
        aet: its AE title until now.
        dicom: where its DICOM port is published until now, ``127.0.0.1:4242``; empty where that is not known.
        web: the same for its web interface.
        for_good: whether it does not come back there.
        words: for how long, and where it is found afterwards.
        why: the reasons.
        grace: seconds that its container gets to end what it does; None where that is not known.
    """

    node: str
    aet: str
    dicom: str
    web: str
    for_good: bool
    words: Words
    why: tuple[Words, ...]
    grace: int | None = None


@dataclass(frozen=True)
class Change:
    """One thing that changes.

    Attributes:
        path: what, in the stack file's words, or an option's path in Orthanc's configuration.
        old: its value before, as JSON, or None where there was none.
        new: its value after; None where there is none.
        note: what else is to be known.
        raw: whether it is told in Docker's or Pulumi's words, because the report has none of its own for it.
    """

    path: str
    old: str | None
    new: str | None
    note: Words = NO_WORDS
    raw: bool = False


@dataclass(frozen=True)
class Part:
    """What changes of one part of the stack.

    Attributes:
        name: its name: a node's, ``server``; a forwarder's, ``client-forwarder``; ``db``, ``adminer``, or ``stack`` for what is of none.
        kind: node, forwarder, database, Adminer, stack.
        fate: what becomes of it; None where its own container stays.
        changes: what changes of it.
    """

    name: str
    kind: str
    fate: Fate | None
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Reason:
    """Why a container is replaced.

    Attributes:
        container: its name in the stack.
        because: the reasons.
        parts: the other parts of the stack whose changes are behind it, which are links of a chain.
    """

    container: str
    because: tuple[Words, ...]
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Link:
    """An arrow of the picture: a link, what a device may ask, the way to an index."""

    begin: str
    end: str
    label: str
    fate: Fate | None


@dataclass(frozen=True)
class Place:
    """A box of the picture.

    Attributes:
        name: its name.
        kind: node, device, database, adminer.
        label: its AE title or what it is, below its name.
        fate: what becomes of it.
    """

    name: str
    kind: str
    label: str
    fate: Fate | None


@dataclass(frozen=True)
class SecretFile:
    """A container one of whose files changes, and no public setting says why.

    Attributes:
        container: its name in the stack.
        secrets: the names of those secrets that can be behind it.
    """

    container: str
    secrets: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """All of a report.

    Attributes:
        stack: the stack's name.
        level: how much there is to worry about.
        verdict: the report in one line.
        errors: why the preview failed.
        warnings: what the program warns of.
        data: the volumes at risk.
        cautions: what else endangers data.
        downtime: the nodes that go down.
        waits: what is interrupted without a node going down.
        parts: the changes, part by part.
        reasons: why containers are replaced.
        containers: each container that does not stay as it is, with what becomes of it.
        links: the links that come, go or change, and all others.
        places: the picture's boxes.
        secrets: the secrets that change, as far as it can be known.
        new_secrets: the secrets that the stack needs from now on.
        unused_secrets: those that it needs no more.
        packs: the policy packs that ran; None where it is not known.
        broken: the rules that are broken.
        raw: what the report has no words for, with all that Pulumi says of it.
        unknown: what a preview cannot know.
    """

    stack: str
    level: Level
    verdict: Words
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    data: tuple[DataAtRisk, ...] = ()
    cautions: tuple[Words, ...] = ()
    downtime: tuple[Downtime, ...] = ()
    waits: tuple[Words, ...] = ()
    parts: tuple[Part, ...] = ()
    reasons: tuple[Reason, ...] = ()
    containers: tuple[tuple[str, Fate], ...] = ()
    links: tuple[Link, ...] = ()
    places: tuple[Place, ...] = ()
    secrets: tuple[SecretFile, ...] = ()
    new_secrets: tuple[str, ...] = ()
    unused_secrets: tuple[str, ...] = ()
    packs: tuple[str, ...] | None = None
    broken: tuple[Violation, ...] = ()
    raw: tuple[Change, ...] = ()
    unknown: tuple[Words, ...] = ()

    @property
    def restarted(self) -> set[str]:
        """The containers that were there and are stopped: replaced or removed."""
        return {name for name, fate in self.containers if fate in (Fate.REPLACED, Fate.REMOVED)}


def as_json(value: Any) -> Any:
    """A report as plain JSON: sentences become text, and every key is there."""
    if isinstance(value, Code):
        return value.text
    if isinstance(value, Words):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [as_json(inner) for inner in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: as_json(getattr(value, name)) for name in sorted(value.__dataclass_fields__)}
    return str(value) if isinstance(value, StrEnum) else value
