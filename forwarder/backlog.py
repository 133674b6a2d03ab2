"""What may still have to go to one destination: its series, oldest first, and the images of series that are worked on.

Memory only. A series in which nothing is to be sent now rests: of it, only counts are kept, and the time when it is looked at again. What
does not fit is found again by a sweep of the database.
"""

from __future__ import annotations

import bisect
import heapq
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from forwarder.orthanc import Image
from forwarder.record import Record
from forwarder.trouble import CUTS, PATIENCE, TRIES_REFUSED, TRIES_UNCLEAR, Failure, Fault, ask_again_after, pause_after, rest_after

#: Series that are held at once; more are left to the next sweep.
CAPACITY = 10_000
#: One in so many batches is of the newest series, so that a new study does not wait for a long backlog.
_NEWEST_EVERY = 4
#: Images and bytes that go in one association: long enough that setting it up costs little, short enough that a confirmation comes soon.
#: Orthanc tells the progress of a job in whole percent: with more images, it would not tell which one failed.
BATCH, BATCH_BYTES = 100, 64 << 20


@dataclass(eq=False)
class Waiting:
    """An image that the destination has not confirmed."""

    image: Image  #: the image
    mark: str  #: its mark in the record (``mark_of``)
    tries: int = 0  #: how often it failed by itself
    due: float = 0.0  #: when it may be sent; on time.monotonic()'s clock, as every time here
    reason: str = ""  #: why it failed last
    refused: bool = False  #: the destination refused it
    cuts: int = 0  #: how often the association broke at it, and ``cut_at`` how many transfers had succeeded then
    cut_at: int = 0
    stored: bool = False  #: the destination has taken it, and has not confirmed it yet
    asked: int = 0  #: how often the destination was asked for it in vain since then
    unnamed: int = 0  #: how many of those times an answer came that did not name this image

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
        """Whether it is sent again if the next answer does not name it either."""
        return self.unnamed + 1 >= PATIENCE

    def taken(self) -> None:
        """Note that the destination has taken it."""
        self.stored, self.asked, self.unnamed = True, 0, 0

    def asked_in_vain(self, now: float, *, answered: bool) -> None:
        """Note that the destination did not say whether it has it, and when it is asked again."""
        self.due = now + ask_again_after(self.tries + self.asked)
        self.asked += 1
        self.unnamed += answered

    def failed(self, failure: Failure, now: float) -> None:
        """Note that it failed, and when it is due again."""
        self.stored = False
        self.tries += 1
        self.reason = failure.reason
        self.refused = failure.fault is Fault.IMAGE
        self.due = now + (rest_after(self.tries, self.reason, refused=self.refused) if self.aside else pause_after(self.tries - 1))

    def cut(self, transfers: int) -> bool:
        """Note that the association broke at it, after this many transfers to the destination that succeeded as a whole.

        Returns whether it is to blame: this happens again and again, and others succeed meanwhile.
        """
        self.cut_at = self.cut_at if self.cuts else transfers
        self.cuts += 1
        return self.cuts >= CUTS and transfers > self.cut_at


@dataclass(eq=False)
class Entry:
    """A series that may hold something for the destination."""

    id: str  #: its identifier in Orthanc
    since: str  #: when the oldest image that waits was stored, or the series last changed: ``20260131T120000``
    estimate: int = 0  #: about how many images wait that are not set aside; it counts while the series has to be looked at
    stale: bool = True  #: it has to be looked at: something may have changed since the last look began
    busy: bool = False  #: a thread looks at it
    not_before: float = 0.0  #: when it may be looked at
    close_at: float = math.inf  #: when it may be closed, if nothing comes until then
    known: dict[str, Image] = field(default_factory=dict)  #: its images that were looked at, by identifier; complete where ``whole``
    whole: bool = False
    #: those not confirmed, by mark: in flight, due or set aside. None before it was looked at, and while it rests.
    waiting: dict[str, Waiting] | None = None
    in_flight: dict[str, Batch] = field(default_factory=dict)  #: by mark, the batch by which it is being sent or confirmed
    record: Record = field(default_factory=Record)  #: what the destination has confirmed
    unwritten: bool = False  #: the record changed, and the database does not have it yet
    tags: Mapping[str, str] = field(default_factory=dict)  #: its main DICOM tags
    last_update: str = ""  #: the series' last update as it was last seen
    quiet_since: float = 0.0  #: when that was first seen
    settled: bool = False  #: nothing can have been stored in it since all its images were read
    delivered: int = 0  #: images confirmed since it was last closed
    opened: float = 0.0  #: when it was first touched
    confirmed_at: float = 0.0  #: when an image of it was last confirmed
    #: while it rests, how many images are set aside, by reason; under no reason, those that are stored and not confirmed
    rests: Counter[str] = field(default_factory=Counter)
    asked: int = 0  #: how often the destination was asked in vain for those

    @property
    def free(self) -> list[Waiting]:
        """The images that wait and are not in flight."""
        return [one for mark, one in (self.waiting or {}).items() if mark not in self.in_flight]

    @property
    def count(self) -> int:
        """How many images wait that are neither in flight, nor set aside, nor stored at the destination."""
        if self.stale or self.busy:
            return max(0, self.estimate - len(self.in_flight))
        return sum(not one.resting for one in self.free)

    @property
    def resting(self) -> Counter[str]:
        """How many images are set aside, by reason; under no reason, those that are stored and not confirmed."""
        if self.waiting is None:
            return self.rests
        return Counter("" if one.stored else one.reason for one in self.free if one.resting)

    @property
    def oldest(self) -> str:
        """When the oldest image was stored that the destination has not confirmed; empty where there is none, or all are set aside."""
        if self.waiting is None:
            return self.since if not self.rests or self.rests[""] else ""
        return min((one.image.received for one in self.waiting.values() if not one.aside), default="")

    def due(self, now: float, *, careful: bool, asking: bool = True) -> list[Waiting]:
        """What may be sent together now: images of one transfer syntax; alone those that failed before, or if ``careful``.

        Or what is asked for together, where nothing is to be sent, if ``asking`` is of use: images that the destination has taken and not
        confirmed.
        """
        free = self.free
        to_send = [one for one in free if one.due <= now and not one.stored]
        if not to_send:
            # All that are stored, also those that are not due yet: one request asks for them together. Those that are due come first.
            stored = sorted((one for one in free if one.stored), key=lambda one: one.due)
            return stored[:BATCH] if asking and stored and stored[0].due <= now else []
        first = min(to_send, key=lambda one: (one.cuts, one.tries))
        if careful or first.cuts or first.tries:
            return [first]
        batch, size = list[Waiting](), 0
        for one in to_send:
            if not (one.cuts or one.tries) and one.image.syntax == first.image.syntax:
                size += one.image.size
                if batch and (size > BATCH_BYTES or len(batch) == BATCH):
                    break
                batch.append(one)
        return batch


@dataclass(eq=False)
class Batch:
    """Images that are sent together, and then asked for together; none where their series has to be looked at."""

    entry: Entry  #: their series
    images: list[Waiting]  #: the images
    transaction: str = ""  #: the UID of the storage commitment transaction
    deadline: float = 0.0  #: when its report is late; where it is late, when it is looked for no more

    @property
    def stored(self) -> bool:
        """Whether the destination has taken its images."""
        return bool(self.images) and all(one.stored for one in self.images)


class Backlog:
    """The entries of one destination. Not safe for threads: the link's lock is held around each call.

    Attributes:
        overflowed: something was not taken in for want of room: a sweep has to look again.
        elsewhere: the resting images of series that are not held here, counted as in ``Entry.rests``.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._entries: dict[str, Entry] = {}
        #: Those that do not rest, by age; those that do, by the time when they are looked at again.
        self._order: list[tuple[str, str]] = []
        self._resting: dict[str, float] = {}
        self._wakes: list[tuple[float, str]] = []
        self._capacity = capacity
        self._picks = 0
        self.overflowed = False
        self.elsewhere = Counter[str]()
        self._swept: Counter[str] | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    @property
    def has_room(self) -> bool:
        """Whether a sweep that was ended for want of room may go on."""
        return len(self._order) < self._capacity // 2

    def get(self, series: str) -> Entry | None:
        """The entry of a series, if there is one."""
        return self._entries.get(series)

    def touch(self, series: str, since: str, estimate: int, now: float, *, new: bool = True) -> bool:
        """Take in a series in which something may wait. Returns False where there is no room for it.

        Args:
            series, since, estimate: as in its entry.
            now: the time.
            new: an image has just come: without room, it is taken in for a series that waits, too, which the next sweep finds again;
                otherwise only for one that rests.
        """
        entry = self._entries.get(series)
        if entry is None:
            if len(self._entries) >= self._capacity and not self._evict(new=new):
                self.overflowed = True
                return False
            entry = self._entries[series] = Entry(series, since, opened=now)
            bisect.insort(self._order, (since, series))
        self._wake(entry)
        entry.stale, entry.estimate = True, estimate
        return True

    def rest(self, series: str, since: str, rests: Mapping[str, int], until: float) -> None:
        """Let a series rest until then: nothing of it is to be sent. What was read of its images is forgotten."""
        entry = self._entries.get(series)
        if entry is None:
            if len(self._entries) >= self._capacity:
                self.note_elsewhere(rests)
                return
            entry = self._entries[series] = Entry(series, since)
        elif series not in self._resting:
            self._remove(entry)
        entry.waiting, entry.known, entry.record, entry.rests, entry.estimate, entry.stale = None, {}, Record(), Counter(rests), 0, True
        self._resting[series] = until
        heapq.heappush(self._wakes, (until, series))

    def begin_sweep(self) -> None:
        """Begin to count anew what rests in series that are not held: every series will be looked at."""
        self.overflowed, self._swept = False, Counter()

    def end_sweep(self, seen: Collection[str]) -> None:
        """Take over that count: every series was looked at. One that rests and was not seen is gone from the node."""
        for series in self._resting.keys() - seen:
            self.drop(self._entries[series])
        self.elsewhere, self._swept = self.elsewhere if self._swept is None else self._swept, None

    def note_elsewhere(self, counts: Mapping[str, int]) -> None:
        """Count what rests in a series that is not held; during a sweep, in the new count."""
        (self.elsewhere if self._swept is None else self._swept).update(counts)

    def wake_all(self) -> None:
        """Wake every series that rests: it is looked at."""
        for series in list(self._resting):
            self._wake(self._entries[series])

    def drop(self, entry: Entry) -> None:
        """Forget a series: nothing waits in it any more."""
        if self._entries.pop(entry.id, None) is not None and self._resting.pop(entry.id, None) is None:
            self._remove(entry)

    def _remove(self, entry: Entry) -> None:
        del self._order[bisect.bisect_left(self._order, (entry.since, entry.id))]

    def _wake(self, entry: Entry) -> None:
        if self._resting.pop(entry.id, None) is not None:
            bisect.insort(self._order, (entry.since, entry.id))

    def _evict(self, *, new: bool) -> bool:
        """Make room: forget a series that rests or, for a new image, the newest that was not looked at. False where there is neither."""
        if self._resting:
            entry = self._entries.pop(next(reversed(self._resting)))
            del self._resting[entry.id]
            self.note_elsewhere(entry.rests)
            return True
        for _, series in reversed(self._order) if new else ():
            entry = self._entries[series]
            if entry.waiting is None and not (entry.busy or entry.in_flight):
                self.drop(entry)
                self.overflowed = True
                return True
        return False

    def pick(self, now: float, *, careful: bool = False, asking: bool = True, ahead: int = 0) -> Batch | None:
        """Choose what to do next: something of the oldest series that is ready, and each fourth time of the newest.

        Args:
            now: the time.
            careful: send one image alone.
            asking: whether it is of use to ask for images that were taken and not confirmed.
            ahead: only look at a series, before a sender comes to it, while fewer than so many of those before it have something to send.
        """
        while self._wakes and self._wakes[0][0] <= now:
            until, series = heapq.heappop(self._wakes)
            if self._resting.get(series) == until:
                self._wake(self._entries[series])
        self._picks, left = self._picks + (not ahead), ahead
        newest_first = not ahead and self._picks % _NEWEST_EVERY == 0
        broken: Batch | None = None  # an image at which associations broke: after all others, which may get through
        for _, series in reversed(self._order) if newest_first else self._order:
            entry = self._entries[series]
            if entry.busy:
                continue
            if (entry.stale or entry.close_at <= now) and entry.not_before <= now:
                return Batch(entry, [])
            if not entry.waiting or len(entry.in_flight) == len(entry.waiting):
                continue
            images = entry.due(now, careful=careful, asking=asking and not ahead)
            if ahead:
                left -= bool(images)
                if left <= 0:
                    break
            elif images and not images[0].cuts:
                return Batch(entry, images)
            elif images:
                broken = broken or Batch(entry, images)
        return broken
