"""An S3-compatible server on loopback: versitygw, built from its Go module once, which keeps buckets as folders."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ops.setup.go_build import go_install
from tests.stack.engine import free_ports

_VERSION = "1.8.0"
_MODULE = "github.com/versity/versitygw/cmd/versitygw"
REGION = "eu-central-1"
BUCKET = "states"


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        url: the bucket, as Pulumi's backend.
        env: what a client has to have in its environment.
        log: each request: method, path, status.
    """

    url: str
    env: dict[str, str]
    log: Path

    def requests(self, *methods: str) -> list[str]:
        """The requests so far that have one of these methods."""
        return [line for line in self.log.read_text().splitlines() if any(f"| {method} |" in line for method in methods)]


def ensure_server() -> Path:
    """The server's command. Building it takes about two minutes, once."""
    return go_install("S3", _MODULE, _VERSION, takes="2 minutes", flags=["-ldflags", "-s -w"])


@contextlib.contextmanager
def serving(folder: Path, *, read_only: bool = False) -> Iterator[Server]:
    """Serve the buckets in a folder.

    Args:
        folder: where they are.
        read_only: whether every request that would write is refused.
    """
    (port,) = free_ports(1)
    (folder / "buckets" / BUCKET).mkdir(parents=True, exist_ok=True)
    log = folder / f"s3-{port}.log"
    env = {"AWS_ACCESS_KEY_ID": "stack-tests", "AWS_SECRET_ACCESS_KEY": "of-no-worth-elsewhere"}
    server_env = {"ROOT_ACCESS_KEY_ID": env["AWS_ACCESS_KEY_ID"], "ROOT_SECRET_ACCESS_KEY": env["AWS_SECRET_ACCESS_KEY"]}
    options = ["--port", f"127.0.0.1:{port}", "--region", REGION, "--health", "/health", *(["--readonly"] if read_only else [])]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(ensure_server()), *options, "posix", str(folder / "buckets")], env=os.environ | server_env, stdout=out, stderr=out
        )
    try:
        _await(f"http://127.0.0.1:{port}/health", process)
        query = f"endpoint=127.0.0.1:{port}&disableSSL=true&s3ForcePathStyle=true&region={REGION}"
        yield Server(f"s3://{BUCKET}?{query}&request_checksum_calculation=when_supported", env, log)
    finally:
        process.terminate()
        process.wait(timeout=10)


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + 20
    while True:
        assert process.poll() is None, f"versitygw ended with {process.returncode}"
        try:
            with opener.open(url, timeout=2):
                return
        except (OSError, urllib.error.URLError):
            assert time.monotonic() < end, "versitygw does not answer"
            time.sleep(0.1)
