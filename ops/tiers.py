"""`make test`: the set-up, then the tests in seven tiers, with their counts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.loader import load_stack_file
from ops import apt
from ops.containers import docker_runner
from ops.images import ensure_images
from ops.prepare import prepare
from ops.setup.console import ROOT, SetupError, say
from ops.table import table

#: In the order in which they run: what fails fast first.
TIERS = ("unit", "program", "toolchain", "contract", "stack", "faults", "bench")
#: The tiers that deploy nothing.
_WITHOUT_DOCKER = frozenset({"unit", "program"})
_NO_TESTS_COLLECTED = 5


@dataclass(frozen=True)
class Counts:
    """What became of one tier's tests."""

    tier: str
    passed: int
    failed: int
    skipped: int
    seconds: float


def run_tests(stack: str, tiers: Sequence[str] = TIERS) -> int:
    """Run the tiers one after the other; the exit status.

    Args:
        stack: the stack whose stack file says where images come from.
        tiers: which of TIERS.
    """
    if unknown := [tier for tier in tiers if tier not in TIERS]:
        raise SetupError(f"there is no tier {', '.join(unknown)}: TIERS may hold {', '.join(TIERS)}.")
    artifacts = ROOT / "artifacts"
    artifacts.mkdir(exist_ok=True)
    with_docker = not _WITHOUT_DOCKER.issuperset(tiers)
    # The tests bring a state backend of their own: the user's stacks are not theirs to see.
    tools = prepare(stack, engine=with_docker, state=False)
    if with_docker:
        ensure_images(load_stack_file(stack), tools, docker_runner(tools.docker))
        _ensure_packages()
    counts = [_run(tier, artifacts) for tier in tiers]
    text, status = report(counts)
    print(f"\n{text}")
    return status


def report(counts: Sequence[Counts]) -> tuple[str, int]:
    """The closing table, whose last line is "<n> passed, <m> failed", and the exit status."""
    rows = [(c.tier, str(c.passed), str(c.failed), str(c.skipped), f"{c.seconds:.0f} s") for c in counts]
    passed, failed = sum(c.passed for c in counts), sum(c.failed for c in counts)
    rows.append(("all", str(passed), str(failed), str(sum(c.skipped for c in counts)), f"{sum(c.seconds for c in counts):.0f} s"))
    text = table(("tier", "passed", "failed", "skipped", "time"), rows)
    # No test at all is no success either.
    return f"{text}\n\n{passed} passed, {failed} failed", 1 if failed or not passed else 0


def counts_of(tier: str, results: Path, status: int, seconds: float) -> Counts:
    """Counts from pytest's JUnit file. A pytest that failed without a failed test (it did not start, say) counts as one."""
    total = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    if results.exists():
        for suite in ET.parse(results).iter("testsuite"):
            for key in total:
                total[key] += int(suite.get(key, 0))
    failed = total["failures"] + total["errors"]
    passed = max(0, total["tests"] - failed - total["skipped"])
    if status not in (0, _NO_TESTS_COLLECTED) and not failed:
        failed = 1
    return Counts(tier, passed, failed, total["skipped"], seconds)


def _run(tier: str, artifacts: Path) -> Counts:
    print(f"\n--- {tier} ---", flush=True)
    results = artifacts / f"{tier}.xml"
    results.unlink(missing_ok=True)
    started = time.monotonic()
    command = [sys.executable, "-m", "pytest", f"tests/{tier}", f"--junitxml={results}", "-q", *_extra()]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    return counts_of(tier, results, status, time.monotonic() - started)


def _extra() -> list[str]:
    """Further options for pytest, from PYTEST_ARGS (`make test PYTEST_ARGS=-x`)."""
    return os.environ.get("PYTEST_ARGS", "").split()


def _ensure_packages() -> None:
    """Chromium and its driver for the tests that look at web pages, a C compiler for the page of the contract image."""
    wanted = (("chromium", "chromium"), ("chromium-driver", "chromedriver"), ("gcc", "cc"))
    missing = [package for package, command in wanted if not shutil.which(command)]
    if not missing:
        say("Tests", "chromium, chromedriver, cc")
    elif apt.can_install():
        apt.install("Tests", missing, "the tests of web pages")
    else:
        say("Tests", f"{' and '.join(missing)} missing: tests of web pages are skipped (sudo apt-get install {' '.join(missing)})")
