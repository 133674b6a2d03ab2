"""Nothing is deleted that a destination has not confirmed a moment before; what one has lost is sent again."""

from __future__ import annotations

import time

import pytest

from forwarder import retention
from forwarder.config import Rules
from forwarder.record import mark_of
from tests.unit.forwarding import World, a_world, config

world = a_world

#: The images of these tests were stored longer ago than that, but not than this.
SHORT, LONG = 3600, 10**6


def _delivered(world: World, **images: int) -> None:
    """A world in which some series were delivered everywhere, and not yet deleted; the forwarder does not run."""
    world.delete_after = LONG
    for series, count in images.items():
        world.node.add(series, count)
    world.start("archive", "second").delivered()
    world.kill()
    world.delete_after = SHORT


def test_what_every_destination_has_confirmed_is_asked_for_once_more_and_deleted(world: World) -> None:
    world.delete_after = SHORT
    world.node.add("a", 5)
    world.node.add("b")
    world.start("archive", "second").until(lambda: not world.node.images())
    for peer in (world.peer, world.second):
        assert len(peer.stored) == 6
        assert len(peer.calls("storage-commitment")) >= 4, "of two series, after the transfer and before the deletion"
    world.until(lambda: world.retention.deleted == 6)
    world.until(lambda: not len(world.ledger.backlog))


def test_nothing_is_deleted_while_a_backup_is_made_not_even_of_a_series_at_work(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.delete_after = SHORT
    world.start_with("a", 5)
    world.until(lambda: not world.node.images())
    world.retention.hold()
    world.node.add("b", 5)
    world.delivered()
    world.retention._delete("b")
    world.never(lambda: len(world.node.images()) < 5)
    world.retention.release()
    world.until(lambda: not world.node.images())
    # A backup that died lets it go on, after a while.
    monkeypatch.setattr(retention, "_HOLD_SECONDS", 0.0)
    world.retention.hold()
    world.node.add("c")
    world.until(lambda: not world.node.images())


@pytest.mark.parametrize("delete_after", [None, LONG])
def test_nothing_is_deleted_without_keep_or_before_its_time(world: World, delete_after: int | None) -> None:
    world.delete_after = delete_after
    world.start_with("a", 5)
    world.sweep()
    world.never(lambda: len(world.node.images()) < 5)
    assert len(world.peer.calls("storage-commitment")) == 1, "after the transfer"
    assert bool(world.retention._due) == (delete_after is not None)


def test_a_late_image_starts_the_time_anew(world: World) -> None:
    world.delete_after = SHORT
    world.node.clock = lambda: time.time() - SHORT + 60
    world.start_with("a", 3)
    world.until(lambda: "a" in world.retention._due)
    due = world.retention._due["a"]
    world.node.clock = time.time
    world.node.add("a")
    world.delivered()
    world.until(lambda: world.retention._due["a"] > due)
    # Were the first images' time over before that is known, it would look at the series once more.
    world.retention._due["a"] = time.time()
    world.until(lambda: "a" not in world.retention._due)
    assert len(world.node.images()) == 4


def test_what_one_destination_has_not_is_kept(world: World) -> None:
    world.delete_after = 0
    world.second.down = True
    world.node.add("a", 5)
    world.start("archive", "second").delivered("archive")
    world.sweep()
    world.never(lambda: len(world.node.images()) < 5)
    world.second.down = False
    world.until(lambda: not world.node.images())


def test_what_is_set_aside_keeps_its_series(world: World) -> None:
    world.delete_after = SHORT
    world.set_aside()
    world.sweep()
    world.never(lambda: len(world.node.images()) < 3)


def test_what_is_for_nobody_is_kept(world: World) -> None:
    world.delete_after = SHORT
    world.node.add("a", 2, aet="CT")
    others = world.node.add("a", aet="MR") + world.node.add("b", aet="MR")
    world.start(config(rules=Rules(calling_aet=("CT",)))).until(lambda: len(world.node.images()) == 2)
    world.sweep()
    world.never(lambda: world.node.images() != others)


@pytest.mark.parametrize("rules", [Rules(modality=("MR",)), Rules(study_description=("knee",))])
def test_a_destination_for_which_a_series_is_not_does_not_keep_it(world: World, rules: Rules) -> None:
    world.delete_after = SHORT
    world.node.add("a", 3)
    world.start("archive", config("second", rules=rules)).until(lambda: not world.node.images())
    assert not world.second.got


def test_what_a_destination_has_lost_is_not_deleted_but_sent_again(world: World) -> None:
    _delivered(world, a=5)
    lost = world.node.images()[1]
    del world.peer.stored[lost.uid]
    world.peer.slow = 0.1
    too_soon: list[str] = []

    def look(method: str, path: str) -> None:
        if method == "DELETE" and path.endswith(lost.id) and lost.uid not in world.peer.stored:
            too_soon.append(path)

    world.node.hooks.append(look)
    world.start().until(lambda: world.peer.got.count(lost.file) == 2)
    world.until(lambda: lost.uid in world.peer.stored)
    world.sweep()
    world.until(lambda: not world.node.images())
    assert not too_soon


def test_a_series_with_an_image_that_waits_is_kept_whole(world: World) -> None:
    world.delete_after = LONG
    world.start_with("a", 3)
    world.peer.statuses["*"] = "A700"
    world.node.add("a")
    world.until(lambda: world.ledger.failures)
    world.retention._delete("a")
    assert len(world.node.images()) == 4


def test_what_comes_while_its_series_is_deleted_stays_until_it_is_delivered(world: World) -> None:
    _delivered(world, a=3)
    again = world.node.images()[1]
    world.node.before("/storage-commitment", lambda: world.node.again(again))
    world.node.before("/storage-commitment", lambda: world.node.add("a"))
    world.start().until(lambda: world.retention.deleted >= 2 and len(world.peer.got) == 5)
    assert world.peer.stored[again.uid] != again.file
    assert len(world.peer.stored) == 4


def test_a_newer_version_is_not_taken_for_confirmed_or_deleted_before_it_was_sent(world: World) -> None:
    _delivered(world, a=4)
    images = world.node.images()
    world.peer.statuses[images[0].uid] = "A700"
    newer = [world.node.again(image) for image in images[:2]]
    world.start().never(lambda: len(world.node.images()) < 4 or mark_of(newer[0].file) in world.record("a").confirmed, 0.5)
    world.peer.statuses.clear()
    world.until(lambda: not world.node.images())
    assert [world.peer.stored[image.uid] for image in newer] == [image.file for image in newer]


@pytest.mark.parametrize("recheck", [False, True])
def test_a_destination_that_does_not_answer_is_not_asked_for_one_series_after_another(world: World, recheck: bool) -> None:
    """It never hammers: with thousands of series that are due, a destination that is down gets one request, not thousands."""
    _delivered(world, **{f"s{number}": 1 for number in range(30)})
    world.second.down = True
    before = len(world.second.calls("storage-commitment"))
    if recheck:
        world.delete_after = None
        world.start().retention.recheck_soon()
    else:
        world.start()
    world.until(lambda: len(world.second.calls("storage-commitment")) > before)
    world.never(lambda: len(world.second.calls("storage-commitment")) > before + 10 or len(world.node.images()) < 30, 0.5)


def test_a_recheck_sends_what_a_destination_has_lost(world: World) -> None:
    images = world.node.add("a", 5) + world.node.add("b", 2)
    world.start("archive", "second").delivered()
    for lost in (images[0], images[6]):
        del world.peer.stored[lost.uid]
    world.sweep()
    world.never(lambda: len(world.peer.got) > 7, 0.1)
    world.retention.recheck_soon()
    world.until(lambda: len(world.peer.got) == 9)
    world.delivered()
    assert len(world.second.got) == 7


@pytest.mark.parametrize("recheck", [False, True])
def test_a_series_of_which_a_destination_has_lost_everything_is_sent_again(world: World, recheck: bool) -> None:
    _delivered(world, a=1, b=3)
    world.peer.stored.clear()
    world.delete_after = None if recheck else SHORT
    world.start("archive", "second")
    if recheck:
        world.retention.recheck_soon()
    world.until(lambda: len(world.peer.stored) == 4)


def test_what_was_taken_back_is_still_sent_after_a_kill(world: World) -> None:
    images = world.start_with("a", 5)
    del world.peer.stored[images[0].uid]
    world.peer.down = True
    world.links[0].take_back("a", world.orthanc.images([images[0].id]))
    assert mark_of(images[0].file) not in world.record("a").confirmed
    world.start()
    world.peer.down = False
    world.delivered()


def test_a_series_that_the_node_cannot_read_holds_up_no_other(world: World) -> None:
    _delivered(world, a=1, b=1)
    world.delete_after = LONG
    world.start().until(lambda: len(world.retention._due) == 2)
    world.node.broken.add("a")
    world.retention._delete_after = SHORT
    world.retention._due.update(a=0.0, b=1.0)
    world.until(lambda: [image.series for image in world.node.images()] == ["a"])
    world.node.broken.clear()
    world.sweep()
    world.until(lambda: not world.node.images())


def test_a_series_that_the_node_cannot_read_ends_no_recheck_and_no_list(world: World) -> None:
    aside = world.set_aside()
    lost = world.node.add("b")[0]
    world.until(lambda: world.lost() == [aside.id])
    world.node.broken.add("0")
    world.node.add("0", event=False)
    assert [one["image"] for one in world.aside()] == [aside.id]
    del world.peer.stored[lost.uid]
    world.retention.recheck_soon()
    world.until(lambda: lost.uid in world.peer.stored)
