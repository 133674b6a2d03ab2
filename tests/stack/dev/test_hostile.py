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
from urllib.parse import urlsplit

import pytest

from ops.stack.verify import verify
from tests.stack.dicom import echo, store_bytes
from tests.stack.engine import docker, eventually
from tests.stack.harness import Node
from tests.stack.hostile import COMPRESSED, DATASETS, FILES, LENGTHS, PDUS, STALLED
from tests.stack.like_dev import WORKSTATION, Dev
from tests.stack.sending import operated_on

pytestmark = pytest.mark.slow("56 inputs, after each of which the server is waited for; some end it, and one caller stalls for 30 seconds")

#: Within which a node is in service again.
SECONDS = 30


@dataclass
class Siege:
    """The stack under attack, which is on its server alone, and how it was before; what took the server down, and for how many seconds."""

    dev: Dev
    stalled: socket.socket
    began: float
    went_down: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.target, self.address = self.dev.server, urlsplit(self.dev.server.url)
        self._others, self._images = self._starts(), self._counts()
        self._start, self._held = self._starts("server"), set(self.target.get("/instances"))

    def check(self, what: str, answer: object) -> None:
        """The node serves, what it holds is what it held, less what it took and said so; and nobody else noticed."""
        started = time.monotonic()
        eventually(f"the server serves after {what}", self._serves, SECONDS)
        if (start := self._starts("server")) != self._start:
            self._start, self.went_down[what] = start, round(time.monotonic() - started, 1)
        print(f"{what}: {answer}; {f'down for {self.went_down[what]} s' if what in self.went_down else 'in service'}")
        assert self._starts() == self._others, f"another container was started anew by {what}"
        if answer in (200, "taken"):
            for instance in set(self.target.get("/instances")) - self._held:
                assert self.target.ask(f"/instances/{instance}", method="DELETE")[0] == 200
        assert self._counts() == self._images, f"{what} left images behind"

    def _serves(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.target.ask("/system")[0] == 200
        return False

    def _starts(self, only: str = "") -> str:
        """When a container was started, and how often; by default all but the server."""
        containers = self.dev.stack.containers()
        form = "{{.Name}} {{.Id}} {{.State.Status}} {{.State.StartedAt}} {{.RestartCount}}"
        wanted = [only] if only else sorted(containers.keys() - {"server"})
        return docker("inspect", "--format", form, *(containers[name] for name in wanted))

    def _counts(self) -> list[int]:
        return [node.get("/statistics")["CountInstances"] for node in (self.dev.server, self.dev.client)]


@pytest.fixture(scope="module")
def siege(dev: Dev) -> Iterator[Siege]:
    """The stack, with a connection to the client that stalls from now on."""
    client = dev.client
    with socket.create_connection((client.host, client.port)) as stalled:
        stalled.sendall(STALLED)
        found = Siege(dev, stalled, time.monotonic())
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


def say(host: str | None, port: int | None, what: bytes) -> bytes:
    """Send bytes, and nothing more; what comes back before the other end hangs up."""
    with socket.create_connection((host or "", port or 0), timeout=5) as connection, contextlib.suppress(OSError):
        connection.sendall(what)
        connection.shutdown(socket.SHUT_WR)
        return connection.recv(4096)
    return b""


@pytest.mark.parametrize("name", [*FILES, *COMPRESSED])
def test_files_over_rest(siege: Siege, name: str) -> None:
    answer = post(siege.target, FILES[name]) if name in FILES else post(siege.target, COMPRESSED[name], **{"Content-Encoding": "gzip"})
    assert name in FILES or answer != 200
    siege.check(name, answer)


@pytest.mark.parametrize("login", [True, False], ids=["a user", "nobody"])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_body_that_claims_a_length(siege: Siege, length: str, login: bool) -> None:
    lines = ["POST /instances HTTP/1.1", "Host: a", f"Content-Length: {length}"]
    lines += [f"Authorization: {siege.target.authorization}"] if login else []
    started = time.monotonic()
    answer = say(siege.address.hostname, siege.address.port, "\r\n".join([*lines, "", "abc"]).encode())
    assert not answer.startswith(b"HTTP/1.1 2")
    # Refused, and not made room for: nine gigabytes of zeros take longer.
    assert time.monotonic() - started < 4
    siege.check(f"a Content-Length of {length} by {'a user' if login else 'nobody'}", answer[:30])


@pytest.mark.parametrize("name", DATASETS)
def test_data_sets_over_dicom(siege: Siege, name: str) -> None:
    taken = store_bytes(siege.target, WORKSTATION, DATASETS[name])
    siege.check(f"{name}, by C-STORE", {None: "no answer", True: "taken", False: "refused"}[taken])


@pytest.mark.parametrize("name", PDUS)
def test_rubbish_at_the_dicom_port(siege: Siege, name: str) -> None:
    answer = say(siege.target.host, siege.target.port, PDUS[name])
    assert echo(siege.target, WORKSTATION), "its DICOM port serves on"
    siege.check(f"{name}, at the DICOM port", answer)


def test_a_caller_that_stalls_is_hung_up_on(siege: Siege) -> None:
    # Orthanc takes in one caller at a time, and DCMTK waits 30 seconds for the rest of a request (DicomServer.cpp, acse_timeout).
    eventually("the client answers others again", lambda: echo(siege.dev.client, WORKSTATION), 2 * SECONDS)
    siege.stalled.settimeout(SECONDS)
    assert siege.stalled.recv(1) == b""
    print(f"\na caller that stalled: hung up on, at the latest after {time.monotonic() - siege.began:.0f} s")


def test_the_stack_is_whole(siege: Siege) -> None:
    with operated_on(siege.dev.stack) as operated:
        results = verify(operated, siege.dev.stack.outputs())
    assert [result for result in results if result.outcome != "ok"] == []
    siege.check("everything", "verified")
