"""Every secret of a running stack gets another value while a device sends.

All its containers are replaced by that: the old ones end in good order, the new ones read their secrets anew and hold the same images.
Nothing is lost, and an old password opens nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from configs.secrets import DB_PASSWORD
from ops.stack.secrets import renew
from tests.stack.dicom import Study, ct_series
from tests.stack.forwarding import await_delivery
from tests.stack.harness import Done, Watch
from tests.stack.like_dev import WORKSTATION, Dev, Forwarded, assert_unchanged
from tests.stack.sending import Sender, operated_on, sending

pytestmark = pytest.mark.slow("replaces every container of a stack under load: 60 s")

#: Seconds without an answer that a sender may see.
_INTERRUPTION = 30.0


@dataclass
class Rotated:
    """What became of the stack's secrets and containers."""

    old: Mapping[str, str]
    done: Done
    sender: Sender
    watches: Mapping[str, Watch]


@pytest.fixture(scope="module")
def rotated(dev: Dev, forwarded: Forwarded) -> Rotated:
    """Every secret, while a device sends to the client."""
    client = dev.client  # asked for while the stack changes, its outputs would be those of before
    sender = Sender(lambda: client, ct_series(slices=400, size=16), WORKSTATION)
    watches = {name: Watch(one) for name, one in dev.stack.containers().items() if name in ("db", "server", "client", "client-forwarder")}
    with sending(sender), operated_on(dev.stack) as stack:
        old = dict(dev.stack.secrets)
        dev.stack.secrets.update(renew(stack, sorted(old)))
        done = dev.stack.up()
    return Rotated(old, done, sender, watches)


def test_all_have_another_value(dev: Dev, rotated: Rotated) -> None:
    assert rotated.old.keys() == dev.stack.secrets.keys()
    assert [key for key, value in rotated.old.items() if dev.stack.secrets[key] == value] == []
    assert dev.stack.secrets_in(rotated.done.text + dev.stack.kept_files()) == []
    assert {"server-container", "client-container", "client-forwarder-container", "db-container", "db-roles"} <= rotated.done.replaced


@pytest.mark.parametrize(
    ("name", "last_words"),
    [
        ("db", "database system is shut down"),
        ("server", "Orthanc has stopped"),
        ("client", "Orthanc has stopped"),
        ("client-forwarder", "stopped: unconfirmed="),
    ],
)
def test_the_old_containers_stopped_by_themselves(rotated: Rotated, name: str, last_words: str) -> None:
    assert last_words in rotated.watches[name].log()
    assert rotated.watches[name].exit_code() == 0


def test_nothing_was_lost_and_nobody_waited_long(dev: Dev, rotated: Rotated, study: Study, forwarded: Forwarded, artifacts: Path) -> None:
    sender = rotated.sender
    (artifacts / "rotation.txt").write_text(f"{len(sender.taken)} images, longest interruption {sender.longest:.1f} s\n")
    assert len(sender.taken) > 10
    await_delivery(dev.stack, "client", "server")
    assert dev.client.holds(sender.taken).keys() == set(sender.taken) == dev.server.holds(sender.taken).keys()
    assert sender.longest < _INTERRUPTION
    assert dev.client.holds(study.uids) == dev.server.holds(study.uids) == forwarded.identifiers
    assert (forwarded.answer.kept, forwarded.answer.failed) == (study.uids, {})
    assert_unchanged(dev, study, forwarded)
    assert dev.client.echoes("server")
    assert dev.server.echoes("client")


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
