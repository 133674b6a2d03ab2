"""`dev test`, with `--slow` or without: the set-up, then one run of pytest over the tests of that size, with counts by tier."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from configs.loader import load_stack_file
from ops.setup import apt
from ops.setup.console import ROOT, SetupError, say
from ops.setup.images import ensure_images
from ops.setup.prepare import prepare
from ops.stack.terminal import drawn

#: The folders of tests/.
TIERS: Final = ("unit", "program", "toolchain", "contract", "stack", "faults", "devices", "bench")
#: The tiers that deploy nothing.
_WITHOUT_DOCKER: Final = frozenset({"unit", "program"})
#: Each command with the tests that it runs: the marker "slow" has a reason, and chooses.
SIZES: Final = {"test": "not slow", "test-slow": "slow"}
#: Two processes, on any machine: each may have two stacks at a time, and an engine has addresses for about 30 networks in all. Tests that
#: share a stack share a process (tests/conftest.py).
_SIDE_BY_SIDE: Final = ("-n", "2", "--no-loadscope-reorder", "--max-worker-restart=0")
_NO_TESTS_COLLECTED: Final = 5


def run_tests(stack: str, size: str, tiers: Sequence[str] = TIERS, pytest_arguments: Sequence[str] = ()) -> int:
    """Run the tests of a size; the exit status.

    Args:
        stack: the stack whose stack file says where images come from.
        size: which of SIZES.
        tiers: which of TIERS.
        pytest_arguments: pytest's own, which have the last word.

    Raises:
        SetupError: there is no such tier, or the set-up fails.
    """
    if unknown := [tier for tier in tiers if tier not in TIERS]:
        raise SetupError(f"there is no tier {', '.join(unknown)}: there are {', '.join(TIERS)}.")
    results = ROOT / "artifacts" / f"{size}.xml"
    results.parent.mkdir(exist_ok=True)
    results.unlink(missing_ok=True)
    with_docker = not _WITHOUT_DOCKER.issuperset(tiers)
    # The tests bring a state backend of their own: the user's stacks are not theirs to see.
    prepare(stack, engine=with_docker, state=False)
    if with_docker:
        ensure_images(load_stack_file(stack))
        _ensure_packages()
    folders = [f"tests/{tier}" for tier in tiers]
    options = ["-q", "-m", SIZES[size], *_SIDE_BY_SIDE, "--durations=20", f"--junitxml={results}"]
    print(flush=True)
    started = time.monotonic()
    command = [sys.executable, "-m", "pytest", *folders, *options, *pytest_arguments]
    with subprocess.Popen(command, cwd=ROOT) as pytest:
        try:
            status = pytest.wait()
        except KeyboardInterrupt:
            # pytest has the terminal's interrupt as well, and removes the stacks that it has made.
            status = pytest.wait()
    text, failed = report(outcomes(results, status), time.monotonic() - started)
    print(f"\n{text}")
    if status == _NO_TESTS_COLLECTED:
        print(f"There is no test of this size in {', '.join(tiers)}.")
    return int(failed)


def outcomes(results: Path, status: int = 0) -> Mapping[tuple[str, str], float]:
    """What became of each tier's tests: (tier, "passed", "failed", "skipped" or "seconds") -> how many.

    Args:
        results: pytest's JUnit file, if it wrote one.
        status: pytest's exit status. One that failed without a failed test (it did not start, it was killed) counts as one.
    """
    found: defaultdict[tuple[str, str], float] = defaultdict(float)
    for case in ET.parse(results).iter("testcase") if results.exists() else ():
        # A module that cannot be imported is a case without a class.
        name = case.get("classname") or case.get("name") or ""
        tier = name.removeprefix("tests.").partition(".")[0] or "pytest"
        tags = {child.tag for child in case}
        outcome = "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"
        found[tier, outcome] += 1
        found[tier, "seconds"] += float(case.get("time", 0))
    if status not in (0, _NO_TESTS_COLLECTED) and not any(outcome == "failed" for _, outcome in found):
        found["pytest", "failed"] = 1
    return found


def report(found: Mapping[tuple[str, str], float], seconds: float) -> tuple[str, bool]:
    """The closing table, whose last line is "<n> passed, <m> failed", and whether that is no success. No test at all is none."""
    outcomes = ("passed", "failed", "skipped")
    tiers = [tier for tier in dict.fromkeys((*TIERS, *(tier for tier, _ in found))) if any(found.get((tier, one)) for one in outcomes)]
    numbers = {tier: [found.get((tier, one), 0.0) for one in (*outcomes, "seconds")] for tier in tiers}
    numbers["all"] = [sum(column) for column in zip([0.0] * 4, *numbers.values(), strict=True)]
    rows = [(tier, *(f"{count:.0f}" for count in counts), f"{spent:.0f} s") for tier, (*counts, spent) in numbers.items()]
    passed, failed = map(int, numbers["all"][:2])
    text = drawn(("tier", *outcomes, "time of its tests"), rows)
    return f"{text}\n\nAll of it took {seconds:.0f} s.\n{passed} passed, {failed} failed", bool(failed or not passed)


def _ensure_packages() -> None:
    """A browser and its driver for the tests of web pages, a C compiler for the page of the contract image, DCMTK's devices for the zoo."""
    wanted = (
        ("chromium", ("chromium", "google-chrome")),
        ("chromium-driver", ("chromedriver",)),
        ("gcc", ("cc",)),
        ("dcmtk", ("dcmqrscp",)),
    )
    missing = [package for package, commands in wanted if not any(map(shutil.which, commands))]
    why = ""
    if missing and apt.can_install():
        try:
            apt.install("Tests", missing, "the tests of web pages and devices")
            missing = []
        except SetupError as error:
            why = f": {str(error).splitlines()[0]}"
    said = f"{' and '.join(missing)} missing: web pages are skipped, devices fail (apt-get install {' '.join(missing)}{why})"
    say("Tests", said if missing else "a browser, chromedriver, cc, DCMTK")
