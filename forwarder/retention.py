"""Deletes what every destination has confirmed, where the stack file says so; asks destinations once more for what they have confirmed.

Nothing is deleted that a destination of it has not confirmed by storage commitment a moment before: each destination of this stack
reads the file for that. Left open: what a destination outside the stack means by its commitment, and an image that is stored here once
more, with other content, in the milliseconds between the last look at it and its deletion.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence

from forwarder import say
from forwarder.config import Method
from forwarder.link import Link
from forwarder.orthanc import AnswerError, Image, NodeDownError, Orthanc, Series, epoch
from forwarder.record import mark_of
from forwarder.trouble import Backoff

_CHUNK = 200
#: Series that are held at once until they are due; a sweep offers the others again.
_CAPACITY = 10_000
#: Seconds for which a destination that does not answer is left alone: much longer than the wait for its answer, which delays all deletion.
_SILENT_SECONDS = 300.0
#: How long nothing is deleted after a backup has asked for that. It asks again while it is at work: one that has died holds nothing up.
_HOLD_SECONDS = 600.0
#: Orthanc before 1.12.8 gives files from this size on the MD5 of nothing: nobody can tell whether they are as they were stored.
_CHECKED_BYTES, _CHECKS_ALL = 1 << 31, (1, 12, 8)


class _SilentError(Exception):
    """A destination does not answer. It has words for that, and the number of images that were asked for."""


class Retention:
    """Deletes, and asks again, one series after another."""

    def __init__(self, orthanc: Orthanc, links: Sequence[Link], delete_after: int | None) -> None:
        self._orthanc, self._links, self._delete_after = orthanc, links, delete_after
        #: When each series that was offered is due, in seconds since 1970.
        self._due: dict[str, float] = {}
        self._lock = threading.Lock()
        #: Of destinations that did not answer, until when what goes there is left alone.
        self._silent: dict[str, float] = {}
        self.stopping = threading.Event()
        #: Of each series that was due, how many images were not deleted, by reason.
        self.kept: dict[str, Counter[str]] = {}
        self.deleted = 0
        self._lost = 0
        self._recheck = threading.Event()
        self._held_until = 0.0

    def recheck_soon(self) -> None:
        """Ask every destination for everything that it has confirmed."""
        self._recheck.set()

    def hold(self) -> None:
        """Delete nothing for some minutes: a backup reads the index, and then the files."""
        self._held_until = time.monotonic() + _HOLD_SECONDS

    def release(self) -> None:
        """Delete again."""
        self._held_until = 0.0

    def offer(self, series: Series) -> None:
        """Take in a series that all its destinations have confirmed, or one of them, maybe as the last one."""
        if self._delete_after is None:
            return
        # What goes to a destination that does not answer comes last, so that it takes no other's place.
        silent = [one for link in self._links if (one := self._silent.get(link.config.to)) and link.ledger.record_of(series).confirmed]
        left = [time.time() + until - time.monotonic() for until in silent]
        with self._lock:
            self._due[series.id] = max(epoch(series.last_update) + self._delete_after, *left, 0.0)
            if len(self._due) > _CAPACITY:
                del self._due[max(self._due, key=self._due.__getitem__)]

    def keep_for_ever(self) -> None:
        """The work of the thread."""
        backoff = Backoff("retention")
        while not self.stopping.wait(1.0):
            if time.monotonic() < backoff.until:
                continue
            try:
                if self._recheck.is_set():
                    self._recheck_all()
                    self._recheck.clear()
                while (series := self._next_due()) and not self.stopping.is_set():
                    self._try_to_delete(series)
                    backoff.succeeded()
            except (NodeDownError, AnswerError, KeyError, TypeError, ValueError) as error:
                backoff.failed(time.monotonic(), type(error).__name__)

    def _next_due(self) -> str | None:
        """The series that has been due for longest; it stays until it is done. None while a backup is made."""
        if time.monotonic() < self._held_until:
            return None
        with self._lock:
            series = min(self._due, key=self._due.__getitem__, default=None)
            return series if series and self._due[series] <= time.time() else None

    def _try_to_delete(self, series: str) -> None:
        """Delete what may be deleted of a series. It is put off where a destination or the node cannot answer, and holds up no other."""
        done = False
        try:
            self._delete(series)
            done = True
        except _SilentError as error:
            reason, images = error.args
            self.kept[series] = Counter({reason: images})
        except AnswerError as error:
            say("series cannot be deleted", series=series, status=error.status, next_try_s=_SILENT_SECONDS)
        with self._lock:
            if not done:
                self._due[series] = time.time() + _SILENT_SECONDS
            elif self._due.get(series, 0.0) <= time.time():  # else something came since it was offered, and it was offered again
                self._due.pop(series, None)

    def _delete(self, id_: str) -> None:
        """Delete the images of a series that all their destinations have confirmed, and confirm once more."""
        self.kept.pop(id_, None)
        for series in self._orthanc.series([id_]):
            if epoch(series.last_update) + (self._delete_after or 0) > time.time():
                continue
            images = self._confirmed_by_all(series)
            for start in range(0, len(images), _CHUNK):
                self._delete_images(series, images[start : start + _CHUNK])

    def _confirmed_by_all(self, series: Series) -> list[tuple[Image, list[Link]]]:
        """The images that go somewhere, with their destinations; none where one of those has not confirmed all that goes there."""
        of_links = [(link, *link.tags_of(series)[:2], link.ledger.record_of(series)) for link in self._links]
        confirmed = []
        for image in self._orthanc.images_of(series, series.images):
            mark = mark_of(image.file)
            wants = [
                (link, record)
                for link, tags, undecided, record in of_links
                # Where the study's tags do not decide, the link decided image by image: what it left out is not in its record.
                if (not _left_out(link, series, mark) if undecided else link.goes(image, tags))
            ]
            if not all(mark in record.confirmed for _, record in wants):
                return []
            older = [link.config.to for link, record in wants if mark in record.older]
            if older:
                self._keep(series, f"{older[0]} may keep an older version")
            elif image.size >= _CHECKED_BYTES and self._orthanc.version < _CHECKS_ALL:
                self._keep(series, "larger than 2 GiB: Orthanc before 1.12.8 cannot check such files")
            elif wants:
                confirmed.append((image, [link for link, _ in wants]))
        return confirmed

    def _keep(self, series: Series, reason: str, images: int = 1) -> None:
        if images and (series.id in self.kept or len(self.kept) < _CAPACITY):
            self.kept.setdefault(series.id, Counter())[reason] += images

    def _delete_images(self, series: Series, wanted: Sequence[tuple[Image, Sequence[Link]]]) -> None:
        """Delete images that their destinations confirm once more, and whose files are still those that were stored and confirmed."""
        alone = self._orthanc.series_with([image.sop_instance for image, _ in wanted])
        kept = [(image, links) for image, links in wanted if len(alone[image.sop_instance]) == 1]
        self._keep(series, "their SOP instance UIDs are in two series: a destination confirms UIDs", len(wanted) - len(kept))
        for link in self._links:
            asked = [image for image, links in kept if link in links]
            if not asked:
                continue
            # A destination without storage commitment holds up no other series; the next sweep offers this one again.
            there = self._ask_again(link, series, "commitment", asked) if link.ledger.offers.may("commitment", time.monotonic()) else set()
            kept = [(image, links) for image, links in kept if link not in links or image.sop_instance in there]
        deleted = 0
        for image, _ in kept:
            for now in self._orthanc.images([image.id]):
                if now.file != image.file or time.monotonic() < self._held_until:
                    continue
                if self._orthanc.is_as_stored(image.id):
                    self._orthanc.delete(f"/instances/{image.id}")
                    deleted += 1
                else:
                    self._keep(series, "their files here are not what was stored")
        self.deleted += deleted
        if deleted:
            say("deleted", series=series.id, images=deleted)

    def _ask_again(self, link: Link, series: Series, method: Method, images: Sequence[Image]) -> set[str]:
        """Ask a destination once more for images; what it no longer has is sent again.

        Returns the SOP instance UIDs of those that it has; none where it turns out to have no storage commitment. Raises _SilentError where
        it does not answer, or did not a moment ago.
        """
        silence = _SilentError(f"{link.config.to} does not answer", len(images))
        if time.monotonic() < self._silent.get(link.config.to, 0.0):
            raise silence
        there = link.there_now(method, series.tags, images)
        if there is None:
            if method == "commitment" and not link.ledger.offers.may("commitment", time.monotonic()):
                return set()
            self._silent[link.config.to] = time.monotonic() + _SILENT_SECONDS
            say("does not answer", to=link.config.to, next_try_s=_SILENT_SECONDS)
            raise silence
        self._silent.pop(link.config.to, None)
        if lost := [image for image in images if image.sop_instance not in there]:
            say("no longer there", to=link.config.to, series=series.id, images=len(lost))
            link.take_back(series.id, lost)
            self._lost += len(lost)
        return there

    def _recheck_all(self) -> None:
        """Ask each destination for all that it has confirmed; one that does not answer is left out."""
        seen, lost_before, links = 0, self._lost, list(self._links)
        for ids in self._orthanc.pages(self.stopping):
            for series in self._orthanc.readable(ids):
                try:
                    self._recheck_series(series, links)
                except AnswerError as error:
                    say("series cannot be rechecked", series=series.id, status=error.status)
            seen += len(ids)
        say("rechecked", series=seen, images_sent_again=self._lost - lost_before)

    def _recheck_series(self, series: Series, links: list[Link]) -> None:
        """Ask for what was confirmed of a series; a link whose destination does not answer is taken out of ``links``."""
        held = list(self._orthanc.images_of(series, series.images))
        for link in list(links):
            method, record = link.ledger.offers.in_use, link.ledger.record_of(series)
            if method is None or method == "stored":
                continue  # there is no way to ask
            images = [image for image in held if mark_of(image.file) in record.confirmed]
            try:
                for start in range(0, len(images), _CHUNK):
                    self._ask_again(link, series, method, images[start : start + _CHUNK])
            except _SilentError as error:
                say("not rechecked", reason=error.args[0])
                links.remove(link)


def _left_out(link: Link, series: Series, mark: str) -> bool:
    """Whether a link has looked at all of a series, and an image is not for it."""
    record = link.ledger.record_of(series)
    return record.closed == link.ledger.state_of(series) and mark not in record.marks
