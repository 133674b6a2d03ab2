"""`make verify` against canned answers of a small web server: each check passes when it should and fails when it should."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from ops import probes
from ops import verify as verification
from ops.setup.console import SetupError
from ops.verify import Result, report, verify

PREFIX = "orthanc-stack-dev"
PASSWORD = "Geheim1234567"


@dataclass
class Canned:
    """Two nodes, the index database and Adminer, as one server answers for them; tests change what is wrong."""

    url: str = ""
    system: dict[str, Any] = field(
        default_factory=lambda: {"DatabaseBackendPlugin": "/usr/share/orthanc/plugins/libOrthancPostgreSQLIndex.so"}
    )
    client_system: dict[str, Any] = field(default_factory=lambda: {"DatabaseBackendPlugin": None})
    instances: list[int] = field(default_factory=lambda: [7])
    rows: str = "7\n"
    echo_status: dict[str, int] = field(default_factory=dict)
    open_to_anyone: bool = False
    password: str = PASSWORD
    adminer: tuple[int, str] = (200, '<select name="auth[driver]">')
    containers: dict[str, tuple[str, str, str]] = field(
        default_factory=lambda: {
            "server": ("node", "running", "Up 1 minute (healthy)"),
            "client": ("node", "running", "Up 1 minute (healthy)"),
            "client-forwarder": ("forwarder", "running", "Up 1 minute (healthy)"),
            "db": ("db", "running", "Up 1 minute (healthy)"),
            "db-roles": ("db-roles", "exited", "Exited (0) 1 minute ago"),
            "adminer": ("adminer", "running", "Up 1 minute (healthy)"),
        }
    )
    node_answers: list[bool] = field(default_factory=lambda: [False, True])
    echoes: list[str] = field(default_factory=list)
    commands: list[list[str]] = field(default_factory=list)

    def answer(self, path: str, login: str | None) -> tuple[int, str]:
        if path == "/adminer":
            return self.adminer
        if not self.open_to_anyone and login != f"orthanc:{self.password}":
            return 401, "{}"
        _, node, rest = path.split("/", 2)
        if rest == "system":
            return 200, json.dumps(self.system if node == "server" else self.client_system)
        if rest == "statistics":
            return 200, json.dumps({"CountInstances": self.instances.pop(0) if len(self.instances) > 1 else self.instances[0]})
        self.echoes.append(path)
        status = self.echo_status.get(node, 200)
        return status, "{}" if status == 200 else json.dumps({"Details": "Peer aborted Association"})

    def docker(self, arguments: Sequence[str]) -> str:
        self.commands.append(list(arguments))
        if arguments[0] == "ps":
            return "\n".join(self._line(name, *what) for name, what in self.containers.items())
        if arguments[-1] == "status":
            answers = self.node_answers.pop(0) if len(self.node_answers) > 1 else self.node_answers[0]
            return json.dumps({"nodeAnswers": answers, "links": [{"to": "server", "waiting": 1, "inFlight": 2, "setAside": 0}]})
        return self.rows

    def outputs(self) -> dict[str, Any]:
        def node(name: str, **more: Any) -> dict[str, Any]:
            return {"aet": name.upper(), "dicomHost": "127.0.0.1", "dicomPort": 1, "httpUrl": f"{self.url}/{name}/", **more}

        return {
            "nodes": {
                "server": node("server", forwardTo=[], index="postgresql", indexDatabase="orthanc_server"),
                "client": node("client", forwardTo=["server"], index="sqlite", indexDatabase=None),
            },
            "users": {"server": {"orthanc": PASSWORD}, "client": {"orthanc": PASSWORD}},
            "indexDb": {"host": "db", "port": 5432, "database": "postgres"},
            "adminerUrl": f"{self.url}/adminer",
        }

    @staticmethod
    def _line(name: str, role: str, state: str, status: str) -> str:
        return json.dumps(
            {"Names": f"{PREFIX}-{name}", "ID": name, "Labels": f"orthanc-stack.role={role}", "State": state, "Status": status}
        )


@pytest.fixture
def canned() -> Iterator[Canned]:
    stack = Canned()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            scheme, _, encoded = self.headers.get("Authorization", "").partition(" ")
            login = base64.b64decode(encoded).decode() if scheme == "Basic" else None
            status, body = stack.answer(self.path, login)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stack.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield stack
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is not tried again."""
    monkeypatch.setattr(verification, "_AGAIN_SECONDS", 0)


def _failed(results: Sequence[Result]) -> dict[tuple[str, str], str]:
    return {(result.what, result.check): result.detail for result in results if not result.ok}


def test_a_stack_that_is_well_passes_every_check(canned: Canned) -> None:
    results = verify(canned.outputs(), PREFIX, canned.docker)
    assert _failed(results) == {}
    assert [(result.what, result.check) for result in results] == [
        (f"{PREFIX}-adminer", "container"),
        (f"{PREFIX}-client", "container"),
        (f"{PREFIX}-client-forwarder", "container"),
        (f"{PREFIX}-db", "container"),
        (f"{PREFIX}-db-roles", "container"),
        (f"{PREFIX}-server", "container"),
        ("client", "login of orthanc"),
        ("server", "login of orthanc"),
        ("client", "C-ECHO to server"),
        ("server", "C-ECHO to client"),
        ("client", "index"),
        ("server", "index"),
        ("client", "forwarder"),
        ("adminer", "web page"),
    ]
    assert next(result for result in results if result.check == "forwarder").detail == "to server: 3 on their way, 0 set aside"


def test_a_node_whose_database_was_just_replaced_is_asked_again(canned: Canned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "_AGAIN_SECONDS", 5)
    canned.echo_status = {"client": 503}
    monkeypatch.setattr(time, "sleep", lambda _: canned.echo_status.clear())
    assert _failed(verify(canned.outputs(), PREFIX, canned.docker)) == {}


def test_a_forwarder_that_cannot_reach_its_node_fails(canned: Canned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_FORWARDER_SECONDS", 0)
    canned.node_answers = [False]
    failed = _failed(verify(canned.outputs(), PREFIX, canned.docker))
    assert f"docker logs --tail 30 {PREFIX}-client-forwarder" in failed["client", "forwarder"]


def test_every_link_is_tried_from_both_ends(canned: Canned) -> None:
    verify(canned.outputs(), PREFIX, canned.docker)
    assert sorted(canned.echoes) == ["/client/modalities/server/echo", "/server/modalities/client/echo"]


def test_a_link_to_a_modality_is_not_this_stacks_to_check(canned: Canned) -> None:
    outputs = canned.outputs()
    outputs["nodes"]["client"]["forwardTo"] = ["pacs", "server"]
    assert _failed(verify(outputs, PREFIX, canned.docker)) == {}
    assert [path for path in canned.echoes if "pacs" in path] == []


def test_the_rows_are_counted_in_the_nodes_own_database(canned: Canned) -> None:
    verify(canned.outputs(), PREFIX, canned.docker)
    command = next(command for command in canned.commands if "psql" in command)
    assert command[:4] == ["exec", "--user", "postgres", f"{PREFIX}-db"]
    assert command[command.index("-d") + 1] == "orthanc_server"
    assert command[command.index("-h") + 1] == "/var/run/postgresql"


def _wrong_password(canned: Canned) -> None:
    canned.password = "Another1234567"


def _open(canned: Canned) -> None:
    canned.open_to_anyone = True


def _no_echo(canned: Canned) -> None:
    canned.echo_status["server"] = 500


def _unknown_peer(canned: Canned) -> None:
    canned.echo_status["client"] = 404


def _sqlite(canned: Canned) -> None:
    canned.system = {"DatabaseBackendPlugin": None}


def _unexpected_plugin(canned: Canned) -> None:
    canned.client_system = {"DatabaseBackendPlugin": "libOrthancPostgreSQLIndex.so"}


def _other_database(canned: Canned) -> None:
    canned.rows = "3\n"


def _adminer_down(canned: Canned) -> None:
    canned.adminer = (500, "Fatal error")


def _not_adminer(canned: Canned) -> None:
    canned.adminer = (200, "It works!")


def _unhealthy(canned: Canned) -> None:
    canned.containers["client"] = ("node", "running", "Up 1 minute (unhealthy)")


def _ended(canned: Canned) -> None:
    canned.containers["db"] = ("db", "exited", "Exited (0) 1 minute ago")


def _roles_failed(canned: Canned) -> None:
    canned.containers["db-roles"] = ("db-roles", "exited", "Exited (1) 1 minute ago")


def _missing(canned: Canned) -> None:
    del canned.containers["adminer"]


@pytest.mark.parametrize(
    ("breakage", "part", "check", "reason"),
    [
        (_wrong_password, "server", "login of orthanc", "401 instead of 200"),
        (_open, "client", "login of orthanc", "open to anyone"),
        (_no_echo, "server", "C-ECHO to client", "CLIENT failed (500): Peer aborted Association"),
        (_unknown_peer, "client", "C-ECHO to server", "does not know server"),
        (_sqlite, "server", "index", "is in SQLite"),
        (_unexpected_plugin, "client", "index", "should be SQLite"),
        (_other_database, "server", "index", "holds 3 instances, the node says 7"),
        (_adminer_down, "adminer", "web page", "answers 500"),
        (_not_adminer, "adminer", "web page", "login form"),
        (_unhealthy, f"{PREFIX}-client", "container", f"docker logs --tail 30 {PREFIX}-client"),
        (_ended, f"{PREFIX}-db", "container", "Exited (0)"),
        (_roles_failed, f"{PREFIX}-db-roles", "container", "Exited (1)"),
        (_missing, f"{PREFIX}-adminer", "container", "there is none"),
    ],
)
def test_what_is_wrong_fails_its_check_with_a_reason(
    canned: Canned, breakage: Callable[[Canned], None], part: str, check: str, reason: str
) -> None:
    breakage(canned)
    results = verify(canned.outputs(), PREFIX, canned.docker)
    assert reason in _failed(results)[part, check]
    text, status = report(results)
    assert status == 1
    assert "FAILED" in text
    assert PASSWORD not in text


def test_a_node_that_forwards_needs_its_forwarder(canned: Canned) -> None:
    canned.containers["client-forwarder"] = ("forwarder", "running", "Up 1 minute (unhealthy)")
    assert "unhealthy" in _failed(verify(canned.outputs(), PREFIX, canned.docker))[(f"{PREFIX}-client-forwarder", "container")]
    outputs = canned.outputs()
    outputs["nodes"]["client"]["forwardTo"] = []
    del canned.containers["client-forwarder"]
    assert _failed(verify(outputs, PREFIX, canned.docker)) == {}


def test_a_failed_check_leaves_the_others_ok(canned: Canned) -> None:
    _adminer_down(canned)
    assert set(_failed(verify(canned.outputs(), PREFIX, canned.docker))) == {("adminer", "web page")}


def test_an_image_that_arrives_meanwhile_is_no_failure(canned: Canned) -> None:
    canned.instances = [5, 6, 6, 7, 7]
    assert _failed(verify(canned.outputs(), PREFIX, canned.docker)) == {}


def test_a_node_that_does_not_answer_is_a_failed_check(canned: Canned) -> None:
    outputs = canned.outputs()
    outputs["nodes"]["server"]["httpUrl"] = "http://127.0.0.1:1"
    failed = _failed(verify(outputs, PREFIX, canned.docker))
    assert "no answer from http://127.0.0.1:1/system" in failed["server", "login of orthanc"]


def test_an_engine_that_refuses_is_a_failed_check(canned: Canned) -> None:
    def docker(arguments: Sequence[str]) -> str:
        if arguments[0] == "exec":
            raise SetupError("`docker exec` failed: no such database")
        return canned.docker(arguments)

    assert "no such database" in _failed(verify(canned.outputs(), PREFIX, docker))["server", "index"]


def test_a_stack_without_database_and_adminer_needs_neither(canned: Canned) -> None:
    outputs = {**canned.outputs(), "indexDb": None, "adminerUrl": None}
    canned.containers = {name: what for name, what in canned.containers.items() if name in ("server", "client", "client-forwarder")}
    results = verify(outputs, PREFIX, canned.docker)
    assert _failed(results) == {}
    assert {"adminer", f"{PREFIX}-db"}.isdisjoint({result.what for result in results})


def test_containers_that_start_are_waited_for(canned: Canned) -> None:
    canned.containers["server"] = ("node", "running", "Up 1 second (health: starting)")
    seen = 0

    def docker(arguments: Sequence[str]) -> str:
        nonlocal seen
        if arguments[0] == "ps":
            seen += 1
            if seen == 2:
                canned.containers["server"] = ("node", "running", "Up 2 seconds (healthy)")
        return canned.docker(arguments)

    assert _failed(verify(canned.outputs(), PREFIX, docker)) == {}
    assert seen == 2


def test_they_are_not_waited_for_for_ever(canned: Canned) -> None:
    canned.containers["server"] = ("node", "running", "Up 1 hour (health: starting)")
    failed = _failed(verify(canned.outputs(), PREFIX, canned.docker, wait_seconds=0))
    assert "health: starting" in failed[f"{PREFIX}-server", "container"]


def test_the_table_says_what_became_of_each_check() -> None:
    good, bad = Result("server", "index", True, "fine"), Result("adminer", "web page", False, "no answer")
    text, status = report([good, bad])
    assert status == 1
    assert [line.split() for line in text.splitlines() if "adminer" in line] == [["adminer", "web", "page", "FAILED", "no", "answer"]]
    assert "1 of 2 checks FAILED" in text
    assert report([good]) == (report([good])[0], 0)
    assert "1 checks, all ok" in report([good])[0]
