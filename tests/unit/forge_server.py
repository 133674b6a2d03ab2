"""GitHub's API on loopback, as far as the pipeline's commands use it: comments, issues, artefacts, pages, faults. And GitLab's notes.

What it answers follows GitHub's documentation: 30 items a page and 100 at most, the way on in a Link header, 422 for a text that is too
long, 302 to another host for an artefact's archive.
"""

from __future__ import annotations

import json
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.unit.archives import zipped

TOKEN = "ghs_tokenThatIsInNoLog"
BOT = "github-actions[bot]"
REPOSITORY = "clinic/stacks"
REPOSITORY_ID = 11
MOST_CHARACTERS = 65_536


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
    """What the server holds, and what it was asked."""

    comments: list[dict[str, Any]] = field(default_factory=list)
    issues: list[dict[str, Any]] = field(default_factory=list)
    pulls: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    archives: dict[int, bytes] = field(default_factory=dict)
    runs: dict[int, dict[str, Any]] = field(default_factory=dict)
    tips: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    #: The Authorization header of what came to the host that keeps the archives.
    storage_tokens: list[str | None] = field(default_factory=list)
    #: Called before a list of comments is answered.
    before_list: Callable[[], object] = lambda: None
    #: Who the token belongs to.
    account: str = BOT
    url: str = ""
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def add_comment(self, author: str, body: str) -> dict[str, Any]:
        """A comment on pull request 7, by anybody."""
        with self._lock:
            comment = {
                "id": 1000 + len(self.requests) + len(self.comments),
                "user": {"login": author},
                "body": body,
                "author": {"username": author},
            }
            self.comments.append(comment)
            return comment

    def add_issue(self, author: str, body: str, **more: Any) -> dict[str, Any]:
        """An issue, by anybody."""
        with self._lock:
            issue = {
                "number": len(self.issues) + 20,
                "user": {"login": author},
                "body": body,
                "state": "open",
                "labels": [],
                "comments": [],
            } | more
            self.issues.append(issue)
            return issue

    def add_artifact(self, name: str, files: Mapping[str, bytes], *, run: int, **more: Any) -> int:
        """An artefact that a run has left."""
        number = 500 + len(self.artifacts)
        details = self.runs[run]
        where = {"id": run, "repository_id": REPOSITORY_ID, "head_repository_id": details["from"], "head_sha": details["head_sha"]}
        self.artifacts.append({"id": number, "name": name, "expired": False, "workflow_run": where} | more)
        self.archives[number] = zipped(files)
        return number

    def ours(self, start: str = "<!-- orthanc-stack:") -> list[dict[str, Any]]:
        """The comments that bear a marker, by whomever."""
        return [comment for comment in self.comments if comment["body"].startswith(start)]

    def count(self, pattern: str) -> int:
        """How many requests fit a pattern of method and path."""
        return sum(re.match(pattern, request) is not None for request in self.requests)


@contextmanager
def running(forge: Forge) -> Iterator[Forge]:
    """The server, while the block runs."""

    class Handler(_Handler):
        pass

    Handler.forge = forge
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    forge.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield forge
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    forge: Forge
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing: requests are kept by the forge."""

    def _any(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.loads(content) if content else {}
        if parts.path.startswith("/storage/"):
            self.forge.storage_tokens.append(self.headers.get("Authorization"))
            self._send(200, self.forge.archives[int(parts.path.rpartition("/")[2])])
            return
        with self.forge._lock:
            self.forge.requests.append(f"{self.command} {parts.path}")
            fault = self._fault(f"{self.command} {parts.path}")
        if fault and not fault.done:
            self._send(fault.status, {"message": "a fault"}, fault.headers)
            return
        if TOKEN not in (self.headers.get("Authorization", "").removeprefix("Bearer "), self.headers.get("PRIVATE-TOKEN")):
            self._send(401, {"message": "Bad credentials"})
            return
        if self.command == "GET" and parts.path.endswith(("/comments", "/notes")):
            self.forge.before_list()
        with self.forge._lock:
            status, answer = self._answer(parts.path, query, body)
        if fault:
            self._send(fault.status, {"message": "a fault"}, fault.headers)
        elif isinstance(answer, (list, tuple)) and self.command == "GET":
            self._page(parts.path, query, answer)
        else:
            self._send(status, answer)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _any  # noqa: N815

    def _fault(self, request: str) -> Fault | None:
        for fault in self.forge.faults:
            if re.match(fault.request, request):
                self.forge.faults.remove(fault)
                return fault
        return None

    def _answer(self, path: str, query: Mapping[str, str], body: Mapping[str, Any]) -> tuple[int, Any]:
        forge, command = self.forge, self.command
        path = path.removeprefix(f"/repos/{REPOSITORY}").removeprefix("/projects/11")
        if len(str(body.get("body", ""))) > MOST_CHARACTERS:
            said = {
                "resource": "IssueComment",
                "code": "custom",
                "field": "body",
                "message": "body is too long (maximum is 65536 characters)",
            }
            return 422, {"message": "Validation Failed", "errors": [said]}
        if path in ("/issues/7/comments", "/merge_requests/7/notes"):
            return (200, list(forge.comments)) if command == "GET" else (201, forge.add_comment(forge.account, str(body["body"])))
        if match := re.fullmatch(r"(?:/issues/comments|/merge_requests/7/notes)/(\d+)", path):
            return self._change_comment(int(match[1]), body)
        if path.startswith("/issues"):
            return self._issue(path, query, body)
        return 200, self._look_up(path, query)

    def _change_comment(self, number: int, body: Mapping[str, Any]) -> tuple[int, Any]:
        found = [comment for comment in self.forge.comments if comment["id"] == number]
        if not found:
            return 404, {"message": "Not Found"}
        if self.command == "DELETE":
            self.forge.comments.remove(found[0])
            return 204, None
        found[0]["body"] = body["body"]
        return 200, found[0]

    def _issue(self, path: str, query: Mapping[str, str], body: Mapping[str, Any]) -> tuple[int, Any]:
        forge = self.forge
        if path == "/issues" and self.command == "POST":
            return 201, forge.add_issue(
                forge.account, body["body"], title=body["title"], labels=[{"name": name} for name in body["labels"]]
            )
        if path == "/issues":
            label, state = query["labels"], query["state"]
            fitting = [i for i in forge.issues if i["state"] == state and label in [named["name"] for named in i["labels"]]]
            return 200, fitting[::-1]
        issue = next(i for i in forge.issues if i["number"] == int(path.split("/")[2]))
        if path.endswith("/comments"):
            issue["comments"].append(body["body"])
            return 201, {"id": 1}
        issue.update(body)
        return 200, issue

    def _look_up(self, path: str, query: Mapping[str, str]) -> Any:
        forge = self.forge
        if path == "/user":
            return {"login": forge.account, "username": forge.account}
        if path == "/pulls":
            return [
                pull for pull in forge.pulls if f"{pull['head']['user']}:{pull['head']['ref']}" == query["head"] and pull["state"] == "open"
            ]
        if match := re.fullmatch(r"/commits/(\w+)/pulls", path):
            return [pull for pull in forge.pulls if pull.get("merge_commit_sha") == match[1]]
        if match := re.fullmatch(r"/commits/(.+)", path):
            return {"sha": forge.tips[urllib.parse.unquote(match[1])]}
        if path == "/actions/artifacts":
            return ("artifacts", [found for found in forge.artifacts if found["name"] == query["name"]])
        if match := re.fullmatch(r"/actions/runs/(\d+)/artifacts", path):
            return ("artifacts", [found for found in forge.artifacts if found["workflow_run"]["id"] == int(match[1])])
        if match := re.fullmatch(r"/actions/runs/(\d+)", path):
            return forge.runs[int(match[1])]
        if match := re.fullmatch(r"/actions/artifacts/(\d+)/zip", path):
            # Another host: localhost is not 127.0.0.1.
            return {"location": f"{forge.url.replace('127.0.0.1', 'localhost')}/storage/{match[1]}"}
        raise AssertionError(f"{self.command} {path} is not served")

    def _page(self, path: str, query: Mapping[str, str], items: Any) -> None:
        key, listed = items if isinstance(items, tuple) else ("", items)
        size, page = min(int(query.get("per_page", 30)), 100), int(query.get("page", 1))
        headers = {}
        if page * size < len(listed):
            links = {"next": page + 1, "last": -(-len(listed) // size)}
            addresses = {rel: urllib.parse.urlencode({**query, "page": number}) for rel, number in links.items()}
            headers["Link"] = ", ".join(f'<{self.forge.url}{path}?{address}>; rel="{rel}"' for rel, address in addresses.items())
        shown = listed[(page - 1) * size : page * size]
        self._send(200, {"total_count": len(listed), key: shown} if key else shown, headers)

    def _send(self, status: int, answer: Any, headers: Mapping[str, str] | None = None) -> None:
        more = dict(headers or {})
        if isinstance(answer, dict) and "location" in answer:
            status, more["Location"] = 302, answer["location"]
        content = answer if isinstance(answer, bytes) else b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {**more, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
