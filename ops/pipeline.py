"""Where a pipeline's job runs: on which forge, for which pull request, as which account. All of it comes from the environment.

Standard library only, as ops/forge.py.
"""

from __future__ import annotations

import io
import json
import os
import re
import urllib.parse
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.forge import Api, segment
from ops.setup.console import SetupError
from ops.sticky import Comments, github_comments, gitlab_comments

#: Who comments with the token that GitHub makes for each job. No account can be registered with brackets in its name.
GITHUB_JOB_AUTHOR = "github-actions[bot]"
#: An artefact that is larger, packed, is none of ours; nor is one of its files that is larger, unpacked.
_ARTIFACT_BYTES = 20_000_000
FILE_BYTES = 4_000_000
#: Above this an event is not GitHub's, which promises 25 MB at most.
_EVENT_BYTES = 25_000_000
_REPOSITORY = re.compile(r"[\w.-]{1,100}/[\w.-]{1,100}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class GitHub:
    """A repository on GitHub, as a job of its workflows sees it.

    Attributes:
        api: GitHub's API.
        repository: owner/name.
        event: what started the workflow.
        run: the number of this run of the workflow; for a workflow that another one started, that one's.
        url: this run's page, for people.
        author: the account that the token belongs to.
    """

    api: Api
    repository: str
    event: Mapping[str, Any]
    run: int
    url: str
    author: str

    @property
    def started_by(self) -> Mapping[str, Any]:
        """The run that started this one (event `workflow_run`); empty for any other event."""
        return dict(self.event.get("workflow_run") or {})

    @property
    def path(self) -> str:
        """Where the API has the repository."""
        return f"/repos/{self.repository}"


def github(environ: Mapping[str, str] = os.environ) -> GitHub:
    """The repository that this job belongs to.

    Raises:
        SetupError: the environment is not that of a GitHub job.
    """
    repository = environ.get("GITHUB_REPOSITORY", "")
    if not _REPOSITORY.fullmatch(repository):
        raise SetupError(f"GITHUB_REPOSITORY is {repository!r}; it is owner/name, which GitHub sets for its jobs (docs/ci.md).")
    token = environ.get("GITHUB_TOKEN", "")
    if not token:
        raise SetupError("GITHUB_TOKEN is not set: the workflow hands it to the step that needs it (docs/ci.md).")
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/vnd.github+json",
        "X-GitHub-Api-Version": "2022-11-28",
        "User-Agent": "orthanc-stack",
    }
    api = Api(_api_url(environ.get("GITHUB_API_URL") or "https://api.github.com", "GITHUB_API_URL"), headers)
    event = _event(environ.get("GITHUB_EVENT_PATH", ""))
    run = str((event.get("workflow_run") or {}).get("id") or environ.get("GITHUB_RUN_ID") or "0")
    url = f"{environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{repository}/actions/runs/{environ.get('GITHUB_RUN_ID', '')}"
    return GitHub(api, repository, event, int(run) if run.isdecimal() else 0, url, _author(api, environ))


def _author(api: Api, environ: Mapping[str, str]) -> str:
    if said := environ.get("FORGE_AUTHOR"):
        return said
    # A job's own token may not ask who it is.
    return GITHUB_JOB_AUTHOR if environ.get("GITHUB_ACTIONS") == "true" else str(api.get("/user")["login"])


def commit(text: object) -> str:
    """A commit's full hash.

    Raises:
        SetupError: it is none.
    """
    if not isinstance(text, str) or not _COMMIT.fullmatch(text):
        raise SetupError(f"{text!r:.80} is no commit.")
    return text


def pull_request(of: GitHub, environ: Mapping[str, str] = os.environ) -> int:
    """The number of the pull request that the job is for.

    After a run for a fork, GitHub names no number, and what the fork's run left behind may name any: it is looked up by the branch and the
    commit that GitHub itself says the run was for.

    Raises:
        SetupError: there is none.
    """
    if (said := environ.get("PULL_REQUEST", "")).isdecimal():
        return int(said)
    if found := (of.event.get("pull_request") or {}).get("number"):
        return int(found)
    run = of.started_by
    if run:
        source = run.get("head_repository") or {"owner": {"login": ""}, "id": 0}
        head = f"{source['owner']['login']}:{run['head_branch']}"
        for pull in of.api.pages(f"{of.path}/pulls?state=open&head={segment(head)}"):
            at = pull["head"]
            if at["sha"] == commit(run["head_sha"]) and (at.get("repo") or {}).get("id") == source["id"]:
                return int(pull["number"])
        raise SetupError("no open pull request is at the commit that the run was for: it was closed, or has newer commits.")
    raise SetupError("this job is for no pull request: PULL_REQUEST may hold the number of one.")


def comments(of: GitHub, environ: Mapping[str, str] = os.environ) -> Comments:
    """The comments of the job's pull request."""
    return github_comments(of.api, of.repository, pull_request(of, environ), of.author)


@dataclass(frozen=True)
class GitLab:
    """A merge request on GitLab, as a job of its pipeline sees it: as GitHub, where a name is the same."""

    api: Api
    comments: Comments
    run: int
    url: str
    head: str


def gitlab(environ: Mapping[str, str] = os.environ) -> GitLab:
    """The merge request that this job belongs to.

    Raises:
        SetupError: the environment is not that of a merge request's job.
    """
    number, project, token = (environ.get(name, "") for name in ("CI_MERGE_REQUEST_IID", "CI_PROJECT_ID", "GITLAB_TOKEN"))
    if not (number.isdecimal() and project.isdecimal()):
        raise SetupError("CI_MERGE_REQUEST_IID and CI_PROJECT_ID are not set: this is no job of a merge request's pipeline.")
    if not token:
        raise SetupError("GITLAB_TOKEN is not set: CI_JOB_TOKEN may not write notes; a project access token may (docs/ci.md).")
    api = Api(_api_url(environ.get("CI_API_V4_URL", ""), "CI_API_V4_URL"), {"PRIVATE-TOKEN": token, "User-Agent": "orthanc-stack"})
    author = environ.get("FORGE_AUTHOR") or str(api.get("/user")["username"])
    run = environ.get("CI_PIPELINE_ID", "0")
    notes = gitlab_comments(api, project, int(number), author)
    return GitLab(api, notes, int(run) if run.isdecimal() else 0, environ.get("CI_PIPELINE_URL", ""), environ.get("CI_COMMIT_SHA", ""))


def artifact(of: GitHub, number: int) -> dict[str, bytes]:
    """The files of an artefact, by name: those at its top, none that is too large. Nothing is written to disk.

    Raises:
        SetupError: it is too large, or no archive.
    """
    content = of.api.download(f"{of.path}/actions/artifacts/{number}/zip", _ARTIFACT_BYTES)
    files: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            # What the archive says of sizes is not believed: what comes out is measured.
            for entry in archive.infolist()[:100]:
                if re.fullmatch(r"[\w.-]{1,200}", entry.filename, re.ASCII):
                    with archive.open(entry) as file:
                        unpacked = file.read(FILE_BYTES + 1)
                    if len(unpacked) <= FILE_BYTES:
                        files[entry.filename] = unpacked
    # zlib.error, and what else an archive can do to its reader, differ by Python's version.
    except Exception as error:
        raise SetupError(f"the artefact {number} is no archive that can be read: {type(error).__name__}") from None
    return files


def _event(path: str) -> dict[str, Any]:
    if not path:
        return {}
    try:
        file = Path(path)
        if file.stat().st_size > _EVENT_BYTES:
            raise SetupError(f"GITHUB_EVENT_PATH: {path} is larger than GitHub's events are.")
        loaded = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SetupError(f"GITHUB_EVENT_PATH: {path} is not readable: {error}") from None
    return loaded if isinstance(loaded, dict) else {}


def _api_url(url: str, name: str) -> str:
    """The address of an API, to which the token is sent: in clear to this machine alone."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")):
        return url.rstrip("/")
    raise SetupError(f"{name} is {url!r}; it has to begin with https://.")
