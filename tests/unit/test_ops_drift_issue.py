"""One issue for drift: opened once, kept up to date, closed; and which plan counts as reviewed."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ops import drift_issue, pipeline, reviewed, sticky
from ops.drift_issue import Finding
from ops.setup.console import SetupError
from tests.unit.forge_server import BOT, REPOSITORY_ID, Fault, Forge, served

DRIFTED = Finding("dev", "drifted", "## dev: server was stopped by hand")
SAME = Finding("prod", "same")
UNKNOWN = Finding("prod", "unknown")


@pytest.fixture
def forge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Forge]:
    yield from served(monkeypatch)


def settle(forge: Forge, run: int, *findings: Finding) -> str:
    """What a nightly job does about what it has found."""
    return drift_issue.settle(pipeline.github(forge.environment(run)), findings)


def opened(forge: Forge) -> list[dict[str, Any]]:
    return [issue for issue in forge.issues if issue["state"] == "open" and issue["user"]["login"] == BOT]


def test_it_is_opened_once_updated_and_closed(forge: Forge) -> None:
    assert settle(forge, 50, DRIFTED, SAME).endswith("opened")
    assert settle(forge, 51, Finding("dev", "drifted", "## dev: client was removed"), SAME).endswith("updated")
    (issue,) = opened(forge)
    assert "client was removed" in issue["body"]
    assert "server was stopped" not in issue["body"]
    assert "## prod\n\nAs it was deployed." in issue["body"]
    assert "closed" in settle(forge, 52, Finding("dev", "same"), SAME)
    assert opened(forge) == []
    assert "Nothing has drifted any more: dev, prod." in forge.issues[0]["comments"][0]
    assert forge.count("POST .*/issues$") == 1


def test_without_drift_no_issue_is_touched(forge: Forge) -> None:
    assert "nothing has drifted" in settle(forge, 50, SAME)
    assert forge.count("POST|PATCH") == 0


def test_what_is_not_known_neither_opens_nor_closes(forge: Forge) -> None:
    settle(forge, 50, UNKNOWN)
    assert forge.issues == []
    settle(forge, 51, DRIFTED, SAME)
    settle(forge, 52, Finding("dev", "same"), UNKNOWN)
    (issue,) = opened(forge)
    assert "## prod\n\n**Not known**" in issue["body"]


def test_it_is_found_among_all_open_issues(forge: Forge) -> None:
    settle(forge, 50, DRIFTED)
    label = [{"name": "drift"}]
    for number in range(230):
        forge.add_issue("physicist", f"{number}", labels=label)
    forged = forge.add_issue("mallory", f"{sticky.marker('drift', 9)}\nforged", labels=label)
    pull = forge.add_issue(BOT, f"{sticky.marker('drift', 9)}\na pull request", labels=label, pull_request={})
    settle(forge, 51, DRIFTED)
    assert len([issue for issue in opened(forge) if "pull_request" not in issue]) == 1
    assert forged["state"] == pull["state"] == "open"
    assert forged["body"].endswith("forged")
    assert pull["body"].endswith("a pull request")


def test_two_runs_at_once_leave_one_open(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    barrier, looks, look = threading.Barrier(2), threading.Semaphore(2), drift_issue._ours

    def meet(of: pipeline.GitHub) -> list[dict[str, Any]]:
        found = look(of)
        if looks.acquire(blocking=False):
            barrier.wait(timeout=10)
        return found

    monkeypatch.setattr(drift_issue, "_ours", meet)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda run: settle(forge, run, DRIFTED), (50, 51)))
    assert len(forge.issues) == 2
    (issue,) = opened(forge)
    assert issue["number"] == 20


@pytest.mark.parametrize("done", [True, False])
def test_an_issue_whose_answer_was_lost_is_not_opened_twice(forge: Forge, done: bool) -> None:
    forge.faults.append(Fault("POST .*/issues", 502, done=done))
    assert "opened" in settle(forge, 50, DRIFTED)
    assert len(forge.issues) == 1


@pytest.mark.parametrize(
    ("status", "report", "known", "exit_status"),
    [(0, False, "same", 0), (2, True, "drifted", 0), (2, False, "unknown", 1), (1, True, "unknown", 1)],
)
def test_what_a_check_has_found(tmp_path: Path, status: int, report: bool, known: str, exit_status: int) -> None:
    (tmp_path / "ops").mkdir()
    writes = "open('artifacts/drift/dev.md', 'w').write('## dev: server was stopped\\n')" if report else "pass"
    program = f"import sys\nassert sys.argv[1:] == ['drift', 'dev']\n{writes}\nsys.exit({status})\n"
    (tmp_path / "ops" / "__main__.py").write_text(program)
    (tmp_path / "artifacts" / "drift").mkdir(parents=True)
    (tmp_path / "artifacts" / "drift" / "dev.md").write_text("of an earlier night\n")
    assert drift_issue.drift_check("dev", tmp_path) == exit_status
    found = drift_issue.finding("dev", tmp_path)
    assert (found.status, found.text) == (known, "## dev: server was stopped\n" if known == "drifted" else "")
    (tmp_path / "artifacts" / "drift" / "prod.status.json").write_text(json.dumps({"status": "approved"}))
    assert [drift_issue.finding(stack, tmp_path).status for stack in ("prod", "never-checked")] == ["unknown", "unknown"]


# --- The plan that was reviewed --------------------------------------------------------------------------------------

HEAD = "d" * 40


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of main, after a merge."""
    (tmp_path / "a").write_text("a")
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "m"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def git(folder: Path, what: str) -> str:
    return subprocess.run(["git", "rev-parse", what], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def merged(forge: Forge, folder: Path, **run: Any) -> str:
    """A pull request that was merged as the checkout's commit, and the run of its last preview; the name of its artefact."""
    forge.pulls = [{"number": 7, "state": "closed", "merged_at": "x", "merge_commit_sha": git(folder, "HEAD"), "head": {"sha": HEAD}}]
    known = {"path": ".github/workflows/preview.yml", "event": "pull_request", "head_sha": HEAD, "from": REPOSITORY_ID}
    forge.runs[1] = known | run
    return reviewed.artifact_name("prod", git(folder, "HEAD^{tree}"))


def fetch(forge: Forge, folder: Path) -> str:
    """What `make reviewed` says to the workflow."""
    output = folder / "output"
    output.unlink(missing_ok=True)
    assert reviewed.reviewed("prod", forge.environment(GITHUB_OUTPUT=str(output)), folder) == 0
    return output.read_text().strip()


FILES = {"prod.plan.json": b'{"plan": 1}', "prod.md": b"## prod", "dev.plan.json": b"another stack's"}


def test_the_plan_of_the_merged_pull_request_is_fetched(forge: Forge, checkout: Path) -> None:
    name = merged(forge, checkout)
    forge.add_artifact(name, {"prod.plan.json": b"older"}, run=1)
    forge.add_artifact(name, FILES, run=1)
    assert fetch(forge, checkout) == "plan=artifacts/preview/prod.plan.json"
    folder = checkout / "artifacts" / "preview"
    assert (folder / "prod.plan.json").read_bytes() == FILES["prod.plan.json"]
    assert not (folder / "dev.plan.json").exists()


@pytest.mark.parametrize(
    "of",
    [
        pytest.param({"run": {"from": 99}}, id="a fork's"),
        pytest.param({"run": {"path": ".github/workflows/another.yml"}}, id="another workflow's"),
        pytest.param({"run": {"event": "push"}}, id="another event's"),
        pytest.param({"run": {"head_sha": "e" * 40}}, id="not of the commit that was merged"),
        pytest.param({"pull": {"merged_at": None}}, id="of a pull request that was not merged"),
        pytest.param({"artifact": {"expired": True}}, id="expired"),
        pytest.param({"name": reviewed.artifact_name("prod", "f" * 40)}, id="of another tree"),
    ],
)
def test_a_plan_of_another_origin_is_none(forge: Forge, checkout: Path, of: dict[str, Any]) -> None:
    name = merged(forge, checkout, **of.get("run", {}))
    forge.pulls[0] |= of.get("pull", {})
    forge.add_artifact(of.get("name", name), FILES, run=1, **of.get("artifact", {}))
    assert fetch(forge, checkout) == "plan="
    assert not (checkout / "artifacts").exists()


def test_only_the_newest_commit_is_deployed(forge: Forge, checkout: Path) -> None:
    forge.tips["main"] = git(checkout, "HEAD")
    assert reviewed.newest(forge.environment(GITHUB_REF_NAME="main"), checkout) == 0
    forge.tips["main"] = HEAD
    with pytest.raises(SetupError, match=r"main is at dddddddddd.*Nothing was touched"):
        reviewed.newest(forge.environment(GITHUB_REF_NAME="main"), checkout)
