"""Sending to devices that are not ours, as it went wrong in the field: each test names its case in issue 15."""

from __future__ import annotations

import time

import pytest

from forwarder import backlog, ledger, link, look, trouble
from forwarder.config import Confirm
from forwarder.record import mark_of
from forwarder.trouble import TRIES_REFUSED
from tests.unit.forwarding import World, a_world, config
from tests.unit.peers import JPEG, RefusedError, Stored

world = a_world

#: A device that is not a node of the stack.
DEVICE = config(outside=True, aet="ARCHIVE")


def _quiet(world: World) -> bool:
    """Whether nothing is left to do, whatever the destination has."""
    return not len(world.ledger.backlog) and not world.ledger.at_work


def _confirmed(world: World, image: Stored) -> bool:
    return mark_of(image.file) in world.record(image.series).confirmed


# --- D2: the device keeps the first version ---


def _corrected(world: World) -> tuple[Stored, Stored]:
    """A device that keeps the first file of a UID has confirmed a series; then one image is corrected: its first version, and that."""
    world.peer.first_wins = True
    first = world.start(DEVICE).node.add("a", 3)[1]
    world.until(lambda: _confirmed(world, first) and _quiet(world))
    newer = world.node.again(first)
    world.until(lambda: _confirmed(world, newer) and _quiet(world))
    return first, newer


def test_a_correction_that_the_device_may_not_have_taken_is_told_and_never_deleted(world: World) -> None:
    """D2."""
    first, newer = _corrected(world)
    assert world.peer.got.count(newer.file) == 1
    assert world.peer.stored[newer.uid] == first.file
    assert world.status()["older"] == 1
    world.delete_after = 0
    world.start().until(lambda: world.node.images() == [newer])
    for _ in range(3):
        world.sweep()
    world.never(lambda: not world.node.images())
    assert (world.status()["older"], world.status()["delivered"]) == (1, 0)
    assert world.statuses()["kept"] == [{"reason": "archive may keep an older version", "images": 1}]


def test_the_content_that_the_device_has_is_deleted_when_it_is_stored_again(world: World) -> None:
    """D2."""
    for module in (ledger, look, trouble):
        world.patch(module, LOOP_SECONDS=0.0)
    first, _ = _corrected(world)
    same = world.node.again(first, same=True)
    world.until(lambda: _confirmed(world, same) and _quiet(world))
    world.sweep()
    assert world.status()["older"] == 0
    world.delete_after = 0
    world.start().until(lambda: not world.node.images())


def test_a_correction_counts_anew_when_the_device_no_longer_has_the_older_version(world: World) -> None:
    """D2."""
    _, newer = _corrected(world)
    del world.peer.stored[newer.uid]
    world.retention.recheck_soon()
    world.until(lambda: world.peer.stored.get(newer.uid) == newer.file)
    world.until(lambda: _confirmed(world, newer) and _quiet(world))
    world.sweep()
    assert world.status()["older"] == 0
    world.delete_after = 0
    world.start().until(lambda: not world.node.images())


def test_a_node_of_the_stack_has_what_was_sent_last(world: World) -> None:
    """D2."""
    first = world.start_with("a", 3)[1]
    newer = world.node.again(first)
    world.delivered()
    assert (world.peer.stored[newer.uid], world.status()["older"]) == (newer.file, 0)
    world.delete_after = 0
    world.start().until(lambda: not world.node.images())


def test_a_correction_of_what_the_device_took_and_did_not_confirm_yet_may_be_an_older_version_too(world: World) -> None:
    """D2: it keeps the first version, and confirms that when it is asked for the second."""
    world.peer.first_wins, world.peer.commits = True, False
    first = world.start(DEVICE).node.add("a", 3)[1]
    world.until(lambda: len(world.record("a").stored) == 3 and world.record("a").closed)
    newer = world.node.again(first)
    world.until(lambda: newer.file in world.peer.got and mark_of(newer.file) in world.record("a").stored)
    world.peer.commits = True
    world.ledger.retry()
    world.until(lambda: _confirmed(world, newer) and _quiet(world))
    assert world.status()["older"] == 1


def test_the_content_of_an_image_is_that_of_the_file_that_was_sent(world: World) -> None:
    """D2: also of one among many, which was stored again before it was confirmed."""
    world.peer.first_wins, world.peer.report_after = True, 0.3
    world.node.add("a", 30)
    world.start(DEVICE).until(lambda: len(world.peer.got) == 30)
    first = world.node.add("a")[0]
    world.until(lambda: first.file in world.peer.got)
    newer = world.node.again(first)
    world.until(lambda: _confirmed(world, newer) and _quiet(world))
    assert world.status()["older"] == 1


def test_an_image_that_is_deleted_before_its_report_comes_holds_up_no_other(world: World) -> None:
    """D2: its content cannot be asked for any more."""
    world.peer.report_after = 0.3
    world.node.add("a", 30)
    world.start(DEVICE).until(lambda: len(world.peer.got) == 30)
    late = world.node.add("a")[0]
    world.until(lambda: late.file in world.peer.got)
    world.node.remove(late)
    world.peer.report_after = 0.0
    world.node.add("b", 3)
    world.until(lambda: _quiet(world), 3.0)
    world.delivered()


def test_a_correction_of_the_only_image_of_a_series_may_be_an_older_version_too(world: World) -> None:
    """D2: Orthanc deletes an image before it stores it again, its series with its only image, and the record with the series."""
    world.peer.first_wins, world.delete_after = True, 10**6
    (first,) = world.start(DEVICE).node.add("a")
    world.until(lambda: _confirmed(world, first) and _quiet(world))
    with world.node.lock:
        world.node.remove(first)
        newer = world.node.again(first)
    world.until(lambda: _confirmed(world, newer) and _quiet(world))
    assert world.status()["older"] == 1


# --- D5: a transfer syntax that the device does not take ---


def test_what_cannot_be_converted_is_set_aside_after_three_tries_and_a_ct_passes_at_once(world: World) -> None:
    """D5."""
    world.pause(0.2)
    world.peer.converts = False
    world.node.add("a", 8, syntax=JPEG)
    world.node.add("a", 4)  # of the same SOP class
    world.start(config(outside=True, aet="ARCHIVE", associations=1)).until(lambda: world.ledger.failures)
    ct = world.node.add("ct")[0]
    world.until(lambda: ct.file in world.peer.got)
    world.until(lambda: world.status()["setAside"] == 8 and world.status()["waiting"] == 0)
    said = world.status()
    reason = "the destination does not take its transfer syntax, and this node cannot convert it"
    assert said["reasons"] == [{"reason": reason, "images": 8}]
    assert (said["tries"], said["delivered"], len(world.lost())) == (0, 5, 8)
    assert {one["tries"] for one in world.aside()} == {TRIES_REFUSED}
    assert len(world.peer.calls("store")) == TRIES_REFUSED + 2, "three tries for all eight, and the two batches that passed"


# --- D6: an image of which the device dies ---


@pytest.mark.parametrize("associations", [1, 2, 4])
def test_an_image_of_which_the_destination_dies_is_set_aside_alone_and_each_other_goes_once(world: World, associations: int) -> None:
    """D6."""
    world.peer.away = 0.05
    images = world.node.add("a", 10)
    world.node.add("b", 12)
    world.node.add("c", 8)
    bad = images[4]
    world.peer.crashes.add(bad.uid)
    world.start(config(associations=associations, outside=True, aet="ARCHIVE"))
    world.until(lambda: world.status()["setAside"] == 1 and world.status()["delivered"] == 29)
    assert [one["image"] for one in world.aside()] == [bad.id]
    assert world.aside()[0]["reason"].startswith("the connection broke at this image, and not at others")
    assert world.lost() == [bad.id]
    assert len(world.peer.got) == len(set(world.peer.got)) == 29
    world.until(lambda: world.status()["waiting"] == 0 and world.status()["tries"] == 0)
    world.start().until(lambda: world.status()["setAside"] == 1)
    world.never(lambda: world.peer.calls("store")[-1] > time.monotonic() - 0.1 and len(world.peer.got) > 29)


@pytest.mark.parametrize(("takes", "associations"), [(0, 1), (2, 1), (2, 4)])
def test_a_destination_that_breaks_every_association_blames_no_image(world: World, takes: int, associations: int) -> None:
    """D6: also where it took the first images of the batch at which it began."""
    world.pause(0.01)
    images = world.node.add("a", 5) + world.node.add("b", 2)
    world.peer.crashes.update(image.uid for image in images[takes:])
    world.start(config(associations=associations)).until(lambda: world.ledger.backoff.tries > 40)
    assert not world.aside()
    assert world.status()["reason"] == "association aborted"
    world.peer.crashes.clear()
    world.delivered()
    assert len(world.peer.got) == 7


def test_a_destination_that_aborts_each_association_after_some_images_gets_all_of_them_once(world: World) -> None:
    """D6."""
    world.pause(0.01)
    take, taken = world.peer.take, 0

    def some(image: Stored, timeout: float = 0.0) -> None:
        nonlocal taken
        taken += 1
        if taken % 4 == 0:
            raise RefusedError(500, 9, 'DicomAssociation - C-STORE to AET "X": Peer aborted Association')
        take(image, timeout)

    world.patch(world.peer, take=some)
    world.node.add("a", 10)
    world.node.add("b", 20)
    world.start(config(associations=1)).delivered()
    assert not world.aside()
    assert len(world.peer.got) == 30


# --- D9: reports that come long after ---


def test_many_reports_that_come_late_count_and_nothing_is_sent_again(world: World) -> None:
    """D9."""
    world.patch(link, _REPORT_SECONDS=0.05)
    world.pause(0.1)
    world.peer.report_after = 0.4
    for number in range(12):
        world.node.add(f"s{number:02}", 3)
    world.start(DEVICE).until(lambda: len(world.peer.got) == 36)
    world.delivered()
    world.never(lambda: len(world.peer.got) > 36, 0.2)
    assert world.status()["delivered"] == 36


@pytest.mark.parametrize("mute", [False, True], ids=["", "and some never come"])
def test_reports_that_come_late_count_however_many_are_open(world: World, mute: bool) -> None:
    """D9: a backlog of some hundred batches, to a device that reports after ten minutes."""
    world.patch(link, _REPORT_SECONDS=0.05)
    world.patch(link, LATE=10, LATE_LEAST_SECONDS=1.0)
    world.pause(0.05)
    world.peer.report_after = None if mute else 0.6
    for number in range(30):
        world.node.add(f"s{number:02}", 2)
    world.start(DEVICE).until(lambda: len(world.peer.got) == 60 and len(world.ledger.late) == 10)
    world.peer.report_after = 0.6
    world.until(lambda: world.status()["delivered"] == 60, 20.0)
    assert len(world.peer.got) == 60


def test_a_late_report_that_says_that_an_image_is_gone_has_it_sent_again(world: World) -> None:
    """D9."""
    world.patch(link, _REPORT_SECONDS=0.05)
    world.patch(trouble, LONGEST_ASK=60.0, FIRST_PAUSE=60.0)
    world.peer.loses, world.peer.reports_late = 1, [0.4]
    world.node.add("a", 4)
    world.start(DEVICE).until(lambda: world.status()["unconfirmed"] == 4)
    assert len(world.peer.got) == 4
    world.until(lambda: len(world.record("a").confirmed) == 3)
    world.ledger.retry()
    world.delivered()
    assert len(world.peer.got) == 5


# --- D10: a device that sends everything back ---


@pytest.mark.parametrize("confirm", ["commitment", "query", "stored"])
@pytest.mark.parametrize("other", [False, True], ids=["as it was", "changed"])
def test_what_a_device_sends_back_under_its_own_ae_title_is_not_sent_to_it_again(world: World, confirm: Confirm, other: bool) -> None:
    """D10: each image crosses once out and once back."""
    world.peer.returns, world.peer.returns_other = "ARCHIVE", other
    world.node.add("a", 12)
    world.start(config(outside=True, aet="ARCHIVE", confirm=confirm)).until(lambda: len(world.peer.got) == 12 and _quiet(world))
    world.sweep()
    world.never(lambda: len(world.peer.got) > 12)
    assert {image.aet for image in world.node.images()} == {"ARCHIVE"}
    assert world.status()["setAside"] == 0


LOOP = "sent twice within the hour: it comes back each time"


@pytest.mark.parametrize("commits", [True, False], ids=["confirmed", "not confirmed"])
@pytest.mark.parametrize("report_after", [0.0, 0.3])
def test_what_comes_back_under_another_ae_title_goes_twice_within_the_hour_and_then_waits(
    world: World, commits: bool, report_after: float
) -> None:
    """D10: not lost by a kill, and sent when the hour is over."""
    world.peer.returns, world.peer.commits, world.peer.report_after = "ROUTER", commits, report_after
    world.node.add("a", 6)
    world.start(DEVICE).until(lambda: world.status()["setAside"] == 6 and len(world.record("a").aside) == 6)
    assert world.status()["reasons"] == [{"reason": LOOP, "images": 6}]
    assert len(world.peer.got) == 12
    world.sweep()
    world.start().until(lambda: world.status()["setAside"] == 6)
    world.never(lambda: len(world.peer.got) > 12)
    assert world.aside()[0]["reason"] == LOOP
    world.peer.returns, world.peer.commits = "", True
    world.ledger.retry()
    world.until(lambda: not world.lost())
    assert len(world.peer.got) == 18


def test_a_loop_goes_on_when_the_hour_is_over(world: World) -> None:
    """D10."""
    for module in (ledger, look, trouble):
        world.patch(module, LOOP_SECONDS=2.0)
    world.peer.returns = "ROUTER"
    began = time.monotonic()
    world.node.add("a", 3)
    world.start(DEVICE).until(lambda: world.status()["setAside"] == 3)
    assert len(world.peer.got) == 6
    world.kill()
    world.start()
    world.peer.returns = ""
    world.until(lambda: not world.lost())
    assert time.monotonic() - began > 1.0
    world.delivered()
    assert len(world.peer.got) == 9


# --- D11: a slow line ---


def test_a_job_that_makes_progress_is_not_given_up_and_each_image_is_sent_once(world: World) -> None:
    """D11."""
    world.patch(backlog, BATCH=20)
    world.peer.slow_image = 0.05
    world.patch(world.start().links[0]._destination, _patience=0.3)
    world.node.add("a", 20, size=100)
    world.delivered()
    assert len(world.peer.got) == len(world.peer.calls("store")) * 20 == 20
    assert not any(path.endswith("/cancel") for path in world.node.asked)


def test_batches_are_bounded_by_bytes_and_their_time_follows_their_size(world: World) -> None:
    """D11."""
    world.node.add("a", 5, size=30 << 20)
    world.node.add("a", 2, size=200 << 20)
    world.node.add("a", 3, size=1000)
    world.start(config(associations=1)).delivered()
    assert [[image.size >> 20 for image in batch] for batch in world.peer.batches] == [[30, 30], [30, 30], [30], [200], [200], [0, 0, 0]]
    times = [job.timeout for job in world.node.jobs.values()]
    assert times[3] > 200 * 60, "an image of 200 MB may take as long as over a line of 16 kB/s"
    assert times[5] == 60


@pytest.mark.parametrize("status", ["0001", "0107", "0116", "B123"])
def test_an_image_that_is_taken_with_a_warning_is_delivered_though_orthanc_says_that_it_failed(world: World, status: str) -> None:
    images = world.node.add("a", 7)
    world.peer.warnings[images[2].uid] = status
    world.start().delivered()
    assert sorted(world.peer.got) == sorted(image.file for image in images), "each once"
    assert world.status()["failures"] == 0
