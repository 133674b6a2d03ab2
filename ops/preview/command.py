"""`make preview`: Pulumi's own preview, and beside it the report of it for a reviewer."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Final

from configs.loader import load_stack_file
from configs.problems import SettingsError, visible
from ops.preview import Preview, Report, build, read
from ops.preview.fit import LIMIT
from ops.preview.markdown import markdown
from ops.preview.model import as_json
from ops.setup.console import ROOT, SetupError, say
from ops.setup.images import ensure_images
from ops.setup.prepare import prepare
from ops.stack.certs import ensure_certificates
from ops.stack.containers import docker_runner
from ops.stack.recover import refuse_interrupted
from ops.stack.secrets import ensure_secrets
from ops.stack.stack import Stack
from ops.stack.up import POLICIES

FOLDER: Final = "artifacts/preview"
#: Pulumi writes its engine's events beside its display: the same run is shown to the user and read by the report. The option is one of its
#: commands for debugging, which its Automation API is made of.
_EVENTS: Final = {"PULUMI_DEBUG_COMMANDS": "true"}


def preview(name: str) -> int:
    """Show what `make up` would change, and write the report of it; with PLAN=1 the plan, too. The exit status."""
    files = Files(name)
    files.clear()
    try:
        settings = load_stack_file(name)
    except SettingsError as error:
        files.write(refused(name, str(error)))
        raise
    stack = Stack(name, prepare(name))
    refuse_interrupted(stack)
    if not stack.exists():
        stack.create()
    ensure_secrets(stack, settings)
    ensure_certificates(stack, settings)
    ensure_images(settings, stack.tools, docker_runner(stack.tools.docker))
    print(flush=True)
    status, report = run(stack, files.plan if os.environ.get("PLAN") == "1" else None)
    files.write(report)
    say("Report", f"{os.path.relpath(files.markdown, ROOT)}: {visible(str(report.verdict))}")
    if files.plan.exists():
        say("Plan", f"make up STACK={name} PLAN={os.path.relpath(files.plan, ROOT)} does that, and nothing else")
    if status != 0:
        raise SetupError(
            f"`make up STACK={name}` would fail: what Pulumi says is above, under Policies or Diagnostics. Nothing was touched."
        )
    return 0


def run(stack: Stack, plan: Path | None = None) -> tuple[int, Report]:
    """Run the preview before the user's eyes; its exit status and its report.

    Args:
        stack: the stack.
        plan: where to save the plan; None for no plan.

    Raises:
        SetupError: Pulumi ended before it told anything.
    """
    with tempfile.TemporaryDirectory() as folder:  # 0700: the events hold all that is public of the stack
        log = Path(folder) / "events.json"
        save = ["--save-plan", str(plan)] if plan else []
        status = stack.run("preview", *POLICIES, *save, "--event-log", str(log), env=_EVENTS)
        # A preview changes nothing, whatever became of it.
        stack.marker().unlink(missing_ok=True)
        told = log.read_text(encoding="utf-8") if log.exists() else ""
    if plan and status != 0:
        plan.unlink(missing_ok=True)
    if not told:
        raise SetupError(f"the preview ended with exit status {status} before it began; what Pulumi says is above. There is no report.")
    return status, build(read(told))


def refused(name: str, error: str) -> Report:
    """The report of a stack file that is refused before Pulumi runs."""
    return build(Preview(name.rpartition("/")[2], ok=False, steps=(), config={}, errors=(error,)))


class Files:
    """What a preview leaves behind.

    Attributes:
        markdown: the report, as long as a comment may be.
        whole: the whole of it, where that is longer.
        json: the same for programs.
        plan: Pulumi's plan. Its secrets are encrypted, as they are in the stack file.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        folder = folder or ROOT / FOLDER
        stack = name.replace("/", "-")
        self.markdown = folder / f"{stack}.md"
        self.whole = folder / f"{stack}.full.md"
        self.json = folder / f"{stack}.json"
        self.plan = folder / f"{stack}.plan.json"

    def clear(self) -> None:
        """Remove what an earlier preview left: a report that stays would be taken for this one's."""
        self.markdown.parent.mkdir(parents=True, exist_ok=True)
        for file in (self.markdown, self.whole, self.json, self.plan):
            file.unlink(missing_ok=True)

    def write(self, report: Report, limit: int = LIMIT) -> None:
        """Write the report, of at most so many bytes; REPORT_URL is where its reader finds the whole of it."""
        text, cut = markdown(report, url=os.environ.get("REPORT_URL", ""), limit=limit)
        self.markdown.write_text(text, encoding="utf-8")
        if cut:
            self.whole.write_text(markdown(report, limit=1 << 30)[0], encoding="utf-8")
        self.json.write_text(json.dumps(as_json(report), indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
