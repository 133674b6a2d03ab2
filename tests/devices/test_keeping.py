"""A node that deletes what devices outside have confirmed: what one of them leaves open holds up no other, and is told."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pydicom.dataset import FileDataset

from tests.devices.zoo import HALL, KEPT_SECONDS, Zoo
from tests.stack.harness import eventually

pytestmark = pytest.mark.slow("a new stack with two nodes, and the time until images are deleted")


def _held(zoo: Zoo, images: Sequence[FileDataset]) -> int:
    """How many of the images in their series the node holds."""
    series = {str(image.SeriesInstanceUID) for image in images}
    return sum(
        len(zoo.stack.node(HALL).post("/tools/find", {"Level": "Instance", "Query": {"SeriesInstanceUID": uid}})) for uid in sorted(series)
    )


def _gone(zoo: Zoo, images: Sequence[FileDataset]) -> None:
    eventually("the node has deleted what all have confirmed", lambda: not _held(zoo, images), KEPT_SECONDS + 60)


def test_a_device_that_is_silent_holds_up_no_deletion_of_what_others_have(zoo: Zoo) -> None:
    fickle, steady = zoo["fickle"], zoo["steady"]
    zoo.delivered("fickle", fickle.count)
    zoo.delivered("steady", steady.count)
    _gone(zoo, steady.sent)
    # Once more, while the silent one is asked.
    _gone(zoo, zoo.send_series("steady"))
    assert _held(zoo, fickle.sent) == fickle.count
    assert zoo.counts("fickle", fickle.sent) == {1: fickle.count}
    eventually("the node says so", lambda: any("fickle" in one["reason"] for one in zoo.status(HALL)["kept"]), 60)


def test_an_image_of_which_a_device_may_keep_an_older_version_is_never_deleted(zoo: Zoo) -> None:
    device = zoo["older"]
    images = zoo.send_series("older", 3)
    zoo.delivered("older", device.count + len(images))
    images[0].SeriesDescription = "Corrected"
    zoo.send(device, images[:1])
    zoo.await_link("older", "it may keep the older version", lambda now: now["older"] == 1, 30)
    _gone(zoo, [*device.sent, *zoo.send_series("steady")])
    assert zoo.stack.node(HALL).holds([str(images[0].SOPInstanceUID)])
    eventually("the node says so", lambda: any("older" in one["reason"] for one in zoo.status(HALL)["kept"]), 60)


def test_images_with_one_uid_in_two_series_are_kept_and_told(zoo: Zoo) -> None:
    device = zoo["pair"]
    zoo.delivered("pair", len(device.sent))
    _gone(zoo, zoo["steady"].sent)
    twice = [image for image in device.sent if image.SOPInstanceUID == device.sent[0].SOPInstanceUID]
    eventually("each of the two series has that image left", lambda: [_held(zoo, [one]) for one in twice] == [1, 1], 60)
    eventually("the node says so", lambda: any("two series" in one["reason"] for one in zoo.status(HALL)["kept"]), 60)
