"""What each status of C-STORE does to its image (DICOM PS3.4, table B.2-1; PS3.7, annex C); its neighbours always pass."""

from __future__ import annotations

import pytest

from tests.devices.habits import Answering
from tests.devices.zoo import PASSING, REFUSALS, WARNINGS, Zoo

pytestmark = pytest.mark.slow("a new stack with two nodes, and a minute of refusals")


def _answering(zoo: Zoo, name: str) -> Answering:
    device = zoo[name]
    assert isinstance(device, Answering)
    return device


def _image(device: Answering, status: int) -> str:
    return next(uid for uid, its in device.status_of.items() if its == status)


def test_neighbours_of_images_that_are_refused_pass_and_the_link_goes_on(zoo: Zoo) -> None:
    device = _answering(zoo, "refuser")
    others = [image for image in device.sent if str(image.SOPInstanceUID) not in device.status_of]
    said = zoo.await_link("refuser", "all is done", lambda now: (now["delivered"], now["setAside"]) == (len(others), len(REFUSALS)), 90)
    assert (said["tries"], said["waiting"], said["unconfirmed"]) == (0, 0, 0)
    assert zoo.counts("refuser", others) == {1: len(others)}


@pytest.mark.parametrize("status", REFUSALS, ids=hex)
def test_a_refused_image_is_tried_three_times_and_set_aside_with_its_status(zoo: Zoo, status: int) -> None:
    device = _answering(zoo, "refuser")
    uid = _image(device, status)
    zoo.await_link("refuser", "all refused are set aside", lambda now: now["setAside"] == len(REFUSALS), 90)
    image = zoo.node_of(device).holds([uid])[uid]
    aside = next(one for one in zoo.aside("refuser") if one["image"] == image)
    assert (device.counts()[uid], aside["tries"]) == (3, 3)
    assert f"0x{status:04X}" in aside["reason"]


@pytest.mark.parametrize("status", WARNINGS, ids=hex)
def test_an_image_with_a_warning_is_delivered(zoo: Zoo, status: int) -> None:
    device = _answering(zoo, "warner")
    said = zoo.await_link("warner", "nothing is on its way", lambda now: not (now["waiting"] or now["inFlight"]))
    uid = _image(device, status)
    assert device.counts()[uid] == 1
    assert (said["setAside"], said["delivered"]) == (0, len(device.sent))


@pytest.mark.parametrize("status", PASSING, ids=hex)
def test_an_image_whose_status_may_pass_is_tried_again(zoo: Zoo, status: int) -> None:
    device = _answering(zoo, "weary")
    said = zoo.delivered("weary", len(device.sent), 120)
    assert said["setAside"] == 0
    assert device.counts()[_image(device, status)] == 3
