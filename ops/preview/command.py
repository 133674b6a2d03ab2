"""`./orthanc-stack preview`: Pulumi's own preview, and beside it the report of it for a reviewer. It makes and changes nothing."""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from configs.loader import load_stack_file
from configs.names import short_name
from configs.problems import SettingsError, visible
from ops.preview.escape import Words
from ops.preview.events import Preview, read
from ops.preview.page import LIMIT, markdown
from ops.preview.report import Report, build, plain
from ops.setup.console import ROOT, SetupError, say
from ops.stack.schema import told_moves
from ops.stack.secrets import require_certificates, require_secrets
from ops.stack.stack import POLICIES, Stack, deployed

#: Where the reports and plans are, in the checkout.
FOLDER: Final = "artifacts/preview"
#: Pulumi writes its engine's events beside its display: the same run is shown to the user and read by the report. The option is one of its
#: commands for debugging, which its Automation API is made of.
_EVENTS: Final = {"PULUMI_DEBUG_COMMANDS": "true"}


def preview(name: str, *, save_plan: bool, as_json: bool) -> int:
    """Show what `up` would change, and write the report of it; the exit status: 1 where `up` would fail.

    Args:
        name: the stack.
        save_plan: also keep the plan, which `up --plan` can be held to.
        as_json: print the report as JSON; Pulumi's own preview goes to standard error.

    Raises:
        SettingsError: the stack file is refused.
        SetupError: the stack, or a secret or certificate of it, is missing.
    """
    short = short_name(name)
    for suffix in ("md", "full.md", "json", "plan.json"):  # what an earlier preview left would be taken for this one's
        file_of(short, suffix).unlink(missing_ok=True)
    plan, page = file_of(short, "plan.json"), file_of(short, "md")
    page.parent.mkdir(parents=True, exist_ok=True)
    with _to_standard_error() if as_json else contextlib.nullcontext():
        try:
            settings = load_stack_file(name)
            stack = deployed(name)
            require_secrets(stack, settings)
            require_certificates(stack, settings)
        except (SettingsError, SetupError) as error:
            write(build(Preview(short, ok=False, steps=(), config={}, outputs={}, errors=(str(error),))), short)
            raise
        schemas, too_old = told_moves(stack, settings)
        status, report = run(stack, plan if save_plan else None, schemas, too_old=too_old)
        for words in schemas:
            say("Schema", visible(str(words)))
        write(report, short)
        say("Report", f"{os.path.relpath(page, ROOT)}: {visible(str(report.verdict))}")
        if plan.exists():
            say("Plan", f"`./orthanc-stack up {name} --plan {os.path.relpath(plan, ROOT)}` does that, and nothing else")
        if status != 0:
            why = "see Schema, above" if too_old else "what Pulumi says is above, under Policies or Diagnostics"
            say("Failed", f"`./orthanc-stack up {name}` would fail, too: {why}")
    if as_json:
        print(file_of(short, "json").read_text(encoding="utf-8"), end="")
    return 1 if status else 0


def run(stack: Stack, plan: Path | None = None, schemas: Sequence[Words] = (), *, too_old: bool = False) -> tuple[int, Report]:
    """Run the preview before the user's eyes; its exit status and its report.

    Args:
        stack: the stack.
        plan: where to save the plan; None for no plan.
        schemas: what a new image does to the schema of databases.
        too_old: whether it is too old for one of them, so that `up` refuses.

    Raises:
        SetupError: Pulumi ended before it told anything.
    """
    unfinished = stack.unfinished
    if unfinished:
        say("Earlier", f"a run on {stack.name} ended, or is at work, while it changes {', '.join(unfinished)}")
    with tempfile.TemporaryDirectory() as folder:  # 0700: the events hold all that is public of the stack
        log = Path(folder) / "events.json"
        save = ["--save-plan", str(plan)] if plan else []
        status = stack.run("preview", "--suppress-outputs", *POLICIES, *save, "--event-log", str(log), env=_EVENTS)
        told = log.read_text(encoding="utf-8") if log.exists() else ""
    status = status or int(too_old)
    if plan and status != 0:
        plan.unlink(missing_ok=True)
    if not told:
        raise SetupError(f"the preview ended with exit status {status} before it began; what Pulumi says is above. There is no report.")
    return status, build(read(told), unfinished, schemas, too_old=too_old)


def write(report: Report, stack: str, limit: int = LIMIT) -> None:
    """Write the report, of at most so many bytes; REPORT_URL is where its reader finds the whole of it."""
    text, cut = markdown(report, url=os.environ.get("REPORT_URL", ""), limit=limit)
    file_of(stack, "md").write_text(text, encoding="utf-8")
    if cut:
        file_of(stack, "full.md").write_text(markdown(report, limit=None)[0], encoding="utf-8")
    file_of(stack, "json").write_text(json.dumps(plain(report), indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def file_of(stack: str, suffix: str) -> Path:
    """A file that a preview leaves: the report, the whole of it where that is longer, the same for programs, Pulumi's plan."""
    return ROOT / FOLDER / f"{stack}.{suffix}"


@contextlib.contextmanager
def _to_standard_error() -> Iterator[None]:
    """Send to standard error what this process and its children print, so that standard output is a program's to read."""
    out = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(out, 1)
        os.close(out)
