"""The stacks that the tests share. One that fails or is interrupted is removed like any other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.stack.dicom import Study, ct_series, sample_images, store
from tests.stack.forwarding import Answer, ask_commitment, await_delivery
from tests.stack.harness import Done, Node, Stack, copy_program, need_pulumi

WORKSTATION = "WORKSTATION"
#: A device that may do everything at the server.
TRUSTED = "TRUSTED"
#: The users of each node; the first is its admin.
USERS = ["orthanc", {"name": "looker", "role": "viewer"}, {"name": "bringer", "role": "uploader"}]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the program."""
    need_pulumi()
    return copy_program(tmp_path_factory.mktemp("program"))


@dataclass
class Dev:
    """A running stack like dev: server on PostgreSQL, client on SQLite that forwards to it, Adminer, the workstation.

    With a user of each role, and one more device.
    """

    stack: Stack
    first_up: Done

    @property
    def server(self) -> Node:
        """The archive."""
        return self.stack.node("server")

    @property
    def client(self) -> Node:
        """The node that forwards to it."""
        return self.stack.node("client")


def deployed_like_dev(program: Path, **settings: Any) -> Iterator[Dev]:
    """Deploy a stack like dev, with these settings said otherwise, and remove it afterwards."""
    stack = Stack(program, "dev", **settings)
    for node in stack.settings["nodes"]:
        node["users"] = USERS
    everything = ["echo", "store", "find", "get", "move", "worklist", "commit"]
    device = {"name": "trusted", "aet": TRUSTED, "host": "host.docker.internal", "nodes": ["server"], "allow": everything}
    stack.settings["modalities"].append(device)
    stack.give_ports()
    try:
        yield Dev(stack, stack.up())
    finally:
        stack.remove()


@pytest.fixture(scope="session")
def dev(program: Path) -> Iterator[Dev]:
    """The stack that most tests share."""
    yield from deployed_like_dev(program)


@pytest.fixture(scope="session")
def study() -> Study:
    """Images that ship with pydicom, and a generated CT series."""
    return Study(samples=sample_images(), series=ct_series(slices=60, size=512))


@pytest.fixture(scope="session")
def received(dev: Dev, study: Study) -> dict[str, str]:
    """The study, sent to the client by the workstation; each image's identifier in Orthanc, which is the same in every Orthanc."""
    taken = store(dev.client, WORKSTATION, study.images)
    assert set(taken) == study.uids, f"{dev.client.name} took {len(taken)} of {len(study.uids)} images"
    return dev.client.holds(study.uids)


@dataclass(frozen=True)
class Forwarded:
    """What the client's forwarder sent on to the server.

    Attributes:
        identifiers: each image's identifier in Orthanc, at the client.
        answer: what the server says when the client asks it to commit itself to them.
    """

    identifiers: dict[str, str]
    answer: Answer


@pytest.fixture(scope="session")
def forwarded(dev: Dev, study: Study, received: dict[str, str]) -> Forwarded:
    """The study, sent on from the client to the server by nobody but the client's forwarder."""
    await_delivery(dev.stack, "client", "server")
    assert dev.server.holds(study.uids) == received
    return Forwarded(received, ask_commitment(dev.client, "server", study.images))


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """Where screenshots are kept; git ignores it."""
    folder = Path(__file__).resolve().parents[2] / "artifacts"
    folder.mkdir(exist_ok=True)
    return folder
