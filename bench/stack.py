"""Stacks like dev that suites send images through, whose forwarder is reached from here."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from bench.orthanc import nodes_of
from bench.pulumi_stack import PulumiStack, copy_program, dev_settings
from bench.session import BenchError, Session, run

_PATIENCE_SECONDS: Final = 7200
#: The stack that this project replaces had none of these settings: Orthanc's defaults, and two connections to its index.
_SEED_OPTIONS: Final = {"MaximumPduLength": 16384}
_SEED_SERVER: Final = {"PostgreSQL": {"IndexConnectionsCount": 2}}
_SEED_PROGRAM: Final = {
    "components/orthanc_node.py": {'_TRANSPORT = {"TCP_BUFFER_LENGTH": "1048576", "TCP_NODELAY": "1"}': "_TRANSPORT: dict[str, str] = {}"},
}
#: Where a container's processor time is, and its units in a second: control groups of version 2 with and without systemd, of version 1.
_CPU_FILES: Final = (
    ("system.slice/docker-{}.scope/cpu.stat", 1e6),
    ("docker/{}/cpu.stat", 1e6),
    ("cpuacct/docker/{}/cpuacct.usage", 1e9),
)
_OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Stack(PulumiStack):
    """A running stack like dev, whose forwarder is reached from here.

    Attributes:
        client: the node that forwards.
        server: its destination.
        forwarder: the forwarder's container.
        workstation: with TLS, the certificate and the key of its device; else None.
    """

    def __init__(self, session: Session, program: Path, settings: dict[str, Any]) -> None:
        super().__init__(session, program, settings)
        self.up()
        outputs = self.outputs()
        nodes = nodes_of(outputs)
        self.client, self.server = nodes["client"], nodes["server"]
        self.forwarder = f"{self.prefix}-client-forwarder"
        self.workstation = self.identity("workstation")
        self._status_url = outputs["nodes"]["client"]["metricsUrl"].replace("/metrics", "/status")

    def status(self) -> dict[str, Any]:
        """How its only link is."""
        with _OPENER.open(self._status_url, timeout=60) as answer:
            link: dict[str, Any] = json.load(answer)["links"][0]
        return link

    def start(self) -> None:
        """Start the forwarder anew, be it stopped or held; returns when it answers."""
        run(["docker", "restart", self.forwarder])
        for _ in range(600):
            try:
                self.status()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise BenchError("the forwarder does not answer")

    def stop(self) -> None:
        """Stop the forwarder."""
        run(["docker", "stop", self.forwarder])

    def hold(self) -> None:
        """Halt the forwarder's processes: a backlog grows, and its start is no part of what is measured then."""
        self._delivered = self.status()["delivered"]
        run(["docker", "pause", self.forwarder])

    def empty(self) -> None:
        """Delete everything at both nodes."""
        self.client.empty()
        self.server.empty()

    def progress(self, images: int, every: float = 0.2) -> Iterator[int]:
        """How many images the forwarder has delivered, until it has delivered so many.

        Args:
            images: so many.
            every: seconds between two questions, which cost the forwarder something.
        """
        end = time.monotonic() + _PATIENCE_SECONDS
        while (said := self.status())["delivered"] < images:
            if time.monotonic() > end:
                raise BenchError(f"not delivered: {said}")
            yield said["delivered"]
            time.sleep(every)

    def await_delivery(self, images: int, every: float = 0.2) -> None:
        """Wait until the forwarder has delivered so many images."""
        for _ in self.progress(images, every):
            pass

    def deliver(self, images: int) -> float:
        """Let the forwarder go on, which was held; the seconds until it has delivered so many images more."""
        started = time.monotonic()
        run(["docker", "unpause", self.forwarder])
        self.await_delivery(self._delivered + images, every=0.05)
        return time.monotonic() - started


#: Stacks that are kept, by kind.
_KEPT: Final[dict[str, Stack]] = {}


@contextlib.contextmanager
def running(
    session: Session, suite: str, kind: str = "project", *, tls: bool = False, replace: Mapping[str, Mapping[str, str]] | None = None
) -> Iterator[Stack]:
    """A stack like dev, empty; destroyed afterwards, but for the short form, which keeps it for the next suite.

    Args:
        session: the run of the bench.
        suite: whose it is.
        kind: what distinguishes it from the suite's other stacks; "seed" is the same with the settings taken away that make transfers
            faster.
        tls: with TLS everywhere.
        replace: texts of its program to replace, by file.
    """
    stack = _KEPT.pop(kind, None) or _make(session, f"{suite}-{kind}", tls=tls, seed=kind == "seed", replace=replace or {})
    stack.empty()
    stack.start()
    yield stack
    if session.size(whole=True, short=False):
        stack.destroy()
    else:
        _KEPT[kind] = stack


def _make(session: Session, folder: str, *, tls: bool, seed: bool, replace: Mapping[str, Mapping[str, str]]) -> Stack:
    settings = dev_settings(session, tls=tls)
    for node in settings["nodes"]:
        if node["name"] == "client":
            node["metricsPort"] = session.free_port()
        if seed:
            node["orthanc"] = _SEED_OPTIONS | (_SEED_SERVER if node["name"] == "server" else {})
    return Stack(session, copy_program(session.folder / folder, replace=_SEED_PROGRAM if seed else replace), settings)


def cpu_seconds(container: str) -> float:
    """The processor time of all of a container's processes until now, health checks as well."""
    identifier = run(["docker", "inspect", "--format", "{{.Id}}", container]).strip()
    for path, unit in _CPU_FILES:
        file = Path("/sys/fs/cgroup", path.format(identifier))
        if file.exists():
            return int(file.read_text().replace("usage_usec", "").split()[0]) / unit
    raise BenchError(f"the engine's control group of {container} is not where it was looked for")


def memory_of(container: str) -> float:
    """Resident memory of a container's first process, in MiB."""
    pid = run(["docker", "inspect", "--format", "{{.State.Pid}}", container]).strip()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return int(status["VmRSS"].split()[0]) / 1024
