"""Forwarding: how soon a series is at the archive, how fast a backlog goes out beside the same transfer by hand, what waiting costs."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.dicom import seed_stack, send
from bench.orthanc import Node, nodes_of, store_side_by_side, upload
from bench.phantom import CT, Phantom
from bench.pulumi_stack import PulumiStack, copy_program, dev_settings
from bench.results import Results, Row
from bench.session import BenchError, Session, run

PER_SERIES: Final = 100
#: Series that are sent one after another, for the 95th percentile of their latency.
SERIES: Final = 20
#: Images of a backlog that is compared with the transfer by hand: so many that the forwarder's start is a small part of it.
BACKLOG: Final = 2_000
_SEEDS_BACKLOG: Final = 200
_IDLE_SECONDS: Final = 60
_PATIENCE_SECONDS: Final = 7200
#: Where a container's processor time is, and its units in a second: control groups of version 2 with and without systemd, of version 1.
_CPU_FILES: Final = (
    ("system.slice/docker-{}.scope/cpu.stat", 1e6),
    ("docker/{}/cpu.stat", 1e6),
    ("cpuacct/docker/{}/cpuacct.usage", 1e9),
)
_OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Stack:
    """A running stack like dev, whose forwarder is reached from here.

    Attributes:
        prefix: what the names of its containers begin with.
        client: the node that forwards.
        server: its destination.
        status_url: where the forwarder says how it is.
        workstation: with TLS, the certificate and the key of its device; else None.
    """

    prefix: str
    client: Node
    server: Node
    status_url: str
    workstation: Path | None = None

    @property
    def forwarder(self) -> str:
        """The forwarder's container."""
        return f"{self.prefix}-client-forwarder"

    def status(self) -> dict[str, Any]:
        """How its only link is."""
        with _OPENER.open(self.status_url, timeout=60) as answer:
            link: dict[str, Any] = json.load(answer)["links"][0]
        return link

    def start(self) -> None:
        """Start the forwarder; returns when it answers."""
        run(["docker", "start", self.forwarder])
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


@contextlib.contextmanager
def running(session: Session, folder: str, *, tls: bool = False, replace: Mapping[str, Mapping[str, str]] | None = None) -> Iterator[Stack]:
    """A stack like dev.

    Args:
        session: the run of the bench.
        folder: the name of its program's folder.
        tls: with TLS everywhere.
        replace: texts of its program to replace, by file.
    """
    settings = dev_settings(session, tls=tls)
    client = next(node for node in settings["nodes"] if node["name"] == "client")
    client["metricsPort"] = session.free_port()
    project = PulumiStack(session, copy_program(session.folder / folder, replace=replace), settings)
    project.up()
    outputs = project.outputs()
    nodes = nodes_of(outputs)
    yield Stack(
        prefix=project.prefix,
        client=nodes["client"],
        server=nodes["server"],
        status_url=outputs["nodes"]["client"]["metricsUrl"].replace("/metrics", "/status"),
        workstation=project.identity("workstation") if tls else None,
    )
    project.destroy()


def measure(session: Session, runs: int) -> None:
    """All of it, on one stack; the seed's transfer on another one."""
    results = Results("forward")
    with running(session, "forward-project") as stack:
        _measure(session, stack, runs, results)


def _measure(session: Session, stack: Stack, runs: int, results: Results) -> None:
    _idle(stack, results)
    _latency(session, stack, results)
    seed = seed_stack(session, "forward-seed")
    seed.up()
    run(["docker", "stop", f"{seed.prefix}-client-forwarder"])
    seed_nodes = nodes_of(seed.outputs())
    for number in range(1, runs + 1):
        _beside_hand(stack, seed_nodes, results, number)
    seed.destroy()


def _idle(stack: Stack, results: Results) -> None:
    """What the forwarder costs while nothing comes, and what its questions cost the node."""
    with_forwarder = _cpu(f"{stack.prefix}-client", stack.forwarder)
    results.add(Row("idle", "forwarder", "CPU", 1, with_forwarder[1], "% of a core"))
    results.add(Row("idle", "forwarder", "memory", 1, memory_of(stack.forwarder), "MiB"))
    stack.stop()
    without = _cpu(f"{stack.prefix}-client")
    results.add(Row("idle", "client's Orthanc", "CPU, with the forwarder", 1, with_forwarder[0], "% of a core"))
    results.add(Row("idle", "client's Orthanc", "CPU, without", 1, without[0], "% of a core"))
    stack.start()


def _cpu(*containers: str) -> list[float]:
    """Per cent of a core that containers take while nothing happens."""
    before, started = [cpu_seconds(name) for name in containers], time.monotonic()
    time.sleep(_IDLE_SECONDS)
    seconds = time.monotonic() - started
    return [100 * (cpu_seconds(name) - was) / seconds for name, was in zip(containers, before, strict=True)]


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


def _latency(session: Session, stack: Stack, results: Results) -> None:
    """From the last acknowledgement to the sender to the archive's confirmation, a series at a time."""
    phantom = Phantom(CT)
    for series in range(SERIES):
        folder = session.folder / f"latency-{series}"
        folder.mkdir()
        for image in range(PER_SERIES):
            (folder / f"{image:04}.dcm").write_bytes(phantom.file(series, series * PER_SERIES + image))
        wanted = stack.status()["delivered"] + PER_SERIES
        send(stack.client, folder)
        sent = time.monotonic()
        until(stack, wanted, every=0.03)
        results.add(Row("latency", "forwarder", f"CT series of {PER_SERIES}", series + 1, time.monotonic() - sent, "s"))
        time.sleep(1)
    empty(stack)


def until(stack: Stack, delivered: int, every: float = 0.2) -> dict[str, Any]:
    """Ask the forwarder until it has delivered so many images, with so many seconds between two questions, which cost it something."""
    end = time.monotonic() + _PATIENCE_SECONDS
    while (said := stack.status())["delivered"] < delivered:
        if time.monotonic() > end:
            raise BenchError(f"not delivered: {said}")
        time.sleep(every)
    return said


def empty(stack: Stack) -> None:
    """Delete everything at both nodes."""
    stack.client.empty()
    stack.server.empty()


def fill(client: Node, phantom: Phantom, images: int, first_series: int) -> None:
    """Put series into a node by HTTP, some thousand images at a time."""
    for start in range(0, images, 2000):
        numbers = range(start, min(images, start + 2000))
        done = upload(client, [phantom.file(first_series + i // PER_SERIES, first_series * PER_SERIES + i) for i in numbers], 4)
        if done.errors:
            raise BenchError(f"the client refused an upload: {done.errors[0]}")


def _beside_hand(stack: Stack, seed: dict[str, Node], results: Results, number: int) -> None:
    """The same series, to an empty archive: sent by hand with as many jobs as the forwarder has associations, and by the forwarder."""
    phantom = Phantom(CT)
    stack.stop()
    empty(stack)
    fill(stack.client, phantom, BACKLOG, 0)
    for jobs in (1, 2):
        stack.server.empty()
        seconds = _by_hand(stack.client, jobs)
        results.add(Row("backlog", "by hand", f"{jobs} job{'s' * (jobs > 1)}", number, BACKLOG / seconds, "images/s"))
    stack.server.empty()
    started = time.monotonic()
    stack.start()
    until(stack, BACKLOG)
    results.add(Row("backlog", "forwarder", "2 associations", number, BACKLOG / (time.monotonic() - started), "images/s"))
    seed["client"].empty()
    seed["server"].empty()
    fill(seed["client"], phantom, _SEEDS_BACKLOG, 0)
    results.add(Row("backlog", "seed, by hand", "1 job", number, _SEEDS_BACKLOG / _by_hand(seed["client"], 1), "images/s"))


def _by_hand(client: Node, jobs: int) -> float:
    """Each series by a job, so many at once; the seconds until the last has ended."""
    series = sorted(client.call("GET", "/series"))
    return store_side_by_side(client, [[[one] for one in series[i::jobs]] for i in range(jobs)])
