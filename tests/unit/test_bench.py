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
from ops.stack import authority
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


def goals_of(folder: Path) -> list[str]:
    """The lines of the page's table of goals."""
    report.write(folder)
    _, _, table = (folder / "README.md").read_text().partition("| --- | --- | --- |\n")
    return table.partition("\n\n")[0].splitlines()


@pytest.mark.parametrize(
    ("preview", "up", "met"),
    [(1.27, 6.9, ("met", "met")), (1.28, 7.1, ("**not met**", "**not met**"))],
)
def test_a_deployment_is_held_against_compose_and_an_empty_program(tmp_path: Path, preview: float, up: float, met: tuple[str, str]) -> None:
    results = Results("deploy", tmp_path)
    for system, seconds in (("pulumi", up), ("compose", 5.0)):
        results.add(Row("first up", system, "", 1, seconds, "s"))
        results.add(Row("first up, phase", system, "db", 1, seconds, "s"))
    for system, seconds in (("pulumi", preview), ("empty program", 0.75)):
        results.add(Row("no-op preview", system, "", 1, seconds, "s"))
    assert goals_of(tmp_path) == [
        f"| first `up` ≤ 1.4x compose | {up / 5:.2f}x ({up:.2f} and 5.00 s) | {met[0]} |",
        f"| no-op preview ≤ 1.7x the empty program | {preview / 0.75:.2f}x ({preview:.2f} and 0.75 s) | {met[1]} |",
    ]


@pytest.mark.parametrize(
    ("per_node", "bend", "shown", "met"),
    [
        (0.089, 0.0, "89.0 ms per node, R² 1.0000", "met"),
        (0.091, 0.0, "91.0 ms per node, R² 1.0000", "**not met**"),
        # Cheap on the whole, but each node costs more than the one before.
        (0.001, 0.001, "54.4 ms per node, R² 0.9451", "**not met**"),
    ],
)
def test_growth_is_by_nodes_and_must_be_a_line(tmp_path: Path, per_node: float, bend: float, shown: str, met: str) -> None:
    results = Results("scale", tmp_path)
    for count in (2, 10, 25, 50):
        for operation, more in (("up", 1.0), ("preview", 0.0)):
            results.add(Row(f"no-op {operation}", "pulumi", f"{count} nodes", 1, 0.7 + more + per_node * count + bend * count**2, "s"))
    assert goals_of(tmp_path) == [f"| no-op preview ≤ 90 ms per node with its forwarder, linear (R² ≥ 0.98) | {shown} | {met} |"]


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
    assert goals_of(tmp_path) == [
        f"| TLS: backlog, forwarder, 2 associations ≥ 0.8x | {tls} | {met} |",
        f"| hardening: backlog, forwarder, 2 associations ≥ 0.95x | {hardening} | {met} |",
    ]
    page = (tmp_path / "README.md").read_text()
    _, line = [line for line in page.splitlines() if line.startswith("| TLS: backlog") and "≥ 0.8x |" in line]
    low, high = (rates[TLS] - 1) / (rates[PROJECT] - 1), (rates[TLS] + 1) / (rates[PROJECT] + 1)
    assert f"| {rates[TLS]:.1f} ({rates[TLS] - 1:.1f} to {rates[TLS] + 1:.1f}) | 100.0 (99.0 to 101.0) |" in line
    assert f"| {low:.2f} to {high:.2f} | ≥ 0.8x |" in line
    # What the sender itself costs is in it: shown, and no goal.
    assert any(line.startswith("| TLS: upload") and line.endswith("|  |  |") for line in page.splitlines())
