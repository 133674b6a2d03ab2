"""What is known of one destination at this moment, shared by the threads that work for it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from forwarder.backlog import Backlog, Batch, Entry, Picked, Waiting
from forwarder.config import LinkConfig
from forwarder.dicom import Offers
from forwarder.log import say
from forwarder.orthanc import AnswerError, Orthanc, Series
from forwarder.record import Aside, Record, mark_of
from forwarder.times import timestamp
from forwarder.trouble import Backoff, Failure, Fault

#: Images in one association: long enough that setting it up costs little, short enough that a confirmation comes soon.
BATCH = 100
#: Batches that may wait for their confirmation besides those that are being sent: sending goes on meanwhile.
UNCONFIRMED = 3


#: Called with the identifier of a series that was closed.
OnClosed = Callable[[str], None]


@dataclass
class Counts:
    """What was done since the forwarder was started."""

    delivered: int = 0
    failures: int = 0
    last_delivered: float | None = None


class Ledger:
    """A destination's backlog, what of it is on its way, and how the destination does. Each method may be called from any thread.

    Attributes:
        changed: the lock of everything here; notified when there may be something to do.
        offers: how the destination confirms.
        unconfirmed: what was sent and waits for a report of storage commitment.
    """

    def __init__(self, config: LinkConfig, orthanc: Orthanc) -> None:
        self.config = config
        self.backlog = Backlog()
        self.backoff = Backoff()
        self.counts = Counts()
        self.offers = Offers(config.confirm)
        self.unconfirmed: list[Batch] = []
        self.changed = threading.Condition()
        self.stopping = False
        self.probing = False
        #: Something that the destination took was not found by a query.
        self.unlisted = False
        self._orthanc = orthanc
        self._writing = threading.Lock()
        self._sending = 0
        self._streak: set[str] = set()

    @property
    def at_work(self) -> bool:
        """Whether something is being sent or confirmed."""
        return bool(self.unconfirmed or self._sending)

    def record_of(self, series: Series) -> Record:
        """What the database says that the destination has confirmed of a series."""
        return Record.parse(series.metadata.get(str(self.config.record)))

    @contextlib.contextmanager
    def recording(self, entry: Entry) -> Iterator[Record]:
        """Change the record of a series, then write it: with the lock held while it is changed, and one after another.

        A series that is gone is left: the next look finds that.
        """
        with self._writing:
            with self.changed:
                before = entry.record.text()
                yield entry.record
                text = entry.record.text()
            # Where it could not be written the last time, what changed then is still to be written.
            if text != before or entry.unwritten:
                entry.unwritten = True
                with contextlib.suppress(AnswerError):
                    self._orthanc.put_metadata(entry.id, self.config.record, text)
                entry.unwritten = False

    def consider(self, series: Series) -> bool:
        """A series may hold something new.

        Returns:
            whether everything in it that is for this destination is known to be confirmed.
        """
        rules, record = self.config.rules, self.record_of(series)
        if not rules.needs_study and not rules.allow_series(series.tags):
            return True
        if series.last_update and record.is_closed_for(series.last_update, len(series.images), rules.digest):
            return True
        with self.changed:
            left = max(0, len(series.images) - len(record.confirmed) - len(record.aside) - len(record.stored))
            self.backlog.touch(series.id, series.last_update or timestamp(), left, time.monotonic())
            self.changed.notify_all()
        return False

    def retry(self) -> None:
        """Try everything at once that waits for its time: the destination, and what is set aside."""
        with self.changed:
            self.backoff.until = 0.0
            self.offers.ask_soon()
            for entry in self.backlog:
                for one in (entry.waiting or {}).values():
                    one.due = 0.0
            self.changed.notify_all()

    # --- what is on its way ---

    def pick(self) -> Picked | None:
        """Take what to do next. With the lock held."""
        now = time.monotonic()
        if self.stopping or now < self.backoff.until or len(self.unconfirmed) > self.config.associations + UNCONFIRMED:
            return None
        # After a failure of the destination one thread finds out, with one batch, whether it works again.
        if self.backoff.tries and (self.probing or self.at_work):
            return None
        picked = self.backlog.pick(now, BATCH, careful=bool(self._streak), asking=bool(self.offers.method(now)))
        if picked is None:
            return None
        entry, images = picked
        if images:
            entry.in_flight.update(one.mark for one in images)
            self._sending += 1
            self.probing = bool(self.backoff.tries)
        else:
            entry.busy = True
        return picked

    def pick_ahead(self) -> Picked | None:
        """Take a series to be looked at before a sender comes to it. With the lock held."""
        if self.stopping or self.backoff.tries:
            return None
        entry = self.backlog.pick_ahead(time.monotonic(), self.config.associations)
        if entry is None:
            return None
        entry.busy = True
        return entry, []

    def sent(self) -> None:
        """What was picked has been sent, or not."""
        with self.changed:
            self._sending -= 1
            self.changed.notify_all()

    def stored(self, batch: Batch) -> None:
        """The destination has taken all images of a batch."""
        with self.changed:
            for one in batch.images:
                one.taken()

    def keep_stored(self, batch: Batch, *, works: bool) -> None:
        """The destination has taken a batch, and cannot be asked whether it keeps it: that is asked again later; nothing is sent again.

        Args:
            batch: what was sent.
            works: whether the destination does all that it is able to.
        """
        entry = batch.entry
        with self.recording(entry) as record:
            for one in batch.images:
                one.asked_in_vain(time.monotonic(), answered=False)
                record.stored.add(one.mark)
        with self.changed:
            entry.touched += 1  # a look, to say that nothing is left to send
            if works:
                self._note_works()
                self._streak.clear()
        self.give_back(batch)

    def give_back(self, batch: Batch) -> None:
        """It waits as before: to be sent, or to be asked for where the destination has taken it."""
        with self.changed:
            batch.entry.in_flight.difference_update(one.mark for one in batch.images)
            self.probing = False
            self.changed.notify_all()

    def pause(self, failure: Failure) -> None:
        """The destination failed: leave it alone for a while."""
        with self.changed:
            now = time.monotonic()
            if now < self.backoff.until:
                return  # another association failed with this one
            self.counts.failures += 1
            pause = self.backoff.failed(now, failure.reason)
            say("destination failed", to=self.config.to, reason=failure.reason, tries=self.backoff.tries, next_try_s=round(pause, 1))

    def settle(
        self,
        batch: Batch,
        report: Mapping[str, str],
        failure: Failure | None = None,
        *,
        silence: str = "no answer for it",
        patient: bool = False,
    ) -> None:
        """Note what a destination said of each image: what it has, in the record; what it has not, for another try.

        An image that was taken and of which nothing is said is asked for again, with growing patience, before it is sent again.

        Args:
            batch: what was sent.
            report: by SOP instance UID a reason why the destination has it not, empty where it has.
            failure: why the only image of the batch was not taken.
            silence: what it means that nothing is said of an image.
            patient: never send such an image again.
        """
        entry = batch.entry
        confirmed = [one for one in batch.images if report.get(one.image.sop_instance) == ""]
        suspects = [one for one in batch.images if report.get(one.image.sop_instance) != ""]
        if failure and failure.refuses_class:
            suspects += self._alike(entry, suspects[0])
        with self.recording(entry):
            now = time.monotonic()
            entry.record.confirm(one.mark for one in confirmed)
            waiting = [
                one for one in suspects if not failure and one.image.sop_instance not in report and (patient or not one.asked_enough)
            ]
            for one in waiting:
                one.asked_in_vain(now, answered=not patient)
                entry.record.stored.add(one.mark)
            suspects = [one for one in suspects if one not in waiting]
            for one in suspects:
                unconfirmed = report.get(one.image.sop_instance) or silence
                one.failed(failure or Failure(Fault.UNCLEAR, f"stored, but not confirmed: {unconfirmed}"), now)
                entry.record.stored.discard(one.mark)
                if one.aside:
                    entry.record.aside[one.mark] = self._aside(one)
            # Written before it counts as delivered: what a kill leaves unwritten is sent again.
        for one in suspects:
            say("image failed", to=self.config.to, image=one.image.id, reason=one.reason, tries=one.tries, set_aside=one.aside)
        with self.changed:
            self.counts.failures += len(suspects)
            if confirmed:
                self._note_success(entry, confirmed)
            elif not suspects:
                self.unlisted = patient
                self._note_works()
            else:
                self._note_streak([one for one in suspects if not one.refused])
            entry.in_flight.difference_update(one.mark for one in batch.images)
            entry.touched += bool(suspects or waiting)  # it may be gone from the node
            self.probing = False
            self.changed.notify_all()

    def _alike(self, entry: Entry, refused: Waiting) -> list[Waiting]:
        """The other images of a series that a destination refuses together with one: those of its SOP class and transfer syntax."""
        with self.changed:
            return [
                one
                for mark, one in (entry.waiting or {}).items()
                if mark not in entry.in_flight
                and not one.stored
                and (one.image.sop_class, one.image.syntax) == (refused.image.sop_class, refused.image.syntax)
            ]

    def divide(self, batch: Batch) -> None:
        """A batch ended early, at an image that is not told: each half waits for itself.

        The destination's word on its images would not do: it confirms identifiers, and may hold an older version of one that was not
        sent.
        """
        with self.changed:
            for one in batch.images:
                one.company = max(1, len(batch.images) // 2)
        self.give_back(batch)

    def _aside(self, one: Waiting) -> Aside:
        return Aside(one.image.id, one.reason, one.refused, one.tries, int(time.time()), self.config.revision)

    def _note_works(self) -> None:
        """The destination takes images. With the lock held."""
        if self.backoff.tries:
            say("destination works again", to=self.config.to, tries=self.backoff.tries)
        self.backoff.succeeded()

    def _note_success(self, entry: Entry, confirmed: Sequence[Waiting]) -> None:
        """The destination works. With the lock held."""
        if len(self._streak) > 1:
            for other in self.backlog:
                for mark in self._streak & (other.waiting or {}).keys():
                    (other.waiting or {})[mark].due = 0.0  # they failed together: for the destination's sake
        self._note_works()
        self._streak.clear()
        for one in confirmed:
            (entry.waiting or {}).pop(one.mark, None)
        entry.delivered += len(confirmed)
        entry.confirmed_at = time.monotonic()
        self.counts.delivered += len(confirmed)
        self.counts.last_delivered = time.time()
        entry.touched += all(one.resting for one in (entry.waiting or {}).values())  # one more look, to close it

    def _note_streak(self, suspects: Sequence[Waiting]) -> None:
        """Images that fail one after another, without one in between that does not: it is the destination. With the lock held."""
        self._streak.update(one.mark for one in suspects)
        if len(self._streak) > 1 and suspects:
            self.pause(Failure(Fault.DESTINATION, suspects[0].reason))

    @contextlib.contextmanager
    def alone_with(self, series: str) -> Iterator[Entry | None]:
        """The entry of a series, made where there is none, while no other thread looks at it; None without room for it."""
        with self.changed:
            self.backlog.touch(series, timestamp(), 0, time.monotonic())
            while (entry := self.backlog.get(series)) and entry.busy:
                self.changed.wait(1.0)
            if entry:
                entry.busy = True
        try:
            yield entry
        finally:
            if entry:
                with self.changed:
                    entry.busy = False
                    entry.touched += 1
                    self.changed.notify_all()

    def take_back(self, series: str, files: Sequence[str]) -> None:
        """The destination no longer has images that it had confirmed: they wait again.

        Args:
            series: their series.
            files: the UUIDs of their files.
        """
        marks = {mark_of(file) for file in files}
        with self.alone_with(series) as entry:
            if entry is None:
                return  # no room: the record stays as it is, and this is found again
            stored = [self.record_of(found) for found in self._orthanc.series([series])]
            with self.recording(entry) as record:
                if entry.waiting is None and stored:
                    record.confirmed, record.aside, record.stored = stored[0].confirmed, stored[0].aside, stored[0].stored
                record.confirmed -= marks
                record.closed = None
