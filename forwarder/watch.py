"""Finds series that may hold something new: the changes log for what has just come, sweeps for everything else."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from forwarder import say
from forwarder.link import Link
from forwarder.orthanc import AnswerError, NodeDownError, Orthanc, Series
from forwarder.retention import Retention

#: Seconds between two looks into the changes log, while images come and otherwise.
_POLL_BUSY, _POLL_IDLE = 0.2, 0.5
_BUSY_SECONDS = 10.0
#: Changes and series that are read at once.
_CHANGES = 1000
#: Seconds after which changes are read once more.
_READ_AGAIN_SECONDS = 5.0
#: Seconds between two sweeps.
_SWEEP_EVERY = 3600.0


class Watch:
    """Follows one Orthanc for all its links.

    The changes log is only a hint: it can be cleared, and after a restored backup it begins anew. What it does not say, a sweep over
    all series finds: at the start, each hour, and when the log is seen to have gone back.
    """

    def __init__(self, orthanc: Orthanc, links: Sequence[Link], retention: Retention) -> None:
        self._orthanc, self._links, self._retention = orthanc, links, retention
        self._sweep_wanted = threading.Event()
        self.stopping = threading.Event()
        self.beat = time.monotonic()
        self.node_up: bool | None = None
        self.sweeps = 0
        self._position: int | None = None
        self._last_new = 0.0
        self._seen: set[int] = set()
        self._read_again_from = self._read_again_to = 0
        self._read_again_at = 0.0
        self._unmatched = 0
        self._unmatched_since: dict[str, int] = {}

    def follow_for_ever(self) -> None:
        """The work of the thread that follows the changes log."""
        while not self.stopping.is_set():
            self.beat = time.monotonic()
            try:
                if self._position is None:
                    # Its end is read before the first sweep begins: what comes during the sweep is seen after it.
                    self._begin_at(int(self._orthanc.get("/changes?last")["Last"]))
                self._follow()
                self._read_again()
                self._note_node(True)
            except NodeDownError as error:
                self._note_node(False, str(error))
                self.stopping.wait(1.0)
            except (AnswerError, KeyError, TypeError, ValueError) as error:
                say("node failed", reason=type(error).__name__)
                self.stopping.wait(5.0)
            else:
                self.stopping.wait(_POLL_BUSY if time.monotonic() - self._last_new < _BUSY_SECONDS else _POLL_IDLE)

    def _begin_at(self, position: int) -> None:
        self._position = self._read_again_from = self._read_again_to = position

    def _follow(self) -> None:
        """Read what is new in the changes log."""
        while not self.stopping.is_set():
            page = self._orthanc.get(f"/changes?since={self._position}&limit={_CHANGES}")
            if int(page["Last"]) < (self._position or 0):
                say("changes log went back", wanted=self._position, found=page["Last"])
                self._begin_at(int(page["Last"]))
                self._sweep_wanted.set()
                return
            self._consider(page["Changes"])
            self._position = int(page["Last"])
            self.beat = time.monotonic()
            if page["Done"]:
                return

    def _read_again(self) -> None:
        """Read what was read some seconds ago once more.

        PostgreSQL numbers changes before they can be seen: 5 may come before 4.
        """
        if time.monotonic() - self._read_again_at < _READ_AGAIN_SECONDS:
            return
        end, self._read_again_at = self._read_again_to, time.monotonic()
        while (start := self._read_again_from) < end and not self.stopping.is_set():
            page = self._orthanc.get(f"/changes?since={start}&limit={_CHANGES}")
            self._consider([change for change in page["Changes"] if change["Seq"] not in self._seen])
            self._read_again_from = max(start + 1, int(page["Last"]))
        self._seen = {number for number in self._seen if number > end}
        self._read_again_from, self._read_again_to = end, self._position or 0

    def _consider(self, changes: Sequence[Mapping[str, Any]]) -> None:
        """Look at the series of new instances."""
        self._seen.update(change["Seq"] for change in changes)
        new = [change["ID"] for change in changes if change["ChangeType"] == "NewInstance"]
        if new:
            self._last_new = time.monotonic()
        for series in self._orthanc.readable(new):
            if (unmatched := self._unmatched_in(series, new=True)) is not None:
                since = self._unmatched_since.get(series.id, 0) + len(set(series.images).intersection(new))
                self._unmatched_since[series.id] = min(since, unmatched)

    def sweep_for_ever(self) -> None:
        """The work of the thread that sweeps."""
        due = time.monotonic()
        while not self.stopping.is_set():
            self._sweep_wanted.wait(1.0)
            overflowed = any(link.ledger.backlog.overflowed and link.ledger.backlog.has_room for link in self._links)
            if not self.node_up or not (self._sweep_wanted.is_set() or overflowed or time.monotonic() > due):
                self.stopping.wait(0.1)
                continue
            self._sweep_wanted.clear()
            try:
                self._sweep()
                due = time.monotonic() + _SWEEP_EVERY
                self.sweeps += 1
            except (NodeDownError, AnswerError, KeyError, TypeError, ValueError):
                self._sweep_wanted.set()
                self.stopping.wait(2.0)

    def _sweep(self) -> None:
        """Compare every series with its records, page by page, with a pause after each page as long as it took."""
        started, seen, open_, unmatched = time.monotonic(), 0, 0, 0
        self._unmatched_since.clear()
        for link in self._links:
            link.ledger.sweep(begins=True)
        self._retention.kept.clear()
        for ids in self._orthanc.pages(self.stopping):
            began = time.monotonic()
            for series in self._orthanc.readable(ids):
                if (of_series := self._unmatched_in(series, new=False)) is None:
                    open_ += 1
                    continue
                unmatched += of_series
                self._retention.offer(series)
            seen += len(ids)
            self.stopping.wait(time.monotonic() - began)
        if not self.stopping.is_set():
            for link in self._links:
                link.ledger.sweep(begins=False)
            self._unmatched = unmatched
            say("swept", series=seen, not_delivered=open_, seconds=round(time.monotonic() - started, 1))

    @property
    def unmatched(self) -> int:
        """How many images go to no destination, as far as the last sweep and what came since tell."""
        return self._unmatched + sum(list(self._unmatched_since.values()))

    def _unmatched_in(self, series: Series, *, new: bool) -> int | None:
        """How many images of a series go to no destination; None where a destination wants something of it. Each is asked."""
        answers = [link.consider(series, new=new) for link in self._links]
        marks = [one for one in answers if one is not None]
        return max(0, len(series.images) - len(set[str]().union(*marks))) if len(marks) == len(answers) else None

    def _note_node(self, up: bool, reason: str = "") -> None:
        if up and not self.node_up:
            # At the start, and after an outage: it may have come back with an older database.
            self._sweep_wanted.set()
            say("node answers")
        elif not up and self.node_up is not False:
            say("node does not answer", reason=reason)
        self.node_up = up
