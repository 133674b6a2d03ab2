"""Forwarding: how soon a series is at the archive, how fast a backlog goes out beside the same transfer by hand, what waiting costs."""

from __future__ import annotations

import time
from typing import Final

from bench.dicom import send
from bench.orthanc import Node, send_by_jobs, store
from bench.phantom import CT, PER_SERIES, Phantom, write
from bench.results import Results, Row
from bench.session import Session
from bench.stack import Stack, cpu_seconds, memory_of, running

#: Series that are sent one after another, for the 95th percentile of their latency.
SERIES: Final = 20
#: Images of a backlog that is compared with the transfer by hand.
BACKLOG: Final = 1_000
_SEEDS_BACKLOG: Final = 200
_IDLE_SECONDS: Final = 60


def measure(session: Session, runs: int) -> None:
    """All of it, on one stack; the seed's transfer on another one, which is not there while nothing is to happen."""
    results = session.results("forward")
    images, seeds_images = session.size((BACKLOG, _SEEDS_BACKLOG), (10, 5))
    with running(session, "forward") as stack:
        _idle(stack, session.size(_IDLE_SECONDS, 1), results)
        _latency(session, stack, results)
        with running(session, "forward", "seed") as seed:
            seed.stop()
            for number in range(1, runs + 1):
                _beside_hand(stack, images, results, number)
                _seeds(seed, seeds_images, results, number)


def _idle(stack: Stack, seconds: float, results: Results) -> None:
    """What the forwarder costs while nothing comes, and what its questions cost the node."""
    with_forwarder = _cpu(seconds, f"{stack.prefix}-client", stack.forwarder)
    results.add(Row("idle", "forwarder", "CPU", 1, with_forwarder[1], "% of a core"))
    results.add(Row("idle", "forwarder", "memory", 1, memory_of(stack.forwarder), "MiB"))
    stack.stop()
    without = _cpu(seconds, f"{stack.prefix}-client")
    results.add(Row("idle", "client's Orthanc", "CPU, with the forwarder", 1, with_forwarder[0], "% of a core"))
    results.add(Row("idle", "client's Orthanc", "CPU, without", 1, without[0], "% of a core"))
    stack.start()


def _cpu(seconds: float, *containers: str) -> list[float]:
    """Per cent of a core that containers take while nothing happens."""
    before, started = [cpu_seconds(name) for name in containers], time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - started
    return [100 * (cpu_seconds(name) - was) / passed for name, was in zip(containers, before, strict=True)]


def _latency(session: Session, stack: Stack, results: Results) -> None:
    """From the last acknowledgement to the sender to the archive's confirmation, a series at a time."""
    phantom = Phantom(CT)
    count, images = session.size((SERIES, PER_SERIES), (2, 5))
    for series in range(count):
        folder = write(phantom.files(images, series), session.folder / f"latency-{series}")
        wanted = stack.status()["delivered"] + images
        send(stack.client, folder)
        sent = time.monotonic()
        stack.await_delivery(wanted, every=0.03)
        results.add(Row("latency", "forwarder", f"CT series of {images}", series + 1, time.monotonic() - sent, "s"))
        time.sleep(1)
    stack.empty()


def _beside_hand(stack: Stack, images: int, results: Results, number: int) -> None:
    """The same series, to an empty archive: sent by hand with as many jobs as the forwarder has associations, and by the forwarder.

    By hand without and with storage commitment, which the forwarder asks for each batch.
    """
    stack.hold()
    stack.empty()
    store(stack.client, Phantom(CT).files(images))
    for how, commitment in (("2 jobs", False), ("2 jobs, StorageCommitment", True)):
        stack.server.empty()
        seconds = _by_hand(stack.client, 2, commitment=commitment)
        results.add(Row("backlog", "by hand", how, number, images / seconds, "images/s"))
    stack.server.empty()
    results.add(Row("backlog", "forwarder", "2 associations", number, images / stack.deliver(images), "images/s"))


def _seeds(seed: Stack, images: int, results: Results, number: int) -> None:
    """The transfer by hand with the seed's settings."""
    seed.empty()
    store(seed.client, Phantom(CT).files(images))
    results.add(Row("backlog", "seed, by hand", "1 job", number, images / _by_hand(seed.client, 1), "images/s"))


def _by_hand(client: Node, jobs: int, *, commitment: bool = False) -> float:
    """Each series by a job, so many at once; the seconds until the last has ended."""
    series = sorted(client.call("GET", "/series"))
    return send_by_jobs(client, [[[one] for one in series[i::jobs]] for i in range(jobs)], commitment=commitment)
