"""What `status` makes of what forwarders say."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ops.setup.console import SetupError
from ops.stack import forwarding
from ops.stack.engine import Container
from ops.stack.forwarding import report
from ops.stack.terminal import NOT_WELL
from tests.unit.containers import container

NOW = 1_800_000_000.0
IDLE = {
    "to": "server",
    "waiting": 0,
    "inFlight": 0,
    "setAside": 0,
    "unconfirmed": 0,
    "confirm": "commitment",
    "confirmedBy": "commitment",
    "note": "",
    "oldestWaiting": None,
    "lastDelivered": None,
    "tries": 0,
    "nextTry": None,
    "reason": "",
    "more": False,
    "aside": [],
}


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW + seconds))


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """The lines of the report of some links."""

    def printed(*links: dict[str, Any], answers: bool = True) -> list[str]:
        report([{"node": "client", "nodeAnswers": answers, "links": [IDLE | link for link in links]}], NOW)
        return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]

    return printed


@pytest.mark.parametrize(
    ("link", "answers", "line"),
    [
        ({"lastDelivered": _iso(-3)}, True, "commitment 0 0 0 0 - 3 s ago 0 - all delivered"),
        (
            {"waiting": 5000, "oldestWaiting": _iso(-600), "tries": 9, "nextTry": _iso(100), "reason": "connection refused"},
            True,
            "commitment 5000 0 0 0 10 min ago - 9 in 100 s connection refused",
        ),
        (
            {"waiting": 1000, "inFlight": 100, "more": True, "oldestWaiting": _iso(-200000)},
            True,
            "commitment 1000+ 100 0 0 2 d ago - 0 - sending",
        ),
        ({"inFlight": 1}, True, "commitment 0 1 0 0 - - 0 - sending"),
        ({"confirm": "auto", "confirmedBy": "stored"}, True, "auto: stored 0 0 0 0 - - 0 - all delivered"),
        (
            {"confirmedBy": None, "unconfirmed": 100, "setAside": 2, "note": "server offers none"},
            True,
            "- 0 0 2 100 - - 0 - 100 stored, not confirmed, 2 set aside; server offers none",
        ),
        ({"setAside": 1}, True, "commitment 0 0 1 0 - - 0 - 1 set aside"),
        ({"unconfirmed": 1, "tries": 1, "reason": "timeout"}, True, "commitment 0 0 0 1 - - 1 - timeout"),
        ({}, False, "? ? ? ? ? ? ? ? ? client does not answer"),
    ],
)
def test_a_link_is_a_line(link: dict[str, Any], answers: bool, line: str, lines: Callable[..., list[str]]) -> None:
    assert lines(link, answers=answers)[2:] == [f"client -> server {line}"]


def test_links_are_sorted_and_images_set_aside_are_listed(lines: Callable[..., list[str]]) -> None:
    aside = {"image": "abc", "reason": "refused", "tries": 3, "nextTry": _iso(86400)}
    printed = lines({"to": "server", "setAside": 1, "aside": [aside]}, {"to": "backup"})
    assert [line.split()[2] for line in printed[2:4]] == ["backup", "server"]
    assert printed[-1] == f"client -> server abc 3 {_iso(86400)} refused"


def test_json_is_json_alone_also_where_a_forwarder_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {"node": "client", "nodeAnswers": True, "links": [IDLE]}

    class Forwarder(Container):
        def run(self, _: Sequence[str]) -> str:
            if self.part == "dead":
                raise SetupError("it does not run")
            return json.dumps(said)

    found = [Forwarder(**vars(container(name, "forwarder"))) for name in ("alive", "dead")]
    monkeypatch.setattr(forwarding, "_forwarders", lambda _: found)
    assert forwarding.status("dev", as_json=True) == NOT_WELL
    printed = capsys.readouterr()
    assert json.loads(printed.out) == [said]
    assert "orthanc-stack-dev-dead does not answer" in printed.err


def test_a_node_that_does_not_answer_is_not_well(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forwarder(Container):
        def run(self, _: Sequence[str]) -> str:
            return json.dumps({"node": "client", "nodeAnswers": False, "links": [IDLE]})

    monkeypatch.setattr(forwarding, "_forwarders", lambda _: [Forwarder(**vars(container("f", "forwarder")))])
    assert forwarding.status("dev", as_json=False) == NOT_WELL
