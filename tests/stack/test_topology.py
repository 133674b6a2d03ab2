"""Five nodes with three links from one stack file: two scanners' nodes -> archive -> backup, and a node that nobody knows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest

from tests.stack.dicom import as_file, ct_series
from tests.stack.forwarding import await_delivery
from tests.stack.harness import Stack, docker, without_nodes
from tests.stack.reach import expected, reached

pytestmark = pytest.mark.slow("a stack of five nodes: 90 s")

LINKS = {("ct", "archive"), ("mr", "archive"), ("archive", "backup")}
NODES = {"ct", "mr", "archive", "backup", "lonely"}
FORWARDERS = {f"{node}-forwarder" for node, _ in LINKS}


@pytest.fixture(scope="module")
def five(program: Path) -> Iterator[Stack]:
    """The five nodes, with dev's other settings."""
    stack = without_nodes(program)
    stack.add_node("ct", index="sqlite", forwardTo=["archive"])
    stack.add_node("mr", index="sqlite", forwardTo=["archive"])
    stack.add_node("archive", index="postgresql", forwardTo=["backup"])
    stack.add_node("backup", index="postgresql")
    stack.add_node("lonely", index="sqlite")
    with stack.deployed():
        yield stack


def known(link: tuple[str, str]) -> bool:
    """Whether two nodes know each other."""
    return link in LINKS or link[::-1] in LINKS


def test_all_five_run(five: Stack) -> None:
    assert five.containers().keys() == NODES | FORWARDERS | {"db", "db-roles"}
    assert five.volumes() == NODES | {"db"}


def test_every_link_echoes_both_ways_and_nothing_else_does(five: Stack) -> None:
    nodes = five.nodes()
    echoes = {link for link in permutations(nodes, 2) if nodes[link[0]].echoes(link[1])}
    assert echoes == {link for link in permutations(NODES, 2) if known(link)}


@pytest.mark.parametrize(
    ("changed", "knowing"),
    [
        ("ct", {"ct", "archive"}),
        ("archive", {"ct", "mr", "archive", "backup", "ct-forwarder", "mr-forwarder"}),
        ("lonely", {"lonely"}),
    ],
)
def test_another_ae_title_would_replace_who_knows_it(five: Stack, changed: str, knowing: set[str]) -> None:
    """The forwarder of a node that forwards to it, too: what the destination had refused is tried again."""
    with five.trying():
        five.node_settings(changed)["aet"] = "ANOTHER"
        done = five.preview()
    assert done.replaced == {f"{name}-container" for name in knowing}


def test_who_reaches_whom(five: Stack) -> None:
    """Two that forward to the same node do not reach each other, and nobody reaches one that nobody knows."""
    found = reached(five)
    assert found == expected(five)
    assert {name for name, _ in found["lonely"]} == set()
    assert {name for name, _ in found["ct"]} == {"archive", "ct-forwarder"}
    assert docker("exec", f"{five.prefix}-ct", "getent", "hosts", "mr", check=False) == ""
    assert docker("exec", f"{five.prefix}-ct", "getent", "hosts", "archive") != ""


def test_an_image_goes_from_a_scanners_node_over_the_archive_into_the_backup(five: Stack) -> None:
    image = ct_series(slices=1, size=64)[0]
    identifiers = {str(image.SOPInstanceUID): five.node("ct").post("/instances", as_file(image))["ID"]}
    for link in (("ct", "archive"), ("archive", "backup")):
        await_delivery(five, *link)
        assert five.node(link[1]).holds(identifiers) == identifiers
    assert five.node("mr").holds(identifiers) == five.node("lonely").holds(identifiers) == {}


def test_destroy_leaves_nothing(five: Stack) -> None:
    done = five.destroy()
    assert done.ok, done.text
    assert five.containers() == {}
    assert five.volumes() == set()
    assert five.networks() == []
