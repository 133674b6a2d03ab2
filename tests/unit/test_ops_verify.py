"""`verify` against canned answers of a small web server: each check passes when it should and fails when it should."""

import base64
import dataclasses
import io
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from rich.cells import cell_len

from configs.held import Held
from ops.setup.console import SetupError
from ops.stack import terminal
from ops.stack import verify as verification
from ops.stack.engine import Container
from ops.stack.forwarding import summary
from ops.stack.terminal import NOT_WELL
from ops.stack.verify import Result, report, verify
from tests.unit.containers import HEALTHY, PREFIX, STOPPED, container, in_state
from tests.unit.servers import Answer, Request, serving

PASSWORD = "Geheim1234567"
POSTGRESQL = "/usr/share/orthanc/plugins/libOrthancPostgreSQLIndex.so"
LOGIN_FORM = Answer(body=b'<select name="auth[driver]">')
UNHEALTHY = {"state": "running", "health": "unhealthy"}
ROLES = {"server": "node", "client": "node", "client-forwarder": "forwarder"}


@dataclass
class Canned:
    """Two nodes, the index database and Adminer, as one server answers for them; tests change what is wrong."""

    url: str = ""
    plugins: dict[str, str | None] = field(default_factory=lambda: {"server": POSTGRESQL, "client": None})
    changes: list[int] = field(default_factory=lambda: [7])
    in_database: str = "7\n"
    echo_status: dict[str, int] = field(default_factory=dict)
    open_to_anyone: bool = False
    password: str = PASSWORD
    adminer: Answer = LOGIN_FORM
    deployed: tuple[str, ...] = ("adminer", "client", "client-forwarder", "db", "db-roles", "server")
    states: dict[str, dict[str, Any]] = field(default_factory=lambda: {"db-roles": STOPPED})
    node_answers: list[bool] = field(default_factory=lambda: [True])
    echoes: list[str] = field(default_factory=list)
    commands: list[tuple[str, list[str]]] = field(default_factory=list)
    looks: int = 0

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
            return Answer(body=b'{"CountInstances": 5}')
        if rest == "changes?last":
            return Answer(body=json.dumps({"Last": _next(self.changes)}).encode())
        self.echoes.append(asked.path)
        status = self.echo_status.get(node, 200)
        return Answer(status, b"{}" if status == 200 else b'{"Details": "Peer aborted Association"}')

    def containers(self, *_: object) -> list[Container]:
        """What the engine holds of the stack."""
        self.looks += 1
        found = {part: self.states.get(part, HEALTHY) for part in self.deployed}
        return [self._container(part, how) for part, how in found.items() if how]

    def _container(self, part: str, how: dict[str, Any]) -> Container:
        plain = container(part, ROLES.get(part, part), **how)
        return Answering(**{**vars(plain), "handle": self})

    @property
    def resources(self) -> list[Any]:
        """What the state holds of the stack."""
        return [in_state(part, ROLES.get(part, part)) for part in self.deployed]

    prefix, name = PREFIX, "dev"
    unfinished: list[str] = field(default_factory=list)

    def held(self) -> Held:
        """What the state holds, as far as it is asked for here."""
        return Held()

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

    def results(self, outputs: dict[str, Any] | None = None, **more: float) -> list[Result]:
        stack: Any = self
        return verify(stack, outputs or self.outputs(), **more)

    def failed(self, outputs: dict[str, Any] | None = None, **more: float) -> dict[tuple[str, str], str]:
        """What each check that fails says."""
        return {(one.what, one.check): one.detail for one in self.results(outputs, **more) if one.outcome == "FAILED"}


class Answering(Container):
    """A container in which commands are answered by the canned stack, which stands for its handle."""

    def run(self, command: Sequence[str]) -> str:
        canned: Any = self.handle
        canned.commands.append((self.name, list(command)))
        if command[-1] == "status":
            links = [{"to": "server", "waiting": 1, "inFlight": 2, "setAside": 0}]
            return json.dumps({"nodeAnswers": _next(canned.node_answers), "links": links})
        if canned.in_database == "refused":
            raise SetupError("`psql` ended with status 2: no such database")
        return str(canned.in_database)


def _next(answers: list[Any]) -> Any:
    """The next of some answers; the last one for ever."""
    return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture
def canned(monkeypatch: pytest.MonkeyPatch) -> Iterator[Canned]:
    """A stack that is well. What fails is not tried again, and nobody sleeps."""
    monkeypatch.setattr(verification, "_AGAIN_SECONDS", 0)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    stack = Canned()
    monkeypatch.setattr(verification, "containers_of", stack.containers)
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    with serving(stack.answer) as stack.url:
        yield stack


def test_a_stack_that_is_well_passes_every_check(canned: Canned) -> None:
    results = canned.results()
    assert [result for result in results if result.outcome != "ok"] == []
    assert [(result.what, result.check) for result in results] == [
        *((f"{PREFIX}-{container}", "container") for container in canned.deployed),
        ("client", "login of orthanc"),
        ("server", "login of orthanc"),
        ("client", "C-ECHO to server"),
        ("server", "C-ECHO to client"),
        ("client", "index"),
        ("server", "index"),
        ("client", "forwarder"),
        ("adminer", "web page"),
    ]
    assert next(result for result in results if result.check == "forwarder").detail == "to server: 3 on their way"
    # The node's own database is asked.
    where, command = next((where, command) for where, command in canned.commands if "psql" in command)
    assert where == f"{PREFIX}-db"
    assert command[command.index("-d") + 1] == "orthanc_server"
    assert command[command.index("-h") + 1] == "/var/run/postgresql"


def test_a_node_whose_database_was_just_replaced_and_a_forwarder_that_just_started_are_asked_again(
    canned: Canned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "_AGAIN_SECONDS", 5)
    monkeypatch.setattr(time, "sleep", lambda _: canned.echo_status.clear())
    canned.echo_status, canned.node_answers = {"client": 503}, [False, True]
    assert canned.failed() == {}


def test_a_forwarder_that_cannot_reach_its_node_fails(canned: Canned) -> None:
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
        ({"in_database": "3\n"}, "server", "index", "ends at change 3, the node at 7"),
        ({"in_database": "refused"}, "server", "index", "no such database"),
        ({"in_database": "no number"}, "server", "index", "an answer that was not expected: ValueError"),
        ({"adminer": Answer(500, b"Fatal error")}, "adminer", "web page", "answers 500"),
        ({"adminer": Answer(200, b"It works!")}, "adminer", "web page", "login form"),
        ({"states": {"client": UNHEALTHY}}, f"{PREFIX}-client", "container", f"docker logs --tail 30 {PREFIX}-client"),
        ({"states": {"client-forwarder": UNHEALTHY}}, f"{PREFIX}-client-forwarder", "container", "unhealthy"),
        ({"states": {"db": STOPPED}}, f"{PREFIX}-db", "container", "exited, with exit status 0"),
        ({"states": {"db-roles": {**STOPPED, "exit_status": 1}}}, f"{PREFIX}-db-roles", "container", "with exit status 1"),
        ({"states": {"adminer": {}}}, f"{PREFIX}-adminer", "container", "there is none"),
    ],
)
def test_what_is_wrong_fails_its_check_with_a_reason(canned: Canned, wrong: dict[str, Any], part: str, check: str, reason: str) -> None:
    for name, value in wrong.items():
        if isinstance(value, dict):
            getattr(canned, name).update(value)
        else:
            setattr(canned, name, value)
    results = canned.results()
    found = [result.detail for result in results if (result.what, result.check, result.outcome) == (part, check, "FAILED")]
    assert any(reason in detail for detail in found), found
    assert report(results) == NOT_WELL
    assert not any(PASSWORD in result.detail for result in results)


def test_images_that_arrive_and_go_meanwhile_are_no_failure(canned: Canned) -> None:
    for changes in ([1000, 1400], [1400, 1000]):
        canned.changes, canned.in_database = changes, "1250\n"
        assert canned.failed() == {}


def test_what_an_earlier_run_left_is_the_first_line(canned: Canned) -> None:
    canned.unfinished = ["server-container"]
    assert canned.results()[0].detail == "ended, or is at work, while it changes server-container: `./orthanc-stack up dev` puts that right"
    assert canned.results()[0].outcome == "FAILED"


def test_a_node_that_does_not_answer_is_a_failed_check(canned: Canned) -> None:
    outputs = canned.outputs()
    outputs["nodes"]["server"]["httpUrl"] = "http://127.0.0.1:1"
    assert "no answer from http://127.0.0.1:1/system" in canned.failed(outputs)["server", "login of orthanc"]


def test_a_stack_without_database_adminer_and_links_needs_neither(canned: Canned) -> None:
    outputs = canned.outputs() | {"indexDb": None, "adminerUrl": None}
    outputs["nodes"]["client"]["forwardTo"] = []
    canned.deployed = ("client", "server")
    outputs["nodes"]["server"].update(index="sqlite", indexDatabase=None)
    canned.plugins["server"] = None
    results = canned.results(outputs)
    assert all(result.outcome == "ok" for result in results)
    assert {result.what for result in results} == {"server", "client", f"{PREFIX}-server", f"{PREFIX}-client"}


def test_containers_that_start_are_waited_for_and_not_for_ever(canned: Canned, monkeypatch: pytest.MonkeyPatch) -> None:
    canned.states["server"] = {"state": "running", "health": "starting"}
    assert "is still starting" in canned.failed(wait_seconds=0)[f"{PREFIX}-server", "container"]
    monkeypatch.setattr(time, "sleep", lambda _: canned.states.pop("server", None))
    canned.looks = 0
    assert canned.failed() == {}
    assert canned.looks == 2


def test_the_loopback_of_another_machine_is_not_asked_on_this_one(canned: Canned, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server of this test answers there, as another stack would."""
    monkeypatch.setenv("DOCKER_HOST", "ssh://ops@archive.example")
    canned.password = "Another1234567"  # so that each question would fail
    results = canned.results()
    assert {result.check for result in results if result.outcome == "ok"} == {"container", "forwarder"}
    assert "verify there" in next(result.detail for result in results if result.check == "login of orthanc")
    assert report(results) == 0


def test_the_table_says_what_became_of_each_check(capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = Result("server", "index", "ok", "fine"), Result("adminer", "web page", "FAILED", "no answer")
    assert report([good, bad]) == NOT_WELL
    text = capsys.readouterr().out
    assert [line.split() for line in text.splitlines() if "adminer" in line] == [["adminer", "web", "page", "FAILED", "no", "answer"]]
    assert "1 of 2 checks FAILED" in text
    assert report([good]) == 0
    assert "1 checks, all ok" in capsys.readouterr().out


def test_what_could_not_be_checked_is_not_said_to_be_ok(capsys: pytest.CaptureFixture[str]) -> None:
    good, away = Result("server", "index", "ok", "fine"), Result("server", "login", "not checked", "verify there")
    assert report([good, away, away]) == 0
    assert "1 checks, all ok; 2 more cannot be made from here" in capsys.readouterr().out


def test_a_stack_that_is_not_deployed_is_not_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """`secrets` has made it, or `destroy` has emptied it."""
    monkeypatch.setattr(verification, "deployed", lambda _: SimpleNamespace(held=Held))
    with pytest.raises(SetupError, match=r"no container of the stack dev is deployed. `\./orthanc-stack up dev`"):
        verification.verify_stack("dev")


def test_a_container_without_a_role_is_checked_as_any_other(canned: Canned, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = [dataclasses.replace(one, role="") for one in canned.containers() if not one.name.endswith("db-roles")]
    monkeypatch.setattr(verification, "containers_of", lambda *_: plain)
    canned.deployed = tuple(part for part in canned.deployed if part != "db-roles")
    assert canned.failed() == {}


def test_another_program_on_a_nodes_port_is_a_failed_check(canned: Canned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canned, "answer", lambda _: Answer(body=b"[]"))
    with serving(lambda _: Answer(body=b"[]")) as url:
        outputs = canned.outputs()
        outputs["nodes"]["server"]["httpUrl"] = url
        assert "an answer that was not expected: AttributeError" in canned.failed(outputs)["server", "index"]


# --- tables ---


class Terminal(io.StringIO):
    """What takes colours."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("no_color", [False, True])
def test_a_table_fits_its_terminal_and_has_the_colours_that_are_wanted(no_color: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"COLUMNS": "40", "TERM": "xterm-256color", "NO_COLOR": "1" if no_color else ""}.items():
        monkeypatch.setenv(name, value)
    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    terminal.table(("file", "why"), [("x" * 30, "断層撮影" * 6)], ["red"])
    text = out.getvalue()
    assert ("\x1b[31m" in text) is not no_color
    assert max(cell_len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in text.splitlines()) == 40


def test_a_cell_is_text_and_stays_in_its_row() -> None:
    """A file's name may hold anything: markup, what clears a terminal, what is no UTF-8."""
    shown = terminal.drawn(("file", "why"), [("[red]a[/red] :+1:", "\x1b[2J\u2028"), ("断層", "b" * 900), ("\udcff", "c")]).split("\n")
    assert shown[2] == r"  [red]a[/red] :+1:   \x1b[2J\u2028"
    assert shown[3] == f"  断層{' ' * 16}{'b' * 900}"
    assert shown[4].split() == [r"\udcff", "c"]


def test_what_is_not_delivered_and_what_a_device_lacks_are_told_with_what_waits() -> None:
    link = {"to": "pacs", "waiting": 0, "inFlight": 0, "setAside": 1, "unconfirmed": 5, "older": 2, "note": "offers none"}
    said = "to pacs: 0 on their way, 5 stored, not confirmed, 1 set aside, 2 maybe in an older version (offers none)"
    assert summary(link) == said
