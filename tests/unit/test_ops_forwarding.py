"""What `status` makes of what forwarders say."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from forwarder import trouble
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
    "reasons": [],
    "older": 0,
}
#: What only newer forwarders tell of a link.
NEWER = ("unconfirmed", "confirm", "confirmedBy", "note", "reasons", "older")


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW + seconds))


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """The lines of the report of some links, and of what else is told of their node."""

    def printed(*links: dict[str, Any], answers: bool = True, **more: Any) -> list[str]:
        report([{"node": "client", "nodeAnswers": answers, "links": [IDLE | link for link in links], **more}], NOW)
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
            {"confirmedBy": None, "unconfirmed": 100, "setAside": 2},
            True,
            "- 0 0 2 100 - - 0 - 100 stored, not confirmed, 2 set aside",
        ),
        ({"setAside": 1}, True, "commitment 0 0 1 0 - - 0 - 1 set aside"),
        ({"unconfirmed": 1}, True, "commitment 0 0 0 1 - - 0 - 1 stored, not confirmed"),
        ({"more": True}, True, "commitment 0+ 0 0 0 - - 0 - sending"),
        ({"unconfirmed": 1, "tries": 1, "reason": "timeout"}, True, "commitment 0 0 0 1 - - 1 - timeout"),
        ({}, False, "? ? ? ? ? ? ? ? ? client does not answer"),
    ],
)
def test_a_link_is_a_line(link: dict[str, Any], answers: bool, line: str, lines: Callable[..., list[str]]) -> None:
    assert lines(link, answers=answers)[2:] == [f"client -> server {line}"]


def test_a_link_with_images_that_the_device_may_keep_in_an_older_version_is_not_all_delivered(lines: Callable[..., list[str]]) -> None:
    link, *below = lines({"older": 3})[2:]
    assert link == "client -> server commitment 0 0 0 0 - - 0 - 3 maybe in an older version"
    assert below[-1].startswith("client -> server 3 the device may keep an older version")
    assert below[-1].endswith("Delete them there, then recheck")


def test_where_no_forwarder_answers_there_is_no_empty_table(capsys: pytest.CaptureFixture[str]) -> None:
    report([], NOW)
    assert not capsys.readouterr().out


def test_links_are_sorted_and_the_notes_of_each_are_below_the_table(lines: Callable[..., list[str]]) -> None:
    reasons = [{"reason": "DIMSE status 0xA700, out of resources", "images": 5}, {"reason": "anything else", "images": 1}]
    unread = [{"reason": "not asked again yet", "images": 7}]
    printed = lines({"setAside": 6, "reasons": reasons}, {"to": "backup", "note": "offers none"}, unmatched=4, kept=unread)
    assert [line.split()[2] for line in printed[2:4]] == ["backup", "server"]
    assert printed[4] == ""
    assert printed[7:] == [
        "client -> backup offers none",
        "client -> server 5 set aside: DIMSE status 0xA700, out of resources Make room at the device",
        "client -> server 1 set aside: anything else See the device's log, then retry",
        "client 4 go to no destination, and stay here To send them, change only: or not: of a link",
        "client 7 not deleted: not asked again yet",
    ]


@pytest.mark.parametrize(
    ("reason", "mends"),
    [
        (trouble._IMAGE_CODES[2015], "accept this SOP class"),
        (trouble._IMAGE_CODES[2], "accept this transfer syntax"),
        (trouble.UNREADABLE.reason, "Restore the node's volume"),
        ("DIMSE status 0x0122, SOP class not supported", "accept this SOP class"),
        ("DIMSE status 0xC000, cannot understand", "See the device's log for what it refuses"),
    ],
)
def test_each_reason_to_set_images_aside_has_what_mends_it(reason: str, mends: str, lines: Callable[..., list[str]]) -> None:
    (*_, last) = lines({"setAside": 1, "reasons": [{"reason": reason, "images": 1}]})
    assert mends in last


def test_a_forwarder_from_before_an_upgrade_says_less(capsys: pytest.CaptureFixture[str]) -> None:
    older = {key: value for key, value in IDLE.items() if key not in NEWER} | {"setAside": 1, "aside": [{"image": "abc"}]}
    report([{"node": "client", "nodeAnswers": True, "links": [older]}], NOW)
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()][2:] == [
        "client -> server - 0 0 1 0 - - 0 - 1 set aside"
    ]


class Forwarder(Container):
    """A forwarder; `dead` does not run, and the node of `alone` does not answer."""

    def run(self, command: Sequence[str]) -> str:
        if self.part == "dead" or (command[-1] == "aside" and self.part == "older"):
            raise SetupError("it does not run")
        return json.dumps(ASIDE if command[-1] == "aside" else SAID | {"nodeAnswers": self.part != "alone"})


SAID = {"node": "client", "nodeAnswers": True, "links": [IDLE]}
ASIDE = {"aside": [{"to": "server", "series": "def", "image": "abc", "reason": "refused", "tries": 3, "at": _iso(-60)}]}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The exit status of `status` in a stack with these forwarders."""

    def ask(*names: str, as_json: bool = False, every_image: bool = False) -> int:
        monkeypatch.setattr(forwarding, "_forwarders", lambda _: [Forwarder(**vars(container(name, "forwarder"))) for name in names])
        return forwarding.status("dev", as_json=as_json, every_image=every_image)

    return ask


@pytest.mark.parametrize(
    ("names", "every_image", "ends"),
    [
        (["alive"], False, 0),
        (["alive"], True, 0),
        (["alive", "dead"], False, NOT_WELL),
        (["alone"], False, NOT_WELL),
        (["alone"], True, NOT_WELL),
        (["alive", "older"], False, 0),
        (["alive", "older"], True, NOT_WELL),
    ],
)
def test_it_is_not_well_where_a_forwarder_or_its_node_does_not_answer(
    names: list[str], every_image: bool, ends: int, asked: Callable[..., int]
) -> None:
    assert asked(*names, every_image=every_image) == ends


def test_json_is_json_alone_also_where_a_forwarder_does_not_answer(asked: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    asked("alive", "dead", as_json=True)
    printed = capsys.readouterr()
    assert json.loads(printed.out) == [SAID]
    assert "orthanc-stack-dev-dead does not answer" in printed.err


def test_images_that_are_set_aside_are_listed_on_demand(asked: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    asked("alive")
    assert "abc" not in capsys.readouterr().out
    asked("alive", every_image=True)
    assert capsys.readouterr().out.splitlines()[-1].split() == ["client", "->", "server", "def", "abc", "refused", "3", _iso(-60)]
    asked("alive", every_image=True, as_json=True)
    assert json.loads(capsys.readouterr().out) == [SAID | ASIDE]
