"""Each destination gets what it is for, and what may go together."""

from __future__ import annotations

import pytest

from forwarder.config import Rules
from tests.unit.forwarding import World, config
from tests.unit.peers import JPEG, LITTLE, Stored


def _files(images: list[Stored]) -> list[str]:
    return sorted(image.file for image in images)


def test_transfer_syntaxes_are_never_mixed() -> None:
    with World() as world:
        for number in range(30):
            world.node.add("a", 1, syntax=JPEG if number % 2 else LITTLE)
        world.start().delivered()
        assert world.node.mixed == 0
        assert len(world.peer.got) == 30
        assert len(world.peer.batches) <= 5


def test_a_link_gets_the_images_of_the_senders_that_it_is_for() -> None:
    rules = Rules(calling_aet=("CT*",))
    with World(config("archive", rules=rules), config("other")) as world:
        world.start()
        wanted = world.node.add("a", 3, aet="CT1") + world.node.add("a", 2, aet="ct2")
        world.node.add("a", 4, aet="MR1")
        world.node.add("a", 1, aet="")
        world.node.add("b", 2, aet="MR1")
        world.delivered("other")
        world.until(lambda: not len(world.link.ledger.backlog))
        assert sorted(world.peer.got) == _files(wanted)
        assert world.record("b").closed


@pytest.mark.parametrize(("rules", "sent"), [(Rules(modality=("mr",)), "b"), (Rules(study_description=("knee*",)), "b")])
def test_a_link_gets_the_series_that_it_is_for(rules: Rules, sent: str) -> None:
    with World(config("archive", rules=rules)) as world:
        world.node.add("a", 2)
        world.node.add("b", 2, tags={"Modality": "MR"})
        world.node.series["b"].study_tags["StudyDescription"] = "Knee left"
        world.start().until(lambda: len(world.peer.got) == 2 and not len(world.link.ledger.backlog))
        world.sweep()
        world.never(lambda: len(world.peer.got) > 2)
        assert {image.series for batch in world.peer.batches for image in batch} == {sent}


def test_wider_rules_send_what_was_left_out() -> None:
    with World(config("archive", rules=Rules(calling_aet=("CT",)))) as world:
        world.node.add("a", 2, aet="CT")
        world.node.add("a", 2, aet="MR")
        world.start().until(lambda: len(world.peer.got) == 2 and not len(world.link.ledger.backlog))
        world.start(config("archive")).delivered()
        assert len(world.peer.got) == 4
