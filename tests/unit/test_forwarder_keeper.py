"""Nothing is deleted that a destination has not confirmed a moment before; what one has lost is sent again."""

from __future__ import annotations

import time

import pytest

from forwarder.config import Rules
from forwarder.record import mark_of
from tests.unit.forwarding import World, config
from tests.unit.peers import SECRET

#: The images of these tests were stored longer ago than that, but not than this.
SHORT, LONG = 3600, 10**6


def test_what_every_destination_has_confirmed_is_asked_for_once_more_and_deleted() -> None:
    with World("archive", "second", delete_after=SHORT) as world:
        world.node.add("a", 5)
        world.node.add("b", 1)
        world.start().until(lambda: not world.node.images())
        for peer in world.node.peers.values():
            assert len(peer.stored) == 6
            assert len(peer.calls("commit")) >= 2
        world.until(lambda: world.keeper.deleted == 6)
        world.until(lambda: not len(world.link.ledger.backlog))


def test_without_keep_nothing_is_deleted() -> None:
    with World() as world:
        world.node.add("a", 5)
        world.start().delivered()
        world.sweep()
        world.never(lambda: len(world.node.images()) < 5)
        assert not world.peer.calls("commit")


def test_what_one_destination_has_not_is_kept() -> None:
    with World("archive", "second", delete_after=0) as world:
        world.node.peers["second"].down = True
        world.node.add("a", 5)
        world.start().delivered("archive")
        world.sweep()
        world.never(lambda: len(world.node.images()) < 5)
        world.node.peers["second"].down = False
        world.until(lambda: not world.node.images())


def test_nothing_is_deleted_before_its_time() -> None:
    with World(delete_after=LONG) as world:
        world.node.add("a", 5)
        world.start().delivered()
        world.sweep()
        world.never(lambda: len(world.node.images()) < 5)
        assert world.keeper._due


def test_a_late_image_starts_the_time_anew() -> None:
    """The time counts from when the last image of the series came."""
    with World(delete_after=SHORT) as world:
        now = [int(time.time()) - SHORT + 2.0]
        world.node.clock = lambda: now[0]
        world.node.add("a", 3)
        world.start().delivered()
        now[0] = time.time()
        world.node.add("a", 1)
        world.delivered()
        world.never(lambda: len(world.node.images()) < 4, 2.3)


def test_what_a_destination_has_lost_is_not_deleted_but_sent_again() -> None:
    with World(delete_after=LONG) as world:
        images = world.node.add("a", 5)
        world.start().delivered()
        world.kill()
        del world.peer.stored[images[1].uid]
        world._delete_after = SHORT
        world.peer.slow = 0.1
        too_soon: list[str] = []

        def look(method: str, path: str) -> None:
            if method == "DELETE" and path.endswith(images[1].id) and images[1].uid not in world.peer.stored:
                too_soon.append(path)

        world.node.hooks.append(look)
        world.start().until(lambda: world.peer.got.count(images[1].file) == 2)
        world.until(lambda: images[1].uid in world.peer.stored)
        world.sweep()
        world.until(lambda: not world.node.images())
        assert not too_soon


def test_a_series_with_an_image_that_waits_is_kept_whole() -> None:
    with World(delete_after=LONG) as world:
        world.node.add("a", 3)
        world.start().delivered()
        world.peer.statuses["*"] = "A700"
        world.node.add("a", 1)
        world.until(lambda: world.link.ledger.counts.failures)
        world.keeper._delete("a")
        assert len(world.node.images()) == 4


def test_what_was_stored_again_meanwhile_is_not_deleted() -> None:
    with World(delete_after=LONG) as world:
        images = world.node.add("a", 3)
        world.start().delivered()
        world.kill()
        again: list[str] = []

        def store(method: str, path: str) -> None:
            if path.endswith("/storage-commitment") and not again:
                again.append(world.node.again(images[1]).file)

        world.node.hooks.append(store)
        world._delete_after = SHORT
        world.start().until(lambda: world.keeper.deleted >= 2)
        world.until(lambda: again[0] in world.peer.got)
        assert world.peer.stored[images[1].uid] == again[0]


def test_an_image_that_comes_while_its_series_is_deleted_stays_until_it_is_delivered() -> None:
    with World(delete_after=LONG) as world:
        world.node.add("a", 3)
        world.start().delivered()
        world.kill()
        late: list[str] = []

        def store(method: str, path: str) -> None:
            if path.endswith("/storage-commitment") and not late:
                late.append(world.node.add("a", 1)[0].uid)

        world.node.hooks.append(store)
        world._delete_after = SHORT
        world.start().until(lambda: late and late[0] in world.peer.stored)


def test_nothing_is_deleted_while_a_destination_does_not_answer() -> None:
    with World("archive", "second", delete_after=LONG) as world:
        world.node.add("a", 3)
        world.start().delivered("second")
        world.delivered()
        world.kill()
        world.node.peers["second"].down = True
        world._delete_after = SHORT
        world.start().until(lambda: world.node.peers["second"].calls("commit"))
        world.never(lambda: len(world.node.images()) < 3)


def test_a_destination_that_does_not_answer_is_not_asked_for_one_series_after_another() -> None:
    """It never hammers: with thousands of series that are due, a destination that is down gets one request, not thousands."""
    with World(delete_after=LONG) as world:
        for number in range(30):
            world.node.add(f"s{number}", 1)
        world.start().delivered()
        world.kill()
        world.peer.down = True
        world.peer.tried.clear()
        world._delete_after = SHORT
        world.start().until(lambda: world.peer.calls("commit"))
        world.never(lambda: len(world.peer.calls("commit")) > 10, 0.5)


def test_a_recheck_does_not_hammer_a_destination_that_does_not_answer() -> None:
    with World() as world:
        for number in range(30):
            world.node.add(f"s{number}", 1)
        world.start().delivered()
        world.peer.down = True
        world.peer.tried.clear()
        world.keeper.recheck_soon()
        world.until(lambda: world.peer.calls("commit"))
        world.never(lambda: len(world.peer.calls("commit")) > 10, 0.5)


def test_an_image_that_is_set_aside_keeps_its_series() -> None:
    with World(delete_after=SHORT) as world:
        world.node.add("a", 1, sop_class=SECRET)
        world.node.add("a", 2)
        world.peer.refuses.add(SECRET)
        world.start().until(lambda: world.aside() and world.record("a").closed)
        world.sweep()
        world.never(lambda: len(world.node.images()) < 3)


def test_what_is_for_nobody_is_kept() -> None:
    with World(config("archive", rules=Rules(calling_aet=("CT",))), delete_after=SHORT) as world:
        world.node.add("a", 2, aet="CT")
        other = world.node.add("a", 1, aet="MR")
        world.node.add("b", 1, aet="MR")
        world.start().until(lambda: len(world.node.images()) == 2)
        world.sweep()
        world.never(lambda: len(world.node.images()) < 2)
        assert other[0] in world.node.images()


@pytest.mark.parametrize("rules", [Rules(modality=("MR",)), Rules(study_description=("knee",))])
def test_a_destination_for_which_a_series_is_not_does_not_keep_it(rules: Rules) -> None:
    with World("archive", config("second", rules=rules), delete_after=LONG) as world:
        world.node.add("a", 3)
        world.start().delivered()
        world._delete_after = SHORT
        world.start().until(lambda: not world.node.images())
        assert not world.node.peers["second"].got


def test_a_recheck_sends_what_a_destination_has_lost() -> None:
    with World("archive", "second") as world:
        images = world.node.add("a", 5) + world.node.add("b", 2)
        world.start().delivered("second")
        world.delivered()
        for lost in (images[0], images[6]):
            del world.peer.stored[lost.uid]
        world.sweep()
        world.never(lambda: len(world.peer.got) > 7, 0.1)
        world.keeper.recheck_soon()
        world.until(lambda: len(world.peer.got) == 9)
        world.delivered()
        assert len(world.node.peers["second"].got) == 7


def test_what_was_taken_back_is_still_sent_after_a_kill() -> None:
    with World() as world:
        images = world.node.add("a", 5)
        world.start().delivered()
        del world.peer.stored[images[0].uid]
        world.peer.down = True
        world.link.ledger.take_back("a", [images[0].file])
        assert mark_of(images[0].file) not in world.record("a").confirmed
        world.start()
        world.peer.down = False
        world.delivered()
