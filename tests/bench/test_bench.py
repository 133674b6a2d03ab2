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

pytestmark = pytest.mark.slow(
    "minutes: stacks of dev, its like without Pulumi, with the seed's settings, with TLS, and not hardened, and the growth of one"
)

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
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows and the page of one run of all suites. Not two side by side: a suite has three stacks at once, and an engine 30 networks."""
    need_pulumi()
    before, folder = _documented(), tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "bench", *FIGURES, "--short", str(folder)]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said, _ = running.communicate(timeout=900)
    assert running.returncode == 0, said
    assert _documented() == before, "the short form wrote into docs/bench/"
    left = [name for kind in ("container", "network", "volume") for name in things(kind, f"{PREFIX}{running.pid}_")]
    assert left == [], "the bench left something behind"
    return folder


@pytest.mark.parametrize("suite", FIGURES)
def test_each_suite_gives_its_figures(short: Path, suite: str) -> None:
    found: dict[str, set[str]] = {}
    for row in read(suite, short):
        assert row.value >= 0, row
        found.setdefault(row.measure, set()).add(row.system)
    assert found == FIGURES[suite]


def test_both_first_ups_are_followed_from_phase_to_phase(short: Path) -> None:
    phases = {(row.system, row.parameter) for row in read("deploy", short) if row.measure == "first up, phase"}
    assert {(system, part) for system in ("pulumi", "compose") for part in ("db", "db-roles", "server")} <= phases


def test_nothing_was_lost_on_the_way(short: Path) -> None:
    assert [row for row in read("ingest", short) if "holds" in row.note or (row.measure == "ingest errors" and row.value)] == []


def test_the_page_holds_each_goal_against_a_figure(short: Path) -> None:
    page = (short / "README.md").read_text()
    assert page.partition("## Goals")[2].partition("## ")[0].count("met") == 18
    assert "nan" not in page
