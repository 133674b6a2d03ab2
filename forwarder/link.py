"""One destination: its threads, which send what waits and have it confirmed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from forwarder import say
from forwarder.backlog import Batch, Picked
from forwarder.config import LinkConfig, Method
from forwarder.dicom import Destination, GoneError
from forwarder.ledger import Ledger
from forwarder.look import Looker, OnClosed
from forwarder.orthanc import AnswerError, Image, NodeDownError, Orthanc, Series
from forwarder.trouble import Failure, Fault, failure_of

#: Seconds between two looks for a report of storage commitment.
_LOOK_EVERY = 0.1
#: Seconds that a report may take: for the request, and for each image, whose file is read.
_REPORT_SECONDS, _REPORT_SECONDS_PER_IMAGE = 15.0, 0.2
_NAMES: Mapping[Method, str] = {"commitment": "storage commitment", "query": "query (C-FIND)", "stored": "transfer"}
#: An answer that was not expected.
_SURPRISES = (AnswerError, AttributeError, KeyError, TypeError, ValueError)
#: Seconds that a report may take where the last one did not come in time: it may come hours later, and counts then, too.
_REPORT_SECONDS_SILENT = 2.0
#: Seconds between two looks for a report that is late.
_LOOK_LATE = 10.0
#: Reports that do not come in time, one after another, until the link says so.
_SILENT = 3


class Link:
    """A destination, with what waits for it.

    Attributes:
        config: the destination.
        deletes: whether the node deletes what all its destinations have confirmed.
        ledger: what waits for it and what is on its way.
    """

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
        self._looked_late = 0.0
        self._asked: dict[tuple[str, ...], str] = {}

    def threads(self) -> Iterator[Callable[[], None]]:
        """The work of each of its threads."""
        yield self._confirm_for_ever
        # In a backlog, a sender would otherwise look at its next series between two batches.
        yield partial(self._work_for_ever, self.ledger.pick_ahead)
        yield from [partial(self._work_for_ever, self.ledger.pick)] * self.config.associations

    @property
    def note(self) -> str:
        """What `status` tells of the destination: a service that it lacks or does not answer. Empty for nothing."""
        offers = self.ledger.offers
        said = offers.note(deletes=self.deletes)
        if not said and offers.in_use == "query" and self.ledger.unlisted and not self._destination.lists_images:
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

    def _work_for_ever(self, pick: Callable[[], Picked | None]) -> None:
        ledger = self.ledger
        while not ledger.stopping:
            with ledger.changed:
                picked = pick()
                if picked is None:
                    ledger.changed.wait(0.5)
                    continue
            self._do(Batch(*picked))

    def _do(self, batch: Batch) -> None:
        """Send a batch, or, where it has no images, look at its series."""
        try:
            if batch.images:
                self._send(batch)
            else:
                self._looker.look_at(batch.entry)
        except NodeDownError:
            time.sleep(1.0)  # watch.py says so in the log
        except _SURPRISES as error:
            self._surprised(batch, type(error).__name__)

    def _surprised(self, batch: Batch, what: str) -> None:
        """Put off a series, after an answer about it that was not expected, the node's or the destination's: it delays no other."""
        ledger, entry = self.ledger, batch.entry
        try:
            if batch.stored:
                ledger.keep_stored(batch, in_vain=True)
            else:
                ledger.give_back(batch)
        except NodeDownError:
            ledger.give_back(batch)
        ledger.put_off(entry, what)
        if batch.images:
            ledger.pause(Failure(Fault.DESTINATION, "an answer that was not expected"))

    def _send(self, batch: Batch) -> None:
        ledger = self.ledger
        try:
            if not batch.stored:
                images = batch.images
                sent = self._destination.send([one.image for one in images], lambda: ledger.stopping)
                batch.images = images[: sent.taken]
                ledger.stored(batch, whole=not sent.failure)
                if sent.failure:
                    ledger.not_taken(batch, images[sent.taken :], sent.failure)
                else:
                    ledger.give_back(Batch(batch.entry, images[sent.taken :]))
            if batch.images:
                self._confirm(batch)
        except GoneError:
            with ledger.changed:
                batch.entry.touched += 1  # an image is gone: look what is left
            ledger.give_back(batch)
        except NodeDownError:
            ledger.give_back(batch)
            raise
        finally:
            ledger.sent()

    # --- confirming ---

    def _confirm(self, batch: Batch) -> None:
        """Have a batch confirmed that the destination has taken, by the strongest method that it has."""
        method = self.ledger.offers.method(time.monotonic())
        failure: Failure | None = None
        if method == "commitment":
            failure = self._request_report(batch)
        elif method == "query":
            failure = self._query(batch)
        elif method == "stored":
            self.ledger.settle(batch, {one.image.sop_instance: "" for one in batch.images})
        else:
            self.ledger.keep_stored(batch, in_vain=True, works=True)
        if failure and method:
            self._asked_in_vain(batch, method, failure)

    def _asked_in_vain(self, batch: Batch, method: Method, failure: Failure) -> None:
        if self._lacks(method, failure):
            self._confirm(batch)  # by the next method, or not now
        else:
            self.ledger.keep_stored(batch, in_vain=False)
            self.ledger.pause(Failure(Fault.DESTINATION, f"{_NAMES[method]}: {failure.reason}"))

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

    def _request_report(self, batch: Batch) -> Failure | None:
        """Ask for storage commitment; the report is waited for by the thread of _confirm_for_ever."""
        try:
            batch.transaction = self._destination.ask_commitment(one.image for one in batch.images)
        except AnswerError as error:
            return failure_of(error)
        self._has("commitment")
        images = len(batch.images)
        wait = _REPORT_SECONDS_SILENT if self.ledger.silent else _REPORT_SECONDS + _REPORT_SECONDS_PER_IMAGE * images
        batch.deadline = time.monotonic() + wait
        with self.ledger.changed:
            self.ledger.unconfirmed.append(batch)
            self.ledger.changed.notify_all()
        return None

    def _query(self, batch: Batch) -> Failure | None:
        entry = batch.entry
        try:
            there = self._destination.query(entry.study_uid, entry.series_uid, [one.image for one in batch.images])
        except AnswerError as error:
            return failure_of(error)
        self._has("query")
        unlisted = "a query does not find it"
        # A destination that never listed anything may have it all the same: sending it again is no use.
        patient = not self._destination.lists_images
        self.ledger.settle(batch, dict.fromkeys(there, ""), silence=unlisted, patient=patient)
        return None

    def _confirm_for_ever(self) -> None:
        """Wait for reports of storage commitment."""
        ledger = self.ledger
        while not (ledger.stopping and not ledger.at_work):
            with ledger.changed:
                if not ledger.unconfirmed:
                    ledger.changed.wait(0.5)
                batches = list(ledger.unconfirmed)
            try:
                for batch in batches:
                    self._look_for_report(batch)
                if time.monotonic() - self._looked_late > _LOOK_LATE:
                    self._looked_late = time.monotonic()
                    for batch in list(ledger.late):
                        self._look_for_late_report(batch)
            except (NodeDownError, AnswerError):
                time.sleep(1.0)
            if batches:
                time.sleep(_LOOK_EVERY)

    def _look_for_report(self, batch: Batch) -> None:
        ledger, forgotten = self.ledger, False
        try:
            report = self._destination.commitment(batch.transaction)
        except GoneError:
            # The node was started anew, or did not ask because an image was gone.
            report, forgotten = None, True
        if report is None and not forgotten and time.monotonic() <= batch.deadline:
            return
        before = [(one, dict(vars(one))) for one in batch.images]
        try:
            if report is not None:
                ledger.settle(batch, report)
                ledger.note_prompt()
            else:
                # It takes images, and requests.
                ledger.keep_stored(batch, in_vain=True, works=not forgotten)
                if not forgotten:
                    ledger.note_late(batch)
        except NodeDownError:
            # Not written: this is done again, and counts as one try.
            for one, was in before:
                vars(one).update(was)
            raise
        self._remove(batch)

    def _look_for_late_report(self, batch: Batch) -> None:
        ledger, gone = self.ledger, time.monotonic() > batch.ends
        try:
            if report := self._destination.commitment(batch.transaction):
                gone = ledger.settle_late(batch, report) or gone
        except GoneError:
            gone = True
        if gone:
            with ledger.changed:
                batch.entry.touched += 1  # it may rest by now
                if batch in ledger.late:
                    ledger.late.remove(batch)

    def _remove(self, batch: Batch) -> None:
        with self.ledger.changed:
            self.ledger.unconfirmed.remove(batch)
            self.ledger.changed.notify_all()

    def confirmed_now(self, images: Sequence[Image], seconds: float = 30.0) -> set[str] | None:
        """Ask the destination once more, by storage commitment, for images that it has confirmed.

        Returns:
            the SOP instance UIDs of those that it still has; None where it did not answer in time. A report that comes later is the answer
            to the next time that the same images are asked for.
        """
        asked = tuple(image.file for image in images)
        try:
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
            self._lacks("commitment", failure_of(error))
        except GoneError:
            pass
        return None

    def listed_now(self, series: Series, images: Sequence[Image]) -> set[str] | None:
        """Ask the destination once more, by a query, for images of a series; what it lists, or None where it does not answer."""
        try:
            return self._destination.query(series.tags.get("StudyInstanceUID", ""), series.tags.get("SeriesInstanceUID", ""), images)
        except AnswerError:
            return None
