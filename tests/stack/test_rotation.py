"""Every secret of a running stack gets another value: nothing is lost, and the old one opens nothing."""

from __future__ import annotations

import dataclasses
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom.dataset import FileDataset

from configs.secrets import DB_PASSWORD
from ops import stack as operated
from ops.prepare import Tools
from ops.rotate import renew
from ops.setup.state import State
from tests.stack.conftest import WORKSTATION, Dev
from tests.stack.dicom import ct_series, store
from tests.stack.forwarding import await_delivery
from tests.stack.harness import Done, Node

#: Seconds without an answer that a sender may see.
_INTERRUPTION = 30.0


@dataclass
class Sender:
    """A device that sends an image after the other, and each until it is taken.

    Attributes:
        node: the node as it is now, and how the device speaks with it.
        images: what it has.
        aet: its AE title.
        taken: the SOP instance UIDs of those that were acknowledged.
        longest: the most seconds between two acknowledgements.
    """

    node: Callable[[], Node]
    images: list[FileDataset]
    aet: str = WORKSTATION
    taken: list[str] = field(default_factory=list)
    longest: float = 0.0
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """The work of its thread."""
        last = time.monotonic()
        for image in self.images:
            while not self.stopping.is_set():
                if sent := store(self.node(), self.aet, [image]):
                    now = time.monotonic()
                    self.longest, last = max(self.longest, now - last), now
                    self.taken += sent
                    break
                time.sleep(0.1)
            self.stopping.wait(0.2)


@dataclass
class Rotated:
    """What became of the stack's secrets."""

    old: Mapping[str, str]
    done: Done
    sender: Sender


@pytest.fixture(scope="module")
def rotated(dev: Dev, monkeypatch_module: pytest.MonkeyPatch) -> Iterator[Rotated]:
    """Every secret, while a device sends to the client."""
    client = dev.client  # asked for while the stack changes, its outputs would be those of before
    sender = Sender(lambda: client, ct_series(slices=400, size=16))
    thread = threading.Thread(target=sender.run)
    thread.start()
    try:
        old = dict(dev.stack.secrets)
        for name, value in dev.stack.environment.items():
            monkeypatch_module.setenv(name, value)
        stack = operated.Stack(dev.stack.name, _tools(dev), dev.stack.program)
        dev.stack.secrets.update(renew(stack, sorted(old)))
        done = dev.stack.up()
        time.sleep(2)
    finally:
        sender.stopping.set()
        thread.join(timeout=90)
    yield Rotated(old, done, sender)
    await_delivery(dev.stack, "client", "server")
    for node in (dev.client, dev.server):
        for study in {image.StudyInstanceUID for image in sender.images}:
            found = node.post("/tools/find", {"Level": "Study", "Query": {"StudyInstanceUID": study}})
            for identifier in found:
                node.ask(f"/studies/{identifier}", method="DELETE")


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[pytest.MonkeyPatch]:
    """monkeypatch, for a module."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def _tools(dev: Dev) -> Tools:
    return Tools(Path(str(shutil.which("pulumi"))), State(dev.stack.environment["PULUMI_BACKEND_URL"], ""), ("docker",))


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
