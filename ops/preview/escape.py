"""Names and values of a stack file, written so that they are text wherever they are shown: in Markdown, in HTML, in a Mermaid picture.

A name or a value in a sentence is a Code. What code(), block() and label() return cannot end the place where it stands, mention anybody,
link to anything, begin or end a comment of HTML (the marks of sticky comments are such), or turn the reading direction round.
"""

import html
import re
from collections.abc import Iterable
from typing import Final

from configs.problems import visible

#: What a code span of Markdown shows as it is, also in a table, and which no mark of a comment can be made of.
_HARMLESS: Final = re.compile(
    r"""[A-Za-z0-9_.,:;/=+*()\[\]{}"'@#!?&%^~-](?:[A-Za-z0-9_.,:;/=+*()\[\]{}"'@#!?&%^~ -]*[A-Za-z0-9_.,:;/=+*()\[\]{}"'@#!?&%^~-])?"""
)
#: Longer values are cut in a report; its JSON has them whole.
_LONGEST: Final = 300
_LETTERS: Final = re.compile(r"[A-Za-z0-9 ]")
_MERMAID: Final = re.compile(r"[A-Za-z0-9 _.,:/-]")
#: Longer enumerations are cut: a sentence is to be read.
_MOST_NAMES: Final = 8


class Code(str):
    """A name or a value from the stack file, Pulumi or Docker: shown as it is, and never read as markup."""

    __slots__ = ()


class Words(tuple[str, ...]):
    """A sentence: text of our own, and each Code in it."""

    __slots__ = ()

    def __str__(self) -> str:
        return "".join(self)


def say(*pieces: "str | Words") -> Words:
    """A sentence from its pieces."""
    return Words(part for piece in pieces for part in ((piece,) if isinstance(piece, str) else piece))


def listed(names: Iterable[str]) -> Words:
    """Names as an enumeration; of very many, the first ones and the number of the others."""
    found = list(names)
    pieces = [piece for name in found[:_MOST_NAMES] for piece in (", ", Code(name))][1:]
    return Words([*pieces, f" and {len(found) - _MOST_NAMES} more"] if len(found) > _MOST_NAMES else pieces)


def code(text: str) -> str:
    """A name or a value, inline, in Markdown, and in HTML inside of it."""
    shown = _cut(text)
    if not shown:
        return "*(empty)*"
    if _HARMLESS.fullmatch(shown):
        return f"`{shown}`"
    return f"<code>{''.join(map(_entity, shown))}</code>"


def block(text: str, *, longest: int = 4000) -> str:
    """Text of several lines, as a block of Markdown of its own."""
    cut = text if len(text) <= longest else f"{text[:longest]}…"
    lines = "\n".join(_visible(line) for line in cut.replace("\r\n", "\n").split("\n"))
    return f"<pre>\n{html.escape(lines, quote=False)}\n</pre>"


def label(text: str) -> str:
    """Text inside the quotes of a Mermaid label: whatever could be syntax is written by its number."""
    return "".join(letter if _MERMAID.fullmatch(letter) else f"#{ord(letter)};" for letter in _cut(text, 60))


def link(address: str) -> str:
    """An address as the target of a Markdown link; empty for what is none."""
    return address if re.fullmatch(r"https?://[A-Za-z0-9._~:/?#@!$&'*+,;=%-]{1,2000}", address) else ""


def _cut(text: str, longest: int = _LONGEST) -> str:
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
