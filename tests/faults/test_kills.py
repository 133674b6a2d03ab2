"""kill -9, and orderly stops at the worst moment: what was acknowledged arrives."""

from __future__ import annotations

import time
from random import Random

import pytest

from tests.faults.conftest import ids
from tests.faults.injection import killed, stopped
from tests.faults.load import load
from tests.faults.sender import Sender
from tests.faults.world import SERVER, World

_KILLS = 2


@pytest.mark.parametrize("part", ["client", "client-forwarder", SERVER, "db"])
def test_killed_at_random_points_under_load(world: World, rng: Random, part: str) -> None:
    before = world.part(part).restarts
    known = set(world.ledger.promised())
    with load(world, 30, rng):
        for _ in range(_KILLS):
            time.sleep(rng.uniform(0.5, 2.5))
            with killed(world, part):
                pass
    sent = [image for image in world.ledger.promised() if image not in known]
    assert len(sent) > 20
    world.recover(sent)
    assert world.part(part).restarts == before + _KILLS, "the engine, not the test, started it anew"


def test_client_and_forwarder_stopped_right_after_the_last_acknowledgement(world: World, scanner: Sender) -> None:
    images = list(world.new_series(30).images())
    scanner.must_send(world.node("client"), images)
    with stopped(world, "client", "client-forwarder"):
        pass
    world.recover(ids(images))


def test_client_and_forwarder_killed_right_after_the_last_acknowledgement(world: World, scanner: Sender) -> None:
    images = list(world.new_series(30).images())
    scanner.must_send(world.node("client"), images)
    with killed(world, "client", "client-forwarder"):
        pass
    world.recover(ids(images))


def test_what_was_confirmed_is_not_sent_again_after_a_kill(world: World, scanner: Sender) -> None:
    images = list(world.new_series(30).images())
    scanner.must_send(world.node("client"), images)
    world.recover(ids(images))
    assert world.archive.stores_of(ids(images)) == 30
    with killed(world, "client", "client-forwarder"):
        pass
    later = list(world.new_series(3).images())
    scanner.must_send(world.node("client"), later)
    world.recover(ids(later))
    assert world.archive.stores_of(ids(images)) == 30
