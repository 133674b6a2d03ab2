"""Destinations that are away, refuse, run full, lose or say nothing: only what they do not take waits, and nobody is hammered."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from forwarder import backlog, link, trouble
from forwarder.__main__ import retry
from forwarder.config import Confirm
from forwarder.trouble import TRIES_REFUSED
from tests.unit.forwarding import World, a_world, config
from tests.unit.peers import PATIENT, SECRET, RefusedError

world = a_world


@pytest.mark.parametrize("restarted", [False, True])
def test_a_destination_that_is_away_gets_everything_when_it_is_back_and_delays_no_other(world: World, restarted: bool) -> None:
    world.peer.down = True
    world.node.add("a", 25)
    world.node.add("b", 5)
    world.start("archive", "second").delivered("second")
    world.until(lambda: world.status()["tries"] >= 4)
    said = world.status()
    assert (said["waiting"] + said["inFlight"], said["setAside"], said["reason"]) == (30, 0, "connection refused")
    assert said["nextTry"]
    if restarted:
        world.start()
    world.peer.down = False
    world.delivered()
    assert world.status()["tries"] == 0
    assert world.status()["nextTry"] is None
    assert sorted(world.second.got) == sorted(world.peer.got)


def test_a_destination_that_is_away_is_asked_ever_more_seldom(world: World) -> None:
    world.pause(0.03)
    world.peer.down = True
    for number in range(6):
        world.node.add(f"s{number}", 20)
    world.start().until(lambda: world.ledger.backoff.tries >= 6)
    stores = world.peer.calls("store")
    # The first associations fail together; from then on one, and nothing else, asks whether it is back.
    assert len(stores) <= 6 + 3
    assert not world.peer.calls("echo")
    gaps = [later - earlier for earlier, later in itertools.pairwise(stores[-5:])]
    assert gaps[-1] > 0.2
    assert gaps[-1] > gaps[0]


def test_one_association_finds_out_whether_a_destination_is_back(world: World) -> None:
    world.pause(0.005)
    world.peer.down = True
    for number in range(6):
        world.node.add(f"s{number}", 20)
    world.start(config(associations=4)).until(lambda: world.ledger.backoff.tries >= 2)
    before = len(world.peer.calls("store"))
    world.node.hooks.append(lambda _, path: time.sleep(0.1) if path.endswith("/store") else None)
    world.until(lambda: len(world.peer.calls("store")) >= before + 5)
    gaps = [later - earlier for earlier, later in itertools.pairwise(world.peer.calls("store")[before + 1 :])]
    assert min(gaps) > 0.09


def test_retry_tries_every_destination_at_once(world: World) -> None:
    world.pause(60.0)
    world.peer.down = world.second.down = True
    world.node.add("a", 5)
    world.start("archive", "second").until(lambda: world.status()["tries"] == 1 and world.status("second")["tries"] == 1)
    world.peer.down = world.second.down = False
    world.never(lambda: world.peer.stored or world.second.stored, 0.1)
    retry(world.links)
    world.delivered()


@pytest.mark.parametrize("confirm", ["commitment", "query"])
def test_an_image_that_is_refused_is_set_aside_and_holds_up_no_other(
    world: World, confirm: Confirm, capsys: pytest.CaptureFixture[str]
) -> None:
    world.node.add("a", 12)
    poison = world.node.add("a", sop_class=SECRET)[0]
    world.node.add("a", 12)
    world.node.add("b", 3)
    world.peer.refuses.add(SECRET)
    world.start(config(confirm=confirm)).until(lambda: world.lost() == [poison.id] and world.aside())
    world.until(lambda: world.record("a").closed and world.status()["waiting"] == 0)
    assert world.status()["setAside"] == 1
    listed = world.aside()[0]
    assert (listed["image"], listed["tries"]) == (poison.id, TRIES_REFUSED)
    assert listed["reason"] == "no presentation context was accepted for its SOP class and transfer syntax"
    assert [one.image for one in world.record("a").aside.values()] == [poison.id]
    # The job's progress tells which one it is: nothing goes twice.
    assert len(set(world.peer.got)) == len(world.peer.got) == 27
    stores = len(world.peer.calls("store"))
    world.never(lambda: len(world.peer.calls("store")) > stores)
    assert f"image={poison.id}" in capsys.readouterr().out


def test_what_is_set_aside_is_tried_again_on_demand_and_not_by_a_restart(world: World) -> None:
    world.set_aside()
    world.node.add("a")  # a late one is delivered
    world.until(lambda: len(world.record("a").confirmed) == 3)
    world.start().until(world.aside)
    stores = len(world.peer.calls("store"))
    world.sweep()
    world.never(lambda: len(world.peer.calls("store")) > stores)
    assert world.aside()[0]["tries"] == TRIES_REFUSED
    world.ledger.retry()
    world.until(lambda: len(world.peer.calls("store")) > stores)
    world.until(lambda: [one.tries for one in world.record("a").aside.values()] == [TRIES_REFUSED + 1])
    world.peer.refuses.clear()
    world.ledger.retry()
    world.delivered()
    assert not world.record("a").aside


@pytest.mark.parametrize("deployed", [True, False], ids=["the destination was deployed anew", "a day has passed"])
def test_what_is_set_aside_is_tried_again_when(world: World, deployed: bool) -> None:
    world.set_aside()
    world.peer.refuses.clear()
    if deployed:
        world.start(config(revision="another")).delivered()
    else:
        world.patch(trouble, ASIDE_SECONDS=0)
        world.start().delivered()


def test_every_image_refused_is_every_image_set_aside_and_no_failure_of_the_destination(world: World) -> None:
    world.patch(backlog, BATCH=3)
    world.peer.refuses.add(SECRET)
    world.node.add("a", 5, sop_class=SECRET)
    world.node.add("b", 5)
    world.start().until(lambda: len(world.aside()) == 5)
    world.until(lambda: len(world.lost()) == 5)
    assert world.ledger.backoff.tries == 0
    assert len(world.peer.calls("store")) <= 5 * TRIES_REFUSED + 5 + 4


def test_a_destination_that_is_full_is_left_alone_and_no_image_is_blamed(world: World) -> None:
    world.peer.statuses["*"] = "A700"
    world.node.add("a", 40)
    world.start().until(lambda: world.ledger.backoff.tries >= 6)
    assert not world.aside()
    assert world.status()["reason"] == "DIMSE status 0xA700, out of resources"
    # Those that were under way before it is known that it is not an image's fault, then one for each pause.
    assert len(world.peer.calls("store")) <= 6 + 8
    world.peer.statuses.clear()
    world.delivered()


def test_an_image_that_a_destination_cannot_process_is_set_aside_in_the_end(world: World) -> None:
    world.pause(0.01)
    images = world.node.add("a", 9)
    world.peer.statuses[images[4].uid] = "A700"
    world.start().until(lambda: world.lost() == [images[4].id] and world.aside())
    assert world.aside()[0]["reason"] == "DIMSE status 0xA700, out of resources"
    assert world.ledger.backoff.tries == 0
    world.peer.statuses.clear()
    world.delivered()


def test_sending_goes_on_while_reports_are_awaited_and_not_without_end(world: World) -> None:
    world.patch(backlog, BATCH=5)
    world.patch(link, _REPORT_SECONDS=30.0)
    world.peer.report_after = None
    world.node.add("a", 200)
    world.start().until(lambda: len(world.peer.batches) > 3)
    world.never(lambda: len(world.peer.batches) > 8)
    assert world.status()["inFlight"] == 5 * len(world.peer.batches)


def test_the_next_series_is_looked_at_while_others_are_sent(world: World) -> None:
    for number in range(4):
        world.node.add(f"s{number}", 5)
    may_send = threading.Event()
    world.node.before("/store", lambda: may_send.wait(5))
    world.start(config(associations=1)).until(lambda: len(_looked_at(world)) > 1, seconds=2.5)
    assert world.peer.batches == []
    may_send.set()


def _looked_at(world: World) -> list[str]:
    with world.ledger.changed:
        return [entry.id for entry in world.ledger.backlog if entry.waiting is not None]


def test_the_oldest_go_first_and_new_studies_do_not_wait_for_a_long_backlog(world: World) -> None:
    world.patch(backlog, BATCH=5)
    for number in reversed(range(20)):
        world.node.add(f"s{number:02}", 10)
    world.peer.down = True
    world.start(config(associations=1)).until(lambda: len(world.ledger.backlog) == 20)
    world.peer.down, world.peer.slow = False, 0.01
    world.until(lambda: len(world.peer.batches) > 3)
    new = world.node.add("new")[0]
    world.until(lambda: new.uid in world.peer.stored)
    assert len(world.lost()) > 50
    world.delivered()
    sent = list(dict.fromkeys(batch[0].series for batch in world.peer.batches if batch != [new]))
    newest, oldest = sorted(sent)[:10], sorted(sent)[10:]
    assert sum(map(sent.index, oldest)) < sum(map(sent.index, newest))


def test_nothing_of_a_patient_is_in_the_log_or_the_status(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.pause(0.01)
    images = world.node.add("a", 4)
    world.node.add("a", sop_class=SECRET)
    world.node.series["a"].study_tags["StudyDescription"] = PATIENT
    world.second.down = True
    world.peer.refuses.add(SECRET)
    world.peer.statuses[images[1].uid] = "A700"
    world.start("archive", "second").until(lambda: len(world.aside()) == 2 and world.status("second")["tries"] > 2)
    world.until(lambda: len(world.lost()) == 2)
    log, status = capsys.readouterr().out, str(world.statuses())
    assert "destination failed" in log
    assert "image failed" in log
    assert "Doe" not in log + status
    assert "1.2.a-" not in log + status


def test_the_node_may_go_away_in_the_middle_which_is_told(world: World) -> None:
    world.patch(backlog, BATCH=4)
    world.node.add("a", 30)
    world.peer.slow = 0.02
    world.start().until(lambda: len(world.peer.got) > 4)
    assert world.statuses()["nodeAnswers"]
    world.node.up = False
    world.until(lambda: not world.statuses()["nodeAnswers"])
    world.node.restart()
    world.node.up = True
    world.delivered()
    assert world.statuses()["nodeAnswers"]
    assert world.alive


def _writes_nothing(world: World, times: int) -> list[str]:
    """The node's database is away whenever a record is to be written, for so many times; what was refused."""
    refused: list[str] = []

    def hook(method: str, path: str) -> None:
        if method == "PUT" and len(refused) < times:
            refused.append(path)
            raise RefusedError(503, 36, "")

    world.node.hooks.append(hook)
    return refused


def test_a_report_that_cannot_be_recorded_for_a_while_counts_once(world: World) -> None:
    world.start().peer.loses = 1
    refused = _writes_nothing(world, 12)
    with world.node.lock:
        world.node.add("a", 5)
    world.until(lambda: len(refused) == 12)
    world.delivered()
    assert (world.status()["failures"], len(world.peer.got)) == (1, 6)


def test_a_late_report_that_cannot_be_recorded_at_once_still_counts(world: World) -> None:
    world.patch(link, _REPORT_SECONDS=0.05)
    world.patch(trouble, LONGEST_ASK=60.0, FIRST_PAUSE=60.0)
    world.peer.reports_late = [0.4]
    world.node.add("a", 4)
    world.start().until(lambda: len(world.record("a").stored) == 4 and len(world.ledger.late) == 1)
    refused = _writes_nothing(world, 3)
    world.until(lambda: len(refused) == 3)
    world.delivered()
    assert len(world.peer.got) == 4
