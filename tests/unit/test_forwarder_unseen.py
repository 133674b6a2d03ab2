"""Nothing waits, rests or is kept unseen, and no job is doubled: each test names its case in issue 15."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from forwarder import look, retention
from forwarder.backlog import Backlog
from forwarder.config import Rules
from forwarder.record import mark_of
from tests.unit.forwarding import World, a_world, config
from tests.unit.peers import SECRET, RefusedError, Stored

world = a_world

DESCRIPTION = {"StudyDescription": "Knee left"}
KNEE = Rules(study_description=("knee*",))
LARGE = 3 << 30


def _kept(world: World) -> list[dict[str, object]]:
    kept: list[dict[str, object]] = world.statuses()["kept"]
    return kept


# --- D7: one SOP instance UID in two series ---


def _twice(world: World, **more: str) -> tuple[Stored, Stored]:
    """Two series that share a UID, both delivered."""
    first = world.node.add("a", 2)[1]
    world.start(config(**more)).delivered()
    second = world.node.add("b", uid=first.uid)[0]
    world.until(lambda: not len(world.ledger.backlog) and mark_of(second.file) in world.record("b").confirmed)
    return first, second


def test_an_image_whose_uid_is_in_two_series_is_never_deleted_which_is_told(world: World) -> None:
    """D7."""
    first, second = _twice(world)
    world.delete_after = 0
    world.start().until(lambda: len(world.node.images()) == 2 and len(world.retention.kept) == 2)
    world.sweep()
    world.never(lambda: len(world.node.images()) != 2)
    assert set(world.node.images()) == {first, second}
    assert _kept(world) == [{"reason": "their SOP instance UIDs are in two series: a destination confirms UIDs", "images": 2}]


def test_a_recheck_by_query_sees_which_of_two_series_with_one_uid_has_lost_it(world: World) -> None:
    """D7: the destination keeps one image of a UID, that of the series that came last."""
    first, second = _twice(world, confirm="query")
    assert world.peer.stored[first.uid] == second.file
    world.retention.recheck_soon()
    world.until(lambda: world.peer.got.count(first.file) == 2)
    assert world.peer.got.count(second.file) == 1


# --- D12: rules on what the first image lacks; what no rule matches ---


def test_a_study_whose_first_image_lacks_the_description_waits_and_is_then_judged_image_by_image(world: World) -> None:
    """D12."""
    world.patch(look, _UNTIL_STABLE=0.1)
    world.node.unstable.add("study-a")
    world.node.add("a", 2)
    knee = world.node.add("a", 3, image_tags=DESCRIPTION)
    world.node.add("b", 2, image_tags=DESCRIPTION)
    world.node.add("c", 4)
    world.start(config(rules=KNEE)).until(lambda: len(world.record("b").confirmed) == 2 and world.record("c").closed)
    world.never(lambda: len(world.peer.got) > 2)
    assert world.status()["waiting"] == 5
    late = world.node.add("a", image_tags=DESCRIPTION)
    world.node.unstable.clear()
    world.until(lambda: not len(world.ledger.backlog) and world.watch._position == world.node.last_change)
    assert sorted(world.peer.got[2:]) == sorted(image.file for image in knee + late)
    world.sweep()
    assert world.statuses()["unmatched"] == 6
    world.node.add("a", image_tags=DESCRIPTION)
    world.until(lambda: len(world.peer.got) == 7)


def test_what_no_rule_left_out_or_took_is_not_deleted(world: World) -> None:
    """D12: while images are judged by their own tags, those that are for nobody stay."""
    world.delete_after = 0
    others = world.node.add("a", 2)
    world.node.add("a", 3, image_tags=DESCRIPTION)
    world.start(config(rules=KNEE)).until(lambda: world.node.images() == others)
    world.sweep()
    world.never(lambda: world.node.images() != others)


RULES = {"of the series": Rules(modality=("MR",)), "of the image": Rules(calling_aet=("MR*",)), "of the study": KNEE}


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_what_no_rule_matches_is_counted_in_a_sweep(world: World, rules: Rules) -> None:
    """D12."""
    world.node.add("a", 3)
    world.start(config(rules=rules), config("second", rules=rules))
    world.node.add("a", 2)
    world.node.add("b")
    world.until(lambda: not any(len(made.ledger.backlog) for made in world.links) and world.watch._position == world.node.last_change)
    world.sweep()
    assert (world.statuses()["unmatched"], world.peer.got) == (6, [])


def test_what_no_rule_on_series_matches_is_counted_right_away(world: World) -> None:
    """D12: and once, also of a series that a sweep has counted. What rules on images and studies leave out, the next sweep counts."""
    rules = RULES["of the series"]
    world.node.add("a", 3)
    world.start(config(rules=rules), config("second", rules=rules))
    world.node.add("a", 2)
    world.node.add("b")
    world.until(lambda: world.statuses()["unmatched"] == 6, 1.0)
    world.never(lambda: world.statuses()["unmatched"] != 6, 0.1)


def test_images_of_one_series_that_go_to_different_destinations_are_all_matched(world: World) -> None:
    """D12."""
    world.node.add("a", 3, aet="CT")
    world.node.add("a", 2, aet="MR")
    world.start(config(rules=Rules(calling_aet=("CT",))), config("second", rules=Rules(calling_aet=("MR",))))
    world.until(lambda: len(world.peer.got) == 3 and len(world.second.got) == 2)
    world.until(lambda: not len(world.ledger.backlog) and not len(world.links[1].ledger.backlog))
    world.sweep()
    assert world.statuses()["unmatched"] == 0


# --- D15: more series than are held ---


def _refused(world: World, series: int) -> None:
    """A forwarder that holds 20 series at once, and more with one refused image each."""
    world.patch(Backlog.__init__, __defaults__=(20,))
    world.node.extended = False
    world.peer.refuses.add(SECRET)
    for number in range(series):
        world.node.add(f"s{number:02}", sop_class=SECRET)
        world.node.add(f"s{number:02}")
    world.start().until(lambda: _aside(world) == series and len(world.lost()) == series)


def _aside(world: World) -> int:
    """How many images the records say are set aside."""
    return sum(len(world.record(series).aside) for series in world.node.series)


def test_a_new_series_is_sent_at_once_beside_more_refused_ones_than_are_held_and_all_are_counted(world: World) -> None:
    """D15."""
    _refused(world, 50)
    world.until(lambda: world.status()["setAside"] == 50)
    world.sweep()
    reasons = [{"reason": "no presentation context was accepted for its SOP class and transfer syntax", "images": 50}]
    world.until(lambda: (world.status()["setAside"], world.status()["waiting"], world.status()["reasons"]) == (50, 0, reasons))
    for number in range(5):
        world.node.add(f"new{number}")
        world.until(lambda: len(world.lost()) == 50, 1.0)
    world.until(lambda: world.status()["setAside"] == 50)
    assert len(world.aside()) == 50
    assert len(world.peer.got) == 55, "each once"
    world.until(lambda: all(entry.waiting is None and not entry.known and not entry.record.confirmed for entry in world.ledger.backlog))
    assert len(world.ledger.backlog) <= 20


@pytest.mark.parametrize("restarted", [False, True])
def test_all_that_was_refused_arrives_when_the_destination_takes_it(world: World, restarted: bool) -> None:
    """D15."""
    _refused(world, 50)
    if restarted:
        world.start()
    world.peer.refuses.clear()
    world.ledger.retry()
    world.delivered()
    world.sweep()
    assert (len(world.peer.got), world.status()["setAside"], world.status()["reasons"]) == (100, 0, [])


def test_a_new_forwarder_does_not_look_at_series_that_rest(world: World) -> None:
    """D15."""
    _refused(world, 50)
    world.until(lambda: all(world.record(series).closed for series in world.node.series))
    world.kill()
    world.node.asked.clear()
    stores = len(world.peer.calls("store"))
    world.start().until(lambda: world.status()["setAside"] == 50)
    world.sweep()
    asked = Counter(path.partition("?")[0] for path in world.node.asked)
    assert asked["/tools/find"] == 0
    assert asked["/tools/bulk-content"] <= 2 * 2
    assert len(world.peer.calls("store")) == stores
    assert world.status()["setAside"] == 50
    assert world.status()["waiting"] == 0


def test_what_was_set_aside_and_then_deleted_by_hand_is_counted_until_the_next_sweep(world: World) -> None:
    image = world.set_aside()
    world.until(lambda: world.status()["setAside"] == 1)
    for one in world.node.images():
        world.node.remove(one)
    world.sweep()
    assert (world.status()["setAside"], len(world.ledger.backlog)) == (0, 0)
    world.node.again(image)
    world.sweep()
    world.until(lambda: world.status()["setAside"] == 1)


def test_what_is_set_aside_is_told_by_reason_and_listed(world: World) -> None:
    """Point 5 of the issue."""
    world.pause(0.01)
    world.node.add("a", 3, sop_class=SECRET)
    bad = world.node.add("a", 2)[0]
    world.peer.refuses.add(SECRET)
    world.peer.statuses[bad.uid] = "C123"
    world.start().until(lambda: world.status()["setAside"] == 4 and world.record("a").closed)
    said = world.status()
    assert [(one["images"], one["reason"].partition(",")[0]) for one in said["reasons"]] == [
        (3, "no presentation context was accepted for its SOP class and transfer syntax"),
        (1, "DIMSE status 0xC123"),
    ]
    assert {one["image"] for one in world.aside()} == {image.id for image in world.node.images()} - set(world.node.series["a"].images) | {
        one.id for one in world.node.images() if one.sop_class == SECRET or one == bad
    }


# --- D16: a silent destination ---


@pytest.mark.parametrize("silent", ["down", "reports nothing"])
def test_what_goes_to_others_is_deleted_while_one_destination_is_silent_and_all_come_round(world: World, silent: str) -> None:
    """D16."""
    world.patch(retention, _CAPACITY=5)
    for number in range(10):
        world.node.add(f"both{number}", aet="CT")
        world.node.add(f"one{number}", aet="MR")
    links = (config(), config("second", rules=Rules(calling_aet=("CT",))))
    world.start(*links).delivered("archive")
    world.until(lambda: len(world.second.got) == 10 and not len(world.links[1].ledger.backlog))
    world.second.down, world.second.report_after = silent == "down", None
    if silent != "down":
        world.patch(world.links[1].__class__.there_now, __defaults__=(0.1,))
    world.delete_after = 0
    world.start()
    world.until(lambda: _swept_until(world, 10))
    assert {image.aet for image in world.node.images()} == {"CT"}
    world.second.down, world.second.report_after = False, 0.0
    world.until(lambda: _swept_until(world, 0))


def _swept_until(world: World, images: int) -> bool:
    """One more hour goes by; whether no more than some images are left."""
    world.sweep()
    time.sleep(0.05)
    return len(world.node.images()) <= images


# --- D17: a full disk ---


@pytest.mark.parametrize("confirm", ["commitment", "query", "stored"])
@pytest.mark.parametrize("refused", [False, True])
def test_a_full_disk_loses_nothing_and_sends_nothing_for_ever(world: World, confirm: str, refused: bool) -> None:
    """D17."""
    world.delete_after = 0 if confirm == "commitment" else None
    for number in range(8):
        world.node.add(f"s{number}", 5)
    bad = world.node.add("s0", sop_class=SECRET)[0]
    world.peer.refuses.update({SECRET} if refused else ())
    world.node.full = True
    world.start(config(confirm=confirm)).until(lambda: world.peer.got)
    world.never(lambda: max(Counter(world.peer.got).values()) > 1, 1.0)
    with pytest.raises(RefusedError):
        world.node.add("s9")
    world.node.full = False
    world.peer.refuses.clear()
    if refused:
        world.until(lambda: _aside(world) or bad.file in world.peer.got)
        world.ledger.retry()
    if world.delete_after is None:
        world.delivered()
    world.until(lambda: not world.lost() and (world.delete_after is None or not world.node.images()))
    assert max(Counter(world.peer.got).values()) == 1
    assert world.alive


def test_what_was_recorded_before_the_disk_was_full_is_deleted_and_makes_room(world: World) -> None:
    """D17."""
    world.node.add("a", 5)
    world.start().delivered()
    world.delete_after = 0
    world.node.full = True
    world.start().until(lambda: not world.node.images())
    assert world.alive


@pytest.mark.parametrize("confirm", ["commitment", "stored"])
def test_a_node_that_is_away_when_a_refusal_is_to_be_written_loses_nothing(world: World, confirm: str) -> None:
    """D17: neither the image that was refused, nor those that were taken before it in the same transfer."""
    world.node.add("a", 3)
    world.node.add("a", sop_class=SECRET)
    world.peer.refuses.add(SECRET)

    def away(method: str, path: str) -> None:
        if method == "PUT" and len(world.peer.calls("store")) >= 3 and world.node.hooks:
            world.node.hooks.clear()
            raise RefusedError(503, 11, "database")

    world.node.hooks.append(away)
    world.start(config(confirm=confirm)).until(lambda: not world.node.hooks)
    world.until(lambda: _aside(world) == 1)
    world.peer.refuses.clear()
    world.ledger.retry()
    world.delivered()
    assert len(world.peer.got) == 4


# --- D18: proof that proves less ---


def test_a_file_that_is_not_what_was_stored_is_not_deleted_which_is_told(world: World) -> None:
    """D18."""
    image = world.node.add("a", 3)[1]
    world.node.damaged.add(image.id)
    world.delete_after = 0
    world.start().until(lambda: world.node.images() == [image] and _kept(world))
    world.sweep()
    world.never(lambda: not world.node.images())
    assert _kept(world) == [{"reason": "their files here are not what was stored", "images": 1}]
    world.node.damaged.clear()
    world.sweep()
    world.until(lambda: not world.node.images() and not _kept(world))


@pytest.mark.parametrize(("version", "deleted"), [("1.12.7", False), ("1.12.8", True), ("1.13.0", True), ("mainline", False)])
def test_a_file_beyond_2_gib_is_deleted_where_orthanc_can_tell_what_is_in_it(world: World, version: str, deleted: bool) -> None:
    """D18."""
    world.node.version = version
    world.node.add("a", 2)
    large = world.node.add("a", size=LARGE)
    world.delete_after = 0
    world.start().until(lambda: len(world.node.images()) == (0 if deleted else 1))
    world.sweep()
    world.never(lambda: not deleted and world.node.images() != large)
    reason = "larger than 2 GiB: Orthanc before 1.12.8 cannot check such files"
    assert _kept(world) == ([] if deleted else [{"reason": reason, "images": 1}])
