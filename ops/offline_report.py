"""The report of `make preview-offline`: its JSON, which may come from anybody, and the Markdown that is made of it.

Standard library only, and nothing in the JSON is trusted: whoever reads it is the job that may write to pull requests.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

#: Raised when the JSON changes.
FORMAT = 1
_NOTE = (
    "> **Not compared with any deployed stack.** The program ran with placeholder secrets, against no Docker engine and no state:\n"
    "> what an `up` would replace, and whose data is at risk, this cannot tell."
)
FORK_NOTE = (
    "> [!WARNING]\n"
    "> **From a fork.** What follows was computed by the fork's own code, which may have it say anything: it is no approval, and spares\n"
    "> nobody the reading. The preview against the deployed stacks comes when the change is on a branch of this repository."
)
#: More than that is left out of the Markdown, and counted.
_MOST_LINES = 200
_MOST_ITEMS = 5_000
_TEXT_CHARACTERS = 200
#: A refusal's text: the settings' own reports are that long at most.
_REFUSAL_CHARACTERS = 6_000
#: Written with U+FF20 in its place: what would be read as somebody's name by a forge or by its robots; in `image@sha256:` it is none.
_MENTION = re.compile(r"(?<![A-Za-z0-9])@")
_OPERATIONS = {"add": "added", "remove": "removed", "change": "changed"}


@dataclass(frozen=True)
class Change:
    """How a resource differs from what the base makes.

    Attributes:
        operation: add, remove or change.
        type: the resource's type, without Docker's module: Container, OrthancNode.
        name: its logical name.
        inputs: path, old and new value of each input that differs, as JSON; a secret one's values are "[secret]".
    """

    operation: str
    type: str
    name: str
    inputs: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Report:
    """What a stack file and the program would deploy.

    Attributes:
        stack: the stack's name.
        base: what it is compared with, a commit; "" where with nothing.
        refused: what the program says of a stack file that it refuses; "" where it does not.
        counts: how many resources there are of each type.
        changes: the differences from the base; all resources where there is none.
        violations: rule, resource and message of each break of the policy pack.
    """

    stack: str
    base: str = ""
    refused: str = ""
    counts: tuple[tuple[str, int], ...] = ()
    changes: tuple[Change, ...] = ()
    violations: tuple[tuple[str, str, str], ...] = field(default=())


def write(report: Report) -> str:
    """A report as JSON."""
    return json.dumps({"format": FORMAT, **asdict(report)}, indent=1, sort_keys=True) + "\n"


def read(content: bytes, stack: str) -> Report:
    """A report from JSON that anybody may have written.

    Args:
        content: the file.
        stack: the stack that it must be of.

    Raises:
        ValueError: it is not as write() makes it; the message repeats nothing of it.
    """
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("it is no JSON") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("stack") != stack:
        raise ValueError("another format, or another stack")
    changes = [_dict(change) for change in _list(data.get("changes"))]
    return Report(
        stack=stack,
        base=_text(data.get("base")),
        refused=_text(data.get("refused"), _REFUSAL_CHARACTERS),
        counts=tuple((_text(kind), _count(count)) for kind, count in _rows(data.get("counts"), 2)),
        changes=tuple(
            Change(
                _operation(change.get("operation")),
                _text(change.get("type")),
                _text(change.get("name")),
                tuple((_text(path), _text(old), _text(new)) for path, old, new in _rows(change.get("inputs"), 3)),
            )
            for change in changes
        ),
        violations=tuple((_text(rule), _text(name), _text(message, 1_000)) for rule, name, message in _rows(data.get("violations"), 3)),
    )


def markdown(report: Report) -> str:
    """The report for people."""
    against = f"compared with what {code(report.base)} would deploy" if report.base else "compared with nothing"
    lines = [f"## {report.stack}: preview without the stack", "", _NOTE, ""]
    if report.refused:
        return "\n".join([*lines, "**Refused.** The program deploys nothing of this stack file:", "", *_quoted(report.refused)])
    resources = sum(count for _, count in report.counts)
    kinds = ", ".join(f"{count} {code(kind)}" for kind, count in report.counts)
    lines += [f"**{_verdict(report)}**, {against}. {resources} resources: {kinds}."]
    if report.violations:
        lines += ["", f"**{len(report.violations)} breaks of the policy pack:**", ""]
        lines += _bounded([f"- {code(rule)} by {code(name)}: {code(message, 1_000)}" for rule, name, message in report.violations])
    if report.changes and report.base:
        lines += ["", *_bounded([line for change in report.changes for line in _change(change)])]
    return "\n".join(lines)


def code(value: str, most: int = _TEXT_CHARACTERS) -> str:
    """A value as a code span that it cannot leave: nothing in it is a link, a mention, an image, HTML or the end of a line."""
    shown = "".join(char for char in value if not unicodedata.category(char).startswith(("C", "Zl", "Zp")) or char == "\n")
    shown = _MENTION.sub("\uff20", " ".join(shown.replace("`", "'").split()))
    if len(shown) > most:
        shown = shown[: most - 1] + "…"
    return f"`{shown}`" if shown else "`(empty)`"


def _verdict(report: Report) -> str:
    if not report.base:
        return "Accepted"
    if not report.changes:
        return "No difference"
    counted = [(word, sum(change.operation == operation for change in report.changes)) for operation, word in _OPERATIONS.items()]
    return ", ".join(f"{number} {word}" for word, number in counted if number)


def _change(change: Change) -> list[str]:
    head = f"- {_OPERATIONS[change.operation]}: {code(change.type)} {code(change.name)}"
    return [head, *(f"  - {code(path)}: {code(old)} → {code(new)}" for path, old, new in change.inputs)]


def _quoted(text: str) -> list[str]:
    return [f"- {code(line, 600)}" for line in text.splitlines() if line.strip()][:_MOST_LINES]


def _bounded(lines: Sequence[str]) -> list[str]:
    more = len(lines) - _MOST_LINES
    return [*lines[:_MOST_LINES], f"- and {more} lines more, in the run's artefacts"] if more > 0 else list(lines)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > _MOST_ITEMS:
        raise ValueError("a list is missing, or too long")
    return value


def _rows(value: Any, width: int) -> list[list[Any]]:
    rows = _list(value)
    if not all(isinstance(row, list) and len(row) == width for row in rows):
        raise ValueError("a list has items of another shape")
    return rows


def _dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("a list has items of another shape")  # noqa: TRY004 - one error, whatever is wrong
    return value


def _text(value: Any, most: int = _TEXT_CHARACTERS) -> str:
    if not isinstance(value, str):
        raise ValueError("a value is no text")  # noqa: TRY004
    return value if len(value) <= most else value[: most - 1] + "…"


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 1_000_000:
        raise ValueError("a number is none")
    return value


def _operation(value: Any) -> str:
    if value not in _OPERATIONS:
        raise ValueError("an operation is unknown")
    return str(value)
