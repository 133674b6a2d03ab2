"""Which series is next, and which of its images."""

from __future__ import annotations

from dataclasses import replace

import pytest

from forwarder.backlog import Backlog, Entry, Waiting
from forwarder.orthanc import Image
from forwarder.trouble import Failure, Fault
from tests.unit.peers import CT, JPEG, LITTLE


def _waiting(number: int, syntax: str = LITTLE, **more: float) -> Waiting:
    image = Image(f"image-{number}", f"file-{number}", CT, f"1.2.{number}", syntax, "A", f"20260131T1200{number:02}")
    return replace(Waiting(image, f"mark-{number}"), **more)  # type: ignore[arg-type]


def _looked_at(entry: Entry, *waiting: Waiting) -> Entry:
    entry.seen, entry.waiting = entry.touched, {one.mark: one for one in waiting}
    return entry


def _backlog(count: int, capacity: int = 100) -> tuple[Backlog, list[Entry]]:
    """Series s0, the oldest, to the newest, added in another order; each with an image that waits."""
    backlog, entries = Backlog(capacity), dict[int, Entry]()
    for number in sorted(range(count), key=lambda number: (number * 7) % 10):
        backlog.touch(f"s{number}", f"20260131T12{number:04}", 1, 0.0)
        (entries[number],) = (_looked_at(entry, _waiting(number)) for entry in backlog if entry.id == f"s{number}")
    return backlog, [entries[number] for number in range(count)]


def _next(backlog: Backlog, now: float = 1.0) -> tuple[str, list[str]] | None:
    """The series that is next, and those of its images that are sent; none where it has to be looked at."""
    picked = backlog.pick(now, 10, careful=False)
    return (picked[0].id, [one.image.id for one in picked[1]]) if picked else None


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
    entries[0].waiting, entries[0].not_before = None, 5.0
    assert _next(backlog, 4.9) is None
    assert _next(backlog, 5.0) == ("s0", [])


def test_what_is_in_flight_is_not_sent_twice() -> None:
    backlog, (entry,) = _backlog(1)
    entry.in_flight.add("mark-0")
    assert _next(backlog) is None
    assert entry.count == 0
    _looked_at(entry, _waiting(0), _waiting(1))
    assert _next(backlog) == ("s0", ["image-1"])


def test_what_comes_next_is_looked_at_ahead_and_no_more_than_is_soon_sent() -> None:
    backlog, (first, second, _, last) = _backlog(4)
    for entry in (second, last):
        entry.touched += 1
    assert backlog.pick_ahead(1.0, 1) is None  # the first one is ready
    assert backlog.pick_ahead(1.0, 2) is second
    first.in_flight.add("mark-0")
    assert backlog.pick_ahead(1.0, 1) is second
    second.busy = True
    assert backlog.pick_ahead(1.0, 1) is None
    assert backlog.pick_ahead(1.0, 2) is last


def test_what_does_not_fit_is_told_and_what_is_there_is_still_touched() -> None:
    backlog, entries = _backlog(4, capacity=4)
    assert not backlog.overflowed
    assert not backlog.touch("more", "20260131T120000", 1, 0.0)
    assert backlog.overflowed
    assert not backlog.has_room
    assert backlog.touch("s0", "20260131T120000", 1, 0.0)
    for entry in entries[:3]:
        assert not backlog.has_room
        backlog.drop(entry)
    assert backlog.has_room
    assert [entry.id for entry in backlog] == ["s3"]


@pytest.mark.parametrize(
    ("waiting", "most", "careful", "batches"),
    [
        ([_waiting(number, JPEG if number % 2 else LITTLE) for number in range(8)], 3, False, [[0, 2, 4], [1, 3, 5], [6], [7]]),
        ([_waiting(number) for number in range(3)], 100, True, [[0], [1], [2]]),
        ([*(_waiting(number, company=2) for number in range(3)), *map(_waiting, range(3, 6))], 100, False, [[0, 1], [2], [3, 4, 5]]),
        ([_waiting(0, company=1, tries=1), _waiting(1), _waiting(2)], 100, False, [[1, 2], [0]]),
        ([_waiting(0, due=1.5), _waiting(1), _waiting(2, due=0.5)], 100, False, [[1, 2]]),
    ],
    ids=[
        "one transfer syntax, as many as fit",
        "after a failure one",
        "what may be to blame in small company",
        "failed alone: last",
        "due",
    ],
)
def test_what_is_sent_together(waiting: list[Waiting], most: int, careful: bool, batches: list[list[int]]) -> None:
    entry, sent = _looked_at(Entry("s", ""), *waiting), []
    while batch := entry.due(1.0, most, careful=careful):
        sent.append([waiting.index(one) for one in batch])
        entry.in_flight |= {one.mark for one in batch}
    assert sent == batches


@pytest.mark.parametrize(("fault", "tries", "then"), [(Fault.IMAGE, 3, 24 * 3600.0), (Fault.UNCLEAR, 5, 300.0)])
def test_an_image_is_set_aside_after_tries_of_its_own(fault: Fault, tries: int, then: float) -> None:
    one = _waiting(0)
    for number in range(tries - 1):
        one.failed(Failure(fault, "reason"), 1000.0)
        assert not one.aside
        assert 1000 + 0.75 * 2**number <= one.due <= 1000 + 2**number
    one.failed(Failure(fault, "reason"), 1000.0)
    assert one.aside
    assert one.due == 1000.0 + then
    assert (one.tries, one.reason) == (tries, "reason")


def test_what_is_set_aside_is_not_counted_as_waiting() -> None:
    entry = _looked_at(Entry("s", ""), replace(_waiting(0), tries=3, refused=True), _waiting(1), _waiting(2))
    entry.in_flight.add("mark-2")
    assert entry.count == 1
    assert entry.oldest == "20260131T120001"
