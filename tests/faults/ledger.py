"""What the senders were promised, and whether the archive keeps it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tests.faults.images import Image


@dataclass(frozen=True)
class Audit:
    """What became of the images that were acknowledged.

    Attributes:
        missing: Orthanc's identifiers of those that the archive does not have.
        wrong: of those whose data set there is another one than the newest that was acknowledged, or cannot be read.
    """

    missing: tuple[str, ...]
    wrong: tuple[str, ...]

    @property
    def lost(self) -> int:
        """How many the archive does not give back as they were sent."""
        return len(self.missing) + len(self.wrong)


@dataclass
class Ledger:
    """Of each image, what was acknowledged last. Safe for threads."""

    _md5: dict[str, str] = field(default_factory=dict)
    _uids: dict[str, str] = field(default_factory=dict)
    _at: list[float] = field(default_factory=list)
    _sent: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def sent(self, image: Image) -> None:
        """An image was sent; whether it was acknowledged is another question."""
        with self._lock:
            self._sent[image.orthanc] += 1

    def acknowledged(self, image: Image) -> None:
        with self._lock:
            self._md5[image.orthanc], self._uids[image.orthanc] = image.md5, image.uid
            self._at.append(time.monotonic())

    def __len__(self) -> int:
        return len(self._md5)

    def promised(self) -> dict[str, str]:
        """The MD5 of the data set of each image that was acknowledged, by Orthanc's identifier."""
        with self._lock:
            return dict(self._md5)

    def by_identifier(self, held: Mapping[str, str]) -> dict[str, str]:
        """What a device holds, by SOP instance UID, by Orthanc's identifier instead."""
        with self._lock:
            return {image: held[uid] for image, uid in self._uids.items() if uid in held}

    def acknowledgements(self, since: float, until: float) -> int:
        """How many there were in a time of time.monotonic()'s clock."""
        with self._lock:
            return sum(since <= at <= until for at in self._at)

    def repeated(self) -> int:
        """How often the senders sent an image once more, because they had no answer or were told to."""
        with self._lock:
            return self._sent.total() - len(self._sent)

    def audit(self, found: dict[str, str], only: Iterable[str]) -> Audit:
        """Compare some images with what an archive has: the MD5 of each data set, empty where it cannot be read."""
        promised = self.promised()
        promised = {image: promised[image] for image in only}
        missing = tuple(image for image in promised if image not in found)
        wrong = tuple(image for image, md5 in promised.items() if found.get(image, md5) != md5)
        return Audit(missing, wrong)
