"""How long it takes after a fault until everything is right again, measured while the next ones come."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.faults.archive import Feed
from tests.faults.world import World

_EVERY = 0.5


@dataclass
class Episode:
    """One fault that happened.

    Attributes:
        fault: its name.
        began, ended: on time.monotonic()'s clock; ended when what failed was reachable again.
        ended_at: likewise, in UTC as the forwarder writes it.
        recovered: seconds from its end until nothing waited that was acknowledged by then; None until it is known.
        disturbed: another fault began meanwhile.
        error: what went wrong with making it.
    """

    fault: str
    began: float
    ended: float = 0.0
    ended_at: str = ""
    recovered: float | None = None
    disturbed: bool = False
    error: str = ""
    _pending: set[str] = field(default_factory=set)


class Recovery:
    """Waits for each episode that has ended."""

    def __init__(self, world: World, feed: Feed) -> None:
        self.episodes: list[Episode] = []
        self._world = world
        self._feed = feed
        self._open: list[Episode] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Recovery:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def begin(self, fault: str) -> Episode:
        """A fault begins."""
        with self._lock:
            for other in self._open:
                other.disturbed = True
            episode = Episode(fault, time.monotonic())
            self.episodes.append(episode)
        return episode

    def end(self, episode: Episode) -> None:
        """What failed is reachable again."""
        episode.ended, episode.ended_at = time.monotonic(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        episode._pending = self._feed.missing(self._world.ledger.promised())
        with self._lock:
            self._open.append(episode)

    def wait(self, seconds: float, until: Callable[[], bool] = lambda: True) -> bool:
        """Wait until all that ended are over; whether they are."""
        end = time.monotonic() + seconds
        while (self._open or not until()) and time.monotonic() < end:
            time.sleep(_EVERY)
        return not self._open

    def _watch(self) -> None:
        while not self._stop.wait(_EVERY):
            if self._open:
                with contextlib.suppress(Exception):  # of a node that is being replaced: the next look tells
                    self._look()

    def _look(self) -> None:
        now = time.monotonic()
        oldest = self._oldest_waiting()
        for episode in list(self._open):
            episode._pending = self._feed.missing(episode._pending)
            if not episode._pending and oldest is not None and oldest > episode.ended_at:
                episode.recovered = now - episode.ended
                with self._lock:
                    self._open.remove(episode)

    def _oldest_waiting(self) -> str | None:
        """Since when the oldest image waits that any forwarder knows of; None where one does not answer."""
        found = ["9999"]
        for client in self._world.clients:
            links = self._world.try_status(client)
            if links is None:
                return None
            found += [link.oldest_waiting for link in links if link.oldest_waiting]
        return min(found)
