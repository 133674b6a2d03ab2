"""Which series is next, and which of its images."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest

from forwarder import backlog as module
from forwarder.backlog import Backlog, Batch, Entry, Waiting
from forwarder.orthanc import Image
from forwarder.trouble import CUTS, NOT_THERE, PATIENCE, Failure, Fault
from tests.unit.peers import CT, JPEG, LITTLE

AT = "20260131T120000"
MIB = 1 << 20


def _waiting(number: int, syntax: str = LITTLE, *, size: int = 0, **more: Any) -> Waiting:
    """An image that waits; a second after another is a higher number."""
    image = Image(f"image-{number}", f"file-{number}", CT, f"1.2.{number}", syntax, "A", f"20260131T1200{number % 60:02}", size)
    return Waiting(image, f"mark-{number}", **more)


def _looked_at(entry: Entry, *waiting: Waiting) -> Entry:
    entry.stale, entry.waiting = False, {one.mark: one for one in waiting}
    return entry


def _backlog(count: int, capacity: int = 100) -> tuple[Backlog, list[Entry]]:
    """Series s0, the oldest, to the newest, added in another order; each with an image that waits."""
    backlog, entries = Backlog(capacity), dict[int, Entry]()
    for number in sorted(range(count), key=lambda number: (number * 7) % 10):
        backlog.touch(f"s{number}", f"20260131T12{number:04}", 1, 0.0)
        (entries[number],) = (_looked_at(entry, _waiting(number)) for entry in backlog if entry.id == f"s{number}")
    return backlog, [entries[number] for number in range(count)]


def _fly(entry: Entry, *marks: str) -> None:
    entry.in_flight |= dict.fromkeys(marks, Batch(entry, []))


def _next(backlog: Backlog, now: float = 1.0, ahead: int = 0) -> tuple[str, list[str]] | None:
    """The series that is next, and those of its images that are sent; none where it has to be looked at."""
    picked = backlog.pick(now, ahead=ahead)
    return (picked.entry.id, [one.image.id for one in picked.images]) if picked else None


def test_the_oldest_is_next_and_each_fourth_time_the_newest() -> None:
    backlog, entries = _backlog(8)
    order = []
    while picked := _next(backlog):
        order.append(picked[0])
        (entry,) = (one for one in entries if one.id == picked[0])
        backlog.drop(entry)
        backlog.drop(entry)  # once more is no harm
    assert order == ["s0", "s1", "s2", "s7", "s3", "s4", "s5", "s6"]


def test_a_series_is_looked_at_by_one_thread_when_it_may_be_and_before_it_is_sent() -> None:
    backlog, entries = _backlog(2)
    entries[0].busy = True
    assert _next(backlog) == ("s1", ["image-1"])
    entries[0].busy = False
    backlog.touch("s0", "20260131T130000", 2, 0.0)
    assert _next(backlog) == ("s0", [])
    backlog.drop(entries[1])
    entries[0].waiting, entries[0].stale, entries[0].not_before = None, True, 5.0
    assert _next(backlog, 4.9) is None
    assert _next(backlog, 5.0) == ("s0", [])


def test_what_is_in_flight_is_not_sent_twice() -> None:
    backlog, (entry,) = _backlog(1)
    _fly(entry, "mark-0")
    assert _next(backlog) is None
    assert entry.count == 0
    _looked_at(entry, _waiting(0), _waiting(1))
    assert _next(backlog) == ("s0", ["image-1"])


def test_what_comes_next_is_looked_at_ahead_and_no_more_than_is_soon_sent() -> None:
    backlog, (first, second, _, last) = _backlog(4)
    for entry in (second, last):
        entry.stale = True
    assert _next(backlog, ahead=1) is None  # the first one is ready
    assert _next(backlog, ahead=2) == (second.id, [])
    _fly(first, "mark-0")
    assert _next(backlog, ahead=1) == (second.id, [])
    second.busy = True
    assert _next(backlog, ahead=1) is None
    assert _next(backlog, ahead=2) == (last.id, [])


# --- what does not fit ---


def test_what_does_not_fit_is_told_and_what_is_there_is_still_touched() -> None:
    backlog, entries = _backlog(4, capacity=4)
    assert not backlog.touch("more", AT, 1, 0.0, new=False)
    assert not backlog.touch("more", AT, 1, 0.0), "each of the others was looked at"
    assert backlog.overflowed
    assert backlog.touch("s0", AT, 1, 0.0, new=False)
    for entry in entries[:3]:
        assert not backlog.has_room
        backlog.drop(entry)
    assert backlog.has_room
    assert [entry.id for entry in backlog] == ["s3"]


def test_a_new_image_is_taken_in_for_the_newest_series_that_nobody_has_looked_at() -> None:
    backlog = Backlog(4)
    for number in range(4):
        assert backlog.touch(f"s{number}", f"20260131T12000{number}", 1, 0.0)
    last, third = backlog.get("s3"), backlog.get("s2")
    assert last
    assert third
    last.busy = True
    _fly(third, "mark")
    assert not backlog.touch("swept", AT, 1, 0.0, new=False)
    backlog.begin_sweep()
    assert not backlog.overflowed
    assert backlog.touch("new", AT, 1, 0.0)
    assert {entry.id for entry in backlog} == {"s0", "s2", "s3", "new"}
    assert backlog.overflowed, "a sweep has to find the other one"


@pytest.mark.parametrize("new", [True, False])
def test_series_that_rest_make_room_for_what_is_to_be_sent_and_stay_counted(new: bool) -> None:
    backlog = Backlog(3)
    for name in "abc":
        backlog.rest(name, AT, {"refused": 1}, 100.0)
    for name in "de":
        assert backlog.touch(name, AT, 1, 0.0, new=new)
    assert {entry.id for entry in backlog} == {"a", "d", "e"}
    assert backlog.elsewhere == Counter({"refused": 2})
    assert not backlog.overflowed, "the next sweep finds them, and none has to come sooner"
    backlog.rest("f", AT, {"refused": 1, "": 2}, 100.0)
    assert (len(backlog), backlog.elsewhere) == (3, Counter({"refused": 3, "": 2}))


def test_a_sweep_counts_anew_what_is_not_held_and_until_its_end_the_old_count_stays() -> None:
    backlog = Backlog(1)
    backlog.rest("a", AT, {"refused": 1}, 100.0)
    backlog.rest("b", AT, {"refused": 1}, 100.0)
    backlog.begin_sweep()
    backlog.rest("c", AT, {"refused": 5}, 100.0)
    backlog.note_elsewhere({"older": 2})
    assert backlog.elsewhere == Counter({"refused": 1})
    backlog.end_sweep({"a"})
    backlog.end_sweep({"a"})
    assert backlog.elsewhere == Counter({"refused": 5, "older": 2})
    backlog.note_elsewhere({"older": 1})
    assert backlog.elsewhere["older"] == 3


# --- what rests ---


def test_a_series_that_rests_keeps_counts_alone_and_is_looked_at_again_when_it_is_time() -> None:
    backlog, (entry, _) = _backlog(2)
    backlog.rest("s0", entry.since, {"refused": 2, "": 1}, 50.0)
    assert (entry.waiting, entry.known, entry.count, entry.resting) == (None, {}, 0, Counter({"refused": 2, "": 1}))
    assert [_next(backlog, 49.9) for _ in range(4)] == [("s1", ["image-1"])] * 4
    assert _next(backlog, 50.0) == ("s0", [])
    assert entry.resting[""] == 1, "counted until it was looked at"


@pytest.mark.parametrize("touched", [True, False])
def test_a_series_that_rests_is_looked_at_when_something_comes_or_all_is_to_be_tried(touched: bool) -> None:
    backlog, _ = _backlog(1)
    backlog.rest("s0", AT, {"refused": 1}, 50.0)
    backlog.rest("s0", AT, {"refused": 1}, 80.0)
    assert _next(backlog, 79.0) is None, "the later time counts"
    if touched:
        backlog.touch("s0", AT, 1, 1.0, new=False)
    else:
        backlog.wake_all()
    assert _next(backlog) == ("s0", [])


def test_a_series_that_is_dropped_while_it_rests_does_not_come_back() -> None:
    backlog, (entry,) = _backlog(1)
    backlog.rest("s0", AT, {"refused": 1}, 50.0)
    backlog.drop(entry)
    assert (_next(backlog, 100.0), len(backlog)) == (None, 0)


@pytest.mark.parametrize(("rests", "oldest"), [({"refused": 1}, ""), ({"refused": 1, "": 1}, AT)])
def test_the_age_of_a_series_that_rests_is_that_of_what_is_not_confirmed(rests: dict[str, int], oldest: str) -> None:
    backlog = Backlog()
    backlog.rest("a", AT, rests, 100.0)
    assert [entry.oldest for entry in backlog] == [oldest]


# --- what is sent together ---


@pytest.mark.parametrize(
    ("waiting", "careful", "batches"),
    [
        ([_waiting(number, JPEG if number % 2 else LITTLE) for number in range(8)], False, [[0, 2, 4], [1, 3, 5], [6], [7]]),
        ([_waiting(number, size=30 * MIB) for number in range(3)], False, [[0, 1], [2]]),
        ([_waiting(0, size=200 * MIB), _waiting(1), _waiting(2)], False, [[0], [1, 2]]),
        ([_waiting(0, size=32 * MIB), _waiting(1, JPEG, size=64 * MIB), _waiting(2, size=32 * MIB)], False, [[0, 2], [1]]),
        ([_waiting(number) for number in range(3)], True, [[0], [1], [2]]),
        ([_waiting(0, cuts=2), _waiting(1, cuts=1), _waiting(2), _waiting(3)], False, [[2, 3], [1], [0]]),
        ([_waiting(0, tries=1), _waiting(1), _waiting(2)], False, [[1, 2], [0]]),
        ([_waiting(0, due=1.5), _waiting(1), _waiting(2, due=0.5)], False, [[1, 2]]),
        ([_waiting(0, stored=True), _waiting(1), _waiting(2, stored=True)], False, [[1], [0, 2]]),
        ([_waiting(0, tries=5), _waiting(1)], False, [[1], [0]]),
    ],
    ids=[
        "one transfer syntax, as many as fit",
        "as many bytes as fit",
        "a large one alone",
        "bytes of one transfer syntax",
        "after a failure one",
        "where the association broke: last, alone",
        "failed alone: last",
        "due",
        "stored and not confirmed: asked for when nothing is to be sent",
        "set aside, and its time has come: last",
    ],
)
def test_what_is_sent_together(waiting: list[Waiting], careful: bool, batches: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 3)
    entry, sent = _looked_at(Entry("s", ""), *waiting), []
    while batch := entry.due(1.0, careful=careful):
        sent.append([waiting.index(one) for one in batch])
        _fly(entry, *(one.mark for one in batch))
    assert sent == batches


def test_a_batch_has_at_most_100_images_and_what_is_not_confirmed_is_asked_for_in_such_batches_where_that_is_of_use() -> None:
    entry = _looked_at(Entry("s", ""), *(_waiting(number) for number in range(250)))
    batch = entry.due(1.0, careful=False)
    assert len(batch) == 100
    assert not Batch(entry, batch).stored
    for one in (entry.waiting or {}).values():
        one.taken()
    batch = entry.due(1.0, careful=False)
    assert len(batch) == 100
    assert Batch(entry, batch).stored
    assert not Batch(entry, []).stored
    assert entry.due(1.0, careful=False, asking=False) == []


def test_all_that_is_not_confirmed_is_asked_for_in_turn_and_nothing_before_its_pause_is_over() -> None:
    entry = _looked_at(Entry("s", ""), *(_waiting(number, stored=True) for number in range(250)))
    asked = Counter[str]()
    while batch := entry.due(1.0, careful=False):
        for one in batch:
            one.asked_in_vain(1.0, answered=True)
        asked.update(one.mark for one in batch)
    assert (len(asked), max(asked.values()), asked.total()) == (250, 2, 300), "50 fill the last request"


# --- one image ---


@pytest.mark.parametrize(
    ("fault", "reason", "tries", "then"),
    [
        (Fault.IMAGE, "refused", 3, 24 * 3600.0),
        (Fault.UNCLEAR, "out of resources", 5, 300.0),
        (Fault.UNCLEAR, NOT_THERE, 5, 300.0),
    ],
)
def test_an_image_is_set_aside_after_tries_of_its_own(fault: Fault, reason: str, tries: int, then: float) -> None:
    one = _waiting(0, stored=True)
    for number in range(tries - 1):
        one.failed(Failure(fault, reason), 1000.0)
        assert not one.aside
        assert not one.resting
        assert 1000 + 0.75 * 2**number <= one.due <= 1000 + 2**number
    one.failed(Failure(fault, reason), 1000.0)
    assert one.aside
    assert one.due == 1000.0 + then
    assert (one.tries, one.reason) == (tries, reason)
    one.failed(Failure(fault, reason), 1000.0)
    assert one.due == 1000.0 + then * (1 + (reason == NOT_THERE))


@pytest.mark.parametrize(("taken", "blamed"), [([5] * 6, False), ([5, 5, 5, 6], True), ([5, 6, 6, 6], True), ([5, 5, 6], False)])
def test_an_image_is_to_blame_where_associations_break_at_it_and_others_are_taken_meanwhile(taken: list[int], blamed: bool) -> None:
    one = _waiting(0)
    assert [one.cut(count) for count in taken][-1] is blamed
    assert one.cuts == len(taken)
    assert CUTS == 4


def test_what_is_stored_is_asked_for_ever_more_seldom_and_sent_again_after_answers_that_say_nothing_of_it() -> None:
    one = _waiting(0)
    one.taken()
    pauses = []
    for number in range(20):
        assert one.asked_enough is (number >= PATIENCE - 1)
        one.asked_in_vain(1000.0, answered=True)
        pauses.append(one.due - 1000.0)
    assert [0.75 * 2 ** min(n, 20) <= pause <= 2 ** min(n, 20) for n, pause in enumerate(pauses[:11])] == [True] * 11
    assert max(pauses) <= 3600
    one.taken()
    for _ in range(20):
        one.asked_in_vain(1000.0, answered=False)
    assert not one.asked_enough, "no answer is none that says nothing of it"


def test_what_is_set_aside_or_stored_is_counted_by_itself_and_not_as_waiting() -> None:
    aside, stored = _waiting(0, tries=3, refused=True, reason="refused"), _waiting(1, stored=True)
    entry = _looked_at(Entry("s", ""), aside, stored, *(_waiting(number) for number in (2, 3)))
    _fly(entry, "mark-3")
    assert (entry.count, entry.resting, entry.oldest) == (1, Counter({"refused": 1, "": 1}), "20260131T120001")
    _fly(entry, "mark-0", "mark-1")
    assert entry.resting == Counter()
    assert entry.close_at == math.inf
    entry.stale, entry.estimate = True, 7
    assert entry.count == 4, "less what is in flight, and not looked at since the last one came"
