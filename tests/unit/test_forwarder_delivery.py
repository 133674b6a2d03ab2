"""Everything that the node holds arrives and is recorded, whatever the forwarder was told or remembers of it."""

from __future__ import annotations

import time

import pytest

from forwarder import look
from forwarder.config import Confirm
from forwarder.record import Record, mark_of
from tests.unit.forwarding import World, config
from tests.unit.peers import Stored


def _files(images: list[Stored]) -> list[str]:
    return sorted(image.file for image in images)


@pytest.mark.parametrize("confirm", ["commitment", "query"])
def test_everything_is_delivered_once_and_recorded(confirm: Confirm) -> None:
    with World(config("archive", confirm=confirm)) as world:
        world.node.add("old", 25)
        world.start()
        world.node.add("new", 25)
        world.delivered()
        assert sorted(world.peer.got) == _files(world.node.images())
        assert max(map(len, world.peer.batches)) == 10
        assert {call for _, call in world.peer.tried} == ({"store"} if confirm == "commitment" else {"store", "query"})
        series = world.node.series["new"]
        assert world.record("new").is_closed_for(series.metadata["LastUpdate"], 25, "")


def test_a_new_forwarder_sends_nothing_twice() -> None:
    with World() as world:
        world.node.add("a", 12)
        world.node.add("b", 3)
        world.start().delivered()
        world.start().sweep()
        world.never(lambda: world.link.ledger.at_work)
        assert sorted(world.peer.got) == _files(world.node.images())


def test_what_is_known_of_an_open_series_is_not_sent_again_after_a_restart() -> None:
    with World() as world:
        world.node.add("a", 12)
        world.start().delivered()
        world.kill()
        world.node.add("a", 1)
        world.start().delivered()
        assert len(world.peer.got) == 13


def test_what_is_confirmed_is_recorded_at_once() -> None:
    with World() as world:
        world.patch(look, _QUIET=60.0)
        world.node.clock = time.time
        world.node.add("a", 12)
        world.start().until(lambda: world.link.ledger.counts.delivered == 12)
        assert len(world.record("a").confirmed) == 12
        assert not world.record("a").closed
        world.start().never(lambda: len(world.peer.got) > 12)


def test_a_forwarder_killed_again_and_again_loses_nothing() -> None:
    with World(batch=3) as world:
        world.peer.slow, world.peer.report_after = 0.01, 0.02
        for number in range(8):
            world.node.add(f"s{number % 3}", 7)
            world.start()
            time.sleep(0.03 * number)
        world.start().delivered()
        assert len(world.node.images()) == 56


def test_what_nobody_told_is_found_by_a_sweep() -> None:
    with World() as world:
        world.start()
        world.node.add("silent", 5, event=False)
        world.never(lambda: world.peer.got)
        world.sweep()
        world.delivered()


def test_a_sweep_goes_over_all_pages() -> None:
    with World(batch=100) as world:
        for number in range(230):
            world.node.add(f"s{number:03}", 1, event=False)
        world.start().delivered()


def test_a_late_image_goes_into_a_series_that_was_closed() -> None:
    with World() as world:
        world.node.add("a", 5)
        world.start().delivered()
        world.node.add("a", 1)
        world.delivered()
        assert len(world.peer.got) == 6


def test_a_late_image_that_nobody_told_of_is_found_by_a_sweep() -> None:
    with World() as world:
        world.node.add("a", 5)
        world.start().delivered()
        world.node.add("a", 1, event=False)
        world.sweep()
        world.delivered()


@pytest.mark.parametrize("event", [True, False])
def test_an_image_that_is_stored_again_is_sent_again(event: bool) -> None:
    with World() as world:
        first = world.node.add("a", 5)[2]
        world.start().delivered()
        second = world.node.again(first, event=event)
        world.sweep()
        world.delivered()
        assert world.peer.stored[first.uid] == second.file
        assert len(world.peer.got) == 6
        assert mark_of(first.file) not in world.record("a").confirmed


def test_an_image_that_is_stored_again_while_it_is_sent_is_sent_again() -> None:
    with World() as world:
        world.peer.slow = world.peer.report_after = 0.1
        first = world.node.add("a", 5)[2]
        world.start().until(lambda: world.peer.calls("store"))
        world.node.again(first)
        world.delivered()


def test_images_that_come_one_after_another_go_out_as_they_come() -> None:
    with World() as world:
        world.start()
        for _ in range(20):
            world.node.add("a", 1)
            time.sleep(0.01)
        world.delivered()
        assert len(world.peer.got) == 20


def test_a_series_is_not_closed_before_it_is_quiet() -> None:
    with World() as world:
        world.patch(look, _QUIET=1.5)
        world.node.clock = time.time
        world.start()
        world.node.add("a", 3)
        world.until(lambda: not world.lost())
        world.never(lambda: world.record("a").closed)
        world.delivered()
        assert world.record("a").closed


def test_a_late_image_does_not_wait_until_its_series_is_quiet() -> None:
    with World() as world:
        world.patch(look, _QUIET=3.0)
        world.node.clock = time.time
        world.start()
        for count in (1, 2, 3):
            world.node.add("a", 1)
            world.until(lambda: not world.lost(), 1.0)
            assert len(world.peer.got) == count
            time.sleep(0.1)


def test_an_image_stored_again_in_the_same_second_is_seen_before_the_series_is_closed() -> None:
    """Orthanc writes whole seconds: nothing but a second look tells it from the first."""
    with World() as world:
        world.patch(look, _QUIET=0.4)
        now = time.time()
        world.node.clock = lambda: now
        image = world.node.add("a", 3)[1]
        world.start()
        world.until(lambda: not world.lost())
        world.node.again(image, event=False)
        world.delivered()


def test_a_record_that_is_gone_is_no_loss() -> None:
    with World() as world:
        world.node.add("a", 5)
        world.start().delivered()
        world.kill()
        world.node.series["a"].metadata = {"LastUpdate": world.node.series["a"].metadata["LastUpdate"]}
        world.start().delivered()
        assert len(world.peer.got) == 10


def test_a_restored_backup_with_an_older_record_is_no_loss() -> None:
    with World() as world:
        images = world.node.add("a", 5)
        world.start().delivered()
        world.kill()
        number = str(world.link.config.record)
        world.node.series["a"].metadata[number] = Record({mark_of(image.file) for image in images[:2]}).text()
        world.start().delivered()
        assert sorted(world.peer.got) == sorted(_files(images) + _files(images[2:]))


def test_a_record_that_nobody_can_read_is_no_loss() -> None:
    with World() as world:
        world.node.add("a", 2)
        world.node.series["a"].metadata[str(config("archive").record)] = '{"v":1,"ok":"","aside":[]}'
        world.start().delivered()
        assert world.alive


def test_a_changes_log_that_went_back_is_followed_by_a_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    with World() as world:
        world.node.add("a", 5)
        world.start().delivered()
        sweeps = world.watch.sweeps
        world.node.rewind()
        world.node.add("b", 2, event=False)
        with world.node.lock:
            world.node.last_change = 0
        world.delivered()
        assert world.watch.sweeps > sweeps
        assert "changes log went back" in capsys.readouterr().out
        world.node.add("c", 2)
        world.delivered()
        assert world.watch.sweeps == sweeps + 1


def test_a_long_changes_log_is_read_to_its_end() -> None:
    with World(batch=500) as world:
        world.start()
        with world.node.lock:
            for number in range(30):
                world.node.add(f"s{number}", 40)
        world.delivered()
        assert len(world.peer.got) == 1200
        assert world.watch.sweeps == 1


def test_an_image_that_is_deleted_between_look_and_sending_holds_up_no_other() -> None:
    with World() as world:
        images = world.node.add("a", 6)
        gone: list[Stored] = []

        def delete(method: str, path: str) -> None:
            if path.endswith("/store") and not gone:
                gone.append(images[2])
                world.node.remove(images[2])

        world.node.hooks.append(delete)
        world.start().delivered()
        assert len(world.peer.got) >= 5
        assert not world.aside()


def test_a_series_that_is_deleted_while_it_is_sent_is_forgotten() -> None:
    with World() as world:
        image = world.node.add("a", 1)[0]
        world.peer.report_after = 0.1
        world.start().until(lambda: world.peer.got)
        world.node.remove(image)
        world.until(lambda: not len(world.link.ledger.backlog))
        assert world.alive


def test_each_destination_has_a_record_of_its_own() -> None:
    with World("archive", "second") as world:
        world.node.add("a", 5)
        world.start().delivered("archive")
        world.delivered("second")
        assert world.node.peers["second"].got == world.peer.got


def test_a_backlog_that_overflows_is_filled_again() -> None:
    with World() as world:
        world.node.up = False
        world.start()
        world.link.ledger.backlog._capacity = 8
        for number in range(40):
            world.node.add(f"s{number:02}", 1, event=False)
        world.node.up = True
        world.delivered()
        world.until(lambda: not world.link.ledger.backlog.overflowed)
