"""Things that go wrong outside the stack file end with an error that names what it is about, and no traceback."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.stack.harness import Done, Stack, eventually
from tests.stack.like_dev import Dev

#: How long a container may take to become healthy here; by default it would be two minutes a test.
START_SECONDS = 20


@contextmanager
def one_node(program: Path, **node: Any) -> Iterator[Stack]:
    """A stack of one node that keeps its index in SQLite, unless it is said otherwise; not deployed."""
    stack = Stack(program, "dev", nodes=[], modalities=[])
    stack.settings.pop("adminer")
    stack.settings["indexDb"] = {"startTimeout": START_SECONDS}
    stack.add_node("lone", **({"index": "sqlite", "startTimeout": START_SECONDS} | node))
    try:
        yield stack
    finally:
        stack.wipe()


def assert_refused(done: Done, *said: str) -> None:
    """The operation failed, and a user reads these words and no traceback."""
    assert not done.ok, done.text
    assert "Traceback" not in done.text, done.text
    for words in said:
        assert words in done.text, f"{words!r} is not in what it prints:\n{done.text}"


def test_no_engine(program: Path) -> None:
    with one_node(program) as stack:
        stack.variable("DOCKER_HOST", "unix:///nonexistent/docker.sock")
        started = time.monotonic()
        assert_refused(stack.try_up(), "the Docker engine", "is not reached", "/nonexistent/docker.sock", "Start it")
        assert time.monotonic() - started < 30


def test_a_missing_image(program: Path) -> None:
    with one_node(program) as stack:
        # A registry on this machine's port 1: there is none, and the refusal comes at once.
        stack.settings["images"] = {"source": "registry", "orthanc": "localhost:1/nobody/orthanc:1.2.3"}
        done = stack.try_up()
        assert_refused(done, "The image localhost:1/nobody/orthanc:1.2.3 is missing.", "images.source: local")
        assert done.seconds < 60
        assert "lone" not in stack.containers()


def test_a_port_that_is_taken_before(program: Path) -> None:
    with one_node(program) as stack, socket.create_server(("127.0.0.1", stack.node_settings("lone")["dicomPort"])):
        assert_refused(stack.try_up(), "nodes[0].dicomPort", "is taken on this host", "Nothing was touched")
        assert stack.networks() == []


def test_a_port_that_is_stolen_after_the_check(program: Path) -> None:
    """Taken as soon as the database runs: the settings have been checked by then, and the node is made after it."""
    with one_node(program, index="postgresql") as stack:
        port, stolen = stack.node_settings("lone")["httpPort"], threading.Event()

        def steal() -> None:
            end = time.monotonic() + 60
            while "db" not in stack.containers() and time.monotonic() < end:
                time.sleep(0.05)
            with socket.create_server(("127.0.0.1", port)):
                stolen.wait(120)

        thief = threading.Thread(target=steal)
        thief.start()
        try:
            done = stack.try_up()
        finally:
            stolen.set()
            thief.join()
        assert_refused(done, f"lone: the container {stack.prefix}-lone failed at its create", "Another program or container took the port")
        # Once it is free, the same command goes on from there.
        stack.up()
        assert stack.node("lone").get("/system")["Name"] == "lone"


def test_a_container_that_never_becomes_healthy(program: Path) -> None:
    # Which names of tags there are, only Orthanc knows.
    with one_node(program, orthanc={"ExtraMainDicomTags": {"Study": ["Klingon"]}}) as stack:
        done = stack.try_up()
        assert_refused(done, f"lone: the container {stack.prefix}-lone failed at its create", "    | ", "Uncaught exception, stopping now")
        # Corrected, the same command puts it right.
        stack.node_settings("lone")["orthanc"] = {}
        stack.up()
        assert stack.node("lone").get("/system")["Name"] == "lone"


def test_a_database_password_that_is_not_the_volumes(program: Path) -> None:
    with one_node(program, index="postgresql") as stack:
        stack.up()
        right, before = stack.secrets["dbPassword"], stack.containers()
        stack.secrets["dbPassword"] = "not-the-one-of-the-volume"
        done = stack.try_up()
        assert_refused(done, "db-roles", "password authentication failed", "dbPassword is not the one")
        assert "not-the-one-of-the-volume" not in done.text
        assert stack.containers()["lone"] == before["lone"]
        stack.secrets["dbPassword"] = right
        stack.up()
        # The database has a new container: the node finds back to it by itself.
        eventually("the node serves", lambda: stack.node("lone").ask("/statistics")[0] == 200)


@pytest.mark.parametrize(
    ("where", "value"), [("httpPort", "8043"), ("aet", "A\x1b[2JB"), ("orthanc", {"StableAge": -1}), ("orthanc", {"Locale": "${HOME}"})]
)
def test_a_malformed_stack_file(program: Path, where: str, value: Any) -> None:
    with one_node(program) as stack:
        stack.node_settings("lone")[where] = value
        done = stack.try_up()
        assert_refused(done, f"nodes[0].{where}", "Nothing was touched")
        assert "\x1b" not in done.text
        assert (stack.containers(), stack.networks(), stack.volumes()) == ({}, [], set())


class TestDataThatDoesNotFit:
    """Refused before anything is touched: the volumes exist and were made by something else."""

    def test_another_major_version_of_postgresql(self, dev: Dev) -> None:
        before = dev.stack.containers()
        with dev.stack.trying() as settings:
            settings["images"] = {"source": "registry", "postgres": "postgres:16.10"}
            settings["indexDb"] = {"majorVersion": 16}
            done = dev.stack.try_up()
        assert_refused(done, "indexDb.majorVersion = '16'", f"{dev.stack.prefix}-db", "PostgreSQL 17 wrote", "Nothing was touched")
        assert dev.stack.containers() == before

    @pytest.mark.parametrize(("place", "name", "index"), [(0, "server", "sqlite"), (1, "client", "postgresql")])
    def test_another_kind_of_index(self, dev: Dev, place: int, name: str, index: str) -> None:
        before = dev.stack.containers()
        with dev.stack.trying():
            dev.stack.add_node("keeper", index="postgresql")  # so that there is a database, and Adminer has something to show
            dev.stack.node_settings(name)["index"] = index
            done = dev.stack.try_up()
        assert_refused(done, f"nodes[{place}].index = '{index}'", f"{dev.stack.prefix}-{name}", "Nothing was touched")
        assert dev.stack.containers() == before
