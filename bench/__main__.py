"""``python -m bench [deploy|scale|dicom|ingest|forward|backlog|security|report|all …] [--runs N]``: measures, and writes docs/bench/.

With ``--short FOLDER``, a few images and one run of everything, into that folder: that each suite runs, for the tests.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bench import backlog, deploy, dicom, forward, ingest, machine, report, scale, security
from bench.compose import find_compose
from bench.results import FOLDER
from bench.session import BenchError, Session, session
from configs.loader import load_stack_file
from configs.problems import SettingsError
from ops.setup.console import SetupError
from ops.setup.images import ensure_images
from ops.setup.prepare import Tools
from ops.setup.state import State
from ops.stack.containers import docker_runner

_SUITES: Final[dict[str, Callable[[Session, int], None]]] = {
    "deploy": deploy.measure,
    "scale": scale.measure,
    "dicom": dicom.measure,
    "ingest": ingest.measure,
    "forward": forward.measure,
    "backlog": backlog.measure,
    "security": security.measure,
}


def main() -> int:
    """Run what the command line asks for; the exit status."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("what", nargs="*", default="all", choices=[*_SUITES, "report", "all"], help="all when left out")
    parser.add_argument("--runs", type=int, default=5, help="repetitions of each measurement (5)")
    parser.add_argument("--short", type=Path, metavar="FOLDER", help="only see that all of it runs: little of everything, into this folder")
    arguments = parser.parse_args()
    if arguments.runs < 1:
        parser.error("--runs is at least 1")
    suites = [suite for suite in _SUITES if suite in arguments.what or "all" in arguments.what]
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


def _measure(suites: Sequence[str], runs: int, short: Path | None) -> None:
    ensure_images(load_stack_file("dev"), Tools(Path("pulumi"), State("", ""), ("docker",)), docker_runner(("docker",)))
    with session(short) as this:
        _, version = find_compose()
        print(f"  docker compose {version}", flush=True)
        described = machine.describe(version)
        for suite in suites:
            print(f"\n  {suite}", flush=True)
            started = time.monotonic()
            _SUITES[suite](this, runs)
            report.keep_machine(described, [suite], short or FOLDER)
            print(f"  {suite} took {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
