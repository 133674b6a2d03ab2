"""Devices outside the stack: what one lacks is found out and told, and never blamed on an image; each image is sent once."""

from __future__ import annotations

from functools import partial

import pytest

from forwarder import backlog, dicom, ledger, link
from forwarder.backlog import Backlog
from forwarder.config import Confirm
from forwarder.dicom import Offers
from forwarder.trouble import TRIES_REFUSED
from tests.unit.forwarding import World, a_world, config
from tests.unit.peers import JPEG, SECRET, RefusedError

world = a_world


def _unconfirmed(world: World, images: int) -> None:
    """Wait until so many images are stored and not confirmed, and that is recorded."""
    world.until(lambda: world.status()["unconfirmed"] == images and len(world.record("a").stored) == images)


# --- a destination without storage commitment, or without C-FIND ---


@pytest.mark.parametrize(
    ("confirm", "note"),
    [
        ("commitment", "archive offers no storage commitment: set confirm: query, or stored"),
        ("query", "archive answers no query (C-FIND): set confirm: commitment, or stored"),
    ],
)
def test_a_destination_that_lacks_what_the_link_asks_for_gets_each_image_once_and_the_link_says_so(
    world: World, confirm: Confirm, note: str
) -> None:
    world.peer.commits = world.peer.finds = False
    world.node.add("a", 25)
    world.start(config(confirm=confirm))
    _unconfirmed(world, 25)
    world.until(lambda: world.status()["waiting"] == 0)
    said = world.status()
    assert (said["note"], said["confirmedBy"]) == (note, None)
    assert {said[key] for key in ("waiting", "inFlight", "setAside", "tries", "failures", "delivered")} == {0}
    asked = len(world.peer.calls("storage-commitment" if confirm == "commitment" else "query"))
    assert asked <= 3, "each association may be the first that finds out"
    world.node.add("b", 5)
    world.until(lambda: world.status()["unconfirmed"] == 30)
    world.never(lambda: len(world.peer.got) > 30)
    assert world.lost() == []
    assert not world.record("a").confirmed


def test_what_is_stored_and_not_confirmed_is_not_sent_again_by_a_new_forwarder_and_confirmed_when_the_destination_can(world: World) -> None:
    world.peer.commits = False
    world.node.add("a", 5)
    world.start()
    _unconfirmed(world, 5)
    world.start()
    _unconfirmed(world, 5)
    world.peer.commits = True
    world.ledger.retry()
    world.delivered()
    assert len(world.peer.got) == 5
    assert (world.status()["note"], world.status()["confirmedBy"]) == ("", "commitment")


def test_a_destination_is_asked_again_after_a_pause_for_what_it_lacks(world: World) -> None:
    world.patch(dicom, _ASK_AGAIN_SECONDS=0.3)
    world.peer.commits = False
    world.node.add("a", 5)
    world.start()
    _unconfirmed(world, 5)
    world.until(lambda: len(world.peer.calls("storage-commitment")) >= 3)
    gaps = world.peer.calls("storage-commitment")
    assert gaps[2] - gaps[1] > 0.25
    world.peer.commits = True
    world.delivered()
    assert len(world.peer.got) == 5


def test_an_image_that_is_stored_once_more_while_the_first_is_not_confirmed_is_sent(world: World) -> None:
    world.peer.commits = False
    image = world.node.add("a", 3)[1]
    world.start()
    _unconfirmed(world, 3)
    world.until(lambda: world.record("a").closed)
    again = world.node.again(image)
    world.until(lambda: world.peer.stored[image.uid] == again.file)
    _unconfirmed(world, 3)
    assert len(world.peer.got) == 4


def test_what_the_destination_lost_before_it_confirmed_it_is_sent_again(world: World) -> None:
    world.peer.commits = False
    world.node.add("a", 3)
    world.start()
    _unconfirmed(world, 3)
    world.peer.stored.clear()
    world.peer.commits = True
    world.ledger.retry()
    world.delivered()
    assert len(world.peer.got) == 6


@pytest.mark.parametrize("commits", [True, False])
def test_a_node_that_goes_away_when_it_is_to_write_what_is_stored_loses_nothing(world: World, commits: bool) -> None:
    world.patch(link, _REPORT_SECONDS=0.05)
    world.peer.commits, world.peer.report_after = commits, None
    world.node.add("a", 5)

    def away(method: str, path: str) -> None:
        if method == "PUT" and world.node.up:
            world.node.up = False
            raise RefusedError(503, 0, "database")

    world.node.hooks.append(away)
    world.start().until(lambda: not world.node.up)
    world.node.hooks.clear()
    world.never(lambda: False, 0.2)
    world.peer.commits, world.peer.report_after, world.node.up = True, 0.0, True
    world.ledger.retry()
    world.delivered()
    assert world.alive
    assert len(world.peer.got) == 5


# --- auto ---


@pytest.mark.parametrize(
    ("commits", "finds", "used"),
    [(True, True, "commitment"), (False, True, "query"), (True, False, "commitment"), (False, False, "stored")],
)
def test_auto_takes_the_strongest_way_that_the_destination_has_and_says_which(world: World, commits: bool, finds: bool, used: str) -> None:
    world.peer.commits, world.peer.finds = commits, finds
    world.node.add("a", 25)
    world.start(config(confirm="auto")).delivered()
    assert len(world.peer.got) == 25
    said = world.status()
    assert (said["confirm"], said["confirmedBy"], said["note"], said["unconfirmed"]) == ("auto", used, "", 0)


def test_auto_uses_the_stronger_way_when_the_destination_has_it_by_then(world: World) -> None:
    world.patch(dicom, _ASK_AGAIN_SECONDS=0.2)
    world.peer.commits = world.peer.finds = False
    world.node.add("a", 5)
    world.start(config(confirm="auto")).delivered()
    assert world.status()["confirmedBy"] == "stored"
    world.peer.commits = True
    world.never(lambda: False, 0.3)
    world.node.add("b", 5)
    world.delivered()
    assert world.status()["confirmedBy"] == "commitment"


def test_auto_does_not_take_a_weaker_way_because_no_report_comes(world: World) -> None:
    world.peer.report_after = None
    world.node.add("a", 5)
    world.start(config(confirm="auto")).until(lambda: "sends no report" in world.status()["note"])
    assert (world.status()["confirmedBy"], world.record("a").confirmed) == ("commitment", set())
    assert not world.peer.calls("query")


def test_ways_in_order_of_strength() -> None:
    offers = Offers("auto")
    assert (offers.method(0.0), offers.in_use) == ("commitment", "commitment")
    offers.lacks("commitment", 0.0)
    offers.lacks("query", 100.0)
    assert offers.method(101.0) == "stored"
    assert offers.method(dicom._ASK_AGAIN_SECONDS) == "commitment", "it is asked again after a pause"
    assert [offers.in_use] == ["stored"], "and until then what is in use is told"
    assert offers.has("commitment")
    assert not offers.has("commitment")
    assert offers.method(0.0) == "commitment"
    assert Offers("stored").method(0.0) == "stored"


def test_nothing_is_deleted_that_only_a_query_or_a_transfer_has_confirmed(world: World) -> None:
    world.delete_after = 0
    world.peer.commits = False
    world.node.add("a", 5)
    world.node.add("b", 5)
    world.start(config(confirm="auto"), "second").delivered()
    world.sweep()
    world.never(lambda: len(world.node.images()) < 10)
    assert world.status()["note"] == "archive offers no storage commitment: keep: until-confirmed deletes nothing that goes there"
    world.until(lambda: not world.retention._due, 3.0)
    world.peer.commits = True
    world.ledger.retry()
    world.sweep()
    world.until(lambda: not world.node.images())


def test_a_recheck_asks_in_the_way_that_the_destination_has(world: World) -> None:
    world.peer.commits = world.second.commits = world.second.finds = False
    images = world.node.add("a", 5)
    world.start(config(confirm="auto"), config("second", confirm="auto")).delivered()
    for peer in (world.peer, world.second):
        del peer.stored[images[0].uid]
    world.retention.recheck_soon()
    world.until(lambda: len(world.peer.got) == 6 and not world.retention._recheck.is_set())
    assert len(world.second.got) == 5, "there is no way to ask it"


# --- a destination without C-ECHO ---


def test_a_destination_without_c_echo_gets_everything_after_an_outage(world: World) -> None:
    world.peer.echoes = False
    world.peer.down = True
    world.node.add("a", 5)
    world.start().until(lambda: world.status()["tries"] >= 3)
    assert world.status()["reason"] == "connection refused"
    world.peer.down = False
    world.delivered()
    assert len(world.peer.got) == 5


# --- queries ---


@pytest.mark.parametrize("confirm", ["query", "auto"])
def test_a_destination_that_is_asked_for_one_uid_at_a_time_gets_each_image_once(world: World, confirm: Confirm) -> None:
    world.peer.commits, world.peer.one_uid = False, True
    world.node.add("a", 30)
    world.start(config(confirm=confirm)).delivered()
    assert len(world.peer.got) == 30


def test_what_a_device_confirms_one_by_one_is_recorded_before_all_of_it_is_asked_for(world: World) -> None:
    """Else a forwarder that is killed every few seconds would never record anything of a long series."""
    world.patch(backlog, BATCH=100)
    world.peer.commits, world.peer.one_uid = False, True
    world.start(config(outside=True, confirm="query"))
    world.node.add("a", 3)
    world.delivered()
    recorded = set[int]()
    world.node.hooks.append(lambda _method, path: recorded.add(len(world.record("b").confirmed)) if path.endswith("/query") else None)
    world.node.add("b", 40)
    world.delivered()
    assert recorded == {0, 10, 20, 30}
    assert len(world.peer.got) == 43, "each once"


def test_a_destination_that_lists_late_is_asked_again_and_nothing_is_sent_twice(world: World) -> None:
    images = world.node.add("a", 10)
    world.start(config(confirm="query"))
    world.delivered()
    late = world.node.add("b", 5)
    world.node.before("/query", lambda: world.peer.stored.pop(late[2].uid))
    world.until(lambda: world.status()["unconfirmed"] == 1)
    world.peer.stored[late[2].uid] = late[2].file
    world.delivered()
    assert len(world.peer.got) == len(images) + len(late)


def test_a_destination_that_lists_nothing_is_not_sent_everything_again_and_the_link_says_so(world: World) -> None:
    world.pause(0.005)
    world.peer.lists_uids = False
    world.node.add("a", 10)
    world.start(config(confirm="query"))
    _unconfirmed(world, 10)
    asked = len(world.peer.calls("query"))
    world.until(lambda: len(world.peer.calls("query")) > asked + 100)
    assert len(world.peer.got) == 10
    assert world.status()["note"] == "archive answers queries, and lists nothing of what it took: set confirm: stored"
    world.peer.lists_uids = True
    world.delivered()
    assert (world.status()["note"], len(world.peer.got)) == ("", 10)


@pytest.mark.parametrize("restarted", [False, True])
def test_what_cannot_be_confirmed_takes_no_place_of_what_is_new(world: World, restarted: bool) -> None:
    world.patch(ledger, Backlog=partial(Backlog, 20))
    world.peer.commits = False
    for number in range(50):
        world.node.add(f"s{number:02}", 2)
    world.start(config(outside=True)).until(lambda: not world.lost() and world.status()["unconfirmed"] == 100)
    if restarted:
        world.start().until(lambda: world.status()["unconfirmed"] == 100)
    world.node.add("new")
    world.until(lambda: not world.lost(), 2.0)
    assert len(world.peer.got) == 101, "each once"


# --- transfer syntaxes ---


def test_images_that_cannot_be_converted_are_set_aside_together_and_hold_up_no_other(world: World) -> None:
    world.peer.converts = False
    world.node.add("a", 10, syntax=JPEG)
    world.node.add("b", 5)
    world.start(config(associations=1)).until(lambda: world.status()["setAside"] == 10 and len(world.lost()) == 10)
    world.until(lambda: world.status()["waiting"] == 0)
    said = world.status()
    assert (said["tries"], said["unconfirmed"]) == (0, 0)
    assert world.aside()[0]["reason"] == "the destination does not take its transfer syntax, and this node cannot convert it"
    assert {one["tries"] for one in world.aside()} == {TRIES_REFUSED}
    assert len(world.peer.calls("store")) <= 5 + TRIES_REFUSED + 2


@pytest.mark.parametrize("confirm", ["commitment", "stored"])
def test_a_file_that_orthanc_passes_over_is_not_taken_for_stored(world: World, confirm: Confirm) -> None:
    image = world.node.add("a", 5)[2]
    world.node.unreadable.add(image.id)
    world.start(config(confirm=confirm)).until(lambda: world.aside() and world.lost() == [image.id])
    world.until(lambda: len(world.record("a").confirmed) == 4)
    assert world.aside()[0]["reason"] == "its file in this node cannot be read"
    world.node.unreadable.clear()
    world.ledger.retry()
    world.delivered()


def test_what_is_stored_is_not_set_aside_with_what_is_refused(world: World) -> None:
    world.peer.commits = False
    world.node.add("a", 5, sop_class=SECRET)
    world.start()
    _unconfirmed(world, 5)
    world.peer.refuses.add(SECRET)
    world.node.add("a", 2, sop_class=SECRET)
    world.until(lambda: world.status()["setAside"] == 2)
    assert world.status()["unconfirmed"] == 5
    world.peer.commits = True
    world.ledger.retry()
    world.until(lambda: len(world.record("a").confirmed) == 5)
    assert len(world.peer.got) == 5
