"""Each image is sent once, and confirmed in the strongest way that the device has; what it lacks is told on its link, not on images."""

from __future__ import annotations

import time

import pytest

from ops.stack import forwarding
from tests.devices.zoo import LATE_SECONDS, ROOM, Zoo

pytestmark = pytest.mark.slow("a new stack with two nodes, and a minute for devices to be found out")


@pytest.mark.parametrize(
    ("name", "used"),
    [
        ("plain", "stored"),
        ("finder", "query"),
        ("one-uid", "query"),
        ("committer", "commitment"),
        ("same-association", "commitment"),
        ("storescp", "stored"),
        ("dcmqrscp", "query"),
        ("pdu-tiny", "stored"),
        ("pdu-any", "stored"),
    ],
)
def test_each_image_is_sent_once_and_confirmed_in_the_strongest_way_that_the_device_has(zoo: Zoo, name: str, used: str) -> None:
    count = zoo[name].count
    said = zoo.delivered(name, count)
    assert (said["confirmedBy"], said["note"], said["setAside"], said["unconfirmed"]) == (used, "", 0, 0)
    assert (said["delivered"], zoo.counts(name, zoo[name].sent)) == (count, {1: count})


def test_a_device_without_the_storage_commitment_that_its_link_names_is_told_of_and_images_stand_as_not_confirmed(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    device = zoo["plain-named"]
    said = zoo.await_link("plain-named", "the link says it", lambda now: now["note"] and now["unconfirmed"] == device.count)
    assert said["note"] == "plain-named offers no storage commitment: set confirm: query, or stored"
    assert (said["confirmedBy"], said["delivered"], said["setAside"], said["reasons"]) == (None, 0, 0, [])
    zoo.rest_until(device.began + 40)
    assert zoo.counts("plain-named", device.sent) == {1: device.count}
    forwarding.report([zoo.status(ROOM)], time.time())
    assert "offers no storage commitment" in " ".join(capsys.readouterr().out.split())


def test_a_device_that_never_reports_is_told_of_and_sent_nothing_twice(zoo: Zoo) -> None:
    device = zoo["never-reports"]
    said = zoo.await_link("never-reports", "the link says it", lambda now: "report" in now["note"] + now["reason"], 150)
    assert (said["delivered"], said["setAside"]) == (0, 0)
    assert zoo.counts("never-reports", device.sent) == {1: device.count}


def test_a_report_that_comes_late_counts(zoo: Zoo) -> None:
    device = zoo["late"]
    said = zoo.delivered("late", device.count, LATE_SECONDS + 60)
    assert (said["confirmedBy"], said["setAside"], said["unconfirmed"]) == ("commitment", 0, 0)
    assert zoo.counts("late", device.sent) == {1: device.count}
    # Once for each image, if they came slowly, and then for all together, after pauses of 1, 2, 4... seconds.
    assert device.asked <= device.count + 8


def test_one_uid_in_two_series_is_two_images(zoo: Zoo) -> None:
    device = zoo["twins"]
    said = zoo.delivered("twins", len(device.sent))
    assert (said["delivered"], said["setAside"], said["unconfirmed"]) == (len(device.sent), 0, 0)
    assert zoo.counts("twins", device.sent) == {2: 1, 1: len(device.sent) - 2}
    assert len(device.held) == len(device.sent)
