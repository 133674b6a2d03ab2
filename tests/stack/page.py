"""A report as a forge shows it: Markdown rendered to a page, in light and in dark, with its pictures where Mermaid is at hand."""

from __future__ import annotations

import html
import os
import re
from pathlib import Path

from markdown_it import MarkdownIt

#: A file of Mermaid's (npm: mermaid, dist/mermaid.min.js). Without it, a picture is shown as its text.
MERMAID = os.environ.get("MERMAID_JS", "")

#: The width of a comment, and colours with the contrast of a forge's own.
_STYLE = """
:root { --text: #1f2328; --back: #ffffff; --line: #d1d9e0; --soft: #f6f8fa; --code: #818b981f; }
@media (prefers-color-scheme: dark) { :root { --text: #f0f6fc; --back: #0d1117; --line: #3d444d; --soft: #151b23; --code: #656c7633; } }
body { max-width: 860px; margin: 24px auto; padding: 0 24px; background: var(--back); color: var(--text);
  font: 14px/1.5 -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", Helvetica, Arial, sans-serif; }
h2, h3 { border-bottom: 1px solid var(--line); padding-bottom: .3em; line-height: 1.3; margin: 22px 0 12px; }
h2 { font-size: 20px; } h3 { font-size: 16px; }
table { border-collapse: collapse; display: block; overflow-x: auto; width: max-content; max-width: 100%; }
th, td { border: 1px solid var(--line); padding: 6px 11px; text-align: left; vertical-align: top; }
tr:nth-child(2n) td { background: var(--soft); }
code { background: var(--code); border-radius: 6px; padding: .15em .4em; font: 85% ui-monospace, "DejaVu Sans Mono", monospace;
  white-space: break-spaces; }
pre { background: var(--soft); padding: 12px; border-radius: 6px; overflow-x: auto; white-space: pre-wrap; font: 85% monospace; }
pre.mermaid { text-align: center; }
"""


def page(markdown: str, *, dark: bool) -> str:
    body = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown)
    if not MERMAID:
        return f'<!doctype html><meta charset="utf-8"><style>{_STYLE}</style><body>{body}'
    body = re.sub(r'(?s)<pre><code class="language-mermaid">(.*?)</code></pre>', r'<pre class="mermaid">\1</pre>', body)
    # What GitHub sets: a picture runs no script and follows no link.
    begin = f'mermaid.initialize({{securityLevel: "strict", theme: "{"dark" if dark else "default"}"}});'
    script = f'<script src="{html.escape(Path(MERMAID).absolute().as_uri())}"></script><script>{begin}</script>'
    return f'<!doctype html><meta charset="utf-8"><style>{_STYLE}</style><body>{body}{script}'
