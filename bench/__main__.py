"""``python -m bench [deploy|scale|dicom|ingest|forward|backlog|security|report|all …] [--runs N]``: measures, and writes docs/bench/.

With ``--short FOLDER``, a few images and one run of everything, into that folder: that each suite runs, for the tests.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from bench import backlog, deploy, dicom, forward, ingest, machine, report, scale, security
from bench.compose import find_compose
from bench.results import FOLDER, SUITES
from bench.session import BenchError, Session, session
from configs.loader import load_stack_file
from configs.problems import SettingsError
from ops.containers import docker_runner
from ops.images import ensure_images
from ops.prepare import Tools
from ops.setup.console import SetupError
from ops.setup.state import State


def main() -> int:
    """Run what the command line asks for; the exit status."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("what", nargs="*", default="all", choices=[*SUITES, "report", "all"], help="all when left out")
    parser.add_argument("--runs", type=int, default=5, help="repetitions of each measurement (5)")
    parser.add_argument("--short", type=Path, metavar="FOLDER", help="only see that all of it runs: little of everything, into this folder")
    arguments = parser.parse_args()
    if arguments.runs < 1:
        parser.error("--runs is at least 1")
    suites = SUITES if "all" in arguments.what else tuple(suite for suite in SUITES if suite in arguments.what)
    folder = arguments.short or FOLDER
    try:
        if suites:
            _measure(suites, 1 if arguments.short else arguments.runs, arguments.short)
        report.write(folder)
    except (BenchError, SettingsError, SetupError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; what the bench made is removed.", file=sys.stderr)
        return 130
    print(f"\n  {folder / 'README.md'}")
    return 0


def _measure(suites: tuple[str, ...], runs: int, short: Path | None) -> None:
    ensure_images(load_stack_file("dev"), Tools(Path("pulumi"), State("", ""), ("docker",)), docker_runner(("docker",)))
    with session(short) as this:
        compose, version = find_compose()
        print(f"  docker compose {version}", flush=True)
        described = machine.describe(version)
        for suite in suites:
            print(f"\n  {suite}", flush=True)
            started = time.monotonic()
            _run(suite, this, runs, compose)
            report.keep_machine(described, [suite], short or FOLDER)
            print(f"  {suite} took {time.monotonic() - started:.0f} s", flush=True)


def _run(suite: str, this: Session, runs: int, compose: list[str]) -> None:
    if suite == "deploy":
        deploy.measure(this, runs, compose)
    elif suite == "scale":
        scale.measure(this, runs)
    elif suite == "dicom":
        dicom.measure(this, runs)
    elif suite == "forward":
        forward.measure(this, runs)
    elif suite == "backlog":
        backlog.measure(this)
    elif suite == "security":
        security.measure(this, runs)
    else:
        ingest.measure(this, runs)


if __name__ == "__main__":
    sys.exit(main())
