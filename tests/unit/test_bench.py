"""The bench's own parts: what speaks with nodes that have TLS, and what the page says of the figures."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench import report
from bench.orthanc import Node, upload
from bench.results import Results, Row
from bench.security import BARE, PROJECT, TLS, in_turn
from configs.secrets import certificate_key, private_key_key, trust_key
from ops import authority
from tests.unit.servers import Answer, serving
from tests.unit.stacks import node, settings_of, stack


@pytest.fixture
def certificates(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr(authority, "_KEY_BITS", 2048)  # the shortest that TLS takes
    made = authority.make(settings_of(stack(node("a", tls=True), node("b", 1, tls=True))), {}, datetime.now(UTC))
    return {**made.plain, **made.secret}


@pytest.fixture
def url(certificates: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """Where a server with the certificate of node a is, which answers like a node that stored an image."""
    identity = tmp_path / "a.pem"
    identity.write_text(certificates[certificate_key("a")] + certificates[private_key_key("a")])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity)
    with serving(lambda _: Answer(body=b'{"ID": "stored"}'), context) as found:
        yield found


def test_a_node_with_tls_is_known_by_its_certificate_and_by_no_other_nodes(url: str, certificates: dict[str, str]) -> None:
    by_its_own, by_another = (Node("a", "A", url, ("127.0.0.1", 1), ("orthanc", "x"), certificates[trust_key(name)]) for name in "ab")
    done = upload(by_its_own, [b"1", b"2", b"3"], clients=2)
    assert (done.identifiers, done.errors) == (["stored"] * 3, [])
    done = upload(by_another, [b"1"], clients=1)
    assert done.identifiers == []
    assert "CERTIFICATE_VERIFY_FAILED" in done.errors[0]


def test_each_run_begins_with_another_system() -> None:
    assert [in_turn(["a", "b", "c"], run) for run in (1, 2, 3, 4)] == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


@pytest.mark.parametrize(
    ("rates", "tls", "hardening", "met"),
    [
        ({PROJECT: 100, TLS: 81, BARE: 104}, "0.81x (81.0 and 100.0 images/s)", "0.96x (100.0 and 104.0 images/s)", "met"),
        ({PROJECT: 100, TLS: 79, BARE: 106}, "0.79x (79.0 and 100.0 images/s)", "0.94x (100.0 and 106.0 images/s)", "**not met**"),
    ],
)
def test_costs_are_held_against_what_has_them_not(tmp_path: Path, rates: dict[str, float], tls: str, hardening: str, met: str) -> None:
    results = Results("security", tmp_path)
    for run in (1, 2, 3):
        for system, rate in rates.items():
            results.add(Row("backlog", system, "forwarder, 2 associations", run, rate + run - 2, "images/s"))
            results.add(Row("upload", system, "small (64x64), 4 clients", run, 10 * rate, "images/s"))
    report.write(tmp_path)
    page = (tmp_path / "README.md").read_text()
    goals = [line for line in page.partition("## TLS and hardening")[0].splitlines() if line.startswith("| ") and "x (" in line]
    assert goals == [
        f"| TLS: backlog, forwarder, 2 associations ≥ 0.8x | {tls} | {met} |",
        f"| hardening: backlog, forwarder, 2 associations ≥ 0.95x | {hardening} | {met} |",
    ]
    _, line = [line for line in page.splitlines() if line.startswith("| TLS: backlog") and "≥ 0.8x |" in line]
    low, high = (rates[TLS] - 1) / (rates[PROJECT] - 1), (rates[TLS] + 1) / (rates[PROJECT] + 1)
    assert f"| {rates[TLS]:.1f} ({rates[TLS] - 1:.1f} to {rates[TLS] + 1:.1f}) | 100.0 (99.0 to 101.0) |" in line
    assert f"| {low:.2f} to {high:.2f} | ≥ 0.8x |" in line
    # What the sender itself costs is in it: shown, and no goal.
    assert any(line.startswith("| TLS: upload") and line.endswith("|  |  |") for line in page.splitlines())
