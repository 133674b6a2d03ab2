"""The Docker engine as the tests use it: its command, free ports, the log and the end of a container."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

#: Generous: the machine may have two cores and other work.
PATIENCE_SECONDS = 60
TEST_PORTS = range(20000, 32000)


def docker(*arguments: str, check: bool = True) -> str:
    """Run the docker command; what it prints on both channels, in order."""
    done = subprocess.run(
        ["docker", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False, timeout=300
    )
    assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout}"
    return done.stdout.strip()


def eventually(what: str, probe: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    """Ask until the answer is true, and return it."""
    end = time.monotonic() + seconds
    while not (answer := probe()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}; last answer: {answer!r}"
        time.sleep(0.3)
    return answer


#: Which process of pytest-xdist this is, and of how many.
_WORKER, _WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nothing listens on, and that no other test gets: a stack takes its ports only when it is deployed.

    They are below those that the kernel gives to outgoing connections, so that they stay free.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.choice(TEST_PORTS[_WORKER::_WORKERS])
        with socket.socket() as attempt, contextlib.suppress(OSError):
            attempt.bind(("127.0.0.1", port))
            if port not in _given:
                ports.append(port)
                _given.add(port)
    return ports


class Watch:
    """Follows the log of a container, and how it ended, while it is replaced."""

    def __init__(self, container: str) -> None:
        self.container = container
        self._log = self._follow("logs", "--follow", "--tail", "5", container)
        ended = "{{.Actor.Attributes.exitCode}}"
        self._end = self._follow("events", "--filter", f"container={container}", "--filter", "event=die", "--format", ended)

    @staticmethod
    def _follow(*arguments: str) -> tuple[subprocess.Popen[str], list[str], threading.Thread]:
        process = subprocess.Popen(["docker", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        lines: list[str] = []
        thread = threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True)
        thread.start()
        return process, lines, thread

    def log(self) -> str:
        """The log to its end: of a container that has been removed."""
        process, lines, thread = self._log
        thread.join(PATIENCE_SECONDS)
        process.terminate()
        return "".join(lines)

    def exit_code(self) -> int:
        """The status that the container ended with."""
        process, lines, _ = self._end
        code = eventually(f"{self.container} ends", lambda: "".join(lines).strip())
        process.terminate()
        process.wait()
        return int(code.split()[0])


def need_pulumi() -> None:
    """Fail with what to do where the tools are not there."""
    if not shutil.which("pulumi"):
        pytest.exit("There is no pulumi on PATH. Run the tests by `make test`, which finds or builds it, or put it on PATH.", returncode=2)
    answer = docker("version", "--format", "{{.Server.Version}}", check=False) if shutil.which("docker") else "there is no docker command"
    if not answer[:1].isdigit():
        pytest.exit(f"There is no Docker engine: {answer}. Run the tests by `make test`, which starts one.", returncode=2)
    os.environ.setdefault("PULUMI_SKIP_UPDATE_CHECK", "true")
