"""The checks themselves: each fails where it should."""

from __future__ import annotations

import pytest

from tests.faults.conftest import ids
from tests.faults.rest import Rest
from tests.faults.sender import Sender
from tests.faults.world import World


def test_an_audit_sees_what_is_missing_broken_and_old(world: World, scanner: Sender) -> None:
    series = world.new_series(4)
    images = list(series.images())
    scanner.must_send(world.node("client"), images)
    world.recover(ids(images))
    assert world.audit(ids(images)).lost == 0
    files = world.archive.files(ids(images))
    deleted, gone, broken, old = ids(images)
    Rest(world.node("server")).ask(f"/instances/{deleted}", method="DELETE")
    files[gone].unlink()
    content = files[broken].read_bytes()
    files[broken].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    world.ledger.acknowledged(series.image(3, version=9))
    audit = world.audit(ids(images))
    assert audit.missing == (deleted,)
    assert set(audit.wrong) == {gone, broken, old}
    assert audit.lost == 4


def test_a_sender_says_what_was_not_acknowledged(world: World) -> None:
    stranger = Sender("STRANGER", world.ledger)
    before = len(world.ledger)
    with pytest.raises(AssertionError, match="did not take 3 images"):
        stranger.must_send(world.node("client"), world.new_series(3).images(), seconds=2)
    assert len(world.ledger) == before
