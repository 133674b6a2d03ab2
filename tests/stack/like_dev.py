"""A stack like dev that many tests share, on one set of images or another: dev/conftest.py and tests/contract deploy it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.stack.dicom import Study, as_file, content, dataset_bytes, read, store
from tests.stack.forwarding import Answer, ask_commitment, await_delivery
from tests.stack.harness import Node, Stack

WORKSTATION = "WORKSTATION"
#: A device that may do everything at the server.
TRUSTED = "TRUSTED"
#: How many images an index in PostgreSQL has.
COUNT = "select count(*) from resources where resourcetype = 3"
#: The users of each node; the first is its admin.
USERS = ["orthanc", {"name": "looker", "role": "viewer"}, {"name": "bringer", "role": "uploader"}]


@dataclass
class Dev:
    """A running stack like dev: server on PostgreSQL, client on SQLite that forwards to it, Adminer, the workstation.

    With a user of each role, and one more device.
    """

    stack: Stack

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
    with stack.deployed():
        yield Dev(stack)


@pytest.fixture(scope="package")
def stack(dev: Dev) -> Stack:
    """The same, for what is asked of every stack (claims.py)."""
    return dev.stack


@dataclass(frozen=True)
class Forwarded:
    """What the client's forwarder sent on to the server.

    Attributes:
        identifiers: SOP instance UID -> the image's identifier in Orthanc, which is the same in every Orthanc.
        answer: what the server says when the client asks it to commit itself to them.
    """

    identifiers: dict[str, str]
    answer: Answer


@pytest.fixture(scope="package")
def forwarded(dev: Dev, study: Study) -> Forwarded:
    """The study, sent to the client by the workstation, and on to the server by nobody but the client's forwarder."""
    assert set(store(dev.client, WORKSTATION, study.images)) == study.uids
    received = dev.client.holds(study.uids)
    await_delivery(dev.stack, "client", "server")
    assert dev.server.holds(study.uids) == received
    return Forwarded(received, ask_commitment(dev.client, "server", study.images))


def assert_unchanged(dev: Dev, study: Study, forwarded: Forwarded) -> None:
    """Every image of both nodes holds what was sent: each value, and of the series, which needs no new encoding, each byte."""
    for image in study.images:
        file = f"/instances/{forwarded.identifiers[str(image.SOPInstanceUID)]}/file"
        at_client, at_server = dev.client.read(file), dev.server.read(file)
        assert content(read(at_client)) == content(image) == content(read(at_server)), image.filename
        assert read(at_client).file_meta.TransferSyntaxUID == image.file_meta.TransferSyntaxUID
        assert read(at_server).file_meta.TransferSyntaxUID == image.file_meta.TransferSyntaxUID
    for image in study.series:
        identifier = forwarded.identifiers[str(image.SOPInstanceUID)]
        assert dataset_bytes(dev.client.read(f"/instances/{identifier}/file")) == dataset_bytes(as_file(image))
        md5 = f"/instances/{identifier}/attachments/dicom/md5"
        assert dev.client.read(md5) == dev.server.read(md5)
