"""Which series is next, and which of its images."""

from __future__ import annotations

from dataclasses import replace

import pytest

from forwarder import trouble
from forwarder.backlog import Backlog, Entry, Waiting
from forwarder.orthanc import Image
from forwarder.trouble import Failure, Fault
from tests.unit.peers import CT, JPEG, LITTLE

REFUSED, UNCLEAR = Failure(Fault.IMAGE, "refused"), Failure(Fault.UNCLEAR, "unclear")


def _image(number: int, syntax: str = LITTLE) -> Image:
    return Image(f"image-{number}", f"file-{number}", CT, f"1.2.{number}", syntax, "A", f"20260131T1200{number:02}")


def _looked_at(entry: Entry, *waiting: Waiting) -> Entry:
    entry.seen, entry.waiting = entry.touched, {one.mark: one for one in waiting}
    return entry


def _waiting(number: int, syntax: str = LITTLE) -> Waiting:
    return Waiting(_image(number, syntax), f"mark-{number}")


def _backlog(count: int, capacity: int = 100) -> Backlog:
    """Series s0, the oldest, to the newest, added in another order; each with an image that waits."""
    backlog = Backlog(capacity)
    for number in sorted(range(count), key=lambda number: (number * 7) % 10):
        backlog.touch(f"s{number}", f"20260131T12{number:04}", 1, 0.0)
        entry = backlog.get(f"s{number}")
        assert entry is not None
        _looked_at(entry, _waiting(number))
    return backlog


def _next(backlog: Backlog) -> str:
    picked = backlog.pick(1.0, 10, careful=False)
    assert picked is not None
    return picked[0].id


def test_the_oldest_is_next_and_each_fourth_time_the_newest() -> None:
    backlog, order = _backlog(8), []
    while len(backlog):
        order.append(_next(backlog))
        entry = backlog.get(order[-1])
        assert entry is not None
        backlog.drop(entry)
    assert order == ["s0", "s1", "s2", "s7", "s3", "s4", "s5", "s6"]


def test_a_series_that_a_thread_looks_at_is_left_to_it() -> None:
    backlog = _backlog(2)
    entry = backlog.get("s0")
    assert entry is not None
    entry.busy = True
    assert _next(backlog) == "s1"


def test_a_series_that_was_touched_is_looked_at_before_it_is_sent() -> None:
    backlog = _backlog(1)
    backlog.touch("s0", "20260131T130000", 2, 0.0)
    picked = backlog.pick(1.0, 10, careful=False)
    assert picked is not None
    assert picked[1] == []


def test_what_is_in_flight_is_not_sent_twice() -> None:
    backlog = _backlog(1)
    entry = backlog.get("s0")
    assert entry is not None
    entry.in_flight.add("mark-0")
    assert backlog.pick(1.0, 10, careful=False) is None
    assert entry.count == 0
    _looked_at(entry, _waiting(0), _waiting(1))
    picked = backlog.pick(1.0, 10, careful=False)
    assert picked is not None
    assert [one.mark for one in picked[1]] == ["mark-1"]


def test_a_series_that_may_not_be_looked_at_yet_is_not() -> None:
    backlog = Backlog()
    backlog.touch("s", "20260131T120000", 1, 0.0)
    entry = backlog.get("s")
    assert entry is not None
    entry.not_before = 5.0
    assert backlog.pick(4.9, 10, careful=False) is None
    assert backlog.pick(5.0, 10, careful=False) is not None


def test_what_comes_next_is_looked_at_ahead_and_no_more_than_is_soon_sent() -> None:
    backlog = _backlog(4)
    first, second, last = (backlog.get(series) for series in ("s0", "s1", "s3"))
    assert first and second and last  # noqa: PT018
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
    backlog = _backlog(4, capacity=4)
    assert not backlog.overflowed
    assert not backlog.touch("more", "20260131T120000", 1, 0.0)
    assert backlog.overflowed
    assert not backlog.has_room
    assert backlog.touch("s0", "20260131T120000", 1, 0.0)
    for series in ("s0", "s1", "s2"):
        entry = backlog.get(series)
        assert entry is not None
        backlog.drop(entry)
    assert backlog.has_room
    assert [entry.id for entry in backlog] == ["s3"]


def test_a_series_is_dropped_once() -> None:
    backlog = _backlog(2)
    entry = backlog.get("s0")
    assert entry is not None
    backlog.drop(entry)
    backlog.drop(entry)
    assert _next(backlog) == "s1"


def test_a_batch_has_one_transfer_syntax_and_no_more_images_than_fit() -> None:
    entry = _looked_at(Entry("s", ""), *(_waiting(number, JPEG if number % 2 else LITTLE) for number in range(20)))
    batch = entry.due(1.0, 5, careful=False)
    assert [one.image.id for one in batch] == [f"image-{number}" for number in (0, 2, 4, 6, 8)]
    entry.in_flight |= {one.mark for one in batch} | {f"mark-{number}" for number in range(10, 20, 2)}
    assert {one.image.syntax for one in entry.due(1.0, 100, careful=False)} == {JPEG}
    assert len(entry.due(1.0, 100, careful=False)) == 10


def test_after_a_failure_one_goes_alone() -> None:
    entry = _looked_at(Entry("s", ""), *map(_waiting, range(5)))
    assert len(entry.due(1.0, 100, careful=True)) == 1


def test_those_that_may_be_to_blame_go_in_small_company() -> None:
    doubtful = [replace(_waiting(number), company=2) for number in range(3)]
    entry = _looked_at(Entry("s", ""), *doubtful, *map(_waiting, range(3, 6)))
    assert [one.image.id for one in entry.due(1.0, 100, careful=False)] == ["image-0", "image-1"]
    entry.in_flight |= {"mark-0", "mark-1", "mark-2"}
    assert [one.image.id for one in entry.due(1.0, 100, careful=False)] == ["image-3", "image-4", "image-5"]


def test_one_that_failed_by_itself_goes_last() -> None:
    entry = _looked_at(Entry("s", ""), replace(_waiting(0), company=1, tries=1), *map(_waiting, range(1, 3)))
    assert [one.image.id for one in entry.due(1.0, 100, careful=False)] == ["image-1", "image-2"]
    entry.in_flight |= {"mark-1", "mark-2"}
    assert [one.image.id for one in entry.due(1.0, 100, careful=False)] == ["image-0"]


def test_one_that_waits_for_its_time_holds_up_no_other() -> None:
    entry = _looked_at(Entry("s", ""), replace(_waiting(0), due=100.0), _waiting(1))
    assert [one.image.id for one in entry.due(1.0, 100, careful=False)] == ["image-1"]
    assert len(entry.due(100.0, 100, careful=False)) == 2


@pytest.mark.parametrize(("failure", "tries", "then"), [(REFUSED, 3, 24 * 3600.0), (UNCLEAR, 5, 300.0)])
def test_an_image_is_set_aside_after_tries_of_its_own(failure: Failure, tries: int, then: float) -> None:
    one = _waiting(0)
    for number in range(tries - 1):
        one.failed(failure, 1000.0)
        assert not one.aside
        assert 1000 + 0.75 * 2**number <= one.due <= 1000 + 2**number
    one.failed(failure, 1000.0)
    assert one.aside
    assert one.due == 1000.0 + then
    assert (one.tries, one.reason) == (tries, failure.reason)


def test_the_tries_are_those_that_are_documented() -> None:
    assert (trouble.TRIES_REFUSED, trouble.TRIES_UNCLEAR) == (3, 5)


def test_what_is_set_aside_is_not_counted_as_waiting() -> None:
    entry = _looked_at(Entry("s", ""), replace(_waiting(0), tries=3, refused=True), _waiting(1), _waiting(2))
    entry.in_flight.add("mark-2")
    assert entry.count == 1
    assert entry.oldest == "20260131T120001"
