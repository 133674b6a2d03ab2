"""Who may do what by DICOM, and nobody with a password that everybody knows. Roles are in tests/stack/prod."""

from __future__ import annotations

import dataclasses
import http.cookiejar
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from pydicom.dataset import FileDataset

from ops.stack.terminal import drawn
from tests.stack.dicom import as_file, ask_to_commit, ct_series, echo, find, get, move, store, worklist
from tests.stack.forwarding import await_delivery
from tests.stack.harness import Node, adminer_login
from tests.stack.like_dev import TRUSTED, WORKSTATION, Dev

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


@pytest.fixture(scope="module")
def image(dev: Dev) -> Iterator[FileDataset]:
    """An image that both nodes hold, gone after these tests."""
    image = ct_series(slices=1, size=16)[0]
    study = dev.client.post("/instances", as_file(image))["ParentStudy"]
    await_delivery(dev.stack, "client", "server")
    assert dev.server.holds([image.SOPInstanceUID])
    yield image
    await_delivery(dev.stack, "client", "server")
    for node in (dev.client, dev.server):
        node.ask(f"/studies/{study}", method="DELETE")


class TestCallers:
    """DICOM: what is wired, and only for what it is wired."""

    def test_each_operation_by_each_caller(self, dev: Dev, image: FileDataset, artifacts: Path) -> None:
        rows, wrong = [], []
        for (name, caller), may in _MAY.items():
            node = dev.stack.node(name)
            done = {operation: does(node, caller, image) for operation, does in _OPERATIONS.items()}
            rows.append((name, caller, *("served" if done[operation] else "refused" for operation in _OPERATIONS)))
            wrong += [(name, caller, operation) for operation in _OPERATIONS if done[operation] is not (operation in may)]
        (artifacts / "dimse.txt").write_text(drawn(("node", "caller", *_OPERATIONS), rows) + "\n")
        assert wrong == []

    @pytest.mark.parametrize("name", ["client", "server"])
    def test_nothing_of_what_a_stranger_sends_is_kept(self, dev: Dev, name: str) -> None:
        node, images = dev.stack.node(name), ct_series(slices=1, size=16)
        assert store(node, "STRANGER", images) == []
        assert node.holds([images[0].SOPInstanceUID]) == {}

    @pytest.mark.parametrize("name", ["client", "server"])
    @pytest.mark.parametrize("called", ["ANY-SCP", "ORTHANC", "ORTHANC_OTHER"])
    def test_one_who_calls_another_ae_title_is_refused(self, dev: Dev, image: FileDataset, name: str, called: str) -> None:
        node = dev.stack.node(name)
        assert echo(node, WORKSTATION)
        other = dataclasses.replace(node, aet=called)
        assert not any(does(other, WORKSTATION, image) for does in _OPERATIONS.values())


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
