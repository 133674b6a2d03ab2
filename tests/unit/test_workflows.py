"""The workflows, as data: which job may do what, which code runs beside which right, and that the commands exist."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ops.setup.console import ROOT

#: With the example that a site copies.
PATHS = {file.name: file for file in (*(ROOT / ".github" / "workflows").glob("*"), ROOT / "examples" / "backup.yml")}
FILES = sorted(PATHS)
SCRIPTS = {file.name: file.read_text() for file in (ROOT / ".github" / "scripts").iterdir()}
#: With this event, the code of a pull request runs; a fork's, too.
OF_ANYBODY = "pull_request"


def workflow(name: str) -> dict[str, Any]:
    loaded: dict[Any, Any] = yaml.safe_load(PATHS[name].read_text())
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


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each step of each job, with the names of its workflow and job."""
    for name, job, content in all_jobs():
        for step in content["steps"]:
            yield f"{name} {job}", step


def test_there_are_these_workflows() -> None:
    # reviewed.sh names preview.yml; tests/unit/test_github_scripts.py has that.
    assert FILES == ["backup.yml", "checks.yml", "deploy.yml", "drift.yml", "preview.yml", "slow.yml"]


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_permitted_that_no_job_names(name: str) -> None:
    assert workflow(name)["permissions"] == {}
    # Both run with the repository's rights for a fork's pull request.
    assert events(name).isdisjoint({"pull_request_target", "workflow_run"})
    for job, content in jobs(name):
        assert content["permissions"], job
        # A first backup, and a drill, may take hours.
        assert content["timeout-minutes"] <= (1440 if name == "backup.yml" else 90), job


def test_actions_are_pinned_by_commit_and_alike_everywhere() -> None:
    pinned: dict[str, set[str]] = {}
    for name in FILES:
        for line in PATHS[name].read_text().splitlines():
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
    for where, step in steps():
        written = yaml.safe_dump(step)
        if "secrets." in written:
            assert re.search(r"\./orthanc-stack (preview|up|backup|drill) |\.github/scripts/drift\.sh ", step["run"]), where
        if "github.token" in written:
            # Only these scripts and gh see it: no package of anybody else's.
            assert "secrets." not in written, where
            assert re.match(r"\.github/scripts/(comment|drift-issue|newest|reviewed)\.sh\b", step["run"]), where
            assert step["env"]["GH_TOKEN"] == "${{ github.token }}", where


def test_no_fork_gets_to_a_secret() -> None:
    for name, job, content in all_jobs():
        if OF_ANYBODY in events(name) and "environment" in content:
            assert "github.event.pull_request.head.repo.full_name == github.repository" in content["if"], f"{name} {job}"


def test_a_stack_has_one_run_at_a_time() -> None:
    deploying = {
        content["concurrency"]["group"]: content["concurrency"]["cancel-in-progress"]
        for name, _, content in all_jobs()
        if any("orthanc-stack up" in step.get("run", "") for step in content["steps"])
    }
    assert deploying == {"stack-dev": False, "stack-prod": False}


def test_scripts_hold_no_expression_and_are_one_line() -> None:
    for where, step in steps():
        run = step.get("run", "")
        assert "${{" not in run, where
        assert "\n" not in run.strip(), where
        # Without its name, the shell passes over what fails before a pipe.
        assert "|" not in run or step["shell"] == "bash", where


def test_artefacts_bear_the_names_that_the_scripts_look_for() -> None:
    uploads = {
        job: step["with"]["name"]
        for _, job, content in all_jobs()
        for step in content["steps"]
        if step.get("uses", "").startswith("actions/upload-artifact@")
    }
    assert "name=\"preview-$stack-$(git rev-parse 'HEAD^{tree}')\"" in SCRIPTS["reviewed.sh"]
    for stack in ("dev", "prod"):
        assert uploads[stack] == f"preview-{stack}-${{{{ steps.tree.outputs.tree }}}}"


def test_a_reviewed_plan_is_looked_for_before_a_new_one_is_made() -> None:
    for job, content in jobs("deploy.yml"):
        runs = [step["run"] for step in content["steps"] if "run" in step]
        if job == "prod":
            assert runs == [".github/scripts/newest.sh", "./orthanc-stack up prod --plan artifacts/preview/prod.plan.json"]
            continue
        (reviewed,) = (step for step in content["steps"] if step.get("id") == "reviewed")
        assert reviewed["run"] == f".github/scripts/reviewed.sh {'dev' if job == 'dev' else 'prod'}"
        made = next(step for step in content["steps"] if step.get("run", "").startswith("./orthanc-stack"))
        assert content["steps"].index(reviewed) < content["steps"].index(made)
        assert "steps.reviewed.outputs.plan }}" in (made["env"]["PLAN"] if job == "dev" else made["if"])


def commands_in(text: str) -> set[str]:
    """The commands of this project that a text calls, without their options."""
    return set(re.findall(r"\./orthanc-stack ((?:dev (?:test|lint)\b)|[a-z-]+)", text))


def called() -> str:
    return "\n".join([*(step.get("run", "") for _, step in steps()), *SCRIPTS.values()])


def test_every_script_is_called_and_exists() -> None:
    assert set(re.findall(r"\.github/scripts/([a-z-]+\.sh)", called())) | {"reports.sh"} == set(SCRIPTS)
    assert all(os.access(ROOT / ".github" / "scripts" / name, os.X_OK) for name in SCRIPTS)
    assert all(text.startswith("#!/usr/bin/env bash\n") and "\nset -euo pipefail\n" in text for text in SCRIPTS.values())


@pytest.mark.parametrize("command", sorted(commands_in(called()) | commands_in((ROOT / "docs" / "ci.md").read_text())))
def test_every_command_is_one_and_has_its_options(command: str) -> None:
    env = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    asked = [sys.executable, "-X", "utf8", str(ROOT / "orthanc-stack"), *command.split(), "--help"]
    told = subprocess.run(asked, env=env, capture_output=True, text=True, check=True).stdout
    lines = re.findall(rf"\./orthanc-stack {command}\b([^\n`]*)", called() + (ROOT / "docs" / "ci.md").read_text())
    for option in {option for line in lines for option in re.findall(r"--[a-z-]+", line)}:
        assert option in told


def test_the_workflows_call_these_commands() -> None:
    assert commands_in(called()) == {"check", "preview", "up", "drift", "backup", "drill"}


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
    assert commands_in(text) == {"check", "preview", "up"}
    for job in made.values():
        whole = loaded.get(str(job.get("extends")), {}) | job
        assert whole["stage"] in loaded["stages"]
        assert set(whole.get("needs", ())) <= set(made)
        assert whole["rules"]
    assert {job["resource_group"] for job in made.values() if any("orthanc-stack up" in line for line in job["script"])} == {"stack-prod"}
