"""What drifted, in words, and the report that is made of it: Markdown for people, JSON for programs. The same drift gives the same text."""

import json
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

#: The order of the report. Volumes belong to a node or to the database.
_ORDER: Final = ("node", "database", "adminer", "network", "image", "unknown")
_TITLES: Final = {"database": "The database", "adminer": "Adminer", "unknown": "Not made by this stack"}
#: The most characters of a name or a value.
_LONGEST: Final = 80
#: The most characters of a report: it can be the text of an issue on GitHub, which takes 65,536.
_MOST: Final = 30_000


@dataclass(frozen=True)
class Part:
    """A part of a stack, as its stack file knows it."""

    of: str  #: node, database, adminer, network, image, or unknown for what the stack did not make
    name: str = ""  #: the node's name; the network's without the stack's prefix; the image's

    @property
    def title(self) -> str:
        """The part, for a heading."""
        title = _TITLES.get(self.of, self.of.capitalize())
        return f"{title} {code(self.name)}" if self.name else title


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it was deployed."""

    part: Part  #: what it belongs to
    change: str  #: the kind of change, a word for programs: stopped, removed, file, …, or the property's name in Pulumi's state
    said: str  #: a sentence in Markdown, with no content of a file and no value of a variable
    thing: str  #: the engine's name of the container, network, volume or image
    data: bool = False  #: whether patients' data or an index is gone or at risk
    urn: str = ""  #: the resource in Pulumi's state; empty where it has none
    replace: bool = False  #: whether the container must be replaced to put it right, because a refresh does not see the change
    by_hand: tuple[str, ...] = ()  #: shell commands that must come first


def code(text: object) -> str:
    """Text from the engine, or from a file that somebody edited, as code in Markdown that it cannot break out of."""
    plain = re.sub(r"[^\x20-\x7e\xa0-\uffff]+", " ", str(text)).replace("`", "'").strip()
    return f"`{plain if len(plain) <= _LONGEST else plain[: _LONGEST - 1] + '…'}`" if plain else "nothing"


def listed(texts: Iterable[str], most: int = 10) -> str:
    """Some texts as code, in order; of many, how many more there are."""
    found = sorted(texts)
    return ", ".join(map(code, found[:most])) + (f" and {len(found) - most} more" if len(found) > most else "")


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Findings in the report's order: data first, then by part; none twice."""
    return sorted(set(findings), key=lambda one: (not one.data, _ORDER.index(one.part.of), one.part.name, one.thing, one.change, one.said))


def verdict(stack: str, findings: Sequence[Finding]) -> str:
    """The report in a line."""
    lost = ", **data is gone or at risk**" if any(finding.data for finding in findings) else ""
    return f"Stack {stack}: {len(findings) or 'nothing'} drifted{lost}."


def markdown(stack: str, findings: Sequence[Finding], note: str = "") -> str:
    """The report, to read: the findings in their order, below a note."""
    lines = [f"# Drift of {stack}", "", verdict(stack, findings), "", *([note, ""] if note else [])]
    if lost := [f"- {finding.part.title}: {finding.said}" for finding in findings if finding.data]:
        lines += ["## Data", "", *lost, ""]
    for part, group in groupby((finding for finding in findings if not finding.data), key=lambda finding: finding.part):
        lines += [f"## {part.title}", "", *(f"- {finding.said}" for finding in group), ""]
    # What a run has half made is no drift: commands for it would be wrong.
    if commands := [] if note else repair(stack, findings):
        lines += ["## To put it right", "", "```sh", *commands, "```", ""]
    text = "\n".join(lines)
    return text if len(text) <= _MOST else f"{text[:_MOST].rpartition(chr(10))[0]}\n\n… The JSON file beside this has all.\n"


def report_json(stack: str, findings: Sequence[Finding], note: str = "") -> str:
    """The report, for programs: `change` is a fixed word, `said` is Markdown."""
    found = [
        {"part": one.part.of, "name": one.part.name, "thing": one.thing, "change": one.change, "data": one.data, "said": one.said}
        for one in findings
    ]
    report = {"stack": stack, "drifted": bool(findings), "verdict": verdict(stack, findings), "note": note, "findings": found}
    return json.dumps(report | {"repair": [] if note else repair(stack, findings)}, indent=1, ensure_ascii=False) + "\n"


def repair(stack: str, findings: Sequence[Finding]) -> list[str]:
    """The shell commands that make the stack what was deployed."""
    by_hand = list(dict.fromkeys(command for finding in findings for command in finding.by_hand))
    resources = [finding for finding in findings if finding.urn]
    if not resources:
        return by_hand
    containers = all(":Container::" in finding.urn for finding in resources)
    if containers and not by_hand and {finding.change for finding in resources} <= {"stopped", "removed"}:
        return [f"./orthanc-stack up {shlex.quote(stack)}"]
    # A refresh takes these out of the state, and they are made again in any case.
    gone = {finding.urn for finding in findings if finding.change in ("removed", "recreated")}
    replaced = sorted({finding.urn for finding in findings if finding.replace} - gone)
    told = "".join(f" \\\n  --replace {shlex.quote(urn)}" for urn in replaced)
    # A volume that is lost is refused (components/preflight.py) until the state forgets it.
    forget = ["pulumi refresh"] if any(finding.change.startswith("volume-") for finding in findings) else []
    return [*by_hand, f'eval "$(./orthanc-stack env {shlex.quote(stack)})"', *forget, f"pulumi up --refresh --run-program{told}"]
