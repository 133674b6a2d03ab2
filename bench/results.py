"""What was measured, one row a run, as CSV: the figures of docs/bench/ are made from these rows and from nothing else."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

from ops.setup.console import ROOT

FOLDER: Final = ROOT / "docs" / "bench"


@dataclass(frozen=True)
class Row:
    """One measured value.

    Attributes:
        measure: what was measured ("first up").
        system: on what ("pulumi", "compose", "empty").
        parameter: under which condition ("16 clients").
        run: which repetition, from 1.
        value: the figure as it was seen.
        unit: its unit.
        note: what else was seen: errors, bodies.
    """

    measure: str
    system: str
    parameter: str
    run: int
    value: float
    unit: str
    note: str = ""


class Results:
    """The rows of one suite, written after each one, so that an interrupted run leaves what it had."""

    def __init__(self, suite: str, folder: Path = FOLDER) -> None:
        self.path = folder / "raw" / f"{suite}.csv"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._write([], "w")

    def add(self, row: Row) -> None:
        """Keep a row, and say it."""
        self._write([row], "a")
        note = f"   ({row.note[:100]})" if row.note else ""
        print(f"  {row.measure:<16} {row.system:<24} {row.parameter:<34} run {row.run}: {row.value:10.3f} {row.unit}{note}", flush=True)

    def _write(self, rows: Iterable[Row], mode: str) -> None:
        with self.path.open(mode, newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
            if mode == "w":
                writer.writeheader()
            writer.writerows(asdict(row) | {"value": f"{row.value:.6g}"} for row in rows)


def read(suite: str, folder: Path = FOLDER) -> list[Row]:
    """The rows of a suite's last run; none where it was never run."""
    try:
        with (folder / "raw" / f"{suite}.csv").open(newline="", encoding="utf-8") as file:
            return [Row(**{**line, "run": int(line["run"]), "value": float(line["value"])}) for line in csv.DictReader(file)]  # type: ignore[arg-type]
    except FileNotFoundError:
        return []


def values(rows: Iterable[Row], measure: str, system: str | None = None, parameter: str | None = None) -> list[float]:
    """The values of the rows that fit."""
    return [row.value for row in rows if row.measure == measure and system in (None, row.system) and parameter in (None, row.parameter)]


def median(known: Sequence[float]) -> float:
    """The median; not a number where there is none."""
    return statistics.median(known) if known else float("nan")


def p95(known: Sequence[float]) -> float:
    """The 95th percentile, nearest rank: with less than 20 values that is the largest one."""
    ordered = sorted(known)
    return ordered[-(-len(ordered) * 95 // 100) - 1] if ordered else float("nan")


def points(rows: Iterable[Row], measure: str) -> list[tuple[float, float]]:
    """What was measured at the number that the parameter begins with ("25 nodes"): number and value."""
    return [(float(row.parameter.partition(" ")[0]), row.value) for row in rows if row.measure == measure]


@dataclass(frozen=True)
class Fit:
    """A straight line through points: value = base + slope * x."""

    base: float
    slope: float
    r_squared: float


def fit(points: Sequence[tuple[float, float]]) -> Fit:
    """The least-squares line; needs two different x."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    slope, base = statistics.linear_regression(xs, ys)
    residual = sum((y - base - slope * x) ** 2 for x, y in points)
    total = sum((y - statistics.fmean(ys)) ** 2 for y in ys)
    return Fit(base, slope, 1 - residual / total if total else 1.0)
