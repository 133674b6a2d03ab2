"""Backlogs of different sizes: what an image of a large one costs, and how much memory the forwarder takes for it."""

from __future__ import annotations

import time
from typing import Final

from bench.orthanc import store
from bench.phantom import SMALL, Phantom
from bench.results import Results, Row
from bench.session import BenchError, Session
from bench.stack import Stack, memory_of, running

#: Images of the backlogs that are compared with each other.
BACKLOGS: Final = (1_000, 100_000)


def measure(session: Session, _runs: int) -> None:
    """Each once."""
    results = session.results("backlog")
    with running(session, "backlog") as stack:
        for images in session.size(BACKLOGS, (10, 300)):
            _backlog(stack, images, results)


def _backlog(stack: Stack, images: int, results: Results) -> None:
    """A backlog that lay there when the forwarder was started: time for each image, and the most memory that the forwarder took."""
    stack.stop()
    stack.empty()
    store(stack.client, Phantom(SMALL).files(images))
    started = time.monotonic()
    stack.start()
    peak, tenths, name = 0.0, 1, f"{images} small images"
    for delivered in stack.progress(images, 0.5):
        peak = max(peak, memory_of(stack.forwarder))
        if delivered * 10 >= images * tenths:
            results.add(Row("backlog, part", "forwarder", f"{name}, {tenths}0 %", 1, time.monotonic() - started, "s"))
            tenths += 1
    seconds = time.monotonic() - started
    results.add(Row("backlog, size", "forwarder", name, 1, 1000 * seconds / images, "ms per image"))
    results.add(Row("backlog, memory", "forwarder", name, 1, peak, "MiB"))
    if (held := stack.server.instances()) != images:
        raise BenchError(f"{held} of {images} images arrived")
