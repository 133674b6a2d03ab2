"""A report as Markdown, for a comment on a pull request: what matters most comes first."""

import re
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ops.preview.escape import Code, Words, block, code, link, listed
from ops.preview.picture import mermaid
from ops.preview.report import Report

#: GitHub takes 65,536 characters in a comment, which has the reports of two stacks. Counted in bytes, which are never fewer.
LIMIT: Final = 32_000
#: How many rows of each table are tried when the report has to be shorter.
_ROWS: Final = (100, 30, 10, 0)
#: A table with more rows is folded.
_OPEN: Final = 12


def markdown(report: Report, *, url: str = "", limit: int | None = LIMIT) -> tuple[str, bool]:
    """The report, and whether anything had to be left out.

    Args:
        report: what to write.
        url: where the whole report is kept as an artefact; empty where it is not.
        limit: the most bytes it may have, in UTF-8; None for no limit.
    """
    picture, hidden = mermaid(report.places, report.links)
    page = _ENVIRONMENT.get_template("report.md.j2")
    for most in (None, *_ROWS):
        text = page.render(report=report, picture=Markup(picture), hidden=hidden, most=most, url=Markup(link(url)), open=_OPEN)
        text = re.sub(r"\n{3,}", "\n\n", text).rstrip("\n") + "\n"
        if limit is None or len(text.encode()) <= limit:
            break
    return text, most is not None


def _text(value: Any) -> Markup:
    """What the template prints: a name or a value as code, a sentence with its names as code. Nothing gets past this as it is."""
    if isinstance(value, (Markup, int)):
        return Markup(value)
    if isinstance(value, Words):
        return Markup("".join(code(piece) if isinstance(piece, Code) else piece for piece in value))
    return Markup(code(str(value)))


_ENVIRONMENT: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    finalize=_text,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.globals["listed"] = listed
_ENVIRONMENT.filters["block"] = lambda text: Markup(block(text))
