"""What a stack file holds, written so that it is text wherever it is shown: in Markdown, in HTML inside of it, in a Mermaid picture.

A value reaches a report as Code, and only these functions write it. None of what they return can end the place where it stands, mention
anybody, link to anything, begin or end a comment of HTML (the marks of sticky comments are such), or turn the reading direction round.
"""

from __future__ import annotations

import html
import re
from typing import Final

from configs.problems import visible

#: What a code span of Markdown shows as it is, also in a table, and which no mark of a comment can be made of.
_HARMLESS: Final = re.compile(
    r"""[A-Za-z0-9_.,:;/=+*()\[\]{}"'@#!?&%^~-](?:[A-Za-z0-9_.,:;/=+*()\[\]{}"'@#!?&%^~ -]*[A-Za-z0-9_.,:;/=+*()\[\]{}"'@#!?&%^~-])?"""
)
#: Longer values are cut in a report; its JSON has them whole.
LONGEST: Final = 300
_LETTERS: Final = re.compile(r"[A-Za-z0-9 ]")
_MERMAID: Final = re.compile(r"[A-Za-z0-9 _.,:/-]")


def code(text: str) -> str:
    """A name or a value, inline, in Markdown."""
    shown = _cut(text)
    if not shown:
        return "*(empty)*"
    if _HARMLESS.fullmatch(shown):
        return f"`{shown}`"
    return f"<code>{''.join(map(_entity, shown))}</code>"


def html_code(text: str) -> str:
    """The same inside a line of HTML, where Markdown is not read: in a <summary>."""
    return f"<code>{''.join(map(_entity, _cut(text)))}</code>"


def block(text: str, *, longest: int = 4000) -> str:
    """Text of several lines, as a block of Markdown of its own."""
    cut = text if len(text) <= longest else f"{text[:longest]}…"
    lines = "\n".join(_visible(line) for line in cut.replace("\r\n", "\n").split("\n"))
    return f"<pre>\n{html.escape(lines, quote=False)}\n</pre>"


def label(text: str) -> str:
    """Text inside the quotes of a Mermaid label: whatever could be syntax is written by its number."""
    return "".join(letter if _MERMAID.fullmatch(letter) else f"#{ord(letter)};" for letter in _cut(text, 60))


def link(address: str) -> str | None:
    """An address as the target of a Markdown link; None for one that is none."""
    if not re.fullmatch(r"https?://[A-Za-z0-9._~:/?#@!$&'*+,;=%-]+", address) or len(address) > 2000:
        return None
    return address


def _cut(text: str, longest: int = LONGEST) -> str:
    shown = _visible(text)
    return shown if len(shown) <= longest else f"{shown[:longest]}…"


def _visible(text: str) -> str:
    """Letters that cannot be printed as Python writes them, \\u202e; so that they neither act nor hide."""
    return "".join(map(visible, text)) if not text.isprintable() else text


def _entity(letter: str) -> str:
    """A letter that Markdown and HTML take for nothing but itself. An @ stands alone, so that it makes no address with its neighbours."""
    if letter == "@":
        return "<span>&#64;</span>"
    return letter if _LETTERS.fullmatch(letter) or (ord(letter) > 127 and letter.isalnum()) else f"&#{ord(letter)};"
