"""A report of a large stack: soon made, read as one change, and never longer than a comment may be."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ops.preview.escape import say
from ops.preview.events import read
from ops.preview.page import LIMIT, markdown
from ops.preview.report import Level, Report, build
from ops.preview.settings import Setting
from tests.unit.reports import Event, changed, deployed, earlier, events_of, replaced, report_of, text_of


def fifty() -> list[Event]:
    """Fifty nodes that are deployed and stay as they are: a real preview of them as new ones, turned into the one after its update."""
    return deployed(events_of("fifty-nodes"))


def change_option(events: list[Event], name: str) -> Any:
    """One option of one node, as a preview tells of it; the node's new configuration."""
    next(node for node in earlier(events)["nodes"] if node["name"] == name)["orthanc"] = {"StableAge": 10}
    replaced(events, f"{name}-container", "uploads")
    configuration = changed(events, name, "OrthancNode")["configuration"]
    configuration["StableAge"] = 20
    return configuration


def test_one_change_among_fifty_nodes_is_one_change_within_a_second() -> None:
    events = fifty()
    change_option(events, "ward-07")
    text = text_of(events)
    started = time.process_time()
    report = build(read(text))
    written, cut = markdown(report)
    seconds = time.process_time() - started
    assert seconds < 1, f"{seconds:.2f} s"
    assert str(report.verdict) == "1 node goes down for some seconds: ward-07. No data is at risk."
    assert [(str(each.part), each.path) for each in report.settings] == [("node ward-07", "orthanc.StableAge")]
    assert report.restarted == {"ward-07"}
    assert not cut
    assert len(written) < 4000
    assert "boxes that have no part in this are not drawn" in written
    # Of all the other nodes, only those that the picture needs are named.
    assert {f"ward-{i:02}" for i in range(1, 50) if f"ward-{i:02}" in written} == {"ward-07"}


def test_nothing_among_fifty_nodes() -> None:
    report = build(read(text_of(fifty())))
    assert report.level is Level.NOTHING
    assert len(markdown(report)[0]) < 500


def test_a_change_of_the_node_that_all_others_know_is_told_once() -> None:
    events = fifty()
    for name in ("archive", *(f"ward-{i:02}" for i in range(1, 50))):
        replaced(events, f"{name}-container", "uploads")
        configuration = changed(events, name, "OrthancNode")["configuration"]
        if name == "archive":
            configuration["DicomAet"] = "NEW"
        else:
            configuration["DicomModalities"]["archive"]["AET"] = "NEW"
    next(node for node in earlier(events)["nodes"] if node["name"] == "archive")["aet"] = "OLD"
    report = build(read(text_of(events)))
    written, cut = markdown(report)
    assert not cut
    assert [each.path for each in report.settings] == ["aet"]
    assert written.count("`configuration.DicomModalities.archive.AET`") == 1
    assert "and 41 more" in written
    assert len(written.encode()) < 20_000


@pytest.mark.parametrize("limit", [LIMIT, 20_000, 5_000])
def test_what_is_too_long_is_cut_from_its_end_and_says_so(limit: int) -> None:
    report = report_of("fifty-nodes")
    assert len(report.containers) == 101
    whole, _ = markdown(report, limit=None)
    written, cut = markdown(report, limit=limit, url="https://ci.example/run/1")
    assert len(written.encode()) <= limit
    assert cut == (len(whole.encode()) > limit)
    assert written.splitlines()[0] == whole.splitlines()[0]
    if cut:
        assert "more left out here: [the whole report](https://ci.example/run/1) has them." in written
        # No section goes without a word.
        headings = [[line for line in text.splitlines() if line.startswith("### ")] for text in (written, whole)]
        assert headings[0] == headings[1]


@pytest.mark.parametrize("letter", ["x", "é", "😀", "&"])
def test_bytes_count_and_not_letters_and_each_table_says_what_it_lacks(letter: str) -> None:
    settings = tuple(Setting(say("node"), f"a.{i:04}", None, letter * 600) for i in range(2000))
    report = Report("dev", Level.QUIET, say("Much."), settings=settings, unknown=(say("One."),) * 20)
    text, cut = markdown(report)
    assert len(text.encode()) <= LIMIT
    assert cut
    shown = text.count("`a.")
    assert shown in (100, 30, 10, 0)
    assert f"{2000 - shown} more left out here" in text
    assert text.endswith("- One.\n") if shown >= 30 else "10 more left out here" in text
