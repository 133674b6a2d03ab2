"""Every secret of a running stack gets another value: nothing is lost, and the old one opens nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from configs.secrets import DB_PASSWORD
from ops.rotate import renew
from tests.stack.conftest import Dev
from tests.stack.dicom import ct_series
from tests.stack.forwarding import await_delivery
from tests.stack.harness import Done
from tests.stack.sending import Sender, operated_on, sending

#: Seconds without an answer that a sender may see.
_INTERRUPTION = 30.0


@dataclass
class Rotated:
    """What became of the stack's secrets."""

    old: Mapping[str, str]
    done: Done
    sender: Sender


@pytest.fixture(scope="module")
def rotated(dev: Dev) -> Iterator[Rotated]:
    """Every secret, while a device sends to the client."""
    client = dev.client  # asked for while the stack changes, its outputs would be those of before
    sender = Sender(lambda: client, ct_series(slices=400, size=16))
    with sending(sender), operated_on(dev.stack) as stack:
        old = dict(dev.stack.secrets)
        dev.stack.secrets.update(renew(stack, sorted(old)))
        done = dev.stack.up()
    yield Rotated(old, done, sender)
    await_delivery(dev.stack, "client", "server")
    for node in (dev.client, dev.server):
        for study in {image.StudyInstanceUID for image in sender.images}:
            found = node.post("/tools/find", {"Level": "Study", "Query": {"StudyInstanceUID": study}})
            for identifier in found:
                node.ask(f"/studies/{identifier}", method="DELETE")


def test_all_have_another_value(dev: Dev, rotated: Rotated) -> None:
    assert rotated.old.keys() == dev.stack.secrets.keys()
    assert [key for key, value in rotated.old.items() if dev.stack.secrets[key] == value] == []
    assert {"server-container", "client-container", "client-forwarder-container", "db-container", "db-roles"} <= rotated.done.replaced


def test_nothing_was_lost_and_nobody_waited_long(dev: Dev, rotated: Rotated, artifacts: Path) -> None:
    sender = rotated.sender
    (artifacts / "rotation.txt").write_text(f"{len(sender.taken)} images, longest interruption {sender.longest:.1f} s\n")
    assert len(sender.taken) > 10
    await_delivery(dev.stack, "client", "server")
    assert dev.client.holds(sender.taken).keys() == set(sender.taken) == dev.server.holds(sender.taken).keys()
    assert sender.longest < _INTERRUPTION


@pytest.mark.parametrize("name", ["client", "server"])
def test_an_old_password_opens_no_node(dev: Dev, rotated: Rotated, name: str) -> None:
    node = dev.stack.node(name)
    assert node.ask("/system")[0] == 200
    for user in ("orthanc", "looker", "bringer"):
        old = dataclasses.replace(node, login=(user, rotated.old[f"userPassword.{name}.{user}"]))
        assert old.ask("/system")[0] == 401
    if name == "client":
        assert dataclasses.replace(node, login=("forwarder", rotated.old["forwarderPassword.client"])).ask("/system")[0] == 401


@pytest.mark.parametrize(("role", "key"), [("postgres", DB_PASSWORD), ("orthanc_server", "dbPassword.server")])
def test_an_old_password_opens_no_database(dev: Dev, rotated: Rotated, role: str, key: str) -> None:
    def answer(password: str) -> str:
        return dev.stack.sql("select 1", database="orthanc_server", role=role, password=password)

    assert answer(dev.stack.secrets[key]) == "1"
    assert "password authentication failed" in answer(rotated.old[key])


@pytest.mark.usefixtures("rotated")
def test_again_nothing_is_to_be_done(dev: Dev) -> None:
    dev.stack.preview(expect_no_changes=True)
