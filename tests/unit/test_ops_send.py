"""`send`: which files of a folder are sent, and what is said of those that a node refuses."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from ops.setup.console import SetupError
from ops.stack import send as sending
from ops.stack.probes import Node
from ops.stack.send import REFUSED, STORED, THERE, images_in, send, upload
from ops.stack.terminal import NOT_WELL
from tests.unit.servers import Answer, Request, serving


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a CD of a hospital has, and what lies about on a laptop."""
    for name in ("DICOMDIR", "IM1", "series/IM2.dcm", "series/notes.txt", ".DS_Store", ".cache/IM9"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


class Archive:
    """A node that stores what is an image, has stored IM1 before, and is busy at first."""

    def __init__(self) -> None:
        self.busy, self.aet, self.status = 1, "ARCHIVE", 200
        self.paths: set[str] = set()

    def answer(self, asked: Request) -> Answer:
        self.paths.add(asked.path)
        if asked.path == "/system":
            return Answer(self.status, json.dumps({"DicomAet": self.aet}).encode())
        if asked.body == b"series/IM2.dcm" and self.busy:
            self.busy -= 1
            return Answer(503, b'{"Message": "Database is starting"}')
        if asked.body.endswith(b".txt"):
            return Answer(400, b'{"Message": "Bad file format", "Details": "Cannot parse an invalid DICOM file"}')
        state = "AlreadyStored" if asked.body == b"IM1" else "Success"
        return Answer(body=json.dumps({"Status": state}).encode())


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Archive, Node]]:
    monkeypatch.setattr(sending, "_PAUSE_SECONDS", 0.0)
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    it = Archive()
    with serving(it.answer) as url:
        yield it, Node("archive", "ARCHIVE", url, (), "sqlite", None, {"orthanc": "Geheim1234567"})


def test_every_file_but_hidden_ones_and_a_mediums_index_is_sent(folder: Path) -> None:
    assert [str(file.relative_to(folder)) for file in sorted(images_in(folder))] == ["IM1", "series/IM2.dcm", "series/notes.txt"]
    assert list(images_in(folder / "IM1")) == [folder / "IM1"]
    with pytest.raises(SetupError, match="there is no folder"):
        list(images_in(folder / "nothing"))


def test_each_is_stored_known_or_refused_with_the_nodes_reason(folder: Path, archive: tuple[Archive, Node]) -> None:
    sent = upload(archive[1], sorted(images_in(folder)))
    assert [(one.file.name, one.outcome) for one in sent] == [("IM1", THERE), ("IM2.dcm", STORED), ("notes.txt", REFUSED)]
    assert sent[2].why == "400: Cannot parse an invalid DICOM file"
    assert archive[0].paths == {"/instances"}


def test_a_node_that_stays_busy_is_not_asked_for_ever(folder: Path, archive: tuple[Archive, Node]) -> None:
    archive[0].busy = 100
    assert upload(archive[1], [folder / "series" / "IM2.dcm"])[0].why == "503: Database is starting"


def test_a_refusal_is_the_exit_status_and_a_line(
    folder: Path, archive: tuple[Archive, Node], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    node = {"aet": "ARCHIVE", "httpUrl": archive[1].url, "index": "sqlite"}

    class Deployed:
        def outputs(self, *, show_secrets: bool) -> dict[str, object]:
            assert show_secrets
            return {"nodes": {"archive": node}, "users": {"archive": {"orthanc": "Geheim1234567"}}}

    monkeypatch.setattr(sending, "deployed", lambda *_, **__: Deployed())
    assert send("dev", "archive", folder) == NOT_WELL
    text = capsys.readouterr().out
    assert "archive: 1 stored, 1 there already, 1 refused" in text
    assert str(folder / "series" / "notes.txt") in text
    assert send("dev", "archive", folder / "IM1") == 0
    with pytest.raises(SetupError, match=r"has no node arkive\. Did you mean archive\?|has no node arkive"):
        send("dev", "arkive", folder)
    archive[0].paths.clear()
    archive[0].aet = "ANOTHER"
    with pytest.raises(SetupError, match="is ANOTHER, and not ARCHIVE: another Orthanc"):
        send("dev", "archive", folder)
    archive[0].status = 401
    with pytest.raises(SetupError, match="answers 401 to archive's user: is that another stack"):
        send("dev", "archive", folder)
    # What listens on this machine's 127.0.0.1 is none of an engine elsewhere.
    monkeypatch.setenv("DOCKER_HOST", "ssh://ops@archive.example")
    with pytest.raises(SetupError, match=r"bound to 127\.0\.0\.1 of the engine's machine"):
        send("dev", "archive", folder)
    assert archive[0].paths == {"/system"}


def test_a_node_that_is_away_is_not_asked_for_every_file(folder: Path, archive: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Away(Node):
        def ask(self, path: str, login: Any = None, body: bytes | None = None) -> Any:
            asked.append(path)
            return super().ask(path, login, body)

    away = Away(**{**vars(archive[1]), "url": "http://127.0.0.1:1"})
    monkeypatch.setattr(sending, "deployed", lambda *_, **__: Mock())
    monkeypatch.setattr(sending, "nodes_of", lambda _: [away])
    for number in range(500):
        (folder / f"IM{number}").write_bytes(b"an image")
    with pytest.raises(SetupError, match=r"archive does not answer: no answer from .*`\./orthanc-stack verify dev`"):
        send("dev", "archive", folder)
    assert len(asked) == 1


def test_after_a_file_that_a_node_did_not_take_for_long_no_pause_is_made(
    folder: Path, archive: tuple[Archive, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk is full, say: it answers, and stores nothing."""
    monkeypatch.setattr(sending, "_THREADS", 1)
    archive[0].busy, image = 100, folder / "series" / "IM2.dcm"
    assert [one.why for one in upload(archive[1], [image] * 10)] == ["503: Database is starting"] * 10
    assert archive[0].busy == 100 - 4 - 9
    # One that it takes ends that.
    archive[0].busy = 100
    assert upload(archive[1], [image, folder / "IM1", image])[1].outcome == THERE
    assert archive[0].busy == 100 - 4 - 4


def test_a_stack_that_was_never_deployed_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sending, "deployed", lambda *_, **__: Mock(**{"outputs.return_value": {"adminerUrl": None}}))
    with pytest.raises(SetupError, match=r"nothing of the stack dev is deployed\. `\./orthanc-stack up dev`"):
        send("dev", "archive", tmp_path)
