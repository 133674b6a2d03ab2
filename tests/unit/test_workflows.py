"""The workflows, as data: who may what, which code runs beside which right, and that every command is one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ops import comment, reviewed
from ops.cli import COMMANDS
from ops.setup.console import ROOT

FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(file.name for file in FOLDER.glob("*"))
#: The code of a pull request runs with this event; for a fork, too.
OF_ANYBODY = "pull_request"


def workflow(name: str) -> dict[str, Any]:
    loaded: dict[Any, Any] = yaml.safe_load((FOLDER / name).read_text())
    # YAML 1.1 reads `on` as true.
    return {**loaded, "on": loaded[True]}


def events(name: str) -> set[str]:
    on = workflow(name)["on"]
    return {on} if isinstance(on, str) else set(on)


def jobs(name: str) -> list[tuple[str, dict[str, Any]]]:
    return list(workflow(name)["jobs"].items())


def all_jobs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name in FILES:
        for job, content in jobs(name):
            yield name, job, content


def test_there_are_these_workflows() -> None:
    assert FILES == ["checks.yml", "deploy.yml", "drift.yml", "fork-comment.yml", "preview.yml", "slow.yml"]
    assert f".github/workflows/{reviewed.WORKFLOW.rpartition('/')[2]}" == reviewed.WORKFLOW
    assert workflow("preview.yml")["name"] in workflow("fork-comment.yml")["on"]["workflow_run"]["workflows"]


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_permitted_that_no_job_names(name: str) -> None:
    assert workflow(name)["permissions"] == {}
    assert "pull_request_target" not in events(name)
    for job, content in jobs(name):
        assert content["permissions"], job
        assert content["timeout-minutes"] <= 90, job


def test_actions_are_pinned_by_commit_and_alike_everywhere() -> None:
    pinned: dict[str, set[str]] = {}
    for name in FILES:
        for line in (FOLDER / name).read_text().splitlines():
            if "uses:" in line:
                match = re.search(r"uses: (actions/[a-z-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)$", line)
                assert match, f"{name}: {line}"
                pinned.setdefault(match[1], set()).add(f"{match[2]} {match[3]}")
    assert all(len(versions) == 1 for versions in pinned.values())


def test_no_job_that_may_write_runs_a_pull_requests_code() -> None:
    for name, job, content in all_jobs():
        writes = "write" in content["permissions"].values()
        checkout = next(step for step in content["steps"] if step.get("uses", "").startswith("actions/checkout@"))
        assert checkout["with"]["persist-credentials"] is False, f"{name} {job}"
        if OF_ANYBODY in events(name):
            assert (checkout["with"].get("ref") == "${{ github.event.pull_request.base.sha }}") == writes, f"{name} {job}"
        else:
            # The default branch's code, by what GitHub checks out for these events.
            assert "ref" not in checkout["with"], f"{name} {job}"


def test_secrets_are_those_of_an_environment_and_the_token_of_one_step() -> None:
    for name, job, content in all_jobs():
        written = yaml.safe_dump(content)
        assert ("secrets." in written) == ("environment" in content), f"{name} {job}"
        assert "github.token" not in yaml.safe_dump(content.get("env", {}))
        for step in content["steps"]:
            assert (
                ("secrets." in yaml.safe_dump(step))
                <= step["run"].startswith(
                    ("./orthanc-stack preview STACK ", "./orthanc-stack up STACK ", "./orthanc-stack drift STACK-check ")
                )
                if "run" in step
                else True
            )
            assert not ("github.token" in yaml.safe_dump(step) and "secrets." in yaml.safe_dump(step)), f"{name} {job}"


def test_no_fork_gets_to_a_secret() -> None:
    for name, job, content in all_jobs():
        if OF_ANYBODY in events(name) and "environment" in content:
            assert "github.event.pull_request.head.repo.full_name == github.repository" in content["if"], f"{name} {job}"


def test_a_stack_has_one_run_at_a_time() -> None:
    deploying = {
        content["concurrency"]["group"]: content["concurrency"]["cancel-in-progress"]
        for name, _, content in all_jobs()
        if any("./orthanc-stack up STACK" in step.get("run", "") for step in content["steps"])
    }
    assert deploying == {"stack-dev": False, "stack-prod": False}


def test_scripts_hold_no_expression_and_no_logic() -> None:
    for name, job, content in all_jobs():
        for step in content["steps"]:
            run = step.get("run", "")
            assert "${{" not in run, f"{name} {job}"
            assert "\n" not in run.strip(), f"{name} {job}"


def test_artefacts_bear_the_names_that_the_commands_look_for() -> None:
    uploads = {
        job: step["with"]["name"]
        for _, job, content in all_jobs()
        for step in content["steps"]
        if step.get("uses", "").startswith("actions/upload-artifact@")
    }
    assert uploads["offline"] == comment.FORK_ARTIFACT
    for stack in ("dev", "prod"):
        assert uploads[stack] == reviewed.artifact_name(stack, "${{ steps.tree.outputs.tree }}")
    # What is downloaded for the comment are the previews, and not what was made without a stack.
    assert not comment.FORK_ARTIFACT.startswith("preview-")


def commands_in(text: str) -> set[str]:
    return set(re.findall(r"\bmake ([a-z-]+)", text))


def test_every_command_is_one() -> None:
    #: Made beside these: `./orthanc-stack drift STACK` itself.
    known = set(COMMANDS) | {"drift"}
    called = set().union(*(commands_in(step.get("run", "")) for _, _, content in all_jobs() for step in content["steps"]))
    assert called <= known
    assert {"lint", "test", "preview", "preview-offline", "comment", "up", "reviewed", "newest", "drift-check", "drift-issue"} <= called
    assert commands_in("\n".join(re.findall(r"`(make [^`]*)`", (ROOT / "docs" / "ci.md").read_text()))) <= known


def test_every_pull_request_is_tested_and_each_night_everything_is() -> None:
    scripts = {name: {step["run"] for _, job in jobs(name) for step in job["steps"] if "run" in step} for name in FILES}
    assert (scripts["checks.yml"], workflow("checks.yml")["on"]["pull_request"]) == ({"make lint", "sudo make test"}, None)
    slow = workflow("slow.yml")["on"]
    assert scripts["slow.yml"] == {"sudo make test-slow"}
    assert set(slow["pull_request"]["paths"]) == {"forwarder/**", "images/**"}
    assert slow["schedule"]


def test_gitlabs_file_in_the_docs() -> None:
    (text,) = re.findall(r"```yaml\n(stages:.*?)```", (ROOT / "docs" / "ci.md").read_text(), re.DOTALL)
    loaded: dict[str, Any] = yaml.safe_load(text)
    made = {name: job for name, job in loaded.items() if isinstance(job, dict) and "script" in job}
    assert commands_in(text) <= set(COMMANDS)
    assert all(job["stage"] in loaded["stages"] for job in made.values())
    for job in made.values():
        assert set([job["extends"]] if "extends" in job else []) <= set(loaded)
        assert set(job.get("needs", ())) <= set(made)
        assert "rules" in job or "rules" in loaded[job["extends"]]
    assert {job["resource_group"] for job in made.values() if "./orthanc-stack up STACK" in job["script"]} == {"stack-dev", "stack-prod"}
