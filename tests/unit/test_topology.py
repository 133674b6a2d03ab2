"""What follows from a topology: who knows whom, what each may ask, what Orthanc is told, who shares a network. No Pulumi."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from configs.networks import Network, networks_of
from hypothesis import given
from hypothesis import strategies as st

from configs.loader import load_stack_file
from configs.orthanc import options_of, overlay
from configs.plan import PERMISSIONS, DicomEndpoint, commits, mermaid, peers_of
from configs.settings import Operation, StackSettings
from ops.reference import ROOT
from tests.unit.stacks import node, problems_of, settings_of, stack

PACS = {"name": "pacs", "aet": "PACS", "host": "10.0.0.7", "port": 104, "nodes": ["a"], "allow": ["find"]}
NAMES = "abcdef"

#: Links between nodes: any set of pairs.
LINKS = st.sets(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)).filter(lambda pair: pair[0] != pair[1]), max_size=12)


@st.composite
def topologies(draw: st.DrawFn) -> dict[str, Any]:
    """Stacks of some nodes with links from later ones to earlier ones."""
    nodes: list[dict[str, Any]] = []
    for number, name in enumerate(NAMES[: draw(st.integers(1, 6))]):
        targets = draw(st.sets(st.sampled_from(NAMES[:number]))) if number else set()
        index = draw(st.sampled_from(["sqlite", "postgresql"]))
        nodes.append(node(name, number, index=index, forwardTo=sorted(targets)))
    postgresql = any(one["index"] == "postgresql" for one in nodes)
    return stack(*nodes, **({"adminer": {}} if postgresql and draw(st.booleans()) else {}))


def links_of(raw: dict[str, Any]) -> set[tuple[str, str]]:
    return {(one["name"], target) for one in raw["nodes"] for target in one["forwardTo"]}


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
    problems = problems_of(stack(*(node(name, i, forwardTo=sorted(b for a, b in links if a == name)) for i, name in enumerate(NAMES))))
    assert bool(problems) == has_cycle(links)
    assert all("forwarding loop" in message for message in problems.values())


# --- who knows whom ---


def entries(settings: StackSettings, at: str) -> dict[str, dict[str, Any]]:
    """What a node is told of each of its peers."""
    endpoints = {one.name: DicomEndpoint(one.aet, one.name, 4242) for one in settings.nodes}
    endpoints |= {one.name: DicomEndpoint(one.aet, one.host, one.port) for one in settings.modalities}
    this = next(one for one in settings.nodes if one.name == at)
    return {peer.name: peer.modality() for peer in peers_of(this, settings, endpoints)}


def allowed(raw: dict[str, Any], at: str) -> dict[str, set[str]]:
    """What each peer of a node may ask of it."""
    return {name: {one for one in PERMISSIONS if entry[one]} for name, entry in entries(settings_of(raw), at).items()}


def forwarding(*links: Any) -> dict[str, Any]:
    """A node a that forwards, a node b, and an archive outside, pacs, that knows a."""
    return stack(node("a", 0, forwardTo=list(links)), node("b", 1), modalities=[PACS])


@given(topologies())
def test_wiring_is_mutual_and_least(raw: dict[str, Any]) -> None:
    links = links_of(raw)
    for this in (one["name"] for one in raw["nodes"]):
        permissions = allowed(raw, this)
        assert list(permissions) == sorted({b for a, b in links if a == this} | {a for a, b in links if b == this})
        for peer, may in permissions.items():
            sends = {"AllowStore", "AllowNAction"} if (peer, this) in links else set()
            reports = {"AllowEventReport"} if (this, peer) in links else set()
            assert may == {"AllowEcho"} | sends | reports


@pytest.mark.parametrize(
    ("confirm", "sender_may", "destination_may"),
    [
        ("commitment", {"AllowEcho", "AllowStore", "AllowNAction"}, {"AllowEcho", "AllowEventReport"}),
        ("query", {"AllowEcho", "AllowStore", "AllowFind"}, {"AllowEcho"}),
    ],
)
def test_what_the_ends_of_a_link_may(confirm: str, sender_may: set[str], destination_may: set[str]) -> None:
    raw = forwarding(*({"to": to, "confirm": confirm} for to in ("b", "pacs")))
    assert allowed(raw, "b") == {"a": sender_may}
    assert allowed(raw, "a") == {"b": destination_may, "pacs": {"AllowFind"} | destination_may}
    assert allowed(forwarding(), "a") == {"pacs": {"AllowFind"}}, "and nothing else without a link"


def test_a_modality_may_do_what_it_is_allowed_and_nothing_else() -> None:
    seen: set[str] = set()
    for operation in Operation:
        settings = settings_of(stack(node("a"), node("b", 1), modalities=[{**PACS, "allow": [operation.value]}]))
        (entry,) = entries(settings, "a").values()
        assert (entry["AET"], entry["Host"], entry["Port"]) == ("PACS", "10.0.0.7", 104)
        (permission,) = (name for name in PERMISSIONS if entry[name])
        seen.add(permission)
        assert commits(settings.nodes[0], settings) is (operation is Operation.COMMIT)
        assert entries(settings, "b") == {}
    assert seen == set(PERMISSIONS) - {"AllowEventReport"}, "each operation has a permission of its own"
    several = stack(node("a"), modalities=[{**PACS, "allow": ["echo", "move"]}])
    assert allowed(several, "a") == {"pacs": {"AllowEcho", "AllowMove"}}
    unsaid = stack(node("a"), modalities=[{key: value for key, value in PACS.items() if key != "allow"}])
    assert allowed(unsaid, "a") == {"pacs": {"AllowEcho"}}


def test_the_topology_as_a_graph() -> None:
    a = node("a", index="sqlite", forwardTo=[{"to": "pacs", "only": {"modality": ["SECRETRULE"]}}, "b"])
    graph = mermaid(settings_of(stack(a, node("b", 1), modalities=[PACS])))
    for line in ("n_a -->|C-STORE| n_b", "n_a -->|C-STORE| n_pacs", "n_pacs -->|find| n_a", "n_b -.->|index| db"):
        assert line in graph
    assert "n_a -.->|index| db" not in graph
    assert "SECRETRULE" not in graph


# --- what Orthanc is told ---


def test_options_are_laid_over_each_other() -> None:
    block = {"StableAge": 33, "PostgreSQL": {"IndexConnectionsCount": 7}}
    settings = settings_of(stack(node("a", orthanc=block), node("b", 1, index="sqlite")))
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
def test_the_seeds_options_are_there_and_whoever_is_not_wired_is_refused(environment: str) -> None:
    settings = settings_of(stack(node("a"), environment=environment, bind="127.0.0.1"))
    options = options_of(settings.nodes[0], settings)
    assert {key: options[key] for key in SEED} == SEED
    comments = "".join((ROOT / "configs" / "orthanc" / f"{name}.yaml").read_text() for name in ("base", "postgresql"))
    assert [key for key in SEED_ELSEWHERE if key not in comments] == []
    assert [value for key, value in options.items() if key.startswith("DicomAlwaysAllow")] == [False] * 6


def test_links_bring_their_own_jobs_and_threads_below_the_nodes_own_block() -> None:
    a = node("a", 0, forwardTo=[{"to": "c", "associations": 5}, "b"])
    b = node("b", 1, forwardTo=[{"to": "c", "associations": 3}])
    e = node("e", 4, forwardTo=["f"], orthanc={"ConcurrentJobs": 30})
    f = node("f", 5, orthanc={"DicomThreadsCount": 40})
    settings = settings_of(stack(a, b, node("c", 2), node("d", 3), e, f))
    options = {this.name: options_of(this, settings) for this in settings.nodes}
    jobs = {"a": 2 + 7, "b": 2 + 3 + 1, "c": 2 + 2, "d": None, "e": 30, "f": 2 + 1}
    assert {name: of.get("ConcurrentJobs") for name, of in options.items()} == jobs
    assert {name: of["DicomThreadsCount"] for name, of in options.items()} == {"a": 4, "b": 4 + 3, "c": 4 + 6 + 4, "d": 4, "e": 4, "f": 40}


# --- who shares a network ---


def plan(raw: dict[str, Any]) -> dict[str, Network]:
    return {network.name: network for network in networks_of(settings_of(raw))}


def pair(a: str, b: str) -> frozenset[str]:
    return frozenset({a, b})


def test_the_networks_of_dev() -> None:
    assert networks_of(load_stack_file("dev")) == (
        Network("adminer", ("adminer",), internal=False),
        Network("db", ("adminer", "db", "db-roles")),
        Network("db.server", ("db", "server")),
        Network("link.client.server", ("client", "server")),
        Network("node.client", ("client", "client-forwarder"), internal=False, masquerade=True),
        Network("node.server", ("server",), internal=False, masquerade=True),
    )


def test_a_device_outside_is_on_no_network() -> None:
    raw = stack(node("a", index="sqlite", forwardTo=[{"to": "pacs", "confirm": "query"}]), modalities=[PACS])
    assert sorted(plan(raw)) == ["node.a"]


@given(topologies())
def test_who_shares_a_network_is_linked_or_has_its_index_there_or_forwards_for_it(raw: dict[str, Any]) -> None:
    """Two nodes that forward to the same one do not meet there."""
    expected = {pair(a, b) for a, b in links_of(raw)} | {pair(a, f"{a}-forwarder") for a, _ in links_of(raw)}
    on_db = {one["name"] for one in raw["nodes"] if one["index"] == "postgresql"}
    expected |= {pair(name, "db") for name in [*on_db, *(["db-roles"] if on_db else [])]}
    expected |= {pair("adminer", "db"), pair("adminer", "db-roles")} if "adminer" in raw else set()
    networks = plan(raw)
    assert {pair(*two) for network in networks.values() for two in combinations(network.members, 2)} == expected
    # docs/containers.md tells users how to count them.
    assert len(networks) == len(raw["nodes"]) + len(on_db) + len(links_of(raw)) + bool(on_db) + ("adminer" in raw)
    assert list(networks) == sorted(networks)


@given(topologies())
def test_every_container_with_a_port_has_exactly_one_network_that_leads_out(raw: dict[str, Any]) -> None:
    """With two, the default route would be a matter of chance; with none, no port is published. The database has none."""
    networks = plan(raw).values()
    members = {member for network in networks for member in network.members}
    out = {member: sum(member in network.members and not network.internal for network in networks) for member in members}
    assert out == {member: 0 if member in ("db", "db-roles") else 1 for member in members}
    assert not any(network.masquerade and network.internal for network in networks)
