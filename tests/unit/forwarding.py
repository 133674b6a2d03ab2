"""A forwarder that runs, against a node that is none (orthancs.py), in a hurry. A test file takes the fixture by ``world = a_world``."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, Self

import pytest

from forwarder import backlog, dicom, link, look, retention, trouble, watch
from forwarder.config import LinkConfig
from forwarder.link import Link
from forwarder.orthanc import Orthanc
from forwarder.record import Record, mark_of
from forwarder.retention import Retention
from forwarder.watch import Watch
from forwarder.web import asides, statuses
from tests.unit.orthancs import Node
from tests.unit.peers import SECRET, Stored


class Killed(BaseException):
    """Ends a thread of a forwarder that was killed; nothing that looks for errors is to see it."""


class Mortal(Orthanc):
    """A connection of a forwarder that can be killed: what is under way then has no effect on it any more."""

    dead = False

    def _ask(self, method: str, path: str, body: bytes | None, timeout: float) -> bytes:
        if self.dead:
            raise Killed
        answer = super()._ask(method, path, body, timeout)
        if self.dead:
            raise Killed
        return answer


def _until_killed(work: Callable[[], None]) -> None:
    with contextlib.suppress(Killed):
        work()


def _shortly(wait: Callable[[float], bool], seconds: float) -> bool:
    return wait(min(seconds, 0.02))


def config(to: str = "archive", **more: Any) -> LinkConfig:
    """A destination whose record has a number of its own."""
    return LinkConfig(**{"to": to, "record": 10000 + sum(map(ord, to)), "associations": 2, **more})


class World:
    """A node, its destinations, and a forwarder between them: not started before ``start``.

    Attributes:
        node: the node.
        peer, second: its destinations: the second is there where a link to it is started.
        delete_after: of the next forwarder that is started.
        links, watch, retention: of the forwarder that runs.
        ledger: of its first link.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._configs = [config()]
        self._threads: list[threading.Thread] = []
        self.node = Node()
        self.peer, self.second = self.node.peers["archive"], self.node.peers["second"]
        self.delete_after: int | None = None
        self.links: list[Link] = []
        self.patch(backlog, BATCH=10)
        self.patch(link, _LOOK_EVERY=0.005, _REPORT_SECONDS=0.15, _REPORT_SECONDS_PER_IMAGE=0.0, _REPORT_SECONDS_SILENT=0.05)
        self.patch(link, _LOOK_LATE=0.02, _AFTER_SURPRISE=0.1)
        self.patch(dicom, _LOOK_MOST=0.005)
        self.patch(retention, _SILENT_SECONDS=0.2)
        hurried = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: time.sleep(min(seconds, 0.02)))
        for module in (link, dicom):
            self.patch(module, time=hurried)
        self.patch(look, _QUIET=0.0)
        self.patch(watch, _POLL_BUSY=0.01, _POLL_IDLE=0.02)
        self.pause(0.02)

    def patch(self, module: Any, **values: Any) -> None:
        """Change constants of the forwarder for this world."""
        for name, value in values.items():
            self._monkeypatch.setattr(module, name, value)

    def pause(self, first: float) -> None:
        """Set the first pause after a failure, in seconds; the longest is ten times that."""
        self.patch(trouble, FIRST_PAUSE=first, LONGEST_PAUSE=first * 10, LONGEST_ASK=first * 10)

    def start(self, *links: LinkConfig | str) -> Self:
        """A new forwarder, which knows nothing; with other links where some are given."""
        self.kill()
        self._configs = [config(one) if isinstance(one, str) else one for one in links] or self._configs
        self.orthanc = Mortal("127.0.0.1", self.node.port, "user", "word")
        self.links = []
        self.retention = Retention(self.orthanc, self.links, self.delete_after)
        deletes = self.delete_after is not None
        self.links += [Link(one, self.orthanc, on_closed=self.retention.offer, deletes=deletes) for one in self._configs]
        self.ledger = self.links[0].ledger
        self.watch = Watch(self.orthanc, self.links, self.retention)
        for event in (self.retention.stopping, self.watch.stopping, self.watch._sweep_wanted):
            self.patch(event, wait=partial(_shortly, event.wait))
        for made in self.links:
            self.patch(made.ledger.changed, wait=partial(_shortly, made.ledger.changed.wait))
        work = [self.watch.follow_for_ever, self.watch.sweep_for_ever, self.retention.keep_for_ever]
        work += [one for made in self.links for one in made.threads()]
        self._threads = [threading.Thread(target=_until_killed, args=(one,), daemon=True) for one in work]
        for thread in self._threads:
            thread.start()
        self.until(lambda: self.watch.sweeps > 0 or not self.node.up or bool(self.node.broken))
        return self

    def start_with(self, series: str, images: int) -> list[Stored]:
        """Start, with a series that is delivered."""
        stored = self.node.add(series, images)
        self.start().delivered()
        return stored

    def kill(self) -> None:
        """As kill -9: nothing is ended, nothing more is written."""
        if not self._threads:
            return
        self.orthanc.dead = True
        for made in self.links:
            made.stop()
        for part in (self.watch, self.retention):
            part.stopping.set()
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive(), thread
        self._threads = []

    def sweep(self) -> None:
        """Have the database compared with the records, and wait for it."""
        before = self.watch.sweeps
        self.watch._sweep_wanted.set()
        self.until(lambda: self.watch.sweeps > before)

    def set_aside(self, *links: LinkConfig | str) -> Stored:
        """Start, with a series ``a`` of three images of which one is refused and set aside; that image."""
        image = self.node.add("a", sop_class=SECRET)[0]
        self.node.add("a", 2)
        self.peer.refuses.add(SECRET)
        self.start(*links).until(lambda: self.aside() and self.record("a").closed and len(self.lost()) == 1)
        return image

    # --- what is true of it ---

    @property
    def alive(self) -> bool:
        """Whether no thread of the forwarder has died."""
        return all(thread.is_alive() for thread in self._threads)

    def until(self, condition: Callable[[], object], seconds: float = 10.0) -> None:
        """Wait until something is true."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds} s; {self.lost()} not delivered; {self.statuses()}"
            time.sleep(0.005)

    def never(self, condition: Callable[[], object], seconds: float = 0.3) -> None:
        """Something stays untrue for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert not condition()
            time.sleep(0.005)

    def lost(self, to: str = "archive") -> list[str]:
        """Images of the node that a destination has not, or has in another version."""
        return [image.id for image in self.node.images() if self.node.peers[to].stored.get(image.uid) != image.file]

    def delivered(self, *to: str) -> None:
        """Wait until everything is at these destinations, or at all, and recorded, and nothing is left to do."""
        for made in self.links:
            if not to or made.config.to in to:
                self._delivered(made)

    def _delivered(self, made: Link) -> None:
        to = made.config.to
        self.until(lambda: not self.lost(to) and not len(made.ledger.backlog))
        for image in self.node.images():
            assert mark_of(image.file) in self.record(image.series, to).confirmed

    def record(self, series: str, to: str = "archive") -> Record:
        """What the database says."""
        with self.node.lock:
            return Record.parse(self.node.series[series].metadata.get(str(config(to).record)))

    def aside(self, to: str = "archive") -> list[dict[str, Any]]:
        """What a link has set aside, as the database has it."""
        return [one for one in asides(self.orthanc, self.links) if one["to"] == to]

    def status(self, to: str = "archive") -> dict[str, Any]:
        """What the forwarder says of a link."""
        (said,) = (one for one in self.statuses()["links"] if one["to"] == to)
        return dict(said)

    def statuses(self) -> dict[str, Any]:
        """What the forwarder says."""
        return statuses("room", self.watch, self.links, self.retention)


@pytest.fixture
def a_world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world whose forwarder is not started. Not in a conftest.py, which would put all unit tests into one process."""
    made = World(monkeypatch)
    yield made
    made.kill()
    made.node.close()
