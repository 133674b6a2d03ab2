"""Things that go wrong outside the stack file end with an error that names what it is about, and no traceback."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.stack.engine import docker, eventually, free_ports
from tests.stack.harness import Done, Stack, without_nodes

pytestmark = pytest.mark.slow("each start that fails is waited for until its startTimeout, and then repaired by another up")


@pytest.fixture(scope="module")
def lone(program: Path) -> Iterator[Stack]:
    """A deployed node with its index in PostgreSQL. Each test puts right what it has broken."""
    stack = without_nodes(program)
    stack.add_node("lone", index="postgresql")
    with stack.deployed():
        yield stack


def assert_refused(done: Done, *said: str) -> None:
    """The operation failed, and a user reads these words and no traceback."""
    assert not done.ok, done.text
    assert "Traceback" not in done.text, done.text
    for words in said:
        assert words in done.text, f"{words!r} is not in what it prints:\n{done.text}"


@contextmanager
def nothing_touched(stack: Stack) -> Iterator[dict[str, Any]]:
    """Containers, networks and volumes are the same afterwards; the settings are taken back, also in the stack file."""
    before = stack.containers(), stack.networks(), stack.volumes()
    with stack.trying() as settings:
        yield settings
    stack._write()
    assert (stack.containers(), stack.networks(), stack.volumes()) == before


def put_right(stack: Stack) -> None:
    """Corrected, the same command goes on from there."""
    stack.up()
    eventually("the node serves", lambda: stack.node("lone").ask("/statistics")[0] == 200)


def test_no_engine(lone: Stack) -> None:
    with nothing_touched(lone):
        lone.variable("DOCKER_HOST", "unix:///nonexistent/docker.sock")
        done = lone.try_up()
        del lone.environment["DOCKER_HOST"]
    assert_refused(done, "the Docker engine", "is not reached", "/nonexistent/docker.sock", "Start it")
    assert done.seconds < 30


def test_a_missing_image(lone: Stack) -> None:
    with nothing_touched(lone):
        # A registry on this machine's port 1: there is none, and the refusal comes at once.
        lone.settings["images"] = {"source": "registry", "orthanc": "localhost:1/nobody/orthanc:1.2.3"}
        done = lone.try_up()
    assert_refused(done, "The image localhost:1/nobody/orthanc:1.2.3 is missing.", "images.source: local")
    assert done.seconds < 60


def test_a_port_that_is_stolen_after_the_check(lone: Stack) -> None:
    """Taken as soon as the node is asked to stop: the settings have been checked by then, and it is made anew after it."""
    container, let_go = f"{lone.prefix}-lone", threading.Event()
    (port,) = free_ports(1)
    watched = ["timeout", "120", "docker", "events", "--filter", f"container={container}", "--filter", "event=kill"]

    def steal() -> None:
        with subprocess.Popen(watched, stdout=subprocess.PIPE) as events:
            assert events.stdout is not None
            events.stdout.readline()
            events.terminate()
        with socket.create_server(("127.0.0.1", port)):
            let_go.wait(120)

    thief = threading.Thread(target=steal)
    thief.start()
    lone.node_settings("lone")["httpPort"] = port
    done = lone.try_up()
    let_go.set()
    thief.join()
    assert_refused(done, f"lone: the container {container} failed at its create", "Another program or container took the port")
    put_right(lone)


def test_a_container_that_never_becomes_healthy(lone: Stack) -> None:
    with lone.trying():
        # Which names of tags there are, only Orthanc knows.
        lone.node_settings("lone").update({"orthanc": {"ExtraMainDicomTags": {"Study": ["Klingon"]}}, "startTimeout": 5})
        done = lone.try_up()
    failed = f"lone: the container {lone.prefix}-lone failed at its create"
    assert_refused(done, failed, "    | ", "Uncaught exception, stopping now")
    put_right(lone)


def test_a_database_password_that_is_not_the_volumes(lone: Stack) -> None:
    before = docker("inspect", "--format", "{{.Id}}", f"{lone.prefix}-lone")
    with lone.trying():
        lone.secrets["dbPassword"] = "not-the-one-of-the-volume"
        lone.settings["indexDb"] = {"startTimeout": 15}  # the database itself does start
        done = lone.try_up()
    assert_refused(done, "db-roles", "password authentication failed", "dbPassword is not the one")
    assert "not-the-one-of-the-volume" not in done.text
    assert lone.containers()["lone"] == before
    # The database gets a new container: the node finds back to it by itself.
    put_right(lone)
