"""Forgetting a patient: at nodes that still send images, in the repository, and in an index that comes out of a backup."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from ops.backup import forget, load
from ops.backup.backup import _forget
from ops.backup.dicom import identifier
from ops.backup.found import Found, forgotten
from ops.backup.oneshot import OneShot
from ops.backup.restic import Repository, Saved
from ops.setup.console import SetupError
from ops.stack.probes import CheckFailedError
from tests.unit.stacks import node, settings_of, stack

WHO = identifier("P1")
REPOSITORY = Repository("/srv/backup", "restic", "orthanc-stack-dev", "a-password")


class Orthanc:
    """A node with images of the patient, and what it was sending to another one."""

    login = ("admin", "pw")

    def __init__(self, name: str, images: int = 0, to: "Orthanc | None" = None, jobs: int = 0, forward_to: Sequence[str] = ()) -> None:
        self.name, self.images, self.to, self.jobs, self.forward_to = name, images, to, jobs, forward_to
        self.down = False

    def ask(self, path: str, _: Any, body: bytes | None = None) -> httpx.Response:
        if self.down:
            raise CheckFailedError("no answer")
        if path == "/tools/bulk-delete":
            assert json.loads(body or b"") == {"Resources": [WHO]}
            self.images = 0
            return httpx.Response(200)
        if path == "/jobs?expand":
            # What it was sending arrives after it was erased here, when the job ends.
            running = [{"ID": str(i), "State": "Running"} for i in range(self.jobs)]
            if running and self.to and self.jobs == 1:
                self.to.images, self.to.jobs = 1, 1 if self.to.to else 0
            self.jobs = max(0, self.jobs - 1)
            return httpx.Response(200, json=[{"ID": "old", "State": "Success"}, *running])
        there = self.images and path == f"/patients/{WHO}/statistics"
        if not there and self.name == "archive":  # on PostgreSQL
            return httpx.Response(404)
        return httpx.Response(200, json={"CountStudies": int(bool(there)), "CountInstances": self.images if there else 0})


def test_what_a_node_was_sending_does_not_bring_the_patient_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    last = Orthanc("last", 3)
    middle = Orthanc("middle", 3, to=last)
    first = Orthanc("first", 3, to=middle, jobs=3)
    assert forget._erase([first, middle, last], WHO) == {}  # type: ignore[list-item]
    assert [one.images for one in (first, middle, last)] == [0, 0, 0]


def test_a_node_that_may_still_have_something_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(forget, "_JOBS_SECONDS", 0.0)
    assert "jobs have not ended" in forget._erase([Orthanc("a", 1, jobs=1)], WHO)["a"]  # type: ignore[list-item]
    away = Orthanc("away")
    away.down = True
    assert forget._erase([Orthanc("a"), away], WHO) == {"away": "no answer"}  # type: ignore[list-item]


class Asked:
    """A stack with two nodes, and what a user meets who has one of its patients forgotten."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.nodes = [Orthanc("client", 2, forward_to=("archive", "pacs")), Orthanc("archive", 2)]
        self.done: list[str] = []
        self.repository: Repository | None = None
        self.name = "dev"

        @contextmanager
        def alone(_: Any) -> Iterator[None]:
            yield

        settings = settings_of(stack(node("a"), backup={"to": "/srv/backup"}))
        replaced: dict[str, Any] = {
            "load_stack_file": lambda _: settings,
            "deployed": lambda _: self,
            "alone": alone,
            "nodes_of": lambda _: self.nodes,
            "refuse_stranger": lambda one: one.ask(f"/patients/{WHO}/statistics", None),
            "made_repository": lambda *_: self.repository,
            "_remember": lambda *_: self.done.append("remembered"),
        }
        for name, value in replaced.items():
            monkeypatch.setattr(forget, name, value)
        monkeypatch.setattr("time.sleep", lambda _: None)

    def outputs(self, **_: Any) -> dict[str, Any]:
        return {}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


def test_nothing_is_touched_where_a_node_is_away_or_nobody_is_asked(asked: Asked) -> None:
    with pytest.raises(SetupError, match="nobody is there to ask"):
        forget.forget("dev", "P1", yes=False)
    asked.nodes[1].down = True
    with pytest.raises(SetupError, match="nothing was touched: archive does not answer"):
        forget.forget("dev", "P1", yes=True)
    asked.nodes[1].down = False
    with pytest.raises(SetupError, match="no node of the stack dev has a patient"):
        forget.forget("dev", "p1", yes=True)
    assert asked.nodes[0].images == 2
    assert asked.done == []


def test_what_is_out_of_reach_is_listed(asked: Asked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked.repository = REPOSITORY
    monkeypatch.setattr(Repository, "snapshots", lambda *_: [{"time": "2026-11-27T02:30:00Z"}, {"time": "2026-11-28T02:30:00Z"}])
    assert forget.forget("dev", " P1 ", yes=True) == 0
    assert asked.done == ["remembered"]
    told = capsys.readouterr().out
    assert "device pacs" in told
    assert "device archive" not in told
    assert "2 backups until 2026-11-28" in told
    assert "by 2028-01-05" in told


def test_patients_in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    before, ran = identifier("P0"), list[Any]()
    monkeypatch.setattr(Repository, "snapshots", lambda *tags: [{"id": "old"}] if tags[1:] == ("forgotten",) else [])
    monkeypatch.setattr(OneShot, "stream", lambda _: iter([json.dumps({before: "2026", "'; DROP TABLE Resources; --": "2026"}).encode()]))

    def save(_: Any, one: Any) -> Saved:
        ran.append(one)
        return Saved("new", 1, 1)

    monkeypatch.setattr(Repository, "save", save)
    monkeypatch.setattr(Repository, "ask", lambda _, *arguments: ran.append(arguments))
    assert forgotten(REPOSITORY) == {before: "2026"}
    forget._remember(REPOSITORY, WHO)
    saved, removed = ran
    assert "--tag=forgotten" in saved.command
    noted = json.loads(saved.files["forgotten.json"])
    assert noted.keys() == {before, WHO}
    assert noted[before] == "2026"
    assert abs(datetime.fromisoformat(noted[WHO]) - datetime.now(UTC)) < timedelta(minutes=5)
    assert removed == ("forget", "old"), "only after the new one is there"


def test_the_next_backups_keep_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[Sequence[str]]()
    found = [{"id": "f", "time": "2020-01-01T00:00:00Z", "tags": ["forgotten"]}]
    monkeypatch.setattr(Repository, "snapshots", lambda *_: found)
    monkeypatch.setattr(Repository, "ask", lambda _, *arguments, **__: asked.append(arguments))
    where = settings_of(stack(node("a"), backup={"to": "/srv/backup"})).backup
    assert where
    assert _forget(REPOSITORY, where, datetime(2026, 11, 28, tzinfo=UTC))
    assert [one for one in asked if "f" in one] == []


def test_what_came_after_a_patient_was_forgotten_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"2026-11-28T02:29:59+00:00": "before", "2026-11-28T02:30:00+00:00": "same", "2026-12-01T00:00:00+00:00": "after"}
    monkeypatch.setattr(load, "forgotten", lambda _: {identifier(who): when for when, who in times.items()})
    found = Found(REPOSITORY, "snapshot", {"time": "2026-11-28T02:30:00+00:00"})
    assert load.to_erase(found) == f"'{identifier('same')}', '{identifier('after')}'"


#: As Orthanc's own index has it, in short (PrepareDatabase.sql).
SCHEMA = """CREATE TABLE Resources(internalId INTEGER PRIMARY KEY, publicId TEXT,
  parentId INTEGER REFERENCES Resources(internalId) ON DELETE CASCADE);
CREATE TABLE AttachedFiles(id INTEGER REFERENCES Resources(internalId) ON DELETE CASCADE, uuid TEXT);
CREATE TABLE Counted(number INTEGER);
CREATE TRIGGER ResourceDeleted AFTER DELETE ON Resources BEGIN SELECT SignalResourceDeleted(old.publicId); END;
CREATE TRIGGER AttachedFileDeleted AFTER DELETE ON AttachedFiles BEGIN SELECT SignalFileDeleted(old.uuid); END;
CREATE TRIGGER AttachedFileDecrementSize AFTER DELETE ON AttachedFiles BEGIN INSERT INTO Counted VALUES(-1); END;"""


def test_an_index_that_comes_out_of_a_backup(tmp_path: Path) -> None:
    file = tmp_path / "index"
    index = sqlite3.connect(file)
    index.executescript(SCHEMA)
    patients: list[tuple[int, str, int | None]] = [(1, WHO, None), (2, identifier("P2"), None)]
    below = [(10 * level + who, f"r{level}{who}", 10 * (level - 1) + who if level > 1 else who) for who in (1, 2) for level in (1, 2, 3)]
    index.executemany("INSERT INTO Resources VALUES (?, ?, ?)", [*patients, *below])
    index.executemany("INSERT INTO AttachedFiles VALUES (?, ?)", [(31, "image-1"), (11, "study-1"), (32, "image-2")])
    index.commit()
    triggers = index.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name").fetchall()
    statements = [one.format(f"'{WHO}', 'none'") for one in (load._FILES_OF, load._ERASE)]
    command = [sys.executable, "-c", load._ERASE_SQLITE, str(file), *statements]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == ["image-1", "study-1"]
    assert [row[0] for row in index.execute("SELECT uuid FROM AttachedFiles")] == ["image-2"]
    assert sorted(row[0] for row in index.execute("SELECT internalId FROM Resources")) == [2, 12, 22, 32]
    assert index.execute("SELECT COUNT(*) FROM Counted").fetchone() == (2,)
    assert index.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name").fetchall() == triggers
