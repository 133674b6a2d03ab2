"""What a destination has confirmed is read as it was written, and anything else as nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from forwarder.orthanc import Image
from forwarder.record import Aside, Record, mark_of
from tests.unit.peers import CT, LITTLE

MARKS = [mark_of(f"file-{number}") for number in range(5)]
ASIDE = Aside("image", "a reason", True, 3, 1_700_000_000, "r1")
#: Last update, count of images and digest of the rules.
CLOSED = ("20260131T120000", 4, "rules")


def _images(*numbers: int) -> Sequence[Image]:
    """Images whose files have the marks of these numbers."""
    return [Image(f"image-{number}", f"file-{number}", CT, f"1.2.{number}", LITTLE, "A", "") for number in numbers]


def _confirmed(*numbers: int) -> Record:
    """A record of a device outside that has confirmed images."""
    record = Record()
    for image in _images(*numbers):
        record.confirm([mark_of(image.file)])
        assert not record.note_content(image, f"content of {image.id}")
    return record


def test_a_record_is_read_as_it_was_written_and_the_same_text_whatever_order_it_was_made_in() -> None:
    record, other = _confirmed(0, 1, 2), _confirmed(2, 1, 0)
    for one, marks in ((record, MARKS[:3]), (other, MARKS[2::-1])):
        one.aside, one.closed, one.stored = {MARKS[3]: ASIDE}, CLOSED, {MARKS[4]}
        one.older.update(marks)
    assert Record.parse(record.text()) == record
    assert other.text() == record.text()
    assert len(record.marks) == 5
    assert Record.parse(Record().text()) == Record()


@pytest.mark.parametrize(
    ("rest", "record"),
    [
        ("", Record(set(MARKS[:2]))),
        (',"closed":["20260131T120000",4,"rules"]', Record(set(MARKS[:2]), {}, CLOSED)),
        (',"aside":{"-XryEL6lDrmB":["image","a reason",true,3,1700000000,"r1"]}', Record(set(MARKS[:2]), {MARKS[3]: ASIDE})),
    ],
)
def test_a_record_of_an_earlier_version_is_read(rest: str, record: Record) -> None:
    assert Record.parse(f'{{"v":1,"ok":"9qpFGNT13tqpfFYh2kMmIjnF"{rest}}}') == record


def test_marks_are_told_apart() -> None:
    assert len({mark_of(f"file-{number}") for number in range(10_000)}) == 10_000
    assert {len(mark) for mark in MARKS} == {12}


@pytest.mark.parametrize(
    "text", [None, "", "no JSON", "[]", "null", "7", '"text"', "{}", '{"v":1}', '{"v":1,"ok":7}', '{"v":1,"ok":[[1],[2]]}']
)
def test_a_record_that_cannot_be_read_is_empty(text: str | None) -> None:
    assert Record.parse(text) == Record()


@pytest.mark.parametrize(
    "rest",
    [
        *('"aside":{"mark":[1,2]}', '"aside":[]', '"aside":null'),
        *('"closed":["20260131T120000"]', '"closed":["20260131T120000","many","rules"]'),
        *('"stored":7', '"older":[[1]]', '"contents":null'),
    ],
)
def test_a_record_of_which_a_part_cannot_be_read_is_empty(rest: str) -> None:
    assert Record.parse(f'{{"v":1,"ok":"{MARKS[0]}",{rest}}}') == Record()


def test_a_record_of_another_version_is_empty() -> None:
    said = json.loads(Record(set(MARKS)).text())
    assert Record.parse(json.dumps(said)).confirmed
    assert Record.parse(json.dumps({**said, "v": said["v"] + 1})) == Record()


def test_a_series_is_closed_until_anything_changes() -> None:
    record = Record.parse(Record(set(), {MARKS[0]: ASIDE}, CLOSED, {MARKS[1]}).text())
    assert record.closed == CLOSED
    for changed in (("20260131T120001", 4, "rules"), ("20260131T120000", 5, "rules"), ("20260131T120000", 4, "other rules")):
        assert record.closed != changed
    assert Record(set(MARKS)).closed is None


def test_what_is_confirmed_is_neither_stored_nor_set_aside_any_more() -> None:
    record = Record(set(), dict.fromkeys(MARKS[:2], ASIDE), None, set(MARKS[1:4]))
    record.confirm(MARKS[:3])
    assert record == Record(set(MARKS[:3]), {}, None, {MARKS[3]})


def test_what_a_series_no_longer_holds_is_forgotten() -> None:
    record, kept = _confirmed(0, 1), _confirmed(1)
    record.aside, record.stored, record.older = dict.fromkeys(MARKS[2:4], ASIDE), set(MARKS[3:]), set(MARKS[:2])
    record.forget_all_but(_images(1, 3))
    kept.aside, kept.stored, kept.older = {MARKS[3]: ASIDE}, {MARKS[3]}, {MARKS[1]}
    assert record == kept


# --- which content a device outside has confirmed ---


def test_another_content_than_the_first_that_was_confirmed_may_be_an_older_version_and_the_first_again_is_not() -> None:
    record, image = _confirmed(0, 1), _images(0)[0]
    second, third = (Image(image.id, file, CT, image.sop_instance, LITTLE, "A", "") for file in ("second", "third"))
    assert record.note_content(second, "other content")
    assert not record.note_content(third, f"content of {image.id}")
    assert Record.parse(record.text()).note_content(second, "other content"), "it is in the text"


def test_whether_a_version_of_an_image_was_taken_before() -> None:
    record, (first, second) = _confirmed(0), _images(0, 1)
    again = Image(first.id, "another file", CT, first.sop_instance, LITTLE, "A", "")
    assert [Record.parse(record.text()).taken_before(image) for image in (first, again, second)] == [True, True, False]


def test_what_the_destination_has_no_longer_is_as_if_it_had_never_been_there() -> None:
    record = _confirmed(0, 1)
    record.closed, record.older = CLOSED, {MARKS[0]}
    record.take_back(_images(0, 4))
    assert record == _confirmed(1)
    assert not record.note_content(_images(0)[0], "other content")
