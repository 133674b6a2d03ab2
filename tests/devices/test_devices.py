"""Devices that are not ours: each image is sent once; what a device lacks is told on its link, and never blamed on an image."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import pytest
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from ops.stack import forwarding
from tests.devices.conftest import NODE, SENDER, Zoo
from tests.stack.dicom import as_file, ct_series, store
from tests.stack.forwarding import status
from tests.stack.harness import eventually

pytestmark = pytest.mark.slow("a new stack, and a minute for devices to be found out")

#: How many images the series has.
IMAGES = 100


@pytest.fixture(scope="module")
def series(zoo: Zoo) -> tuple[list[FileDataset], float]:
    """The series that every device is to get, acknowledged by the node; and when."""
    images = ct_series(IMAGES, 64)
    assert len(store(zoo.node, SENDER, images)) == IMAGES
    return images, time.monotonic()


def _each_once(zoo: Zoo, name: str, images: Sequence[FileDataset]) -> None:
    counts = Counter(zoo.devices[name].transfers)
    assert {uid: counts[uid] for uid in (str(image.SOPInstanceUID) for image in images)} == dict.fromkeys(
        (str(image.SOPInstanceUID) for image in images), 1
    )


@pytest.mark.parametrize(
    ("name", "used"),
    [
        ("plain", "stored"),
        ("finder", "query"),
        ("one-uid", "query"),
        ("committer", "commitment"),
        ("no-echo", "query"),
        ("uncompressed", "stored"),
    ],
)
def test_each_image_is_sent_once_and_confirmed_in_the_strongest_way_that_the_device_has(
    zoo: Zoo, series: tuple[list[FileDataset], float], name: str, used: str
) -> None:
    images, began = series
    said = eventually(f"{name} has all", lambda: (now := zoo.link(name))["delivered"] >= IMAGES and now)
    zoo.row(name, said, time.monotonic() - began)
    assert (said["confirmedBy"], said["note"], said["setAside"], said["unconfirmed"]) == (used, "", 0, 0)
    _each_once(zoo, name, images)


def test_a_device_without_the_storage_commitment_that_its_link_names_is_told_of_and_images_stand_as_not_confirmed(
    zoo: Zoo, series: tuple[list[FileDataset], float], capsys: pytest.CaptureFixture[str]
) -> None:
    images, began = series
    said = eventually("the link says it", lambda: (now := zoo.link("plain-named"))["note"] and now["unconfirmed"] == IMAGES and now, 60)
    zoo.row("plain-named", said, time.monotonic() - began)
    assert said["note"] == "plain-named offers no storage commitment: set confirm: query, or stored"
    assert (said["confirmedBy"], said["delivered"], said["setAside"], said["aside"]) == (None, 0, 0, [])
    time.sleep(20)
    _each_once(zoo, "plain-named", images)
    forwarding.report([status(zoo.stack, NODE)], time.time())
    table = " ".join(capsys.readouterr().out.split())
    assert "offers no storage commitment" in table


def test_a_device_without_c_echo_gets_what_came_while_it_was_away(zoo: Zoo, series: tuple[list[FileDataset], float]) -> None:
    device = zoo.devices["no-echo"]
    eventually("it has the first series", lambda: zoo.link("no-echo")["delivered"] >= IMAGES)
    device.stop()
    images = ct_series(10, 64)
    assert len(store(zoo.node, SENDER, images)) == len(images)
    eventually("the link fails", lambda: zoo.link("no-echo")["tries"] >= 3)
    device.start(zoo.port_of("no-echo"))
    began = time.monotonic()
    said = eventually("it has all", lambda: (now := zoo.link("no-echo"))["delivered"] >= IMAGES + len(images) and now, 30)
    zoo.row("no-echo", said, time.monotonic() - began)
    assert said["tries"] == 0
    _each_once(zoo, "no-echo", images)


def test_a_transfer_syntax_that_a_device_does_not_take_holds_up_no_other_image(zoo: Zoo, series: tuple[list[FileDataset], float]) -> None:
    compressed = ct_series(5, 64)
    for image in compressed:
        # No codec is there to make a real one: Orthanc without the GDCM plugin does not look inside.
        image.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(100)])
        image["PixelData"].VR = "OB"
        image.file_meta.TransferSyntaxUID = JPEG2000Lossless
        zoo.node.post("/instances", as_file(image))
    plain = ct_series(5, 64)
    assert len(store(zoo.node, SENDER, plain)) == len(plain)
    began = time.monotonic()
    wanted = {str(image.SOPInstanceUID) for image in plain}
    eventually("the others pass", lambda: wanted <= set(zoo.devices["uncompressed"].transfers), 20)
    passed = time.monotonic() - began
    said = eventually("set aside", lambda: (now := zoo.link("uncompressed"))["setAside"] == len(compressed) and now, 60)
    zoo.row("uncompressed", said, time.monotonic() - began)
    print(f"the others were there after {passed:.1f} s; {said['aside'][0]['reason']}")
    assert said["tries"] == 0
    assert {one["tries"] for one in said["aside"]} <= {3, 4}
    assert "transfer syntax" in said["aside"][0]["reason"]
