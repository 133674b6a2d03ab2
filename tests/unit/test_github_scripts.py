"""The scripts of .github/scripts/, run with `gh` itself against a server that answers as GitHub does."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ops.setup.console import ROOT
from tests.unit.github_server import BOT, TOKEN, GitHub, github

SCRIPTS = ROOT / ".github" / "scripts"
HEAD = "a" * 40
PLAN = {"dev.plan.json": b"{}", "dev.md": b"## dev\n", "dev.json": b"{}"}
MARK = "<!-- previews -->"


@pytest.fixture
def hub() -> Iterator[GitHub]:
    with github() as served:
        yield served


class Checkout:
    """A checkout of one commit, in which scripts are run as a job runs them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "output"
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "--allow-empty", "--message=one")
        self.commit, self.tree = self.git("rev-parse", "HEAD"), self.git("rev-parse", "HEAD^{tree}")

    def git(self, *arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=self.folder, capture_output=True, text=True, check=True).stdout.strip()

    def write(self, files: Mapping[str, str | bytes]) -> None:
        for name, content in files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    def run(self, hub: GitHub, script: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        self.output.write_text("")
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "GITHUB_OUTPUT": str(self.output)} | hub.environment() | environ
        done = subprocess.run(
            [SCRIPTS / script, *arguments], cwd=self.folder, env=env, capture_output=True, text=True, check=False, timeout=60
        )
        assert TOKEN not in done.stdout + done.stderr
        return done

    def ok(self, hub: GitHub, script: str, *arguments: str, **environ: str) -> None:
        done = self.run(hub, script, *arguments, **environ)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


# --- The reviewed plan -----------------------------------------------------------------------------------------------


def merged(hub: GitHub, checkout: Checkout, **other: Any) -> None:
    """The commit came by a pull request."""
    pull = {"merged_at": "2026-01-01T00:00:00Z", "merge_commit_sha": checkout.commit, "head": {"sha": HEAD}}
    hub.pulls[checkout.commit] = [pull | other]


def previewed(hub: GitHub, checkout: Checkout, plan: bytes = b"{}", head: str = HEAD, name: str = "", **other: Any) -> None:
    """A run has left the preview of dev."""
    hub.add_run(head, {name or f"preview-dev-{checkout.tree}": PLAN | {"dev.plan.json": plan}}, **other)


def fetched(hub: GitHub, checkout: Checkout) -> str:
    """The plan that was fetched; empty for none."""
    checkout.ok(hub, "reviewed.sh", "dev")
    plan = checkout.folder / "artifacts" / "preview" / "dev.plan.json"
    assert checkout.output.read_text() == ("plan=artifacts/preview/dev.plan.json\n" if plan.exists() else "")
    return plan.read_text() if plan.exists() else ""


def test_the_reviewed_plan_is_fetched_with_its_report(hub: GitHub, checkout: Checkout) -> None:
    merged(hub, checkout)
    previewed(hub, checkout, b"old")
    previewed(hub, checkout, b"new")
    assert fetched(hub, checkout) == "new"
    assert (checkout.folder / "artifacts" / "preview" / "dev.md").read_bytes() == PLAN["dev.md"]
    assert not hub.written


@pytest.mark.parametrize(
    "other",
    [
        {"fork": True},
        {"event": "push"},
        {"file": "other.yml"},
        {"head": "b" * 40},
        {"name": f"preview-dev-{'1' * 40}"},
        {"name": "preview-prod-{tree}"},
        {"expired": True},
    ],
    ids=str,
)
def test_what_was_not_reviewed_is_passed_over(hub: GitHub, checkout: Checkout, other: dict[str, Any]) -> None:
    merged(hub, checkout)
    if "name" in other:
        other = {"name": other["name"].format(tree=checkout.tree)}
    previewed(hub, checkout, b"forged", **other)
    assert fetched(hub, checkout) == ""
    # Nor is it in the way of what was.
    merged(hub, checkout)
    hub.runs.clear()
    previewed(hub, checkout, b"reviewed")
    previewed(hub, checkout, b"forged", **other)
    assert fetched(hub, checkout) == "reviewed"


@pytest.mark.parametrize("other", [{"merged_at": None}, {"merge_commit_sha": "b" * 40}], ids=str)
def test_a_pull_request_that_was_not_merged_as_this_commit(hub: GitHub, checkout: Checkout, other: dict[str, Any]) -> None:
    merged(hub, checkout, **other)
    previewed(hub, checkout)
    assert fetched(hub, checkout) == ""


def test_a_preview_that_failed_has_no_plan(hub: GitHub, checkout: Checkout) -> None:
    merged(hub, checkout)
    hub.add_run(HEAD, {f"preview-dev-{checkout.tree}": {"dev.md": b"It failed."}})
    assert fetched(hub, checkout) == ""
    previewed(hub, checkout)
    hub.add_run(HEAD, {f"preview-dev-{checkout.tree}": {"dev.md": b"It failed."}})
    assert fetched(hub, checkout) == "{}"


@pytest.mark.parametrize("broken", ["/pulls", "/runs", "/artifacts", "/zips"])
def test_without_an_answer_nothing_is_taken_for_unreviewed(hub: GitHub, checkout: Checkout, broken: str) -> None:
    merged(hub, checkout)
    previewed(hub, checkout)
    hub.broken = broken
    assert checkout.run(hub, "reviewed.sh", "dev").returncode != 0
    assert checkout.output.read_text() == ""


def test_only_the_newest_commit_is_deployed(hub: GitHub, checkout: Checkout) -> None:
    hub.tip = checkout.commit
    checkout.ok(hub, "newest.sh")
    hub.tip = "b" * 40
    done = checkout.run(hub, "newest.sh")
    assert done.returncode == 1
    assert f"main is at {hub.tip}, and this is {checkout.commit}" in done.stdout
    hub.broken = "/git/ref"
    assert checkout.run(hub, "newest.sh").returncode != 0


# --- The comment -----------------------------------------------------------------------------------------------------


def comment(hub: GitHub, checkout: Checkout, **reports: str | bytes) -> None:
    """Post reports by their stack's name."""
    shutil.rmtree(checkout.folder / "artifacts", ignore_errors=True)
    checkout.write({f"artifacts/preview/{stack}.md": report for stack, report in reports.items()})
    checkout.ok(hub, "comment.sh", "7", "dev", "prod", COMMIT=HEAD)


def test_one_comment_is_made_and_then_edited(hub: GitHub, checkout: Checkout) -> None:
    comment(hub, checkout, dev="## dev\n\nas it was\n")
    (made,) = hub.comments
    assert made["pull"] == 7
    assert made["body"] == (
        f"{MARK}\nCommit `aaaaaaaaaa`, [the run and its artefacts](https://github.example/clinic/stacks/actions/runs/50)\n"
        "\n---\n\n## dev\n\nas it was\n"
        "\n---\n\n## prod\n\nNo report: its job has failed, or waits for its approval. The run says which.\n"
    )
    comment(hub, checkout, dev="## dev\n", prod="## prod\n\nnew\n")
    assert len(hub.comments) == 1
    assert hub.comments[0]["body"].endswith("\n## dev\n\n---\n\n## prod\n\nnew\n")


def test_others_comments_are_left_alone(hub: GitHub, checkout: Checkout) -> None:
    hub.add_comment(f"{MARK}\nquoted", "somebody")
    hub.add_comment(f"> {MARK}")
    hub.add_comment(f"{MARK}\nanother pull request", pull=8)
    before = [one["body"] for one in hub.comments]
    comment(hub, checkout, dev="## dev\n")
    assert [one["body"] for one in hub.comments[:3]] == before
    assert len(hub.comments) == 4


def test_the_comment_is_found_behind_a_hundred_others(hub: GitHub, checkout: Checkout) -> None:
    for _ in range(120):
        hub.add_comment("Looks good", "somebody")
    ours = [hub.add_comment(f"{MARK}\nold"), hub.add_comment(f"{MARK}\nold")]
    comment(hub, checkout, dev="## dev\n")
    assert ["old" in one["body"] for one in ours] == [False, True]
    assert len(hub.comments) == 122


def test_a_report_is_data(hub: GitHub, checkout: Checkout) -> None:
    hostile = "@dev.md $(id) `id` ${HOME} \\n \"'\x00\x1b[0m\n<!-- \n```\n"
    comment(hub, checkout, dev=hostile, prod=b"\xff\xfe")
    assert f"\n---\n\n{hostile}\n---\n" in hub.comments[0]["body"]
    comment(hub, checkout, dev="@/etc/hostname", prod="{owner}")
    assert "@/etc/hostname" in hub.comments[0]["body"]


def test_reports_of_any_size_make_a_comment(hub: GitHub, checkout: Checkout) -> None:
    fits, long = "a" * 32_000, "é" * 20_000
    comment(hub, checkout, dev=fits, prod=fits)
    assert hub.comments[0]["body"].count(fits) == 2
    for reports in ({"dev": fits, "prod": long}, {"dev": long, "prod": fits}):
        comment(hub, checkout, **reports)
        shown = {stack: report in hub.comments[0]["body"] for stack, report in reports.items()}
        assert shown == {"dev": True, "prod": False}
        assert "## prod\n\nThe report is too long for here: it is among the artefacts" in hub.comments[0]["body"]
    comment(hub, checkout, dev="é" * 40_000, prod="## prod\n")
    assert "é" not in hub.comments[0]["body"]
    assert hub.comments[0]["body"].endswith("---\n\n## prod\n")


def test_a_link_among_the_reports_is_not_followed(hub: GitHub, checkout: Checkout) -> None:
    checkout.write({"secret": "hidden", "artifacts/preview/dev.md": "## dev\n"})
    (checkout.folder / "artifacts" / "preview" / "prod.md").symlink_to(checkout.folder / "secret")
    checkout.ok(hub, "comment.sh", "7", "dev", "prod")
    assert "hidden" not in hub.comments[0]["body"]


def test_a_comment_that_cannot_be_looked_for_is_not_made(hub: GitHub, checkout: Checkout) -> None:
    hub.broken = "/issues/7/comments"
    assert checkout.run(hub, "comment.sh", "7", "dev").returncode != 0
    assert not hub.written


# --- Drift -----------------------------------------------------------------------------------------------------------


def settle(hub: GitHub, checkout: Checkout, dev: str, prod: str) -> None:
    """Two checks have ended with these exit statuses; empty for one that did not run."""
    found = {"dev": dev, "prod": prod}
    checkout.write({f"artifacts/drift/{stack}.status": f"{status}\n" for stack, status in found.items() if status})
    checkout.write({f"artifacts/drift/{stack}.md": f"# Drift of {stack}\n" for stack, status in found.items() if status in ("0", "3")})
    checkout.ok(hub, "drift-issue.sh", "dev", "prod")


@pytest.mark.parametrize(("dev", "prod"), [("3", "0"), ("0", "3"), ("3", "3"), ("3", "1"), ("", "3")])
def test_drift_opens_one_issue(hub: GitHub, checkout: Checkout, dev: str, prod: str) -> None:
    settle(hub, checkout, dev, prod)
    settle(hub, checkout, dev, prod)
    (issue,) = hub.issues
    assert (issue["title"], issue["labels"], issue["state"]) == ("What runs is not what was deployed", ["drift"], "open")
    assert ("# Drift of dev\n" in issue["body"], "# Drift of prod\n" in issue["body"]) == (dev in ("0", "3"), prod in ("0", "3"))


@pytest.mark.parametrize(("dev", "prod"), [("0", "0"), ("0", "1"), ("1", "1"), ("2", "0"), ("", ""), ("0", "33")])
def test_without_drift_none_is_opened(hub: GitHub, checkout: Checkout, dev: str, prod: str) -> None:
    settle(hub, checkout, dev, prod)
    assert not hub.written


def test_the_issue_is_closed_when_nothing_has_drifted(hub: GitHub, checkout: Checkout) -> None:
    issue = hub.add_issue("old", BOT, "drift")
    settle(hub, checkout, "0", "0")
    assert (issue["state"], issue["body"]) == ("closed", "old")
    assert [one["body"] for one in hub.comments] == ["Nothing has drifted any more."]
    settle(hub, checkout, "3", "0")
    assert [one["state"] for one in hub.issues] == ["closed", "open"]


@pytest.mark.parametrize(("dev", "prod"), [("3", "0"), ("0", "1"), ("", "")])
def test_the_issue_is_updated_as_long_as_it_is_not_known_to_be_over(hub: GitHub, checkout: Checkout, dev: str, prod: str) -> None:
    issue = hub.add_issue("old", BOT, "drift")
    settle(hub, checkout, dev, prod)
    assert issue["state"] == "open"
    assert issue["body"].startswith("Commit `5555555555`")
    assert hub.written == ["PATCH /issues/1"]


def test_others_issues_are_left_alone(hub: GitHub, checkout: Checkout) -> None:
    hub.add_issue("", "somebody", "drift")
    hub.add_issue("")
    hub.add_issue("", BOT, "drift", pull_request={})
    hub.add_issue("", BOT, "drift", state="closed")
    settle(hub, checkout, "0", "0")
    assert not hub.written
    settle(hub, checkout, "3", "0")
    assert len(hub.issues) == 5
    assert [one["body"] for one in hub.issues[:4]] == [""] * 4


def test_an_issue_that_cannot_be_looked_for_is_not_opened(hub: GitHub, checkout: Checkout) -> None:
    checkout.write({"artifacts/drift/dev.status": "3\n"})
    hub.broken = "/issues"
    assert checkout.run(hub, "drift-issue.sh", "dev").returncode != 0
    assert not hub.written


@pytest.mark.parametrize(("status", "ends"), [(0, 0), (3, 0), (1, 1), (2, 2)])
def test_the_check_keeps_how_it_ended(hub: GitHub, checkout: Checkout, status: int, ends: int) -> None:
    checkout.write({"orthanc-stack": f'#!/bin/sh\ntest "$*" = "drift dev" && exit {status}\n'})
    (checkout.folder / "orthanc-stack").chmod(0o755)
    assert checkout.run(hub, "drift.sh", "dev").returncode == ends
    assert (checkout.folder / "artifacts" / "drift" / "dev.status").read_text() == f"{status}\n"
