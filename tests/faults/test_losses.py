"""An archive that accepts images and loses them: it is not believed before it has read the file."""

from __future__ import annotations

import threading

from tests.faults.conftest import ids
from tests.faults.injection import accepting_and_losing, killed
from tests.faults.sender import Sender
from tests.faults.world import World
from tests.stack.harness import eventually


def test_what_the_archive_loses_is_sent_again(world: World, scanner: Sender) -> None:
    images = list(world.new_series(40).images())
    with accepting_and_losing(world, most=5) as loss:
        scanner.must_send(world.node("client"), images)
        eventually("files are lost", lambda: len(loss.files) >= 3, 30)
    assert loss.slowest < 0.3, f"a file was lost {loss.slowest:.2f} s after it was written: too late to be sure"
    world.recover(ids(images))


class TestKeepUntilConfirmed:
    """The node ``second`` deletes what was confirmed, and nothing else."""

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
                gone = set(ids(images)) & set(world.ledger.promised()) - second.files(ids(images)).keys()
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
        assert early == []
        assert world.audit(ids(images)).lost == 0
