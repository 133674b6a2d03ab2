"""What a destination has confirmed is read as it was written, and anything else as nothing; which images a link is for."""

from __future__ import annotations

import json

import pytest

from forwarder.config import Rules, parse
from forwarder.record import Aside, Record, mark_of

MARKS = [mark_of(f"file-{i}") for i in range(5)]


def test_a_record_is_read_as_it_was_written() -> None:
    record = Record(set(MARKS[:3]), {MARKS[3]: Aside("image", "a reason", True, 3, 1_700_000_000, "r1")}, ("20260131T120000", 4, "rules"))
    assert Record.parse(record.text()) == record


def test_an_empty_record_is_read_as_it_was_written() -> None:
    assert Record.parse(Record().text()) == Record()


def test_a_record_is_the_same_text_whatever_order_it_was_made_in() -> None:
    made = [Record(), Record()]
    made[0].confirm(MARKS)
    made[1].confirm(reversed(MARKS))
    assert made[0].text() == made[1].text() == Record.parse(made[0].text()).text()


def test_marks_are_told_apart() -> None:
    assert len({mark_of(f"file-{i}") for i in range(10_000)}) == 10_000
    assert {len(mark) for mark in MARKS} == {12}


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "no JSON",
        "[]",
        "null",
        "7",
        '"text"',
        "{}",
        '{"v":1}',
        '{"v":1,"ok":7}',
        '{"v":1,"ok":[[1],[2]]}',
        '{"v":1,"ok":"","aside":{"mark":[1,2]}}',
        '{"v":1,"ok":"","aside":[]}',
        '{"v":1,"ok":"","aside":null}',
        '{"v":1,"ok":"","closed":["20260131T120000"]}',
        '{"v":1,"ok":"","closed":["20260131T120000","many","rules"]}',
    ],
)
def test_a_record_that_cannot_be_read_is_empty(text: str | None) -> None:
    assert Record.parse(text) == Record()


def test_a_record_of_another_version_is_empty() -> None:
    said = json.loads(Record(set(MARKS)).text())
    assert Record.parse(json.dumps(said)).confirmed
    assert Record.parse(json.dumps({**said, "v": said["v"] + 1})) == Record()


@pytest.mark.parametrize("asked", [("20260131T120001", 4, ""), ("20260131T120000", 5, ""), ("20260131T120000", 4, "other rules")])
def test_a_closed_series_is_open_again_when_anything_changed(asked: tuple[str, int, str]) -> None:
    record = Record(set(MARKS), closed=("20260131T120000", 4, ""))
    assert record.is_closed_for("20260131T120000", 4, "")
    assert not record.is_closed_for(*asked)


def test_a_series_with_an_image_set_aside_is_never_closed() -> None:
    record = Record(set(), {MARKS[0]: Aside("image", "", True, 3, 0, "")}, ("20260131T120000", 4, ""))
    assert not record.is_closed_for("20260131T120000", 4, "")
    record.confirm(MARKS[:1])
    assert record.is_closed_for("20260131T120000", 4, "")


def test_what_a_series_no_longer_holds_is_forgotten() -> None:
    record = Record(set(MARKS[:2]), {mark: Aside("image", "", True, 3, 0, "") for mark in MARKS[2:4]})
    record.forget_all_but({MARKS[1], MARKS[3], MARKS[4]})
    assert (record.confirmed, set(record.aside)) == ({MARKS[1]}, {MARKS[3]})


CT = {"Modality": "CT", "StationName": "Scanner 1", "StudyDescription": "CT Head w/o"}


@pytest.mark.parametrize(
    ("rules", "allowed"),
    [
        (Rules(), True),
        (Rules(modality=("CT",)), True),
        (Rules(modality=("ct",)), True),
        (Rules(modality=("MR",)), False),
        (Rules(modality=("MR", "C?")), True),
        (Rules(modality=("C",)), False),
        (Rules(station=("SCANNER*",)), True),
        (Rules(station=("scanner",)), False),
        (Rules(study_description=("*HEAD*",)), True),
        (Rules(study_description=("[A-Z]*",)), False),
        (Rules(modality=("CT",), study_description=("*knee*",)), False),
        (Rules(calling_aet=("NOBODY",)), True),
    ],
)
def test_which_series_are_for_a_link(rules: Rules, allowed: bool) -> None:
    assert rules.allow_series(CT) is allowed


def test_a_series_without_the_tag_is_for_a_link_that_takes_any() -> None:
    assert not Rules(station=("S*",)).allow_series({})
    assert Rules(station=("*",)).allow_series({})


@pytest.mark.parametrize(
    ("patterns", "aet", "allowed"), [((), "", True), (("SCAN*",), "scanner", True), (("SCAN*",), "", False), (("A",), "A ", True)]
)
def test_which_images_are_for_a_link(patterns: tuple[str, ...], aet: str, allowed: bool) -> None:
    assert Rules(calling_aet=patterns).allow_image(aet) is allowed


def test_only_a_rule_about_the_study_costs_a_request() -> None:
    assert Rules(study_description=("*",)).needs_study
    assert not Rules(modality=("CT",), station=("S",), calling_aet=("A",)).needs_study


def test_other_rules_have_another_digest() -> None:
    made = [Rules(), Rules(modality=("CT",)), Rules(station=("CT",)), Rules(calling_aet=("CT",)), Rules(modality=("CT", "MR"))]
    assert len({rules.digest for rules in made}) == len(made)
    assert Rules(modality=("CT",)).digest == Rules.of({"modality": ["CT"]}).digest


def test_a_configuration_is_read() -> None:
    link = {"to": "archive", "record": "10001", "associations": 3, "confirm": "query", "only": {"callingAet": ["A"]}, "revision": "r"}
    public = {"node": "room", "host": "room", "port": 8042, "statusPort": 9042, "deleteAfterSeconds": 60, "links": [link]}
    config = parse(public, {"user": "forwarder", "password": "word"})
    assert (config.delete_after, config.port_status, config.password) == (60, 9042, "word")
    assert (config.links[0].record, config.links[0].associations, config.links[0].rules) == (10001, 3, Rules(calling_aet=("A",)))
