"""Hostile input leaves every other container untouched, no image behind, and the node in service within 30 seconds.

A node may go down by it: deep sequences end Debian's Orthanc 1.13.0 (CVE-2026-10528), and what claims more than its memory holds. Then the
engine starts it again. docs/hostile-input.md says what each class did.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

from ops.containers import docker_runner
from ops.verify import verify
from tests.stack.dicom import echo, store_bytes
from tests.stack.harness import Node, docker, eventually
from tests.stack.hostile import COMPRESSED, DATASETS, FILES, LENGTHS, PDUS, STALLED
from tests.stack.like_dev import WORKSTATION, Dev

#: Within which a node is in service again.
SECONDS = 30


@dataclass
class Siege:
    """The stack under attack, which is on its server alone, and how it was before.

    Attributes:
        dev: the stack.
        stalled: a connection to the client's DICOM port that says nothing more.
        since: when it was made.
        went_down: what took the server down, and how long it was out of service.
    """

    dev: Dev
    stalled: socket.socket
    since: float
    went_down: dict[str, float] = field(default_factory=dict)
    _before: dict[str, Any] = field(default_factory=dict)
    _starts: str = ""
    _held: set[str] = field(default_factory=set)

    @property
    def target(self) -> Node:
        """The node that the input is sent to."""
        return self.dev.server

    def begin(self) -> None:
        """Look at what must not change."""
        self._before = {"others": self._others(), "images": self._images()}
        self._starts, self._held = self._start_of("server"), set(self.target.get("/instances"))

    def check(self, what: str, answer: object) -> None:
        """The node serves, what it holds is what it held, and nobody else noticed."""
        started = time.monotonic()
        eventually(f"the server serves after {what}", self._serves, SECONDS)
        if (starts := self._start_of("server")) != self._starts:
            self._starts, self.went_down[what] = starts, round(time.monotonic() - started, 1)
        print(f"{what}: {answer}; {f'down for {self.went_down[what]} s' if what in self.went_down else 'in service'}")
        assert self._others() == self._before["others"], f"another container was started anew by {what}"
        assert self._images() == self._before["images"], f"{what} left images behind"

    def take_out(self) -> None:
        """Delete what the node took though it is malformed, and said so."""
        for instance in set(self.target.get("/instances")) - self._held:
            assert self.target.ask(f"/instances/{instance}", method="DELETE")[0] == 200

    def _serves(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.target.ask("/system")[0] == 200
        return False

    def _start_of(self, *names: str) -> str:
        containers = self.dev.stack.containers()
        form = "{{.Name}} {{.Id}} {{.State.Status}} {{.State.StartedAt}} {{.RestartCount}}"
        return docker("inspect", "--format", form, *(containers[name] for name in names))

    def _others(self) -> str:
        return self._start_of(*sorted(self.dev.stack.containers().keys() - {"server"}))

    def _images(self) -> list[int]:
        return [node.get("/statistics")["CountInstances"] for node in (self.dev.server, self.dev.client)]


@pytest.fixture(scope="module")
def siege(dev: Dev) -> Iterator[Siege]:
    """The stack, with a connection to the client that stalls from now on."""
    client = dev.client
    with socket.create_connection((client.host, client.port)) as stalled:
        stalled.sendall(STALLED)
        found = Siege(dev, stalled, time.monotonic())
        found.begin()
        yield found
        print("\nwent down:", json.dumps(found.went_down, indent=1))


def post(node: Node, body: bytes, **headers: str) -> int | str:
    """POST /instances: the answer's status, or how the connection ended without one."""
    address = urlsplit(node.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=SECONDS)
    with contextlib.closing(connection):
        try:
            connection.request("POST", "/instances", body, {"Authorization": node.authorization, **headers})
            with connection.getresponse() as answer:
                answer.read()
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
    return answer.status


def say(address: tuple[str, int], what: bytes, seconds: float = 5) -> bytes:
    """Send bytes, and nothing more; what comes back before the other end hangs up."""
    with socket.create_connection(address, timeout=seconds) as connection, contextlib.suppress(OSError):
        connection.sendall(what)
        connection.shutdown(socket.SHUT_WR)
        return connection.recv(4096)
    return b""


@pytest.mark.parametrize("name", FILES)
def test_files_over_rest(siege: Siege, name: str) -> None:
    answer = post(siege.target, FILES[name])
    if answer == 200:
        siege.take_out()
    siege.check(name, answer)


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_files_over_rest(siege: Siege, name: str) -> None:
    answer = post(siege.target, COMPRESSED[name], **{"Content-Encoding": "gzip"})
    assert answer != 200
    siege.check(name, answer)


@pytest.mark.parametrize("login", [True, False], ids=["a user", "nobody"])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_body_that_claims_a_length(siege: Siege, length: str, login: bool) -> None:
    address = urlsplit(siege.target.url)
    lines = ["POST /instances HTTP/1.1", "Host: a", f"Content-Length: {length}"]
    lines += [f"Authorization: {siege.target.authorization}"] if login else []
    started = time.monotonic()
    answer = say((address.hostname or "", address.port or 0), "\r\n".join([*lines, "", "abc"]).encode())
    assert not answer.startswith(b"HTTP/1.1 2")
    # Refused, and not made room for: nine gigabytes of zeros take longer.
    assert time.monotonic() - started < 4
    siege.check(f"a Content-Length of {length} by {'a user' if login else 'nobody'}", answer[:30])


@pytest.mark.parametrize("name", DATASETS)
def test_data_sets_over_dicom(siege: Siege, name: str) -> None:
    taken = store_bytes(siege.target, WORKSTATION, DATASETS[name])
    if taken:
        siege.take_out()
    siege.check(f"{name}, by C-STORE", {None: "no answer", True: "taken", False: "refused"}[taken])


@pytest.mark.parametrize("name", PDUS)
def test_rubbish_at_the_dicom_port(siege: Siege, name: str) -> None:
    answer = say((siege.target.host, siege.target.port), PDUS[name])
    assert echo(siege.target, WORKSTATION), "its DICOM port serves on"
    siege.check(f"{name}, at the DICOM port", answer)


def test_a_caller_that_stalls_is_hung_up_on(siege: Siege) -> None:
    # Orthanc takes in one caller at a time, and DCMTK waits 30 seconds for the rest of a request (DicomServer.cpp, acse_timeout).
    eventually("the client answers others again", lambda: echo(siege.dev.client, WORKSTATION), 2 * SECONDS)
    siege.stalled.settimeout(SECONDS)
    assert siege.stalled.recv(1) == b""
    print(f"\na caller that stalled: hung up on, at the latest after {time.monotonic() - siege.since:.0f} s")


def test_the_stack_is_whole(siege: Siege) -> None:
    results = verify(siege.dev.stack.outputs(), siege.dev.stack.prefix, docker_runner(["docker"]))
    assert [result for result in results if not result.ok] == []
    siege.check("everything", "verified")
