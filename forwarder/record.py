"""What a destination has confirmed of a series: text in a metadata of that series, in the node's own database.

An image counts as confirmed by the UUID of its file, not by its SOP instance UID: one that was stored again has another file, may
have other content, and goes out again. Twelve characters of a hash stand for each: among a series' images, a false match is as likely
as one in 10^15.
"""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Collection, Iterable, Mapping
from dataclasses import astuple, dataclass, field
from typing import Any

from forwarder.orthanc import Image

_VERSION = 1
#: Characters of a mark: nine bytes in base 64.
_LENGTH = 12
_HALF = _LENGTH // 2


def mark_of(file: str, length: int = _LENGTH) -> str:
    """What stands in a record, in ``length`` characters, for an image: of the UUID of its file, or of another text."""
    return urlsafe_b64encode(hashlib.blake2b(file.encode(), digest_size=length * 3 // 4).digest()).decode()[:length]


def key_of(image: Image) -> str:
    """What stands for all versions of an image in ``Record.contents``."""
    return mark_of(image.id, _HALF)


@dataclass(frozen=True)
class Aside:
    """An image that is set aside."""

    image: str  #: its identifier in Orthanc
    reason: str  #: why, without a patient's data
    refused: bool  #: the destination refused it; otherwise it is not known whose fault it was
    tries: int  #: how often it was tried
    at: int  #: when it was last tried, seconds since 1970
    revision: str  #: the deployment of the destination that it was tried at


@dataclass
class Record:
    """The record of a series and a destination."""

    confirmed: set[str] = field(default_factory=set)  #: the marks of the images that the destination has confirmed
    aside: dict[str, Aside] = field(default_factory=dict)  #: those that are set aside, by mark
    #: when nothing was left to send: the series' last update, how many images it had, the digest of the link's rules
    closed: tuple[str, int, str] | None = None
    #: the marks of those that the destination has taken and not confirmed: it is asked for them again; they are not sent again
    stored: set[str] = field(default_factory=set)
    #: of a device outside the stack, the content that it took first of each image: half a mark of the MD5, by half a mark of
    #: Orthanc's identifier
    contents: dict[str, str] = field(default_factory=dict)
    #: the marks of confirmed images of which the device may have kept that first content: it confirms SOP instance UIDs, and to
    #: Orthanc the status 0x0111 (duplicate SOP instance) is success
    older: set[str] = field(default_factory=set)

    @classmethod
    def parse(cls, text: str | None) -> Record:
        """A record from its text. One that cannot be read is empty: everything is sent again, and nothing is lost."""
        if not text:
            return cls()
        try:
            said: dict[str, Any] = json.loads(text)
            if said["v"] != _VERSION:
                return cls()
            confirmed, stored, older = (set(_marks(said.get(key, ""))) for key in ("ok", "stored", "older"))
            aside = {mark: Aside(*values) for mark, values in said.get("aside", {}).items()}
            closed = said.get("closed")
            contents = {one[:_HALF]: one[_HALF:] for one in _marks(said.get("contents", ""))}
            return cls(confirmed, aside, (str(closed[0]), int(closed[1]), str(closed[2])) if closed else None, stored, contents, older)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return cls()

    def text(self) -> str:
        """The record as text, in a fixed order."""
        said: dict[str, Any] = {"v": _VERSION, "ok": "".join(sorted(self.confirmed))}
        if self.aside:
            said["aside"] = {mark: astuple(one) for mark, one in sorted(self.aside.items())}
        marks = {"stored": self.stored, "older": self.older, "contents": {image + content for image, content in self.contents.items()}}
        said.update({name: "".join(sorted(some)) for name, some in marks.items() if some})
        if self.closed:
            said["closed"] = list(self.closed)
        return json.dumps(said, separators=(",", ":"))

    @property
    def marks(self) -> set[str]:
        """The marks of all images that it names."""
        return self.confirmed | self.stored | self.aside.keys()

    def confirm(self, marks: Iterable[str]) -> None:
        """Note that the destination has confirmed images."""
        for mark in marks:
            self.confirmed.add(mark)
            self.stored.discard(mark)
            self.aside.pop(mark, None)

    def keep(self, marks: Iterable[str]) -> None:
        """Note that the destination has taken images, and not confirmed them."""
        for mark in marks:
            self.aside.pop(mark, None)
            if mark not in self.confirmed:
                self.stored.add(mark)

    def note_content(self, image: Image, md5: str) -> bool:
        """Note the content of an image that a device outside has taken. Returns whether it may have kept another one from before."""
        content = mark_of(md5, _HALF)
        return self.contents.setdefault(key_of(image), content) != content

    def taken_before(self, image: Image) -> bool:
        """Whether a device outside has taken this image, or another version of it."""
        return key_of(image) in self.contents

    def recall(self, image: Image, contents: Mapping[str, str]) -> None:
        """Take over what is known of an image whose series was made anew; ``contents`` as in a record."""
        key = key_of(image)
        if key in contents:
            self.contents.setdefault(key, contents[key])

    def take_back(self, images: Iterable[Image]) -> None:
        """Note that the destination has images no longer."""
        for image in images:
            mark = mark_of(image.file)
            self.confirmed.discard(mark)
            self.older.discard(mark)
            self.contents.pop(key_of(image), None)
        self.closed = None

    def forget_all_but(self, images: Collection[Image]) -> None:
        """Forget images that the series no longer holds."""
        marks, keys = {mark_of(image.file) for image in images}, {key_of(image) for image in images}
        self.confirmed &= marks
        self.stored &= marks
        self.older &= marks
        self.aside = {mark: one for mark, one in self.aside.items() if mark in marks}
        self.contents = {key: content for key, content in self.contents.items() if key in keys}


def _marks(text: str) -> list[str]:
    return [text[i : i + _LENGTH] for i in range(0, len(text), _LENGTH)]
