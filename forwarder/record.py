"""What a destination has confirmed of a series: text in a metadata of that series, in the node's own database.

An image counts as confirmed by the UUID of its file, not by its SOP instance UID: one that was stored again has another file, may
have other content, and goes out again. Twelve characters of a hash stand for each: among a series' images, a false match is as likely
as one in 10^15.
"""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

_VERSION = 1
_HASH_BYTES = 9
_LENGTH = 12  # of nine bytes in base 64


def mark_of(file: str) -> str:
    """What stands for an image in a record.

    Args:
        file: the UUID of its file.
    """
    return urlsafe_b64encode(hashlib.blake2b(file.encode(), digest_size=_HASH_BYTES).digest()).decode()


@dataclass(frozen=True)
class Aside:
    """An image that is set aside.

    Attributes:
        image: its identifier in Orthanc.
        reason: why, without a patient's data.
        refused: the destination said that it does not want it; otherwise it is not known whose fault it was.
        tries: how often it was tried.
        at: when it was last tried, seconds since 1970.
        revision: the deployment of the destination that it was tried at.
    """

    image: str
    reason: str
    refused: bool
    tries: int
    at: int
    revision: str


@dataclass
class Record:
    """The record of a series and a destination.

    Attributes:
        confirmed: the marks of the images that the destination has confirmed.
        aside: those that are set aside, by mark.
        closed: when all was confirmed: the series' last update, how many images it had, the digest of the link's rules.
        stored: the marks of those that the destination has taken and not confirmed: it is asked for them again; they are not sent again.
    """

    confirmed: set[str] = field(default_factory=set)
    aside: dict[str, Aside] = field(default_factory=dict)
    closed: tuple[str, int, str] | None = None
    stored: set[str] = field(default_factory=set)

    @classmethod
    def parse(cls, text: str | None) -> Record:
        """A record from its text. One that cannot be read is empty: everything is sent again, and nothing is lost."""
        if not text:
            return cls()
        try:
            said: dict[str, Any] = json.loads(text)
            if said["v"] != _VERSION:
                return cls()
            confirmed, stored = _marks(said["ok"]), _marks(said.get("stored", ""))
            aside = {mark: Aside(*values) for mark, values in said.get("aside", {}).items()}
            closed = said.get("closed")
            return cls(confirmed, aside, (str(closed[0]), int(closed[1]), str(closed[2])) if closed else None, stored)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return cls()

    def text(self) -> str:
        """The record as text, in a fixed order."""
        said: dict[str, Any] = {"v": _VERSION, "ok": "".join(sorted(self.confirmed))}
        if self.aside:
            said["aside"] = {
                mark: [one.image, one.reason, one.refused, one.tries, one.at, one.revision] for mark, one in sorted(self.aside.items())
            }
        if self.stored:
            said["stored"] = "".join(sorted(self.stored))
        if self.closed:
            said["closed"] = list(self.closed)
        return json.dumps(said, separators=(",", ":"))

    def is_closed_for(self, last_update: str, count: int, rules: str) -> bool:
        """Whether nothing was stored in the series, and no rule changed, since all was confirmed."""
        return self.closed == (last_update, count, rules) and not self.aside and not self.stored

    def confirm(self, marks: Iterable[str]) -> None:
        """The destination has confirmed images."""
        for mark in marks:
            self.confirmed.add(mark)
            self.stored.discard(mark)
            self.aside.pop(mark, None)

    def forget_all_but(self, marks: set[str]) -> None:
        """Images that the series no longer holds."""
        self.confirmed &= marks
        self.stored &= marks
        for mark in self.aside.keys() - marks:
            del self.aside[mark]


def _marks(text: str) -> set[str]:
    return {text[i : i + _LENGTH] for i in range(0, len(text), _LENGTH)}
