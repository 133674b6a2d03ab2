"""Who reaches whom: connections from inside containers, and from a machine outside, which is a network namespace of its own."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from configs.names import LABEL_ROLE, LABEL_STACK
from tests.stack.docker_bench import inspect
from tests.stack.engine import docker, eventually
from tests.stack.harness import Stack

Target = tuple[str, int]

#: Connects to each `address port` of its argument; prints those that answer each of three times. They are on the same machine: a second is
#: long. Three times, because Docker takes away the rule between networks and puts it back while it makes one (libnetwork#1658), as other
#: tests do beside this. Seen with Docker 20.10: 148 of 1,605 connections between two networks were let through while others were made.
_CONNECT: Final = """
import socket, sys, time
from concurrent.futures import ThreadPoolExecutor
def answers(target):
    address, port = target.split()
    try:
        for pause in (0.5, 0.5, 0):
            socket.create_connection((address, int(port)), 1).close()
            time.sleep(pause)
    except OSError:
        return ""
    return target + "\\n"
print("".join(ThreadPoolExecutor(32).map(answers, sys.argv[1].split(","))))
"""

#: Scans in the namespace: every port of each address, many at once.
_SCAN: Final = """
import asyncio, json, sys
addresses, last, patience = json.loads(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
async def scan(address, ports, found):
    for port in ports:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), patience)
            writer.close()
            found.append([address, port])
        except (OSError, asyncio.TimeoutError):
            pass
async def main():
    found = []
    for address in addresses:
        ports = iter(range(1, last + 1))
        await asyncio.gather(*(scan(address, ports, found) for _ in range(800)))
    print(json.dumps(found))
asyncio.run(main())
"""
_LISTEN: Final = """
import socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
while True:
    server.accept()[0].close()
"""


def answering(inspected: dict[str, Any], targets: Collection[Target]) -> set[Target]:
    """Which of some targets answer in a container's network, where a container of a node's image asks for it."""
    stack = inspected["Config"]["Labels"][LABEL_STACK]
    labels = [f"--filter=label={LABEL_STACK}={stack}", f"--filter=label={LABEL_ROLE}=node"]
    image = docker("ps", *labels, "--format", "{{.Image}}").split()[0]
    asked = ",".join(f"{address} {port}" for address, port in sorted(targets))
    run = [
        "run",
        "--rm",
        f"--label={LABEL_STACK}={stack}",
        f"--network=container:{inspected['Id']}",
        "--entrypoint=python3",
        image,
        "-c",
        _CONNECT,
        asked,
    ]
    return {(address, int(port)) for address, port in (line.split() for line in docker(*run).splitlines() if line)}


def addresses(inspected: dict[str, Any]) -> dict[str, str]:
    return {name: network["IPAddress"] for name, network in inspected["NetworkSettings"]["Networks"].items() if network["IPAddress"]}


#: What listens in a container, by its role.
LISTENING = {"node": (8042, 4242), "forwarder": (9042,), "db": (5432,), "adminer": (8080,)}
#: Published ports, inside.
PUBLISHED = {"node": {8042, 4242}, "adminer": {8080}, "db": set(), "forwarder": set(), "db-roles": set()}


def role_of(container: dict[str, Any]) -> str:
    return str(container["Config"]["Labels"][LABEL_ROLE])


def may_reach(stack: Stack, name: str) -> set[str]:
    """The containers that one may reach: those that it shares a network with, as the stack file says it."""
    nodes = stack.settings["nodes"]
    dicom = {node["name"] for node in nodes} | {f"{node['name']}-forwarder" for node in nodes if node.get("forwardTo")}
    index = {"db", "adminer", *(node["name"] for node in nodes if node.get("index", "postgresql") == "postgresql")}
    return {other for network in (dicom, index) if name in network for other in network - {name}}


def reached(stack: Stack) -> dict[str, set[tuple[str, int]]]:
    """For each container that runs, what it reaches of all others, at any of their addresses."""
    running = _running(stack)
    owner: dict[Target, str] = {}
    for name, shown in running.items():
        owner |= {(address, port): name for address in addresses(shown).values() for port in LISTENING[role_of(shown)]}
    found = {}
    for name, shown in running.items():
        others = {target for target in owner if owner[target] != name}
        found[name] = {(owner[target], target[1]) for target in answering(shown, others)}
    return found


def expected(stack: Stack) -> dict[str, set[tuple[str, int]]]:
    """The same, as the stack file says it."""
    roles = {name: role_of(shown) for name, shown in _running(stack).items()}
    return {name: {(other, port) for other in may_reach(stack, name) & roles.keys() for port in LISTENING[roles[other]]} for name in roles}


def _running(stack: Stack) -> dict[str, dict[str, Any]]:
    return {name: shown for name, shown in inspect(stack.containers()).items() if shown["State"]["Running"]}


@dataclass(frozen=True)
class Outside:
    """A machine beside the engine's: its network namespace, the engine's machine's address on the line between them, and its own."""

    namespace: str
    engine: str
    address: str

    def run(self, *command: str) -> str:
        return _ip("netns", "exec", self.namespace, *command)

    def route(self, subnets: Collection[str]) -> None:
        """Have it send to these by way of the engine's machine, as somebody on the same line could."""
        for subnet in sorted(subnets):
            self.run("ip", "route", "add", subnet, "via", self.engine)

    def scan(self, targets: Collection[str], last: int, patience: float) -> set[Target]:
        """The ports, up to a last one, that answer at some addresses within some seconds."""
        found = json.loads(self.run("python3", "-c", _SCAN, json.dumps(sorted(targets)), str(last), str(patience)))
        return {(address, port) for address, port in found}

    @contextlib.contextmanager
    def listening(self, port: int) -> Iterator[Target]:
        command = ["ip", "netns", "exec", self.namespace, "python3", "-c", _LISTEN, self.address, str(port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                yield self.address, port
            finally:
                process.terminate()


@contextlib.contextmanager
def outside() -> Iterator[Outside]:
    """A machine outside, made and removed."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("a network namespace beside the engine's needs root and the command ip")
    mark = secrets.token_hex(3)
    # 198.18.0.0/15 is for such tests (RFC 2544): no network is there.
    net = f"198.18.{secrets.randbelow(256)}"
    made = Outside(f"orthanc-test-{mark}", f"{net}.1", f"{net}.2")
    here, there = f"ot{mark}h", f"ot{mark}n"
    _ip("netns", "add", made.namespace)
    try:
        _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", made.namespace)
        _ip("address", "add", f"{made.engine}/30", "dev", here)
        _ip("link", "set", here, "up")
        made.run("ip", "address", "add", f"{made.address}/30", "dev", there)
        made.run("ip", "link", "set", there, "up")
        eventually("the line is up", lambda: "UP" in made.run("ip", "-o", "link", "show", there))
        yield made
    finally:
        # The pair of devices goes with it.
        _ip("netns", "delete", made.namespace)


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=600)
    assert done.returncode == 0, f"ip {' '.join(arguments[:4])}: {done.stdout}"
    return done.stdout
