"""`make comment`: the previews of some stacks in one comment on the pull request.

What a preview left is data here, whoever's code made it: this runs the default branch's code, and may write to pull requests.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ops import offline_report, pipeline
from ops.forge import Api
from ops.setup.console import ROOT, SetupError, say
from ops.sticky import Comments, marker, post

NAME = "preview"
#: What `make preview` and `make preview-offline` leave; the artefact of a fork's run has the same files.
FOLDER = "artifacts/preview"
FORK_ARTIFACT = "offline-preview"
#: Below a forge's own limit: the marker is added, and forges do not count alike what is not ASCII.
_SPARE = 600
_LEAD_CHARACTERS = 2_000
#: What has to be closed again, or changes the meaning of what comes after it: a lead ends before it.
_BLOCK = re.compile(r"\s*(?:<|```|~~~|\||#{2,}\s)")


def comment(stacks: Sequence[str], environ: Mapping[str, str] = os.environ, root: Path = ROOT) -> int:
    """Post the previews of some stacks, or edit the comment that has them; the exit status."""
    if environ.get("GITLAB_CI") == "true":
        lab = pipeline.gitlab(environ)
        return _post(lab.comments, lab.run, _sections(stacks, root), _foot(lab.head, lab.url), lab.api)
    hub = pipeline.github(environ)
    if not hub.started_by:
        head = str(((hub.event.get("pull_request") or {}).get("head") or {}).get("sha") or environ.get("GITHUB_SHA", ""))
        return _post(pipeline.comments(hub, environ), hub.run, _sections(stacks, root), _foot(head, hub.url), hub.api)
    if (hub.started_by.get("head_repository") or {}).get("id") == hub.event["repository"]["id"]:
        say("Comment", "none: the run was for a branch of this repository, whose previews are posted by the workflow that makes them")
        return 0
    sections = from_fork(stacks, _fork_files(hub))
    return _post(pipeline.comments(hub, environ), hub.run, sections, _foot(str(hub.started_by["head_sha"]), hub.url), hub.api)


def from_fork(stacks: Sequence[str], files: Mapping[str, bytes]) -> list[str]:
    """What to say of a fork's previews. Its Markdown is not taken: the report is written anew, here, from its figures.

    Args:
        stacks: those to say something of; what else there is, is not looked at.
        files: the artefact of the fork's run: anything at all.
    """
    sections = [offline_report.FORK_NOTE]
    for stack in stacks:
        try:
            sections.append(offline_report.markdown(offline_report.read(files[f"{stack}.json"], stack)))
        except KeyError:
            sections.append(f"## {stack}\n\nNo preview: the run failed before it was made.")
        except ValueError as error:
            sections.append(f"## {stack}\n\nNo preview: what the run left is not as `make preview-offline` writes it ({error}).")
    return sections


def fitted(sections: Sequence[str], foot: str, most: int) -> str:
    """A comment of some sections; where they are too long together, of the longest no more than what comes before its first block."""
    texts = [section.strip() for section in sections]
    shortened: set[int] = set()
    while _length(text := "\n\n---\n\n".join([*texts, foot])) > most and len(shortened) < len(texts):
        longest = max((i for i in range(len(texts)) if i not in shortened), key=lambda i: _length(texts[i]))
        texts[longest] = f"{_lead(texts[longest])}\n\n*The rest is too long for a comment: it is in the run's artefacts.*".strip()
        shortened.add(longest)
    return text


def _sections(stacks: Sequence[str], root: Path) -> list[str]:
    sections = []
    for stack in stacks:
        file = root / FOLDER / f"{stack}.md"
        try:
            with file.open("rb") as opened:
                text = opened.read(pipeline.FILE_BYTES).decode(errors="replace")
        except FileNotFoundError:
            text = f"## {stack}\n\nNo preview for this commit: it waits for its approval, or has failed. The run says which."
        sections.append(_without_markers(text))
    if not sections:
        raise SetupError('STACK names the stacks to tell of: make comment STACK="dev prod"')
    return sections


def _fork_files(hub: pipeline.GitHub) -> dict[str, bytes]:
    """The files that the fork's run has left; none where it left none, or what cannot be read."""
    run = int(hub.started_by["id"])
    for found in hub.api.pages(f"{hub.path}/actions/runs/{run}/artifacts", attribute="artifacts"):
        if found["name"] == FORK_ARTIFACT and not found["expired"]:
            try:
                return pipeline.artifact(hub, int(found["id"]))
            except SetupError as error:
                say("Artefact", f"left aside: {error}")
    return {}


def _post(comments: Comments, run: int, sections: Sequence[str], foot: str, api: Api) -> int:
    text = fitted(sections, foot, comments.limit - _SPARE)
    say("Comment", post(comments, NAME, run, text, api))
    return 0


def _foot(head: str, url: str) -> str:
    """Which commit this is of, and where all of it is. Neither can end what it stands in."""
    said = f"Commit {head[:10]}" if re.fullmatch(r"[0-9a-f]{40,64}", head) else "Of an unknown commit"
    linked = re.fullmatch(r"https?://[\w./:-]+", url, re.ASCII)
    return f"<sub>{said}, [the run and its artefacts]({url})</sub>" if linked else f"<sub>{said}</sub>"


def _without_markers(text: str) -> str:
    """A report cannot pass for a comment of ours, neither here nor where somebody quotes it."""
    begin, _, _ = marker(NAME, 0).partition(":")
    return text.replace(begin, "<!-- ")


def _lead(text: str) -> str:
    head, *rest = text.splitlines() or [""]
    lines = [head] if not _BLOCK.match(head) or head.startswith("#") else []
    for line in rest if lines else ():
        if _BLOCK.match(line):
            break
        lines.append(line)
    lead = "\n".join(lines).strip()
    return lead if _length(lead) <= _LEAD_CHARACTERS else lead[:_LEAD_CHARACTERS].rpartition("\n")[0]


def _length(text: str) -> int:
    """Characters as the strictest of the forges counts them: in UTF-16."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
