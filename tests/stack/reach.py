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

from tests.stack.engine import docker, eventually

Target = tuple[str, int]

#: How long a connection may take that is answered: the other containers are on the same machine.
_SECONDS: Final = 1

#: A role's own language -> how it connects to each `address port` of its standard input; prints those that answer.
_PYTHON: Final = f"""
import socket, sys
from concurrent.futures import ThreadPoolExecutor
def answers(target):
    address, port = target.split()
    try:
        socket.create_connection((address, int(port)), {_SECONDS}).close()
    except OSError:
        return ""
    return target + "\\n"
targets = sys.argv[1].split(",")
print("".join(ThreadPoolExecutor(32).map(answers, targets)))
"""
_BASH: Final = f"""
IFS=,
for target in $1; do
    (timeout {_SECONDS} bash -c 'exec 3<>"/dev/tcp/${{0% *}}/${{0#* }}"' "$target" 2>/dev/null && echo "$target") &
done
wait
"""
_PHP: Final = f"""
foreach (explode(",", $argv[1]) as $target) {{
    [$address, $port] = explode(" ", $target);
    if (@fsockopen($address, (int) $port, $code, $text, {_SECONDS})) echo "$target\\n";
}}
"""
_CONNECT: Final = {
    "node": ("python3", "-c", _PYTHON),
    "forwarder": ("python3", "-c", _PYTHON),
    "db": ("bash", "-c", _BASH, "bash"),
    "adminer": ("php", "-n", "-r", _PHP, "--"),
}

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


def answering(container: str, role: str, targets: Collection[Target]) -> set[Target]:
    """Which of some targets a container gets a connection to."""
    asked = ",".join(f"{address} {port}" for address, port in sorted(targets))
    said = docker("exec", container, *_CONNECT[role], asked)
    return {(address, int(port)) for address, port in (line.split() for line in said.splitlines() if line)}


def addresses(inspected: dict[str, Any]) -> dict[str, str]:
    return {name: network["IPAddress"] for name, network in inspected["NetworkSettings"]["Networks"].items() if network["IPAddress"]}


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
