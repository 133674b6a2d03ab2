"""The commands on a state backend that is no folder: a bucket of a real S3-compatible server, and secrets by a passphrase or a key service.

What a preview may be given is seen here as well: a bucket that it cannot write to, a Docker engine that it can only ask.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO

import pytest
import yaml

from configs import names
from tests.stack import s3
from tests.stack.engine import docker, free_ports, need_pulumi
from tests.stack.harness import ROOT, copy_program

pytestmark = pytest.mark.slow("the S3 server is built from its source once, and a stack lives a whole life by the project's own commands")

_ENGINE = "/var/run/docker.sock"
_COMMANDS = ("CHANGELOG.md", "ops", "orthanc-stack", "requirements.txt", "requirements-ops.txt", "requirements-dev.txt", "toolchain")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the commands, whose state is nobody's."""
    return copy_commands(tmp_path_factory.mktemp("checkout"))


def copy_commands(folder: Path) -> Path:
    """Copy the program with its commands into an empty folder."""
    need_pulumi()
    copy_program(folder)
    for part in _COMMANDS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, folder / part)
    return folder


@pytest.fixture
def stack(checkout: Path) -> Iterator[str]:
    """A stack of one node, and nothing left of it afterwards."""
    name = f"test-s3-{os.urandom(3).hex()}"
    ports = dict(zip(("httpPort", "dicomPort"), free_ports(2), strict=True))
    node = {"name": "archive", "aet": "ARCHIVE", "index": "sqlite", **ports}
    settings = {"environment": "dev", "images": {"source": "auto"}, "nodes": [node]}
    content = {"config": {f"{names.PROJECT}:{key}": value for key, value in settings.items()}}
    (checkout / f"Pulumi.{name}.yaml").write_text(yaml.safe_dump(content))
    try:
        yield name
    finally:
        label = f"label={names.LABEL_STACK}={names.prefix(name)}"
        for kind, remove in {"container": ["--force", "--volumes"], "network": [], "volume": []}.items():
            everything = ["--all"] if kind == "container" else []
            if left := docker(kind, "ls", "--quiet", *everything, "--filter", label).split():
                docker(kind, "rm", *remove, *left, check=False)


class Commands:
    """The project's commands, in an environment without any login of the user's, at a desk."""

    def __init__(self, checkout: Path, stack: str, **env: str) -> None:
        self._checkout, self._stack = checkout, stack
        logins = ("PULUMI_CONFIG", "PULUMI_BACKEND", "PULUMI_ACCESS", "PULUMI_STACK", "AWS_", "GITHUB_ACTIONS", "GITLAB_CI")
        self._env = {key: value for key, value in os.environ.items() if not key.startswith(logins)} | env

    def run(self, command: str, *options: str, status: int = 0, separate: bool = False, **env: str) -> str:
        """Run a command on the stack; what it prints, or with `separate` what it prints for programs."""
        done = subprocess.run(
            self._line(command, *options),
            env=self._env | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if separate else subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == status, f"{done.stdout}{done.stderr or ''}"
        return done.stdout

    def start(self, command: str, out: IO[str], *options: str) -> subprocess.Popen[bytes]:
        """Start a command on the stack, in a session of its own, as a terminal's: its interrupts go to all of it."""
        return subprocess.Popen(self._line(command, *options), env=self._env, stdout=out, stderr=out, start_new_session=True)

    def _line(self, command: str, *options: str) -> list[str | Path]:
        return [self._checkout / "orthanc-stack", command, self._stack, *options]


def test_a_stack_lives_in_a_bucket(checkout: Path, stack: str, tmp_path: Path) -> None:
    """From up to destroy: its state is in the bucket alone, its secrets are encrypted there, previews need no right to write."""
    bucket = tmp_path / "buckets" / s3.BUCKET / ".pulumi"
    state = bucket / "stacks" / names.PROJECT / f"{stack}.json"
    it = Commands(checkout, stack, **s3.LOGIN, PULUMI_CONFIG_PASSPHRASE="a passphrase of the tests")
    with s3.serving(tmp_path) as server:
        it.run("up", PULUMI_BACKEND_URL=server.url)
        latest = json.loads(state.read_text())["checkpoint"]["latest"]
        assert len(latest["resources"]) > 5
        assert latest["secrets_providers"]["type"] == "passphrase"
        assert not (checkout / ".pulumi-state").exists()
        shown = it.run("outputs", "--show-secrets", PULUMI_BACKEND_URL=server.url)
        assert_encrypted(bucket, json.loads(shown[shown.index("{") :])["users"])
        assert not list((bucket / "locks").rglob("*.json"))
    before = state.read_bytes()
    with s3.serving(tmp_path, read_only=True) as server, asking_only() as (engine, asked):
        assert "unchanged" in it.run("preview", PULUMI_BACKEND_URL=server.url, DOCKER_HOST=engine)
        assert server.requests("PUT", "POST", "DELETE") == []
        assert server.requests("GET")
        assert {"GET"} <= set(asked) <= {"GET", "HEAD"}
        it.run("destroy", "--yes", status=1, PULUMI_BACKEND_URL=server.url)
        assert state.read_bytes() == before
    with s3.serving(tmp_path) as server:
        assert "nobody is there to ask" in it.run("destroy", status=1, PULUMI_BACKEND_URL=server.url)
        assert state.read_bytes() == before
        it.run("destroy", "--yes", PULUMI_BACKEND_URL=server.url)
    assert docker("ps", "-aq", "--filter", f"label={names.LABEL_STACK}={names.prefix(stack)}") == ""


def assert_encrypted(bucket: Path, users: dict[str, dict[str, str]]) -> None:
    passwords = [password for node in users.values() for password in node.values()]
    texts = {file: file.read_text(errors="replace") for file in bucket.rglob("*") if file.is_file()}
    assert passwords
    assert len(texts) >= 3
    assert [file for file, text in texts.items() if any(password in text for password in passwords)] == []
    assert any("ciphertext" in text for text in texts.values())


def test_a_key_service_encrypts_the_secrets(checkout: Path, stack: str, tmp_path: Path) -> None:
    """Vault's transit engine, as far as Pulumi speaks to it: the stack is made with it, and no passphrase is asked for or made."""
    with s3.serving(tmp_path) as server, transit() as (vault, used):
        where = {"PULUMI_BACKEND_URL": server.url, "VAULT_SERVER_URL": vault, "VAULT_SERVER_TOKEN": "of-no-worth"}
        it = Commands(checkout, stack, **s3.LOGIN, **where)
        it.run("secrets", SECRETS_PROVIDER="hashivault://stacks")
        written = yaml.safe_load((checkout / f"Pulumi.{stack}.yaml").read_text())
        assert written["secretsprovider"] == "hashivault://stacks"
        assert written["encryptedkey"]
        assert "encryptionsalt" not in written
        assert all(value["secure"] for key, value in written["config"].items() if "Password" in key)
        assert not (checkout / ".pulumi-state").exists()
        assert "/v1/transit/encrypt/stacks" in used
        assert "all 1 set" in it.run("secrets")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ((headers or {}) | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serving(handler: type[Handler]) -> Iterator[str]:
    """A server on loopback; its host and port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@contextmanager
def transit() -> Iterator[tuple[str, list[str]]]:
    """A server that answers as Vault's transit engine, and encrypts nothing; what it was asked."""
    used: list[str] = []

    class Transit(Handler):
        def do_PUT(self) -> None:
            used.append(self.path)
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            if self.path.startswith("/v1/transit/encrypt/"):
                data = {"ciphertext": "vault:v1:" + body["plaintext"]}
            else:
                data = {"plaintext": body["ciphertext"].removeprefix("vault:v1:")}
            self.answer(json.dumps({"data": data}).encode())

        do_POST = do_PUT  # noqa: N815

    with serving(Transit) as address:
        yield f"http://{address}", used


class Engine(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(_ENGINE)


@contextmanager
def asking_only() -> Iterator[tuple[str, list[str]]]:
    """The Docker engine behind a proxy that lets through what asks, and refuses what would change anything; the methods that came."""
    if not Path(_ENGINE).is_socket():
        pytest.skip(f"the engine is not at {_ENGINE}")
    asked: list[str] = []

    class Proxy(Handler):
        def do_GET(self) -> None:
            asked.append(self.command)
            engine = Engine("localhost", timeout=30)
            engine.request(self.command, self.path, headers={"Host": "docker"})
            answer = engine.getresponse()
            framing = ("transfer-encoding", "content-length", "connection")
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in framing}
            self.answer(answer.read(), answer.status, headers)

        def do_POST(self) -> None:
            asked.append(self.command)
            self.send_error(403)

        do_HEAD = do_GET  # noqa: N815
        do_PUT = do_DELETE = do_POST  # noqa: N815

    with serving(Proxy) as address:
        yield f"tcp://{address}", asked
