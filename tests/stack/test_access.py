"""Who may do what: callers by DICOM, users by HTTP, and nobody with a password that everybody knows."""

from __future__ import annotations

import dataclasses
import http.cookiejar
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom.dataset import FileDataset

from ops.table import table
from tests.stack.conftest import TRUSTED, WORKSTATION, Dev
from tests.stack.dicom import as_file, ask_to_commit, ct_series, echo, find, get, move, store, worklist
from tests.stack.forwarding import await_delivery
from tests.stack.harness import Node, adminer_login

_OPERATIONS: Mapping[str, Callable[[Node, str, FileDataset], bool]] = {
    "echo": lambda node, aet, _: echo(node, aet),
    "store": lambda node, aet, image: bool(store(node, aet, [image])),
    "find": lambda node, aet, _: find(node, aet, "*") is not None,
    "get": lambda node, aet, image: get(node, aet, str(image.StudyInstanceUID)),
    "move": lambda node, aet, image: move(node, aet, str(image.StudyInstanceUID), to=aet),
    "worklist": lambda node, aet, _: worklist(node, aet),
    "commit": ask_to_commit,
}

#: What each caller may ask of each node; nothing else.
_MAY: Mapping[tuple[str, str], frozenset[str]] = {
    ("server", "STRANGER"): frozenset(),
    ("server", WORKSTATION): frozenset({"echo", "store", "find"}),
    ("server", "ORTHANC_CLIENT"): frozenset({"echo", "store", "commit"}),
    # Neither image has the plugin that answers about worklists: nobody is served.
    ("server", TRUSTED): frozenset(_OPERATIONS) - {"worklist"},
    ("client", "STRANGER"): frozenset(),
    ("client", WORKSTATION): frozenset({"echo", "store", "find"}),
    ("client", "ORTHANC_SERVER"): frozenset({"echo"}),
    ("client", TRUSTED): frozenset(),
}


@dataclass
class Held:
    """An image that both nodes hold, and its identifiers there."""

    image: FileDataset
    instance: str
    series: str
    study: str


@pytest.fixture(scope="module")
def held(dev: Dev) -> Iterator[Held]:
    """An image of these tests' own, gone after them."""
    image = ct_series(slices=1, size=16)[0]
    instance = dev.client.post("/instances", as_file(image))
    await_delivery(dev.stack, "client", "server")
    dev.server.get(f"/instances/{instance['ID']}")
    yield Held(image, instance["ID"], instance["ParentSeries"], instance["ParentStudy"])
    await_delivery(dev.stack, "client", "server")
    for node in (dev.client, dev.server):
        node.ask(f"/studies/{instance['ParentStudy']}", method="DELETE")


class TestCallers:
    """DICOM: what is wired, and only for what it is wired."""

    def test_each_operation_by_each_caller(self, dev: Dev, held: Held, artifacts: Path) -> None:
        rows, wrong = [], []
        for (name, caller), may in _MAY.items():
            node = dev.stack.node(name)
            done = {operation: does(node, caller, held.image) for operation, does in _OPERATIONS.items()}
            rows.append((name, caller, *("served" if done[operation] else "refused" for operation in _OPERATIONS)))
            wrong += [(name, caller, operation) for operation in _OPERATIONS if done[operation] is not (operation in may)]
        (artifacts / "dimse.txt").write_text(table(("node", "caller", *_OPERATIONS), rows) + "\n")
        assert wrong == []

    @pytest.mark.parametrize("name", ["client", "server"])
    @pytest.mark.parametrize("called", ["ANY-SCP", "ORTHANC", "ORTHANC_OTHER"])
    def test_one_who_calls_another_ae_title_is_refused(self, dev: Dev, held: Held, name: str, called: str) -> None:
        node = dev.stack.node(name)
        assert echo(node, WORKSTATION)
        other = dataclasses.replace(node, aet=called)
        assert not any(does(other, WORKSTATION, held.image) for does in _OPERATIONS.values())


#: What the viewer, the uploader and the client's forwarder may ask, in this order: a letter where one may.
_REQUESTS: tuple[tuple[str, str, str], ...] = (
    ("GET", "/", "vu-"),
    ("GET", "/system", "vuf"),
    ("GET", "/app/explorer.html", "vu-"),
    ("GET", "/statistics", "v--"),
    ("GET", "/patients", "v--"),
    ("GET", "/series?since=0&limit=10", "v-f"),
    ("GET", "/studies/{study}", "v-f"),
    ("GET", "/studies/{study}/archive", "v--"),
    ("GET", "/instances/{instance}/file", "v--"),
    ("GET", "/instances/{instance}/", "v--"),
    ("GET", "/changes?last", "--f"),
    ("GET", "/modalities", "---"),
    ("GET", "/peers", "---"),
    ("GET", "/jobs", "---"),
    ("GET", "/exports", "---"),
    ("GET", "/queries", "---"),
    ("GET", "/queries/some/answers", "--f"),
    ("GET", "/storage-commitment/2.25.1", "--f"),
    ("GET", "/tools/log-level", "---"),
    ("GET", "/tools/metrics-prometheus", "---"),
    ("HEAD", "/patients", "v--"),
    ("POST", "/tools/find", "v-f"),
    ("POST", "/tools/bulk-content", "v-f"),
    ("POST", "/instances", "-u-"),
    ("POST", "/tools/log-level", "---"),
    ("POST", "/modalities/server/echo", "--f"),
    ("POST", "/modalities/server/store", "--f"),
    ("POST", "/modalities/server/query", "--f"),
    ("POST", "/modalities/server/move", "---"),
    ("POST", "/modalities/server/find-worklist", "---"),
    ("POST", "/studies/{study}/anonymize", "---"),
    ("POST", "/studies/{study}/modify", "---"),
    ("POST", "/instances/{instance}/modify", "---"),
    ("POST", "/tools/create-dicom", "---"),
    ("POST", "/tools/execute-script", "---"),
    ("POST", "/tools/reconstruct", "---"),
    ("PUT", "/modalities/server", "---"),
    ("PUT", "/peers/other", "---"),
    ("PUT", "/series/{series}/metadata/4999", "--f"),
    ("PUT", "/series/{series}/labels/seen", "---"),
    ("PUT", "/series/{series}/attachments/4999", "---"),
    ("DELETE", "/series/{series}/metadata/4999", "---"),
    ("DELETE", "/instances/{instance}", "---"),
    ("DELETE", "/studies/{study}", "---"),
    ("DELETE", "/changes", "---"),
)
#: An uploader, who sees nothing, gets nothing by these.
_TRICKS: tuple[tuple[str, str, Mapping[str, str]], ...] = (
    ("GET", "//patients", {}),
    ("GET", "/app/../patients", {}),
    ("GET", "/app/%2e%2e/patients", {}),
    ("GET", "/app%2f..%2fpatients", {}),
    ("GET", "/PATIENTS", {}),
    ("GET", "/patients/", {}),
    ("GET", "/patients?_method=DELETE", {}),
    ("GET", "/system?_method=DELETE", {}),
    ("POST", "/instances/../tools/find", {}),
    ("POST", "/instances", {"X-HTTP-Method-Override": "DELETE"}),
    ("GET", "/patients", {"X-Forwarded-User": "orthanc"}),
)


@pytest.fixture(scope="module")
def users(dev: Dev) -> dict[str, Node]:
    """The client, as each of its users sees it."""
    passwords = {user: dev.stack.secrets[f"userPassword.client.{user}"] for user in ("orthanc", "looker", "bringer")}
    passwords["forwarder"] = dev.stack.secrets["forwarderPassword.client"]
    names = {"a": "orthanc", "v": "looker", "u": "bringer", "f": "forwarder"}
    return {letter: dataclasses.replace(dev.client, login=(name, passwords[name])) for letter, name in names.items()}


class TestUsers:
    """HTTP: what a role may ask, and that Orthanc itself refuses the rest."""

    def test_each_request_by_each_role(self, users: dict[str, Node], held: Held, artifacts: Path) -> None:
        rows, wrong = [], []
        ids = dataclasses.asdict(held)
        # An admin may do all of it, and some of it would change the stack.
        others = {letter: node for letter, node in users.items() if letter != "a"}
        for method, path, may in _REQUESTS:
            told = []
            for letter, node in others.items():
                status, _ = node.ask(path.format(**ids), b"{}" if method in ("POST", "PUT") else None, method=method)
                told.append("refused" if status == 403 else "allowed")
                assert status != 401, (method, path, letter)
            wrong += [(method, path, letter) for letter, one in zip(others, told, strict=True) if (one == "allowed") is not (letter in may)]
            rows.append((method, path, *told))
        (artifacts / "roles.txt").write_text(table(("method", "path", "viewer", "uploader", "forwarder"), rows) + "\n")
        assert wrong == []
        assert users["a"].get(f"/instances/{held.instance}")["ID"] == held.instance, "something was deleted"

    def test_what_a_role_is_for_works(self, users: dict[str, Node], held: Held) -> None:
        assert users["v"].post("/tools/find", {"Level": "Study", "Query": {"PatientID": "PHANTOM-1"}, "Expand": True})
        assert users["v"].read(f"/instances/{held.instance}/file")[128:132] == b"DICM"
        assert users["u"].post("/instances", as_file(held.image))["ID"] == held.instance
        assert users["a"].echoes("server")

    @pytest.mark.parametrize(("method", "path", "headers"), _TRICKS)
    def test_no_other_way_of_asking_helps(
        self, users: dict[str, Node], *, held: Held, method: str, path: str, headers: Mapping[str, str]
    ) -> None:
        body = b'{"Level": "Patient", "Query": {}}' if method == "POST" else None
        status, answer = users["u"].ask(path, body, method=method, headers=headers)
        assert status != 200 or not _tells(answer), (status, answer[:200])
        assert users["a"].get(f"/instances/{held.instance}")["ID"] == held.instance

    def test_a_script_and_a_file_are_refused_to_the_admin_as_well(self, users: dict[str, Node], held: Held) -> None:
        assert users["a"].ask("/tools/execute-script", b"print(1)")[0] == 403
        assert users["a"].ask(f"/instances/{held.instance}/export", b"/tmp/file")[0] in (403, 404)
        assert users["a"].ask("/webdav/", method="PROPFIND", headers={"Depth": "1"})[0] in (400, 404)


def _tells(answer: bytes) -> bool:
    """Whether an answer is a list of something."""
    return answer.strip().startswith(b"[") and answer.strip() != b"[]"


#: Pairs from lists of defaults, of servers of images, of databases and of whatever has a web page.
_PAIRS = (
    *(("orthanc", "orthanc"), ("orthanc", "demo"), ("demo", "demo"), ("admin", "admin"), ("admin", "password")),
    *(("admin", "1234"), ("admin", ""), ("administrator", "administrator"), ("root", "root"), ("root", "")),
    *(("postgres", "postgres"), ("postgres", "password"), ("postgres", ""), ("orthanc_server", "orthanc"), ("orthanc_server", "")),
    *(("user", "user"), ("guest", "guest"), ("test", "test"), ("dicom", "dicom"), ("pacs", "pacs")),
)


class TestDefaults:
    """Nobody gets in with what is on every list."""

    def test_there_are_twenty(self) -> None:
        assert len(set(_PAIRS)) == 20

    @pytest.mark.parametrize("name", ["client", "server"])
    def test_orthanc_refuses_them(self, dev: Dev, name: str) -> None:
        node = dev.stack.node(name)
        assert [pair for pair in _PAIRS if dataclasses.replace(node, login=pair).ask("/system")[0] != 401] == []
        assert node.ask("/system")[0] == 200

    def test_postgresql_refuses_them(self, dev: Dev) -> None:
        secret = dev.stack.secrets["dbPassword.server"]
        assert dev.stack.sql("select 1", database="orthanc_server", role="orthanc_server", password=secret) == "1"
        let_in = [
            pair
            for pair in _PAIRS
            for database in ("postgres", "orthanc_server")
            if dev.stack.sql("select 1", database=database, role=pair[0], password=pair[1] or "''") == "1"
        ]
        assert let_in == []

    def test_adminer_refuses_them(self, dev: Dev) -> None:
        url = dev.stack.outputs()["adminerUrl"]
        assert _adminer(url, "orthanc_server", dev.stack.secrets["dbPassword.server"])
        assert [pair for pair in _PAIRS if _adminer(url, *pair)] == []


def _adminer(url: str, user: str, password: str) -> bool:
    """Whether Adminer lets somebody in."""
    browser = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    login = {"driver": "pgsql", "server": "db", "username": user, "password": password, "db": "orthanc_server"}
    try:
        with browser.open(url, timeout=20) as page:
            form = page.read().decode()
        with browser.open(url, adminer_login(form, login), timeout=20) as page:
            return b"auth[password]" not in page.read()
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.HTTPStatus.FORBIDDEN:
                return False
            raise
