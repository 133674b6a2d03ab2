"""Serves status as JSON and metrics for Prometheus; takes requests from inside the container."""

from __future__ import annotations

import calendar
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from operator import itemgetter
from typing import Any

from forwarder.link import Link
from forwarder.orthanc import Orthanc, epoch
from forwarder.retention import Retention
from forwarder.watch import Watch

_ISO = "%Y-%m-%dT%H:%M:%SZ"


def link_status(link: Link) -> dict[str, Any]:
    """How a link is."""
    ledger = link.ledger
    with ledger.changed:
        entries = list(ledger.backlog)
        resting = sum((entry.resting for entry in entries), Counter(ledger.backlog.elsewhere))
        unconfirmed = resting.pop("", 0)
        oldest = min((since for entry in entries if (since := entry.oldest)), default=None)
        return {
            "to": link.config.to,
            "waiting": sum(entry.count for entry in entries),
            "inFlight": sum(len(entry.in_flight) for entry in entries),
            "setAside": resting.total(),
            "reasons": _by_reason(resting),
            "unconfirmed": unconfirmed,
            "older": sum(ledger.older.values()),
            "confirm": link.config.confirm,
            "confirmedBy": ledger.offers.in_use,
            "note": link.note,
            "oldestWaiting": _iso(epoch(oldest) if oldest else None),
            "lastDelivered": _iso(ledger.last_delivered),
            "delivered": ledger.delivered,
            "failures": ledger.failures,
            "tries": ledger.backoff.tries,
            "nextTry": _iso(time.time() + max(0.0, ledger.backoff.until - time.monotonic()) if ledger.backoff.tries else None),
            "reason": ledger.backoff.reason,
            "more": ledger.backlog.overflowed,
        }


#: Each metric of a link: its type, its meaning, and its value by the link's status.
_METRICS: Mapping[str, tuple[str, str, Callable[[Mapping[str, Any]], float]]] = {
    "waiting": ("gauge", "Images that wait to be sent.", itemgetter("waiting")),
    "in_flight": ("gauge", "Images that are being sent or confirmed.", itemgetter("inFlight")),
    "set_aside": ("gauge", "Images that are set aside; they are tried again now and then.", itemgetter("setAside")),
    "older": ("gauge", "Images that the destination confirmed, and of which it may keep an older version.", itemgetter("older")),
    "unconfirmed": ("gauge", "Images that the destination has taken and not confirmed; it is asked again.", itemgetter("unconfirmed")),
    "oldest_waiting_seconds": (
        "gauge",
        "Age of the oldest image that is neither confirmed nor set aside; 0 where there is none.",
        lambda link: round(max(0.0, time.time() - at), 1) if (at := _of_iso(link["oldestWaiting"])) else 0,
    ),
    "last_delivered_timestamp_seconds": (
        "gauge",
        "When an image was last confirmed; 0 where none was since the start.",
        lambda link: _of_iso(link["lastDelivered"]),
    ),
    "delivered_total": ("counter", "Images that the destination confirmed since the start.", itemgetter("delivered")),
    "failures_total": ("counter", "Failures of the destination, and of images, since the start.", itemgetter("failures")),
    "tries": ("gauge", "Tries of the destination that failed, one after another, until now.", itemgetter("tries")),
    "next_try_timestamp_seconds": (
        "gauge",
        "When the destination is tried again; 0 where it works.",
        lambda link: _of_iso(link["nextTry"]),
    ),
}


def metrics(status: Mapping[str, Any]) -> str:
    """A status in Prometheus' text format."""
    return "\n".join(_lines(status)) + "\n"


def _lines(status: Mapping[str, Any]) -> Iterator[str]:
    node = f'node="{status["node"]}"'
    of_links = [(f'{node},to="{link["to"]}"', link) for link in status["links"]]
    for name, (kind, meaning, value) in _METRICS.items():
        yield from _metric(name, kind, meaning, {labels: value(link) for labels, link in of_links})
    methods = {f'{labels},method="{link["confirmedBy"] or "none"}"': 1 for labels, link in of_links}
    yield from _metric("confirmed_by", "gauge", "How the destination confirms: the method is commitment, query, stored or none.", methods)
    yield from _metric("node_up", "gauge", "Whether the node's Orthanc answers.", {node: int(status["nodeAnswers"])})
    yield from _metric("unmatched", "gauge", "Images that go to no destination.", {node: status["unmatched"]})
    kept = sum(one["images"] for one in status["kept"])
    yield from _metric("kept", "gauge", "Images that are due, confirmed, and not deleted; the status says why.", {node: kept})


def _metric(name: str, kind: str, meaning: str, values: Mapping[str, float]) -> Iterator[str]:
    yield f"# HELP orthanc_forwarder_{name} {meaning}"
    yield f"# TYPE orthanc_forwarder_{name} {kind}"
    for labels, value in values.items():
        yield f"orthanc_forwarder_{name}{{{labels}}} {value}"


def server(
    port: int, status: Callable[[], dict[str, Any]], actions: Mapping[str, Callable[[], None]], aside: Callable[[], list[dict[str, Any]]]
) -> ThreadingHTTPServer:
    """The web server, not started; on all of the container's addresses.

    It tells the status to all. From the container itself it takes ``actions``, by path, and lists what is set aside.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/status":
                self._answer(200, json.dumps(status(), indent=1), "application/json")
            elif self.path == "/metrics":
                self._answer(200, metrics(status()), "text/plain; version=0.0.4")
            elif self.path == "/aside" and self.client_address[0] == "127.0.0.1":
                self._answer(200, json.dumps({"aside": aside()}), "application/json")
            else:
                self._answer(404, "There are /status and /metrics.\n", "text/plain")

        def do_POST(self) -> None:
            action = actions.get(self.path)
            if self.client_address[0] != "127.0.0.1":
                self._answer(403, "Only from the forwarder's own container.\n", "text/plain")
            elif action is None:
                self._answer(404, f"There are {', '.join(sorted(actions))}.\n", "text/plain")
            else:
                action()
                self._answer(200, "{}", "application/json")

        def _answer(self, code: int, text: str, kind: str) -> None:
            body = text.encode()
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Not in the log: it is asked every few seconds."""

    made = ThreadingHTTPServer(("0.0.0.0", port), Handler)
    made.daemon_threads = True
    return made


def statuses(node: str, watch: Watch, links: Sequence[Link], retention: Retention) -> dict[str, Any]:
    """How the forwarder is."""
    kept = sum(list(retention.kept.values()), Counter[str]())
    return {
        "node": node,
        "nodeAnswers": bool(watch.node_up),
        "unmatched": watch.unmatched,
        "kept": _by_reason(kept),
        "links": [link_status(link) for link in links],
    }


def asides(orthanc: Orthanc, links: Sequence[Link]) -> list[dict[str, Any]]:
    """All images that are set aside, as the database has them: ``at`` is when each was last tried."""
    return [
        {"to": link.config.to, "series": series.id, "image": one.image, "reason": one.reason, "tries": one.tries, "at": _iso(one.at)}
        for ids in orthanc.pages(threading.Event())
        for series in orthanc.readable(ids)
        for link in links
        for _, one in sorted(link.ledger.record_of(series).aside.items())
    ]


def _by_reason(images: Counter[str]) -> list[dict[str, Any]]:
    """Counts of images by reason, the largest first."""
    return [{"reason": reason, "images": count} for reason, count in sorted(images.items(), key=lambda one: (-one[1], one[0])) if count]


def _iso(seconds: float | None) -> str | None:
    return time.strftime(_ISO, time.gmtime(seconds)) if seconds else None


def _of_iso(text: str | None) -> int:
    return calendar.timegm(time.strptime(text, _ISO)) if text else 0
