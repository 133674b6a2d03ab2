"""Devices that are away, slow, or end at an image: the right one is blamed, and the others go on."""

from __future__ import annotations

import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from tests.devices.habits import Aborting, Crashing, HalfOpen
from tests.devices.zoo import SLOW_SECONDS, Zoo
from tests.stack.dicom import as_file, ct_series
from tests.stack.harness import eventually

pytestmark = pytest.mark.slow("a new stack with two nodes, and devices that take their time")


def test_one_image_at_which_a_device_ends_is_set_aside_and_all_others_arrive(zoo: Zoo) -> None:
    device = zoo["crasher"]
    assert isinstance(device, Crashing)
    others = [image for image in device.sent if image.SOPInstanceUID != device.fatal]
    said = zoo.await_link("crasher", "29 and 1", lambda now: (now["delivered"], now["setAside"]) == (len(others), 1), 120)
    assert (said["unconfirmed"], said["waiting"]) == (0, 0)
    assert max(zoo.counts("crasher", others)) <= 3
    assert device.crashes <= 7


@pytest.mark.parametrize("name", ["no-echo", "retitled"])
def test_a_device_that_was_away_gets_what_came_meanwhile_when_it_is_back(zoo: Zoo, name: str) -> None:
    device = zoo[name]
    zoo.delivered(name, device.count)
    device.stop()
    if name == "retitled":
        device.title = "SOMEBODY_ELSE"
        device.come_back()
    images = zoo.send_series(name)
    said = zoo.await_link(name, "the link fails", lambda now: now["tries"] >= 3)
    assert ("reject" in said["reason"]) == (name == "retitled")
    assert said["setAside"] == 0
    device.stop()
    device.title = device.aet
    device.come_back()
    said = zoo.delivered(name, device.count + len(images), 30)
    assert (said["tries"], said["setAside"], said["unconfirmed"]) == (0, 0, 0)
    assert zoo.counts(name, [*device.sent, *images]) == {1: device.count + len(images)}


def test_an_answer_after_a_while_is_waited_for(zoo: Zoo) -> None:
    said = zoo.delivered("slow-answer", 1, SLOW_SECONDS + 30)
    assert (said["delivered"], said["failures"]) == (1, 0)
    assert zoo.counts("slow-answer", zoo["slow-answer"].sent) == {1: 1}


def test_a_slow_line_gets_each_image_once(zoo: Zoo) -> None:
    device = zoo["slow-line"]
    said = zoo.delivered("slow-line", device.count, 120)
    assert (said["delivered"], said["failures"]) == (device.count, 0)
    assert zoo.counts("slow-line", device.sent) == {1: device.count}


def test_a_device_that_says_nothing_is_told_of_and_gets_all_when_it_speaks(zoo: Zoo) -> None:
    device = zoo["half-open"]
    assert isinstance(device, HalfOpen)
    said = zoo.await_link("half-open", "the link fails", lambda now: now["tries"], 150)
    assert said["reason"]
    assert (said["setAside"], said["delivered"]) == (0, 0)
    device.stop()
    device.awake = True
    device.come_back()
    zoo.delivered("half-open", device.count, 60)
    assert zoo.counts("half-open", device.sent) == {1: device.count}


def test_a_device_that_aborts_after_each_answer_gets_all(zoo: Zoo) -> None:
    device = zoo["aborts-after"]
    said = zoo.delivered("aborts-after", device.count, 120)
    assert (said["delivered"], said["setAside"]) == (device.count, 0)
    assert max(zoo.counts("aborts-after", device.sent)) <= 2


def test_an_image_at_which_a_device_aborts_holds_up_no_other(zoo: Zoo) -> None:
    device = zoo["aborts-before"]
    assert isinstance(device, Aborting)
    others = [image for image in device.sent if image.SOPInstanceUID != device.fatal]
    said = zoo.await_link("aborts-before", "all is done", lambda now: now["delivered"] + now["setAside"] == device.count, 120)
    assert said["setAside"] <= 1
    assert max(zoo.counts("aborts-before", others)) <= 2
    assert device.counts()[device.fatal] <= 7


def test_a_transfer_syntax_that_a_device_does_not_take_holds_up_no_other_image(zoo: Zoo) -> None:
    device = zoo["uncompressed"]
    compressed = ct_series(5, 64)
    for image in compressed:
        # No codec is there to make a real one: Orthanc without the GDCM plugin does not look inside.
        image.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(100)])
        image["PixelData"].VR = "OB"
        image.file_meta.TransferSyntaxUID = JPEG2000Lossless
        image.StationName = device.name
        zoo.node_of(device).post("/instances", as_file(image))
    plain = zoo.send_series("uncompressed")
    wanted = {str(image.SOPInstanceUID) for image in plain}
    eventually("the others pass", lambda: wanted <= set(device.transfers), 20)
    said = zoo.await_link("uncompressed", "set aside", lambda now: now["setAside"] == len(compressed))
    assert said["tries"] == 0
    assert [one["images"] for one in said["reasons"]] == [len(compressed)]
    assert "transfer syntax" in said["reasons"][0]["reason"]
    assert {one["tries"] for one in zoo.aside("uncompressed")} <= {1, 2, 3}
