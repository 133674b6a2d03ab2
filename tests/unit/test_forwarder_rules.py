"""Which images a link is for, and the forwarder's configuration."""

from __future__ import annotations

import pytest

from forwarder.config import Lists, Rules, parse
from forwarder.orthanc import Image

CT = {"Modality": "CT", "StationName": "Scanner 1", "StudyDescription": "CT Head w/o"}
CT_CLASS, DOSE_CLASS = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.67"


def _image(calling_aet: str = "SCANNER", sop_class: str = CT_CLASS, origin: str = "received") -> Image:
    return Image("a", "file", sop_class, "1.2", "", calling_aet, "", origin=origin)


RECEIVED, BY_HTTP, CREATED, DOSE = _image(), _image(""), _image("", origin="created"), _image(sop_class=DOSE_CLASS)


@pytest.mark.parametrize(
    ("rules", "tags", "allowed"),
    [
        (Rules(), CT, True),
        (Rules(modality=("CT",)), CT, True),
        (Rules(modality=("ct",)), CT, True),
        (Rules(modality=("MR",)), CT, False),
        (Rules(modality=("MR", "C?")), CT, True),
        (Rules(modality=("C",)), CT, False),
        (Rules(station=("SCANNER*",)), CT, True),
        (Rules(station=("scanner",)), CT, False),
        (Rules(station=("S*",)), {}, False),
        (Rules(station=("*",)), {}, True),
        (Rules(study_description=("*HEAD*",)), CT, True),
        (Rules(study_description=("[A-Z]*",)), CT, False),
        (Rules(modality=("CT",), study_description=("*knee*",)), CT, False),
        (Rules.of({}, {"modality": ["CT"]}), CT, False),
        (Rules.of({}, {"modality": ["MR"]}), CT, True),
        (Rules.of({"modality": ["CT"]}, {"studyDescription": ["*head*"]}), CT, False),
        # Left out is what matches all of its lists.
        (Rules.of({}, {"modality": ["CT"], "studyDescription": ["*test*"]}), CT, True),
        (Rules.of({}, {"modality": ["CT"], "studyDescription": ["*head*", "*test*"]}), CT, False),
        (Rules.of({}, {}), CT, True),
        (Rules.of({}, {"modality": [], "origin": None}), CT, True),
    ],
)
def test_rules_on_series(rules: Rules, tags: dict[str, str], allowed: bool) -> None:
    assert rules.allow_series(tags) is allowed
    assert rules.allow_image(RECEIVED, tags) is allowed, "an image is judged by its series, too"


@pytest.mark.parametrize(
    ("rules", "allowed"),
    [
        (Rules(), {RECEIVED, BY_HTTP, CREATED, DOSE}),
        (Rules(calling_aet=("SCAN*",)), {RECEIVED, DOSE}),
        (Rules(calling_aet=("scanner",)), {RECEIVED, DOSE}),
        (Rules(calling_aet=("*",)), {RECEIVED, BY_HTTP, CREATED, DOSE}),
        (Rules(sop_class=(CT_CLASS,)), {RECEIVED, BY_HTTP, CREATED}),
        (Rules(sop_class=("*.88.*",)), {DOSE}),
        (Rules(origin="created"), {CREATED}),
        (Rules(origin="received"), {RECEIVED, BY_HTTP, DOSE}),
        (Rules.of({}, {"sopClass": [DOSE_CLASS]}), {RECEIVED, BY_HTTP, CREATED}),
        (Rules.of({}, {"origin": "created"}), {RECEIVED, BY_HTTP, DOSE}),
        (Rules.of({}, {"modality": ["CT"], "callingAet": ["SCANNER"]}), {BY_HTTP, CREATED}),
        (Rules.of({}, {"modality": ["MR"], "callingAet": ["SCANNER"]}), {RECEIVED, BY_HTTP, CREATED, DOSE}),
        (Rules.of({"callingAet": ["SCANNER"]}, {"sopClass": ["*.88.*"]}), {RECEIVED}),
    ],
)
def test_rules_on_images(rules: Rules, allowed: set[Image]) -> None:
    assert {image for image in (RECEIVED, BY_HTTP, CREATED, DOSE) if rules.allow_image(image, CT)} == allowed
    assert rules.allow_series(CT), "some image of such a series may be for the link"


def test_spaces_around_an_ae_title_do_not_count() -> None:
    assert Rules(calling_aet=("A",)).allow_image(_image("A "), CT)


@pytest.mark.parametrize("rules", [Rules(study_description=("*",)), Rules.of({}, {"studyDescription": ["*test*"]})])
def test_rules_on_the_study(rules: Rules) -> None:
    assert rules.needs_study
    assert rules.undecided({})
    assert rules.undecided({"StudyDescription": " ", "PatientID": "1"})
    assert not rules.undecided(CT)


def test_other_rules_ask_nothing_of_the_study() -> None:
    rules = Rules.of({"modality": ["CT"], "station": ["S"], "callingAet": ["A"]}, {"sopClass": ["1.*"], "origin": "created"})
    assert not rules.needs_study
    assert not rules.undecided({})


def test_other_rules_have_another_digest() -> None:
    made = [Rules(), Rules(modality=("CT",)), Rules(station=("CT",)), Rules(calling_aet=("CT",)), Rules(modality=("CT", "MR"))]
    made += [Rules(sop_class=("CT",)), Rules(origin="created"), Rules.of({}, {"modality": ["CT"]}), Rules.of({}, {"station": ["CT"]})]
    assert len({rules.digest for rules in made}) == len(made)
    assert Rules(modality=("CT",)).digest == Rules.of({"modality": ["CT"]}).digest


def test_a_digest_stays() -> None:
    """Pinned: with another one, an upgrade would read every series of the node anew."""
    assert Rules().digest == Rules.of({"modality": []}, {"origin": None}).digest == ""
    assert Rules(modality=("CT",)).digest == "7de923b98ba8"
    assert Rules(modality=("CT", "M*"), calling_aet=("A",)).digest == "6ed9a8b46b0d"


def test_a_configuration_is_read() -> None:
    rules = {"only": {"callingAet": ["A"]}, "not": {"sopClass": ["1.2"], "origin": "created"}}
    link = {"to": "archive", "record": "10001", "associations": 3, "confirm": "query", "revision": "r", **rules}
    public = {"node": "room", "host": "room", "port": 8042, "statusPort": 9042, "deleteAfterSeconds": 60, "links": [link]}
    config = parse(public, {"user": "forwarder", "password": "word"})
    assert (config.delete_after, config.port_status, config.password, config.scu_timeout) == (60, 9042, "word", 10)
    (archive,) = config.links
    assert (archive.record, archive.associations, archive.aet, archive.outside) == (10001, 3, "", False)
    assert archive.rules == Rules(calling_aet=("A",), but_not=Lists(sop_class=("1.2",), origin="created"))
    device = {**link, "aet": "PACS", "outside": True}
    config = parse({**public, "scuTimeout": 0, "links": [device]}, {"user": "forwarder", "password": "word"})
    assert (config.scu_timeout, config.links[0].aet, config.links[0].outside) == (0, "PACS", True)
