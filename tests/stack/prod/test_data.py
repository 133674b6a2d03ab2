"""A stack like prod keeps its data: from a second checkout, from a slip in its stack file, and when it is destroyed."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from tests.stack.dicom import as_file, ct_series
from tests.stack.forwarding import await_delivery, forwarder_of, link
from tests.stack.harness import Stack, Watch, copy_program, docker, eventually

_VOLUMES = {"client", "db", "server"}


@pytest.fixture(scope="module")
def image(stack: Stack) -> str:
    """The SOP instance UID of an image that both nodes hold."""
    made = ct_series(slices=1, size=64)[0]
    stack.node("client").post("/instances", as_file(made))
    await_delivery(stack, "client", "server")
    assert stack.node("server").holds([made.SOPInstanceUID])
    return str(made.SOPInstanceUID)


def test_it_has_no_adminer_and_both_indexes_are_in_postgresql(stack: Stack) -> None:
    assert stack.containers().keys() == {"client", "client-forwarder", "db", "db-roles", "server"}
    assert stack.outputs().get("adminerUrl") is None
    assert {node["index"] for node in stack.outputs()["nodes"].values()} == {"postgresql"}


def test_a_second_checkout_takes_over_nothing(stack: Stack, image: str, tmp_path: Path) -> None:
    """The same stack file, whose state is elsewhere."""
    before = stack.containers(), stack.networks()
    other = Stack(copy_program(tmp_path), "prod", name=stack.name)
    other.settings, other.certificates, other.secrets = copy.deepcopy(stack.settings), dict(stack.certificates), dict(stack.secrets)
    other.settings["environment"] = "dev"  # so that nothing but its owner protects the data
    for _ in range(2):
        done = other.try_up()
        assert not done.ok
        assert f"nodes[0].name = 'server' needs the volume {stack.prefix}-server, which another state made" in " ".join(done.text.split())
        assert "use its state" in done.text
    other.destroy()
    assert other.command("stack", "rm", "--yes").ok
    assert (stack.containers(), stack.networks()) == before
    assert stack.node("server").holds([image])


def test_a_plain_destroy_is_refused(stack: Stack, image: str) -> None:
    before = stack.containers()
    done = stack.command("destroy", "--yes")
    assert not done.ok
    assert "protect" in done.text
    assert stack.containers() == before


def test_what_was_prod_is_released_by_name_alone(stack: Stack) -> None:
    """In previews; test_ownership.py deploys it."""
    with stack.trying() as settings:
        settings["environment"] = "dev"
        assert "environment is dev, and the stack was prod: its data volumes stay protected" in stack.preview().text
        settings["releaseData"] = True
        _, told, volumes = " ".join(stack.preview().text.split()).partition("delete patients' images: ")
        assert told
        assert f"{stack.prefix}-server" in volumes
    stack.preview(expect_no_changes=True)


def test_a_destroy_stops_it_in_good_order_and_keeps_the_data(stack: Stack, image: str) -> None:
    watches = {name: Watch(container) for name, container in stack.containers().items() if name != "db-roles"}
    done = stack.destroy(exclude_protected=True)
    assert done.ok, done.text
    assert stack.secrets_in(done.text) == []
    assert {name: watch.exit_code() for name, watch in watches.items()} == dict.fromkeys(watches, 0)
    assert (stack.containers(), stack.networks(), stack.volumes()) == ({}, [], _VOLUMES)
    stack.up()
    assert stack.node("client").holds([image])
    assert stack.node("server").holds([image])
    assert stack.sql("select count(*) from resources where resourcetype = 3", database="orthanc_server") == "1"
    # The new forwarder finds in the client's database that it has been delivered, and sends nothing.
    log = eventually("the forwarder looks at all series", lambda: _swept(docker("logs", forwarder_of(stack, "client"))))
    assert "swept: series=1 not_delivered=0" in log
    assert link(stack, "client", "server")["delivered"] == 0


def _swept(log: str) -> str:
    return log if "swept:" in log else ""
