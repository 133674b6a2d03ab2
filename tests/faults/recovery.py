"""How long it takes after a fault until everything is right again, measured while the next ones come."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.faults.world import World

_EVERY = 0.5


@dataclass
class Episode:
    """One fault that happened; times on time.monotonic()'s clock.

    Attributes:
        ended: when what failed was reachable again.
        ended_at: likewise, in UTC as the forwarder writes it.
        recovered: seconds from its end until nothing waited that was acknowledged by then; None until it is known.
        disturbed: another fault began meanwhile.
    """

    fault: str
    began: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    ended_at: str = ""
    recovered: float | None = None
    disturbed: bool = False
    _pending: set[str] = field(default_factory=set)


class Recovery:
    """Follows the archive's changes log, while it comes and goes, and waits for each episode that has ended."""

    def __init__(self, world: World) -> None:
        self.episodes: list[Episode] = []
        self._world = world
        self._archive = world.archive
        self._arrived: set[str] = set()
        self._seen = 0
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
        with self._lock:
            for other in self._open:
                other.disturbed = True
            self.episodes.append(episode := Episode(fault))
        return episode

    def end(self, episode: Episode) -> None:
        """What failed is reachable again."""
        episode.ended, episode.ended_at = time.monotonic(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        episode._pending = set(self._world.ledger.promised())
        with self._lock:
            self._open.append(episode)

    def wait(self, seconds: float, until: Callable[[], bool] = lambda: True) -> None:
        """Wait until all that ended are over."""
        end = time.monotonic() + seconds
        while (self._open or not until()) and time.monotonic() < end:
            time.sleep(_EVERY)

    def _watch(self) -> None:
        while not self._stop.wait(_EVERY):
            with contextlib.suppress(Exception):  # of a node that is away or being replaced: the next look tells
                self._read_changes()
                if self._open:
                    self._look()

    def _read_changes(self) -> None:
        done = False
        while not done and not self._stop.is_set():
            page = self._archive.json(f"/changes?since={self._seen}&limit=1000", seconds=5)
            self._arrived.update(change["ID"] for change in page["Changes"] if change["ChangeType"] == "NewInstance")
            self._seen, done = page["Last"], page["Done"]

    def _look(self) -> None:
        now = time.monotonic()
        oldest = self._oldest_waiting()
        for episode in list(self._open):
            episode._pending -= self._arrived
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
            found += [link["oldestWaiting"] for link in links if link["oldestWaiting"]]
        return min(found)
