"""`python3 -m forwarder`: runs until it is stopped. With a word (`status`, `aside`, or one of its actions): asks the one that runs."""

from __future__ import annotations

import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from forwarder import say
from forwarder.config import Config, load
from forwarder.link import Link
from forwarder.orthanc import Orthanc
from forwarder.retention import Retention
from forwarder.watch import Watch
from forwarder.web import asides, server, statuses

#: Touched while all is well; the container's health check looks at its age.
ALIVE = Path("/tmp/forwarder-alive")
_BEAT_SECONDS = 5.0
#: The thread that follows the changes log hangs if it was silent for so long: its longest request takes a minute.
_SILENCE_SECONDS = 300.0
#: How long what is being sent may take to be confirmed when the forwarder is stopped. What is cut off is sent again.
_STOP_SECONDS = 10.0


def run(config: Config) -> int:
    """Forward until SIGTERM. Returns 1 where a thread has died or hangs: the engine then starts the container anew."""
    orthanc = Orthanc(config.host, config.port, config.user, config.password, config.trust)
    links: list[Link] = []
    retention = Retention(orthanc, links, config.delete_after)
    deletes = config.delete_after is not None
    links += [Link(link, orthanc, on_closed=retention.offer, deletes=deletes, scu_timeout=config.scu_timeout) for link in config.links]
    watch = Watch(orthanc, links, retention)
    web = server(
        config.port_status,
        status=lambda: statuses(config.node, watch, links, retention),
        actions={
            "/retry": lambda: retry(links),
            "/recheck": retention.recheck_soon,
            "/hold": retention.hold,
            "/release": retention.release,
        },
        aside=lambda: asides(orthanc, links),
    )
    work: list[Callable[[], object]] = [watch.follow_for_ever, watch.sweep_for_ever, retention.keep_for_ever, web.serve_forever]
    for link in links:
        work += link.threads()
    threads = [threading.Thread(target=one, daemon=True) for one in work]
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    ALIVE.unlink(missing_ok=True)  # of a run before, in the same container
    say("started", node=config.node, to=",".join(link.to for link in config.links))
    for thread in threads:
        thread.start()
    while not stop.is_set():
        if not all(thread.is_alive() for thread in threads) or time.monotonic() - watch.beat > _SILENCE_SECONDS:
            say("a thread has died or hangs: starting anew")
            return 1
        ALIVE.touch()
        stop.wait(_BEAT_SECONDS)
    for part in (watch, retention):
        part.stopping.set()
    for link in links:
        link.stop()
    end = time.monotonic() + _STOP_SECONDS
    while any(link.ledger.at_work for link in links) and time.monotonic() < end:
        time.sleep(0.1)
    say("stopped", unconfirmed=sum(link.ledger.at_work for link in links))
    return 0


def retry(links: Sequence[Link]) -> None:
    """Try at once everything that waits for a pause to end."""
    for link in links:
        link.ledger.retry()


def ask(config: Config, what: str) -> int:
    """Ask the forwarder that runs in this container, and print its answer."""
    address = f"http://127.0.0.1:{config.port_status}/{what}"
    request = urllib.request.Request(address, method="GET" if what in ("status", "aside") else "POST")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=600) as answer:
        print(answer.read().decode())
    return 0


if __name__ == "__main__":
    sys.exit(run(load()) if len(sys.argv) == 1 else ask(load(), sys.argv[1]))
