"""One destination: its threads, which send what waits and have it confirmed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from forwarder import say
from forwarder.backlog import Batch
from forwarder.config import LinkConfig, Method
from forwarder.dicom import Destination, GoneError
from forwarder.ledger import Ledger
from forwarder.look import Looker, OnClosed
from forwarder.orthanc import AnswerError, Image, NodeDownError, Orthanc
from forwarder.trouble import Failure, Fault, failure_of

#: Seconds between two looks for a report of storage commitment.
_LOOK_EVERY = 0.1
#: Seconds that a report may take: for the request, and for each image, whose file is read.
_REPORT_SECONDS, _REPORT_SECONDS_PER_IMAGE = 15.0, 0.2
_NAMES: Mapping[Method, str] = {"commitment": "storage commitment", "query": "query (C-FIND)", "stored": "transfer"}
#: Seconds until a series is looked at again of which Orthanc answered something that was not expected.
_AFTER_SURPRISE = 60
#: Seconds that a report may take where the last one did not come in time: it may come hours later, and counts then, too.
_REPORT_SECONDS_SILENT = 2.0
#: Seconds between two looks for a report that is late.
_LOOK_LATE = 10.0
#: Requests for storage commitment without a report whose reports still count, and for how many seconds. With those that are in time, and
#: those before a deletion, they fit in the reports that a node remembers of each destination (configs/orthanc.py, REPORTS_OF_A_LINK).
LATE, LATE_SECONDS = 100, 24 * 3600.0
#: Seconds after which such a request gives way to a newer one where there are too many: reports may come again.
LATE_LEAST_SECONDS = 3600.0
#: Reports that do not come in time, one after another, until the link says so.
_SILENT = 3


class Link:
    """A destination, with what waits for it. ``deletes``: the node deletes what all its destinations have confirmed."""

    def __init__(
        self, config: LinkConfig, orthanc: Orthanc, on_closed: OnClosed = lambda _: None, *, deletes: bool = False, scu_timeout: int = 10
    ) -> None:
        self.config = config
        self.deletes = deletes
        self.ledger = Ledger(config, orthanc)
        self._destination = Destination(orthanc, config.to, config.aet, scu_timeout)
        self._looker = Looker(self.ledger, orthanc, on_closed)
        self.consider, self.tags_of, self.goes = self._looker.consider, self._looker.tags_of, self._looker.goes
        self.take_back = self._looker.take_back
        self._asked: dict[tuple[str, ...], str] = {}

    def threads(self) -> Iterator[Callable[[], None]]:
        """The work of each of its threads."""
        yield self._confirm_for_ever
        # One more than there are associations: it looks at the next series meanwhile.
        yield from [self._work_for_ever] * (self.config.associations + 1)

    @property
    def note(self) -> str:
        """What `status` tells of the destination: a service that it lacks or does not answer. Empty for nothing."""
        offers = self.ledger.offers
        said = offers.note(deletes=self.deletes)
        if not said and offers.in_use == "query" and self._destination.lists_images is False:
            said = "answers queries, and lists nothing of what it took: set confirm: stored"
        if not said and self.ledger.silent >= _SILENT:
            said = (
                "takes requests for storage commitment, and sends no report: it has to know this node's AE title, address and port; "
                "or set confirm: query"
            )
        return said and f"{self.config.to} {said}"

    def stop(self) -> None:
        """Let the threads begin nothing new."""
        with self.ledger.changed:
            self.ledger.stopping = True
            self.ledger.changed.notify_all()

    # --- sending ---

    def _work_for_ever(self) -> None:
        ledger = self.ledger
        while not ledger.stopping:
            with ledger.changed:
                batch = ledger.pick()
                if batch is None:
                    ledger.changed.wait(0.5)
                    continue
            self._do(self._send if batch.images else self._looker.look_at, batch)

    def _do(self, work: Callable[[Batch], None], batch: Batch) -> bool:
        """Do something with a batch. A series of which an answer was not expected, the node's or the destination's, delays no other.

        Returns False where the node does not answer.
        """
        ledger, entry = self.ledger, batch.entry
        try:
            work(batch)
        except NodeDownError:
            time.sleep(1.0)  # watch.py says so in the log
            return False
        except (AnswerError, AttributeError, KeyError, TypeError, ValueError) as error:
            say("series failed", to=self.config.to, series=entry.id, reason=type(error).__name__, next_try_s=_AFTER_SURPRISE)
            failure = Failure(Fault.DESTINATION, "an answer that was not expected")
            if batch.images:
                ledger.pause(failure)
            if batch.stored:
                with contextlib.suppress(NodeDownError, AnswerError):
                    ledger.settle(batch, None, failure)
            ledger.put_off(batch, _AFTER_SURPRISE)
        return True

    def _send(self, batch: Batch) -> None:
        """Send a batch and ask for it, or ask for one that the destination has taken."""
        ledger = self.ledger
        try:
            if not batch.stored:
                sent = self._destination.send([one.image for one in batch.images], lambda: ledger.stopping)
                ledger.sent(batch, sent.taken, sent.failure)
            if batch.images:
                self._confirm(batch)
        except GoneError:
            with ledger.changed:
                batch.entry.stale = True  # an image is gone: look what is left
            ledger.give_back(batch)
        except NodeDownError:
            ledger.give_back(batch)
            raise
        finally:
            ledger.done()

    # --- confirming ---

    def _confirm(self, batch: Batch) -> None:
        """Ask for a batch that the destination has taken, by the strongest method that it has."""
        ledger, images = self.ledger, [one.image for one in batch.images]
        method = ledger.offers.method(time.monotonic())
        try:
            if method == "commitment":
                batch.transaction = self._destination.ask_commitment(images)
            elif method == "query":
                self._query(batch)
        except AnswerError as error:
            failure = failure_of(error)
            if method and self._lacks(method, failure):
                self._confirm(batch)  # by the next method, or not now
            elif method:
                ledger.settle(batch, None, Failure(Fault.DESTINATION, f"{_NAMES[method]}: {failure.reason}"))
            return
        if method is None:
            ledger.settle(batch, None)
        elif method == "commitment":
            self._has(method)
            in_time = _REPORT_SECONDS_SILENT if ledger.silent else _REPORT_SECONDS + _REPORT_SECONDS_PER_IMAGE * len(images)
            batch.deadline = time.monotonic() + in_time
            with ledger.changed:
                ledger.unconfirmed.append(batch)
                ledger.changed.notify_all()
        elif method == "stored":
            ledger.settle(batch, dict.fromkeys((image.sop_instance for image in images), ""))

    def _query(self, batch: Batch) -> None:
        """Have a batch confirmed by queries. What an answer says is recorded before the next is asked for: asking may take minutes."""
        while part := batch.images[: self._destination.listed_at_once]:
            there = self._destination.query(batch.entry.tags, [one.image for one in part])
            self._has("query")
            # One that never listed anything may have it all the same: this is no answer, and sending it again is no use.
            answer = dict.fromkeys(there, "") if self._destination.lists_images else None
            self.ledger.settle(batch, answer, images=part, silence="a query does not find it")
            batch.images = batch.images[len(part) :]

    def _lacks(self, method: Method, failure: Failure) -> bool:
        """Whether a failure says that the destination has no such service: it answers, and refuses what it is asked."""
        # A device without queries for images may refuse each one by A900: identifier does not match SOP class (PS3.4, table C.4-1).
        if not failure.refuses_class and not (method == "query" and failure.reason.startswith("DIMSE status 0xA9")):
            return False
        say("destination lacks", to=self.config.to, what=_NAMES[method])
        self.ledger.offers.lacks(method, time.monotonic())
        return True

    def _has(self, method: Method) -> None:
        if self.ledger.offers.has(method):
            say("destination has by now", to=self.config.to, what=_NAMES[method])

    def _confirm_for_ever(self) -> None:
        """Wait for reports of storage commitment."""
        ledger, look_late_at = self.ledger, 0.0
        while not (ledger.stopping and not ledger.at_work):
            with ledger.changed:
                if not ledger.unconfirmed:
                    ledger.changed.wait(0.5)
                batches = list(ledger.unconfirmed)
                if time.monotonic() > look_late_at:
                    look_late_at = time.monotonic() + _LOOK_LATE
                    batches += ledger.late
            all(self._do(self._look_for_report, batch) for batch in batches)  # none after one at which the node did not answer
            if batches:
                time.sleep(_LOOK_EVERY)

    def _look_for_report(self, batch: Batch) -> None:
        """Look for the report of a batch, also of one whose report is late."""
        ledger, report, forgotten = self.ledger, None, False
        try:
            report = self._destination.commitment(batch.transaction)
        except GoneError:
            forgotten = True  # the node was started anew, or did not ask because an image was gone
        over = forgotten or time.monotonic() > batch.deadline
        if batch in ledger.late:
            if (report and self._settle_late(batch, report)) or over:
                ledger.forget(batch)
        elif report is not None or over:
            ledger.settle(batch, report)
            with ledger.changed:
                ledger.forget(batch)
                if report is None and not forgotten:
                    self._note_late(batch)
                elif report is not None and ledger.silent:
                    ledger.silent = 0
                    ledger.due_now(lambda one: one.stored)  # all without a report are asked for again
                    ledger.backlog.wake_all()

    def _note_late(self, batch: Batch) -> None:
        """Note that no report came in time. The images are asked for again later; a late report still counts."""
        late, ends = self.ledger.late, time.monotonic() + LATE_SECONDS
        self.ledger.silent += 1
        if len(late) >= LATE and ends - late[0].deadline > LATE_LEAST_SECONDS:
            del late[0]
        if len(late) < LATE:  # those that were asked for first come first
            late.append(Batch(batch.entry, batch.images, batch.transaction, ends))

    def _settle_late(self, batch: Batch, report: Mapping[str, str]) -> bool:
        """Settle what still waits for a late report. False where images are just asked for again: this has to be repeated."""
        ledger, entry = self.ledger, batch.entry
        with ledger.changed:
            ledger.silent = 1  # it does report
            held = entry.waiting or {}
            batch.images = [one for one in batch.images if held.get(one.mark) is one and one.stored]
            free = [one for one in batch.images if one.mark not in entry.in_flight]
            entry.in_flight |= {one.mark: batch for one in free}
        if free:
            try:
                ledger.settle(batch, report, images=free)
            finally:
                ledger.give_back(batch)
        batch.images = [one for one in batch.images if one not in free]
        return not batch.images

    def there_now(self, method: Method, tags: Mapping[str, str], images: Sequence[Image], seconds: float = 30.0) -> set[str] | None:
        """Ask the destination once more for images that it has confirmed, by storage commitment or by a query.

        Returns the SOP instance UIDs of those that it still has; None where it did not answer in time. A report that comes later is the
        answer to the next time that the same images are asked for.
        """
        asked = tuple(image.file for image in images)
        try:
            if method == "query":
                return self._destination.query(tags, images)
            before = self._asked.pop(asked, "")
            transaction = before or self._destination.ask_commitment(images)
            self._has("commitment")
            end = time.monotonic() + seconds
            while time.monotonic() < end and not self.ledger.stopping:
                if (report := self._destination.commitment(transaction)) is not None:
                    return {uid for uid, reason in report.items() if not reason}
                time.sleep(_LOOK_EVERY)
            self._asked = {} if before else {asked: transaction}
        except AnswerError as error:
            if method == "commitment":
                self._lacks(method, failure_of(error))
        except GoneError:
            pass
        return None
