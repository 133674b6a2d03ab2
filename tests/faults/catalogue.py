"""The soak's faults: what each is called, how often it comes, how long it lasts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from random import Random

from tests.faults.images import CT, MR, Image
from tests.faults.injection import accepting_and_losing, cut_off, disk_full, killed, lossy, slow, stopped
from tests.faults.sender import Sender
from tests.faults.world import SERVER, World

Begin = Callable[[World, Random], AbstractContextManager[object]]


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: what it is called in the table.
        begin: makes it; lasts as long as the context; afterwards what failed is reachable again.
        share: how often it comes in 300 faults.
        seconds: how long it lasts, from and to; for what takes its own time, 0.
    """

    name: str
    begin: Begin
    share: int
    seconds: tuple[float, float] = (0, 0)


def _kill(part: str) -> Begin:
    """Of a part; ``client`` stands for any that forwards."""
    return lambda world, rng: killed(world, part.replace("client", rng.choice(world.clients)))


def _of_server(context: Callable[..., AbstractContextManager[object]], **options: int) -> Begin:
    return lambda world, _: context(world, SERVER, **options)


def _losing(world: World, rng: Random) -> AbstractContextManager[object]:
    return accepting_and_losing(world, most=rng.randint(5, 30))


def _send(world: World, client: str, images: list[Image]) -> None:
    Sender(world.ledger).must_send(world.node(client), images, seconds=300)


@contextlib.contextmanager
def _device_away(world: World, _: Random) -> Iterator[None]:
    """The device outside is killed, and comes back."""
    assert world.device
    world.device.stop()
    try:
        yield
    finally:
        world.device.start()


@contextlib.contextmanager
def _last_image(world: World, rng: Random, *, fault: Callable[..., AbstractContextManager[None]]) -> Iterator[None]:
    """A client and its forwarder end as soon as a sender has its last acknowledgement."""
    client = rng.choice(world.clients)
    _send(world, client, list(world.new_series(rng.randint(5, 20)).images()))
    with fault(world, client, f"{client}-forwarder"):
        yield


@contextlib.contextmanager
def _recreated(world: World, rng: Random) -> Iterator[None]:
    """A client's container is replaced, because a setting changed."""
    settings = world.stack.node_settings(rng.choice(world.clients))
    settings["orthanc"] = {"StableAge": 5 + (settings.get("orthanc", {}).get("StableAge", 5) + 1) % 50}
    world.deploy()
    yield


@contextlib.contextmanager
def _twice(world: World, rng: Random) -> Iterator[None]:
    """A series three times, also while it is forwarded."""
    client, images = rng.choice(world.clients), list(world.new_series(rng.randint(10, 30)).images())
    for _ in range(3):
        _send(world, client, images)
    yield


@contextlib.contextmanager
def _corrected(world: World, rng: Random) -> Iterator[None]:
    """A series, and soon afterwards some of its images with another content."""
    client, series = rng.choice(world.clients), world.new_series(20)
    _send(world, client, list(series.images()))
    time.sleep(rng.uniform(0, 2))
    _send(world, client, [series.image(number, version=1) for number in rng.sample(range(20), 5)])
    yield


@contextlib.contextmanager
def _from_all(world: World, rng: Random) -> Iterator[None]:
    """The same series at every client, at once."""
    images = list(world.new_series(rng.randint(10, 30)).images())
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda client: _send(world, client, images), world.clients))
    yield


@contextlib.contextmanager
def _refused(world: World, rng: Random) -> Iterator[None]:
    """An image in the middle of a series that the archive does not take, until it is deployed to take it."""
    client, series = rng.choice(world.clients), world.new_series(20)
    settings = world.stack.node_settings(SERVER)["orthanc"]
    if settings["AcceptedSopClasses"] != [CT]:
        settings["AcceptedSopClasses"] = [CT]
        world.deploy()
    _send(world, client, [series.image(number, sop_class=MR if number == 9 else CT) for number in range(20)])
    yield
    settings["AcceptedSopClasses"] = [CT, MR]
    world.deploy()


KILLS = (
    Fault("client's Orthanc killed (-9)", _kill("client"), 50),
    Fault("forwarder killed (-9)", _kill("client-forwarder"), 50),
    Fault("archive's Orthanc killed (-9)", _kill(SERVER), 50),
    Fault("PostgreSQL killed (-9)", _kill("db"), 50),
)
#: What also the short tests make, under load: of the others they look at more than that nothing is lost.
UNDER_LOAD = (
    Fault("client and forwarder stopped after the last image", partial(_last_image, fault=stopped), 8),
    Fault("client and forwarder killed after the last image", partial(_last_image, fault=killed), 10),
    Fault("archive stopped", _of_server(stopped), 14, (3, 15)),
    Fault("archive off the network", _of_server(cut_off), 16, (2, 12)),
    Fault("10 % of packets to the archive lost", _of_server(lossy, percent=10), 10, (4, 10)),
    Fault("slow line from the archive (256 kbit/s)", _of_server(slow, kilobits=256), 5, (4, 10)),
    Fault("the same images three times", _twice, 5),
    Fault("the same series at two clients", _from_all, 4),
)
FAULTS = (
    *KILLS,
    *UNDER_LOAD,
    Fault("archive's disk full", _of_server(disk_full), 8, (3, 10)),
    Fault("archive accepts and loses files", _losing, 10, (3, 8)),
    Fault("device outside the stack away", _device_away, 14, (2, 12)),
    Fault("archive stopped for long", _of_server(stopped), 1, (90, 90)),
    Fault("client replaced by a changed setting", _recreated, 3),
    Fault("images with new content", _corrected, 4),
    Fault("an image that the archive refuses", _refused, 2, (4, 8)),
)


def plan(count: int, rng: Random) -> list[Fault]:
    """So many faults, in the catalogue's proportions, in a random order; of the kills at least their share."""
    total = sum(fault.share for fault in FAULTS)
    chosen = [fault for fault in FAULTS for _ in range(max(1, fault.share * count // total))]
    chosen += [KILLS[i % len(KILLS)] for i in range(max(0, count - len(chosen)))]
    rng.shuffle(chosen)
    return chosen
