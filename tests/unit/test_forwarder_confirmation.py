"""Delivered means confirmed: what is lost is sent again, what is not reported is asked for again."""

from __future__ import annotations

import pytest

from forwarder import link, trouble
from forwarder.config import Confirm
from forwarder.trouble import PATIENCE
from tests.unit.forwarding import World, a_world, config

world = a_world


@pytest.mark.parametrize("confirm", ["commitment", "query"])
def test_what_was_accepted_and_lost_is_sent_again(world: World, confirm: Confirm) -> None:
    world.peer.loses = 4
    world.node.add("a", 10)
    world.start(config(confirm=confirm)).delivered()
    assert len(world.peer.got) == 14


def test_a_destination_that_loses_everything_is_left_alone(world: World) -> None:
    world.pause(0.05)
    world.peer.loses = 10**9
    world.node.add("a", 10)
    world.start().until(lambda: world.ledger.backoff.tries >= 4)
    assert len(world.peer.calls("store")) <= 7
    world.peer.loses = 0
    world.delivered()


@pytest.mark.parametrize("restarted", [False, True])
def test_a_report_that_does_not_come_is_asked_for_again_and_nothing_is_sent_again_for_that(world: World, restarted: bool) -> None:
    world.patch(link, _REPORT_SECONDS=0.05)
    world.peer.report_after = None
    world.node.add("a", 5)
    world.start().until(lambda: len(world.peer.calls("storage-commitment")) > 6)
    assert world.status()["note"].startswith("archive takes requests for storage commitment, and sends no report")
    record = world.record("a")
    assert (len(record.stored), record.confirmed, world.status()["delivered"]) == (5, set(), 0)
    if restarted:
        world.start()
    world.peer.report_after = 0.0
    world.delivered()
    assert len(world.peer.calls("store")) == 1
    assert not world.record("a").stored


def test_a_report_that_comes_late_counts_and_sending_goes_on_meanwhile(world: World) -> None:
    world.patch(link, _REPORT_SECONDS=0.05)
    world.patch(trouble, LONGEST_ASK=60.0, FIRST_PAUSE=60.0)
    world.peer.reports_late, world.peer.report_after = [0.6], None
    world.node.add("a", 5)
    world.start().until(lambda: world.status()["unconfirmed"] == 5)
    world.node.add("b", 5)
    world.until(lambda: len(world.peer.got) == 10)
    world.until(lambda: len(world.record("a").confirmed) == 5)
    assert not world.record("b").confirmed
    assert len(world.peer.got) == 10, "each once"


@pytest.mark.parametrize("lost", [0, 2])
def test_a_node_that_was_started_anew_asks_again_and_only_what_is_lost_is_sent_twice(world: World, lost: int) -> None:
    world.patch(link, _REPORT_SECONDS=30.0)
    world.peer.report_after, world.peer.loses = None, lost
    world.node.add("a", 5)
    world.start().until(lambda: world.ledger.unconfirmed)
    world.peer.report_after = 0.0
    world.node.restart()
    world.delivered()
    assert len(world.peer.got) == 5 + lost


def test_an_image_that_a_report_says_nothing_of_is_not_confirmed(world: World) -> None:
    images = world.node.add("a", 5)
    world.peer.omits.add(images[3].uid)
    world.start().until(lambda: len(world.peer.got) > 5)
    assert len(world.peer.calls("storage-commitment")) >= PATIENCE
    assert images[3].file in world.peer.got[5:]
    with world.ledger.changed:
        assert world.ledger.delivered == 4
    world.peer.omits.clear()
    world.delivered()


def test_a_device_that_reports_late_is_back_when_it_takes_images(world: World) -> None:
    world.peer.down, world.peer.report_after = True, None
    world.node.add("a", 30)
    world.start(config(outside=True)).until(lambda: world.status()["tries"] >= 3)
    world.peer.down = False
    world.until(lambda: not world.lost() and world.status()["tries"] == 0)
