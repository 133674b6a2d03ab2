"""What is known of one destination at this moment, shared by the threads that work for it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from forwarder.backlog import Backlog, Batch, Entry, Picked, Waiting
from forwarder.config import LinkConfig
from forwarder.dicom import Offers
from forwarder.log import say
from forwarder.orthanc import AnswerError, Image, Orthanc, Series
from forwarder.record import Aside, Record
from forwarder.times import timestamp
from forwarder.trouble import NOT_THERE, TRIES_REFUSED, TRIES_UNCLEAR, Backoff, Failure, Fault, pause_after, rest_after

#: Batches that may wait for their confirmation besides those that are being sent: sending goes on meanwhile.
UNCONFIRMED = 3
#: Requests for storage commitment without a report whose reports still count, and for how many seconds.
LATE, LATE_SECONDS = 100, 24 * 3600.0
#: Seconds in which an image is sent twice at most, where a device outside has confirmed it before: it may send it back each time.
LOOP_SECONDS = 3600.0
#: What counts images, in ``Backlog.elsewhere``, of which the device may keep an older version.
OLDER = "older"


@dataclass
class Counts:
    """What was done since the forwarder was started; ``taken``: images that the destination took."""

    taken: int = 0
    delivered: int = 0
    failures: int = 0
    last_delivered: float | None = None


class Ledger:
    """A destination's backlog, what of it is on its way, and how the destination does. Each method may be called from any thread.

    Attributes:
        changed: the lock of everything here; notified when there may be something to do.
        offers: how the destination confirms.
        unconfirmed: what was sent and waits for a report of storage commitment.
        late: what was sent and had no report in time; a report still counts.
        silent: how many reports in turn did not come in time.
        unlisted: something that the destination took was not found by a query.
    """

    def __init__(self, config: LinkConfig, orthanc: Orthanc) -> None:
        self.config = config
        self.backlog = Backlog()
        self.backoff = Backoff()
        self.counts = Counts()
        self.offers = Offers(config.confirm)
        self.unconfirmed: list[Batch] = []
        self.late: list[Batch] = []
        self.changed = threading.Condition()
        self.stopping = False
        self.probing = False
        self.silent = 0
        self.unlisted = False
        self._orthanc = orthanc
        self._writing = threading.Lock()
        self._sending = 0
        self._streak: set[str] = set()
        self._retried_at = 0.0
        #: When images were last sent again that a device outside had confirmed before, by identifier.
        self._resent: dict[str, float] = {}

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

    # --- what waits ---

    def consider(self, series: Series, *, new: bool = True) -> bool:
        """A series may hold something new.

        Args:
            series: the series.
            new: an image of it has just come; otherwise a sweep came by.

        Returns:
            whether everything in it that is for this destination is known to be confirmed.
        """
        rules, record = self.config.rules, self.record_of(series)
        if not rules.needs_study and not rules.allow_series(series.tags):
            return True
        rests, until = Counter[str](), 0.0
        if series.last_update and record.is_closed_for(series.last_update, len(series.images), rules.digest):
            rests, until = self._rests_of(record)
        with self.changed:
            if not new:
                self.backlog.note_elsewhere({OLDER: len(record.older)})
            if until and not rests:
                return True
            if until <= time.time():
                left = max(0, len(series.images) - len(record.confirmed) - len(record.aside) - len(record.stored))
                self.backlog.touch(series.id, series.last_update or timestamp(), left, time.monotonic(), new=new)
                self.changed.notify_all()
            elif self.backlog.get(series.id) is None:
                self.backlog.rest(series.id, series.last_update, rests, until - time.time() + time.monotonic())
        return False

    def sweep(self, *, begins: bool) -> None:
        """A sweep begins, or has considered every series."""
        with self.changed:
            (self.backlog.begin_sweep if begins else self.backlog.end_sweep)()

    def _rests_of(self, record: Record) -> tuple[Counter[str], float]:
        """What of a record rests, as in ``Entry.rests``, and until when, in seconds since 1970."""
        rests = Counter(one.reason for one in record.aside.values())
        until = min((self.rests_until(one) for one in record.aside.values()), default=float("inf"))
        if record.stored:
            rests[""], until = len(record.stored), 0.0
        return rests, until

    def rests_until(self, one: Aside) -> float:
        """When an image that is set aside is tried again, in seconds since 1970; 0 for at once."""
        if one.revision != self.config.revision or one.at <= self._retried_at:
            return 0.0
        return one.at + rest_after(one.tries, one.reason, refused=one.refused)

    def goes(self, image: Image, tags: Mapping[str, str]) -> bool:
        """Whether an image of a series with these tags is for the destination: not what a device outside has sent itself."""
        config = self.config
        return config.rules.allow_image(image, tags) and not (config.outside and config.aet and image.calling_aet == config.aet)

    def waiting(self, entry: Entry, image: Image, mark: str) -> Waiting:
        """An image that waits, as its series' record has it: stored, set aside, or new. With the lock held."""
        now, record = time.monotonic(), entry.record
        if mark in record.stored:
            return Waiting(image, mark, stored=True, asked=entry.asked)
        one = Waiting(image, mark)
        aside = record.aside.get(mark)
        if aside and aside.revision == self.config.revision:
            one.tries, one.reason, one.refused = aside.tries, aside.reason, aside.refused
            one.due = now + max(0.0, self.rests_until(aside) - time.time())
        elif (pause := self._resent.get(image.id, -LOOP_SECONDS) + LOOP_SECONDS - now) > 0:
            one.tries, one.reason, one.due = TRIES_UNCLEAR, "sent twice within the hour: it comes back each time", now + pause
            record.aside[mark] = replace(self._aside(one), at=int(time.time() + pause - rest_after(one.tries, one.reason, refused=False)))
            entry.unwritten = True
        return one

    def retry(self) -> None:
        """Try everything at once that waits for its time. What is not held, the next sweep finds."""
        with self.changed:
            self.backoff.until = 0.0
            self.offers.ask_soon()
            self._retried_at = time.time()
            self._resent.clear()
            self._due_now()
            self.backlog.overflowed = True

    def _due_now(self, marks: set[str] | None = None) -> None:
        """Nothing of these, or of all, waits for its time any more. With the lock held."""
        for entry in self.backlog:
            for mark, one in (entry.waiting or {}).items():
                if marks is None or mark in marks:
                    one.due = 0.0
        if marks is None:
            self.backlog.wake_all()
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
        picked = self.backlog.pick(now, careful=bool(self._streak), asking=bool(self.offers.method(now)))
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
        picked = self.backlog.pick(time.monotonic(), ahead=self.config.associations)
        if picked:
            picked[0].busy = True
        return picked

    def sent(self) -> None:
        """What was picked has been sent, or not."""
        with self.changed:
            self._sending -= 1
            self.changed.notify_all()

    def stored(self, batch: Batch) -> None:
        """The destination has taken all images of a batch."""
        with self.changed:
            now = time.monotonic()
            self.counts.taken += len(batch.images)
            for one in batch.images:
                one.taken()
                if batch.entry.record.confirmed_before(one.image):
                    self._resent[one.image.id] = now
            if len(self._resent) > 10_000:
                self._resent = {image: at for image, at in self._resent.items() if at + LOOP_SECONDS > now}

    def not_taken(self, batch: Batch, images: Sequence[Waiting], failure: Failure) -> None:
        """A transfer ended at the first of these images.

        Args:
            batch: what was to be sent.
            images: those that the destination has not taken.
            failure: why.
        """
        first, entry = images[0], batch.entry
        if failure.fault is Fault.BROKEN:
            with self.changed:
                blamed = first.cut(self.counts.taken)
                first.due = time.monotonic() + pause_after(first.cuts - 1)
            self.pause(failure)
            if blamed:
                first.tries = max(first.tries, TRIES_REFUSED - 1)
                failure = Failure(Fault.IMAGE, f"the connection broke at this image, and not at others: {failure.reason}")
        elif failure.fault is Fault.DESTINATION:
            self.pause(failure)
        network = failure.fault in (Fault.BROKEN, Fault.DESTINATION)
        self.give_back(Batch(entry, list(images if network else images[1:])))
        if not network:
            self.settle(Batch(entry, [first]), {first.image.sop_instance: failure.reason}, failure)

    def keep_stored(self, batch: Batch, *, in_vain: bool, works: bool = False) -> None:
        """The destination has taken a batch, and has not said whether it keeps it: that is asked again later; nothing is sent again.

        Args:
            batch: what was sent.
            in_vain: it was asked, or cannot be asked: the next time comes later.
            works: the destination does all that it is able to.
        """
        with self.recording(batch.entry) as record:
            for one in batch.images:
                if in_vain:
                    one.asked_in_vain(time.monotonic(), answered=False)
                record.stored.add(one.mark)
        with self.changed:
            batch.entry.touched += 1  # a look, to say that nothing is left to send
            if works:
                self._note_works()
                self._streak.clear()
        self.give_back(batch)

    def note_late(self, batch: Batch) -> None:
        """No report came in time. The images are asked for again, later; a report that comes all the same counts."""
        with self.changed:
            self.silent += 1
            self.late.append(Batch(batch.entry, list(batch.images), batch.transaction, ends=time.monotonic() + LATE_SECONDS))
            del self.late[:-LATE]

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

    # --- what became of it ---

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
        contents = {one.mark: one.image.md5 or self._orthanc.md5(one.image.id) for one in confirmed} if self.config.outside else {}
        if failure and failure.refuses_class:
            suspects += self._alike(entry, suspects[0])
        older = 0
        with self.recording(entry) as record:
            now = time.monotonic()
            record.confirm(one.mark for one in confirmed)
            older = sum(record.note_content(one.image, contents[one.mark]) for one in confirmed if one.mark in contents)
            waiting = [
                one for one in suspects if not failure and one.image.sop_instance not in report and (patient or not one.asked_enough)
            ]
            for one in waiting:
                one.asked_in_vain(now, answered=not patient)
                record.stored.add(one.mark)
            suspects = [one for one in suspects if one not in waiting]
            for one in suspects:
                unconfirmed = report.get(one.image.sop_instance) or silence
                one.failed(failure or Failure(Fault.UNCLEAR, f"{NOT_THERE}: {unconfirmed}"), now)
                record.stored.discard(one.mark)
                if one.aside:
                    record.aside[one.mark] = self._aside(one)
            # Written before it counts as delivered: what a kill leaves unwritten is sent again.
        for one in suspects:
            say("image failed", to=self.config.to, image=one.image.id, reason=one.reason, tries=one.tries, set_aside=one.aside)
        if older:
            say("older versions may be kept", to=self.config.to, series=entry.id, images=older)
        with self.changed:
            self.counts.failures += len(suspects)
            self.backlog.note_elsewhere({OLDER: older})
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

    def settle_late(self, batch: Batch, report: Mapping[str, str]) -> bool:
        """A late report counts for what still waits for it; whether that is done: what is just asked for again has to wait."""
        with self.changed:
            entry, held = batch.entry, batch.entry.waiting or {}
            left = [one for one in batch.images if held.get(one.mark) is one and one.stored]
            free = [one for one in left if one.mark not in entry.in_flight]
            batch.images = [one for one in left if one.mark in entry.in_flight]
            entry.in_flight.update(one.mark for one in free)
        if free:
            self.settle(Batch(entry, free), report)
        return not batch.images

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
            self._due_now(self._streak)  # they failed together: for the destination's sake
        if self.silent:
            self.silent = 0
            self._due_now()  # its reports come again
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

    def take_back(self, series: str, images: Iterable[Image]) -> None:
        """The destination no longer has images of a series that it had confirmed: they wait again."""
        with self.alone_with(series) as entry:
            if entry is None:
                return  # no room: the record stays as it is, and this is found again
            stored = [self.record_of(found) for found in self._orthanc.series([series])]
            with self.recording(entry):
                if entry.waiting is None and stored:
                    entry.record = stored[0]
                entry.record.take_back(images)
