"""What may still have to go to one destination: series, oldest first, and the images of those that are being worked on.

Memory only, and never more of it than a bounded number of series: what is forgotten here is found again by a sweep of the database.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from forwarder.orthanc import Image
from forwarder.record import Record
from forwarder.trouble import ASIDE_SECONDS, LONGEST_PAUSE, PATIENCE, TRIES_REFUSED, TRIES_UNCLEAR, Failure, Fault, pause_after

#: Series that are held at once; more are left to the next sweep.
CAPACITY = 10_000
#: One in so many batches is of the newest series, so that a new study does not wait for a long backlog.
_NEWEST_EVERY = 4


@dataclass(eq=False)
class Waiting:
    """An image that the destination has not confirmed.

    Attributes:
        image: the image.
        mark: what stands for it in the record.
        tries: how often it failed by itself.
        due: when it may be sent; on time.monotonic()'s clock, as every time here.
        reason: why it failed last.
        refused: the destination said that it does not want it.
        company: how many images at most may be sent with it, itself included: fewer after each batch that it was in and that ended
            early, until the one that ends it is found.
        stored: the destination has taken it, and has not confirmed it yet.
        asked: how often the destination was asked for it in vain since then.
        unnamed: how often of those it answered, and said nothing of this image.
    """

    image: Image
    mark: str
    tries: int = 0
    due: float = 0.0
    reason: str = ""
    refused: bool = False
    company: int = 1 << 30
    stored: bool = False
    asked: int = 0
    unnamed: int = 0

    @property
    def aside(self) -> bool:
        """Whether it had tries enough, and is tried again only now and then."""
        return self.tries >= (TRIES_REFUSED if self.refused else TRIES_UNCLEAR)

    @property
    def resting(self) -> bool:
        """Whether it need not be sent now: it is set aside, or the destination has it."""
        return self.aside or self.stored

    @property
    def asked_enough(self) -> bool:
        """Whether the destination said so often nothing of it that it is sent again the next time."""
        return self.unnamed + 1 >= PATIENCE

    def taken(self) -> None:
        """Note that the destination has taken it."""
        self.stored, self.asked, self.unnamed = True, 0, 0

    def asked_in_vain(self, now: float, *, answered: bool) -> None:
        """Note that the destination did not say whether it has it, and when it is asked again."""
        self.asked += 1
        self.unnamed += answered
        self.due = now + pause_after(self.tries + self.asked - 1)

    def failed(self, failure: Failure, now: float) -> None:
        """Note that it failed, and when it is due again."""
        self.stored = False
        self.tries += 1
        self.reason = failure.reason
        self.refused = failure.fault is Fault.IMAGE
        if not self.aside:
            self.due = now + pause_after(self.tries - 1)
        else:
            self.due = now + (ASIDE_SECONDS if self.refused else LONGEST_PAUSE)


@dataclass(eq=False)
class Entry:
    """A series that may hold something for the destination.

    Attributes:
        id: its identifier in Orthanc.
        since: when the oldest image that waits was stored, or the series last changed: ``20260131T120000``.
        estimate: how many images wait that are not set aside, where that was not looked at since the last one came.
        touched: how often something was stored in it; ``seen`` is that when it was last looked at.
        busy: a thread looks at it.
        not_before: when it may be looked at.
        close_at: when it may be closed, if nothing comes until then.
        known: its images that were looked at, by identifier; complete where ``whole``.
        waiting: those not confirmed, by mark: in flight, due or set aside. None before it was looked at.
        in_flight: the marks of those that are being sent or confirmed.
        record: what the destination has confirmed.
        unwritten: the record changed and could not be written.
        study_uid, series_uid: for a query.
        last_update: the series' last update as it was last seen.
        quiet_since: when that was first seen.
        settled: nothing can have been stored in it since all its images were read.
        delivered: images confirmed since it was last closed.
        opened: when it was first touched.
        confirmed_at: when an image of it was last confirmed.
    """

    id: str
    since: str
    estimate: int = 0
    touched: int = 1
    seen: int = 0
    busy: bool = False
    not_before: float = 0.0
    close_at: float = math.inf
    known: dict[str, Image] = field(default_factory=dict)
    whole: bool = False
    waiting: dict[str, Waiting] | None = None
    in_flight: set[str] = field(default_factory=set)
    record: Record = field(default_factory=Record)
    unwritten: bool = False
    study_uid: str = ""
    series_uid: str = ""
    last_update: str = ""
    quiet_since: float = 0.0
    settled: bool = False
    delivered: int = 0
    opened: float = 0.0
    confirmed_at: float = 0.0

    @property
    def stale(self) -> bool:
        """Whether it has to be looked at."""
        return self.waiting is None or self.seen != self.touched

    @property
    def count(self) -> int:
        """How many images wait that are neither in flight, nor set aside, nor stored at the destination."""
        if self.waiting is None or self.seen != self.touched:
            return max(0, self.estimate - len(self.in_flight))
        return sum(mark not in self.in_flight and not one.resting for mark, one in self.waiting.items())

    @property
    def oldest(self) -> str:
        """When the oldest image was stored that the destination has not confirmed; empty where there is none, or all are set aside."""
        if self.waiting is None:
            return self.since
        return min((one.image.received for one in self.waiting.values() if not one.aside), default="")

    def to_look_at(self, now: float) -> bool:
        """Whether it has to be looked at, and may be."""
        return (self.stale or self.close_at <= now) and self.not_before <= now

    def due(self, now: float, most: int, *, careful: bool, asking: bool = True) -> list[Waiting]:
        """What may be sent together now: images of one transfer syntax; those that may be to blame for a failure in small company.

        Or what is asked for together, where nothing is to be sent: images that the destination has taken and not confirmed.

        Args:
            now: the time.
            most: how many.
            careful: one alone, whatever it is.
            asking: whether it is of use to ask for images.
        """
        free = [one for mark, one in (self.waiting or {}).items() if mark not in self.in_flight and one.due <= now]
        if not free:
            return []
        to_send = [one for one in free if not one.stored]
        if not to_send:
            return free[:most] if asking else []
        first = min(to_send, key=lambda one: (one.tries, one.company))
        kind = first.tries, first.company, first.image.syntax
        alike = [one for one in to_send if (one.tries, one.company, one.image.syntax) == kind]
        return alike[: 1 if careful else min(most, first.company)]


#: What to do next: images to send, or none where their series has to be looked at.
Picked = tuple[Entry, list[Waiting]]


@dataclass(eq=False)
class Batch:
    """Images that are sent together.

    Attributes:
        entry: their series.
        images: the images.
        transaction: the UID of the storage commitment transaction.
        asked: how often a report was asked for.
        deadline: when it is asked for again.
    """

    entry: Entry
    images: list[Waiting]
    transaction: str = ""
    asked: int = 1
    deadline: float = 0.0

    @property
    def stored(self) -> bool:
        """Whether the destination has taken its images."""
        return bool(self.images) and all(one.stored for one in self.images)


class Backlog:
    """The entries of one destination. Not safe for threads: the link's lock is held around each call."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._entries: dict[str, Entry] = {}
        self._order: list[tuple[str, str]] = []
        self._capacity = capacity
        self._picks = 0
        #: Something was not taken in for want of room: a sweep has to look again.
        self.overflowed = False

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    @property
    def has_room(self) -> bool:
        """Whether a sweep that was ended for want of room may go on."""
        return len(self._entries) < self._capacity // 2

    def get(self, series: str) -> Entry | None:
        """The entry of a series, if there is one."""
        return self._entries.get(series)

    def touch(self, series: str, since: str, estimate: int, now: float) -> bool:
        """Something may wait in a series.

        Returns:
            False where there is no room for it.
        """
        entry = self._entries.get(series)
        if entry is not None:
            entry.touched += 1
            entry.estimate = estimate
            return True
        if len(self._entries) >= self._capacity:
            self.overflowed = True
            return False
        self._entries[series] = Entry(series, since, estimate, opened=now)
        bisect.insort(self._order, (since, series))
        return True

    def drop(self, entry: Entry) -> None:
        """Nothing waits in a series any more."""
        if self._entries.pop(entry.id, None) is not None:
            del self._order[bisect.bisect_left(self._order, (entry.since, entry.id))]

    def pick(self, now: float, most: int, *, careful: bool, asking: bool = True) -> Picked | None:
        """What to do next: of the oldest series that is ready, and each fourth time of the newest."""
        self._picks += 1
        newest_first = self._picks % _NEWEST_EVERY == 0
        for _, series in reversed(self._order) if newest_first else self._order:
            entry = self._entries[series]
            if entry.busy:
                continue
            if entry.to_look_at(now):
                return entry, []
            if not entry.waiting or len(entry.in_flight) == len(entry.waiting):
                continue
            if batch := entry.due(now, most, careful=careful, asking=asking):
                return entry, batch
        return None

    def pick_ahead(self, now: float, ready: int) -> Entry | None:
        """The oldest series to be looked at before a sender comes to it, as long as fewer than so many of those before it are ready."""
        for _, series in self._order:
            entry = self._entries[series]
            if entry.busy:
                continue
            if entry.to_look_at(now):
                return entry
            ready -= bool(entry.due(now, 1, careful=False, asking=False))
            if ready <= 0:
                break
        return None
