"""Status and metrics are what they say; nobody outside the container can ask for anything."""

from __future__ import annotations

import calendar
import http.client
import itertools
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from forwarder.config import Rules
from forwarder.trouble import TRIES_REFUSED
from forwarder.web import metrics, server
from tests.unit.forwarding import World, a_world, config
from tests.unit.peers import SECRET

world = a_world

STATUS: dict[str, Any] = {
    "node": "room",
    "nodeAnswers": True,
    "unmatched": 3,
    "kept": [{"reason": "a reason", "images": 2}],
    "links": [
        {
            "to": "archive",
            "waiting": 7,
            "inFlight": 2,
            "setAside": 1,
            "reasons": [{"reason": "another reason", "images": 1}],
            "unconfirmed": 5,
            "older": 6,
            "confirm": "auto",
            "confirmedBy": "query",
            "note": "",
            "oldestWaiting": "2026-01-31T12:00:00Z",
            "lastDelivered": None,
            "delivered": 12,
            "failures": 3,
            "tries": 4,
            "nextTry": "2026-01-31T12:30:00Z",
            "reason": "no connection",
            "more": False,
        }
    ],
}
ASIDE = [{"to": "archive", "series": "a", "image": "i", "reason": "another reason", "tries": 3, "at": "2026-01-31T12:00:00Z"}]
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
    assert samples.pop(("oldest_waiting_seconds", "archive")) == pytest.approx(time.time() - 1769860800, abs=5)
    assert [samples.pop((name, "")) for name in ("node_up", "unmatched", "kept")] == [1, 3, 2]
    assert {name: value for (name, _), value in samples.items()} == {
        "waiting": 7,
        "in_flight": 2,
        "set_aside": 1,
        "unconfirmed": 5,
        "older": 6,
        "confirmed_by": 1,
        "delivered_total": 12,
        "failures_total": 3,
        "tries": 4,
        "last_delivered_timestamp_seconds": 0,
        "next_try_timestamp_seconds": 1769862600,
    }


@pytest.mark.parametrize(("used", "told"), [("query", "query"), (None, "none")])
def test_metrics_tell_how_a_destination_confirms(used: str | None, told: str) -> None:
    link = {**STATUS["links"][0], "confirmedBy": used}
    assert f'confirmed_by{{node="room",to="archive",method="{told}"}} 1' in metrics({**STATUS, "links": [link]})


def test_metrics_of_many_links_and_of_none() -> None:
    links = [{**STATUS["links"][0], "to": to} for to in ("archive", "second")]
    assert len(_parsed(metrics({**STATUS, "links": links}))) == 2 * 12 + 3
    assert _parsed(metrics({**STATUS, "nodeAnswers": False, "links": []}))["node_up", ""] == 0


@dataclass
class Served:
    """A server on loopback, and what it was asked for and did."""

    port: int
    did: list[str]

    def ask(self, method: str, path: str, source: str = "127.0.0.1") -> tuple[int, str, str]:
        """Status, type and text of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5, source_address=(source, 0))
        connection.request(method, path)
        answer = connection.getresponse()
        said = answer.status, answer.getheader("Content-Type", ""), answer.read().decode()
        connection.close()
        return said


@pytest.fixture
def served() -> Iterator[Served]:
    did: list[str] = []
    actions = {f"/{what}": partial(did.append, what) for what in ("retry", "recheck")}
    made = server(0, lambda: STATUS, actions, lambda: ASIDE)
    threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
    yield Served(made.server_address[1], did)
    made.shutdown()
    made.server_close()


def test_status_and_metrics_are_served(served: Served) -> None:
    code, kind, text = served.ask("GET", "/status", "127.0.0.2")
    assert (code, kind, json.loads(text)) == (200, "application/json", STATUS)
    code, kind, text = served.ask("GET", "/metrics", "127.0.0.2")
    assert (code, kind) == (200, "text/plain; version=0.0.4")
    assert _parsed(text)


def test_what_is_set_aside_is_listed_for_the_container_itself(served: Served) -> None:
    code, kind, text = served.ask("GET", "/aside")
    assert (code, kind, json.loads(text)) == (200, "application/json", {"aside": ASIDE})


def test_what_can_be_asked_for_is_asked_for_with_a_post_from_the_container_itself(served: Served) -> None:
    assert served.ask("POST", "/retry")[0] == served.ask("POST", "/recheck")[0] == 200
    assert served.did == ["retry", "recheck"]


@pytest.mark.parametrize(
    ("code", "methods", "paths", "source"),
    [
        (403, ["POST"], ["/retry", "/recheck", "/other"], "127.0.0.2"),
        (404, ["GET", "POST"], ["/", "/retry/", "/../etc/forwarder.json", "/status2", "/etc/forwarder.json"], "127.0.0.1"),
        (404, ["GET"], ["/retry"], "127.0.0.1"),
        (404, ["GET"], ["/aside"], "127.0.0.2"),
        (501, ["PUT", "DELETE", "PATCH"], ["/retry"], "127.0.0.1"),
    ],
)
def test_nobody_else_can_ask_for_anything_and_nothing_else_is_there(
    served: Served, code: int, methods: list[str], paths: list[str], source: str
) -> None:
    for method, path in itertools.product(methods, paths):
        assert served.ask(method, path, source)[0] == code, (method, path)
    assert served.did == []


def test_the_status_of_a_forwarder_that_runs_can_be_read_by_prometheus(world: World) -> None:
    world.node.add("b", 2)
    world.second.down = True
    world.set_aside("archive", "second")
    world.until(lambda: world.status("second")["tries"] > 1)
    samples = _parsed(metrics(json.loads(json.dumps(world.statuses()))))
    assert (samples[("delivered_total", "archive")], samples[("set_aside", "archive")], samples[("waiting", "archive")]) == (4, 1, 0)
    assert samples[("delivered_total", "second")] == 0
    assert samples[("waiting", "second")] + samples[("in_flight", "second")] == 5
    assert samples[("last_delivered_timestamp_seconds", "archive")] == pytest.approx(time.time(), abs=30)
    assert samples[("oldest_waiting_seconds", "archive")] == 0
    assert samples[("oldest_waiting_seconds", "second")] == pytest.approx(200_000, abs=100)
    assert samples[("next_try_timestamp_seconds", "second")] > 0


def test_reasons_are_counted_most_images_first_and_each_image_is_listed_also_by_a_new_forwarder(world: World) -> None:
    world.peer.refuses.add(SECRET)
    few, many = world.node.add("a", 2), world.node.add("b", 3, sop_class=SECRET)
    world.peer.statuses = {image.uid: "C000" for image in few}
    world.start().until(lambda: world.status()["setAside"] == 5)
    world.until(lambda: world.record("a").closed and world.record("b").closed)
    reasons = [
        {"reason": "no presentation context was accepted for its SOP class and transfer syntax", "images": 3},
        {"reason": "DIMSE status 0xC000, cannot understand", "images": 2},
    ]
    tried = len(world.peer.tried)
    for _ in range(2):
        world.until(lambda: world.status()["waiting"] == 0)
        said = world.status()
        assert (said["reasons"], said["setAside"], said["oldestWaiting"]) == (reasons, 5, None)
        listed = world.aside()
        assert sorted(one["image"] for one in listed) == sorted(image.id for image in (*few, *many))
        assert {one["reason"] for one in listed} == {one["reason"] for one in reasons}
        assert {one["to"] for one in listed} == {"archive"}
        assert min(one["tries"] for one in listed) == TRIES_REFUSED
        assert time.time() - min(calendar.timegm(time.strptime(one["at"], "%Y-%m-%dT%H:%M:%SZ")) for one in listed) < 60
        world.start()
    assert len(world.peer.tried) == tried


def test_images_of_which_a_device_may_keep_an_older_version_are_counted(world: World) -> None:
    world.peer.first_wins = True
    image = world.node.add("a", 3)[0]
    world.start(config(outside=True, aet="ARCHIVE")).delivered()
    assert world.status()["older"] == 0
    world.node.again(image)
    world.until(lambda: world.status()["older"] == 1)
    assert world.status()["setAside"] == 0
    world.until(lambda: not len(world.ledger.backlog))
    world.start()
    assert world.status()["older"] == 1
    world.node.again(image)
    world.until(lambda: len(world.peer.got) == 5 and not len(world.ledger.backlog))
    world.sweep()
    assert world.status()["older"] == 1, "of two newer versions, the node has one"


def test_images_that_no_link_is_for_are_counted_as_they_come_and_by_a_sweep(world: World) -> None:
    world.node.add("a", 3)
    world.node.add("b", 2, tags={"Modality": "MR"})
    world.start(config(rules=Rules(modality=("MR",))), config("second", rules=Rules(modality=("MR", "US"))))
    world.until(lambda: not len(world.ledger.backlog))
    world.sweep()
    assert world.statuses()["unmatched"] == 3
    world.node.add("c", 4)
    world.until(lambda: world.statuses()["unmatched"] == 7)
    world.sweep()
    assert world.statuses()["unmatched"] == 7


def test_why_images_that_are_due_are_kept_is_told(world: World) -> None:
    world.delete_after = 0
    for series in ("a", "b"):
        world.node.add(series, uid="1.2.twice")
    world.start().until(lambda: world.statuses()["kept"])
    reason = "their SOP instance UIDs are in two series: a destination confirms UIDs"
    world.until(lambda: world.statuses()["kept"] == [{"reason": reason, "images": 2}])
    assert len(world.node.images()) == 2
