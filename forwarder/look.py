"""Looks at a series: what of it a destination has not confirmed; closes the record when there is nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from forwarder.backlog import Entry, Waiting
from forwarder.ledger import Ledger, OnClosed
from forwarder.log import say
from forwarder.orthanc import Image, Orthanc, Series
from forwarder.record import Record, mark_of
from forwarder.times import epoch
from forwarder.trouble import ASIDE_SECONDS, LONGEST_PAUSE

#: Seconds without a new image before a series counts as delivered: Orthanc writes its last update in whole seconds, so that within
#: one of them nothing tells an image that came later.
_QUIET = 2.0
#: The same by the node's clock, which may be wrong by some seconds.
_SETTLED = 30.0
#: Of a sender's time, at most one in so many parts goes into looking at one series again and again.
_SHARE = 5


class Looker:
    """Looks at series for one destination."""

    def __init__(self, ledger: Ledger, orthanc: Orthanc, on_closed: OnClosed) -> None:
        self._ledger = ledger
        self._orthanc = orthanc
        self._on_closed = on_closed

    def allows(self, series: Series) -> bool:
        """Whether a series is for the destination, as far as its own tags and its study's tell."""
        rules = self._ledger.config.rules
        study = self._orthanc.study_tags(series.study) if rules.needs_study else {}
        return rules.allow_series({**study, **series.tags})

    def look_at(self, entry: Entry) -> None:
        """Fill an entry that was picked with what waits in its series."""
        ledger = self._ledger
        started, touched = time.monotonic(), entry.touched
        entry.close_at = math.inf
        try:
            found = self._orthanc.series([entry.id])
            if not found or not self.allows(found[0]):
                self._leave(entry, found, touched)
                return
            series = found[0]
            if series.last_update != entry.last_update:
                entry.last_update, entry.quiet_since, entry.settled = series.last_update, started, False
            entry.study_uid, entry.series_uid = series.tags.get("StudyInstanceUID", ""), series.tags.get("SeriesInstanceUID", "")
            self._read_images(entry, series)
            if self._find_waiting(entry, series) or entry.in_flight:
                entry.seen = touched
            else:
                self._close(entry, series, touched)
        finally:
            with ledger.changed:
                entry.busy = False
                entry.not_before = max(entry.not_before, time.monotonic() + (_SHARE - 1) * (time.monotonic() - started))
                ledger.changed.notify_all()

    def _leave(self, entry: Entry, found: Sequence[Series], touched: int) -> None:
        """A series is gone, or not for the destination: the record says so, and no sweep asks for its study again."""
        ledger = self._ledger
        for series in found:
            stored = ledger.record_of(series)
            with ledger.recording(entry) as record:
                record.confirmed |= stored.confirmed
                record.aside, record.stored, record.closed = {}, set(), _closed(series, ledger)
        with ledger.changed:
            entry.known, entry.waiting, entry.record = {}, None, Record()
            if entry.touched == touched and not entry.in_flight:
                ledger.backlog.drop(entry)

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

    def _find_waiting(self, entry: Entry, series: Series) -> bool:
        """Whether something has to be sent; fills ``waiting``."""
        ledger, now = self._ledger, time.monotonic()
        with ledger.changed:
            if entry.waiting is None:
                # Once: from then on what this program knows is ahead of what it has written.
                entry.record = ledger.record_of(series)
            record, before = entry.record, entry.waiting or {}
            waiting: dict[str, Waiting] = {}
            for image in sorted(entry.known.values(), key=lambda image: (image.received, image.id)):
                mark = mark_of(image.file)
                if mark not in record.confirmed and ledger.config.rules.allow_image(image.calling_aet):
                    waiting[mark] = before.get(mark) or self._waiting(image, mark, record, now)
            entry.waiting = waiting
            return any(not one.resting for one in waiting.values())

    def _waiting(self, image: Image, mark: str, record: Record, now: float) -> Waiting:
        """An image that waits; as it was left when it was stored, or set aside by this deployment of the destination."""
        if mark in record.stored:
            return Waiting(image, mark, stored=True)
        aside = record.aside.get(mark)
        if aside is None or aside.revision != self._ledger.config.revision:
            return Waiting(image, mark)
        rest = (ASIDE_SECONDS if aside.refused else LONGEST_PAUSE) - (time.time() - aside.at)
        return Waiting(image, mark, aside.tries, now + max(0.0, rest), aside.reason, aside.refused, company=1)

    def _close(self, entry: Entry, series: Series, touched: int) -> None:
        """Nothing has to be sent: say so in the record, once the series is quiet; not where something is stored and not confirmed."""
        ledger = self._ledger
        with ledger.changed:
            # On this program's own clock: the node's may be wrong, or be set back.
            age = time.monotonic() - entry.quiet_since
            if not entry.settled and (not entry.whole or age < _QUIET):
                entry.seen, entry.close_at = touched, time.monotonic() + max(0.0, _QUIET - age)
                return
            entry.seen = touched
        with ledger.recording(entry) as record:
            record.forget_all_but({mark_of(image.file) for image in entry.known.values()})
            record.aside = {mark: one for mark, one in record.aside.items() if mark in (entry.waiting or {})}
            record.closed = None if record.stored else _closed(series, ledger)
        entry.known, entry.settled = {}, False
        if not entry.waiting:
            with ledger.changed:
                if entry.touched == touched:
                    ledger.backlog.drop(entry)
            self._on_closed(entry.id)
        if entry.delivered:
            seconds = round(entry.confirmed_at - entry.opened, 1)
            aside = sum(one.aside for one in (entry.waiting or {}).values())
            say("delivered", to=ledger.config.to, series=entry.id, images=entry.delivered, set_aside=aside, seconds=seconds)
            entry.delivered, entry.opened = 0, time.monotonic()


def _closed(series: Series, ledger: Ledger) -> tuple[str, int, str]:
    """What a record says when all of a series is confirmed."""
    return series.last_update, len(series.images), ledger.config.rules.digest
