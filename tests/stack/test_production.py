"""A stack like prod keeps its data: destroyed, and deployed again, it finds its images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.dicom import as_file, ct_series
from tests.stack.forwarding import await_delivery, forwarder_of, link
from tests.stack.harness import Stack, docker, eventually


@pytest.fixture(scope="module")
def prod(program: Path) -> Iterator[Stack]:
    """The stack of Pulumi.prod.yaml, on ports of its own."""
    stack = Stack(program, "prod")
    try:
        stack.up()
        yield stack
    finally:
        stack.remove()


@pytest.fixture(scope="module")
def image(prod: Stack) -> str:
    """The SOP instance UID of an image that both nodes hold."""
    made = ct_series(slices=1, size=64)[0]
    prod.node("client").post("/instances", as_file(made))
    await_delivery(prod, "client", "server")
    assert prod.node("server").holds([made.SOPInstanceUID])
    return str(made.SOPInstanceUID)


def test_it_has_no_adminer_and_both_indexes_are_in_postgresql(prod: Stack) -> None:
    assert prod.containers().keys() == {"client", "client-forwarder", "db", "db-roles", "server"}
    assert prod.outputs().get("adminerUrl") is None
    assert {node["index"] for node in prod.outputs()["nodes"].values()} == {"postgresql"}


def test_a_second_preview_shows_nothing(prod: Stack) -> None:
    prod.preview(expect_no_changes=True)


def test_each_end_of_the_link_echoes_the_other(prod: Stack) -> None:
    assert prod.node("client").echoes("server")
    assert prod.node("server").echoes("client")


@pytest.mark.usefixtures("image")
def test_a_plain_destroy_is_refused(prod: Stack) -> None:
    before = prod.containers()
    done = prod.command("destroy", "--yes")
    assert not done.ok
    assert "protect" in done.text
    assert prod.containers() == before


def test_a_destroy_keeps_the_data(prod: Stack, image: str) -> None:
    done = prod.destroy(exclude_protected=True)
    assert done.ok, done.text
    assert prod.containers() == {}
    assert prod.networks() == []
    assert prod.volumes() == {"client", "db", "server"}
    prod.up()
    assert prod.node("client").holds([image])
    assert prod.node("server").holds([image])
    assert prod.sql("select count(*) from resources where resourcetype = 3", database="orthanc_server") == "1"
    # The new forwarder finds in the client's database that it has been delivered, and sends nothing.
    log = eventually("the forwarder looks at all series", lambda: _swept(docker("logs", forwarder_of(prod, "client"))))
    assert "swept: series=1 not_delivered=0" in log
    assert link(prod, "client", "server")["delivered"] == 0


def _swept(log: str) -> str:
    return log if "swept:" in log else ""
