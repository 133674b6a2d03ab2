"""`make bench` runs: each suite, in its short form, on real stacks, gives each of its figures. What they are is not looked at."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from bench.results import FOLDER, read
from bench.session import PREFIX, things
from tests.stack.harness import ROOT, need_pulumi

#: By suite: measure -> the systems that it is measured on.
FIGURES = {
    "deploy": {
        "first up": {"pulumi", "compose"},
        "first up, phase": {"pulumi", "compose"},
        "no-op up": {"pulumi", "compose", "empty program"},
        "no-op preview": {"pulumi", "empty program"},
    },
    "scale": {"growing up": {"pulumi"}, "no-op up": {"pulumi"}, "no-op preview": {"pulumi"}},
    "dicom": {"C-STORE": {"project", "seed"}},
    "ingest": {"ingest": {"1 connections", "16 connections"}, "ingest errors": {"1 connections", "16 connections"}},
    "forward": {
        "idle": {"forwarder", "client's Orthanc"},
        "latency": {"forwarder"},
        "backlog": {"by hand", "forwarder", "seed, by hand"},
    },
    "backlog": {"backlog, size": {"forwarder"}, "backlog, memory": {"forwarder"}, "backlog, part": {"forwarder"}},
    "security": {measure: {"project", "TLS", "not hardened"} for measure in ("upload", "C-STORE", "backlog", "CPU")},
}


def _documented() -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in FOLDER.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `make bench` wrote its short form."""
    need_pulumi()
    folder, before = tmp_path_factory.mktemp("bench"), _documented()
    # Most of the time they wait: side by side, both together take little longer than one. The page is made when all figures are there.
    for side_by_side in (("deploy scale", "dicom ingest forward backlog security"), ("report",)):
        commands = [[sys.executable, "-m", "bench", *what.split(), "--short", str(folder)] for what in side_by_side]
        running = [subprocess.Popen(one, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for one in commands]
        said = [one.communicate(timeout=900)[0] for one in running]
        assert [one.returncode for one in running] == [0] * len(running), "\n".join(said)
    assert _documented() == before, "the short form wrote into docs/bench/"
    assert [name for kind in ("container", "network", "volume") for name in things(kind, PREFIX)] == [], "the bench left something behind"
    return folder


@pytest.mark.parametrize("suite", FIGURES)
def test_each_suite_gives_its_figures(folder: Path, suite: str) -> None:
    found: dict[str, set[str]] = {}
    for row in read(suite, folder):
        assert row.value >= 0, row
        found.setdefault(row.measure, set()).add(row.system)
    assert found == FIGURES[suite]


def test_both_first_ups_are_followed_from_phase_to_phase(folder: Path) -> None:
    phases = {(row.system, row.parameter) for row in read("deploy", folder) if row.measure == "first up, phase"}
    assert {(system, part) for system in ("pulumi", "compose") for part in ("db", "db-roles", "server")} <= phases


def test_nothing_was_lost_on_the_way(folder: Path) -> None:
    assert [row for row in read("ingest", folder) if "holds" in row.note or (row.measure == "ingest errors" and row.value)] == []


def test_the_page_holds_each_goal_against_a_figure(folder: Path) -> None:
    page = (folder / "README.md").read_text()
    assert "nan" not in page
    goals = page.partition("## Goals")[2].partition("## ")[0]
    assert goals.count("met") == 19
