"""Changes of the stack while images wait; an image that the archive does not take until it is deployed otherwise."""

from __future__ import annotations

from tests.faults.conftest import ids
from tests.faults.images import CT, MR
from tests.faults.injection import stopped
from tests.faults.sender import Sender
from tests.faults.world import SERVER, World
from tests.stack.harness import eventually

_WAITING = 1000


def test_the_client_is_replaced_while_images_wait(world: World, scanner: Sender) -> None:
    images = list(world.new_series(_WAITING).images())
    before = world.stack.containers()["client"]
    with stopped(world, SERVER):
        scanner.must_send(world.node("client"), images)
        world.stack.node_settings("client")["orthanc"] = {"StableAge": 7}
        world.deploy()
        assert world.stack.containers()["client"] != before
    world.retry("client")  # It was away for so long that the next try would be a while.
    world.recover(ids(images), seconds=180)


def test_an_image_that_is_refused_holds_up_nothing_and_arrives_when_it_is_wanted(world: World, scanner: Sender) -> None:
    series = world.new_series(30)
    poison = series.image(14, sop_class=MR)
    images = [poison if number == 14 else series.image(number) for number in range(30)]
    others = [image for image in images if image is not poison]
    scanner.must_send(world.node("client"), images)
    eventually("the others arrive", lambda: not world.audit(ids(others), rest=False).lost)
    eventually("the one is set aside", lambda: world.link("client").set_aside == 1)
    (aside,) = world.link("client").aside
    assert aside["image"] == poison.orthanc
    assert aside["reason"]
    world.retry("client")
    eventually("it was tried again", lambda: world.link("client").aside and world.link("client").aside[0]["tries"] > aside["tries"])
    assert world.audit([poison.orthanc]).missing == (poison.orthanc,)
    world.stack.node_settings(SERVER)["orthanc"] = {"AcceptedSopClasses": [CT, MR]}
    world.deploy()
    world.recover(ids(images))
    assert world.link("client").set_aside == 0
