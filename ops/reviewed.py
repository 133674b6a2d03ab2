"""`make reviewed`: the plan that was reviewed with a merged pull request; `make newest`: whether this commit is still the one to deploy.

A plan holds an `up` to the steps that it names: Pulumi stops at any other. So the plan of the pull request's last preview is what the
reviewers saw, as long as what is deployed is the very tree that was previewed. Where main has moved in between, it is another tree.

Standard library only, as ops/forge.py.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ops import pipeline
from ops.comment import FOLDER
from ops.forge import segment
from ops.setup.console import ROOT, SetupError, say

#: The workflow whose runs for pull requests leave the artefacts.
WORKFLOW = ".github/workflows/preview.yml"


def reviewed(stack: str, environ: Mapping[str, str] = os.environ, root: Path = ROOT) -> int:
    """Fetch the reviewed plan of a stack with its report, if there is one for this tree; the exit status is 0 either way.

    Says in GITHUB_OUTPUT `plan=<file>`, or `plan=` where there is none: then a preview has to be made, and approved.
    """
    hub = pipeline.github(environ)
    tree = _git(root, "rev-parse", "HEAD^{tree}")
    head = pipeline.commit(_git(root, "rev-parse", "HEAD"))
    heads = set(_merged_heads(hub, head))
    name = artifact_name(stack, tree)
    files = next((files for found in _candidates(hub, name, heads) if (files := _files(hub, int(found["id"]), stack))), None)
    if files is None:
        say("Plan", f"no preview of {stack} for the tree {tree[:10]} came with a merged pull request: it has to be made anew")
        _say_output(environ, "plan", "")
        return 0
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    say("Plan", f"{FOLDER}/{stack}.plan.json, as it was reviewed for the tree {tree[:10]}")
    _say_output(environ, "plan", f"{FOLDER}/{stack}.plan.json")
    return 0


def artifact_name(stack: str, tree: str) -> str:
    """What the artefact of a preview is called: by the stack, and by the tree that was previewed."""
    return f"preview-{stack}-{tree}"


def newest(environ: Mapping[str, str] = os.environ, root: Path = ROOT) -> int:
    """Refuse a commit that is no longer the newest of the branch that it was pushed to; the exit status.

    An `up` that waits for its approval, or is started again, would otherwise take a stack back behind a later one.
    """
    hub = pipeline.github(environ)
    branch = environ.get("GITHUB_REF_NAME", "main")
    tip = pipeline.commit(hub.api.get(f"{hub.path}/commits/{segment(branch)}")["sha"])
    head = _git(root, "rev-parse", "HEAD")
    if tip != head:
        raise SetupError(f"{branch} is at {tip[:10]}, and this is {head[:10]}: the newer commit's own run deploys it. Nothing was touched.")
    say("Newest", f"{head[:10]} is what {branch} is at")
    return 0


def _merged_heads(hub: pipeline.GitHub, head: str) -> Iterator[str]:
    """The last commits of the pull requests that brought a commit."""
    for pull in hub.api.pages(f"{hub.path}/commits/{head}/pulls"):
        if pull.get("merged_at") and pull.get("merge_commit_sha") == head:
            yield pipeline.commit(pull["head"]["sha"])


def _candidates(hub: pipeline.GitHub, name: str, heads: set[str]) -> list[Mapping[str, Any]]:
    """The artefacts of a name that a preview in this repository has left for a merged pull request's last commit, the newest first.

    A fork's runs leave their artefacts in the same list, under any name.
    """
    found = []
    for artifact in hub.api.pages(f"{hub.path}/actions/artifacts?name={segment(name)}", attribute="artifacts"):
        run = artifact.get("workflow_run") or {}
        if artifact["expired"] or artifact["name"] != name or run.get("head_sha") not in heads:
            continue
        if run.get("head_repository_id") is None or run["head_repository_id"] != run.get("repository_id"):
            continue
        details = hub.api.get(f"{hub.path}/actions/runs/{int(run['id'])}")
        if details["path"].partition("@")[0] == WORKFLOW and details["event"] == "pull_request":
            found.append(artifact)
    return sorted(found, key=lambda artifact: int(artifact["id"]), reverse=True)


def _files(hub: pipeline.GitHub, number: int, stack: str) -> dict[str, bytes]:
    """The plan and its reports; none where the plan is missing."""
    files = pipeline.artifact(hub, number)
    wanted = {f"{stack}.plan.json", f"{stack}.md", f"{stack}.json"}
    return {name: content for name, content in files.items() if name in wanted} if f"{stack}.plan.json" in files else {}


def _say_output(environ: Mapping[str, str], name: str, value: str) -> None:
    if path := environ.get("GITHUB_OUTPUT"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{name}={value}\n")


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SetupError(f"`git {' '.join(arguments)}` failed: {done.stderr.strip()}")
    return done.stdout.strip()
