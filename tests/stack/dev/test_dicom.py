"""Images on their way: from a workstation into the client, from there into the archive, and back out unchanged."""

from __future__ import annotations

from pathlib import Path

import pydicom

from tests.stack.dicom import Study, find
from tests.stack.forwarding import await_delivery
from tests.stack.like_dev import COUNT, WORKSTATION, Dev, Forwarded, assert_unchanged


def test_the_server_got_them_all_and_committed_itself_to_each(study: Study, forwarded: Forwarded) -> None:
    """pydicom's own files, and a CT series of 60 slices of 512 x 512."""
    assert len(study.uids) == 73
    assert len({image.SOPClassUID for image in study.images}) >= 10
    assert forwarded.identifiers.keys() == study.uids
    assert (forwarded.answer.kept, forwarded.answer.failed) == (study.uids, {})


def test_postgresql_holds_them(dev: Dev, study: Study, forwarded: Forwarded) -> None:
    assert dev.stack.sql(COUNT, database="orthanc_server") == str(len(study.uids))
    tags = "select count(distinct value) from dicomidentifiers where taggroup = 8 and tagelement = 24"
    assert dev.stack.sql(tags, database="orthanc_server") == str(len(study.uids))


def test_they_read_back_as_they_were_sent(dev: Dev, study: Study, forwarded: Forwarded) -> None:
    assert_unchanged(dev, study, forwarded)


def test_the_workstation_finds_them(dev: Dev, study: Study, forwarded: Forwarded) -> None:
    for node in (dev.client, dev.server):
        assert find(node, WORKSTATION, "PHANTOM*") == [study.series[0].StudyInstanceUID]


def test_a_file_uploaded_by_rest_reads_back_bit_for_bit(dev: Dev) -> None:
    file = (Path(pydicom.__file__).parent / "data" / "test_files" / "examples_overlay.dcm").read_bytes()
    for node in (dev.server, dev.client):  # the client forwards its own, with another meta header, over the server's
        identifier = node.post("/instances", file)["ID"]
        assert node.read(f"/instances/{identifier}/file") == file
    await_delivery(dev.stack, "client", "server")  # so that it does not come back after it is deleted
    for node in (dev.client, dev.server):
        node.ask(f"/instances/{identifier}", method="DELETE")
