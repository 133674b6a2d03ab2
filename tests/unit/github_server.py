"""GitHub's API on loopback, as far as .github/scripts/ ask it. `gh` reaches it as a proxy for the host github.localhost, without TLS.

The answers follow GitHub's documentation: pages with a Link header, filters in the query, 422 for a text that is too long.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from ops.setup import apt
from tests.unit.archives import zipped
from tests.unit.servers import Answer, Request, serving

API = "http://api.github.localhost"
REPOSITORY = "clinic/stacks"
TOKEN = "ghs_tokenOfATest"
BOT = "github-actions[bot]"
MOST_CHARACTERS = 65_536
_OURS, _FORK = {"id": 11}, {"id": 12}

Query = Mapping[str, str]
Body = dict[str, Any]


@dataclass
class GitHub:
    """What the server holds.

    Attributes:
        tip: the newest commit of main.
        pulls: pull requests, by the commit that they brought.
        runs: workflow runs, the newest first, with the file of their workflow and their artefacts.
        broken: a part of a path for which the server fails.
        written: each request that changed something, as method and path.
    """

    tip: str = ""
    pulls: dict[str, list[Body]] = field(default_factory=dict)
    runs: list[Body] = field(default_factory=list)
    comments: list[Body] = field(default_factory=list)
    issues: list[Body] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)
    broken: str = "nothing"
    written: list[str] = field(default_factory=list)
    url: str = ""

    def environment(self) -> dict[str, str]:
        """What a job of a workflow has in its environment; and how `gh` gets here."""
        job = {"GITHUB_REPOSITORY": REPOSITORY, "GITHUB_SERVER_URL": "https://github.example", "GITHUB_RUN_ID": "50"}
        at = {"GITHUB_REF_NAME": "main", "GITHUB_SHA": "5" * 40}
        return job | at | {"GH_TOKEN": TOKEN, "GH_HOST": "github.localhost", "HTTP_PROXY": self.url}

    def add_run(self, head: str, artifacts: Mapping[str, Mapping[str, bytes]], **other: Any) -> None:
        """The newest run: of preview.yml, for a pull request from this repository; `other` says what is otherwise."""
        run = {"id": len(self.runs) + 1, "head_sha": head, "event": "pull_request", "file": "preview.yml", "fork": False, "expired": False}
        self.runs.insert(0, run | other | {"repository": _OURS, "artifacts": artifacts})
        self.runs[0]["head_repository"] = _FORK if self.runs[0]["fork"] else _OURS

    def add_issue(self, body: str = "", author: str = BOT, *labels: str, **other: Any) -> Body:
        """An open issue."""
        issue = {"number": len(self.issues) + 1, "user": {"login": author}, "body": body, "labels": list(labels), "state": "open"} | other
        self.issues.append(issue)
        return issue

    def add_comment(self, body: str, author: str = BOT, pull: int = 7) -> Body:
        """A comment on a pull request."""
        comment = {"id": len(self.comments) + 1, "user": {"login": author}, "body": body, "pull": pull}
        self.comments.append(comment)
        return comment

    def answer(self, request: Request) -> Answer:
        """The answer to a request that `gh` sends."""
        parts = urlsplit(request.path)
        if f"{parts.scheme}://{parts.netloc}" != API or request.headers["Authorization"] != f"token {TOKEN}":
            return Answer(401)
        body = json.loads(request.body or b"{}")
        if request.method != "GET":
            self.written.append(f"{request.method} {parts.path.removeprefix(f'/repos/{REPOSITORY}')}")
        if self.broken in parts.path:
            return Answer(502)
        if len(body.get("body", "")) > MOST_CHARACTERS:
            return Answer(422, b'{"message": "body is too long (maximum is 65536 characters)"}')
        for (method, pattern), act in _ROUTES.items():
            if method == request.method and (match := re.fullmatch(f"/repos/{REPOSITORY}{pattern}", parts.path)):
                return _paged(parts.path, act(self, match[1] if match.groups() else "", dict(parse_qsl(parts.query)), body), parts.query)
        return Answer(404, b'{"message": "Not Found"}')

    def artifacts(self, run: int, query: Query) -> list[Body]:
        """A run's artefacts; an artefact's number is its run's, and its name's place in it."""
        (of,) = (one for one in self.runs if one["id"] == run)
        return [
            {"id": at, "name": name, "expired": of["expired"], "archive_download_url": f"{API}/repos/{REPOSITORY}/zips/{run}-{at}"}
            for at, name in enumerate(of["artifacts"])
            if query.get("name") in (None, name)
        ]

    def archive(self, said: str) -> Answer:
        run, at = map(int, said.split("-"))
        (of,) = (one for one in self.runs if one["id"] == run)
        return Answer(200, zipped(list(of["artifacts"].values())[at]))

    def open_issue(self, body: Body) -> Body:
        # Those that the repository does not have are dropped.
        labels = [label for label in body.pop("labels") if label in self.labels]
        return self.add_issue(body.pop("body"), BOT, *labels, **body)

    def change_issue(self, number: int, body: Body) -> Body:
        self.issues[number - 1].update(body)
        return self.issues[number - 1]

    def change_comment(self, number: int, body: Body) -> Body:
        self.comments[number - 1].update(body)
        return self.comments[number - 1]

    def make_label(self, body: Body) -> Body:
        self.labels.add(body["name"])
        return body


def _matches(run: Body, file: str, query: Query) -> bool:
    return run["file"] == file and all(query.get(name) in (None, run[name]) for name in ("event", "head_sha"))


def _listed(issue: Body, query: Query) -> bool:
    return query["state"] == issue["state"] and query.get("labels") in (None, *issue["labels"])


_Act = Callable[[GitHub, str, Query, Body], Any]
_ROUTES: dict[tuple[str, str], _Act] = {
    ("GET", "/git/ref/heads/main"): lambda hub, _, __, ___: {"object": {"sha": hub.tip}},
    ("GET", r"/commits/(\w+)/pulls"): lambda hub, commit, _, __: hub.pulls.get(commit, []),
    ("GET", r"/actions/workflows/([\w.]+)/runs"): lambda hub, file, query, _: {
        "workflow_runs": [
            {name: run[name] for name in ("id", "head_sha", "event", "repository", "head_repository")}
            for run in hub.runs
            if _matches(run, file, query)
        ]
    },
    ("GET", r"/actions/runs/(\d+)/artifacts"): lambda hub, run, query, _: {"artifacts": hub.artifacts(int(run), query)},
    ("GET", r"/zips/([\d-]+)"): lambda hub, said, _, __: hub.archive(said),
    ("GET", r"/issues/(\d+)/comments"): lambda hub, pull, _, __: [one for one in hub.comments if one["pull"] == int(pull)],
    ("POST", r"/issues/(\d+)/comments"): lambda hub, pull, _, body: hub.add_comment(body["body"], pull=int(pull)),
    ("PATCH", r"/issues/comments/(\d+)"): lambda hub, number, _, body: hub.change_comment(int(number), body),
    ("GET", "/issues"): lambda hub, _, query, __: [issue for issue in hub.issues if _listed(issue, query)],
    ("POST", "/issues"): lambda hub, _, __, body: hub.open_issue(body),
    ("PATCH", r"/issues/(\d+)"): lambda hub, number, _, body: hub.change_issue(int(number), body),
    ("POST", "/labels"): lambda hub, _, __, body: hub.make_label(body),
}


def _paged(path: str, content: Any, query: str) -> Answer:
    """The page that is asked for; lists that are in an object fit on one here."""
    if isinstance(content, Answer):
        return content
    headers = {"Content-Type": "application/json"}
    if isinstance(content, list):
        asked = dict(parse_qsl(query))
        size, page = min(int(asked.get("per_page", 30)), 100), int(asked.get("page", 1))
        if len(content) > size * page:
            headers["Link"] = f'<{API}{path}?{urlencode({**asked, "page": page + 1})}>; rel="next"'
        content = content[size * (page - 1) : size * page]
    return Answer(200, json.dumps(content).encode(), headers)


@contextmanager
def github() -> Iterator[GitHub]:
    """The server, while the block runs; and `gh` on PATH, which GitHub's runners have."""
    if not shutil.which("gh"):
        if not apt.can_install():
            pytest.skip("there is no gh. On Debian and Ubuntu: sudo apt-get install gh")
        apt.install("Tests", ["gh"], "the tests of .github/scripts/")
    hub = GitHub()
    with serving(hub.answer) as hub.url:
        yield hub
