"""`make drift-check` and `make drift-issue`: one issue that tells of drift, opened, kept up to date, and closed.

Standard library only, as ops/forge.py, but for the check itself, which is a command of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops import pipeline
from ops.comment import fitted
from ops.forge import ATTEMPTS, ForgeError, pause_before
from ops.setup.console import ROOT, SetupError, say
from ops.sticky import marker, run_of

FOLDER = "artifacts/drift"
NAME = "drift"
LABEL = "drift"
TITLE = "What runs is not what was deployed"
#: How `make drift` ends when something has drifted. By itself: make's own exit status is 2 for any failure.
_DRIFTED = 2
_LIMIT = 65_000
_GONE = "Nothing has drifted any more"


@dataclass(frozen=True)
class Finding:
    """What the check of a stack has shown.

    Attributes:
        stack: the stack's name.
        status: "same", "drifted", or "unknown" where the check failed or did not run.
        text: its report.
    """

    stack: str
    status: str
    text: str = ""


def drift_check(stack: str, root: Path = ROOT) -> int:
    """Run `make drift` and keep its answer beside its report; the exit status is 1 where it could not tell."""
    report = root / FOLDER / f"{stack}.md"
    report.unlink(missing_ok=True)
    status = subprocess.run([sys.executable, "-m", "ops", "drift", stack], cwd=root, check=False).returncode
    found = {0: "same", _DRIFTED: "drifted"}.get(status, "unknown")
    if found == "drifted" and not report.is_file():
        # An exit status of 2 without a report is somebody else's: an unknown command's, say.
        found = "unknown"
    report.parent.mkdir(parents=True, exist_ok=True)
    (root / FOLDER / f"{stack}.status.json").write_text(json.dumps({"stack": stack, "status": found}) + "\n")
    say("Drift", f"{stack}: {found}")
    return 1 if found == "unknown" else 0


def drift_issue(stacks: Sequence[str], environ: Mapping[str, str] = os.environ, root: Path = ROOT) -> int:
    """Open, update or close the one issue; the exit status."""
    hub = pipeline.github(environ)
    say("Issue", settle(hub, [finding(stack, root) for stack in stacks]))
    return 0


def finding(stack: str, root: Path) -> Finding:
    """What a check has left."""
    try:
        status = json.loads((root / FOLDER / f"{stack}.status.json").read_text(encoding="utf-8"))["status"]
    except (OSError, ValueError, KeyError, TypeError):
        status = "unknown"
    if status not in ("same", "drifted"):
        return Finding(stack, "unknown")
    try:
        text = (root / FOLDER / f"{stack}.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return Finding(stack, status, text)


def settle(hub: pipeline.GitHub, findings: Sequence[Finding]) -> str:
    """Make the one issue say what was found; what was done.

    It is opened when something has drifted, and closed when all stacks are known to be as they were deployed. What a check could not tell
    neither opens nor closes it. Of two runs at once, both may open one: the oldest stays, the others are closed as its duplicates.
    """
    if not findings:
        raise SetupError('STACK names the stacks to tell of: make drift-issue STACK="dev prod"')
    drifted = [found for found in findings if found.status == "drifted"]
    foot = f"<sub>[The run and its artefacts]({hub.url}). This issue is closed by the check that finds nothing.</sub>"
    body = f"{marker(NAME, hub.run)}\n{fitted([_section(found) for found in findings], foot, _LIMIT)}"
    issues = _ours(hub)
    known = all(found.status != "unknown" for found in findings)
    if not issues and not drifted:
        return "none is open, and nothing has drifted" if known else "none is open, and not all is known"
    done = "updated"
    if not issues:
        issues, done = _open(hub, body), "opened"
    first, *others = issues
    for other in others:
        _close(hub, other, f"The same as #{first['number']}.")
    at = f"{hub.path}/issues/{first['number']}"
    if known and not drifted:
        _close(hub, first, f"{_GONE}: {', '.join(found.stack for found in findings)}. See [the run]({hub.url}).")
        return f"#{first['number']} closed: nothing has drifted any more"
    if (run_of(str(first.get("body") or ""), NAME) or 0) > hub.run:
        return f"#{first['number']} left as it was: a newer run has written it"
    if done == "updated" or first.get("body") != body:
        hub.api.send("PATCH", at, {"body": body})
    return f"#{first['number']} {done}"


def _open(hub: pipeline.GitHub, body: str) -> list[dict[str, Any]]:
    """Open the issue; those that are ours then, which may be another run's as well."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            made = hub.api.send("POST", f"{hub.path}/issues", {"title": TITLE, "body": body, "labels": [LABEL]}).body
        except ForgeError as error:
            # Without an answer, it may have been opened: only a look tells.
            if not error.passing or attempt == ATTEMPTS:
                raise
            hub.api.pause(pause_before(attempt))
            if found := _ours(hub):
                return found
            continue
        if LABEL not in [label["name"] for label in made["labels"]]:
            raise SetupError(f"issue #{made['number']} did not get the label {LABEL!r}, by which it is found again: make that label first.")
        # A list may be a moment behind.
        return _ours(hub) or [made]
    raise AssertionError("the last attempt either returns or raises")


def _ours(hub: pipeline.GitHub) -> list[dict[str, Any]]:
    """The open issues that are ours, the oldest first: by label, author and marker, of all pages."""
    listed = hub.api.pages(f"{hub.path}/issues?state=open&labels={LABEL}")
    # GitHub lists pull requests among the issues.
    ours = [
        issue
        for issue in listed
        if "pull_request" not in issue
        and (issue.get("user") or {}).get("login") == hub.author
        and run_of(str(issue.get("body") or ""), NAME) is not None
    ]
    return sorted(ours, key=lambda issue: int(issue["number"]))


def _close(hub: pipeline.GitHub, issue: Mapping[str, Any], why: str) -> None:
    hub.api.send("POST", f"{hub.path}/issues/{issue['number']}/comments", {"body": why})
    hub.api.send("PATCH", f"{hub.path}/issues/{issue['number']}", {"state": "closed"})


def _section(found: Finding) -> str:
    if found.status == "unknown":
        return f"## {found.stack}\n\n**Not known**: the check has failed, or did not run. The run says why."
    plain = "As it was deployed." if found.status == "same" else "Something has drifted; the run says what."
    return found.text or f"## {found.stack}\n\n{plain}"
