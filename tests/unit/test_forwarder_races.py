"""What happens between two steps: nothing is lost, nothing stops, whatever comes in between."""

from __future__ import annotations

import itertools
import threading
import time
from functools import partial

import pytest

from forwarder import backlog, look, orthanc, watch
from forwarder.config import Confirm
from forwarder.orthanc import AnswerError, NodeDownError, Orthanc, Series
from forwarder.record import Record, mark_of
from tests.unit.forwarding import World, a_world, config
from tests.unit.peers import SECRET, RefusedError

world = a_world


@pytest.mark.parametrize("confirm", ["commitment", "query"])
def test_a_newer_version_is_not_taken_for_confirmed_because_the_older_one_is_there(world: World, confirm: Confirm) -> None:
    """A destination confirms UIDs, not files: after a batch that ended early its word tells nothing of an image that it had before."""
    images = world.node.add("a", 4)
    world.start(config(confirm=confirm)).delivered()
    world.kill()
    world.peer.refuses.add(SECRET)
    poison = world.node.add("a", sop_class=SECRET)[0]
    newer = world.node.again(images[2])
    world.start().until(lambda: world.aside() and world.lost() == [poison.id])
    assert world.peer.stored[newer.uid] == newer.file


def test_a_series_that_comes_back_while_it_is_found_gone_is_not_forgotten(world: World) -> None:
    world.peer.report_after = 0.05
    image = world.node.add("a")[0]
    world.start().until(lambda: world.peer.got)
    entry = world.ledger.backlog.get("a")
    assert entry
    looked = threading.Event()
    read = world.orthanc.series

    def series(ids: list[str]) -> list[Series]:
        found = read(ids)
        if ids == ["a"] and not found and not looked.is_set():
            looked.set()
            world.node.add("a")
            world.until(lambda: entry.stale, 2.0)  # the changes log was read
        return found

    world.orthanc.series = series  # type: ignore[method-assign,assignment]
    world.node.remove(image)
    world.until(looked.is_set)
    world.until(lambda: not world.lost())


def test_series_that_are_deleted_during_a_sweep_hide_no_other_from_it(world: World) -> None:
    world.patch(orthanc, _PAGE=20, _OVERLAP=2)
    stored = [world.node.add(f"s{number:02}", event=False)[0] for number in range(50)]
    for image in stored[:4]:
        world.node.before("/series?since=18&limit=20", partial(world.node.remove, image))
    world.peer.slow = 0.001
    world.start().until(lambda: not len(world.ledger.backlog))
    assert len(world.node.images()) == 46
    assert world.lost() == []


def test_a_change_that_becomes_visible_behind_a_later_one_is_not_missed(world: World) -> None:
    """PostgreSQL gives numbers to transactions before they are committed: 5 may be seen before 4."""
    world.patch(watch, _READ_AGAIN_SECONDS=0.2)
    world.start()
    early = world.node.add("a", event=False)[0]
    number = world.node.last_change
    world.node.add("b")
    world.until(lambda: len(world.peer.stored) == 1)
    world.until(lambda: not len(world.ledger.backlog))
    with world.node.lock:
        world.node.changes.insert(0, (number, "NewInstance", early.id))
    world.until(lambda: not world.lost())


@pytest.mark.parametrize("confirm", ["commitment", "query"])
def test_a_destination_that_answers_nonsense_is_left_alone_and_tried_again(world: World, confirm: Confirm) -> None:
    """Also where that is its first word after an outage."""
    world.peer.nonsense = True
    for number in range(5):
        world.node.add(f"s{number}", 2)
    world.start(config(confirm=confirm)).until(lambda: world.ledger.backoff.tries >= 2)
    world.peer.down = True
    world.until(lambda: "connection refused" in world.status()["reason"])  # of a transfer, or of a request
    world.peer.down = False
    world.until(lambda: world.status()["reason"] == "an answer that was not expected")
    world.peer.nonsense = False
    world.until(lambda: not world.lost() and not len(world.ledger.backlog))
    assert world.alive
    assert len(world.peer.got) == 10, "each once"


def test_a_series_for_which_the_node_cannot_answer_holds_up_no_other(world: World) -> None:
    world.node.add("a")
    world.node.add("b")
    world.node.broken.add("a")
    world.start().until(lambda: len(world.peer.stored) == 1)


def _is_closed(world: World, series: str) -> bool:
    return world.record(series).closed is not None


@pytest.mark.parametrize("error", [NodeDownError("it does not answer"), AnswerError(500, 1, "")], ids=lambda error: type(error).__name__)
def test_a_request_that_the_node_answers_once_with_an_error_is_made_again(world: World, error: Exception) -> None:
    """Whichever it is, up to the last one, which closes the record. Nothing else wakes the link: the node's outage is not seen."""
    world.patch(look, _QUIET=0.02)
    world.node.clock = time.time  # else it is older than what counts as quiet by itself
    world.start()
    ask, left = world.orthanc._ask, [0]
    of_the_link = world._threads[3:]

    def failing_once(method: str, path: str, body: bytes | None, timeout: float) -> bytes:
        if threading.current_thread() in of_the_link:
            left[0] -= 1
            if left[0] == 0:
                raise error
        return ask(method, path, body, timeout)

    world.orthanc._ask = failing_once  # type: ignore[method-assign]
    for failing in itertools.count(1):
        left[0] = failing
        world.node.add(f"s{failing}", 2)
        world.delivered()
        world.until(partial(_is_closed, world, f"s{failing}"), 3.0)
        if left[0] > 0:
            break
    assert failing > 6, "it looks, sends, asks, looks, writes, closes"


@pytest.mark.parametrize("code", [15, 1009], ids=["an error", "the database is away"])
def test_a_record_that_the_node_cannot_write_is_written_later_and_nothing_is_sent_twice(world: World, code: int) -> None:
    left = [RefusedError(500, code)] * 4

    def refuse(method: str, _path: str) -> None:
        if method == "PUT" and left:
            raise left.pop()

    world.node.hooks.append(refuse)
    world.start_with("a", 3)
    assert (len(world.peer.got), left) == (3, [])


def test_what_was_taken_back_is_not_written_again_by_what_was_under_way(world: World) -> None:
    """A record that says that an image is there, when it is not, would outlive this program."""
    images = world.start_with("a", 3)
    world.peer.report_after = None
    late = world.node.add("a")[0]
    world.until(lambda: world.ledger.unconfirmed)
    writing, go = threading.Event(), threading.Event()
    put = world.orthanc.put_metadata

    def slow_put(series: str, number: int, text: str) -> None:
        if threading.current_thread() is settles:
            writing.set()
            go.wait(2)
        put(series, number, text)

    world.orthanc.put_metadata = slow_put  # type: ignore[method-assign]
    settles = threading.Thread(target=world.ledger.settle, args=(world.ledger.unconfirmed[0], {late.uid: ""}))
    settles.start()
    assert writing.wait(2)
    del world.peer.stored[images[0].uid]
    takes = threading.Thread(target=world.links[0].take_back, args=("a", list(world.orthanc.images([images[0].id]))))
    takes.start()
    takes.join(0.3)
    # Whatever is written from here on is written by the one that is under way.
    world.links[0].stop()
    go.set()
    settles.join(2)
    takes.join(2)
    assert mark_of(images[0].file) not in world.record("a").confirmed


def test_records_written_by_two_associations_at_once_are_both_kept(world: World) -> None:
    world.patch(backlog, BATCH=2)
    world.node.add("a", 20)
    world.start(config(confirm="query")).delivered()
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


def test_a_new_forwarder_does_not_read_the_whole_log(world: World) -> None:
    """What was there before it is the sweep's: on a large node the log has millions of lines."""
    world.patch(watch, _READ_AGAIN_SECONDS=0.02)
    world.start_with("a", 20)
    world.kill()
    begin = world.node.last_change
    world.node.asked.clear()
    world.start()
    world.node.add("b", 3)
    world.delivered()
    time.sleep(0.3)
    changes = [path.removeprefix("/changes?since=").partition("&")[0] for path in world.node.asked if path.startswith("/changes?since=")]
    assert min(map(int, changes)) >= begin


def test_what_waits_is_counted_while_it_comes(world: World) -> None:
    """Of a series that is delivered but for one image, one waits."""
    world.start_with("a", 20)
    world.peer.down = True
    world.node.add("a")
    world.until(lambda: world.status()["tries"] >= 2)
    world.node.add("a")
    world.until(lambda: world.status()["waiting"] == 2)
    world.never(lambda: world.status()["waiting"] > 2, 0.2)
