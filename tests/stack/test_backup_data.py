"""What restic and the helpers of backups do with real volumes and folders, without a stack."""

from __future__ import annotations

import functools
import os
import re
import secrets as randomness
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from docker.types import Mount

from configs import names
from configs.settings import ImageSettings
from images import candidates, choose
from ops.backup import data, load, restic
from ops.backup.data import DATA, INDEX, NodeData
from ops.backup.found import Found
from ops.backup.oneshot import (
    DRILL_FOLDER,
    OneShot,
    alone_on_engine,
    drill_of,
    lock_name,
    mark_drill,
    remove_drill,
    remove_left,
    volume,
)
from ops.backup.restic import Repository
from ops.setup.console import ROOT, SetupError
from ops.setup.engine import holds
from ops.setup.images import ensure_restic
from ops.setup.prepare import Tools
from ops.setup.state import State
from ops.stack.stack import Stack
from tests.stack.engine import docker
from tests.stack.test_backup import of_stack, wipe

pytestmark = pytest.mark.slow("a dozen containers of restic's and of helpers run once: 40 s")


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    """An empty repository, of a stack that is not there."""
    (tmp_path / "repository").mkdir()
    prefix = names.prefix(f"test-data-{randomness.token_hex(3)}")
    made = Repository(str(tmp_path / "repository"), ensure_restic(ImageSettings(source="auto")), prefix, "a password")
    try:
        yield made
    finally:
        wipe(prefix)


@pytest.fixture
def held(repository: Repository) -> str:
    """A volume of that stack's."""
    return docker("volume", "create", "--label", f"{names.LABEL_STACK}={repository.prefix}", f"{repository.prefix}-a").strip()


def orthanc() -> str:
    return choose(ImageSettings(source="auto"), [one for one in candidates() if holds(one)]).orthanc


def _folder(path: Path, at: str) -> Mount:
    return Mount(at, str(path), type="bind", read_only=True)


def index_of(folder: Path, instances: int, *, closed: bool) -> None:
    """An index in SQLite with so many instances; where it is not closed, they are in its write-ahead log."""
    folder.mkdir()
    index = sqlite3.connect(folder / "index")
    index.execute("PRAGMA journal_mode = WAL")
    index.executescript("CREATE TABLE Resources (resourceType INTEGER); CREATE TABLE GlobalProperties (property INTEGER)")
    index.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    index.executemany("INSERT INTO Resources VALUES (?)", [(4,)] * instances)
    index.commit()
    if not closed:
        for file in ("index", "index-wal"):
            (folder / f"{file}.open").write_bytes((folder / file).read_bytes())
    index.close()
    for path in folder.glob("*.open"):
        path.rename(path.with_suffix(""))


def test_the_log_of_a_restore_that_was_broken_off_is_not_applied_to_the_index(repository: Repository, held: str, tmp_path: Path) -> None:
    index_of(tmp_path / "saved", 3, closed=True)
    index_of(tmp_path / "stale", 5, closed=False)
    assert (tmp_path / "stale" / "index-wal").stat().st_size > 0
    repository.ensure()
    saved = repository.save(repository.backup(f"{INDEX}/a", tags=("a",), mounts=[_folder(tmp_path / "saved", f"{INDEX}/a")]))
    copy = ["-c", f"cp /stale/* {DATA}/"]
    stale = [volume(held, DATA, read_only=False), _folder(tmp_path / "stale", "/stale")]
    assert OneShot(orthanc(), copy, repository.prefix, stale, entrypoint=["sh"], capabilities=["DAC_OVERRIDE"]).run().status == 0
    found = Found(repository, "", {"nodes": {"a": {"snapshots": {"index": saved.snapshot}}}})
    assert load._sqlite(found, "a", held, orthanc()) == 3


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_text("a file"), "is no folder of the engine's machine"),
        (lambda _: None, "is no folder of the engine's machine"),
        (lambda path: path.mkdir(), "cannot be written to"),
    ],
    ids=["a file", "nothing", "read-only"],
)
def test_a_repository_where_none_can_be_is_refused_at_once(
    repository: Repository, tmp_path: Path, make: Callable[[Path], object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "to")
    if said == "cannot be written to":
        monkeypatch.setattr("ops.backup.restic.Mount", functools.partial(Mount, read_only=True))
    there = replace(repository, to=str(tmp_path / "to"))
    for work in (there.ensure, there.snapshots):
        # restic itself would try for minutes, and then say something else.
        with pytest.raises(SetupError, match=rf"backup\.to .*{said}"):
            work()


def test_a_server_that_does_not_answer_is_told(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restic, "_ANSWER_SECONDS", 3)
    # restic itself would try for a quarter of an hour.
    with pytest.raises(SetupError, match=r"backup\.to .* did not answer within 3 s(.|\n)*connection refused"):
        replace(repository, to="rest:http://127.0.0.1:1/").ensure()


class Copying:
    """A helper that copies an index: while it does, this happens to the node. It notes whether the node was frozen."""

    def __init__(self, node: str, *happens: tuple[str, ...]) -> None:
        self.node, self.happens, self.frozen = node, list(happens), list[bool]()

    def run(self, _: Sequence[str]) -> str:
        self.frozen.append(docker("inspect", "--format", "{{.State.Paused}}", self.node).strip() == "true")
        if self.happens:
            docker(*self.happens.pop(0))
        return ""


def test_an_index_is_not_copied_while_its_node_works_on_it(repository: Repository, held: str) -> None:
    name = f"{repository.prefix}-a"
    label = f"{names.LABEL_STACK}={repository.prefix}"
    made = ("create", "--name", name, "--label", label, "--volume", f"{held}:{DATA}", "--network", "none", "--entrypoint")
    runs, ends = ((*made, command, orthanc(), "60") for command in ("sleep", "true"))
    node = NodeData("a", held, "", orthanc())
    docker(*runs)
    assert frozen(node, name) == [False], "it does not run"
    assert frozen(node, name, ("start", name)) == [False, True], "it starts meanwhile"
    assert frozen(node, name) == [True], "it was started since the backup began, which knows of no container"
    docker("rm", "--force", name)
    docker(*ends)
    with pytest.raises(SetupError, match="starts and ends again and again"):
        frozen(node, name, *[("start", "--attach", name)] * 9)
    assert frozen(node, name, ("start", "--attach", name)) == [False, False], "it ran meanwhile"


def frozen(node: NodeData, container: str, *happens: tuple[str, ...]) -> list[bool]:
    """Whether the node was frozen at each copy of its index; it is not afterwards."""
    helper: Any = Copying(container, *happens)
    data._copy(node, helper, [])
    assert docker("inspect", "--format", "{{.State.Paused}}", container).strip() == "false"
    return list(helper.frozen)


def test_one_run_at_a_time_works_on_the_backups_of_a_stack_on_an_engine(repository: Repository, tmp_path: Path) -> None:
    prefix, image = repository.prefix, repository.image
    script = f"""from ops.backup.oneshot import alone_on_engine
import time
with alone_on_engine({prefix!r}, {image!r}, "a backup is at work"):
    print("at work", flush=True)
    time.sleep(600)"""
    # As another user's, or another machine's: they share no cache folder.
    env = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT, env=env) as other:
        try:
            assert other.stdout
            assert other.stdout.readline() == b"at work\n"
            refusal = rf"a backup is at work, by .*, process {other.pid}: .* docker rm --force {prefix}-backup\.lock$"
            with pytest.raises(SetupError, match=refusal), alone_on_engine(prefix, image, "a backup is at work"):
                pass
        finally:
            other.kill()
        with alone_on_engine(prefix, image, "a backup is at work"):
            remove_left(prefix)
            assert docker("ps", "--format", "{{.Names}}", "--filter", f"label={names.LABEL_STACK}={prefix}").split() == [lock_name(prefix)]
    assert not of_stack(prefix, "container")


def test_a_drill_that_was_killed_is_removed_and_a_users_stack_of_that_name_is_not(tmp_path: Path) -> None:
    stack = Stack(f"test-drill-{randomness.token_hex(3)}", Tools(tmp_path, State("", "")), tmp_path)
    second = names.prefix(drill_of(stack))
    folder = tmp_path / f"{DRILL_FOLDER}x"
    folder.mkdir()

    def make(name: str) -> None:
        docker("volume", "create", "--label", f"{names.LABEL_STACK}={second}", f"{second}-{name}")

    try:
        make("mine")
        remove_drill(stack)
        with pytest.raises(SetupError, match=rf"so has a stack on this engine: {re.escape(second)}-mine\."):
            mark_drill(stack, str(folder))
        assert docker("volume", "ls", "-q", "--filter", f"label={names.LABEL_STACK}={second}").split() == [f"{second}-mine"]
        docker("volume", "rm", f"{second}-mine")
        mark_drill(stack, str(folder))
        make("archive")
        remove_drill(stack)
        assert not of_stack(second, "volume")
        assert not folder.exists()
    finally:
        wipe(second)
