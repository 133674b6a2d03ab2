"""A report as Markdown, for a comment on a pull request: what matters most comes first, in the words of the stack file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from ops.preview.escape import block, code, html_code, link
from ops.preview.fit import LIMIT, Section, fit
from ops.preview.mermaid import mermaid
from ops.preview.model import Change, Code, Fate, Level, Part, Report, Words, listed, say

_SIGNS: Final[Mapping[Level, str]] = {
    Level.NOTHING: "⚪",
    Level.QUIET: "🟢",
    Level.DOWNTIME: "🟡",
    Level.DATA: "🔴",
    Level.FAILED: "⛔",
}
_NONE: Final = "-"
#: Sections with more lines are folded.
_OPEN: Final = 12
#: What a new or removed node is told by, in one line.
_OF_NODE: Final = ("aet", "dicomPort", "httpPort", "index")
_FATES: Final[Mapping[Fate, str]] = {
    Fate.ADDED: "new",
    Fate.REMOVED: "removed",
    Fate.REPLACED: "restarts",
    Fate.CHANGED: "changed in place",
}


def markdown(report: Report, *, url: str = "", limit: int = LIMIT) -> tuple[str, bool]:
    """The report, and whether anything had to be left out.

    Args:
        report: what to write.
        url: where the whole report is kept as an artefact; empty where it is not.
        limit: the most bytes it may have.
    """
    address = link(url)
    whole = f"[the whole report]({address}) has them" if address else "the whole report, an artefact of this run, has them"
    return fit(list(_sections(report)), whole=whole, limit=limit)


def _sections(report: Report) -> Iterator[Section]:
    verdict = f"## {_SIGNS[report.level]} {code(report.stack)}: {_words(report.verdict)}"
    yield Section("", (verdict,), 100)
    yield from _failure(report)
    changed = report.level is not Level.NOTHING and (report.parts or report.raw or report.data)
    if changed:
        yield _data(report)
        yield _downtime(report)
        yield from _changes(report.parts)
    if report.raw:
        yield _folded("What else changes, in Pulumi's words", tuple(_row(("", change)) for change in report.raw), 85, head=_HEAD)
    if changed:
        yield from _reasons(report)
        yield from _links(report)
        yield from _secrets(report)
    yield from _policy(report)
    if report.warnings:
        yield Section("Warnings of the program", tuple(block(warning) for warning in report.warnings), 60)
    yield Section("What a preview cannot know", tuple(f"- {_words(words)}" for words in report.unknown), 30)


def _failure(report: Report) -> Iterator[Section]:
    if report.level is not Level.FAILED:
        return
    broken = [violation for violation in report.broken if violation.mandatory]
    if broken:
        yield Section(
            "What is broken",
            tuple(f"- {code(each.rule)}, by {code(each.resource)}:\n\n{block(each.message)}\n" for each in broken),
            95,
        )
    # Pulumi ends every failed preview with an error of its own; it is told when there is no other.
    errors = [error for error in report.errors if error != "preview failed" or not broken]
    if errors:
        yield Section("" if not broken else "Errors", tuple(block(error) for error in errors), 96)


def _data(report: Report) -> Section:
    rows = tuple(
        f"| {code(risk.volume)} | {_words(risk.holds)} | {'⚠️ ' if risk.lost else ''}{_words(risk.words)} |" for risk in report.data
    )
    notes = "\n".join(f"- {_words(words)}" for words in report.cautions)
    if not rows:
        return Section("Data at risk", ("None: no volume is deleted or replaced.", *(("", notes) if notes else ())), 92)
    return Section("Data at risk", rows, 94, head="| volume | holds | what happens |\n|---|---|---|", tail=f"\n{notes}" if notes else "")


def _downtime(report: Report) -> Section:
    rows = tuple(
        "| {} |".format(
            " | ".join((code(down.node), *map(_or_dash, (down.aet, down.dicom, down.web)), _words(down.words), _several(down.why)))
        )
        for down in report.downtime
    )
    waits = "\n".join(f"- {_words(words)}" for words in (*_how_long(report), *report.waits))
    if not rows:
        return Section("Downtime", ("No node goes down.", *(("", waits) if waits else ())), 90)
    head = "| node | AE title | DICOM | web | down for | because |\n|---|---|---|---|---|---|"
    if len({(down.words, down.why) for down in report.downtime}) == 1 and len(rows) > _OPEN:
        # So many nodes for one reason are one line to read.
        first = report.downtime[0]
        summary = f"{len(rows)} nodes, {_html(first.words)}, because {'; '.join(map(_html, first.why)) or 'of this change'}"
        return Section("Downtime", rows, 88, head=head, tail=f"\n{waits}" if waits else "", summary=summary)
    return _folded("Downtime", rows, 88, head=head, tail=f"\n{waits}" if waits else "")


def _how_long(report: Report) -> Iterator[Words]:
    """What some seconds are, once for all nodes."""
    graces = [down.grace for down in report.downtime if not down.for_good and down.grace]
    if any(not down.for_good for down in report.downtime):
        within = f", at once when it is idle, within {max(graces)} s otherwise" if graces else ""
        yield say(f"Some seconds: the container stops ({'its associations end' + within}), starts, and becomes healthy.")


_HEAD: Final = "| part | setting | before | after |\n|---|---|---|---|"


def _changes(parts: Sequence[Part]) -> Iterator[Section]:
    """One row for each change; the same change of many parts is one row."""
    rows: dict[tuple[Change, str], list[str]] = {}
    networks: list[Change] = []
    for part in parts:
        for change in _condensed(part):
            if change.path == "network":
                networks.append(change)
            else:
                rows.setdefault((change, part.kind if part.kind == "node" else part.name), []).append(part.name)
    told: list[str] = []
    last = ""
    for (change, _), names in rows.items():
        whose = _words(listed(names))
        # Of several changes in a row, the first has the name.
        told.append(_row((whose if whose != last else " ", change)))
        last = whose
    lines = tuple(told)
    if lines:
        yield _folded("Changes", lines, 86, head=_HEAD)
    if networks:
        told = [f"{'made' if change.old is None else 'removed'}: {code(str(change.new or change.old))}" for change in networks]
        yield Section("", tuple(f"- {each}" for each in told), 20, summary=f"Networks that come or go: {len(networks)}")


def _condensed(part: Part) -> Iterator[Change]:
    """A part's changes; a new or removed node as one."""
    if part.kind != "node" or part.fate not in (Fate.ADDED, Fate.REMOVED):
        yield from part.changes
        return
    whole = [change for change in part.changes if change.path in _OF_NODE]
    said = ", ".join(f"{change.path} {change.new or change.old}" for change in whole)
    yield Change("the node", said if part.fate is Fate.REMOVED else None, said if part.fate is Fate.ADDED else None)
    yield from (change for change in part.changes if change.path not in _OF_NODE)


def _row(told: tuple[str, Change]) -> str:
    part, change = told
    note = f"<br>{_words(change.note)}" if change.note else ""
    return f"| {part or _NONE} | {code(change.path)} | {_value(change.old)} | {_value(change.new)}{note} |"


def _value(value: str | None) -> str:
    return _NONE if value is None else code(value)


def _reasons(report: Report) -> Iterator[Section]:
    """The chains: what the stack file changes of a part makes others change."""
    grouped: dict[tuple[Words, ...], list[str]] = {}
    for reason in report.reasons:
        grouped.setdefault(reason.because, []).append(reason.container)
    lines = tuple(f"- {_words(listed(names))}: {'; '.join(map(_words, because))}" for because, names in grouped.items())
    if lines:
        yield _folded("Why each container is replaced", lines, 50)


def _links(report: Report) -> Iterator[Section]:
    changed = [link for link in report.links if link.fate and link.label != "index" and link.label]
    told = tuple(f"- {_FATES[each.fate]}: {code(each.begin)} → {code(each.end)} ({code(each.label)})" for each in changed if each.fate)
    if told:
        yield _folded("Links", told, 80)
    picture, left_out = mermaid(report.places, report.links)
    if report.places:
        note = f"\n\n{left_out} boxes that have no part in this are not drawn." if left_out else ""
        drawn = f"```mermaid\n{picture}\n```{note}"
        yield Section("" if told else "Links", (drawn,) if told else (f"No link changes.\n\n{drawn}",), 10)


def _secrets(report: Report) -> Iterator[Section]:
    lines = []
    for file in report.secrets:
        what = say(listed(file.secrets)) if file.secrets else say("none that the stack file names: a script of the project's, then")
        which = "" if len(file.secrets) == 1 else " one of" if file.secrets else ""
        lines.append(f"- A file with secrets changes in {code(file.container)}:{which} {_words(what)}. Values are shown nowhere.")
    if report.new_secrets:
        lines.append(f"- Needed from now on: {_words(listed(report.new_secrets))}.")
    if report.unused_secrets:
        lines.append(f"- Needed no more: {_words(listed(report.unused_secrets))}.")
    if lines:
        yield Section("Secrets", tuple(lines), 82)


def _policy(report: Report) -> Iterator[Section]:
    advisory = [violation for violation in report.broken if not violation.mandatory]
    if report.packs is None:
        yield Section("Policy", ("Not known: this preview was read from a source that does not tell.",), 70)
    elif not report.packs:
        yield Section("Policy", ("No policy pack ran.",), 70)
    elif not report.broken:
        yield Section("Policy", (f"✅ Every rule of {_words(listed(report.packs))} holds.",), 70)
    elif advisory:
        yield Section(
            "Policy", tuple(f"- {code(each.rule)}, by {code(each.resource)} (advice):\n\n{block(each.message)}\n" for each in advisory), 70
        )


def _folded(title: str, lines: tuple[str, ...], weight: int, *, head: str = "", tail: str = "") -> Section:
    return Section(title, lines, weight, head, tail, f"{len(lines)} lines" if len(lines) > _OPEN else "")


def _words(words: Iterable[str | Code]) -> str:
    return "".join(code(piece.text) if isinstance(piece, Code) else piece for piece in words)


def _html(words: Iterable[str | Code]) -> str:
    return "".join(html_code(piece.text) if isinstance(piece, Code) else piece for piece in words)


def _several(sentences: Sequence[Words]) -> str:
    return "; ".join(map(_words, sentences)) or _NONE


def _or_dash(value: str) -> str:
    return code(value) if value else _NONE
