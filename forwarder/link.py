"""One destination: its threads, which send what waits and see to it that it is confirmed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from forwarder.backlog import Batch, Picked
from forwarder.config import LinkConfig
from forwarder.dicom import Destination
from forwarder.ledger import Ledger, OnClosed
from forwarder.log import say
from forwarder.look import Looker
from forwarder.orthanc import AnswerError, Image, NodeDownError, Orthanc
from forwarder.trouble import Failure, Fault, failure_of

#: Seconds between two looks for a report of storage commitment.
_LOOK_EVERY = 0.1
#: Seconds that a report may take: for the request, and for each image, whose file is read.
_REPORT_SECONDS, _REPORT_SECONDS_PER_IMAGE = 15.0, 0.2
#: Seconds until a series is looked at again of which Orthanc answered something that was not expected.
_AFTER_SURPRISE = 60
#: How often a report is asked for before the images are sent again.
_ASKS = 3


class Link:
    """A destination, with what waits for it.

    Attributes:
        config: the destination.
        ledger: what waits for it and what is on its way.
    """

    def __init__(self, config: LinkConfig, orthanc: Orthanc, on_closed: OnClosed = lambda _: None) -> None:
        self.config = config
        self.ledger = Ledger(config, orthanc)
        self._destination = Destination(orthanc, config.to)
        self._looker = Looker(self.ledger, orthanc, on_closed)
        self.allows = self._looker.allows

    def threads(self) -> Iterator[Callable[[], None]]:
        """The work of each of its threads."""
        yield self._confirm_for_ever
        # In a backlog, a sender would otherwise look at its next series between two batches.
        yield partial(self._work_for_ever, self.ledger.pick_ahead)
        yield from [partial(self._work_for_ever, self.ledger.pick)] * self.config.associations

    def stop(self) -> None:
        """Begin nothing new."""
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
        except (AnswerError, KeyError, TypeError, ValueError) as error:
            self._surprised(batch, type(error).__name__)

    def _surprised(self, batch: Batch, what: str) -> None:
        """An answer that was not expected, the node's about a series or the destination's about a batch: it holds up no other."""
        ledger, entry = self.ledger, batch.entry
        say("series failed", to=self.config.to, series=entry.id, reason=what, next_try_s=_AFTER_SURPRISE)
        ledger.give_back(batch)
        with ledger.changed:
            entry.not_before = time.monotonic() + _AFTER_SURPRISE
            entry.waiting = None
        if batch.images:
            ledger.pause(Failure(Fault.DESTINATION, "an answer that was not expected"))

    def _send(self, batch: Batch) -> None:
        ledger = self.ledger
        try:
            if ledger.probing and (failure := self._destination.echo()):
                ledger.give_back(batch)
                ledger.pause(failure)
                return
            images = [one.image for one in batch.images]
            try:
                batch.transaction = self._destination.store(images, commitment=self.config.confirm == "commitment")
            except AnswerError as error:
                self._sending_failed(batch, failure_of(error))
                return
            self._await_confirmation(batch)
        except NodeDownError:
            ledger.give_back(batch)
            raise
        finally:
            ledger.sent()

    def _sending_failed(self, batch: Batch, failure: Failure) -> None:
        """A batch ended at an image that is not told. Where the destination answers, it tells by what it has."""
        ledger = self.ledger
        if no_echo := self._destination.echo():
            ledger.give_back(batch)
            ledger.pause(no_echo)
        elif len(batch.images) == 1:
            ledger.settle(batch, {batch.images[0].image.sop_instance: failure.reason}, failure)
        else:
            ledger.divide(batch)

    def _await_confirmation(self, batch: Batch) -> None:
        if self.config.confirm == "query":
            self._confirm_by_query(batch)
            return
        batch.deadline = _deadline(batch)
        with self.ledger.changed:
            self.ledger.unconfirmed.append(batch)
            self.ledger.changed.notify_all()

    def _confirm_by_query(self, batch: Batch) -> None:
        entry = batch.entry
        try:
            there = self._destination.query(entry.study_uid, entry.series_uid, [one.image for one in batch.images])
        except AnswerError as error:
            self.ledger.give_back(batch)
            self.ledger.pause(Failure(Fault.DESTINATION, f"query: {failure_of(error).reason}"))
            return
        sent = (one.image.sop_instance for one in batch.images)
        self.ledger.settle(batch, {uid: "" if uid in there else "a query does not find it" for uid in sent})

    # --- confirming ---

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
            except (NodeDownError, AnswerError):
                time.sleep(1.0)
            if batches:
                time.sleep(_LOOK_EVERY)

    def _look_for_report(self, batch: Batch) -> None:
        try:
            report = self._destination.commitment(batch.transaction)
        except LookupError:
            # The node was started anew and has forgotten it, or did not ask because an image was gone.
            report, batch.deadline = None, 0.0
        if report is not None:
            self.ledger.settle(batch, report)
            self._remove(batch)
        elif time.monotonic() > batch.deadline and (failure := self._ask_again(batch)):
            self._remove(batch)
            self.ledger.give_back(batch)
            self.ledger.pause(failure)

    def _ask_again(self, batch: Batch) -> Failure | None:
        """Ask for another report; why not, where that is no use."""
        if batch.asked == _ASKS:
            return Failure(Fault.DESTINATION, "no report of storage commitment")
        batch.asked += 1
        try:
            batch.transaction = self._destination.ask_commitment(one.image for one in batch.images)
        except AnswerError as error:
            return Failure(Fault.DESTINATION, failure_of(error).reason)
        batch.deadline = _deadline(batch)
        return None

    def _remove(self, batch: Batch) -> None:
        with self.ledger.changed:
            self.ledger.unconfirmed.remove(batch)
            self.ledger.changed.notify_all()

    def confirmed_now(self, images: Sequence[Image], seconds: float = 120.0) -> set[str] | None:
        """Ask the destination once more, by storage commitment, for images that it has confirmed.

        Returns:
            the SOP instance UIDs of those that it still has; None where it did not answer in time.
        """
        try:
            transaction = self._destination.ask_commitment(images)
            end = time.monotonic() + seconds
            while time.monotonic() < end and not self.ledger.stopping:
                if (report := self._destination.commitment(transaction)) is not None:
                    return {uid for uid, reason in report.items() if not reason}
                time.sleep(_LOOK_EVERY)
        except (AnswerError, LookupError):
            pass
        return None


def _deadline(batch: Batch) -> float:
    """When a report is overdue: the destination may have much to do, so that each request gets more time."""
    return time.monotonic() + batch.asked * (_REPORT_SECONDS + _REPORT_SECONDS_PER_IMAGE * len(batch.images))
