"""Findings as a report: Markdown for people, JSON for programs. The same stack gives the same text."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from itertools import accumulate, groupby
from typing import Any, Final

from ops.drift.findings import Finding

#: What nobody can see from outside; docs/drift.md has why.
UNSEEN: Final = (
    "files in a container that the stack did not write there",
    "what is in the volumes: images, indexes, the database's roles and their passwords",
    "a volume that was removed and made again with the same labels",
    "what was changed and put back between two runs",
)
#: The report is meant to be an issue's text, of which GitHub takes 65,536 characters: so many of findings, and so many of commands.
_MOST_OF_FINDINGS: Final = 45_000
_MOST_OF_COMMANDS: Final = 12_000


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Findings in the report's order, none twice."""
    return sorted(set(findings), key=lambda finding: finding.order)


def verdict(stack: str, findings: Sequence[Finding]) -> str:
    """The report in a line."""
    if not findings:
        return f"Stack {stack}: nothing drifted."
    parts = len({finding.part for finding in findings})
    lost = ", **data is gone or elsewhere**" if any(finding.data for finding in findings) else ""
    return f"Stack {stack}: {_count(len(findings), 'thing')} drifted, in {_count(parts, 'part')}{lost}."


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def markdown(stack: str, findings: Sequence[Finding]) -> str:
    """The report, to read."""
    lines = [f"# Drift of {stack}", "", verdict(stack, findings), ""]
    # What was lost comes first, also where not all fits.
    shown = _fitting(sorted(findings, key=lambda finding: not finding.data))
    if lost := [finding for finding in shown if finding.data]:
        lines += ["## Data", "", *(f"- {finding.part.title}: {finding.said}" for finding in lost), ""]
    for part, group in groupby((finding for finding in shown if not finding.data), key=lambda finding: finding.part):
        lines += [f"## {part.title}", "", *(f"- {finding.said}" for finding in group), ""]
    if more := len(findings) - len(shown):
        lines += [f"… and {more} more: the JSON beside this has all.", ""]
    if findings:
        commands = "\n".join(repair(stack, findings))
        told = (
            ["```sh", commands, "```"] if len(commands) <= _MOST_OF_COMMANDS else ["The commands are too many for here: the JSON has them."]
        )
        lines += ["## To put it right", "", *told, ""]
    lines += ["<details><summary>What this cannot see</summary>", "", *(f"- {one}" for one in UNSEEN), "", "</details>", ""]
    return "\n".join(lines)


def _fitting(findings: Sequence[Finding]) -> list[Finding]:
    """As many findings as have room, each with a heading and what goes around it."""
    sizes = accumulate(len(finding.said) + len(finding.part.title) + 10 for finding in findings)
    return [finding for finding, size in zip(findings, sizes, strict=True) if size <= _MOST_OF_FINDINGS]


def as_json(stack: str, findings: Sequence[Finding]) -> str:
    """The report, for programs: `change` is a fixed word, `said` is Markdown."""
    report: dict[str, Any] = {
        "stack": stack,
        "drifted": bool(findings),
        "verdict": verdict(stack, findings),
        "findings": [
            {
                "part": finding.part.of,
                "name": finding.part.name,
                "thing": finding.thing,
                "change": finding.change,
                "data": finding.data,
                "said": finding.said,
            }
            for finding in findings
        ],
        "repair": repair(stack, findings),
        "unseen": list(UNSEEN),
    }
    return json.dumps(report, indent=1, ensure_ascii=False) + "\n"


def repair(stack: str, findings: Sequence[Finding]) -> list[str]:
    """The commands that make the stack what was deployed; what Pulumi's refresh does not see, it is told to replace."""
    if not findings:
        return []
    by_hand = list(dict.fromkeys(command for finding in findings for command in finding.by_hand))
    refreshed = [finding for finding in findings if finding.urn]
    if not refreshed:
        return by_hand
    if not by_hand and {finding.change for finding in refreshed} <= {"stopped", "removed"}:
        return [f"make up STACK={shlex.quote(stack)}"]
    gone = {finding.urn for finding in findings if finding.change in ("removed", "recreated")}
    replaced = sorted({finding.urn for finding in findings if finding.replace} - gone)
    told = "".join(f" \\\n  --replace {shlex.quote(urn)}" for urn in replaced)
    # A volume that is lost is refused (components/preflight.py) until the state forgets it.
    forget = ["pulumi refresh"] if any(finding.data for finding in findings) else []
    return [*by_hand, f'eval "$(make -s env STACK={shlex.quote(stack)})"', *forget, f"pulumi up --refresh --run-program{told}"]
