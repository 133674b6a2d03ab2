"""The client's forwarder: what is stored at the client gets into the archive, and what can be seen of that from outside."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence

import pytest
from pydicom.dataset import FileDataset

from ops.stack import forwarding as ops_forwarding
from tests.stack.dicom import ct_series, dataset_bytes, read, store
from tests.stack.forwarding import ask_commitment, await_delivery, forwarder_of, link, nothing_waits, status
from tests.stack.harness import Node, docker, eventually
from tests.stack.like_dev import WORKSTATION, Dev

PATIENT, PATIENT_ID, ACCESSION = "FORWARD^PATIENT", "FWD-4711", "ACC-0815"
#: Generous: `make bench` measures it.
SOON_SECONDS = 20
#: DICOM PS3.3, C.14.1.1: "processing failure".
PROCESSING_FAILURE = 0x0110

_GET_METRICS = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9042/metrics').read().decode())"
_POST_RETRY = """
import urllib.error, urllib.request as u
try:
    print(u.urlopen(u.Request('http://client-forwarder:9042/retry', method='POST')).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


def series_of(slices: int, size: int = 64) -> list[FileDataset]:
    """A CT series of the patient of these tests."""
    images = ct_series(slices, size)
    for image in images:
        image.PatientName, image.PatientID, image.AccessionNumber = PATIENT, PATIENT_ID, ACCESSION
    return images


def uids_of(images: Sequence[FileDataset]) -> set[str]:
    """SOP instance UIDs."""
    return {str(image.SOPInstanceUID) for image in images}


def send(node: Node, images: Sequence[FileDataset]) -> None:
    """From the workstation, over one association; each is acknowledged."""
    assert set(store(node, WORKSTATION, images)) == uids_of(images)


@pytest.fixture(scope="module", autouse=True)
def cleared(dev: Dev) -> Iterator[None]:
    """Other tests count the images of the stack: nothing stays of these."""
    yield
    await_delivery(dev.stack, "client", "server")
    for node in dev.stack.nodes().values():
        for patient in node.post("/tools/find", {"Level": "Patient", "Query": {"PatientID": PATIENT_ID}}):
            node.ask(f"/patients/{patient}", method="DELETE")


@pytest.fixture(scope="module")
def delivered(dev: Dev) -> list[FileDataset]:
    """A short series that the client has delivered: its record is closed."""
    images = series_of(slices=4)
    send(dev.client, images)
    await_delivery(dev.stack, "client", "server")
    assert dev.server.holds(uids_of(images)).keys() == uids_of(images)
    return images


class TestDelivery:
    """What the client has acknowledged gets to the server without anybody's doing."""

    def test_a_series_is_in_the_archive_soon_after_its_last_acknowledgement(self, dev: Dev) -> None:
        images = series_of(slices=100, size=256)
        before = link(dev.stack, "client", "server")["delivered"]
        send(dev.client, images)
        began = time.monotonic()

        def confirmed() -> bool:
            now = link(dev.stack, "client", "server")
            return bool(now["delivered"] >= before + len(images) and not now["waiting"] and not now["inFlight"])

        eventually("the server has confirmed the series", confirmed)
        seconds = time.monotonic() - began
        print(f"100 images of 131 kB: confirmed by the archive {seconds:.1f} s after the last acknowledgement")
        assert dev.server.holds(uids_of(images)).keys() == uids_of(images)
        assert seconds < SOON_SECONDS
        await_delivery(dev.stack, "client", "server")
        assert link(dev.stack, "client", "server")["delivered"] == before + len(images), "images went out more than once"

    def test_so_is_a_late_image_of_a_series_that_was_delivered(self, dev: Dev, delivered: list[FileDataset]) -> None:
        late = series_of(slices=1)[0]
        late.StudyInstanceUID, late.SeriesInstanceUID = delivered[0].StudyInstanceUID, delivered[0].SeriesInstanceUID
        late.InstanceNumber = 99
        send(dev.client, [late])
        await_delivery(dev.stack, "client", "server")
        assert len(dev.server.holds(uids_of([late, *delivered]))) == 1 + len(delivered)

    def test_and_an_image_that_is_stored_again_with_other_content(self, dev: Dev, delivered: list[FileDataset]) -> None:
        again = delivered[1]
        again.PixelData = bytes(reversed(again.PixelData))
        again.WindowCenter = 1234
        identifier = dev.server.holds([again.SOPInstanceUID])[again.SOPInstanceUID]
        send(dev.client, [again])
        await_delivery(dev.stack, "client", "server")
        at_client, at_server = (node.read(f"/instances/{identifier}/file") for node in (dev.client, dev.server))
        assert dataset_bytes(at_server) == dataset_bytes(at_client)
        assert (read(at_server).WindowCenter, read(at_server).PixelData) == (1234, again.PixelData)


class TestWhatItSays:
    """Status, metrics and log, without a patient's data."""

    @pytest.mark.usefixtures("delivered")
    def test_the_report_names_the_link(self, dev: Dev, capsys: pytest.CaptureFixture[str]) -> None:
        eventually("nothing waits", lambda: nothing_waits(dev.stack, "client", "server"))
        said = status(dev.stack, "client")
        ops_forwarding.report([said], time.time())
        (row,) = [row for row in capsys.readouterr().out.splitlines() if "client -> server" in row]
        assert "all delivered" in row
        assert "ago" in row

    @pytest.mark.usefixtures("delivered")
    def test_the_metrics_have_the_link(self, dev: Dev) -> None:
        eventually("nothing waits", lambda: nothing_waits(dev.stack, "client", "server"))
        lines = docker("exec", forwarder_of(dev.stack, "client"), "python3", "-c", _GET_METRICS).splitlines()
        assert 'orthanc_forwarder_waiting{node="client",to="server"} 0' in lines
        assert 'orthanc_forwarder_set_aside{node="client",to="server"} 0' in lines
        assert 'orthanc_forwarder_node_up{node="client"} 1' in lines
        (total,) = [line for line in lines if line.startswith('orthanc_forwarder_delivered_total{node="client",to="server"} ')]
        assert int(total.split()[-1]) == link(dev.stack, "client", "server")["delivered"] > 0

    def test_the_log_names_no_patient(self, dev: Dev, delivered: list[FileDataset]) -> None:
        log = docker("logs", forwarder_of(dev.stack, "client"))
        series = dev.client.post("/tools/lookup", delivered[0].SeriesInstanceUID.encode())[0]["ID"]
        assert f"delivered: to=server series={series}" in log
        images = uids_of(delivered)
        for secret in (PATIENT, *PATIENT.split("^"), PATIENT_ID, ACCESSION, delivered[0].StudyInstanceUID, *images):
            assert secret not in log

    def test_another_container_may_ask_for_nothing(self, dev: Dev) -> None:
        """Not even its node, the only one that reaches it (test_containers.py)."""
        assert docker("exec", f"{dev.stack.prefix}-client", "python3", "-c", _POST_RETRY) == "403"


def test_its_container_is_of_its_nodes_image_and_has_neither_port_nor_volume(dev: Dev) -> None:
    (said,) = json.loads(docker("inspect", forwarder_of(dev.stack, "client")))
    assert said["Image"] == docker("inspect", "--format", "{{.Image}}", f"{dev.stack.prefix}-client")
    assert said["RestartCount"] == 0
    assert not said["HostConfig"]["PortBindings"]
    assert not any(said["NetworkSettings"]["Ports"].values())
    assert said["Mounts"] == []


class TestStorageCommitment:
    """The archive reads each file from its disk before it commits itself to the image."""

    @pytest.mark.parametrize(
        "damage",
        [
            pytest.param("rm $file", id="gone"),
            pytest.param("truncate --size=-1 $file", id="cut-short"),
            pytest.param("printf X | dd of=$file bs=1 seek=2000 conv=notrunc", id="altered"),
        ],
    )
    def test_not_to_an_image_whose_file_is_not_what_was_stored(self, dev: Dev, delivered: list[FileDataset], damage: str) -> None:
        whole, lost = delivered[2], delivered[3]
        identifier = dev.server.holds([lost.SOPInstanceUID])[lost.SOPInstanceUID]
        before = dev.server.read(f"/instances/{identifier}/file")  # now it is in the cache
        uuid = dev.server.get(f"/instances/{identifier}/attachments/dicom/info")["Uuid"]
        file = f"/var/lib/orthanc/db/{uuid[:2]}/{uuid[2:4]}/{uuid}"

        def at_server(command: str) -> None:
            docker("exec", f"{dev.stack.prefix}-server", "sh", "-ec", command)

        at_server(f"cp {file} /tmp/kept; file={file}; {damage}")
        try:
            # From its cache Orthanc still serves the image, and its own answer would be a promise.
            assert dev.server.read(f"/instances/{identifier}/file") == before
            answer = ask_commitment(dev.client, "server", [whole, lost])
        finally:
            at_server(f"cp /tmp/kept {file}")
        assert answer.failed == {str(lost.SOPInstanceUID): PROCESSING_FAILURE}
        assert answer.kept == {str(whole.SOPInstanceUID)}
        assert ask_commitment(dev.client, "server", [whole, lost]).failed == {}

    def test_nor_to_one_that_it_never_got(self, dev: Dev) -> None:
        stranger = series_of(slices=1)[0]
        answer = ask_commitment(dev.client, "server", [stranger])
        assert answer.failed == {str(stranger.SOPInstanceUID): 0x0112}
        assert answer.kept == set()
