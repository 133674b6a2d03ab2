"""A forwarder that runs, against a node that is none (orthancs.py), in a hurry."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import pytest

from forwarder import backlog, ledger, link, look, trouble, watch
from forwarder.backlog import Waiting
from forwarder.config import LinkConfig
from forwarder.keeper import Keeper
from forwarder.link import Link
from forwarder.orthanc import Orthanc
from forwarder.record import Record, mark_of
from forwarder.watch import Watch
from forwarder.web import statuses
from tests.unit.orthancs import Node
from tests.unit.peers import Peer


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


class Hasty(threading.Event):
    """An event for which nobody waits long."""

    def wait(self, timeout: float | None = None) -> bool:
        """As Event's, at most 20 ms."""
        return super().wait(min(0.02, timeout or 0.02))


class HastyCondition(threading.Condition):
    """A condition for which nobody waits long: the forwarder's senders look again every half second at the latest."""

    def wait(self, timeout: float | None = None) -> bool:
        """As Condition's, at most 20 ms."""
        return super().wait(min(0.02, timeout or 0.02))


def config(to: str, **more: Any) -> LinkConfig:
    """A destination whose record has a number of its own."""
    return LinkConfig(**{"to": to, "record": 10000 + sum(map(ord, to)), "associations": 2, **more})


class World:
    """A node, its destinations, and a forwarder between them: not started before ``start``.

    Attributes:
        node: the node.
        links, watch, keeper: of the forwarder that runs.
    """

    def __init__(self, *links: LinkConfig | str, delete_after: int | None = None, batch: int = 10, pause: float = 0.02) -> None:
        self._configs = [config(one) if isinstance(one, str) else one for one in links or ("archive",)]
        self._delete_after = delete_after
        self._patches = pytest.MonkeyPatch()
        self.node = Node(*(one.to for one in self._configs))
        self.orthanc = Mortal("127.0.0.1", self.node.port, "user", "word")
        self.links: list[Link] = []
        self._threads: list[threading.Thread] = []
        self.patch(ledger, BATCH=batch)
        self.patch(trouble, FIRST_PAUSE=pause, LONGEST_PAUSE=pause * 10)
        self.patch(backlog, LONGEST_PAUSE=pause * 10)
        self.patch(link, _LOOK_EVERY=0.005, _REPORT_SECONDS=0.15, _REPORT_SECONDS_PER_IMAGE=0.0, _AFTER_SURPRISE=0.1)
        self.patch(look, LONGEST_PAUSE=pause * 10, _QUIET=0.0)
        self.patch(watch, _POLL_BUSY=0.01, _POLL_IDLE=0.02)

    def patch(self, module: Any, **values: Any) -> None:
        """Change constants of the forwarder for this world."""
        for name, value in values.items():
            self._patches.setattr(module, name, value)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()
        self.node.server.shutdown()
        self.node.server.server_close()
        self._patches.undo()

    @property
    def peer(self) -> Peer:
        """The first destination."""
        return self.node.peers[self._configs[0].to]

    @property
    def link(self) -> Link:
        """The first link."""
        return self.links[0]

    def start(self, *links: LinkConfig) -> Self:
        """A new forwarder, which knows nothing; with other links where some are given."""
        self.kill()
        self._configs = list(links) or self._configs
        self.orthanc = Mortal("127.0.0.1", self.node.port, "user", "word")
        self.links = []
        self.keeper = Keeper(self.orthanc, self.links, self._delete_after)
        self.links += [Link(one, self.orthanc, on_closed=self.keeper.offer_id) for one in self._configs]
        for made in self.links:
            made.ledger.changed = HastyCondition()
        self.watch = Watch(self.orthanc, self.links, on_delivered=self.keeper.offer)
        self.keeper.stopping = self.watch.stopping = Hasty()
        self.watch._sweep_wanted = Hasty()
        work = [self.watch.follow_for_ever, self.watch.sweep_for_ever, self.keeper.keep_for_ever]
        work += [one for made in self.links for one in made.threads()]
        self._threads = [threading.Thread(target=_until_killed, args=(one,), daemon=True) for one in work]
        for thread in self._threads:
            thread.start()
        self.until(lambda: self.watch.sweeps > 0 or not self.node.up or bool(self.node.broken))
        return self

    def kill(self) -> None:
        """As kill -9: nothing is ended, nothing more is written."""
        self.orthanc.dead = True
        for made in self.links:
            made.stop()
        if self._threads:
            self.watch.stopping.set()
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive(), thread
        self._threads = []

    @property
    def alive(self) -> bool:
        """Whether no thread of the forwarder has died."""
        return all(thread.is_alive() for thread in self._threads)

    # --- what is true of it ---

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

    def lost(self, to: str | None = None) -> list[str]:
        """Images of the node that a destination has not, or has in another version."""
        peer = self.node.peers[to] if to else self.peer
        return [image.id for image in self.node.images() if peer.stored.get(image.uid) != image.file]

    def delivered(self, to: str | None = None) -> None:
        """Wait until everything is at a destination, and recorded, and nothing is left to do."""
        number = next(one for one, configured in enumerate(self._configs) if to in (None, configured.to))
        self.until(lambda: not self.lost(to) and not len(self.links[number].ledger.backlog))
        for image in self.node.images():
            assert mark_of(image.file) in self.record(image.series, to).confirmed

    def record(self, series: str, to: str | None = None) -> Record:
        """What the database says."""
        number = next(one.record for one in self._configs if to in (None, one.to))
        with self.node.lock:
            return Record.parse(self.node.series[series].metadata.get(str(number)))

    def aside(self) -> list[Waiting]:
        """What the first link has set aside."""
        held = self.link.ledger
        with held.changed:
            return [one for entry in held.backlog for one in (entry.waiting or {}).values() if one.aside]

    def status(self, to: int = 0) -> dict[str, Any]:
        """What the forwarder says of a link."""
        said: dict[str, Any] = self.statuses()["links"][to]
        return said

    def statuses(self) -> dict[str, Any]:
        """What the forwarder says."""
        return statuses("room", bool(self.watch.node_up), self.links) if self._threads else {"links": []}

    def sweep(self) -> None:
        """Have the database compared with the records, and wait for it."""
        before = self.watch.sweeps
        self.watch.sweep_soon()
        self.until(lambda: self.watch.sweeps > before)
