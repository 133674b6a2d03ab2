"""What each status of C-STORE does to its image (DICOM PS3.4, table B.2-1; PS3.7, annex C); its neighbours always pass."""

from __future__ import annotations

import contextlib
import time

import pytest

from tests.devices.habits import Answering
from tests.devices.zoo import PASSING, REFUSALS, WARNINGS, Zoo

pytestmark = pytest.mark.slow("a new stack with two nodes, and a minute of refusals")


#: Seconds from the opening of the zoo until all that can come of an image has.
_PATIENCE = 90


def _settled(zoo: Zoo, name: str) -> Answering:
    """A device to which nothing is sent any more; or to which too much is, when that takes too long."""
    device = zoo[name]
    assert isinstance(device, Answering)
    with contextlib.suppress(AssertionError):
        zoo.await_link(name, "all is done", lambda now: now["delivered"] + now["setAside"] >= len(device.sent), _left(device.began))
    return device


def _left(began: float) -> float:
    return max(0.0, began + _PATIENCE - time.time())


def _image(device: Answering, status: int) -> str:
    return next(uid for uid, its in device.status_of.items() if its == status)


def _aside(zoo: Zoo, device: Answering, uid: str) -> list[tuple[int, str]]:
    """The tries of an image that is set aside, and the reason; nothing where it is not."""
    image = zoo.node_of(device).holds([uid])[uid]
    return [(one["tries"], one["reason"]) for one in zoo.aside(device.name) if one["image"] == image]


@pytest.mark.parametrize("name", ["warner", "refuser", "weary"])
def test_neighbours_of_images_with_odd_statuses_pass_at_once(zoo: Zoo, name: str) -> None:
    device = _settled(zoo, name)
    others = [image for image in device.sent if str(image.SOPInstanceUID) not in device.status_of]
    assert zoo.counts(name, others) == {1: len(others)}


def test_a_link_goes_on_beside_images_that_are_refused(zoo: Zoo) -> None:
    device, said = _settled(zoo, "refuser"), zoo.link("refuser")
    assert (said["setAside"], said["delivered"]) == (len(REFUSALS), len(device.sent) - len(REFUSALS))
    assert (said["tries"], said["waiting"], said["unconfirmed"]) == (0, 0, 0)


@pytest.mark.parametrize("status", REFUSALS, ids=hex)
def test_a_refused_image_is_tried_three_times_and_set_aside_with_its_status(zoo: Zoo, status: int) -> None:
    device = _settled(zoo, "refuser")
    uid = _image(device, status)
    ((tries, reason),) = _aside(zoo, device, uid)
    assert (device.counts()[uid], tries) == (3, 3)
    assert f"0x{status:04X}" in reason


@pytest.mark.parametrize("status", WARNINGS, ids=hex)
def test_an_image_with_a_warning_is_delivered(zoo: Zoo, status: int) -> None:
    device = _settled(zoo, "warner")
    uid = _image(device, status)
    assert (device.counts()[uid], _aside(zoo, device, uid)) == (1, [])


@pytest.mark.parametrize("status", PASSING, ids=hex)
def test_an_image_whose_status_may_pass_is_tried_again(zoo: Zoo, status: int) -> None:
    device = _settled(zoo, "weary")
    uid = _image(device, status)
    assert (device.counts()[uid], device.holds(uid), _aside(zoo, device, uid)) == (3, True, [])
