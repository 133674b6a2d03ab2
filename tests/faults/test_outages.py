"""A destination that is away, cut off, far away, or full: nothing is lost, it is asked less and less often, and others do not wait."""

from __future__ import annotations

import threading
import time
from itertools import pairwise

import pytest

from tests.faults.conftest import ids
from tests.faults.injection import ImpossibleError, cut_off, disk_full, lossy, slow, stopped
from tests.faults.sender import Sender
from tests.faults.world import SERVER, World
from tests.stack.harness import eventually


class TestDestinationDown:
    """Before, while and after images come."""

    def test_before_and_while_they_come(self, world: World, scanner: Sender) -> None:
        images = list(world.new_series(60).images())
        began = time.time()
        with stopped(world, SERVER):
            scanner.must_send(world.node("client"), images)
            eventually("it is tried some times", lambda: len(_failures(world, "client", began)) >= 4, 30)
            link = world.link("client")
            assert link.waiting + link.in_flight == len(images)
            assert link.next_try is not None
            assert link.reason
        failures = _failures(world, "client", began)
        gaps = [after - before for before, after in pairwise(failures)]
        assert gaps[0] > 0.7, f"failures at {failures}"
        assert all(later > 1.2 * earlier for earlier, later in pairwise(gaps[:3])), f"each pause is longer than the last: {gaps}"
        world.recover(ids(images))

    def test_stopped_while_they_are_forwarded(self, world: World, scanner: Sender) -> None:
        images = list(world.new_series(120).images())
        sending = threading.Thread(target=scanner.must_send, args=(world.node("client"), images))
        sending.start()
        eventually("some have arrived", lambda: len(world.archive.files(ids(images))) > 10)
        with stopped(world, SERVER):
            sending.join()
        world.recover(ids(images))

    def test_one_that_is_down_delays_no_other(self, world: World, scanner: Sender) -> None:
        images = list(world.new_series(40).images())
        with stopped(world, "spare"):
            scanner.must_send(world.node("room"), images)
            eventually("the other has all", lambda: len(world.at("client").files(ids(images))) == len(images), 10)
            eventually("and the one after it", lambda: not world.audit(ids(images), rest=False).lost, 15)
            eventually("nothing waits for it", lambda: world.link("room", "client").idle, 5)
            assert world.link("room", "spare").waiting + world.link("room", "spare").in_flight == len(images)
        world.recover(ids(images))
        assert world.audit(ids(images), archive=world.at("spare")).lost == 0


class TestNetwork:
    """What lies between."""

    def test_cut_in_the_middle_of_a_series(self, world: World, scanner: Sender) -> None:
        images = list(world.new_series(100).images())
        sending = threading.Thread(target=scanner.must_send, args=(world.node("client"), images))
        sending.start()
        eventually("some have arrived", lambda: world.archive.files(ids(images)))
        with cut_off(world, SERVER):
            sending.join()
            time.sleep(1)
        world.recover(ids(images), seconds=90)

    def test_packets_lost(self, world: World, scanner: Sender) -> None:
        images = list(world.new_series(60).images())
        try:
            with lossy(world, SERVER, percent=10):
                scanner.must_send(world.node("client"), images)
                time.sleep(4)
        except ImpossibleError as error:
            pytest.skip(f"no packets can be lost here: {error}")
        world.recover(ids(images))

    def test_slow_line(self, world: World, scanner: Sender) -> None:
        images = list(world.new_series(30).images())
        try:
            with slow(world, SERVER, kilobits=64):
                scanner.must_send(world.node("client"), images)
                time.sleep(4)
        except ImpossibleError as error:
            pytest.skip(f"no line can be slow here: {error}")
        world.recover(ids(images))


def test_disk_full(world: World, scanner: Sender) -> None:
    images = list(world.new_series(40).images())
    with disk_full(world, SERVER):
        scanner.must_send(world.node("client"), images)
        eventually("it fails", lambda: world.link("client").reason or world.link("client").set_aside)
        time.sleep(3)
        assert world.archive.on_disk(ids(images)) == {}
    world.recover(ids(images))


def _failures(world: World, client: str, since: float) -> list[float]:
    """When a client's destination failed, in seconds since 1970, by the engine's clock of the forwarder's log."""
    lines = world.part(f"{client}-forwarder").log_since(since)
    return [at for at, line in lines if " destination failed: " in line]
