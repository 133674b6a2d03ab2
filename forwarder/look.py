"""Finds what of a series one destination has not confirmed; closes the record when nothing is left to send."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from forwarder import say
from forwarder.backlog import Batch, Entry, Waiting
from forwarder.ledger import Ledger
from forwarder.orthanc import Image, Orthanc, Series, epoch, timestamp
from forwarder.record import Aside, Record, key_of, mark_of
from forwarder.trouble import LOOP, LOOP_SECONDS, TRIES_UNCLEAR, rest_after

#: Seconds without a new image before a series counts as delivered: Orthanc writes its last update in whole seconds, so that within
#: one of them nothing tells an image that came later.
_QUIET = 2.0
#: The same by the node's clock, which may be wrong by some seconds.
_SETTLED = 30.0
#: Of a sender's time, at most one in so many parts goes into looking at one series again and again.
_SHARE = 5
#: Seconds until a study is looked at again that lacks what a rule asks for, while images of it may still come.
_UNTIL_STABLE = 5.0
#: A series may rest when the destination was asked so often in vain for each of its images: the pauses are minutes then.
_ASKED_OFTEN = 8
_STUDY = "StudyDescription"

#: Called with a series that was closed.
OnClosed = Callable[[Series], None]


class Looker:
    """Looks at series for one destination."""

    def __init__(self, ledger: Ledger, orthanc: Orthanc, on_closed: OnClosed) -> None:
        self._ledger = ledger
        self._orthanc = orthanc
        self._on_closed = on_closed

    def consider(self, series: Series, *, new: bool = True) -> set[str] | None:
        """Take in a series that may hold something new: an image has just come (``new``), or a sweep came by.

        Returns the marks of the images that its record speaks of; None where something in it is for this destination and not confirmed.
        """
        rules, record = self._ledger.config.rules, self._ledger.record_of(series)
        if not rules.needs_study and not rules.allow_series(series.tags):
            return record.marks
        rests, until = Counter[str](), 0.0
        if series.last_update and record.closed == self._ledger.state_of(series):
            rests, until = self._rests_of(record)
        with self._ledger.changed:
            if record.older:
                self._ledger.note_older(series.id, len(record.older))
            if until and not rests:
                return record.marks
            self._ledger.seen.add(series.id)
            if until <= time.time():
                left = max(0, len(series.images) - len(record.marks))
                self._ledger.backlog.touch(series.id, series.last_update or timestamp(), left, time.monotonic(), new=new)
                self._ledger.changed.notify_all()
            elif self._ledger.backlog.get(series.id) is None:
                self._ledger.backlog.rest(series.id, series.last_update, rests, until - time.time() + time.monotonic())
        return None

    def _rests_of(self, record: Record) -> tuple[Counter[str], float]:
        """What of a record rests, as in ``Entry.rests``, and until when, in seconds since 1970."""
        rests = Counter(one.reason for one in record.aside.values())
        until = min((self._rests_until(one) for one in record.aside.values()), default=float("inf"))
        if record.stored:
            now = time.monotonic()
            when = self._ledger.offers.from_when(now)
            rests[""], until = len(record.stored), min(until, when - now + time.time()) if when else 0.0
        return rests, until

    def _rests_until(self, one: Aside) -> float:
        """When an image that is set aside is tried again, in seconds since 1970; 0 for at once."""
        if one.revision != self._ledger.config.revision or one.at <= self._ledger.retried_at:
            return 0.0
        return one.at + rest_after(one.tries, one.reason, refused=one.refused)

    def goes(self, image: Image, tags: Mapping[str, str]) -> bool:
        """Whether an image of a series with these tags goes to the destination. What a device outside has sent does not go back to it."""
        config = self._ledger.config
        return config.rules.allow_image(image, tags) and not (config.outside and config.aet and image.calling_aet == config.aet)

    def _waiting(self, entry: Entry, image: Image, mark: str) -> Waiting:
        """An image that waits, as its series' record has it: stored, set aside, or new. With the lock held."""
        record, revision = entry.record, self._ledger.config.revision
        if mark in record.stored:
            return Waiting(image, mark, stored=True, asked=entry.asked)
        aside = record.aside.get(mark)
        if aside is None or aside.revision != revision:
            at = self._ledger.resent.get(image.id, 0.0)
            if at + LOOP_SECONDS <= time.time():
                return Waiting(image, mark)
            aside = record.aside[mark] = Aside(image.id, LOOP, False, TRIES_UNCLEAR, int(at), revision)
            entry.unwritten = True
        due = time.monotonic() + max(0.0, self._rests_until(aside) - time.time())
        return Waiting(image, mark, aside.tries, due, aside.reason, aside.refused)

    def tags_of(self, series: Series) -> tuple[Mapping[str, str], bool, bool]:
        """What the rules judge a series by: its main DICOM tags and those of its study; whether one of these is missing that the rules ask
        for; whether images of the study may still come.
        """
        rules = self._ledger.config.rules
        study, stable = self._orthanc.study(series.study) if rules.needs_study else ({}, True)
        return {**study, **series.tags}, rules.undecided(study), not stable

    def look_at(self, batch: Batch) -> None:
        """Fill an entry that was picked with what waits in its series."""
        entry, started, looked = batch.entry, time.monotonic(), False
        try:
            looked = self._look_at(entry, started)
        finally:
            with self._ledger.changed:
                entry.busy, entry.stale = False, entry.stale or not looked
                entry.not_before = max(entry.not_before, time.monotonic() + (_SHARE - 1) * (time.monotonic() - started))
                self._ledger.changed.notify_all()

    def _look_at(self, entry: Entry, now: float) -> bool:
        """Returns False where the series' study is not complete yet: it has to be looked at later."""
        found = self._orthanc.series([entry.id])
        if not found:
            self._leave(entry, found)
            return True
        series = found[0]
        tags, undecided, coming = self.tags_of(series)
        if undecided and coming:
            entry.not_before = now + _UNTIL_STABLE
            return False
        # Orthanc keeps the tags of the study's first image: where that has none, each image is judged by its own.
        values = self._orthanc.tag_of_images(series.images, _STUDY) if undecided else {}
        own = {image: {**tags, _STUDY: value} for image, value in values.items()}
        if not any(map(self._ledger.config.rules.allow_series, own.values() or (tags,))):
            self._leave(entry, found)
            return True
        if series.last_update != entry.last_update:
            entry.last_update, entry.quiet_since, entry.settled = series.last_update, now, False
        entry.tags = series.tags
        self._read_images(entry, series)
        if not self._find_waiting(entry, series, lambda image: self.goes(image, own.get(image.id, tags))) and not entry.in_flight:
            self._close(entry, series)
        return True

    def _leave(self, entry: Entry, found: Sequence[Series]) -> None:
        """Leave a series that is gone, or does not go to the destination: its record says so, and no sweep asks for its study again."""
        ledger = self._ledger
        for series in found:
            stored = ledger.record_of(series)
            with ledger.recording(entry) as record:
                record.confirmed |= stored.confirmed
                record.contents, record.older = stored.contents, stored.older
                record.aside, record.stored, record.closed = {}, set(), ledger.state_of(series)
        with ledger.changed:
            entry.known, entry.waiting, entry.record = {}, None, Record()
            if not entry.stale and not entry.in_flight:
                ledger.backlog.drop(entry)
            entry.stale = True

    def _read_images(self, entry: Entry, series: Series) -> None:
        """Read of each image what is needed to send it; of a series that was looked at before, of the new ones alone.

        The last look, before the series is closed, reads them all: one that was stored again has its old identifier and a new file. Unless
        they were all read long after something was last stored in it, as in a backlog.
        """
        new = [id_ for id_ in series.images if id_ not in entry.known]
        entry.known = {id_: entry.known[id_] for id_ in series.images if id_ in entry.known}
        if not new:
            if entry.settled or entry.in_flight or any(not one.resting for one in (entry.waiting or {}).values()):
                return
            entry.known, new = {}, list(series.images)
        entry.whole = len(new) == len(series.images)
        entry.known.update((image.id, image) for image in self._orthanc.images_of(series, new))
        entry.settled = entry.whole and time.time() - epoch(series.last_update) > _SETTLED

    def _find_waiting(self, entry: Entry, series: Series, goes: Callable[[Image], bool]) -> bool:
        """Whether something has to be sent; fills ``waiting`` with the images that go to the destination."""
        ledger = self._ledger
        with ledger.changed:
            if entry.waiting is None:
                # Once: from then on what this program knows is ahead of what it has written.
                entry.record = ledger.record_of(series)
            record, before = entry.record, entry.waiting or {}
            waiting: dict[str, Waiting] = {}
            for image in sorted(entry.known.values(), key=lambda image: (image.received, image.id)):
                mark = mark_of(image.file)
                if mark not in record.confirmed and goes(image):
                    record.recall(image, ledger.contents)
                    waiting[mark] = before.get(mark) or self._waiting(entry, image, mark)
            entry.waiting, entry.rests = waiting, Counter()
            entry.estimate = sum(not one.resting for one in waiting.values())
            now = time.monotonic()
            return any(not one.resting or (one.aside and one.due <= now) for one in waiting.values())

    def _close(self, entry: Entry, series: Series) -> None:
        """Say in the record that nothing is left to send, once the series is quiet."""
        ledger = self._ledger
        with ledger.changed:
            # On this program's own clock: the node's may be wrong, or be set back.
            age = time.monotonic() - entry.quiet_since
            if not entry.settled and (not entry.whole or age < _QUIET):
                entry.close_at = time.monotonic() + max(0.0, _QUIET - age)
                return
            waiting = entry.waiting or {}
        with ledger.recording(entry) as record:
            record.forget_all_but(entry.known.values())
            record.aside = {mark: one for mark, one in record.aside.items() if mark in waiting}
            record.closed = ledger.state_of(series)
        entry.known, entry.settled = {}, False
        if entry.delivered:
            seconds = round(entry.confirmed_at - entry.opened, 1)
            aside = sum(one.aside for one in waiting.values())
            say("delivered", to=ledger.config.to, series=entry.id, images=entry.delivered, set_aside=aside, seconds=seconds)
            entry.delivered, entry.opened = 0, time.monotonic()
        with ledger.changed:
            if not entry.stale and not waiting:
                ledger.backlog.drop(entry)
            elif not entry.stale and (until := self._wanted_at(entry, waiting)) > time.monotonic():
                entry.asked = max((one.asked for one in waiting.values() if one.stored), default=0)
                ledger.backlog.rest(entry.id, entry.since, entry.resting, until)
        if not waiting:
            self._on_closed(series)

    def _wanted_at(self, entry: Entry, waiting: Mapping[str, Waiting]) -> float:
        """When an image is wanted here again; 0 for soon: one has a report to come, or is asked for soon."""
        ledger = self._ledger
        # Without a way to ask for what is stored, it rests until there may be one: it is to take no other's place.
        ask_at = ledger.offers.from_when(time.monotonic())
        soon = not ask_at and any(not one.aside and one.asked < _ASKED_OFTEN for one in waiting.values())
        if soon or entry.in_flight or any(batch.entry is entry for batch in ledger.late):
            return 0.0
        return min(max(one.due, ask_at) if one.stored else one.due for one in waiting.values())

    def take_back(self, series: str, images: Iterable[Image]) -> None:
        """Let images wait again that the destination had confirmed, and has no longer."""
        ledger, gone = self._ledger, list(images)
        with ledger.changed:
            ledger.backlog.touch(series, timestamp(), 0, time.monotonic())
            while (entry := ledger.backlog.get(series)) and entry.busy:
                ledger.changed.wait(1.0)
            if entry is None:
                return  # no room: the record stays as it is, and this is found again
            entry.busy = True  # no other thread looks at it
            for image in gone:
                ledger.resent.pop(image.id, None)  # it is sent again because it is gone
                ledger.contents.pop(key_of(image), None)
        try:
            stored = [ledger.record_of(found) for found in self._orthanc.series([series])]
            with ledger.recording(entry):
                if entry.waiting is None and stored:
                    entry.record = stored[0]
                entry.record.take_back(gone)
                entry.unwritten = True  # also where nothing is left in it: an entry that was just made looks the same
                ledger.older.pop(series, None)
        finally:
            with ledger.changed:
                entry.busy, entry.stale = False, True
                ledger.changed.notify_all()
