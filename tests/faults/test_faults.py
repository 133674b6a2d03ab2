"""Faults made to one small stack: what was acknowledged arrives. All in one file, so that a run deploys one stack."""

from __future__ import annotations

import os
import socket
import threading
import time
from datetime import datetime
from itertools import pairwise
from random import Random

import pytest

from tests.faults.catalogue import UNDER_LOAD, Fault
from tests.faults.images import CT, MR, Image
from tests.faults.injection import ImpossibleError, accepting_and_losing, disk_full, killed, stopped
from tests.faults.sender import Load, Sender
from tests.faults.world import SERVER, World, undelivered
from tests.stack.forwarding import aside, await_delivery
from tests.stack.harness import docker, eventually

#: Seconds until a link counts what was stored: the forwarder reads changes again after 5 s, as PostgreSQL may show 5 before 4.
_COUNTED = 15


@pytest.fixture(scope="module", autouse=True)
def by_root_on_the_engines_machine() -> None:
    """Else there are no faults: processes killed, packets and files lost."""
    if os.geteuid() != 0 or docker("info", "--format", "{{.Name}}") != socket.gethostname():
        pytest.skip("faults are made by root on the machine that runs the engine")


def ids(images: list[Image]) -> list[str]:
    return [image.orthanc for image in images]


class TestTheChecksThemselves:
    def test_an_audit_sees_what_is_missing_broken_and_old(self, world: World, scanner: Sender) -> None:
        series = world.new_series(4)
        images = list(series.images())
        scanner.must_send(world.node("client"), images)
        world.recover(ids(images))
        files = world.archive.files(ids(images))
        deleted, gone, broken, old = ids(images)
        world.node(SERVER).ask(f"/instances/{deleted}", method="DELETE")
        files[gone].unlink()
        content = files[broken].read_bytes()
        files[broken].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        world.ledger.acknowledged(series.image(3, version=9))
        audit = world.audit(ids(images))
        assert audit.missing == (deleted,)
        assert set(audit.wrong) == {gone, broken, old}
        assert audit.lost == 4

    def test_a_sender_says_what_was_not_acknowledged(self, world: World) -> None:
        before = len(world.ledger)
        with pytest.raises(AssertionError, match="did not take 3 images"):
            Sender(world.ledger, "STRANGER").must_send(world.node("client"), world.new_series(3).images(), seconds=2)
        assert len(world.ledger) == before


class TestKills:
    def test_client_and_forwarder_killed_right_after_the_last_acknowledgement(self, world: World, scanner: Sender) -> None:
        images, later = list(world.new_series(30).images()), list(world.new_series(30).images())
        scanner.must_send(world.node("client"), images)
        with killed(world, "client", "client-forwarder"):
            pass
        world.recover(ids(images))
        before, _ = world.archive.stores(ids(images))
        with killed(world, "client", "client-forwarder"):
            pass
        scanner.must_send(world.node("client"), later)
        world.recover(ids(later))
        assert world.archive.stores(ids(images)) == (before, 30), "what was confirmed is not sent again"
        assert world.archive.stores(ids(later)) == (30, 30)

    @pytest.mark.slow("the engine waits longer before each restart of a container: 10 to 20 s for two kills of each")
    @pytest.mark.parametrize("part", ["client", "client-forwarder", SERVER, "db"])
    def test_killed_at_random_points_under_load(self, world: World, rng: Random, part: str) -> None:
        before = world.part(part).restarts
        known = world.ledger.promised().keys()
        with Load(world, rng) as load:
            for _ in range(2):
                time.sleep(rng.uniform(0.5, 2.5))
                with killed(world, part):
                    pass
        assert not load.given_up
        sent = [image for image in world.ledger.promised() if image not in known]
        assert len(sent) > 20
        world.recover(sent)
        assert world.part(part).restarts == before + 2, "the engine, not the test, started it anew"


class TestOutages:
    def test_a_destination_that_is_down_before_and_while_images_come(self, world: World, scanner: Sender) -> None:
        images = list(world.new_series(60).images())
        began = time.time()
        with stopped(world, SERVER):
            scanner.must_send(world.node("client"), images)
            eventually("it is tried some times", lambda: len(_failures(world, "client", began)) >= 4, 30)
            eventually("all of them wait", lambda: undelivered(world.link("client")) == len(images), _COUNTED)
            link = world.link("client")
            assert link["nextTry"] is not None
            assert link["reason"]
        failures = _failures(world, "client", began)
        gaps = [after - before for before, after in pairwise(failures)]
        assert gaps[0] > 0.7, f"failures at {failures}"
        assert all(later > 1.2 * earlier for earlier, later in pairwise(gaps[:3])), f"each pause is longer than the last: {gaps}"
        world.recover(ids(images))

    @pytest.mark.slow("half a minute; that one link does not wait for another is also a unit test's matter")
    def test_one_that_is_down_delays_no_other_nor_the_one_after_it(self, world: World, scanner: Sender) -> None:
        images = list(world.new_series(40).images())
        with stopped(world, "spare"):
            scanner.must_send(world.node("room"), images)
            eventually("the other has all", lambda: len(world.at("client").files(ids(images))) == len(images), 10)
            eventually("and the one after it", lambda: not world.audit(ids(images), rest=False).lost, 15)
            eventually("nothing waits for it", lambda: not undelivered(world.link("room", "client")), 5)
            eventually("all of them wait for it", lambda: undelivered(world.link("room", "spare")) == len(images), _COUNTED)
        world.recover(ids(images))
        for name in ("client", "spare"):
            assert world.audit(ids(images), at=name).lost == 0


class TestLosses:
    def test_nothing_is_deleted_that_the_archive_has_lost(self, world: World, scanner: Sender) -> None:
        # After a destination was away it deletes nothing for minutes; the archive was, in other tests.
        with killed(world, "second-forwarder"):
            pass
        images = list(world.new_series(40).images())
        second = world.at("second")
        early: list[str] = []
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.3):
                gone = set(ids(images)) & world.ledger.promised().keys() - second.files(ids(images)).keys()
                audit = world.audit(sorted(gone), rest=False)
                early.extend(audit.missing + audit.wrong)

        watching = threading.Thread(target=watch)
        with accepting_and_losing(world, most=5) as loss:
            scanner.must_send(world.node("second"), images)
            watching.start()
            try:
                eventually("files are lost", lambda: len(loss.files) >= 3, 30)
                world.recover(ids(images))
                eventually("they are deleted here", lambda: not second.files(ids(images)), 30)
            finally:
                done.set()
                watching.join()
        assert world.archive.stores(ids(images))[0] >= 40 + len(loss.files), "what was lost is sent again"
        assert early == []
        assert world.audit(ids(images)).lost == 0


@pytest.mark.slow("10 to 40 s: each try of an image that was not confirmed comes later than the one before")
def test_what_the_archive_loses_is_sent_again(world: World, scanner: Sender) -> None:
    images = list(world.new_series(40).images())
    with accepting_and_losing(world, most=5) as loss:
        scanner.must_send(world.node("client"), images)
        eventually("files are lost", lambda: len(loss.files) >= 3, 30)
    world.recover(ids(images))


@pytest.mark.slow("10 s: the destination fails for some seconds, and is tried again later")
def test_disk_full(world: World, scanner: Sender) -> None:
    images = list(world.new_series(40).images())
    with disk_full(world, SERVER):
        scanner.must_send(world.node("client"), images)
        eventually("it fails", lambda: world.link("client")["reason"] or world.link("client")["setAside"])
        time.sleep(3)
        assert world.archive.on_disk(ids(images)) == {}
    world.recover(ids(images))


@pytest.mark.slow("10 to 20 s each; of kills, outages and losses the fast tests have one each")
@pytest.mark.parametrize("fault", UNDER_LOAD, ids=lambda fault: fault.name)
def test_nothing_is_lost_under_load(world: World, rng: Random, fault: Fault) -> None:
    known = world.ledger.promised().keys()
    try:
        with Load(world, rng) as load:
            time.sleep(rng.uniform(1, 2))
            with fault.begin(world, rng):
                time.sleep(fault.seconds[0])
    except ImpossibleError as error:
        pytest.skip(f"this machine cannot do it: {error}")
    assert not load.given_up
    sent = [image for image in world.ledger.promised() if image not in known]
    assert len(sent) > 20
    world.recover(sent, seconds=90)


@pytest.mark.slow("a series must lie quiet for seconds before its record is closed, and is then changed once more")
def test_a_second_content_replaces_the_first_soon_and_late(world: World, scanner: Sender) -> None:
    series = world.new_series(20)
    images = list(series.images())
    scanner.must_send(world.node("client"), images)
    newer = [series.image(number, version=1) for number in range(5)]
    assert newer[0].md5 != images[0].md5
    scanner.must_send(world.node("client"), newer)
    world.recover(ids(images))
    await_delivery(world.stack, "client", SERVER)
    scanner.must_send(world.node("client"), [series.image(7, version=2)])
    world.recover(ids(images))


@pytest.mark.slow("a thousand images, and a deployment")
def test_the_client_is_replaced_while_images_wait(world: World, scanner: Sender) -> None:
    images = list(world.new_series(1000).images())
    before = world.stack.containers()["client"]
    with stopped(world, SERVER):
        scanner.must_send(world.node("client"), images)
        world.stack.node_settings("client")["orthanc"] = {"StableAge": 7}
        world.deploy()
        assert world.stack.containers()["client"] != before
    world.retry("client")  # It was away for so long that the next try would be a while.
    world.recover(ids(images), seconds=180)


@pytest.mark.slow("three tries of the image, with a pause after each, and a deployment")
def test_an_image_that_is_refused_holds_up_nothing_and_arrives_when_it_is_wanted(world: World, scanner: Sender) -> None:
    series = world.new_series(30)
    images = [series.image(number, sop_class=MR if number == 14 else CT) for number in range(30)]
    poison, others = images[14], images[:14] + images[15:]
    scanner.must_send(world.node("client"), images)
    eventually("the others arrive", lambda: not world.audit(ids(others), rest=False).lost)
    eventually("the one is set aside", lambda: world.link("client")["setAside"] == 1)
    (listed,) = aside(world.stack, "client")
    assert listed["image"] == poison.orthanc
    assert listed["reason"]
    world.retry("client")
    eventually("it was tried again", lambda: any(one["tries"] > listed["tries"] for one in aside(world.stack, "client")))
    assert world.audit([poison.orthanc]).missing == (poison.orthanc,)
    world.stack.node_settings(SERVER)["orthanc"] = {"AcceptedSopClasses": [CT, MR]}
    world.deploy()
    world.recover(ids(images))
    assert world.link("client")["setAside"] == 0


def _failures(world: World, client: str, since: float) -> list[float]:
    """When a client's destination failed, in seconds since 1970, by the engine's clock of the forwarder's log."""
    lines = world.part(f"{client}-forwarder").log("--timestamps", "--since", f"{since:.3f}").splitlines()
    return [datetime.fromisoformat(line.split()[0]).timestamp() for line in lines if " destination failed: " in line]
