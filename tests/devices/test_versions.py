"""Devices that keep another version, change UIDs or send images back; rules on what an image lacks; what no rule matches."""

from __future__ import annotations

import time

import pytest

from ops.stack import forwarding
from tests.devices.habits import Described, Routing
from tests.devices.zoo import HALL, ROOM, SENDER, Zoo
from tests.stack.dicom import ct_series, store
from tests.stack.harness import eventually

pytestmark = pytest.mark.slow("a new stack with two nodes, and a minute for images that are sent back")


def test_a_correction_that_a_device_does_not_take_is_told_and_the_same_file_again_is_not(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    device = zoo["first-wins"]
    zoo.delivered("first-wins", device.count)
    again, corrected = device.sent[0], device.sent[1]
    zoo.send(device, [again])
    time.sleep(5)
    said = zoo.await_link("first-wins", "nothing is on its way", lambda now: not (now["waiting"] or now["inFlight"]))
    assert (said["older"], said["setAside"], said["unconfirmed"]) == (0, 0, 0)
    kept = dict(device.held)
    corrected.SeriesDescription = "Corrected"
    zoo.send(device, [corrected])
    said = zoo.await_link("first-wins", "it may keep the older version", lambda now: now["older"] == 1, 30)
    assert said["setAside"] == 0
    assert device.held == kept
    assert max(zoo.counts("first-wins", [again, corrected])) <= 2
    forwarding.report([zoo.status(ROOM)], time.time())
    assert "older" in capsys.readouterr().out


def test_a_device_that_changes_uids_is_told_of_and_gets_few_copies(zoo: Zoo) -> None:
    device = zoo["renumbers"]
    zoo.await_link(
        "renumbers", "the link says it", lambda now: "has it not" in now["reason"] + "".join(one["reason"] for one in now["reasons"])
    )
    zoo.rest_until(device.began + 90)
    assert zoo.link("renumbers")["delivered"] == 0
    assert max(zoo.counts("renumbers", device.sent)) <= 5


@pytest.mark.parametrize(("name", "most"), [("returns", 2), ("router", 3)])
def test_images_that_a_device_sends_back_do_not_go_round_for_ever(zoo: Zoo, name: str, most: int) -> None:
    device = zoo[name]
    assert isinstance(device, Routing)
    zoo.await_link(name, "all arrived", lambda now: now["delivered"] >= device.count)
    zoo.rest_until(device.began + 90)
    said = zoo.await_link(name, "nothing is on its way", lambda now: not (now["waiting"] or now["inFlight"]))
    assert set(device.returned) == {str(image.SOPInstanceUID) for image in device.sent}
    assert max(zoo.counts(name, device.sent)) <= most
    # What stays under another AE title, the link tells of.
    assert (said["tries"], said["setAside"]) == (0, device.count if name == "router" else 0)
    assert all("comes back" in one["reason"] for one in said["reasons"])


def test_an_image_is_judged_by_its_own_description_and_not_by_that_of_the_first_of_its_study(zoo: Zoo) -> None:
    device = zoo["described"]
    assert isinstance(device, Described)
    described = device.sent[1:]
    zoo.await_link("described", "those with the description are delivered", lambda now: now["delivered"] >= len(described), 90)
    assert zoo.counts("described", described) == {1: len(described)}
    assert set(device.counts()) <= {str(image.SOPInstanceUID) for image in device.sent}


def test_images_that_no_rule_matches_are_counted(zoo: Zoo) -> None:
    # Not at the room: for a link with a rule on StudyDescription, the study is read first, and the count comes with the next sweep.
    before = zoo.status(HALL)["unmatched"]
    images = ct_series(3, 64)
    assert len(store(zoo.stack.node(HALL), SENDER, images)) == len(images)
    eventually("they are counted", lambda: zoo.status(HALL)["unmatched"] == before + len(images), 30)
