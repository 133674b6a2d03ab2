"""The report against the truth: what it says before an update is compared with what the update then does.

Each change is previewed with the report and a plan, and the plan is applied; meanwhile the engine's events and a probe on every DICOM
port tell what really happened. A table of it is left.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ops.preview.events import read
from ops.preview.report import Level, Report, build
from tests.stack.harness import Done, Stack, eventually
from tests.stack.outage import Outage, answers


@dataclass
class Row:
    """One change: what the report named, and what was seen."""

    change: str
    containers: set[str]
    stopped: set[str]
    ports: set[int]
    down: dict[int, float]
    seconds: float

    @property
    def wrong(self) -> list[str]:
        """What was named and did not happen, and what happened and was not named."""
        seen = {port for port, seconds in self.down.items() if seconds}
        found = [f"named, but not stopped: {name}" for name in sorted(self.containers - self.stopped)]
        found += [f"stopped, but not named: {name}" for name in sorted(self.stopped - self.containers)]
        found += [f"port named, but always up: {port}" for port in sorted(self.ports - seen)]
        return found + [f"port down, but not named: {port}" for port in sorted(seen - self.ports)]


class Reviewed:
    """A stack, with a preview before each update and a look at what the update does."""

    def __init__(self, stack: Stack, table: Path) -> None:
        self.stack, self._table = stack, table
        self.rows: list[Row] = []
        self.nodes: dict[int, str] = {}

    def preview(self, plan: Path | None = None) -> tuple[Report, Done]:
        """The report of the stack file as it stands, as `./orthanc-stack preview` makes it."""
        self.stack.variable("PULUMI_DEBUG_COMMANDS", "true")
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "events"
            self.stack._write()
            done = self.stack.command(
                "preview", "--event-log", str(log), "--policy-pack", "policy", *(["--save-plan", str(plan)] if plan else [])
            )
            text = log.read_text()
        assert self.stack.secrets_in(text) == []
        assert plan is None or not plan.exists() or self.stack.secrets_in(plan.read_text()) == []
        return build(read(text)), done

    def ports(self) -> dict[str, int]:
        """The DICOM port of each node, until now."""
        ports = {name: node.port for name, node in self.stack.nodes().items()}
        self.nodes |= {port: name for name, port in ports.items()}
        return ports

    def update(self, change: str) -> Report:
        """Preview, apply the plan, and note what was named and what was seen."""
        plan = self.stack.program / "reviewed.plan.json"
        report, done = self.preview(plan)
        assert done.ok, done.text
        ports = self.ports()
        eventually("every DICOM port answers", lambda: all(map(answers, ports.values())))
        started = time.monotonic()
        with Outage(self.stack.prefix, ports.values()) as seen:
            done = self.stack.command("up", "--yes", "--skip-preview", "--suppress-outputs", "--policy-pack", "policy", "--plan", str(plan))
            # What was replaced last gets the time to be missed.
            time.sleep(0.5)
        assert done.ok, done.text
        assert min(seen.looks.values()) >= 3
        self._note(change, report, seen, time.monotonic() - started)
        return report

    def refuse(self, change: str) -> Report:
        """Preview what cannot be deployed, try to deploy it all the same, and note the same."""
        report, done = self.preview()
        assert not done.ok
        started = time.monotonic()
        with Outage(self.stack.prefix, self.ports().values()) as seen:
            assert not self.stack.command("up", "--yes", "--skip-preview", "--suppress-outputs", "--policy-pack", "policy").ok
        assert min(seen.looks.values()) >= 3
        self._note(change, report, seen, time.monotonic() - started)
        return report

    def _note(self, change: str, report: Report, seen: Outage, seconds: float) -> None:
        named = {int(down.dicom.rpartition(":")[2]) for down in report.downtime}
        # Where nothing can be deployed, nothing is named.
        containers = report.restarted if report.level is not Level.FAILED else set()
        row = Row(change, containers, seen.stopped, named if report.level is not Level.FAILED else set(), seen.down, seconds)
        self.rows.append(row)
        self._table.write_text(table(self.rows, lambda port: self.nodes.get(port, str(port))))
        assert row.wrong == [], f"{change}: {row}"


def table(rows: list[Row], names: Callable[[int], str]) -> str:
    """The rows for people; ports by their nodes' names, since the tests' own are random."""
    lines = [
        "| change | containers named | really stopped | ports named | really down | wrongly named or missed |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        down = [f"{names(port)} {seconds:.1f} s" for port, seconds in sorted(row.down.items(), key=lambda each: names(each[0])) if seconds]
        cells = [
            row.change,
            ", ".join(sorted(row.containers)) or "-",
            ", ".join(sorted(row.stopped)) or "-",
            ", ".join(sorted(map(names, row.ports))) or "-",
            ", ".join(down) or "-",
            str(len(row.wrong)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
