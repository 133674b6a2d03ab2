"""The bench's own parts: what speaks with nodes that have TLS, and what the page says of the figures."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import report
from bench.orthanc import Node, upload
from bench.results import Results, Row
from bench.security import BARE, PROJECT, TLS, in_turn
from configs.tls import certificate_key, private_key_key, trust_key
from tests.unit.certificates import certificates_for
from tests.unit.stacks import node, settings_of, stack


class _Orthanc(http.server.BaseHTTPRequestHandler):
    """Answers whatever is asked like a node that stored an image."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b'{"ID": "stored"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Not to the test's output."""


@pytest.fixture(scope="module")
def certificates() -> dict[str, str]:
    made = certificates_for(settings_of(stack(node("a", tls=True), node("b", 1, tls=True))))
    return {**made.plain, **made.secret}


@pytest.fixture(scope="module")
def url(certificates: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a server with the certificate of node a is."""
    identity = tmp_path_factory.mktemp("tls") / "a.pem"
    identity.write_text(certificates[certificate_key("a")] + certificates[private_key_key("a")])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Orthanc) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://127.0.0.1:{server.server_port}"
        server.shutdown()


def node_at(url: str, trust: str) -> Node:
    return Node("a", "A", url, ("127.0.0.1", 1), ("orthanc", "secret"), trust)


def test_a_node_with_tls_is_known_by_its_certificate(url: str, certificates: dict[str, str]) -> None:
    done = upload(node_at(url, certificates[trust_key("a")]), [b"1", b"2", b"3"], clients=2)
    assert (done.identifiers, done.errors) == (["stored"] * 3, [])


def test_another_nodes_certificate_is_not_taken_for_it(url: str, certificates: dict[str, str]) -> None:
    done = upload(node_at(url, certificates[trust_key("b")]), [b"1"], clients=1)
    assert done.identifiers == []
    assert "CERTIFICATE_VERIFY_FAILED" in done.errors[0]


def test_each_run_begins_with_another_system() -> None:
    assert [in_turn(["a", "b", "c"], run) for run in (1, 2, 3, 4)] == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


@pytest.mark.parametrize(
    ("rates", "tls", "hardening"),
    [
        ({PROJECT: 100, TLS: 81, BARE: 104}, "0.81x (81.0 and 100.0 images/s) | met", "0.96x (100.0 and 104.0 images/s) | met"),
        (
            {PROJECT: 100, TLS: 79, BARE: 106},
            "0.79x (79.0 and 100.0 images/s) | **not met**",
            "0.94x (100.0 and 106.0 images/s) | **not met**",
        ),
    ],
)
def test_costs_are_held_against_what_has_them_not(tmp_path: Path, rates: dict[str, float], tls: str, hardening: str) -> None:
    results = Results("security", tmp_path)
    for run in (1, 2, 3):
        for system, rate in rates.items():
            results.add(Row("backlog", system, "forwarder, 2 associations", run, rate + run - 2, "images/s"))
            results.add(Row("upload", system, "small (64x64), 4 clients", run, 10 * rate, "images/s"))
    report.write(tmp_path)
    page = (tmp_path / "README.md").read_text()
    goals = [line for line in page.partition("## TLS and hardening")[0].splitlines() if line.startswith("| ") and "x (" in line]
    assert goals == [
        f"| TLS: backlog, forwarder, 2 associations ≥ 0.8x | {tls} |",
        f"| hardening: backlog, forwarder, 2 associations ≥ 0.95x | {hardening} |",
    ]
    line = next(
        line for line in page.splitlines() if line.startswith("| TLS: backlog") and "≥ 0.8x |" in line and "to" in line.split("|")[2]
    )
    low, high = (rates[TLS] - 1) / (rates[PROJECT] - 1), (rates[TLS] + 1) / (rates[PROJECT] + 1)
    assert f"| {rates[TLS]:.1f} ({rates[TLS] - 1:.1f} to {rates[TLS] + 1:.1f}) | 100.0 (99.0 to 101.0) |" in line
    assert f"| {low:.2f} to {high:.2f} | ≥ 0.8x |" in line
    # What the sender itself costs is in it: shown, and no goal.
    assert any(line.startswith("| TLS: upload") and line.endswith("|  |  |") for line in page.splitlines())
