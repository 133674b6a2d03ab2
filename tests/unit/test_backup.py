"""Backups: what a stack file may say of them, what restic's answers mean, which backup is meant, and what is told."""

import contextlib
import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs.secrets import is_secret_key, secret_keys
from images import images_hash, local_image
from ops.backup import backup, data
from ops.backup.backup import Part, holding
from ops.backup.check import Checked, Fault, _named
from ops.backup.check import report as report_check
from ops.backup.data import NodeData
from ops.backup.found import find
from ops.backup.oneshot import Done, OneShot, _tar
from ops.backup.report import print_sheet, report, size
from ops.backup.restic import Repository, Saved
from ops.setup.console import SetupError
from ops.setup.prepare import Tools
from ops.setup.state import State
from ops.stack import up
from ops.stack.secrets import all_keys, known_keys, rotate
from ops.stack.stack import Stack
from tests.unit.stacks import node, problems_of, settings_of, stack

REPOSITORY = Repository("/srv/backup", "restic", "orthanc-stack-dev", "a-password")


@pytest.mark.parametrize(
    "to", ["/srv/backup", "/mnt/a disk/b", "rest:https://backup:8000/prod/", "s3:https://host/bucket", "s3:host/bucket/a"]
)
def test_a_repository_is_a_folder_a_rest_server_or_s3(to: str) -> None:
    settings = settings_of(stack(node("a"), backup={"to": to}))
    assert settings.backup
    assert settings.backup.keep.model_dump() == {"daily": 7, "weekly": 5, "monthly": 12}
    assert "backupPassword" in secret_keys(settings)


@pytest.mark.parametrize(
    ("to", "why"),
    [
        ("srv/backup", "is neither"),
        ("/", "is neither"),
        ("sftp:user@host:/srv", r"sftp://user@host:22//srv"),
        ("sftp://host/srv", "is neither"),
        ("sftp://user:secret@host/srv", "is neither"),
        ("sftp://-oProxyCommand=x@host/srv", "is neither"),
        ("sftp://user@-oProxyCommand=x/srv", "is neither"),
        ("rest:backup", "is neither"),
        ("s3:bucket", "is neither"),
        ("/srv/../etc", "has a part"),
        ("rest:https://user:secret@backup/", "holds a login"),
        ("s3:https://key@host/bucket", "holds a login"),
    ],
)
def test_other_repositories_are_refused(to: str, why: str) -> None:
    problems = problems_of(stack(node("a"), backup={"to": to}))
    assert list(problems) == ["backup.to"]
    assert why in problems["backup.to"]


SFTP = "sftp://u1@nas.example:2222//srv/backup"
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKey+/"


def test_sftp_wants_the_servers_host_key() -> None:
    settings = settings_of(stack(node("a"), backup={"to": SFTP, "hostKey": HOST_KEY}))
    assert settings.backup
    assert settings.backup.host_key == HOST_KEY
    assert "`ssh-keyscan -t ed25519 -p 2222 nas.example`" in problems_of(stack(node("a"), backup={"to": SFTP}))["backup.hostKey"]
    assert "-p 22 nas`" in problems_of(stack(node("a"), backup={"to": "sftp://u1@nas/b@c:1"}))["backup.hostKey"]
    for wrong in (f"nas.example {HOST_KEY}", f"{HOST_KEY}\nother {HOST_KEY}", "ssh-ed25519", "SHA256:AAAA"):
        problems = problems_of(stack(node("a"), backup={"to": SFTP, "hostKey": wrong}))
        assert "is not an SSH server's key" in problems["backup.hostKey"]


def test_sftp_wants_a_private_key(tmp_path: Path) -> None:
    settings = settings_of(stack(node("a"), backup={"to": SFTP, "hostKey": HOST_KEY}))
    assert settings.backup
    (tmp_path / "Pulumi.prod.yaml").write_text("config: {}\n")
    with pytest.raises(SetupError, match=r"wants a private key(.|\n)*--secret backupKey --stack prod < FILE$"):
        backup.repository_of(Stack("prod", Tools(tmp_path, State("", "")), tmp_path), settings, settings.backup)


def test_a_stack_without_backups_has_no_secret_for_them() -> None:
    assert "backupPassword" not in secret_keys(settings_of(stack(node("a"))))
    assert all(is_secret_key(key) for key in ("backupPassword", "backupKey", "backupSecret"))


def test_the_password_of_the_backups_is_not_rotated(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(stack(node("a"), backup={"to": "/srv/backup"}))
    assert not [key for key in (*known_keys(settings), *all_keys(settings, {})) if key.startswith("backup")]
    monkeypatch.setattr("ops.stack.secrets.load_stack_file", lambda _: settings)
    with pytest.raises(SetupError, match="restic changes it"):
        rotate("dev", ["backupPassword"], everything=False)


def test_restics_image_is_not_among_those_that_a_stack_runs() -> None:
    assert local_image("restic") != local_image("orthanc").replace("orthanc:", "restic:")
    assert images_hash("restic") in local_image("restic")


def test_no_secret_is_an_argument_or_a_variable() -> None:
    for to, login in (
        ("/srv/backup", ("", "")),
        ("rest:https://backup/", ("user", "a-secret")),
        ("s3:host/bucket", ("a-key", "a-secret")),
        (SFTP, ("a-key", "")),
    ):
        one_shot = replace(REPOSITORY, to=to, login=login).one_shot("snapshots")
        assert not re.search("a-password|a-secret|a-key", f"{one_shot.command} {one_shot.environment}")
        assert one_shot.files
        held = b"".join(one_shot.files.values())
        assert all(one.encode() in held for one in ("a-password", *login))
        assert one_shot.network == ("none" if to.startswith("/") else "bridge")
    assert "a-password" not in repr(REPOSITORY)
    assert b"a-password" in _tar({"password": b"a-password"})


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (10, "no repository"),
        (11, "locked"),
        (12, "another password"),
        (124, "did not answer within 60 s"),
        (1, "ended with status 1:\nFatal: no space left"),
    ],
)
def test_what_restic_says_is_told_in_our_words(status: int, said: str) -> None:
    error = '{"message_type":"exit_error","code":1,"message":"Fatal: no space left"}\n'
    assert said in str(REPOSITORY.failure(Done(status, "", error), "backup"))


class Ran(OneShot):
    """A restic that has run."""

    def __new__(cls, *_: Any) -> Any:
        return super().__new__(cls)

    def __init__(self, done: Done) -> None:
        super().__init__("", [], "")
        object.__setattr__(self, "done", done)

    def run(self) -> Done:
        return self.done  # type: ignore[attr-defined, no-any-return]


SUMMARY = '{"message_type":"status"}\n{"message_type":"summary","snapshot_id":"abc","total_bytes_processed":100,"data_added_packed":7}\n'
UNREADABLE = '{"message_type":"exit_error","code":3,"message":"Warning: at least one source file could not be read"}\n'


def _error(message: str) -> str:
    return json.dumps({"message_type": "error", "error": {"message": message}}, separators=(",", ":")) + "\n"


def test_a_file_that_was_deleted_meanwhile_is_no_failure_and_one_that_cannot_be_read_is() -> None:
    assert REPOSITORY.save(Ran(Done(0, SUMMARY, ""))) == Saved("abc", 100, 7)
    gone = _error("lstat /data/a/0: no such file or directory") + UNREADABLE
    assert REPOSITORY.save(Ran(Done(3, SUMMARY, gone))) == Saved("abc", 100, 7, 1)
    with pytest.raises(SetupError, match="input/output error"):
        REPOSITORY.save(Ran(Done(3, SUMMARY, gone + _error("read /data/a/1: input/output error"))))
    with pytest.raises(SetupError, match="no space left"):
        REPOSITORY.save(Ran(Done(1, "", "Fatal: no space left\n")))


@pytest.fixture
def backups(monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository with three complete backups."""
    # What is shown, and meant by --at, is when a backup began; its manifest came an hour later.
    found = [
        {"id": f"id{day}", "time": f"2026-11-2{day}T07:00:00Z", "tags": ["manifest", f"backup-2026112{day}T060000Z"]} for day in (5, 6, 7)
    ]
    monkeypatch.setattr(Repository, "snapshots", lambda *_: found)
    monkeypatch.setattr(OneShot, "stream", lambda self: iter([json.dumps({"of": self.command[2]}).encode()]))
    return REPOSITORY


@pytest.mark.parametrize(
    ("at", "begun", "wanted"),
    [
        ("", "", "id7"),
        ("2026-11-27", "", "id6"),
        ("2026-11-26T06:00:00", "", "id6"),
        ("2026-11-26T06:30:00+01:00", "", "id5"),
        ("", "id6", "id6"),
    ],
)
def test_the_newest_complete_backup_is_meant_or_the_one_that_was_begun(backups: Repository, at: str, begun: str, wanted: str) -> None:
    assert find(backups, at, begun).manifest == {"of": wanted}


def test_a_restore_that_has_begun_goes_on_with_its_backup_alone(backups: Repository) -> None:
    with pytest.raises(SetupError, match="without --at"):
        find(backups, "2026-11-26", "id6")


@pytest.mark.parametrize(
    ("wanted", "differ"),
    [
        ({"a": "postgresql", "b": "sqlite"}, ""),
        ({"a": "postgresql", "c": "sqlite"}, "of b, c, "),
        ({"a": "sqlite", "b": "sqlite"}, "of a, "),
    ],
)
def test_no_backup_is_made_of_a_stack_whose_file_names_other_nodes_than_are_deployed(wanted: dict[str, str], differ: str) -> None:
    settings = settings_of(stack(*(node(name, number, index=index) for number, (name, index) in enumerate(wanted.items()))))
    deployed = [NodeData("a", "a-data", "orthanc_a", ""), NodeData("b", "b-data", "", "")]
    held: Any = SimpleNamespace(short="prod", name="prod")
    with pytest.raises(SetupError, match=differ) if differ else contextlib.nullcontext():
        backup.refuse_undeployed(held, settings, deployed)


class Frozen:
    """A node's container, which the engine lets go at the first try, or not."""

    status = "running"

    def __init__(self, *, fails: bool = False, refusals: int = 0) -> None:
        self.fails, self.refusals, self.paused = fails, refusals, False

    def reload(self) -> None: ...

    def pause(self) -> None:
        self.refusals -= 1
        if self.refusals >= 0:
            raise OSError("is already paused")
        self.paused = True

    def unpause(self) -> None:
        if not self.paused:
            raise OSError("cannot resume a running process")
        if self.fails:
            raise OSError("read timeout")


def docker_that_tells(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """A docker command for watchdogs, which wait for 0.3 s: the file that it writes."""
    (folder / "docker").write_text(f"#!/bin/sh\necho $@ > {folder}/told\n")
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(data, "_FROZEN_AT_MOST", 0.3)
    return folder / "told"


@pytest.mark.parametrize("fails", [False, True])
def test_a_node_that_could_not_be_let_go_is_let_go_by_the_watchdog(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fails: bool) -> None:
    told = docker_that_tells(monkeypatch, tmp_path)
    held: Any = SimpleNamespace(name="s-a", part="a", handle=Frozen(fails=fails))
    helper: Any = SimpleNamespace(run=lambda _: "")
    with pytest.raises(SetupError, match="read timeout") if fails else contextlib.nullcontext():
        data._while_frozen(held, helper, [])
    time.sleep(1.0)
    assert told.exists() is fails


def test_a_node_that_the_engine_wrongly_calls_paused_is_paused_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Docker 20.10 learns late of the pause of a look before. The helper must not copy while the node runs, and no watchdog stays."""
    told = docker_that_tells(monkeypatch, tmp_path)
    frozen = Frozen(refusals=2)
    seen: list[bool] = []
    held: Any = SimpleNamespace(name="s-a", part="a", handle=frozen)
    helper: Any = SimpleNamespace(run=lambda _: seen.append(frozen.paused))
    data._while_frozen(held, helper, [])
    assert seen == [True]
    time.sleep(1.0)
    assert not told.exists()


@pytest.mark.parametrize("marked", [False, True])
def test_no_node_is_started_while_a_restore_has_not_ended(monkeypatch: pytest.MonkeyPatch, marked: bool) -> None:
    held: Any = SimpleNamespace(name="prod", restore_mark="s-backup.restore")
    found = [SimpleNamespace(name=f"s-backup.restore{'' if marked else '-of-another'}")]
    engine: Any = SimpleNamespace(volumes=SimpleNamespace(list=lambda filters: found))
    monkeypatch.setattr(up, "client", lambda: engine)
    with pytest.raises(SetupError, match="restore prod` goes on with it") if marked else contextlib.nullcontext():
        up.refuse_half_restored(held)


@pytest.mark.parametrize(("at", "said"), [("2026-11-01", r"before 2026-11-01 .*2026-11-25T06:00:00"), ("yesterday", "is no time")])
def test_no_other_backup_is_taken_for_it(backups: Repository, at: str, said: str) -> None:
    with pytest.raises(SetupError, match=said):
        find(backups, at)


def test_forgotten_backups_go_as_a_whole_and_young_ones_without_a_manifest_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = datetime(2026, 11, 28, tzinfo=UTC), list[Sequence[str]]()

    def of(tag: str, days: int, *kinds: str) -> list[dict[str, Any]]:
        moment = (now - timedelta(days=days)).isoformat()
        return [{"id": f"{tag}-{kind}", "time": moment, "tags": [f"backup-{tag}", kind]} for kind in kinds]

    found = [*of("kept", 9, "files", "manifest"), *of("forgotten", 9, "index", "files"), *of("at-work", 1, "files")]
    monkeypatch.setattr(Repository, "snapshots", lambda *_: found)
    monkeypatch.setattr(Repository, "ask", lambda _, *arguments, **__: asked.append(arguments))
    where = settings_of(stack(node("a"), backup={"to": "/srv/backup"})).backup
    assert where
    assert backup._forget(REPOSITORY, where, now)
    assert "--keep-weekly=5" in asked[0]
    assert asked[1:] == [("forget", "--prune", "forgotten-index", "forgotten-files")]


class Forwarder:
    """A forwarder's container."""

    def __init__(self, name: str, *, broken: bool = False) -> None:
        self.part, self.name, self.state, self.broken = name, name, "running", broken
        self.asked: list[str] = []

    def run(self, command: Sequence[str]) -> str:
        self.asked.append(command[-1])
        if self.broken:
            raise SetupError("404")
        return ""


def test_forwarders_that_delete_are_held_and_let_go_whatever_happens(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "_HOLD_AGAIN_SECONDS", 0.02)
    nodes = [node("a", 0), node("b", 1, forwardTo=["a"], keep="until-confirmed"), node("c", 2, forwardTo=["a"])]
    settings = settings_of(stack(*nodes))
    deletes, keeps = Forwarder("b-forwarder"), Forwarder("c-forwarder")
    with contextlib.suppress(KeyboardInterrupt), holding([deletes, keeps], settings):  # type: ignore[list-item]
        time.sleep(0.1)
        raise KeyboardInterrupt
    assert deletes.asked[:2] == ["hold", "hold"], "again, before the first has run out"
    assert deletes.asked[-1] == "release"
    assert keeps.asked == []
    with holding([Forwarder("b-forwarder", broken=True)], settings):  # type: ignore[list-item]
        pass
    assert "may be missing from the backup" in capsys.readouterr().err


def test_the_recovery_sheet_names_the_host_key_and_prints_no_private_key(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    repository = replace(REPOSITORY, to=SFTP, login=("a-key", ""), host_key=HOST_KEY)
    held = Stack("prod", Tools(tmp_path, State("", "")), tmp_path)
    print_sheet(held, repository, backup.Manifest("prod", "", "1.0.0", {}, passphrase=True))
    sheet = capsys.readouterr().out
    assert f"ORTHANC_BACKUP_HOST_KEY='{HOST_KEY}'" in sheet
    assert "a-key" not in sheet


def test_whose_a_file_is() -> None:
    assert _named(["i", "s", "t", "p", "ID"]) == {"instance": "i", "series": "s", "study": "t", "patient": "ID"}
    assert _named(["t", "p", "", "", "ID"]) == {"instance": "t"}


def test_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    faults = [Fault(f"f{i}", "missing", "no such file", patient="P1") for i in range(12)]
    report_check([Checked("a", files=20, hashed=5, faults=faults)])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "a 20 5 12 0 0 0.0" in lines
    assert lines[-1] == "… and 2 more: --json lists all"
    report([Part("a", "files", Saved("id", 5_000_000, 1500, 2), 1.0)], {"a": 0.5}, 3.0, "backup-1")
    told = capsys.readouterr().out
    assert "5.0 MB" in told
    assert "a stood still for 0.50 s" in told
    assert "2 files were deleted" in told
    assert [size(number) for number in (0, 999, 1000, 2.5e12)] == ["0 B", "999 B", "1.0 kB", "2.5 TB"]
