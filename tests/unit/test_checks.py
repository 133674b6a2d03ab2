"""The rules between settings. No Pulumi."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.orthanc_options import COMPUTED, options_of, overlay
from configs.settings import Operation
from configs.wiring import PERMISSIONS, DicomEndpoint, commits, mermaid, peers_of
from ops.reference import ROOT, pages, wrong_stack_files
from tests.unit.stacks import node, problems_of, settings_of, stack

NAMES = ["a", "b", "c", "d", "e", "f"]

#: Links of a topology of six nodes: any set of pairs.
LINKS = st.sets(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)).filter(lambda pair: pair[0] != pair[1]), max_size=12)


def topology(links: set[tuple[str, str]]) -> dict[str, object]:
    return stack(*(node(name, i, forwardTo=sorted(b for a, b in links if a == name)) for i, name in enumerate(NAMES)))


def has_cycle(links: set[tuple[str, str]]) -> bool:
    """By taking away, again and again, the nodes that nothing leads to."""
    left = set(links)
    while True:
        targets = {b for _, b in left}
        kept = {(a, b) for a, b in left if a in targets}
        if kept == left:
            return bool(left)
        left = kept


@given(LINKS)
def test_a_forwarding_loop_is_found_exactly_where_there_is_one(links: set[tuple[str, str]]) -> None:
    problems = problems_of(topology(links))
    assert bool(problems) == has_cycle(links)
    assert all("forwarding loop" in message for message in problems.values())


@given(LINKS.filter(lambda links: not has_cycle(links)))
def test_wiring_is_mutual_and_least(links: set[tuple[str, str]]) -> None:
    settings = settings_of(topology(links))
    endpoints = {n.name: DicomEndpoint(n.aet, n.name, 4242) for n in settings.nodes}
    for this in settings.nodes:
        peers = {peer.name: peer for peer in peers_of(this, settings, endpoints)}
        assert set(peers) == {b for a, b in links if a == this.name} | {a for a, b in links if b == this.name}
        assert list(peers) == sorted(peers)
        for name, peer in peers.items():
            sends_here = (name, this.name) in links
            assert peer.modality()["AllowStore"] is sends_here
            assert peer.modality()["AllowNAction"] is sends_here
            assert peer.modality()["AllowEventReport"] is ((this.name, name) in links)
            assert peer.modality()["AllowEcho"] is True
            assert not any(peer.modality()[p] for p in ("AllowFind", "AllowMove", "AllowGet", "AllowFindWorklist"))


def test_a_modality_may_do_what_it_is_allowed_and_nothing_else() -> None:
    device = {"name": "ct", "aet": "CT", "host": "10.0.0.7", "port": 104, "nodes": ["a"], "allow": ["echo", "move"]}
    settings = settings_of(stack(node("a"), node("b", 1), modalities=[device]))
    endpoints = {name: DicomEndpoint(name.upper(), name, 4242) for name in ("a", "b")} | {"ct": DicomEndpoint("CT", "10.0.0.7", 104)}
    (peer,) = peers_of(settings.nodes[0], settings, endpoints)
    entry = peer.modality()
    assert (entry["AET"], entry["Host"], entry["Port"]) == ("CT", "10.0.0.7", 104)
    assert {name for name in PERMISSIONS if entry[name]} == {"AllowEcho", "AllowMove"}
    assert peers_of(settings.nodes[1], settings, endpoints) == ()


def test_a_modality_may_echo_alone_unless_told_otherwise() -> None:
    device = {"name": "ct", "aet": "CT", "host": "ct", "port": 104, "nodes": ["a"]}
    assert settings_of(stack(node("a"), modalities=[device])).modalities[0].allow == (Operation.ECHO,)


def test_every_operation_has_a_permission_of_its_own() -> None:
    seen: set[str] = set()
    for operation in Operation:
        device = {"name": "ct", "aet": "CT", "host": "ct", "port": 104, "nodes": ["a"], "allow": [operation.value]}
        settings = settings_of(stack(node("a"), modalities=[device]))
        (peer,) = peers_of(settings.nodes[0], settings, {"a": DicomEndpoint("A", "a", 4242), "ct": DicomEndpoint("CT", "ct", 104)})
        assert len(peer.permissions) == 1
        seen |= peer.permissions
        assert commits(settings.nodes[0], settings) is (operation is Operation.COMMIT)
    assert seen == set(PERMISSIONS) - {"AllowEventReport"}


@pytest.mark.parametrize(
    ("a", "b", "conflict"),
    [
        (None, None, True),
        ("127.0.0.1", "127.0.0.2", False),
        ("0.0.0.0", "127.0.0.2", True),
        ("::", "127.0.0.1", True),
        ("127.0.0.1", None, True),
    ],
)
def test_host_ports_are_compared_with_their_addresses(a: str | None, b: str | None, conflict: bool) -> None:
    problems = problems_of(stack(node("a", 0, bind=a), node("b", 1, httpPort=8000, bind=b)))
    assert (list(problems) == ["nodes[1].httpPort"]) is conflict


def test_adminers_port_counts() -> None:
    assert list(problems_of(stack(node("a"), adminer={"port": 8000}))) == ["adminer.port"]


def test_connections_are_added_up_over_the_nodes_on_postgresql() -> None:
    def of(count: int, index: str) -> dict[str, str]:
        block = {"PostgreSQL": {"IndexConnectionsCount": count}} if index == "postgresql" else {}
        return problems_of(stack(node("a", orthanc=block, index=index), indexDb={"maxConnections": 50}))

    assert of(37, "postgresql") == {}
    assert list(of(38, "postgresql")) == ["indexDb.maxConnections"]
    assert of(38, "sqlite") == {}


def test_prod_wants_addresses_said() -> None:
    raw = stack(node("a", bind="127.0.0.1"), node("b", 1), environment="prod")
    assert "nodes b" in problems_of(raw)["bind"]
    assert problems_of({**raw, "bind": "127.0.0.1"}) == {}
    assert problems_of(stack(node("a", bind="127.0.0.1"), environment="prod")) == {}


@pytest.mark.parametrize("key", COMPUTED)
def test_no_computed_option_can_be_overridden(key: tuple[str, ...]) -> None:
    block: dict[str, object] = {}
    inner = block
    for part in key[:-1]:
        inner = inner.setdefault(part, {})  # type: ignore[assignment]
    inner[key[-1]] = "x"
    problems = problems_of(stack(node("a", orthanc=block)))
    assert "computed" in problems[f"nodes[0].orthanc.{'.'.join(key)}"]


@pytest.mark.parametrize("value", ["2", True, 2.5, None])
def test_options_of_the_index_plugin_are_of_its_types(value: object) -> None:
    block = {"PostgreSQL": {"IndexConnectionsCount": value}}
    assert "nodes[0].orthanc.PostgreSQL.IndexConnectionsCount" in problems_of(stack(node("a", orthanc=block)))


def test_options_are_laid_over_each_other() -> None:
    settings = settings_of(
        stack(node("a", orthanc={"StableAge": 33, "PostgreSQL": {"IndexConnectionsCount": 7}}), node("b", 1, index="sqlite"))
    )
    a, b = (options_of(n, settings) for n in settings.nodes)
    assert (a["StableAge"], a["PostgreSQL"]["IndexConnectionsCount"], a["PostgreSQL"]["Lock"]) == (33, 7, True)
    assert (b["StableAge"], "PostgreSQL" in b) == (10, False)
    assert overlay({"x": {"y": 1, "z": [1]}}, {"x": {"z": [2]}}) == {"x": {"y": 1, "z": [2]}}


@pytest.mark.parametrize(("source", "connections"), [("auto", 1), ("local", 1), ("registry", 2)])
def test_an_index_plugin_whose_transactions_collide_has_one_connection(source: str, connections: int) -> None:
    settings = settings_of(stack(node("a"), images={"source": source}))
    assert options_of(settings.nodes[0], settings)["PostgreSQL"]["IndexConnectionsCount"] == connections


SEED = {
    "RemoteAccessAllowed": True, "StorageCompression": False, "KeepAlive": True, "TcpNoDelay": True, "StorageAccessOnFind": "Never",
    "AuthenticationEnabled": True, "IngestTranscodingOfUncompressed": False, "IngestTranscodingOfCompressed": False,
    "OverwriteInstances": True, "DicomScuTimeout": 120, "DicomScpTimeout": 240,
}  # fmt: skip
#: Options of the seed whose value differs, or which are computed: base.yaml and postgresql.yaml say in a comment why.
SEED_ELSEWHERE = ["HttpPort", "DicomPort", "SaveJobs", "EnableIndex", "EnableStorage", "IndexConnectionsCount", "EnableSsl", "Lock"]


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_the_seeds_options_are_there(environment: str) -> None:
    settings = settings_of(stack(node("a"), environment=environment, bind="127.0.0.1"))
    options = options_of(settings.nodes[0], settings)
    assert {key: options[key] for key in SEED} == SEED
    comments = "".join((ROOT / "configs" / "orthanc" / f"{name}.yaml").read_text() for name in ("base", "postgresql"))
    assert [key for key in SEED_ELSEWHERE if key not in comments] == []


def test_whoever_is_not_wired_is_refused() -> None:
    settings = settings_of(stack(node("a")))
    options = options_of(settings.nodes[0], settings)
    assert [key for key, value in options.items() if key.startswith("DicomAlwaysAllow") and value is not False] == []
    assert sum(key.startswith("DicomAlwaysAllow") for key in options) == 6


def test_the_topology_as_a_graph() -> None:
    device = {"name": "ct", "aet": "CT", "host": "ct", "port": 104, "nodes": ["b"]}
    graph = mermaid(settings_of(stack(node("a"), node("b", 1, index="sqlite", forwardTo=["a"]), modalities=[device])))
    assert "n_b -->|C-STORE| n_a" in graph
    assert "n_ct -->|echo| n_b" in graph
    assert "n_a -.->|index| db" in graph
    assert "n_b -.->|index| db" not in graph


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_reference_pages_are_current(page: object) -> None:
    assert pages()[page] == page.read_text(encoding="utf-8"), "run: make docs"  # type: ignore[index,attr-defined]


@pytest.mark.parametrize(("path", "printed"), [(path, printed) for path, _, printed in wrong_stack_files()])
def test_every_wrong_stack_file_is_refused(path: object, printed: str) -> None:
    assert "Nothing was touched" in printed
    assert " 0 problems" not in printed
