"""A report of a large stack: soon made, read as one change, and never longer than a comment may be."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ops.preview import build, read
from ops.preview.fit import LIMIT, Section, fit
from ops.preview.markdown import markdown
from ops.preview.model import Level
from tests.unit.reports import Event, changed, deployed, events_of, replaced, report_of, text_of


def fifty() -> list[Event]:
    """Fifty nodes that are deployed and stay as they are: a real preview of them as new ones, turned into the one after its update."""
    return deployed(events_of("fifty-nodes"))


def change_option(events: list[Event], name: str) -> Any:
    """One option of one node, as a preview tells of it; the node's new configuration."""
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
    assert [(part.name, len(part.changes)) for part in report.parts] == [("ward-07", 1)]
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
        configuration = change_option(events, name)
        configuration["StableAge"] = 10
        if name == "archive":
            configuration["DicomAet"] = "NEW"
        else:
            configuration["DicomModalities"]["archive"]["AET"] = "NEW"
    written, cut = markdown(build(read(text_of(events))))
    assert not cut
    assert written.count("`DicomModalities.archive.AET`") == 1
    assert "and 41 more" in written
    assert len(written.encode()) < 20_000


@pytest.mark.parametrize("limit", [LIMIT, 20_000, 5_000])
def test_what_is_too_long_is_cut_from_its_end_and_says_so(limit: int) -> None:
    report = report_of("fifty-nodes")
    assert len(report.containers) == 101
    whole, _ = markdown(report, limit=1 << 30)
    written, cut = markdown(report, limit=limit, url="https://ci.example/run/1")
    assert len(written.encode()) <= limit
    assert cut == (len(whole.encode()) > limit)
    assert written.splitlines()[0] == whole.splitlines()[0]
    if cut:
        assert "left out here: [the whole report](https://ci.example/run/1) has them." in written
        # No section goes without a word.
        headings = [[line for line in text.splitlines() if line.startswith("### ")] for text in (written, whole)]
        assert headings[0] == headings[1]


@pytest.mark.parametrize("letter", ["x", "é", "😀", "&"])
def test_bytes_count_and_not_letters(letter: str) -> None:
    sections = [Section("First", (letter * 600,) * 2000, 90), Section("Second", ("kept",), 100)]
    text, cut = fit(sections, whole="elsewhere")
    assert len(text.encode()) <= LIMIT
    assert cut
    assert "kept" in text


def test_the_least_important_section_is_cut_first() -> None:
    sections = [Section("Heavy", ("a" * 100,) * 50, 90), Section("Light", ("b" * 100,) * 50, 10)]
    text, cut = fit(sections, whole="elsewhere", limit=8000)
    assert cut
    assert text.count("a" * 100) == 50
    assert text.count("b" * 100) < 50
