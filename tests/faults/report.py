"""The soak's table, as text, as Markdown, and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.results import FOLDER
from ops.stack.terminal import drawn
from tests.faults.recovery import Episode

_HEAD = ("fault", "times", "images meanwhile", "not recovered", "median s", "p95 s", "max s", "undisturbed median s")


@dataclass(frozen=True)
class Row:
    """One kind of fault. Its times are seconds from its end to recovery; None where nothing is known."""

    fault: str
    times: int
    #: Images acknowledged from its beginning to recovery, all times together.
    images: int
    #: How often it was not seen that everything was right again.
    not_recovered: int
    median: float | None
    p95: float | None
    longest: float | None
    #: The median of those during whose recovery no other fault began.
    undisturbed: float | None


@dataclass
class Outcome:
    """A whole soak."""

    seed: int
    seconds: float = 0.0
    clients: int = 0
    #: Acknowledged to a sender; of them those that the archive did not give back as they were sent, with Orthanc's identifiers.
    images: int = 0
    lost: int = 0
    missing: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    #: Sent and never acknowledged: nobody was promised anything.
    given_up: int = 0
    #: How often the archive stored an image, and how many different ones; how often the senders themselves sent one once more.
    stores: int = 0
    distinct: int = 0
    repeated: int = 0
    #: Of the images acknowledged, those that the device outside does not have as they were sent; how many images it was sent.
    lost_at_device: int = 0
    transfers: int = 0
    #: Seconds from the end of the load until nothing waited, and what still did.
    last_recovery: float = 0.0
    not_idle: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    #: Faults that could not be made, and anything else that went wrong with the soak itself.
    errors: list[str] = field(default_factory=list)

    @property
    def totals(self) -> str:
        return (
            f"{sum(row.times for row in self.rows)} faults, {self.images} images acknowledged, {self.lost} lost, "
            f"in {self.seconds / 60:.1f} minutes, seed {self.seed}.\n"
            f"The archive stored {self.distinct} different images {self.stores} times: {self.stores - self.distinct} once more, "
            f"where senders themselves had sent {self.repeated} once more.\n"
            f"The device outside the stack was sent {self.transfers} images; {self.lost_at_device} are lost there.\n"
            f"{self.last_recovery:.1f} s after the end of the load nothing waited; {self.given_up} images were never acknowledged."
        )


def rows(episodes: Sequence[Episode], acknowledged_between: Callable[[float, float], int]) -> list[Row]:
    made = []
    for name in sorted({episode.fault for episode in episodes}):
        of_name = [episode for episode in episodes if episode.fault == name]
        seconds = sorted(episode.recovered for episode in of_name if episode.recovered is not None)
        calm = sorted(episode.recovered for episode in of_name if episode.recovered is not None and not episode.disturbed)
        images = sum(acknowledged_between(episode.began, episode.ended + (episode.recovered or 0)) for episode in of_name)
        quantiles = (_quantile(seconds, 0.5), _quantile(seconds, 0.95), _quantile(seconds, 1))
        made.append(Row(name, len(of_name), images, len(of_name) - len(seconds), *quantiles, _quantile(calm, 0.5)))
    return made


def _quantile(values: Sequence[float], part: float) -> float | None:
    """The smallest value that so large a part of all does not exceed."""
    return values[max(0, math.ceil(part * len(values)) - 1)] if values else None


def _cells(row: Row) -> tuple[str, ...]:
    times = ("-" if value is None else f"{value:.1f}" for value in (row.median, row.p95, row.longest, row.undisturbed))
    return (row.fault, str(row.times), str(row.images), str(row.not_recovered), *times)


def text(outcome: Outcome) -> str:
    parts = [drawn(_HEAD, [_cells(row) for row in outcome.rows]), outcome.totals, "\n".join([*outcome.errors, *outcome.not_idle])]
    return "\n\n".join(part for part in parts if part)


def write(outcome: Outcome, folder: Path = FOLDER) -> None:
    lines = [f"| {' | '.join(_HEAD)} |", f"|---|{'---:|' * (len(_HEAD) - 1)}", *(f"| {' | '.join(_cells(row))} |" for row in outcome.rows)]
    problems = [f"- {problem}" for problem in (*outcome.errors, *outcome.not_idle)]
    parts = [_INTRODUCTION.format(clients=outcome.clients), outcome.totals, "\n".join(lines), "\n".join(problems)]
    (folder / "raw").mkdir(parents=True, exist_ok=True)
    (folder / "soak.md").write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    (folder / "raw" / "soak.json").write_text(json.dumps(asdict(outcome), indent=1) + "\n", encoding="utf-8")


_INTRODUCTION = """# Soak: faults under load

Written by `make soak`. {clients} clients with an archive on PostgreSQL, and a device outside the stack (no C-ECHO, no storage commitment, a
C-FIND that knows one UID at a time). Scanners send CT series without a break, and keep what they were told has arrived. One fault after
another, by chance; often the next begins before the last has been recovered from. At the end the archive is started anew, and the data set
of each acknowledged image is compared, by MD5, with its file there and with what the REST API gives.

- **images meanwhile**: acknowledged from the beginning of a fault until recovery, summed over its times.
- **recovery**: from the end of a fault (what failed answers again) until the archive has everything that was acknowledged by then and no
  forwarder knows of an older image that waits. *Undisturbed*: those during which no other fault began.
- **lost**: missing at the archive, or other bytes than the newest that were acknowledged.
- **once more**: stored again at the archive although it had it; counted in the archive's database, in the transaction that stores."""
