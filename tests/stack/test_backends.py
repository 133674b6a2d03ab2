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

import pytest
import yaml

from configs import names
from tests.stack import s3
from tests.stack.engine import docker, free_ports, need_pulumi
from tests.stack.harness import ROOT, copy_program

_ENGINE = "/var/run/docker.sock"
_COMMANDS = ("ops", "Makefile", "requirements.txt", "requirements-dev.txt", "toolchain")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the commands, whose state is nobody's."""
    need_pulumi()
    folder = copy_program(tmp_path_factory.mktemp("checkout"))
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
        for list_, remove in (
            (["ps", "-aq"], ["rm", "-f", "-v"]),
            (["network", "ls", "-q"], ["network", "rm"]),
            (["volume", "ls", "-q"], ["volume", "rm"]),
        ):
            if left := docker(*list_, "--filter", label).split():
                docker(*remove, *left, check=False)


def ops(checkout: Path, env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of the Makefile's, in an environment without any login of the user's."""
    cleared = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PULUMI_CONFIG", "PULUMI_BACKEND", "PULUMI_ACCESS", "AWS_", "PULUMI_STACK"))
    }
    return subprocess.run(
        [str(checkout / ".venv" / "bin" / "python"), "-m", "ops", *arguments],
        cwd=checkout, env=cleared | env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False,
    )  # fmt: skip


def test_a_stack_lives_in_a_bucket(checkout: Path, stack: str, tmp_path: Path) -> None:
    """From make up to make destroy: its state is in the bucket alone, its secrets are encrypted there, previews need no right to write."""
    bucket = tmp_path / "buckets" / s3.BUCKET / ".pulumi"
    state = bucket / "stacks" / names.PROJECT / f"{stack}.json"
    with s3.serving(tmp_path) as server:
        env = server.env | {"PULUMI_BACKEND_URL": server.url, "PULUMI_CONFIG_PASSPHRASE": "a passphrase of the tests"}
        up = ops(checkout, env, "up", stack)
        assert up.returncode == 0, up.stdout
        kept = json.loads(state.read_text())
        assert len(kept["checkpoint"]["latest"]["resources"]) > 5
        assert kept["checkpoint"]["latest"]["secrets_providers"]["type"] == "passphrase"
        assert not (checkout / ".pulumi-state").exists()
        _hold_no_secret(checkout, env, stack, bucket)
        assert not list((bucket / "locks").rglob("*.json"))
    with s3.serving(tmp_path, read_only=True) as server, asking_only() as (engine, asked):
        before = state.read_bytes()
        preview = ops(checkout, env | {"PULUMI_BACKEND_URL": server.url, "DOCKER_HOST": engine}, "preview", stack)
        assert preview.returncode == 0, preview.stdout
        assert "unchanged" in preview.stdout
        assert server.requests("PUT", "POST", "DELETE") == []
        assert server.requests("GET")
        assert asked
        assert {method for method, _ in asked} <= {"GET", "HEAD"}
        refused = ops(checkout, env | {"PULUMI_BACKEND_URL": server.url}, "destroy", stack, "--yes")
        assert refused.returncode != 0
        assert state.read_bytes() == before
    with s3.serving(tmp_path) as server:
        asked_for = ops(checkout, env | {"PULUMI_BACKEND_URL": server.url}, "destroy", stack)
        assert (asked_for.returncode, "nobody is there to ask" in asked_for.stdout) == (1, True), asked_for.stdout
        assert state.read_bytes() == before
        gone = ops(checkout, env | {"PULUMI_BACKEND_URL": server.url}, "destroy", stack, "--yes")
        assert gone.returncode == 0, gone.stdout
    assert docker("ps", "-aq", "--filter", f"label={names.LABEL_STACK}={names.prefix(stack)}") == ""


def test_a_key_service_encrypts_the_secrets(checkout: Path, stack: str, tmp_path: Path) -> None:
    """Vault's transit engine, as far as Pulumi speaks to it: the stack is made with it, and no passphrase is asked for or made."""
    with s3.serving(tmp_path) as server, transit() as (vault, used):
        env = server.env | {"PULUMI_BACKEND_URL": server.url, "VAULT_SERVER_URL": vault, "VAULT_SERVER_TOKEN": "of-no-worth"}
        made = ops(checkout, env | {"SECRETS_PROVIDER": "hashivault://stacks"}, "secrets", stack)
        assert made.returncode == 0, made.stdout
        written = yaml.safe_load((checkout / f"Pulumi.{stack}.yaml").read_text())
        assert written["secretsprovider"] == "hashivault://stacks"
        assert written["encryptedkey"]
        assert "encryptionsalt" not in written
        assert all(value["secure"] for key, value in written["config"].items() if "Password" in key)
        assert not (checkout / ".pulumi-state").exists()
        assert "/v1/transit/encrypt/stacks" in used
        again = ops(checkout, env, "secrets", stack)
        assert again.returncode == 0, again.stdout
        assert "all 1 set" in again.stdout


@contextmanager
def transit() -> Iterator[tuple[str, list[str]]]:
    """A server that answers as Vault's transit engine, and encrypts nothing; what it was asked."""
    used: list[str] = []

    class Transit(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Nothing."""

        def _answer(self) -> None:
            used.append(self.path)
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            prefix = "vault:v1:"
            encrypts = self.path.startswith("/v1/transit/encrypt/")
            data = {"ciphertext": prefix + body["plaintext"]} if encrypts else {"plaintext": body["ciphertext"].removeprefix(prefix)}
            content = json.dumps({"data": data}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_PUT = do_POST = _answer  # noqa: N815

    with serving(Transit) as url:
        yield f"http://{url}", used


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server on loopback; its host and port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _hold_no_secret(checkout: Path, env: dict[str, str], stack: str, bucket: Path) -> None:
    shown = ops(checkout, env | {"SHOW_SECRETS": "1"}, "outputs", stack)
    users = json.loads(shown.stdout[shown.stdout.index("{") :])["users"]
    passwords = [password for node in users.values() for password in node.values()]
    assert passwords
    files = [file for file in bucket.rglob("*") if file.is_file()]
    assert len(files) >= 3
    for file in files:
        assert not any(password in file.read_text(errors="replace") for password in passwords), file
    assert any("ciphertext" in file.read_text(errors="replace") for file in files)


@contextmanager
def asking_only() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The Docker engine behind a proxy that lets through what asks, and refuses what would change anything; what came."""
    if not Path(_ENGINE).is_socket():
        pytest.skip(f"the engine is not at {_ENGINE}")
    asked: list[tuple[str, str]] = []

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Nothing."""

        def _forward(self) -> None:
            asked.append((self.command, self.path))
            connection = _Engine("localhost", timeout=30)
            connection.request(self.command, self.path, headers={"Host": "docker"})
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _refuse(self) -> None:
            asked.append((self.command, self.path))
            self.send_error(403)

        do_GET = do_HEAD = _forward  # noqa: N815
        do_POST = do_PUT = do_DELETE = _refuse  # noqa: N815

    with serving(Proxy) as address:
        yield f"tcp://{address}", asked


class _Engine(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(_ENGINE)
