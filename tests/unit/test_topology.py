"""What follows from a topology: who knows whom, what each may ask, what Orthanc is told, who shares a network. No Pulumi."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.orthanc import options_of, overlay
from configs.plan import PERMISSIONS, plan_of
from configs.settings import Operation
from dev.reference import ROOT
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


def allowed(raw: dict[str, Any], at: str) -> dict[str, set[str]]:
    """What each peer of a node may ask of it."""
    return {peer.name: set(peer.permissions) for peer in plan_of(settings_of(raw)).nodes[at].peers}


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
        ("auto", {"AllowEcho", "AllowStore", "AllowNAction"}, {"AllowEcho", "AllowEventReport"}),
        ("commitment", {"AllowEcho", "AllowStore", "AllowNAction"}, {"AllowEcho", "AllowEventReport"}),
        ("stored", {"AllowEcho", "AllowStore"}, {"AllowEcho"}),
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
        raw = stack(node("a"), node("b", 1), modalities=[{**PACS, "allow": [operation.value]}])
        ((permission,),) = allowed(raw, "a").values()
        seen.add(permission)
        assert allowed(raw, "b") == {}
    assert seen == set(PERMISSIONS) - {"AllowEventReport"}, "each operation has a permission of its own"
    several = stack(node("a"), modalities=[{**PACS, "allow": ["echo", "move"]}])
    assert allowed(several, "a") == {"pacs": {"AllowEcho", "AllowMove"}}
    unsaid = stack(node("a"), modalities=[{key: value for key, value in PACS.items() if key != "allow"}])
    assert allowed(unsaid, "a") == {"pacs": {"AllowEcho"}}


def test_the_topology_as_a_graph() -> None:
    a = node("a", index="sqlite", forwardTo=[{"to": "pacs", "only": {"modality": ["SECRETRULE"]}}, "b"])
    graph = plan_of(settings_of(stack(a, node("b", 1), modalities=[PACS]))).topology
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


def test_links_bring_their_own_jobs_threads_and_reports_below_the_nodes_own_block() -> None:
    a = node("a", 0, forwardTo=[{"to": "c", "associations": 5}, "b"])
    b = node("b", 1, forwardTo=[{"to": "c", "associations": 3}])
    e = node("e", 4, forwardTo=["f"], orthanc={"ConcurrentJobs": 30, "JobsHistorySize": 25})
    f = node("f", 5, orthanc={"DicomThreadsCount": 40})
    settings = settings_of(stack(a, b, node("c", 2), node("d", 3), e, f))
    options = {this.name: options_of(this, settings) for this in settings.nodes}
    jobs = {"a": 2 + 7, "b": 2 + 3 + 1, "c": 2 + 2, "d": None, "e": 30, "f": 2 + 1}
    assert {name: of.get("ConcurrentJobs") for name, of in options.items()} == jobs
    assert {name: of["DicomThreadsCount"] for name, of in options.items()} == {"a": 4, "b": 4 + 3, "c": 4 + 6 + 4, "d": 4, "e": 4, "f": 40}
    history = {"a": 20 + 40, "b": 20 + 20, "c": 20, "d": 20, "e": 25, "f": 20}
    assert {name: of["JobsHistorySize"] for name, of in options.items()} == history
    reports = {"a": 100 + 400, "b": 100 + 200, "c": None, "d": None, "e": 100 + 200, "f": None}
    assert {name: of.get("StorageCommitmentReportsSize") for name, of in options.items()} == reports


# --- networks ---


@given(topologies())
def test_three_networks_at_most_however_many_nodes(raw: dict[str, Any]) -> None:
    on_db = any(one["index"] == "postgresql" for one in raw["nodes"])
    wanted = ["dicom", *(["index"] if on_db else []), *(["admin"] if "adminer" in raw else [])]
    assert list(plan_of(settings_of(raw)).networks) == wanted
