"""Everything that the node holds arrives and is recorded, whatever the forwarder was told or remembers of it."""

from __future__ import annotations

import time

import pytest

from forwarder import backlog, look, watch
from forwarder.config import Confirm, Rules
from forwarder.record import Record, mark_of
from tests.unit.forwarding import World, a_world, config
from tests.unit.peers import Stored

world = a_world


def _files(images: list[Stored]) -> list[str]:
    return sorted(image.file for image in images)


@pytest.mark.parametrize("confirm", ["commitment", "query"])
def test_everything_is_delivered_once_and_recorded(world: World, confirm: Confirm) -> None:
    world.node.add("old", 25)
    world.start(config(confirm=confirm))
    world.node.add("new", 25)
    world.delivered()
    assert sorted(world.peer.got) == _files(world.node.images())
    assert max(map(len, world.peer.batches)) == 10
    assert {call for _, call in world.peer.tried} == {"store", "storage-commitment" if confirm == "commitment" else "query"}
    assert world.record("new").closed == (world.node.series["new"].metadata["LastUpdate"], 25, "")
    said = world.status()
    assert {said[key] for key in ("waiting", "inFlight", "setAside", "tries", "failures")} == {0}
    assert (said["oldestWaiting"], said["nextTry"], said["delivered"], said["reasons"]) == (None, None, 50, [])


def test_a_new_forwarder_sends_nothing_twice(world: World) -> None:
    world.node.add("a", 12)
    world.node.add("b", 3)
    world.start().delivered()
    world.start().sweep()
    world.never(lambda: world.ledger.at_work)
    world.kill()
    world.node.add("a")
    world.start().delivered()
    assert sorted(world.peer.got) == _files(world.node.images())


def test_what_is_confirmed_is_recorded_at_once_and_its_series_closed_when_it_is_quiet(world: World) -> None:
    world.patch(look, _QUIET=60.0)
    world.node.clock = time.time
    world.node.add("a", 12)
    world.start().until(lambda: world.ledger.delivered == 12)
    assert len(world.record("a").confirmed) == 12
    world.never(lambda: world.record("a").closed)
    world.start().never(lambda: len(world.peer.got) > 12)
    world.patch(look, _QUIET=0.2)
    world.start().delivered()
    assert world.record("a").closed
    assert len(world.peer.got) == 12


def test_a_forwarder_killed_again_and_again_loses_nothing(world: World) -> None:
    world.patch(backlog, BATCH=3)
    world.peer.slow, world.peer.report_after = 0.01, 0.02
    for number in range(8):
        world.node.add(f"s{number % 3}", 7)
        world.start()
        time.sleep(0.02 * number)
    world.start().delivered()
    assert len(world.node.images()) == 56


@pytest.mark.parametrize("event", [True, False], ids=["told", "found by a sweep"])
def test_what_comes_late_is_delivered(world: World, event: bool) -> None:
    """One more image of a series that was closed, one that was stored again, and a series that nobody knew."""
    world.node.add("a", 5)
    first = world.node.add("b", 5)[2]
    world.start().delivered()
    world.node.add("a", event=event)
    second = world.node.again(first, event=event)
    world.node.add("new", 5, event=event)
    if not event:
        world.never(lambda: len(world.peer.got) > 10)
        world.sweep()
    world.delivered()
    assert world.peer.stored[first.uid] == second.file
    assert len(world.peer.got) == 17
    assert mark_of(first.file) not in world.record("b").confirmed


def test_images_go_out_as_they_come_and_do_not_wait_until_their_series_is_quiet(world: World) -> None:
    world.patch(look, _QUIET=60.0)
    world.node.clock = time.time
    world.start()
    for count in (1, 2, 3):
        world.node.add("a")
        world.until(lambda: not world.lost())
        assert len(world.peer.got) == count
        time.sleep(0.1)
    for _ in range(20):
        world.node.add("a")
        time.sleep(0.01)
    world.until(lambda: len(world.record("a").confirmed) == 23)
    assert len(world.peer.got) == 23


@pytest.mark.parametrize("aside", [False, True], ids=["alone", "beside one that is set aside"])
def test_an_image_that_is_stored_again_while_it_is_sent_is_sent_again(world: World, aside: bool) -> None:
    if aside:
        world.set_aside()
    else:
        world.start()
    world.peer.slow = world.peer.report_after = 0.1
    late = world.node.add("a", 5)[2]
    world.until(lambda: world.ledger.unconfirmed if aside else world.ledger.at_work)
    newer = world.node.again(late)
    world.until(lambda: world.peer.stored.get(late.uid) == newer.file)
    world.until(lambda: mark_of(newer.file) in world.record("a").confirmed)


def test_an_image_stored_again_in_the_same_second_is_seen_before_the_series_is_closed(world: World) -> None:
    """Orthanc writes whole seconds: nothing but a second look tells it from the first."""
    world.patch(look, _QUIET=0.4)
    now = time.time()
    world.node.clock = lambda: now
    image = world.node.add("a", 3)[1]
    world.start().until(lambda: not world.lost())
    world.node.again(image, event=False)
    world.delivered()


@pytest.mark.parametrize(("record", "again"), [("gone", 5), ("of an older backup", 3), ('{"v":1,"ok":"","aside":[]}', 5)])
def test_a_record_that_is_not_what_was_written_is_no_loss(world: World, record: str, again: int) -> None:
    images = world.start_with("a", 5)
    world.kill()
    metadata, number = world.node.series["a"].metadata, str(config().record)
    metadata[number] = Record({mark_of(image.file) for image in images[:2]}).text() if "older" in record else record
    if record == "gone":
        del metadata[number]
    world.start().delivered()
    assert sorted(world.peer.got) == sorted(_files(images) + _files(images[-again:]))
    assert world.alive


@pytest.mark.parametrize("away", [False, True], ids=["seen", "while the node was away, and then past where it was"])
def test_a_changes_log_that_went_back_is_followed_by_a_sweep(world: World, away: bool, capsys: pytest.CaptureFixture[str]) -> None:
    world.start_with("a", 5)
    sweeps = world.watch.sweeps
    if away:
        world.node.up = False
        world.until(lambda: world.watch.node_up is False)
    with world.node.lock:
        world.node.rewind()
        world.node.add("b", 8 if away else 2, event=False)
    world.node.up = True
    world.delivered()
    assert ("changes log went back" in capsys.readouterr().out) == (not away)
    world.until(lambda: world.watch.sweeps == sweeps + 1)
    world.node.add("c", 2)
    world.delivered()
    assert world.watch.sweeps == sweeps + 1


def test_a_long_changes_log_is_read_to_its_end(world: World) -> None:
    world.patch(watch, _CHANGES=50)
    world.start()
    with world.node.lock:
        for number in range(12):
            world.node.add(f"s{number}", 10)
    world.delivered()
    assert len(world.peer.got) == 120
    assert world.watch.sweeps == 1


def test_what_is_deleted_before_or_while_it_is_sent_holds_up_no_other_and_is_forgotten(world: World) -> None:
    images = world.node.add("a", 6)
    world.node.before("/store", lambda: world.node.remove(images[2]))
    world.start().delivered()
    assert len(world.peer.got) >= 5
    assert not world.aside()
    world.peer.report_after = 0.1
    image = world.node.add("b")[0]
    world.until(lambda: image.file in world.peer.got)
    world.node.remove(image)
    world.until(lambda: not len(world.ledger.backlog))
    assert world.alive


def test_a_backlog_that_overflows_is_filled_again(world: World) -> None:
    world.node.up = False
    world.start()
    world.ledger.backlog._capacity = 8
    for number in range(40):
        world.node.add(f"s{number:02}", event=False)
    world.node.up = True
    world.delivered()
    world.until(lambda: not world.ledger.backlog.overflowed)


def test_a_link_gets_the_images_of_the_senders_that_it_is_for_and_with_wider_rules_the_others(world: World) -> None:
    narrow = config(rules=Rules(calling_aet=("CT*",)))
    world.start(narrow, "second")
    wanted = world.node.add("a", 3, aet="CT1") + world.node.add("a", 2, aet="ct2")
    world.node.add("a", 4, aet="MR1")
    world.node.add("a", aet="")
    world.node.add("b", 2, aet="MR1")
    world.delivered("second")
    world.until(lambda: not len(world.ledger.backlog))
    assert sorted(world.peer.got) == _files(wanted)
    assert world.record("b").closed
    world.start("archive").delivered()
    assert sorted(world.peer.got) == _files(world.node.images())


@pytest.mark.parametrize("rules", [Rules(modality=("mr",)), Rules(study_description=("knee*",))])
def test_a_link_gets_the_series_that_it_is_for(world: World, rules: Rules) -> None:
    world.node.add("a", 2)
    knee = world.node.add("b", 2, tags={"Modality": "MR"})
    world.node.series["b"].study_tags["StudyDescription"] = "Knee left"
    world.start(config(rules=rules)).until(lambda: len(world.peer.got) == 2 and not len(world.ledger.backlog))
    world.sweep()
    world.never(lambda: len(world.peer.got) > 2)
    assert sorted(world.peer.got) == _files(knee)
