"""GitHub's API on loopback, as far as the pipeline's commands use it: comments, issues, artefacts, pages, faults. And GitLab's notes.

What it answers follows GitHub's documentation: 30 items a page and 100 at most, the way on in a Link header, 422 for a text that is too
long, 302 to another host for an artefact's archive.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import pytest

from ops.forge import Api
from tests.unit.archives import zipped
from tests.unit.servers import Answer, Request, serving

TOKEN = "ghs_tokenThatIsInNoLog"
BOT = "github-actions[bot]"
REPOSITORY = "clinic/stacks"
REPOSITORY_ID = 11
MOST_CHARACTERS = 65_536
TOO_LONG = {"resource": "IssueComment", "code": "custom", "field": "body", "message": "body is too long (maximum is 65536 characters)"}


@dataclass
class Fault:
    """What goes wrong with the next request that fits.

    Attributes:
        request: a pattern of its method and path.
        status: what is answered.
        headers: with what headers.
        done: whether it is carried out all the same.
    """

    request: str
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    done: bool = False


@dataclass
class Forge:
    """What the server holds, and what it was asked.

    Attributes:
        storage_tokens: the Authorization header of each request that came to the host that keeps the archives.
        pauses: those that the client would have made.
        on_list: called when a list of comments was read, before it is answered.
        account: who the token belongs to.
    """

    comments: list[dict[str, Any]] = field(default_factory=list)
    issues: list[dict[str, Any]] = field(default_factory=list)
    pulls: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    archives: dict[int, bytes] = field(default_factory=dict)
    runs: dict[int, dict[str, Any]] = field(default_factory=dict)
    tips: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    storage_tokens: list[str | None] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    on_list: Callable[[], object] = lambda: None
    account: str = BOT
    url: str = ""
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def environment(self, run: int = 50, **more: str) -> dict[str, str]:
        known = {"GITHUB_ACTIONS": "true", "GITHUB_API_URL": self.url, "GITHUB_REPOSITORY": REPOSITORY, "GITHUB_TOKEN": TOKEN}
        return known | {"GITHUB_RUN_ID": str(run)} | more

    def add_comment(self, author: str, body: str) -> dict[str, Any]:
        """A comment on pull request 7, by anybody."""
        with self._lock:
            number = 1000 + len(self.requests) + len(self.comments)
            self.comments.append({"id": number, "user": {"login": author}, "body": body, "author": {"username": author}})
            return self.comments[-1]

    def add_issue(self, author: str, body: str, **more: Any) -> dict[str, Any]:
        """An issue, by anybody."""
        with self._lock:
            known = {"user": {"login": author}, "body": body, "state": "open", "labels": [], "comments": []}
            self.issues.append({"number": len(self.issues) + 20} | known | more)
            return self.issues[-1]

    def add_artifact(self, name: str, files: Mapping[str, bytes] | bytes, *, run: int, **more: Any) -> int:
        """An artefact that a run has left: files, or an archive as it is."""
        number, details = 500 + len(self.artifacts), self.runs[run]
        where = {"id": run, "repository_id": REPOSITORY_ID, "head_repository_id": details["from"], "head_sha": details["head_sha"]}
        self.artifacts.append({"id": number, "name": name, "expired": False, "workflow_run": where} | more)
        self.archives[number] = files if isinstance(files, bytes) else zipped(files)
        return number

    def ours(self) -> list[dict[str, Any]]:
        """The comments that bear a marker, by whomever."""
        return [comment for comment in self.comments if comment["body"].startswith("<!-- orthanc-stack:")]

    def count(self, pattern: str) -> int:
        """How many requests fit a pattern of method and path."""
        return sum(re.match(pattern, request) is not None for request in self.requests)

    def answer(self, asked: Request) -> Answer:
        parts = urlsplit(asked.path)
        if parts.path.startswith("/storage/"):
            self.storage_tokens.append(asked.headers.get("Authorization"))
            return Answer(body=self.archives[int(parts.path.rpartition("/")[2])])
        with self._lock:
            self.requests.append(f"{asked.method} {parts.path}")
            fault = next((fault for fault in self.faults if re.match(fault.request, self.requests[-1])), None)
            if fault:
                self.faults.remove(fault)
        if fault and not fault.done:
            return _answer(fault.status, {"message": "a fault"}, fault.headers)
        if TOKEN not in (asked.headers.get("Authorization", "").removeprefix("Bearer "), asked.headers.get("PRIVATE-TOKEN")):
            return _answer(401, {"message": "Bad credentials"})
        query, path = dict(parse_qsl(parts.query)), parts.path.removeprefix(f"/repos/{REPOSITORY}").removeprefix("/projects/11")
        with self._lock:
            status, found = self._carry_out(asked.method, path, query, json.loads(asked.body or b"{}"))
        if asked.method == "GET" and parts.path.endswith(("/comments", "/notes")):
            self.on_list()
        if fault:
            return _answer(fault.status, {"message": "a fault"}, fault.headers)
        if isinstance(found, (list, tuple)):
            return self._page(parts.path, query, found)
        return _answer(status, found, {"Location": found["location"]} if status == 302 else {})

    def _carry_out(self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any]) -> tuple[int, Any]:
        if len(str(body.get("body", ""))) > MOST_CHARACTERS:
            return 422, {"message": "Validation Failed", "errors": [TOO_LONG]}
        if path in ("/issues/7/comments", "/merge_requests/7/notes"):
            return (200, list(self.comments)) if method == "GET" else (201, self.add_comment(self.account, str(body["body"])))
        if match := re.fullmatch(r"(?:/issues/comments|/merge_requests/7/notes)/(\d+)", path):
            found = next((comment for comment in self.comments if comment["id"] == int(match[1])), None)
            if found is None:
                return 404, {"message": "Not Found"}
            if method == "DELETE":
                self.comments.remove(found)
                return 204, None
            found["body"] = body["body"]
            return 200, found
        return self._issue(method, path, query, body) if path.startswith("/issues") else self._look_up(path, query)

    def _issue(self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any]) -> tuple[int, Any]:
        if path == "/issues" and method == "POST":
            labels = [{"name": name} for name in body["labels"]]
            return 201, self.add_issue(self.account, body["body"], title=body["title"], labels=labels)
        if path == "/issues":
            fitting = [issue for issue in self.issues if issue["state"] == query["state"] and {"name": query["labels"]} in issue["labels"]]
            return 200, fitting[::-1]
        issue = next(issue for issue in self.issues if issue["number"] == int(path.split("/")[2]))
        if path.endswith("/comments"):
            issue["comments"].append(body["body"])
            return 201, {"id": 1}
        issue.update(body)
        return 200, issue

    def _look_up(self, path: str, query: Mapping[str, str]) -> tuple[int, Any]:
        if path == "/user":
            return 200, {"login": self.account, "username": self.account}
        if path == "/pulls":
            opened = [pull for pull in self.pulls if pull["state"] == "open"]
            return 200, [pull for pull in opened if f"{pull['head']['user']}:{pull['head']['ref']}" == query["head"]]
        if match := re.fullmatch(r"/commits/(\w+)/pulls", path):
            return 200, [pull for pull in self.pulls if pull.get("merge_commit_sha") == match[1]]
        if match := re.fullmatch(r"/commits/(.+)", path):
            return 200, {"sha": self.tips[unquote(match[1])]}
        if path == "/actions/artifacts":
            return 200, ("artifacts", [found for found in self.artifacts if found["name"] == query["name"]])
        if match := re.fullmatch(r"/actions/runs/(\d+)/artifacts", path):
            return 200, ("artifacts", [found for found in self.artifacts if found["workflow_run"]["id"] == int(match[1])])
        if match := re.fullmatch(r"/actions/runs/(\d+)", path):
            return 200, self.runs[int(match[1])]
        if match := re.fullmatch(r"/actions/artifacts/(\d+)/zip", path):
            # Another host: localhost is not 127.0.0.1.
            return 302, {"location": f"{self.url.replace('127.0.0.1', 'localhost')}/storage/{match[1]}"}
        raise AssertionError(f"{path} is not served")

    def _page(self, path: str, query: Mapping[str, str], items: Any) -> Answer:
        key, listed = items if isinstance(items, tuple) else ("", items)
        size, page = min(int(query.get("per_page", 30)), 100), int(query.get("page", 1))
        headers = {}
        if page * size < len(listed):
            links = {"next": page + 1, "last": -(-len(listed) // size)}
            addresses = {rel: urlencode({**query, "page": number}) for rel, number in links.items()}
            headers["Link"] = ", ".join(f'<{self.url}{path}?{address}>; rel="{rel}"' for rel, address in addresses.items())
        shown = listed[(page - 1) * size : page * size]
        return _answer(200, {"total_count": len(listed), key: shown} if key else shown, headers)


def _answer(status: int, said: Any, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, b"" if said is None else json.dumps(said).encode(), headers or {})


def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Forge]:
    """What a fixture yields: a forge that is reached without a proxy, and whose client makes no pauses."""
    forge = Forge()
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    monkeypatch.setattr(Api, "pause", lambda _, seconds: forge.pauses.append(seconds))
    with serving(forge.answer) as forge.url:
        yield forge
