"""Six nodes with four links from one stack file: what is linked knows and reaches each other, and nothing else does."""

from __future__ import annotations

from itertools import permutations

import pytest

from tests.faults.world import World
from tests.stack.dicom import as_file, ct_series, echo
from tests.stack.forwarding import await_delivery
from tests.stack.harness import docker
from tests.stack.reach import expected, reached

LINKS = {("client", "server"), ("second", "server"), ("room", "client"), ("room", "spare")}
NODES = {"server", "client", "second", "room", "spare", "lonely"}


def test_all_run(world: World) -> None:
    forwarders = {f"{node}-forwarder" for node, _ in LINKS}
    assert world.stack.containers().keys() == NODES | forwarders | {"db", "db-roles"}
    assert world.stack.volumes() == NODES | {"db"}


def test_every_link_echoes_both_ways_and_nothing_else_does(world: World) -> None:
    nodes = world.stack.nodes()
    echoes = {link for link in permutations(nodes, 2) if nodes[link[0]].echoes(link[1])}
    assert echoes == {link for link in permutations(NODES, 2) if link in LINKS or link[::-1] in LINKS}


def test_who_reaches_whom(world: World) -> None:
    """Nodes and forwarders share a network; the database is on another one, with the nodes whose index it holds."""
    found = reached(world.stack)
    assert found == expected(world.stack)
    assert {name for name, _ in found["lonely"]} == found.keys() - {"lonely", "db"}
    assert "db" in {name for name, _ in found["second"]}
    assert "db" not in {name for name, _ in found["second-forwarder"]}


def test_a_node_refuses_those_that_it_is_not_linked_with(world: World) -> None:
    """Under their own AE titles, by the name of the network that they share; and by HTTP without a login."""
    nodes = world.stack.nodes()
    served = {(caller, called) for caller, called in permutations(NODES, 2) if echo(nodes[called], nodes[caller].aet)}
    assert served == {link for link in permutations(NODES, 2) if link in LINKS or link[::-1] in LINKS}
    asked = "import sys, urllib.request as u\ntry: print(u.urlopen(sys.argv[1]).status)\nexcept OSError as error: print(error)"
    for path in ("/patients", "/system", "/tools/execute-script"):
        answer = docker("exec", f"{world.stack.prefix}-lonely", "python3", "-c", asked, f"http://server:8042{path}")
        assert "401" in answer, (path, answer)


def test_an_image_goes_from_node_to_node(world: World) -> None:
    image = ct_series(slices=1, size=64)[0]
    nodes = world.stack.nodes()
    identifiers = {str(image.SOPInstanceUID): nodes["room"].post("/instances", as_file(image))["ID"]}
    for sender, to in (("room", "spare"), ("room", "client"), ("client", "server")):
        await_delivery(world.stack, sender, to)
        assert nodes[to].holds(identifiers) == identifiers
    assert nodes["second"].holds(identifiers) == nodes["lonely"].holds(identifiers) == {}


@pytest.mark.slow("three previews of a stack of six nodes: 15 s")
@pytest.mark.parametrize(
    ("changed", "knowing"),
    [("second", {"second", "server"}), ("client", {"client", "server", "room", "room-forwarder"}), ("lonely", {"lonely"})],
)
def test_another_ae_title_would_replace_who_knows_it(world: World, changed: str, knowing: set[str]) -> None:
    """The forwarder of a node that forwards to it, too: what the destination had refused is tried again."""
    with world.stack.trying():
        world.stack.node_settings(changed)["aet"] = "ANOTHER"
        done = world.stack.preview()
    assert done.replaced == {f"{name}-container" for name in knowing}


@pytest.mark.slow("removes a stack of six nodes with Pulumi, which the fast tests do without it: 20 s")
def test_destroy_leaves_nothing(world: World) -> None:
    """The last test of this stack."""
    done = world.stack.destroy()
    assert done.ok, done.text
    assert (world.stack.containers(), world.stack.volumes(), world.stack.networks()) == ({}, set(), [])
