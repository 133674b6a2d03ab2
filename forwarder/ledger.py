"""What is known of one destination at this moment, shared by the threads that work for it."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus

from forwarder import say
from forwarder.backlog import Backlog, Batch, Entry, Waiting
from forwarder.config import LinkConfig
from forwarder.dicom import Offers
from forwarder.orthanc import AnswerError, NodeDownError, Orthanc, Series
from forwarder.record import Aside, Record
from forwarder.trouble import BROKE, LOOP_SECONDS, NOT_THERE, TRIES_UNCLEAR, Backoff, Failure, Fault, pause_after

#: Batches that may wait for their confirmation besides those that are being sent: sending goes on meanwhile.
UNCONFIRMED = 3
#: Images that are remembered beside the records: their content, and when they were sent again.
_REMEMBERED = 10_000


class Ledger:
    """A destination's backlog, what of it is on its way, and how the destination does. Each method may be called from any thread.

    Attributes:
        changed: the lock of everything here; notified when there may be something to do.
        offers: how the destination confirms.
        transfers, delivered, failures, last_delivered: since the start: transfers of which the destination took everything, images that it
            confirmed, failures of it and of images, and when it last confirmed one.
        unconfirmed: what was sent and waits for a report of storage commitment.
        late: what was sent and had no report in time; a report still counts.
        silent: how many reports in turn did not come in time.
        seen: of the series that a sweep has come by, those of which something waits, or is counted in ``older``.
        older: by series, how many confirmed images there are of which the device may keep an older version.
        retried_at: when everything was to be tried at once, in seconds since 1970.
        contents: what a device outside took last, as in ``Record.contents``. Orthanc deletes a series of one image, and its record with it,
            when that image comes again (StatelessDatabaseOperations::StoreInstance).
        resent: when images were last sent again that a device outside had taken before, by identifier, in seconds since 1970.
    """

    def __init__(self, config: LinkConfig, orthanc: Orthanc) -> None:
        self.config, self._orthanc = config, orthanc
        self.backlog = Backlog()
        self.backoff = Backoff("destination", to=config.to)
        self.transfers = self.delivered = self.failures = 0
        self.last_delivered: float | None = None
        self.offers = Offers(config.confirm)
        self.unconfirmed: list[Batch] = []
        self.late: list[Batch] = []
        self.changed = threading.Condition()
        self.stopping = False
        self.silent = self._sending = 0
        self._writing = threading.Lock()
        self._streak = set[str]()
        self.older: dict[str, int] = {}
        self.seen = set[str]()
        self.retried_at = 0.0
        self.resent: dict[str, float] = {}
        self.contents: dict[str, str] = {}

    @property
    def at_work(self) -> bool:
        """Whether something is being sent or confirmed."""
        return bool(self.unconfirmed or self._sending)

    def record_of(self, series: Series) -> Record:
        """What the database says that the destination has confirmed of a series."""
        return Record.parse(series.metadata.get(str(self.config.record)))

    def state_of(self, series: Series) -> tuple[str, int, str]:
        """What a series' record has as ``closed`` until something is stored in it, or a rule changes."""
        return series.last_update, len(series.images), self.config.rules.digest

    @contextlib.contextmanager
    def recording(self, entry: Entry) -> Iterator[Record]:
        """Change the record of a series, then write it: with the lock held while it is changed, and one after another.

        While the node is away, this waits for it: what came of a transfer is not to get lost. A series that is gone is left: the next look
        finds that.

        Raises:
            NodeDownError: the forwarder is stopped meanwhile.
            AnswerError: the node cannot write it. It is written with the next change, or at the next look that finds nothing to send.
        """
        with self._writing:
            with self.changed:
                before = entry.record.text()
                yield entry.record
                text = entry.record.text()
                entry.unwritten |= text != before
                self.contents |= entry.record.contents if self.config.outside else {}
                while len(self.contents) > _REMEMBERED:
                    del self.contents[next(iter(self.contents))]
            while entry.unwritten:
                try:
                    self._orthanc.put_metadata(entry.id, self.config.record, text)
                except AnswerError as error:
                    if error.status != HTTPStatus.NOT_FOUND:
                        raise
                except NodeDownError:
                    if self.stopping:
                        raise
                    with self.changed:
                        self.changed.wait(1.0)
                    continue
                entry.unwritten = False

    def sweep(self, *, begins: bool) -> None:
        """Note that a sweep begins, or that it has considered every series."""
        with self.changed:
            if begins:
                self.backlog.begin_sweep()
            else:
                self.backlog.end_sweep(self.seen)
                self.older = {series: images for series, images in self.older.items() if series in self.seen}
            self.seen.clear()

    def note_older(self, series: str, images: int) -> None:
        """Note of how many images of a series the device may keep an older version. With the lock held."""
        self.older[series] = images
        self.seen.add(series)

    def retry(self) -> None:
        """Try at once everything that waits for a pause to end. The next sweep finds series that are not held."""
        with self.changed:
            self.backoff.until = 0.0
            self.offers.ask_soon()
            self.retried_at = time.time()
            self.resent.clear()
            self.due_now(lambda _: True)
            self.backlog.wake_all()
            self.backlog.overflowed = True

    def due_now(self, wanted: Callable[[Waiting], bool]) -> None:
        """Make some images due now. With the lock held."""
        for entry in self.backlog:
            for one in filter(wanted, (entry.waiting or {}).values()):
                one.due = 0.0
        self.changed.notify_all()

    # --- what is on its way ---

    def pick(self) -> Batch | None:
        """Take what to do next. While all associations are in use, that is to look at a series before its turn. With the lock held."""
        now = time.monotonic()
        # After a failure of the destination one thread finds out, with one batch, whether it works again.
        if self.stopping or now < self.backoff.until or (self.backoff.tries and self.at_work):
            return None
        full = self._sending >= self.config.associations or len(self.unconfirmed) > self.config.associations + UNCONFIRMED
        ahead = self.config.associations if full else 0
        batch = self.backlog.pick(now, careful=bool(self._streak), asking=bool(self.offers.method(now)), ahead=ahead)
        if batch and batch.images:
            batch.entry.in_flight |= {one.mark: batch for one in batch.images}
            self._sending += 1
        elif batch:
            batch.entry.busy, batch.entry.stale, batch.entry.close_at = True, False, math.inf
        return batch

    def done(self) -> None:
        """Note that a thread has done what it took to send or to ask for."""
        with self.changed:
            self._sending -= 1
            self.changed.notify_all()

    def sent(self, batch: Batch, taken: int, failure: Failure | None) -> None:
        """Note that a transfer has ended, after so many images that were taken. The batch then holds those alone.

        ``failure`` is of the image after those; None where that waits as before.
        """
        left, batch.images = batch.images[taken:], batch.images[:taken]
        with self.changed:
            self.transfers += not failure
            for one in batch.images:
                one.taken()
                if batch.entry.record.taken_before(one.image):
                    self.resent[one.image.id] = time.time()
            if len(self.resent) > _REMEMBERED:
                self.resent = {image: at for image, at in self.resent.items() if at + LOOP_SECONDS > time.time()}
            if failure and failure.fault is Fault.BROKEN:
                blamed = left[0].cut(self.transfers)
                left[0].due = time.monotonic() + pause_after(left[0].cuts - 1)
                if blamed:
                    self.backoff.succeeded()
                    left[0].tries = max(left[0].tries, TRIES_UNCLEAR - 1)
                    failure = Failure(Fault.UNCLEAR, f"{BROKE}: {failure.reason}")
        if failure and failure.fault not in (Fault.BROKEN, Fault.DESTINATION):
            self.give_back(batch, left[1:])
            self.settle(batch, {left[0].image.sop_instance: failure.reason}, failure, images=left[:1])
            return
        self.give_back(batch, left)
        if failure:
            self.pause(failure)

    def give_back(self, batch: Batch, images: Sequence[Waiting] | None = None) -> None:
        """Let images of a batch, or all, wait as before: to be sent, or to be asked for. What it no longer holds is left as it is."""
        marks = None if images is None else {one.mark for one in images}
        with self.changed:
            held = batch.entry.in_flight
            for mark in [mark for mark, holder in held.items() if holder is batch and (marks is None or mark in marks)]:
                del held[mark]
            self.changed.notify_all()

    def put_off(self, batch: Batch, seconds: float) -> None:
        """Give back a batch, and leave its series alone for a while."""
        with self.changed:
            later, entry = time.monotonic() + seconds, batch.entry
            self.give_back(batch)
            self.forget(batch)
            entry.stale, entry.not_before = True, later
            for one in (entry.waiting or {}).values():
                one.due = max(one.due, later)

    def forget(self, batch: Batch) -> None:
        """Look no more for the report of a batch."""
        with self.changed:
            if batch in self.unconfirmed:
                self.unconfirmed.remove(batch)
            if batch in self.late:
                self.late.remove(batch)
                batch.entry.stale = True  # it may rest by now
            self.changed.notify_all()

    def pause(self, failure: Failure) -> None:
        """Note that the destination failed, and leave it alone for a while."""
        with self.changed:
            if (now := time.monotonic()) >= self.backoff.until:  # else another association failed with this one
                self.failures += 1
                self.backoff.failed(now, failure.reason)

    # --- what came of it ---

    def settle(
        self,
        batch: Batch,
        answer: Mapping[str, str] | None,
        failure: Failure | None = None,
        *,
        images: Sequence[Waiting] | None = None,
        silence: str = "no answer for it",
    ) -> None:
        """Note what a destination said of each image: what it has, in the record; what it has not, for another try.

        An image that was taken and that the answer does not name is asked for again, after growing pauses, before it is sent again.

        Args:
            batch: what was sent, and ``images`` of it, or all.
            answer: by SOP instance UID a reason why the destination has it not, empty where it has; None where it did not answer.
            failure: why the only image was not taken; or, without an answer, why the destination cannot be asked now.
            silence: the reason that is noted for an image that the answer does not name.
        """
        entry, images = batch.entry, batch.images if images is None else images
        said = {one: (answer or {}).get(one.image.sop_instance) for one in images}
        confirmed = [one for one in images if said[one] == ""]
        kept = [one for one in images if said[one] is None and (answer is None or not one.asked_enough)]
        failed = [one for one in images if one not in confirmed and one not in kept]
        contents = self._contents([*confirmed, *kept])
        with self.recording(entry) as record:
            now = time.monotonic()
            if failed and failure and failure.refuses_class:  # so are all others of its SOP class and transfer syntax
                kind = failed[0].image.sop_class, failed[0].image.syntax
                failed += [one for one in entry.free if not one.resting and (one.image.sop_class, one.image.syntax) == kind]
            record.confirm(one.mark for one in confirmed)
            differ = {
                one.mark for one in (*confirmed, *kept) if one.mark in contents and record.note_content(one.image, contents[one.mark])
            }
            older = differ.intersection(one.mark for one in confirmed)
            record.older |= older
            record.keep(one.mark for one in kept)
            for one in kept if not failure else ():
                one.asked_in_vain(now, answered=answer is not None)
            for one in failed:
                one.failed(failure or Failure(Fault.UNCLEAR, f"{NOT_THERE}: {said[one] or silence}"), now)
                record.stored.discard(one.mark)
                if one.aside:
                    at, revision = int(time.time()), self.config.revision
                    record.aside[one.mark] = Aside(one.image.id, one.reason, one.refused, one.tries, at, revision)
            # Written before it counts as delivered: what a kill leaves unwritten is sent again.
        for one in failed:
            say("image failed", to=self.config.to, image=one.image.id, reason=one.reason, tries=one.tries, set_aside=one.aside)
        if older:
            say("older versions may be kept", to=self.config.to, series=entry.id, images=len(older))
        with self.changed:
            self.failures += len(failed)
            if older:
                self.note_older(entry.id, len(entry.record.older))
            if confirmed:
                self._note_success(entry, confirmed)
            elif failed:
                self._note_streak([one for one in failed if not one.refused])
            elif failure:
                self.pause(failure)
            else:
                self.backoff.succeeded()
                if answer is None:
                    self._streak.clear()
            entry.stale |= bool(failed or kept)  # it may be gone from the node, or nothing is left to send
            self.give_back(batch, images)

    def _contents(self, images: Sequence[Waiting]) -> dict[str, str]:
        """The MD5 of images that a device outside has taken, by mark; where it is not known, the UUID of the file, which no other has."""
        return {one.mark: one.image.md5 or self._orthanc.md5(one.image) or one.image.file for one in images if self.config.outside}

    def _note_success(self, entry: Entry, confirmed: Sequence[Waiting]) -> None:
        """Note that the destination has confirmed images. With the lock held."""
        if len(self._streak) > 1:
            self.due_now(lambda one: one.mark in self._streak)  # they failed together: for the destination's sake
        self.backoff.succeeded()
        self._streak.clear()
        for one in confirmed:
            (entry.waiting or {}).pop(one.mark, None)
        entry.delivered += len(confirmed)
        entry.estimate -= len(confirmed)
        entry.confirmed_at = time.monotonic()
        self.delivered += len(confirmed)
        self.last_delivered = time.time()
        entry.stale |= all(one.resting for one in (entry.waiting or {}).values())  # one more look, to close it

    def _note_streak(self, suspects: Sequence[Waiting]) -> None:
        """Note images that failed. If several fail in turn, and none succeeds in between, it is the destination. With the lock held."""
        self._streak.update(one.mark for one in suspects)
        if len(self._streak) > 1 and suspects:
            self.pause(Failure(Fault.DESTINATION, suspects[0].reason))
