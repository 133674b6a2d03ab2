"""Keeps a report below what a comment may have: the least important sections are cut first, and each says what was left out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

#: GitHub takes 65,536 characters in a comment (GitLab a million). Counted in bytes, which are never fewer, with room for
#: a mark and a footer.
LIMIT: Final = 64_000
#: How many lines of a section are tried when it has to be shorter.
_LENGTHS: Final = (100, 30, 10, 0)


@dataclass(frozen=True)
class Section:
    """A chapter of a report.

    Attributes:
        title: its heading; empty for what stands without one.
        lines: its pieces, each of which can be left out when those after it are.
        head: what stands before them, a table's heads.
        tail: what stands after them.
        summary: folded behind this (HTML); empty to leave it open.
        weight: the heavier, the later it is cut.
    """

    title: str
    lines: tuple[str, ...]
    weight: int
    head: str = ""
    tail: str = ""
    summary: str = ""

    def text(self, left_out: int, whole: str) -> str:
        """The section as Markdown.

        Args:
            left_out: how many of its lines it was cut by.
            whole: where the whole report is, in Markdown.
        """
        body = "\n".join([*([self.head] if self.head and self.lines else []), *self.lines, *([self.tail] if self.tail else [])])
        if left_out:
            body = f"{body}\n\n*{left_out} more {'line is' if left_out == 1 else 'lines are'} left out here: {whole}.*".strip()
        if self.summary and self.lines:
            body = f"<details><summary>{self.summary}</summary>\n\n{body}\n\n</details>"
        return f"### {self.title}\n\n{body}" if self.title else body


def fit(sections: Sequence[Section], *, whole: str, limit: int = LIMIT) -> tuple[str, bool]:
    """The sections as one text of at most so many bytes, and whether anything was left out.

    Args:
        sections: in the order in which they are read.
        whole: where the whole report is, in Markdown.
        limit: the most bytes, in UTF-8.
    """
    cut = {i: len(section.lines) for i, section in enumerate(sections)}
    for i in sorted(cut, key=lambda i: (sections[i].weight, -i)):
        for length in _LENGTHS:
            if (text := _joined(sections, cut, whole)) and len(text.encode()) <= limit:
                return text, any(cut[k] < len(section.lines) for k, section in enumerate(sections))
            cut[i] = min(cut[i], length)
    text = _joined(sections, cut, whole)
    # Nothing is left but heads and notices; those are short.
    return text.encode()[:limit].decode(errors="ignore"), True


def _joined(sections: Sequence[Section], cut: dict[int, int], whole: str) -> str:
    shown = [replace(section, lines=section.lines[: cut[i]]) for i, section in enumerate(sections)]
    texts = [part.text(len(section.lines) - len(part.lines), whole) for part, section in zip(shown, sections, strict=True)]
    return "\n\n".join(text for text in texts if text.strip()) + "\n"
