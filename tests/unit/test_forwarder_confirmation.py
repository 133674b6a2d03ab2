"""Delivered means confirmed: what is lost is sent again, what is not reported is asked for again."""

from __future__ import annotations

from forwarder import link
from tests.unit.forwarding import World, config


def test_what_was_accepted_and_lost_is_sent_again() -> None:
    with World() as world:
        world.peer.loses = 4
        world.node.add("a", 10)
        world.start().delivered()
        assert len(world.peer.got) == 14


def test_a_destination_that_loses_everything_is_left_alone() -> None:
    with World(pause=0.05) as world:
        world.peer.loses = 10**9
        world.node.add("a", 10)
        world.start().until(lambda: world.link.ledger.backoff.tries >= 4)
        assert len(world.peer.calls("store")) <= 7
        world.peer.loses = 0
        world.delivered()


def test_a_lost_image_is_found_by_a_query_too() -> None:
    with World(config("archive", confirm="query")) as world:
        world.peer.loses = 3
        world.node.add("a", 10)
        world.start().delivered()
        assert len(world.peer.got) == 13


def test_a_report_that_does_not_come_is_asked_for_again_and_then_the_images_are_sent_again() -> None:
    with World() as world:
        world.peer.report_after = None
        world.node.add("a", 5)
        world.start().until(lambda: len(world.peer.calls("commit")) == link._ASKS - 1)
        assert len(world.peer.calls("store")) == 1
        world.until(lambda: len(world.peer.calls("store")) == 2)
        assert "no report of storage commitment" in str(world.status())
        assert not world.record("a").confirmed
        world.peer.report_after = 0.0
        world.delivered()


def test_a_report_that_comes_late_counts() -> None:
    with World() as world:
        world.peer.report_after = 0.1
        world.node.add("a", 5)
        world.start().delivered()
        assert len(world.peer.calls("store")) == 1
        assert not world.peer.calls("commit")


def test_a_slow_report_gets_more_time_each_time_it_is_asked_for() -> None:
    with World() as world:
        world.peer.report_after = 0.35  # of 0.15, 0.3, 0.45
        world.node.add("a", 5)
        world.start().delivered()
        assert (len(world.peer.calls("store")), len(world.peer.calls("commit"))) == (1, 2)


def test_a_node_that_was_started_anew_asks_again_and_sends_nothing_twice() -> None:
    with World() as world:
        world.patch(link, _REPORT_SECONDS=30.0)
        world.peer.report_after = None
        world.node.add("a", 5)
        world.start().until(lambda: world.link.ledger.unconfirmed)
        world.peer.report_after = 0.0
        world.node.restart()
        world.delivered()
        assert len(world.peer.got) == 5


def test_a_node_that_was_started_anew_takes_nothing_for_confirmed() -> None:
    with World() as world:
        world.peer.report_after, world.peer.loses = None, 2
        world.node.add("a", 5)
        world.start().until(lambda: world.link.ledger.unconfirmed)
        world.peer.report_after = 0.0
        world.node.restart()
        world.delivered()
        assert len(world.peer.got) == 7


def test_a_destination_that_does_not_know_storage_commitment_is_not_believed() -> None:
    with World() as world:
        world.peer.report_after, world.peer.commits = None, False
        world.node.add("a", 5)
        world.start().until(lambda: world.status()["tries"] >= 2)
        assert not world.record("a").confirmed
        assert world.status()["waiting"] + world.status()["inFlight"] == 5


def test_an_image_that_a_report_says_nothing_of_is_not_confirmed() -> None:
    with World() as world:
        images = world.node.add("a", 5)
        world.peer.omits.add(images[3].uid)
        world.start().until(lambda: len(world.peer.got) > 5)
        assert images[3].file in world.peer.got[5:]
        with world.link.ledger.changed:
            assert world.link.ledger.counts.delivered == 4
        world.peer.omits.clear()
        world.delivered()
