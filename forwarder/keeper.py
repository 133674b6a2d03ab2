"""Asks destinations once more for what they have confirmed; deletes it here where the stack file says so.

Nothing is deleted that a destination of it has not confirmed by storage commitment a moment before: each destination of this stack
reads the file for that. Left open: what a destination outside the stack means by its commitment, and an image that is stored here once
more, with other content, in the milliseconds between the last look at it and its deletion.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from forwarder.config import Method
from forwarder.link import Link
from forwarder.log import say
from forwarder.orthanc import AnswerError, Image, NodeDownError, Orthanc, Series
from forwarder.pages import pages
from forwarder.record import mark_of
from forwarder.times import epoch
from forwarder.trouble import Backoff

_CHUNK = 200
_CAPACITY = 10_000


class _SilentError(Exception):
    """A destination does not answer."""


class Keeper:
    """Asks again, and deletes, one series after another."""

    def __init__(self, orthanc: Orthanc, links: Sequence[Link], delete_after: int | None) -> None:
        self._orthanc = orthanc
        self._links = links
        self._delete_after = delete_after
        #: When each series that was offered is due, in seconds since 1970.
        self._due: dict[str, float] = {}
        self._lock = threading.Lock()
        self.stopping = threading.Event()
        self.deleted = 0
        self._recheck = threading.Event()

    def recheck_soon(self) -> None:
        """Ask every destination for everything that it has confirmed."""
        self._recheck.set()

    def offer(self, series: Series) -> None:
        """A series that every destination of it has confirmed."""
        if self._delete_after is None:
            return
        with self._lock:
            if series.id in self._due or len(self._due) < _CAPACITY:
                self._due[series.id] = epoch(series.last_update) + self._delete_after

    def offer_id(self, series: str) -> None:
        """A series that one destination has confirmed, maybe the last one."""
        if self._delete_after is not None:
            for found in self._orthanc.series([series]):
                self.offer(found)

    def keep_for_ever(self) -> None:
        """The work of the keeper's thread."""
        backoff = Backoff()
        while not self.stopping.wait(1.0):
            if time.monotonic() < backoff.until:
                continue
            try:
                if self._recheck.is_set():
                    self._recheck_all()
                    self._recheck.clear()
                while (series := self._next_due()) and not self.stopping.is_set():
                    self._delete(series)
                    self._done(series)
                    backoff.succeeded()
            except (NodeDownError, AnswerError, KeyError, TypeError, ValueError, _SilentError) as error:
                reason = str(error) if isinstance(error, _SilentError) else type(error).__name__
                pause = backoff.failed(time.monotonic(), reason)
                say("keeper failed", reason=reason, tries=backoff.tries, next_try_s=round(pause, 1))

    def _next_due(self) -> str | None:
        """The series that has been due for longest; it stays until it is done."""
        with self._lock:
            series = min(self._due, key=self._due.__getitem__, default=None)
            return series if series and self._due[series] <= time.time() else None

    def _done(self, series: str) -> None:
        """It was deleted, or may not be. Where something came since it was offered, it is offered again, and due later."""
        with self._lock:
            if self._due[series] <= time.time():
                del self._due[series]

    def _delete(self, id_: str) -> None:
        """Delete of a series what all its destinations have confirmed, and confirm once more."""
        for series in self._orthanc.series([id_]):
            if epoch(series.last_update) + (self._delete_after or 0) > time.time():
                continue
            links = [link for link in self._links if link.allows(series)]
            if not links or not all(link.ledger.consider(series) for link in links):
                continue
            # A destination without storage commitment holds up no other series; the next sweep offers this one again.
            if not all(link.ledger.offers.may("commitment", time.monotonic()) for link in links):
                continue
            images = [image for image in self._orthanc.images_of(series, series.images) if self._confirmed_by_all(image, series, links)]
            kept = {image.sop_instance for image in images}
            for link in links:
                kept &= self._ask_again(link, series, "commitment", [image for image in images if _goes_to(link, image)], kept)
            self._delete_images(series.id, [image for image in images if image.sop_instance in kept])

    def _confirmed_by_all(self, image: Image, series: Series, links: Sequence[Link]) -> bool:
        """Whether an image goes somewhere, and every destination of it has confirmed its file."""
        records = [link.ledger.record_of(series) for link in links if _goes_to(link, image)]
        return bool(records) and all(mark_of(image.file) in record.confirmed for record in records)

    def _ask_again(self, link: Link, series: Series, method: Method, images: Sequence[Image], kept: set[str]) -> set[str]:
        """Ask a destination once more for images; what it no longer has is sent again.

        Returns:
            of ``kept``, those that it has, or that are not for it; none where it turns out to have no storage commitment.

        Raises:
            _SilentError: it does not answer.
        """
        for start in range(0, len(images), _CHUNK):
            chunk = images[start : start + _CHUNK]
            there = link.confirmed_now(chunk) if method == "commitment" else link.listed_now(series, chunk)
            if there is None and method == "commitment" and not link.ledger.offers.may("commitment", time.monotonic()):
                return set()
            if there is None:
                raise _SilentError(f"{link.config.to} does not answer")
            if lost := [image for image in chunk if image.sop_instance not in there]:
                say("no longer there", to=link.config.to, series=series.id, images=len(lost))
                link.ledger.take_back(series.id, [image.file for image in lost])
                kept = kept - {image.sop_instance for image in lost}
        return kept

    def _delete_images(self, series: str, images: Sequence[Image]) -> None:
        """Delete images whose files are still those that were confirmed."""
        deleted = 0
        for image in images:
            for now in self._orthanc.images([image.id]):
                if now.file == image.file:
                    self._orthanc.delete(f"/instances/{image.id}")
                    deleted += 1
        self.deleted += deleted
        if deleted:
            say("deleted", series=series, images=deleted)

    def _recheck_all(self) -> None:
        seen, lost = 0, 0
        for ids in pages(self._orthanc, self.stopping):
            for series in self._orthanc.series(ids):
                held = list(self._orthanc.images_of(series, series.images))
                for link in self._links:
                    method = link.ledger.offers.in_use
                    if method is None or method == "stored":
                        continue  # there is no way to ask
                    record = link.ledger.record_of(series)
                    images = [image for image in held if mark_of(image.file) in record.confirmed]
                    asked = {image.sop_instance for image in images}
                    there = self._ask_again(link, series, method, images, asked)
                    lost += len(asked - there) if link.ledger.offers.in_use == method else 0
            seen += len(ids)
        say("rechecked", series=seen, images_sent_again=lost)


def _goes_to(link: Link, image: Image) -> bool:
    return link.config.rules.allow_image(image.calling_aet)
