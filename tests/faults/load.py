"""A load: scanners that send series after series, at a pace."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from random import Random

from tests.faults.images import LARGE, SMALL
from tests.faults.sender import Sender
from tests.faults.world import SCANNER, World

#: One series in so many is of large images.
_LARGE_EVERY = 25


class Pace:
    """So many images a second, for all scanners together; and a series only begins when its images are allowed by then.

    Between series, not within one, because a scanner does not hold an association open without using it: Orthanc waits for such a one
    before it stops.
    """

    def __init__(self, per_second: float, allowed: Callable[[], float] = lambda: float("inf")) -> None:
        self._pause = 1 / per_second
        self._allowed = allowed
        self._next = time.monotonic()
        self._taken = 0
        self._lock = threading.Lock()
        self.stop = threading.Event()

    def may_begin(self) -> bool:
        """Wait until a series may begin; False where none does any more."""
        while not self.stop.is_set() and self._taken >= self._allowed():
            time.sleep(0.1)
        return not self.stop.is_set()

    def wait(self) -> None:
        """Wait until an image may be sent."""
        with self._lock:
            now = time.monotonic()
            # What was not used while a node was down is not made up for in one go.
            at = self._next = max(self._next, now - 1) + self._pause
            self._taken += 1
        time.sleep(max(0.0, at - now))


class Load:
    """Scanners at work, one for each client.

    Attributes:
        given_up: images that were never acknowledged, and that nobody was promised.
    """

    def __init__(self, world: World, pace: Pace, rng: Random, images: tuple[int, int] = (20, 200)) -> None:
        self.given_up = 0
        self._world = world
        self._pace = pace
        self._images = images
        self._senders = [Sender(SCANNER, world.ledger) for _ in world.clients]
        self._threads = [
            threading.Thread(target=self._work, args=(sender, client, Random(rng.random())), daemon=True)
            for sender, client in zip(self._senders, world.clients, strict=True)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def finish(self, seconds: float = 120) -> None:
        """Send what is left of the series that are being sent, and nothing more."""
        self._pace.stop.set()
        for thread in self._threads:
            thread.join(seconds)
        for sender in self._senders:
            sender.stop.set()

    def _work(self, sender: Sender, client: str, rng: Random) -> None:
        while self._pace.may_begin():
            large = rng.randrange(_LARGE_EVERY) == 0
            count = self._images[0] if large else rng.randint(*self._images)
            series = self._world.new_series(count, LARGE if large else SMALL)
            left = sender.send(self._world.node(client), series.images(), seconds=600, wait=self._pace.wait)
            self.given_up += left


@contextlib.contextmanager
def load(world: World, per_second: float, rng: Random, images: tuple[int, int] = (5, 20)) -> Iterator[None]:
    """A load for as long as the context lasts; afterwards everything that was begun has been acknowledged."""
    made = Load(world, Pace(per_second), rng, images)
    made.start()
    try:
        yield
    finally:
        made.finish()
    assert not made.given_up, f"{made.given_up} images were never acknowledged"
