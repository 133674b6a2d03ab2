"""`make verify` against canned answers of a small web server: each check passes when it should and fails when it should."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from ops.setup.console import SetupError
from ops.stack import probes
from ops.stack import verify as verification
from ops.stack.containers import Docker
from ops.stack.verify import Result, report, verify
from tests.unit.servers import Answer, Request, serving

PREFIX = "orthanc-stack-dev"
PASSWORD = "Geheim1234567"
POSTGRESQL = "/usr/share/orthanc/plugins/libOrthancPostgreSQLIndex.so"
WELL = "Up 1 minute (healthy)"
LOGIN_FORM = Answer(body=b'<select name="auth[driver]">')
ROLES = {"server": "node", "client": "node", "client-forwarder": "forwarder"}


@dataclass
class Canned:
    """Two nodes, the index database and Adminer, as one server answers for them; tests change what is wrong."""

    url: str = ""
    plugins: dict[str, str | None] = field(default_factory=lambda: {"server": POSTGRESQL, "client": None})
    instances: list[int] = field(default_factory=lambda: [7])
    rows: str = "7\n"
    echo_status: dict[str, int] = field(default_factory=dict)
    open_to_anyone: bool = False
    password: str = PASSWORD
    adminer: Answer = LOGIN_FORM
    statuses: dict[str, str] = field(
        default_factory=lambda: {
            **dict.fromkeys(("server", "client", "client-forwarder", "db", "adminer"), WELL),
            "db-roles": "Exited (0) 1 minute ago",
        }
    )
    node_answers: list[bool] = field(default_factory=lambda: [False, True])
    echoes: list[str] = field(default_factory=list)
    commands: list[list[str]] = field(default_factory=list)

    def answer(self, asked: Request) -> Answer:
        if asked.path == "/adminer":
            return self.adminer
        login = base64.b64encode(f"orthanc:{self.password}".encode()).decode()
        if not self.open_to_anyone and asked.headers.get("Authorization") != f"Basic {login}":
            return Answer(401)
        _, node, rest = asked.path.split("/", 2)
        if rest == "system":
            return Answer(body=json.dumps({"DatabaseBackendPlugin": self.plugins[node]}).encode())
        if rest == "statistics":
            return Answer(body=json.dumps({"CountInstances": _next(self.instances)}).encode())
        self.echoes.append(asked.path)
        status = self.echo_status.get(node, 200)
        return Answer(status, b"{}" if status == 200 else b'{"Details": "Peer aborted Association"}')

    def docker(self, arguments: Sequence[str]) -> str:
        self.commands.append(list(arguments))
        if arguments[0] == "ps":
            return "\n".join(self._line(name, status) for name, status in self.statuses.items() if status)
        if arguments[-1] == "status":
            links = [{"to": "server", "waiting": 1, "inFlight": 2, "setAside": 0}]
            return json.dumps({"nodeAnswers": _next(self.node_answers), "links": links})
        return self.rows

    @staticmethod
    def _line(name: str, status: str) -> str:
        state = "exited" if status.startswith("Exited") else "running"
        labels = f"orthanc-stack.role={ROLES.get(name, name)}"
        return json.dumps({"Names": f"{PREFIX}-{name}", "ID": name, "Labels": labels, "State": state, "Status": status})

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

    def failed(self, outputs: dict[str, Any] | None = None, docker: Docker | None = None, **more: float) -> dict[tuple[str, str], str]:
        """What each check that fails says."""
        results = verify(outputs or self.outputs(), PREFIX, docker or self.docker, **more)
        return {(result.what, result.check): result.detail for result in results if not result.ok}


def _next(answers: list[Any]) -> Any:
    """The next of some answers; the last one for ever."""
    return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture
def canned(monkeypatch: pytest.MonkeyPatch) -> Iterator[Canned]:
    """A stack that is well. What fails is not tried again, and nobody sleeps."""
    monkeypatch.setattr(verification, "_AGAIN_SECONDS", 0)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    stack = Canned()
    with serving(stack.answer) as stack.url:
        yield stack


def test_a_stack_that_is_well_passes_every_check(canned: Canned) -> None:
    results = verify(canned.outputs(), PREFIX, canned.docker)
    assert [result for result in results if not result.ok] == []
    containers = ["adminer", "client", "client-forwarder", "db", "db-roles", "server"]
    assert [(result.what, result.check) for result in results] == [
        *((f"{PREFIX}-{container}", "container") for container in containers),
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
    # The rows are counted in the node's own database.
    command = next(command for command in canned.commands if "psql" in command)
    assert command[:4] == ["exec", "--user", "postgres", f"{PREFIX}-db"]
    assert command[command.index("-d") + 1] == "orthanc_server"
    assert command[command.index("-h") + 1] == "/var/run/postgresql"


def test_a_node_whose_database_was_just_replaced_is_asked_again(canned: Canned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "_AGAIN_SECONDS", 5)
    monkeypatch.setattr(time, "sleep", lambda _: canned.echo_status.clear())
    canned.echo_status, canned.node_answers = {"client": 503}, [True]
    assert canned.failed() == {}


def test_a_forwarder_that_cannot_reach_its_node_fails(canned: Canned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_FORWARDER_SECONDS", 0)
    canned.node_answers = [False]
    assert f"docker logs --tail 30 {PREFIX}-client-forwarder" in canned.failed()["client", "forwarder"]


def test_a_link_is_tried_from_both_ends_and_one_to_a_modality_is_not_this_stacks_to_check(canned: Canned) -> None:
    outputs = canned.outputs()
    outputs["nodes"]["client"]["forwardTo"] = ["pacs", "server"]
    assert canned.failed(outputs) == {}
    assert sorted(canned.echoes) == ["/client/modalities/server/echo", "/server/modalities/client/echo"]


@pytest.mark.parametrize(
    ("wrong", "part", "check", "reason"),
    [
        ({"password": "Another1234567"}, "server", "login of orthanc", "401 instead of 200"),
        ({"open_to_anyone": True}, "client", "login of orthanc", "open to anyone"),
        ({"echo_status": {"server": 500}}, "server", "C-ECHO to client", "CLIENT failed (500): Peer aborted Association"),
        ({"echo_status": {"client": 404}}, "client", "C-ECHO to server", "does not know server"),
        ({"plugins": {"server": None, "client": None}}, "server", "index", "is in SQLite"),
        ({"plugins": {"server": POSTGRESQL, "client": POSTGRESQL}}, "client", "index", "should be SQLite"),
        ({"rows": "3\n"}, "server", "index", "holds 3 instances, the node says 7"),
        ({"rows": "no number"}, "server", "index", "an answer that was not expected: ValueError"),
        ({"adminer": Answer(500, b"Fatal error")}, "adminer", "web page", "answers 500"),
        ({"adminer": Answer(200, b"It works!")}, "adminer", "web page", "login form"),
        ({"statuses": {"client": "Up 1 minute (unhealthy)"}}, f"{PREFIX}-client", "container", f"docker logs --tail 30 {PREFIX}-client"),
        ({"statuses": {"client-forwarder": "Up 1 minute (unhealthy)"}}, f"{PREFIX}-client-forwarder", "container", "unhealthy"),
        ({"statuses": {"db": "Exited (0) 1 minute ago"}}, f"{PREFIX}-db", "container", "Exited (0)"),
        ({"statuses": {"db-roles": "Exited (1) 1 minute ago"}}, f"{PREFIX}-db-roles", "container", "Exited (1)"),
        ({"statuses": {"adminer": ""}}, f"{PREFIX}-adminer", "container", "there is none"),
    ],
)
def test_what_is_wrong_fails_its_check_with_a_reason(canned: Canned, wrong: dict[str, Any], part: str, check: str, reason: str) -> None:
    for name, value in wrong.items():
        if isinstance(value, dict):
            getattr(canned, name).update(value)
        else:
            setattr(canned, name, value)
    results = verify(canned.outputs(), PREFIX, canned.docker)
    assert [
        result.detail for result in results if reason in result.detail and (result.what, result.check, result.ok) == (part, check, False)
    ]
    text, status = report(results)
    assert status == 1
    assert "FAILED" in text
    assert PASSWORD not in text


def test_an_image_that_arrives_meanwhile_is_no_failure(canned: Canned) -> None:
    canned.instances = [5, 6, 6, 7, 7]
    assert canned.failed() == {}


def test_a_node_that_does_not_answer_is_a_failed_check(canned: Canned) -> None:
    outputs = canned.outputs()
    outputs["nodes"]["server"]["httpUrl"] = "http://127.0.0.1:1"
    assert "no answer from http://127.0.0.1:1/system" in canned.failed(outputs)["server", "login of orthanc"]


def test_an_engine_that_refuses_is_a_failed_check(canned: Canned) -> None:
    def docker(arguments: Sequence[str]) -> str:
        if arguments[0] == "exec":
            raise SetupError("`docker exec` failed: no such database")
        return canned.docker(arguments)

    assert "no such database" in canned.failed(docker=docker)["server", "index"]


def test_a_stack_without_database_adminer_and_links_needs_neither(canned: Canned) -> None:
    outputs = canned.outputs() | {"indexDb": None, "adminerUrl": None}
    outputs["nodes"]["client"]["forwardTo"] = []
    canned.statuses = {"server": WELL, "client": WELL}
    results = verify(outputs, PREFIX, canned.docker)
    assert all(result.ok for result in results)
    assert {result.what for result in results} == {"server", "client", f"{PREFIX}-server", f"{PREFIX}-client"}


def test_containers_that_start_are_waited_for_and_not_for_ever(canned: Canned, monkeypatch: pytest.MonkeyPatch) -> None:
    canned.statuses["server"] = "Up 1 second (health: starting)"
    assert "health: starting" in canned.failed(wait_seconds=0)[f"{PREFIX}-server", "container"]
    monkeypatch.setattr(time, "sleep", lambda _: canned.statuses.update(server=WELL))
    canned.commands.clear()
    assert canned.failed() == {}
    assert [command[0] for command in canned.commands].count("ps") == 2


def test_the_table_says_what_became_of_each_check() -> None:
    good, bad = Result("server", "index", True, "fine"), Result("adminer", "web page", False, "no answer")
    text, status = report([good, bad])
    assert status == 1
    assert [line.split() for line in text.splitlines() if "adminer" in line] == [["adminer", "web", "page", "FAILED", "no", "answer"]]
    assert "1 of 2 checks FAILED" in text
    text, status = report([good])
    assert status == 0
    assert "1 checks, all ok" in text
