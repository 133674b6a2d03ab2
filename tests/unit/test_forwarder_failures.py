"""Destinations that are away, refuse, run full, lose or say nothing: only what they do not take waits, and nobody is hammered."""

from __future__ import annotations

import itertools
import time

import pytest

from forwarder import backlog, link, look
from forwarder.config import Confirm
from forwarder.trouble import LONGEST_PAUSE, TRIES_REFUSED
from tests.unit.forwarding import World, config
from tests.unit.peers import PATIENT, SECRET


def test_a_destination_that_is_away_gets_everything_when_it_is_back() -> None:
    with World() as world:
        world.peer.down = True
        world.node.add("a", 25)
        world.node.add("b", 5)
        world.start().until(lambda: world.status()["tries"] >= 4)
        assert (world.status()["waiting"], world.status()["setAside"]) == (30, 0)
        assert world.status()["reason"] == "connection refused"
        assert world.status()["nextTry"]
        world.peer.down = False
        world.delivered()
        assert world.status()["tries"] == 0
        assert world.status()["nextTry"] is None


def test_a_destination_that_is_away_is_asked_with_an_echo_and_ever_more_seldom() -> None:
    with World(pause=0.05) as world:
        world.peer.down = True
        for number in range(6):
            world.node.add(f"s{number}", 20)
        world.start().until(lambda: world.link.ledger.backoff.tries >= 6)
        echoes = world.peer.calls("echo")
        # The first associations fail together; from then on one echo, and nothing else, asks whether it is back.
        assert len(world.peer.calls("store")) <= 4
        assert len(echoes) <= 6 + 3
        gaps = [later - earlier for earlier, later in itertools.pairwise(echoes[-5:])]
        assert gaps[-1] > 0.3
        assert gaps[-1] > gaps[0]


def test_one_association_finds_out_whether_a_destination_is_back() -> None:
    with World(config("archive", associations=4)) as world:
        world.peer.down = True
        for number in range(6):
            world.node.add(f"s{number}", 20)
        world.start().until(lambda: world.link.ledger.backoff.tries >= 2)
        before = len(world.peer.calls("echo"))
        world.node.hooks.append(lambda _, path: time.sleep(0.1) if path.endswith("/echo") else None)
        world.until(lambda: len(world.peer.calls("echo")) >= before + 5)
        gaps = [later - earlier for earlier, later in itertools.pairwise(world.peer.calls("echo")[before + 1 :])]
        assert min(gaps) > 0.09


def test_a_destination_that_is_away_delays_no_other() -> None:
    with World("archive", "second") as world:
        world.peer.down = True
        world.start()
        world.node.add("a", 25)
        world.delivered("second")
        assert world.lost("archive")
        world.peer.down = False
        world.delivered("archive")


def test_waiting_is_not_remembered_over_a_restart_and_nothing_is_lost() -> None:
    with World() as world:
        world.peer.down = True
        world.node.add("a", 5)
        world.start().until(lambda: world.status()["tries"] >= 2)
        world.start()
        world.peer.down = False
        world.delivered()


def test_retry_tries_a_destination_at_once() -> None:
    with World(pause=60.0) as world:
        world.peer.down = True
        world.node.add("a", 5)
        world.start().until(lambda: world.status()["tries"] == 1)
        world.peer.down = False
        world.never(lambda: world.peer.stored, 0.1)
        world.link.ledger.retry()
        world.delivered()


@pytest.mark.parametrize("confirm", ["commitment", "query"])
def test_an_image_that_is_refused_is_set_aside_and_holds_up_no_other(confirm: Confirm, capsys: pytest.CaptureFixture[str]) -> None:
    with World(config("archive", confirm=confirm)) as world:
        world.node.add("a", 12)
        poison = world.node.add("a", 1, sop_class=SECRET)[0]
        world.node.add("a", 12)
        world.node.add("b", 3)
        world.peer.refuses.add(SECRET)
        world.start().until(lambda: world.lost() == [poison.id] and world.aside())
        world.until(lambda: world.record("a").closed)
        assert world.status()["setAside"] == 1
        listed = world.status()["aside"][0]
        assert (listed["image"], listed["tries"]) == (poison.id, TRIES_REFUSED)
        assert listed["reason"] == "no presentation context was accepted for its SOP class and transfer syntax"
        assert world.status()["waiting"] == 0
        assert [one.image for one in world.record("a").aside.values()] == [poison.id]
        # To find which one it is, some of its batch may go twice.
        assert len(set(world.peer.got)) == 27
        assert len(world.peer.got) <= 27 + 10
        stores = len(world.peer.calls("store"))
        world.never(lambda: len(world.peer.calls("store")) > stores)
        assert f"image={poison.id}" in capsys.readouterr().out


def _set_aside(world: World) -> None:
    """A world with one image of three set aside."""
    world.node.add("a", 1, sop_class=SECRET)
    world.node.add("a", 2)
    world.peer.refuses.add(SECRET)
    world.start().until(lambda: world.aside() and world.record("a").closed and len(world.lost()) == 1)


def test_what_is_set_aside_is_tried_again_on_demand() -> None:
    with World() as world:
        _set_aside(world)
        stores = len(world.peer.calls("store"))
        world.link.ledger.retry()
        world.until(lambda: len(world.peer.calls("store")) > stores)
        world.until(lambda: world.record("a").aside and [one.tries for one in world.record("a").aside.values()] == [TRIES_REFUSED + 1])
        world.peer.refuses.clear()
        world.link.ledger.retry()
        world.delivered()
        assert not world.record("a").aside


def test_what_is_set_aside_stays_so_over_a_restart_without_a_try() -> None:
    with World() as world:
        _set_aside(world)
        stores = len(world.peer.calls("store"))
        world.start().until(world.aside)
        world.sweep()
        world.never(lambda: len(world.peer.calls("store")) > stores)
        assert world.status()["aside"][0]["tries"] == TRIES_REFUSED
        world.peer.refuses.clear()
        world.link.ledger.retry()
        world.delivered()


def test_what_is_set_aside_is_tried_again_when_the_destination_was_deployed_anew() -> None:
    with World() as world:
        _set_aside(world)
        world.peer.refuses.clear()
        world.start(config("archive", revision="another")).delivered()


def test_what_is_set_aside_is_tried_again_after_a_day() -> None:
    with World() as world:
        _set_aside(world)
        world.peer.refuses.clear()
        world.patch(look, ASIDE_SECONDS=0)
        world.patch(backlog, ASIDE_SECONDS=0)
        world.start().delivered()


def test_a_late_image_of_a_series_with_one_set_aside_is_delivered() -> None:
    with World() as world:
        _set_aside(world)
        late = world.node.add("a", 1)[0]
        world.until(lambda: late.uid in world.peer.stored)


def test_every_image_refused_is_every_image_set_aside_and_no_failure_of_the_destination() -> None:
    with World(batch=3) as world:
        world.peer.refuses.add(SECRET)
        world.node.add("a", 5, sop_class=SECRET)
        world.node.add("b", 5)
        world.start().until(lambda: len(world.aside()) == 5)
        world.until(lambda: len(world.lost()) == 5)
        assert world.link.ledger.backoff.tries == 0
        assert len(world.peer.calls("store")) <= 5 * TRIES_REFUSED + 5 + 4


def test_a_destination_that_is_full_is_left_alone_and_no_image_is_blamed() -> None:
    with World(pause=0.05) as world:
        world.peer.statuses["*"] = "A700"
        world.node.add("a", 40)
        world.start().until(lambda: world.link.ledger.backoff.tries >= 6)
        assert not world.aside()
        assert world.status()["reason"] == "DIMSE status 0xA700, out of resources"
        # Those that were under way before it is known that it is not an image's fault, then one for each pause.
        assert len(world.peer.calls("store")) <= 6 + 8
        world.peer.statuses.clear()
        world.delivered()


def test_an_image_that_a_destination_cannot_process_is_set_aside_in_the_end() -> None:
    with World(pause=0.01) as world:
        images = world.node.add("a", 9)
        world.peer.statuses[images[4].uid] = "A700"
        world.start().until(lambda: world.lost() == [images[4].id] and world.aside())
        assert world.status()["aside"][0]["reason"] == "DIMSE status 0xA700, out of resources"
        assert world.link.ledger.backoff.tries == 0
        world.peer.statuses.clear()
        world.delivered()


def test_sending_goes_on_while_reports_are_awaited_and_not_without_end() -> None:
    with World(batch=5) as world:
        world.peer.report_after = None
        world.patch(link, _REPORT_SECONDS=30.0)
        world.node.add("a", 200)
        world.start().until(lambda: len(world.peer.batches) > 3)
        world.never(lambda: len(world.peer.batches) > 8)
        assert world.status()["inFlight"] == 5 * len(world.peer.batches)


def test_the_next_series_is_looked_at_while_others_are_sent() -> None:
    with World(config("archive", associations=1), batch=5) as world:
        for number in range(4):
            world.node.add(f"s{number}", 5)
        world.peer.slow = 3.0
        world.start().until(lambda: len(_looked_at(world)) > 1, seconds=2.5)
        assert world.peer.batches == []


def test_new_studies_do_not_wait_for_a_long_backlog() -> None:
    with World(config("archive", associations=1), batch=5) as world:
        for number in range(20):
            world.node.add(f"s{number:02}", 10)
        world.peer.slow = 0.02
        world.start().until(lambda: len(world.peer.batches) > 3)
        new = world.node.add("new", 1)[0]
        world.until(lambda: new.uid in world.peer.stored)
        assert len(world.lost()) > 50


def test_the_oldest_go_first() -> None:
    with World(config("archive", associations=1), batch=5) as world:
        for number in reversed(range(12)):
            world.node.add(f"s{number:02}", 5)
        world.peer.down = True
        world.start().until(lambda: len(world.link.ledger.backlog) == 12)
        world.peer.down = False
        world.delivered()
        sent = [batch[0].series for batch in world.peer.batches]
        oldest = [series for number, series in enumerate(sent) if series in sorted(sent)[6:]]
        assert sum(map(sent.index, oldest)) < sum(map(sent.index, set(sent) - set(oldest)))


def test_the_longest_pause_is_five_minutes() -> None:
    assert LONGEST_PAUSE == 300.0


def test_nothing_of_a_patient_is_in_the_log_or_the_status(capsys: pytest.CaptureFixture[str]) -> None:
    with World("archive", "second", pause=0.01) as world:
        images = world.node.add("a", 4)
        world.node.add("a", 1, sop_class=SECRET)
        world.node.series["a"].study_tags["StudyDescription"] = PATIENT
        world.node.peers["second"].down = True
        world.peer.refuses.add(SECRET)
        world.peer.statuses[images[1].uid] = "A700"
        world.start().until(lambda: len(world.aside()) == 2 and world.status(1)["tries"] > 2)
        world.until(lambda: len(world.lost()) == 2)
        log, status = capsys.readouterr().out, str(world.statuses())
        assert "destination failed" in log
        assert "image failed" in log
        assert "Doe" not in log + status
        assert "1.2.a-" not in log + status


def test_the_node_may_go_away_in_the_middle() -> None:
    with World(batch=4) as world:
        world.node.add("a", 30)
        world.peer.slow = 0.02
        world.start().until(lambda: len(world.peer.got) > 4)
        world.node.up = False
        world.until(lambda: world.watch.node_up is False)
        world.node.restart()
        world.node.up = True
        world.delivered()
        assert world.alive


def _looked_at(world: World) -> list[str]:
    held = world.link.ledger
    with held.changed:
        return sorted(entry.id for entry in held.backlog if entry.waiting is not None)
