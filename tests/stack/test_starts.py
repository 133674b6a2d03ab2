"""Starts that take long, starts that fail, and sessions of nodes that the network has lost."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.engine import docker, eventually
from tests.stack.harness import Done, Stack, without_nodes

pytestmark = pytest.mark.slow("two stacks, and starts that are held up until their startTimeout, which is 5 s at least")

DATABASE = "orthanc_lone"
_HOLD = "BEGIN; LOCK TABLE globalproperties IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(300)"
_LET_GO = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(300)' AND pid <> pg_backend_pid()"
#: The shortest startTimeout that there is.
_SHORT = 5


def deployed(program: Path, **index_db: object) -> Iterator[Stack]:
    stack = without_nodes(program, indexDb=index_db)
    stack.add_node("lone")
    with stack.deployed():
        yield stack


@pytest.fixture(scope="module")
def lone(program: Path) -> Iterator[Stack]:
    """What most tests share; each leaves it healthy."""
    yield from deployed(program, memory=1024)


@pytest.fixture
def with_tls(program: Path) -> Iterator[Stack]:
    """The same with TLS to the database."""
    yield from deployed(program, tls=True)


def health(stack: Stack) -> str:
    return docker("inspect", "--format", "{{.State.Health.Status}}", f"{stack.prefix}-lone")


def fail_a_start(stack: Stack, marker: int) -> tuple[str, Done]:
    """Deploy the node anew while its index is locked, as it is in an upgrade, until `up` has given up; the container that goes on."""
    docker("exec", "--detach", "--user", "postgres", f"{stack.prefix}-db", "psql", "-U", "postgres", "-d", DATABASE, "-c", _HOLD)
    eventually("the index is locked", lambda: stack.sql("SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock'", database=DATABASE))
    stack.node_settings("lone").update(orthanc={"StableAge": marker}, startTimeout=_SHORT)
    done = stack.try_up()
    assert not done.ok, done.text
    assert "startTimeout" in done.text
    assert health(stack) == "starting"
    return stack.containers()["lone"], done


def let_go_during_the_next(stack: Stack, failed: Done) -> None:
    """Unlock the index while the next `up` waits: it begins to wait before one that has failed has ended, however busy the machine is."""
    threading.Timer(failed.seconds, lambda: stack.sql(_LET_GO, database=DATABASE)).start()


class TestAStartThatFailed:
    """S6: it is waited for, it stays a failure, and nothing ends it in the middle."""

    def test_it_goes_on_and_the_next_up_waits_for_it(self, lone: Stack) -> None:
        """As `./orthanc-stack up STACK` does it, which refreshes after a run that did not end well: nothing is replaced."""
        slow, _ = fail_a_start(lone, 61)
        again = lone.try_up()
        assert not again.ok, again.text
        assert f"{lone.prefix}-lone is still starting after another {_SHORT} s" in again.text
        assert lone.containers()["lone"] == slow
        lone.node_settings("lone")["startTimeout"] = "5m"
        let_go_during_the_next(lone, again)
        done = lone.up(refresh=True, run_program=True)
        assert (lone.containers()["lone"], health(lone), done.replaced) == (slow, "healthy", set())
        assert lone.up().steps == {}

    def test_plain_up_makes_it_anew_once_it_has_ended(self, lone: Stack) -> None:
        slow, failed = fail_a_start(lone, 62)
        lone.node_settings("lone")["startTimeout"] = "5m"
        let_go_during_the_next(lone, failed)
        done = lone.up()
        assert "is still starting: waiting" in done.text
        assert done.replaced == {"lone-container"}
        assert (lone.containers()["lone"] != slow, health(lone)) == (True, "healthy")
        assert lone.up().steps == {}

    def test_one_that_hangs_is_a_failure_until_somebody_ends_it(self, lone: Stack) -> None:
        hangs, _ = fail_a_start(lone, 63)
        docker("stop", "--time", "1", hangs)
        assert not lone.try_up().ok, "the index is locked, still"
        assert lone.containers()["lone"] != hangs
        docker("stop", "--time", "1", f"{lone.prefix}-lone")
        lone.sql(_LET_GO, database=DATABASE)
        lone.node_settings("lone")["startTimeout"] = 60
        lone.up()
        assert lone.node("lone").get("/system")["Name"] == "lone"


def test_a_database_with_tls_that_failed_is_still_a_failure(with_tls: Stack) -> None:
    """It says its entry point and its command: what the provider compares after a failure finds it unchanged, and made `up` green."""
    database = f"{with_tls.prefix}-db"
    image, volume = docker("inspect", "--format", "{{.Image}} {{(index .Mounts 0).Name}}", database).split()
    with_tls.sql("ALTER SYSTEM SET shared_preload_libraries = 'nobody_has_it'", database="postgres")
    with_tls.settings["indexDb"] |= {"maxConnections": 120, "startTimeout": _SHORT}
    for _ in range(2):
        done = with_tls.try_up()
        assert not done.ok, done.text
        assert f"db: the container {database} failed at its create" in done.text
        assert 'could not access file "nobody_has_it"' in done.text
    docker("run", "--rm", "--volume", f"{volume}:/data", "--entrypoint", "rm", image, "/data/postgresql.auto.conf")
    with_tls.settings["indexDb"]["startTimeout"] = 60
    with_tls.up()


def test_another_limit_replaces_nothing(lone: Stack) -> None:
    lone.node_settings("lone")["startTimeout"], lone.settings["indexDb"]["startTimeout"] = "50m", "30m"
    assert lone.up().replaced == set()


def test_shared_memory_follows_the_databases(lone: Stack) -> None:
    assert docker("exec", f"{lone.prefix}-db", "df", "-m", "--output=size", "/dev/shm").split()[-1] == "256"


def test_the_session_of_a_node_that_is_cut_off_ends(lone: Stack) -> None:
    """And with it its lock on the index, so that a node which takes its place does not wait for it."""
    node, database = f"{lone.prefix}-lone", f"{lone.prefix}-db"
    of_node, of_db = (set(json.loads(docker("inspect", one))[0]["NetworkSettings"]["Networks"]) for one in (node, database))
    (network,) = of_node & of_db
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
    assert int(lone.sql(locks, database=DATABASE)) > 0, "the node holds no lock"
    docker("network", "disconnect", "--force", network, node)
    cut = time.monotonic()
    try:
        eventually("the lock is free", lambda: lone.sql(locks, database=DATABASE) == "0", seconds=25)
        assert time.monotonic() - cut < 20
    finally:
        docker("network", "connect", "--alias", "lone", network, node)
    eventually("the node serves again", lambda: lone.node("lone").ask("/statistics")[0] == 200)


def test_without_a_docker_command_nothing_is_made(program: Path, tmp_path: Path) -> None:
    """S7: nobody can see whether a volume is there, and whose it is."""
    stack = Stack(program, "dev")
    for folder in filter(os.path.isdir, os.environ["PATH"].split(os.pathsep)):
        for command in Path(folder).iterdir():
            if command.name != "docker" and not (tmp_path / command.name).exists():
                (tmp_path / command.name).symlink_to(command)
    stack.variable("PATH", str(tmp_path))
    try:
        done = stack.try_up()
        assert not done.ok
        assert "there is no docker command on PATH. Install Docker's command-line client" in done.text
        assert (stack.containers(), stack.volumes(), stack.networks()) == ({}, set(), [])
    finally:
        stack.wipe()
