"""What restic and the helpers of backups do with real volumes and folders, without a stack."""

from __future__ import annotations

import secrets as randomness
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.types import Mount

from configs import names
from configs.settings import ImageSettings
from images import candidates, choose
from ops.backup import load
from ops.backup.data import DATA, INDEX
from ops.backup.found import Found
from ops.backup.oneshot import OneShot, volume
from ops.backup.restic import Repository
from ops.setup.engine import holds
from ops.setup.images import ensure_restic
from tests.stack.engine import docker
from tests.stack.test_backup import wipe

pytestmark = pytest.mark.slow("a dozen containers of restic's and of helpers run once: 20 s")


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
    for file in folder.glob("*.open"):
        file.rename(file.with_suffix(""))


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
