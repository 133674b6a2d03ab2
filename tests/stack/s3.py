"""An S3-compatible server on loopback: versitygw, built from its Go module once, which keeps buckets as folders."""

from __future__ import annotations

import contextlib
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dev.go_tools import go_install
from tests.stack.engine import eventually, free_ports

_VERSION = "1.8.0"
_MODULE = "github.com/versity/versitygw/cmd/versitygw"
REGION = "eu-central-1"
BUCKET = "states"
#: What a client has to have in its environment.
LOGIN = {"AWS_ACCESS_KEY_ID": "stack-tests", "AWS_SECRET_ACCESS_KEY": "of-no-worth-elsewhere"}


@dataclass(frozen=True)
class Server:
    """A running server: its bucket as Pulumi's backend, and its log, a line each request."""

    url: str
    log: Path

    def requests(self, *methods: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if any(f"| {method} |" in line for method in methods)]


@contextlib.contextmanager
def serving(folder: Path, *, read_only: bool = False) -> Iterator[Server]:
    """Serve the buckets in a folder; where it is read-only, every request that would write is refused."""
    server = go_install("S3", _MODULE, _VERSION, takes="2 minutes", flags=["-ldflags", "-s -w"])
    (port,) = free_ports(1)
    (folder / "buckets" / BUCKET).mkdir(parents=True, exist_ok=True)
    log = folder / f"s3-{port}.log"
    env = os.environ | {key.replace("AWS", "ROOT"): value for key, value in LOGIN.items()}
    options = ["--port", f"127.0.0.1:{port}", "--region", REGION, "--health", "/health", *(["--readonly"] if read_only else [])]
    command = [str(server), *options, "posix", str(folder / "buckets")]
    with log.open("wb") as out, subprocess.Popen(command, env=env, stdout=out, stderr=out) as process:
        try:
            eventually("versitygw answers", lambda: _answers(f"http://127.0.0.1:{port}/health"), seconds=20)
            query = f"endpoint=127.0.0.1:{port}&disableSSL=true&s3ForcePathStyle=true&region={REGION}"
            yield Server(f"s3://{BUCKET}?{query}&request_checksum_calculation=when_supported", log)
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.suppress(OSError), opener.open(url, timeout=2):
        return True
    return False
