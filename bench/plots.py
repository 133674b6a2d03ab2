"""The plots, made from the rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")  # no display
import matplotlib.pyplot as plt

from bench.results import Row, fit, median, points, values

_SIZE: Final = (9.0, 4.2)
_DPI: Final = 120
#: Colour-blind safe (Okabe and Ito).
_COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#999999", "#F0E442")


def medians_by_parameter(rows: Sequence[Row], measure: str, system: str) -> dict[str, float]:
    """The median for each parameter, in the order of the rows."""
    parameters = list(dict.fromkeys(row.parameter for row in rows if row.measure == measure and row.system == system))
    return {parameter: median(values(rows, measure, system, parameter)) for parameter in parameters}


def first_up(rows: Sequence[Row], path: Path) -> None:
    """A bar for each, stacked by what was waited for."""
    bars = {system: medians_by_parameter(rows, "first up, phase", system) for system in ("compose", "pulumi")}
    starts = [dict(zip(bar, accumulate(bar.values(), initial=0.0), strict=False)) for bar in bars.values()]
    # In Pulumi's order, which is that of time.
    phases = list(dict.fromkeys(phase for bar in reversed(bars.values()) for phase in bar))
    figure, axes = _new()
    for phase, colour in zip(phases, _colours(len(phases)), strict=True):
        widths = [bar.get(phase, 0.0) for bar in bars.values()]
        lefts = [start.get(phase, 0.0) for start in starts]
        drawn = axes.barh(list(bars), widths, left=lefts, color=colour, label=phase, edgecolor="white")
        axes.bar_label(drawn, [f"{width:.1f}" if width >= 0.35 else "" for width in widths], label_type="center", fontsize=8)
    totals = [median(values(rows, "first up", system)) for system in bars]
    for i, total in enumerate(totals):
        axes.plot([total, total], [i - 0.45, i + 0.45], color="black", linewidth=1.5)
        axes.annotate(f" {total:.2f} s", (total, i), va="center", fontweight="bold")
    axes.set_xlim(0, 1.15 * max(totals))
    axes.set_xlabel("seconds, medians; the black line is the median of the whole")
    axes.set_title("First up of the dev stack, from nothing to all healthy")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=4, fontsize=8, frameon=False)
    _save(figure, path)


def no_op(rows: Sequence[Row], path: Path) -> None:
    """Every run over the number of nodes, with the lines."""
    figure, axes = _new()
    for measure, colour in zip(("no-op up", "no-op preview"), _COLOURS, strict=False):
        seen = points(rows, measure)
        line = fit(seen)
        axes.scatter(*zip(*seen, strict=True), color=colour, s=16, alpha=0.7)
        ends = (0.0, max(x for x, _ in seen))
        label = f"{measure}: {line.slope * 1000:.1f} ms per node, R² {line.r_squared:.3f}"
        axes.plot(ends, [line.base + line.slope * x for x in ends], color=colour, label=label)
    axes.set(xlabel="nodes, all but the first with a forwarder", ylabel="seconds", xlim=(0, None), ylim=(0, None), title="Nothing to do")
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def c_store(rows: Sequence[Row], path: Path) -> None:
    """Bars by way, the project beside the seed's settings; lines from the smallest to the largest."""
    ways = list(dict.fromkeys(row.parameter for row in rows if row.measure == "C-STORE"))
    figure, axes = _new()
    for system, label, colour, shift in (("project", "this project", 0, -0.2), ("seed", "without its settings (seed)", 1, 0.2)):
        known = [values(rows, "C-STORE", system, way) for way in ways]
        heights = [median(found) for found in known]
        spread = [[h - min(k) for h, k in zip(heights, known, strict=True)], [max(k) - h for h, k in zip(heights, known, strict=True)]]
        places = [place + shift for place in range(len(ways))]
        drawn = axes.bar(places, heights, 0.4, yerr=spread, capsize=3, color=_COLOURS[colour], label=label)
        axes.bar_label(drawn, [f"{height:.0f}" for height in heights], fontsize=9, padding=2)
    labels = [way.replace(", ", ",\n").replace(" with ", "\nwith ").replace(" to client", "\nto client") for way in ways]
    axes.set_xticks(range(len(ways)), labels, fontsize=9)
    axes.set(ylabel="images/s", ylim=(0, 1.18 * max(row.value for row in rows)))
    axes.set_title("C-STORE of CT images, 512x512, one series")
    axes.legend()
    _save(figure, path)


def connections(rows: Sequence[Row], path: Path) -> None:
    """Small images from 16 clients, by the number of connections to the index, errors above the bars."""
    systems = sorted({row.system for row in rows if row.measure == "ingest"}, key=lambda system: int(system.partition(" ")[0]))
    parameter = next(row.parameter for row in rows if row.measure == "ingest" and "16 clients" in row.parameter)
    figure, axes = _new()
    heights = [median(values(rows, "ingest", system, parameter)) for system in systems]
    drawn = axes.bar([system.partition(" ")[0] for system in systems], heights, color=_COLOURS[0])
    errors = [sum(values(rows, "ingest errors", system, parameter)) for system in systems]
    axes.bar_label(drawn, [f"{height:.0f}/s\n{error:.0f} errors" for height, error in zip(heights, errors, strict=True)], fontsize=9)
    axes.set(xlabel="IndexConnectionsCount", ylabel="images/s", ylim=(0, 1.25 * max(heights)))
    axes.set_title(f"HTTP ingest at the archive: {parameter}")
    _save(figure, path)


def _new() -> tuple[Any, Any]:
    return plt.subplots(figsize=_SIZE)


def _colours(count: int) -> list[Any]:
    return [*_COLOURS, *mpl.color_sequences["Set3"]][:count]


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=_DPI, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
