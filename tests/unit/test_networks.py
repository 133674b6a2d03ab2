"""Who is on which network: those that have to talk share one, and nobody else does. No Pulumi."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from configs.loader import load_stack_file
from configs.networks import Network, networks_of
from tests.unit.stacks import node, settings_of, stack

PACS = {"name": "pacs", "aet": "PACS", "host": "10.0.0.7", "port": 104, "nodes": ["a"]}


def plan(raw: dict[str, Any]) -> dict[str, Network]:
    return {network.name: network for network in networks_of(settings_of(raw))}


def pairs(raw: dict[str, Any]) -> set[frozenset[str]]:
    """Every two containers that share a network."""
    return {frozenset(pair) for network in plan(raw).values() for pair in combinations(network.members, 2)}


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


def test_two_nodes_that_forward_to_the_same_do_not_meet_there() -> None:
    raw = stack(node("a", 0), node("b", 1, forwardTo=["a"]), node("c", 2, forwardTo=["a"]))
    assert pairs(raw) == {
        *(pair("db", other) for other in ("db-roles", "a", "b", "c")),
        *(pair("a", other) for other in ("b", "c")),
        *(pair(other, f"{other}-forwarder") for other in ("b", "c")),
    }


def test_a_device_outside_is_on_no_network() -> None:
    raw = stack(node("a", index="sqlite", forwardTo=[{"to": "pacs", "confirm": "query"}]), modalities=[PACS])
    assert sorted(plan(raw)) == ["node.a"]


@st.composite
def topologies(draw: st.DrawFn) -> dict[str, Any]:
    """Stacks of some nodes with links from later ones to earlier ones."""
    count = draw(st.integers(1, 6))
    nodes = []
    for number in range(count):
        targets = draw(st.sets(st.integers(0, number - 1))) if number else set()
        index = draw(st.sampled_from(["sqlite", "postgresql"]))
        nodes.append(node(f"n{number}", number, index=index, forwardTo=[f"n{target}" for target in sorted(targets)]))
    postgresql = any(one["index"] == "postgresql" for one in nodes)
    return stack(*nodes, **({"adminer": {}} if postgresql and draw(st.booleans()) else {}))


@given(topologies())
def test_who_shares_a_network_is_linked_or_has_its_index_there_or_forwards_for_it(raw: dict[str, Any]) -> None:
    expected = set()
    for one in raw["nodes"]:
        expected |= {pair(one["name"], target) for target in one["forwardTo"]}
        expected |= {pair(one["name"], f"{one['name']}-forwarder")} if one["forwardTo"] else set()
        expected |= {pair(one["name"], "db"), pair("db", "db-roles")} if one["index"] == "postgresql" else set()
    expected |= {pair("adminer", "db"), pair("adminer", "db-roles")} if "adminer" in raw else set()
    assert pairs(raw) == expected


@given(topologies())
def test_every_container_with_a_port_has_exactly_one_network_that_leads_out(raw: dict[str, Any]) -> None:
    """With two, the default route would be a matter of chance; with none, no port is published. The database has none."""
    networks = plan(raw).values()
    out = {
        member: sum(member in network.members and not network.internal for network in networks) for n in networks for member in n.members
    }
    assert {member for member, count in out.items() if count == 0} <= {"db", "db-roles"}
    assert {count for member, count in out.items() if member not in ("db", "db-roles")} == {1}
    assert not any(network.masquerade and network.internal for network in networks)


@given(topologies())
def test_how_many_networks_there_are(raw: dict[str, Any]) -> None:
    """docs/containers.md tells users how to count them."""
    nodes = raw["nodes"]
    on_db = sum(one["index"] == "postgresql" for one in nodes)
    links = sum(len(one["forwardTo"]) for one in nodes)
    assert len(plan(raw)) == len(nodes) + on_db + links + bool(on_db) + ("adminer" in raw)
    assert list(plan(raw)) == sorted(plan(raw))
