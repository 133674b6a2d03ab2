"""Nothing that a stack file, Pulumi or Docker can say breaks a report, or forges a part of it, in the eyes of a Markdown reader."""

from __future__ import annotations

import re
from functools import cache
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from ops.preview import change
from ops.preview.change import Fate
from ops.preview.escape import block, code, label, link
from ops.preview.events import read
from ops.preview.page import markdown
from ops.preview.picture import Link, Place, mermaid
from ops.preview.report import build
from ops.preview.settings import settings_after
from tests.unit.reports import earlier, events_of, step_of, text_of

#: Each would do something if it were read as markup: by GitHub, by GitLab, by Mermaid, by a terminal, by a tool that looks for its comment.
HOSTILE = (
    *("`", "``` \n# forged\n```", "a`b``c", "|", "a | b |\n|---|", "<!-- orthanc-stack:preview run=1 -->", "-->", "</summary>"),
    *("</code></pre></details>", "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "&lt;b&gt;", "&#96;", "@everyone"),
    *("@org/team", "someone@example.com", "@dependabot merge", "x\n/merge\n@clinic/admins approved", "#1", "org/repo#1", "GH-1"),
    *("https://example.com/", "www.example.com", "[text](https://example.com)", "![](https://example.com/x.png)", "**bold**", "_a_"),
    *("~~x~~", "\n\n# Heading", "\r\n> quote", "- [ ] task", "$x^2$", ":tada:", "\\", "\\|"),
    *('"];', '"]\nclick p0 "https://example.com"', "end", "%%{init: {}}%%"),
    *("\x1b[2J", "\u202eabc", "\u2066abc\u2069", "\u200b", "\ufeff", "\x00", "\u2028", "\ud7ff", "   ", "", " a", "a ", "é😀", "x" * 5000),
)
texts = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=60), st.lists(st.sampled_from(HOSTILE), max_size=4).map("".join))

#: How long an example takes is said by what else the machine does.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

_READER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
#: What a value may be made of, once it is read.
_TAGS = re.compile(r"</?code>|</?span>|<br>")


def inlines(text: str) -> list[Token]:
    """What a reader makes of each line."""
    return [child for token in _READER.parse(text) for child in token.children or ()]


def shown(tokens: list[Token]) -> str:
    """What a reader's reader sees of it."""
    return "".join(token.content for token in tokens if token.type in ("text", "code_inline", "text_special"))


@UNHURRIED
@given(texts)
def test_a_value_is_text_and_the_whole_text(text: str) -> None:
    tokens = inlines(f"before {code(text)} after")
    assert {token.type for token in tokens} <= {"text", "code_inline", "html_inline", "em_open", "em_close", "text_special"}
    assert all(_TAGS.fullmatch(token.content) for token in tokens if token.type == "html_inline")
    if text and text.isprintable() and len(text) <= 300:
        assert shown(tokens) == f"before {text} after"


@UNHURRIED
@given(texts)
def test_it_stays_in_its_cell_of_a_table(text: str) -> None:
    tokens = _READER.parse(f"| a | b |\n|---|---|\n| {code(text)} | other |\n\nafter\n")
    assert [token.type for token in tokens].count("td_open") == 2
    assert [token.tag for token in tokens if token.type == "paragraph_open"] == ["p"]


@UNHURRIED
@given(texts)
def test_nothing_acts_or_hides(text: str) -> None:
    """No mark of a comment, nothing that is not printable, no address outside of code, in whatever place."""
    for written in (code(text), label(text)):
        assert "<!--" not in written
        assert "-->" not in written
        assert written.isprintable()
    assert "<!--" not in block(text)
    assert block(text).replace("\n", "").isprintable()
    assert "@" not in re.sub(r"`[^`]*`", "", code(text))


@UNHURRIED
@given(texts)
def test_a_block_ends_where_it_ends(text: str) -> None:
    tokens = _READER.parse(f"{block(text)}\n\n# Heading\n")
    assert [token.type for token in tokens] == ["html_block", "heading_open", "inline", "heading_close"]


@UNHURRIED
@given(texts)
def test_a_label_of_the_picture_stays_inside_its_quotes(text: str) -> None:
    assert re.fullmatch(r"(?:[A-Za-z0-9 _.,:/-]|#\d+;)*", label(text))
    picture, _ = mermaid(
        [Place(text, "node", text, Fate.ADDED), Place("other", text, text, None)],
        [Link(text, "other", text, Fate.REMOVED), Link("other", text, text, None)],
    )
    lines = picture.splitlines()
    box = r'  p[01](\[|\(\[|\[\()"[^"]*"(\]|\]\)|\)\])'
    arrow = r'  p[01] (==>|-\.->|-->)(\|"[^"]*"\|)? p[01]'
    assert all(re.fullmatch(rf"graph LR|{box}|{arrow}|  (classDef|class|linkStyle) [a-z0-9,#:; -]+", line) for line in lines), picture


@pytest.mark.parametrize(
    ("address", "taken"),
    [
        ("https://ci.example/run/1/artefacts?x=1#y", True),
        ("javascript:alert(1)", False),
        ("https://x/) [y](https://z", False),
        ("https://x/\n# y", False),
        ("", False),
    ],
)
def test_a_link_is_an_address_or_none(address: str, taken: bool) -> None:
    assert link(address) == (address if taken else "")


#: What of a recorded preview a stack file, an image's name or a message can be: each is replaced by a text.
_PLACES = re.compile(
    "ORTHANC_CLIENT|ARCHIVE|workstation|WORKSTATION|orthanc-stack-dev-server|StableAge|registry.invalid|somebodys-own|ORTHANC_SERVER",
    re.ASCII,
)


def _replaced(value: Any, text: str) -> Any:
    if isinstance(value, dict):
        return {_replaced(key, text): _replaced(inner, text) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, text) for inner in value]
    return _PLACES.sub(lambda _: text, value) if isinstance(value, str) else value


@cache
def _whole() -> list[Any]:
    """A preview with much in it: one that changes an AE title and a data volume, and ends with warnings, errors and a broken rule.

    Its settings before and after hold what is to be replaced, too.
    """
    events = events_of("aet-changed")
    step_of(events, "server-data")["op"] = "delete"
    before = earlier(events)
    before["nodes"].append({**before["nodes"][0], "name": "somebodys-own", "forwardTo": [{"to": "WORKSTATION"}, {"to": "server"}]})
    before["modalities"].append({"name": "ARCHIVE", "aet": "ARCHIVE", "nodes": ["server"], "allow": ["StableAge"]})
    before["images"]["orthanc"] = before["StableAge"] = "somebodys-own"
    type_ = "aws:s3/bucket:Bucket"
    own = {"op": "update", "urn": f"urn:pulumi:dev::orthanc-stack::{type_}::somebodys-own", "type": type_, "logical": True}
    own |= {"old": {"inputs": {"name": "WORKSTATION"}}, "new": {"inputs": {"name": "ARCHIVE", "StableAge": ["ARCHIVE"]}}}
    broken = {"policyName": "ARCHIVE", "policyPackName": "WORKSTATION", "enforcementLevel": "mandatory", "message": "somebodys-own"}
    return [
        *events,
        {"resourcePreEvent": {"metadata": own}},
        {"diagnosticEvent": {"severity": "error", "message": "error: somebodys-own"}},
        {"diagnosticEvent": {"severity": "warning", "message": "warning: somebodys-own"}},
        {"policyEvent": {**broken, "resourceUrn": "urn:pulumi:dev::orthanc-stack::x::somebodys-own"}},
    ]


def hostile_report(text: str) -> str:
    """A report with much in it, which has a text in every place that a stack file, an image or a message can fill."""
    preview = read(text_of(_replaced(_whole(), text)))
    # A stack file that says such things is refused, most of them.
    after = _replaced(settings_after(read(text_of(_whole()))), text)
    with mock.patch.object(change, "settings_after", return_value=after):
        return markdown(build(preview, [text]), limit=None)[0]


def _skeleton(written: str) -> list[str]:
    """The blocks of a report as a reader sees them: headings, tables and their cells, lists, fences, HTML; not what is in them."""
    tokens = _READER.parse(written)
    return [token.type if token.type != "html_block" else f"html:{token.content.split('>')[0]}" for token in tokens]


@cache
def _harmless() -> list[str]:
    return _skeleton(hostile_report("xharmlessx"))


@settings(UNHURRIED, max_examples=60)
@given(texts)
@example("<!-- orthanc-stack:preview run=1 -->")
@example("``` \n# forged\n```")
def test_a_whole_report_keeps_its_form(text: str) -> None:
    """With a hostile text in every place, the report has the same headings, tables, cells, lists and blocks as with a harmless one."""
    written = hostile_report(f"x{text}x")
    assert _skeleton(written) == _harmless()
    assert "<!--" not in written
    tokens = inlines(written)
    assert not any(token.type in ("link_open", "image") for token in tokens)
    assert not any("@" in token.content for token in tokens if token.type == "text" and token.content != "@")
    assert written.replace("\n", "").isprintable()
