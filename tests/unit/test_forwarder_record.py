"""What a destination has confirmed is read as it was written, and anything else as nothing."""

from __future__ import annotations

import json

import pytest

from forwarder.record import Aside, Record, mark_of

MARKS = [mark_of(f"file-{i}") for i in range(5)]
ASIDE = Aside("image", "a reason", True, 3, 1_700_000_000, "r1")
#: Last update, count of images and digest of the rules.
CLOSED = ("20260131T120000", 4, "rules")


def test_a_record_is_read_as_it_was_written_and_the_same_text_whatever_order_it_was_made_in() -> None:
    record, other = (Record(set(), {MARKS[3]: ASIDE}, CLOSED) for _ in range(2))
    record.confirm(MARKS[:3])
    other.confirm(reversed(MARKS[:3]))
    assert Record.parse(record.text()) == record
    assert other.text() == record.text()
    assert Record.parse(Record().text()) == Record()
    stored = Record({MARKS[4]}, {}, None, set(MARKS[:2]))
    assert Record.parse(stored.text()) == stored
    stored.confirm(MARKS[:1])
    stored.forget_all_but({MARKS[0]})
    assert stored == Record({MARKS[0]})


def test_a_record_of_an_earlier_version_is_read() -> None:
    assert Record.parse(f'{{"v":1,"ok":"{MARKS[0]}","closed":["20260131T120000",4,"rules"]}}') == Record({MARKS[0]}, {}, CLOSED)


def test_marks_are_told_apart() -> None:
    assert len({mark_of(f"file-{i}") for i in range(10_000)}) == 10_000
    assert {len(mark) for mark in MARKS} == {12}


@pytest.mark.parametrize(
    "text", [None, "", "no JSON", "[]", "null", "7", '"text"', "{}", '{"v":1}', '{"v":1,"ok":7}', '{"v":1,"ok":[[1],[2]]}']
)
def test_a_record_that_cannot_be_read_is_empty(text: str | None) -> None:
    assert Record.parse(text) == Record()


@pytest.mark.parametrize(
    "rest",
    ['"aside":{"mark":[1,2]}', '"aside":[]', '"aside":null', '"closed":["20260131T120000"]', '"closed":["20260131T120000","many","rules"]'],
)
def test_a_record_of_which_a_part_cannot_be_read_is_empty(rest: str) -> None:
    assert Record.parse(f'{{"v":1,"ok":"{MARKS[0]}",{rest}}}') == Record()


def test_a_record_of_another_version_is_empty() -> None:
    said = json.loads(Record(set(MARKS)).text())
    assert Record.parse(json.dumps(said)).confirmed
    assert Record.parse(json.dumps({**said, "v": said["v"] + 1})) == Record()


def test_a_series_is_closed_until_anything_changes_and_never_with_an_image_set_aside() -> None:
    record = Record(set(), {MARKS[0]: ASIDE}, CLOSED)
    assert not record.is_closed_for(*CLOSED)
    record.confirm(MARKS[:1])
    assert record.is_closed_for(*CLOSED)
    assert not Record(set(), {}, CLOSED, {MARKS[0]}).is_closed_for(*CLOSED)
    for changed in (("20260131T120001", 4, "rules"), ("20260131T120000", 5, "rules"), ("20260131T120000", 4, "other rules")):
        assert not record.is_closed_for(*changed), changed


def test_what_a_series_no_longer_holds_is_forgotten() -> None:
    record = Record(set(MARKS[:2]), dict.fromkeys(MARKS[2:4], ASIDE))
    record.forget_all_but({MARKS[1], MARKS[3], MARKS[4]})
    assert (record.confirmed, set(record.aside)) == ({MARKS[1]}, {MARKS[3]})
