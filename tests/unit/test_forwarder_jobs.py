"""A transfer is a job of the node's: whatever dies meanwhile, no image is in two of them at once, and none is lost (issue 15, point 2)."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import pytest

from forwarder.config import Rules
from tests.unit.forwarding import World, a_world, config
from tests.unit.jobs import Job
from tests.unit.peers import Peer, RefusedError, Stored

world = a_world

LINK = config(aet="ARCHIVE", associations=1)


class Watched:
    """Sees whether an image is sent by two jobs at once."""

    def __init__(self, world: World) -> None:
        self.twice = False
        self._take, self._lock, self._now = world.peer.take, threading.Lock(), Counter[str]()
        world.patch(world.peer, take=self.take)

    def take(self, image: Stored, timeout: float = 0.0) -> None:
        with self._lock:
            self._now[image.file] += 1
            self.twice |= self._now[image.file] > 1
        try:
            self._take(image, timeout)
        finally:
            with self._lock:
                self._now[image.file] -= 1


def _running(world: World) -> list[str]:
    with world.node.lock:
        return [job.id for job in world.node.jobs.values() if job.state in ("Pending", "Running")]


def _begin(world: World, images: int = 10) -> Watched:
    """A forwarder in the middle of a job."""
    watched = Watched(world)
    world.peer.slow_image = 0.05
    world.node.add("a", images)
    world.start(LINK).until(lambda: len(world.peer.got) >= 2)
    return watched


def test_a_new_forwarder_ends_the_job_of_the_one_that_was_killed_before_it_sends(world: World) -> None:
    watched = _begin(world)
    world.kill()
    (stray,) = _running(world)
    begun: list[list[str]] = []
    world.node.hooks.append(lambda method, path: begun.append(_running(world)) if (method, path[-6:]) == ("POST", "/store") else None)
    world.start().delivered()
    assert begun[0] == []
    assert world.node.jobs[stray].canceled
    assert not watched.twice
    assert max(Counter(world.peer.got).values()) <= 2


def test_a_job_of_a_user_and_one_to_another_destination_go_on(world: World) -> None:
    world.peer.slow_image = world.second.slow_image = 0.05
    image = world.node.add("b", 10)[0]
    body: dict[str, Any] = {"Resources": ["b"], "Synchronous": False}
    jobs = [world.node.answer("POST", "/modalities/second/store", {**body, "Priority": priority})["ID"] for priority in (0, 17)]
    jobs += [world.node.answer("POST", "/modalities/archive/store", {**body, "Priority": 0})["ID"]]
    world.node.add("a", 3)
    world.start(LINK).delivered()
    world.until(lambda: not _running(world))
    assert image.uid in world.second.stored
    assert [world.node.jobs[job].state for job in jobs] == ["Success"] * 3


@pytest.mark.parametrize("resumes", [False, True], ids=["jobs are forgotten", "jobs begin again"])
def test_a_node_that_is_started_anew_in_the_middle_of_a_job_sends_everything(world: World, resumes: bool) -> None:
    world.node.resumes = resumes
    watched = _begin(world)
    world.node.up = False
    world.node.restart()
    time.sleep(0.1)
    world.node.up = True
    world.delivered()
    assert not watched.twice
    assert max(Counter(world.peer.got).values()) <= 2
    assert world.alive


def test_a_job_goes_on_while_the_node_does_not_answer_and_each_image_is_sent_once(world: World) -> None:
    watched = _begin(world)
    world.node.cut = True
    world.until(lambda: len(world.peer.got) == 10)
    world.never(lambda: len(world.peer.got) > 10, 0.2)
    world.node.cut = False
    world.delivered()
    assert len(world.peer.got) == 10
    assert len(world.peer.calls("store")) == 1
    assert not watched.twice


@pytest.mark.parametrize("killed", [False, True])
def test_a_job_whose_identifier_got_lost_is_ended_before_the_next(world: World, killed: bool) -> None:
    watched = Watched(world)
    world.peer.slow_image = 0.05
    store, lost = world.node._store_at, list[str]()

    def lose(peer: Peer, body: Any) -> dict[str, Any]:
        said = store(peer, body)
        if not lost:
            lost.append(said["ID"])
            raise RefusedError(503, 0, "database")
        return said

    world.patch(world.node, _store_at=lose)
    world.node.add("a", 10)
    world.start(LINK).until(lambda: lost)
    if killed:
        world.start()
    world.delivered()
    assert world.node.jobs[lost[0]].canceled
    assert not watched.twice
    assert max(Counter(world.peer.got).values()) <= 2


def test_a_job_that_makes_no_progress_is_cancelled_before_its_images_are_sent_again(world: World) -> None:
    watched = Watched(world)
    world.patch(world.start(LINK).links[0]._destination, _patience=0.1)
    world.peer.slow_image = 0.6

    def hasten() -> None:
        world.peer.slow_image = 0.0

    world.node.hooks.append(lambda _, path: hasten() if path.endswith("/cancel") else None)
    world.node.add("a", 5, size=100)
    world.delivered()
    assert any(job.canceled for job in world.node.jobs.values())
    assert not watched.twice


def test_a_job_that_waits_behind_others_is_not_cancelled(world: World) -> None:
    """Users' jobs may fill the node's slots."""
    begin = world.node.begin

    def later(job: Job) -> threading.Thread:
        world.node.jobs[job.id] = job
        timer = threading.Timer(0.6, begin, [job])
        timer.start()
        return timer

    world.patch(world.node, begin=later)
    world.patch(world.start(LINK).links[0]._destination, _patience=0.1)
    world.node.add("a", 5, size=100)
    world.delivered()
    assert len(world.peer.got) == 5
    assert not any(path.endswith("/cancel") for path in world.node.asked)


def test_two_destinations_with_the_same_ae_title_do_not_end_each_other_s_jobs(world: World) -> None:
    world.peer.aet = world.second.aet = "ORTHANC"
    world.peer.slow_image = 0.05
    world.node.add("a", 10, aet="CT")
    world.start(config(aet="ORTHANC", associations=1), config("second", aet="ORTHANC", rules=Rules(calling_aet=("MR",))))
    world.until(lambda: len(world.peer.got) >= 2)
    world.node.add("b", aet="MR")
    world.until(lambda: world.second.got)
    assert len(world.peer.got) < 10
    world.delivered("archive")
    assert len(world.peer.got) == 11
    assert not any(job.canceled for job in world.node.jobs.values())
