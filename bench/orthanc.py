"""A node of a running stack, over its REST API, with connections that stay open."""

from __future__ import annotations

import base64
import functools
import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from bench.session import BenchError

_TIMEOUT_SECONDS = 300


@dataclass(frozen=True)
class Node:
    """A node.

    Attributes:
        name: its name in the stack file.
        aet: its AE title.
        url: its web interface.
        dicom: where its DICOM port is on this machine.
        login: a user and the password.
        trust: the certificate that it is trusted by, as PEM; empty for one without TLS.
    """

    name: str
    aet: str
    url: str
    dicom: tuple[str, int]
    login: tuple[str, str] = field(repr=False)
    trust: str = field(default="", repr=False)

    def connect(self) -> http.client.HTTPConnection:
        """A connection for one thread."""
        where = urlsplit(self.url).netloc
        if not self.trust:
            return http.client.HTTPConnection(where, timeout=_TIMEOUT_SECONDS)
        return http.client.HTTPSConnection(where, timeout=_TIMEOUT_SECONDS, context=context_of(self.trust))

    def ask(self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """One request; any status is an answer."""
        token = base64.b64encode(":".join(self.login).encode()).decode()
        connection.request(method, path, body, {"Authorization": f"Basic {token}"})
        answer = connection.getresponse()
        return answer.status, answer.read()

    def call(self, method: str, path: str, body: Mapping[str, Any] | Sequence[str] | None = None) -> Any:
        """One request on a connection of its own, and the JSON that answers.

        Raises:
            BenchError: the answer is not 200.
        """
        connection = self.connect()
        try:
            status, answer = self.ask(connection, method, path, None if body is None else json.dumps(body).encode())
        finally:
            connection.close()
        if status != 200:
            raise BenchError(f"{method} {self.name}{path}: {status} {answer[:300]!r}")
        return json.loads(answer)

    def instances(self) -> int:
        """How many instances it holds."""
        return int(self.call("GET", "/statistics")["CountInstances"])

    def empty(self) -> None:
        """Delete everything."""
        for patient in self.call("GET", "/patients"):
            self.call("DELETE", f"/patients/{patient}")
        if left := self.instances():
            raise BenchError(f"{self.name} still holds {left} instances after it was emptied")


@functools.cache
def context_of(trust: str) -> ssl.SSLContext:
    """TLS that trusts a node's certificate, which also names the address that it is reached at from here."""
    return ssl.create_default_context(cadata=trust)


def nodes_of(outputs: Mapping[str, Any]) -> dict[str, Node]:
    """The nodes in a stack's outputs."""
    return {
        name: Node(
            name=name,
            aet=said["aet"],
            url=said["httpUrl"],
            dicom=(said["dicomHost"], int(said["dicomPort"])),
            login=next(iter(outputs["users"][name].items())),
            trust=said.get("tlsTrust", ""),
        )
        for name, said in outputs["nodes"].items()
    }


@dataclass
class Upload:
    """What came of an upload.

    Attributes:
        seconds: from the first request to the last answer.
        identifiers: Orthanc's identifiers of what was stored.
        errors: the answers that were not 200, or the exception, each with its body.
    """

    seconds: float = 0.0
    identifiers: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def upload(node: Node, files: Iterable[bytes], clients: int) -> Upload:
    """POST files from as many clients at once, each on a connection that stays open; each takes the next file that none has taken.

    Nothing is sent a second time: each error is kept.
    """
    result, waiting, lock = Upload(), iter(files), threading.Lock()

    def client() -> None:
        connection = node.connect()
        while True:
            with lock:
                file = next(waiting, None)
            if file is None:
                break
            try:
                status, body = node.ask(connection, "POST", "/instances", file)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                status, body = 0, repr(error).encode()
            if status == 200:
                result.identifiers.append(json.loads(body)["ID"])
            else:
                result.errors.append(f"{status} {' '.join(body.decode(errors='replace').split())}")
        connection.close()

    result.seconds = _at_once([client] * clients)
    return result


def store(node: Node, files: Iterable[bytes], clients: int = 4) -> Upload:
    """Upload files.

    Raises:
        BenchError: the node refused one.
    """
    done = upload(node, files, clients)
    if done.errors:
        raise BenchError(f"{node.name} refused an upload: {done.errors[0]}")
    return done


def send_by_jobs(client: Node, shares: Sequence[Sequence[Sequence[str]]], *, commitment: bool = False) -> float:
    """POST /modalities/server/store of a node, job after job, for several shares of the work at once.

    Args:
        client: the node.
        shares: for each thread its jobs, for each job what it sends.
        commitment: ask for storage commitment in each job, too.

    Returns:
        the seconds until the last job has ended, and the last report of storage commitment has come.

    Raises:
        BenchError: a job failed.
    """

    def work(jobs: Sequence[Sequence[str]]) -> None:
        asked = []
        for resources in jobs:
            wanted = {"Resources": list(resources), "Synchronous": True, "StorageCommitment": commitment}
            asked.append(client.call("POST", "/modalities/server/store", wanted))
        for job in asked if commitment else ():
            while (report := client.call("GET", f"/storage-commitment/{job['StorageCommitmentTransactionUID']}"))["Status"] == "Pending":
                time.sleep(0.01)
            if report["Status"] != "Success":
                raise BenchError("the server has not committed itself")

    try:
        return _at_once([functools.partial(work, jobs) for jobs in shares])
    except (BenchError, OSError) as error:
        raise BenchError(f"a job failed: {error}") from error


def _at_once(works: Sequence[Callable[[], None]]) -> float:
    """Run each in a thread; the seconds until the last has ended."""
    started = time.monotonic()
    with ThreadPoolExecutor(len(works)) as threads:
        running = [threads.submit(work) for work in works]
    seconds = time.monotonic() - started
    for one in running:
        one.result()
    return seconds
