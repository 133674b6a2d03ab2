"""The stacks that the tests share. One that fails or is interrupted is removed like any other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.stack.dicom import Study, ct_series, sample_images, store
from tests.stack.harness import Done, Node, Stack, copy_program, eventually, need_pulumi

WORKSTATION = "WORKSTATION"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the program."""
    need_pulumi()
    return copy_program(tmp_path_factory.mktemp("program"))


@dataclass
class Dev:
    """A running stack like dev: server on PostgreSQL, client on SQLite that forwards to it, Adminer, the workstation."""

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


@pytest.fixture(scope="session")
def dev(program: Path) -> Iterator[Dev]:
    """The stack that most tests share."""
    stack = Stack(program, "dev")
    try:
        yield Dev(stack, stack.up())
    finally:
        stack.remove()


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


@dataclass
class Forwarded:
    """What the client sent on to the server."""

    identifiers: dict[str, str]
    committed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def forwarded(dev: Dev, study: Study, received: dict[str, str]) -> Forwarded:
    """The study, sent on from the client to the server, which is asked to commit itself to it.

    One job for each transfer syntax: Orthanc 1.12.7 does not negotiate a second one for a SOP class within a job.
    """
    jobs = defaultdict(list)
    for image in study.images:
        jobs[image.file_meta.TransferSyntaxUID].append(received[str(image.SOPInstanceUID)])
    done = Forwarded(received)
    for instances in jobs.values():
        job = dev.client.post("/modalities/server/store", {"Resources": instances, "StorageCommitment": True, "Synchronous": True})
        report = f"/storage-commitment/{job['StorageCommitmentTransactionUID']}"
        eventually("the server's answer", lambda report=report: dev.client.get(report)["Status"] != "Pending")  # type: ignore[misc]
        answer = dev.client.get(report)
        done.committed += [instance["SOPInstanceUID"] for instance in answer["Success"]]
        done.failed += [instance["SOPInstanceUID"] for instance in answer["Failures"]]
    return done


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """Where screenshots are kept; git ignores it."""
    folder = Path(__file__).resolve().parents[2] / "artifacts"
    folder.mkdir(exist_ok=True)
    return folder
