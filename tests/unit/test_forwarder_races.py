"""What happens between two steps: nothing is lost, nothing stops, whatever comes in between."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from forwarder import watch
from forwarder.backlog import Batch
from forwarder.config import Confirm
from forwarder.orthanc import Orthanc
from forwarder.record import Record, mark_of
from tests.unit.forwarding import World, config
from tests.unit.peers import SECRET


@pytest.mark.parametrize("confirm", ["commitment", "query"])
def test_a_newer_version_is_not_taken_for_confirmed_because_the_older_one_is_there(confirm: Confirm) -> None:
    """A destination confirms UIDs, not files: after a batch that ended early its word tells nothing of an image that it had before."""
    with World(config("archive", confirm=confirm)) as world:
        images = world.node.add("a", 4)
        world.start().delivered()
        world.kill()
        world.peer.refuses.add(SECRET)
        poison = world.node.add("a", 1, sop_class=SECRET)[0]
        newer = world.node.again(images[2])
        world.start().until(lambda: world.aside() and world.record("a").closed)
        assert world.peer.stored[newer.uid] == newer.file
        assert world.lost() == [poison.id]


def test_a_newer_version_that_fails_itself_is_not_taken_for_confirmed() -> None:
    with World() as world:
        images = world.node.add("a", 4)
        world.start().delivered()
        world.kill()
        world.peer.statuses[images[0].uid] = "A700"
        newer = world.node.again(images[0])
        world.node.again(images[1])
        world.start()
        world.never(lambda: mark_of(newer.file) in world.record("a").confirmed)
        world.peer.statuses.clear()
        world.delivered()


def test_a_newer_version_is_not_deleted_before_it_was_sent() -> None:
    with World(delete_after=10**6) as world:
        images = world.node.add("a", 4)
        world.start().delivered()
        world.kill()
        world._delete_after = 3600
        world.peer.statuses[images[0].uid] = "A700"
        newer = [world.node.again(image) for image in images[:2]]
        world.start()
        world.never(lambda: len(world.node.images()) < 4, 0.5)
        world.peer.statuses.clear()
        world.until(lambda: not world.node.images())
        assert [world.peer.stored[image.uid] for image in newer] == [image.file for image in newer]


def test_an_image_stored_again_while_it_is_sent_is_sent_again_though_another_is_set_aside() -> None:
    with World() as world:
        world.node.add("a", 1, sop_class=SECRET)
        world.node.add("a", 2)
        world.peer.refuses.add(SECRET)
        world.start().until(lambda: world.aside() and world.record("a").closed)
        world.peer.report_after = 0.1
        late = world.node.add("a", 1)[0]
        world.until(lambda: late.file in world.peer.got)
        newer = world.node.again(late)
        world.until(lambda: world.peer.stored[late.uid] == newer.file, 3.0)


def test_a_series_that_comes_back_while_it_is_found_gone_is_not_forgotten() -> None:
    with World() as world:
        world.peer.report_after = 0.05
        image = world.node.add("a", 1)[0]
        world.start().until(lambda: world.peer.got)
        ledger, looked = world.link.ledger, threading.Event()
        read = world.orthanc.series

        def series(ids: list[str]) -> list[object]:
            found = read(ids)
            if ids == ["a"] and not found and not looked.is_set():
                looked.set()
                world.node.add("a", 1)
                seen = ledger.backlog.get("a")
                touched = seen.touched if seen else 0
                end = time.monotonic() + 2
                while seen and seen.touched == touched and time.monotonic() < end:
                    time.sleep(0.005)  # until the changes log was read
            return list(found)

        world.orthanc.series = series  # type: ignore[method-assign,assignment]
        world.node.remove(image)
        world.until(looked.is_set, 3.0)
        world.until(lambda: not world.lost(), 3.0)


def test_series_that_are_deleted_during_a_sweep_hide_no_other_from_it() -> None:
    with World() as world:
        waiting = [world.node.add(f"s{number:03}", 1, event=False)[0] for number in range(250)]
        pages = itertools.count()

        def delete(method: str, path: str) -> None:
            if path.startswith("/series?since=") and next(pages) == 1:
                for image in waiting[:20]:
                    world.node.remove(image)

        world.peer.slow = 0.001
        world.node.hooks.append(delete)
        world.start().until(lambda: not len(world.link.ledger.backlog))
        assert world.lost() == []


def test_a_change_that_becomes_visible_behind_a_later_one_is_not_missed() -> None:
    """PostgreSQL gives numbers to transactions before they are committed: 5 may be seen before 4."""
    with World() as world:
        world.patch(watch, _READ_AGAIN_SECONDS=0.2)
        world.start()
        early = world.node.add("a", 1, event=False)[0]
        number = world.node.last_change
        world.node.add("b", 1)
        world.until(lambda: len(world.peer.stored) == 1)
        world.until(lambda: not len(world.link.ledger.backlog))
        with world.node.lock:
            world.node.changes.insert(0, (number, "NewInstance", early.id))
        world.until(lambda: not world.lost(), 3.0)


def test_a_restored_backup_that_went_past_the_position_is_followed_by_a_sweep() -> None:
    with World() as world:
        world.node.add("a", 3)
        world.start().delivered()
        world.node.up = False
        world.until(lambda: world.watch.node_up is False)
        world.node.rewind()
        world.node.add("b", 3)
        world.node.add("c", 3)
        world.node.up = True
        world.until(lambda: not world.lost(), 4.0)


def test_a_destination_that_answers_nonsense_after_an_outage_is_tried_again() -> None:
    with World(config("archive", confirm="query")) as world:
        world.peer.down, world.peer.lists_uids = True, False
        world.node.add("a", 5)
        world.start().until(lambda: world.status()["tries"] >= 2)
        world.peer.down = False
        world.until(lambda: world.peer.calls("query"))
        world.peer.lists_uids = True
        world.until(lambda: not world.lost() and not len(world.link.ledger.backlog), 4.0)
        assert world.alive


def test_a_destination_that_answers_nonsense_is_left_alone() -> None:
    with World(config("archive", confirm="query")) as world:
        world.peer.lists_uids = False
        for number in range(5):
            world.node.add(f"s{number}", 2)
        world.start().until(lambda: world.link.ledger.backoff.tries >= 2, 3.0)


def test_a_series_for_which_the_node_cannot_answer_holds_up_no_other() -> None:
    with World() as world:
        world.node.add("a", 1)
        world.node.add("b", 1)
        world.node.broken.add("a")
        world.start()
        world.until(lambda: len(world.peer.stored) == 1, 3.0)


def test_what_was_taken_back_is_not_written_again_by_what_was_under_way() -> None:
    """A record that says that an image is there, when it is not, would outlive this program."""
    with World() as world:
        images = world.node.add("a", 3)
        world.start().delivered()
        world.peer.report_after = None
        late = world.node.add("a", 1)[0]
        world.until(lambda: world.link.ledger.unconfirmed)
        batch = world.link.ledger.unconfirmed[0]
        ledger, writing, go = world.link.ledger, threading.Event(), threading.Event()
        put = world.orthanc.put_metadata

        def slow_put(series: str, number: int, text: str) -> None:
            if threading.current_thread().name == "settles":
                writing.set()
                go.wait(2)
            put(series, number, text)

        world.orthanc.put_metadata = slow_put  # type: ignore[method-assign]
        settles = threading.Thread(target=_settle, args=(world, batch, late.uid), name="settles")
        settles.start()
        assert writing.wait(2)
        del world.peer.stored[images[0].uid]
        takes = threading.Thread(target=ledger.take_back, args=("a", [images[0].file]))
        takes.start()
        takes.join(0.3)
        # Whatever is written from here on is written by the one that is under way.
        world.link.stop()
        go.set()
        settles.join(2)
        takes.join(2)
        assert mark_of(images[0].file) not in world.record("a").confirmed


def _settle(world: World, batch: Batch, uid: str) -> None:
    world.link.ledger.settle(batch, {uid: ""})


def test_records_written_by_two_associations_at_once_are_both_kept() -> None:
    with World(config("archive", confirm="query"), batch=2) as world:
        world.node.add("a", 20)
        world.start()
        world.delivered()
        put, blocked = Orthanc.put_metadata, threading.Event()
        texts: list[Record] = []

        def slow_put(self: Orthanc, series: str, number: int, text: str) -> None:
            record = Record.parse(text)
            if not record.closed and not blocked.is_set():
                blocked.set()
                time.sleep(0.1)
            put(self, series, number, text)
            texts.append(record)

        world.patch(Orthanc, put_metadata=slow_put)
        world.node.add("b", 8)
        world.until(lambda: not world.lost())
        world.until(lambda: texts and texts[-1].closed)
        assert all(earlier.confirmed <= later.confirmed for earlier, later in itertools.pairwise(texts))


def test_a_new_forwarder_does_not_read_the_whole_log() -> None:
    """What was there before it is the sweep's: on a large node the log has millions of lines."""
    with World() as world:
        world.patch(watch, _READ_AGAIN_SECONDS=0.02)
        world.node.add("a", 20)
        world.start().delivered()
        world.kill()
        begin = world.node.last_change
        asked: list[int] = []

        def note(_method: str, path: str) -> None:
            if path.startswith("/changes?since="):
                asked.append(int(path.removeprefix("/changes?since=").partition("&")[0]))

        world.node.hooks.append(note)
        world.start()
        world.node.add("b", 3)
        world.delivered()
        world.never(lambda: min(asked, default=begin) < begin, 0.3)
        assert asked


def test_what_waits_is_counted_while_it_comes() -> None:
    """Of a series that is delivered but for one image, one waits."""
    with World() as world:
        world.node.add("a", 20)
        world.start().delivered()
        world.peer.down = True
        world.node.add("a", 1)
        world.until(lambda: world.status()["tries"] >= 2)
        world.node.add("a", 1)
        world.until(lambda: world.status()["waiting"] == 2)
        world.never(lambda: world.status()["waiting"] > 2, 0.2)
