"""The commands where a run was killed, where another one lives, where another state has the stack's name, and behind TLS."""

import json
import os
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from configs import names
from ops.stack.probes import nodes_of
from tests.stack.dicom import as_file, ct_series
from tests.stack.engine import docker, eventually
from tests.stack.test_backends import Commands, checkout, stack
from tests.unit.pki import Authority

__all__ = ["checkout", "stack"]

pytestmark = pytest.mark.slow("stacks of their own, deployed by the project's own commands: 60 s")

_PASSPHRASE = "a passphrase of the tests"


def commands(checkout: Path, stack: str, state: Path, **env: str) -> Commands:
    """The commands on a state of their own."""
    state.mkdir(exist_ok=True)
    return Commands(checkout, stack, PULUMI_BACKEND_URL=f"file://{state}", PULUMI_CONFIG_PASSPHRASE=_PASSPHRASE, **env)


def begin(it: Commands, command: str, said: Path, until: str) -> subprocess.Popen[bytes]:
    """A command that is at work, and has printed this."""
    with said.open("w") as out:
        started = it.start(command, out)
    eventually(f"{until!r} is printed", lambda: until in said.read_text() or started.poll() is not None)
    assert started.poll() is None, said.read_text()
    return started


def kill_pulumi(of: subprocess.Popen[bytes]) -> None:
    """kill -9 of the pulumi below a command, with its plugins: as the machine's end would be."""
    os.killpg(of.pid, signal.SIGSTOP)
    os.killpg(of.pid, signal.SIGKILL)
    of.wait()


def containers(stack: str) -> list[str]:
    return sorted(docker("ps", "-a", "--filter", f"label={names.LABEL_STACK}={names.prefix(stack)}", "--format", "{{.Names}}").split())


def test_a_run_is_killed_and_another_puts_right_what_it_left(checkout: Path, stack: str, tmp_path: Path) -> None:
    it, said = commands(checkout, stack, tmp_path / "state"), tmp_path / "said"
    run = begin(it, "up", said, "archive-container creating")
    eventually("the container runs", lambda: docker("ps", "--quiet", "--filter", f"name={names.prefix(stack)}-archive"))
    kill_pulumi(run)
    # A preview changes nothing, and is not blocked: neither by the lock, nor by the ports of what the run has half made.
    assert "while it changes archive-container" in it.run("preview")
    # Nor is drift; and what is half made is stopped with the stack.
    assert "run it first, and then look again" in it.run("drift", status=3)
    assert f"stopped {names.prefix(stack)}-archive" in it.run("down")
    assert "locked by 1 lock" in it.run("up", status=1)
    assert containers(stack)  # nothing was removed without the lock
    assert "nobody is there to ask" in it.run("unlock", status=1)
    it.run("unlock", "--yes")
    put_right = it.run("up")
    assert f"removed {names.prefix(stack)}-archive, which was not made to its end" in put_right
    assert "checks, all ok" in put_right
    assert "unchanged" in it.run("up")
    # As a check leaves it that was broken off.
    volume = names.backup_volume(names.prefix(stack), "check-5")
    docker("volume", "create", "--label", f"{names.LABEL_STACK}={names.prefix(stack)}", volume)
    it.run("destroy", "--yes")
    assert containers(stack) == []
    assert not docker("volume", "ls", "--quiet", "--filter", f"name={volume}")


def test_a_run_that_lives_is_left_alone(checkout: Path, stack: str, tmp_path: Path) -> None:
    it, said = commands(checkout, stack, tmp_path / "state"), tmp_path / "said"
    first = begin(it, "up", said, "archive-container creating")
    os.killpg(first.pid, signal.SIGSTOP)  # it takes its time
    try:
        second = it.run("up", status=1)
        assert "locked by 1 lock" in second
        assert "was not made to its end" not in second
        assert "is at work on this machine" in it.run("unlock", "--yes", status=1)
    finally:
        os.killpg(first.pid, signal.SIGCONT)
    assert first.wait(120) == 0, said.read_text()
    assert "checks, all ok" in said.read_text()
    it.run("destroy", "--yes")


def test_a_second_states_destroy_leaves_the_first_ones_stack(checkout: Path, stack: str, tmp_path: Path) -> None:
    first, second = (commands(checkout, stack, tmp_path / name) for name in ("first", "second"))
    first.run("up")
    (tmp_path / "images").mkdir()
    for i, image in enumerate(ct_series(slices=3, size=32)):
        (tmp_path / "images" / f"{i}.dcm").write_bytes(as_file(image))
    assert "3 stored, 0 there already, 0 refused" in first.run("send", "archive", str(tmp_path / "images"))
    running = docker("ps", "-q", "--filter", f"name={names.prefix(stack)}")
    file = checkout / f"Pulumi.{stack}.yaml"
    ours = file.read_text()
    # A second checkout has the same stack file, and a state of its own.
    assert "which another state made" in second.run("up", status=1)
    said = second.run("destroy", "--yes")
    assert f"was not touched: {names.prefix(stack)}-archive" in said
    assert "nothing of the stack" in second.run("down")
    assert docker("ps", "-q", "--filter", f"name={names.prefix(stack)}") == running
    file.write_text(ours)
    (archive,) = nodes_of(json.loads(first.run("outputs", "--show-secrets", separate=True)))
    assert archive.ask("/statistics", archive.login).json()["CountInstances"] == 3
    first.run("destroy", "--yes")


@pytest.fixture
def behind_tls(tmp_path: Path) -> Iterator[Path]:
    """A Docker configuration whose context is the engine behind TLS, with certificates for both sides."""
    authority = Authority("engine")
    server, client = authority.issue("localhost"), authority.issue("client")
    files = {"ca.pem": authority.pem, "cert.pem": client.certificate, "key.pem": client.key, "s.pem": server.certificate + server.key}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "ca.pem"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(tmp_path / "s.pem")
    with tls_proxy(context) as port:
        config = tmp_path / "docker"
        where = ",".join([f"host=tcp://localhost:{port}", *(f"{key}={tmp_path}/{key}.pem" for key in ("ca", "cert", "key"))])
        for command in (["create", "secured", "--docker", where], ["use", "secured"]):
            subprocess.run(["docker", "--config", config, "context", *command], check=True, capture_output=True)
        yield config


class tls_proxy:  # noqa: N801 - used as a function
    """Lets through what comes by TLS to the engine's socket; a context manager that gives its port."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context, self._listening = context, socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> int:
        threading.Thread(target=self._serve, daemon=True).start()
        return int(self._listening.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(plain,), daemon=True).start()

    def _connect(self, plain: socket.socket) -> None:
        try:
            secured = self._context.wrap_socket(plain, server_side=True)
        except (OSError, ssl.SSLError):
            return
        engine = socket.socket(socket.AF_UNIX)
        engine.connect("/var/run/docker.sock")
        for source, target in ((secured, engine), (engine, secured)):
            threading.Thread(target=_pump, args=(source, target), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def test_a_context_with_tls_serves_every_command(checkout: Path, stack: str, behind_tls: Path, tmp_path: Path) -> None:
    file = checkout / f"Pulumi.{stack}.yaml"
    content = yaml.safe_load(file.read_text())
    nodes = content["config"][f"{names.PROJECT}:nodes"]
    nodes[0]["forwardTo"] = ["pacs"]
    pacs = {"name": "pacs", "aet": "PACS", "host": "host.docker.internal", "port": 9, "nodes": ["archive"]}
    content["config"][f"{names.PROJECT}:modalities"] = [pacs]
    file.write_text(yaml.safe_dump(content))
    it = commands(checkout, stack, tmp_path / "state", DOCKER_CONFIG=str(behind_tls))
    it.run("up")
    assert json.loads(it.run("status", "--json", separate=True))[0]["node"] == "archive"
    for command in ("retry", "verify", "drift", "preview", "down"):
        it.run(command)
    assert docker("ps", "-q", "--filter", f"name={names.prefix(stack)}") == ""
    it.run("destroy", "--yes")
    assert containers(stack) == []
