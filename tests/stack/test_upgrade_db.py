"""PostgreSQL 17 with images becomes 18, goes back, and is killed at each step."""

from __future__ import annotations

import json
import os
import re
import secrets as randomness
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from configs import names
from tests.stack.dicom import as_file, ct_series
from tests.stack.engine import docker, eventually
from tests.stack.test_backends import copy_commands
from tests.stack.test_backup import Site, begin, delivered, images, inside, of_stack, of_stack_role

pytestmark = pytest.mark.slow("a stack's PostgreSQL is upgraded three times, taken back, and killed in between: 6 min")

_NODES = ("archive", "client")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A stack of two nodes on PostgreSQL, with images, all delivered."""
    folder = tmp_path_factory.mktemp("upgrade")
    (folder / "checkout").mkdir()
    site = Site(f"test-upgrade-{randomness.token_hex(3)}", copy_commands(folder / "checkout"), folder / "repository")
    said = yaml.safe_load(site.file.read_text())
    del said["config"][f"{names.PROJECT}:nodes"][1]["index"]
    site.file.write_text(f"# A comment.\n{yaml.safe_dump(said)}")
    try:
        site.it.run("up")
        send(site, folder, 20)
        yield site
    finally:
        site.remove()


def send(site: Site, folder: Path, slices: int) -> None:
    """Send a new series to the client, which forwards it."""
    series = folder / str(slices)
    series.mkdir()
    for number, image in enumerate(ct_series(slices=slices, size=64)):
        (series / f"{number}.dcm").write_bytes(as_file(image))
    site.it.run("send", "client", str(series))
    eventually("all is delivered", lambda: delivered(site))


def sql(site: Site, *statements: str) -> str:
    return docker("exec", "--user", "postgres", f"{site.prefix}-db", "psql", "-AtXq", *(f"--command={one}" for one in statements)).strip()


def version(site: Site) -> int:
    return int(sql(site, "SHOW server_version_num")) // 10000


def volumes(site: Site) -> set[str]:
    """The volumes of the database."""
    return {one for one in of_stack(site.prefix, "volume") if one.startswith(f"{site.prefix}-db")}


def seen(site: Site) -> dict[str, dict[str, str]]:
    return {name: images(site.node(name)) for name in _NODES}


def changes_nothing(site: Site) -> bool:
    said = site.it.run("up")
    return "checks, all ok" in said and re.search(r"Resources:\s+\d+ unchanged\s+Duration", said) is not None


def test_to_the_next_version_and_back(site: Site, tmp_path: Path) -> None:
    was, old, new = seen(site), f"{site.prefix}-db", f"{site.prefix}-db.18"
    assert len(was["archive"]) == 20
    # Of a node that was removed: nobody may connect to it.
    closed = "SELECT datname FROM pg_database WHERE NOT datallowconn AND NOT datistemplate"
    sql(site, 'CREATE DATABASE "orthanc_gone.1"', 'ALTER DATABASE "orthanc_gone.1" ALLOW_CONNECTIONS false')
    said = site.it.run("upgrade-db")
    assert "checks, all ok" in said
    assert "DIFFERS" not in said
    assert said.index("backup-") < said.index("stopped"), "a backup comes first"
    assert (version(site), sql(site, closed), volumes(site)) == (18, "orthanc_gone.1", {old, new})
    assert seen(site) == was
    assert site.file.read_text().startswith("# A comment.")
    assert changes_nothing(site)
    send(site, tmp_path, 5)

    # A switch by hand would show an old index, or an empty one.
    file = site.file.read_text()
    site.file.write_text(file.replace("volume: db.18", "volume: db"))
    for command in ("up", "preview"):
        assert "indexDb.volume" in site.it.run(command, status=1)
    site.file.write_text(file)
    assert volumes(site) == {old, new}

    said = site.it.run("upgrade-db", "--undo")
    assert all(f"orthanc_{node}: 5 images came since" in said for node in _NODES), said
    assert (version(site), sql(site, closed), volumes(site)) == (17, "orthanc_gone.1", {old, new})
    assert seen(site) == was
    assert changes_nothing(site)
    for node in _NODES:  # a younger file may be on its way into the index
        inside(site, node, "touch -d '2 days ago' $@")
    said = site.it.run("check-data", "--mend")
    assert {node: len(found) for node, found in seen(site).items()} == {"archive": 25, "client": 25}, said


def test_killed_at_each_step(site: Site, tmp_path: Path) -> None:
    """The same command begins anew. Before the stack file is written, `up` alone starts the nodes on the old data."""
    was, old, new = seen(site), f"{site.prefix}-db", f"{site.prefix}-db.18"
    for until, seconds in (
        ("stopped", 0.0),
        ("copying orthanc_archive", 0.3),
        ("the copy is equal", 0.0),
        ("says PostgreSQL 18", 0.0),
        ("db-container", 0.0),
        ("db-container", 1.5),
    ):
        run = begin(site.it, "upgrade-db", tmp_path / "said", until, "--no-backup")
        time.sleep(seconds)
        os.killpg(run.pid, signal.SIGKILL)
        assert run.wait() == -9, (tmp_path / "said").read_text()
        for lock in (site.checkout / "state" / ".pulumi" / "locks").rglob("*.json"):
            lock.unlink()
        if until == "copying orthanc_archive":
            assert "checks, all ok" in site.it.run("up")
            assert (version(site), seen(site)) == (17, was)
        if until == "says PostgreSQL 18":
            assert "upgrade-db" in site.it.run("up", status=1)
            assert "exited" in docker("ps", "-a", "--format", "{{.State}}", "--filter", f"name={site.prefix}-archive")
    said = site.it.run("upgrade-db", "--no-backup")
    assert "checks, all ok" in said
    assert (version(site), volumes(site), of_stack_role(site)) == (18, {old, new}, [])
    assert seen(site) == was
    assert "nobody is there to ask" in site.it.run("upgrade-db", "--done", status=1)
    site.it.run("upgrade-db", "--done", "--yes")
    assert volumes(site) == {new}
    assert changes_nothing(site)
    assert seen(site) == was
    for option in ("--undo", "--done"):
        assert "no upgrade" in site.it.run("upgrade-db", option, status=1)


def test_destroy_removes_what_a_killed_run_left(site: Site) -> None:
    """A volume that was not filled to its end is none that the state knows."""
    labels = json.loads(docker("volume", "inspect", "--format", "{{json .Labels}}", *volumes(site)))
    labels = {**labels, names.LABEL_UPGRADED: "db.18 18 postgres:18.5"}
    docker("volume", "create", *(f"--label={key}={value}" for key, value in labels.items()), f"{site.prefix}-db.19")
    site.it.run("destroy", "--yes")
    assert [of_stack(site.prefix, kind) for kind in ("container", "volume", "network")] == [[], [], []]
