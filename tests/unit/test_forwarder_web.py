"""Status and metrics are what they say; nobody outside the container can ask for anything."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import pytest

from forwarder.web import metrics, server
from tests.unit.forwarding import World
from tests.unit.peers import SECRET

STATUS: dict[str, Any] = {
    "node": "room",
    "nodeAnswers": True,
    "links": [
        {
            "to": "archive",
            "waiting": 7,
            "inFlight": 2,
            "setAside": 1,
            "oldestWaiting": "2026-01-31T12:00:00Z",
            "lastDelivered": None,
            "delivered": 12,
            "failures": 3,
            "tries": 4,
            "nextTry": "2026-01-31T12:30:00Z",
            "reason": "no connection",
            "more": False,
            "aside": [],
        }
    ],
}
_SAMPLE = re.compile(r'([a-z_]+)\{((?:[a-z]+="[^"\\]*",?)*)\} (-?[0-9.]+(?:e[+-]?[0-9]+)?)')


def _parsed(text: str) -> dict[tuple[str, str], float]:
    """Samples of Prometheus' text format, by name and destination; each name is described before it is used."""
    assert text.endswith("\n")
    described: dict[str, set[str]] = {}
    samples: dict[tuple[str, str], float] = {}
    for line in text.splitlines():
        if line.startswith("# "):
            _, what, name, rest = line.split(" ", 3)
            assert rest
            assert what not in described.setdefault(name, set())
            described[name].add(what)
            assert what != "TYPE" or rest in {"gauge", "counter"}
            continue
        match = _SAMPLE.fullmatch(line)
        assert match, line
        labels = dict(pair.split("=") for pair in match[2].split(","))
        assert described[match[1]] == {"HELP", "TYPE"}
        key = match[1].removeprefix("orthanc_forwarder_"), labels.get("to", "").strip('"')
        assert key not in samples
        samples[key] = float(match[3])
    return samples


def test_metrics_are_what_prometheus_reads() -> None:
    samples = _parsed(metrics(STATUS))
    assert samples[("waiting", "archive")] == 7
    assert samples[("in_flight", "archive")] == 2
    assert samples[("set_aside", "archive")] == 1
    assert samples[("delivered_total", "archive")] == 12
    assert samples[("failures_total", "archive")] == 3
    assert samples[("tries", "archive")] == 4
    assert samples[("last_delivered_timestamp_seconds", "archive")] == 0
    assert samples[("next_try_timestamp_seconds", "archive")] == 1769862600
    assert samples[("oldest_waiting_seconds", "archive")] == pytest.approx(time.time() - 1769860800, abs=5)
    assert samples[("node_up", "")] == 1


def test_metrics_of_many_links_and_of_none() -> None:
    links = [{**STATUS["links"][0], "to": to} for to in ("archive", "second")]
    assert len(_parsed(metrics({**STATUS, "links": links}))) == 2 * 9 + 1
    assert _parsed(metrics({"node": "room", "nodeAnswers": False, "links": []})) == {("node_up", ""): 0}


class _Served:
    """A server, and what was asked of it."""

    def __init__(self, status: Callable[[], dict[str, Any]]) -> None:
        self.asked: list[str] = []
        self._server = server(0, status, {"/retry": lambda: self.asked.append("retry"), "/recheck": lambda: self.asked.append("recheck")})
        self._port = self._server.server_address[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def ask(self, method: str, path: str, source: str = "127.0.0.1") -> tuple[int, str, str]:
        """Status, type and text of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5, source_address=(source, 0))
        connection.request(method, path)
        answer = connection.getresponse()
        said = answer.status, answer.getheader("Content-Type", ""), answer.read().decode()
        connection.close()
        return said


@contextmanager
def _served() -> Iterator[_Served]:
    with _Served(lambda: STATUS) as served:
        yield served


def test_status_is_json() -> None:
    with _served() as served:
        code, kind, text = served.ask("GET", "/status")
        assert (code, kind, json.loads(text)) == (200, "application/json", STATUS)


def test_metrics_are_served() -> None:
    with _served() as served:
        code, kind, text = served.ask("GET", "/metrics")
        assert (code, kind) == (200, "text/plain; version=0.0.4")
        assert _parsed(text)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/", "/retry/", "/../etc/forwarder.json", "/status2", "/etc/forwarder.json"])
def test_nothing_else_is_there(method: str, path: str) -> None:
    with _served() as served:
        assert served.ask(method, path)[0] == 404
        assert served.asked == []


@pytest.mark.parametrize("path", ["/retry", "/recheck"])
def test_what_can_be_asked_for_is_asked_for_with_a_post_from_the_container_itself(path: str) -> None:
    with _served() as served:
        assert served.ask("POST", path)[0] == 200
        assert served.asked == [path[1:]]


@pytest.mark.parametrize("path", ["/retry", "/recheck", "/other"])
def test_nobody_else_can_ask_for_anything(path: str) -> None:
    with _served() as served:
        assert served.ask("POST", path, source="127.0.0.2")[0] == 403
        assert served.asked == []


def test_a_get_changes_nothing() -> None:
    with _served() as served:
        assert served.ask("GET", "/retry")[0] == 404
        assert served.asked == []


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_other_methods_are_not_known(method: str) -> None:
    with _served() as served:
        assert served.ask(method, "/retry")[0] == 501


def test_the_status_of_a_forwarder_that_runs_can_be_read_by_prometheus() -> None:
    with World("archive", "second") as world:
        world.node.add("a", 1, sop_class=SECRET)
        world.node.add("a", 4)
        world.peer.refuses.add(SECRET)
        world.node.peers["second"].down = True
        world.start().until(lambda: world.aside() and world.status(1)["tries"] > 1 and len(world.lost()) == 1)
        world.until(lambda: world.record("a").closed)
        said = json.loads(json.dumps(world.statuses()))
        samples = _parsed(metrics(said))
        assert (samples[("delivered_total", "archive")], samples[("set_aside", "archive")], samples[("waiting", "archive")]) == (4, 1, 0)
        assert (samples[("delivered_total", "second")], samples[("waiting", "second")]) == (0, 5)
        assert samples[("last_delivered_timestamp_seconds", "archive")] == pytest.approx(time.time(), abs=30)
        assert samples[("oldest_waiting_seconds", "archive")] == 0
        assert samples[("oldest_waiting_seconds", "second")] == pytest.approx(200_000, abs=100)
        assert samples[("next_try_timestamp_seconds", "second")] > 0


def test_a_forwarder_that_has_done_everything_says_so() -> None:
    with World() as world:
        world.node.add("a", 4)
        world.start().delivered()
        said = world.status()
        assert {said[key] for key in ("waiting", "inFlight", "setAside", "tries", "failures")} == {0}
        assert (said["oldestWaiting"], said["nextTry"], said["delivered"], said["aside"]) == (None, None, 4, [])


def test_a_node_that_does_not_answer_is_told() -> None:
    with World() as world:
        world.start()
        assert world.statuses()["nodeAnswers"]
        world.node.up = False
        world.until(lambda: not world.statuses()["nodeAnswers"])
        world.node.up = True
        world.until(lambda: world.statuses()["nodeAnswers"])
