"""What came of a transfer, whatever became of its job; and what a destination says when it is asked for images."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from forwarder import dicom
from forwarder.dicom import Destination, GoneError, Sent
from forwarder.orthanc import Image, NodeDownError, Orthanc
from forwarder.trouble import UNREADABLE, Failure, Fault
from tests.unit.jobs import Job
from tests.unit.orthancs import Node
from tests.unit.peers import Peer

OURS = 17


#: Of the series of all images here.
TAGS = {"StudyInstanceUID": "2.a", "SeriesInstanceUID": "3.a"}


@dataclass
class Place:
    """A node, one of its destinations, and what the forwarder makes of it."""

    node: Node
    peer: Peer
    orthanc: Orthanc
    destination: Destination

    def images(self, count: int, **more: Any) -> Sequence[Image]:
        """New images of one series."""
        return list(self.orthanc.images([image.id for image in self.node.add("a", count, **{"size": 0, **more})]))

    def job(self, to: str, priority: int) -> Job:
        """A job that sends five images; it runs."""
        images = [image.id for image in self.node.add("b", 5)]
        job = self.orthanc.post(f"/modalities/{to}/store", {"Resources": images, "Synchronous": False, "Priority": priority})["ID"]
        _wait(lambda: self.node.jobs[job].state == "Running")
        return self.node.jobs[job]

    def send_in_background(self, images: Sequence[Image], until: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
        """A transfer of another thread, once something is true; what came of it is in the list in the end."""
        came = list[object]()

        def send() -> None:
            try:
                came.append(self.destination.send(images, _never))
            except NodeDownError as error:
                came.append(error)

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        _wait(until)
        return thread, came


@pytest.fixture
def place() -> Iterator[Place]:
    node = Node()
    orthanc = Orthanc("127.0.0.1", node.port, "user", "word")
    yield Place(node, node.peers["archive"], orthanc, Destination(orthanc, "archive", "ARCHIVE", 10))
    node.close()


@pytest.fixture
def hasty(place: Place, monkeypatch: pytest.MonkeyPatch) -> Destination:
    """A destination that may take a tenth of a second to answer."""
    monkeypatch.setattr(dicom, "_SECONDS_WITHOUT_END", 0.1)
    return Destination(place.orthanc, "archive", "ARCHIVE", 0)


def _never() -> bool:
    return False


def _wait(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


# --- how a transfer ends ---


@pytest.mark.parametrize("count", [1, 2, 3, 37, 99, 100])
def test_the_progress_of_a_job_tells_how_many_images_were_taken_before_the_one_that_failed(
    place: Place, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom, "_LOOK_LEAST", 0.001)
    images = place.images(count)
    for number, image in enumerate(images):
        place.peer.statuses = {image.sop_instance: "C000"}
        place.peer.got.clear()
        expected = Sent(number, Failure(Fault.IMAGE, "DIMSE status 0xC000, cannot understand"))
        assert place.destination.send(images, _never) == expected
        assert len(place.peer.got) == number
    place.peer.statuses = {}
    assert place.destination.send(images, _never) == Sent(count)
    assert [image.uid for image in place.peer.batches[-1]] == [image.sop_instance for image in images]


@pytest.mark.parametrize(
    ("what", "taken", "failure"),
    [
        ("down", 0, Failure(Fault.DESTINATION, "connection refused")),
        ("crashes", 2, Failure(Fault.BROKEN, "association aborted")),
        ("refuses", 0, Failure(Fault.IMAGE, "no presentation context was accepted for its SOP class and transfer syntax", True)),
        ("unreadable", 2, UNREADABLE),
        ("removed", 2, UNREADABLE),
    ],
)
def test_why_a_transfer_ended(place: Place, what: str, taken: int, failure: Failure) -> None:
    images = place.images(4)
    third = images[2]
    if what == "down":
        place.peer.down = True
    elif what == "crashes":
        place.peer.crashes.add(third.sop_instance)
    elif what == "refuses":
        place.peer.refuses.add(third.sop_class)
    elif what == "unreadable":
        place.node.unreadable.add(third.id)
    else:
        place.peer.slow = 0.2
        threading.Timer(0.1, lambda: place.node.remove(next(one for one in place.node.images() if one.id == third.id))).start()
    assert place.destination.send(images, _never) == Sent(taken, failure)


def test_images_of_which_one_is_gone_are_not_sent(place: Place) -> None:
    images = place.images(3)
    place.node.remove(place.node.images()[1])
    with pytest.raises(GoneError):
        place.destination.send(images, _never)
    assert (place.peer.got, place.node.jobs) == ([], {})
    assert place.destination.send([images[0], images[2]], _never) == Sent(2)


@pytest.mark.parametrize(("scu_timeout", "size", "seconds"), [(10, 0, 60), (45, 0, 60), (300, 0, 300), (0, 0, 600), (10, 16_000_000, 1060)])
def test_a_destination_may_take_as_long_to_answer_as_the_node_lets_it_and_longer_for_a_large_image(
    place: Place, scu_timeout: int, size: int, seconds: int
) -> None:
    small, large = place.images(1), place.images(1, size=size)
    Destination(place.orthanc, "archive", "ARCHIVE", scu_timeout).send([*small, *large], _never)
    (job,) = place.node.jobs.values()
    assert (job.timeout, job.priority) == (seconds, OURS)


# --- a job that hangs, or of which nothing is known ---


def test_a_job_that_hangs_is_cancelled_and_what_it_sent_counts(place: Place, hasty: Destination) -> None:
    images = place.images(3)
    place.peer.slow_image = 0.6
    sent = hasty.send(images, _never)
    assert sent == Sent(1, Failure(Fault.BROKEN, "no answer for 0 s"))
    assert [job.canceled for job in place.node.jobs.values()] == [True]
    time.sleep(0.7)
    assert len(place.peer.got) == sent.taken, "it sends nothing more"


def test_a_job_that_waits_for_others_does_not_hang(place: Place, hasty: Destination, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Job.run

    def later(job: Job) -> None:
        time.sleep(0.6)
        run(job)

    monkeypatch.setattr(Job, "run", later)
    assert hasty.send(place.images(2), _never) == Sent(2)


def test_a_new_forwarder_cancels_the_jobs_of_the_one_before_it_to_its_destination_and_no_others(place: Place) -> None:
    place.peer.slow_image = place.node.peers["second"].slow_image = 0.1
    stray, users, others = place.job("archive", OURS), place.job("archive", 0), place.job("second", OURS)
    assert place.destination.send(place.images(1), _never) == Sent(1)
    assert [stray.canceled, users.canceled, others.canceled] == [True, False, False]
    assert stray.state == "Failure"
    _wait(lambda: users.state == others.state == "Success")


def test_it_does_not_cancel_what_its_other_threads_send(place: Place) -> None:
    images = place.images(4)
    place.peer.slow_image = 0.1
    thread, came = place.send_in_background(images[:3], lambda: any(job.state == "Running" for job in place.node.jobs.values()))
    place.destination._strays = True
    assert place.destination.send(images[3:], _never) == Sent(1)
    thread.join(5)
    assert came == [Sent(3)]


def test_a_job_whose_identifier_got_lost_is_cancelled_before_the_next_one(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.peer.slow_image = 0.1
    images, post = place.images(3), place.orthanc.post

    def lose(path: str, body: Any, timeout: float = 1.0) -> Any:
        post(path, body)
        raise NodeDownError

    monkeypatch.setattr(place.orthanc, "post", lose)
    with pytest.raises(NodeDownError):
        place.destination.send(images, _never)
    monkeypatch.setattr(place.orthanc, "post", post)
    _wait(lambda: place.peer.got)
    assert place.destination.send(images, _never) == Sent(3)
    first, second = place.node.jobs.values()
    assert (first.canceled, second.canceled) == (True, False)
    place.node.asked.clear()
    place.destination.send(images[:1], _never)
    assert "/jobs?expand" not in place.node.asked, "there is nothing to look for any more"


def test_a_node_that_has_forgotten_a_job_is_down(place: Place) -> None:
    place.peer.slow_image = 0.2
    thread, came = place.send_in_background(place.images(3), lambda: place.peer.got)
    place.node.restart()
    thread.join(5)
    assert [type(one) for one in came] == [NodeDownError]


def test_a_node_that_does_not_answer_for_a_moment_has_not_forgotten_a_job(place: Place) -> None:
    place.peer.slow_image = 0.1
    images = place.images(4)
    thread, came = place.send_in_background(images, lambda: place.peer.got)
    place.node.up = False
    time.sleep(0.2)
    place.node.up = True
    thread.join(5)
    assert came == [Sent(4)]


def test_a_forwarder_that_stops_does_not_wait_for_a_node_that_is_away(place: Place) -> None:
    place.peer.slow_image = 0.1
    images = place.images(5)
    threading.Timer(0.2, lambda: setattr(place.node, "up", False)).start()
    with pytest.raises(NodeDownError):
        place.destination.send(images, lambda: True)


# --- what is confirmed ---


def test_a_commitment_is_pending_then_told_then_forgotten(place: Place) -> None:
    here, gone = place.node.add("a", 2)
    images = list(place.orthanc.images([here.id, gone.id]))
    place.peer.stored[here.uid] = here.file
    place.peer.report_after = None
    assert place.destination.commitment(place.destination.ask_commitment(images)) is None
    place.peer.report_after = 0.0
    transaction = place.destination.ask_commitment(images)
    assert place.destination.commitment(transaction) == {here.uid: "", gone.uid: "it is not there"}
    place.node.restart()
    with pytest.raises(GoneError):
        place.destination.commitment(transaction)


@pytest.mark.parametrize("one_uid", [False, True])
@pytest.mark.parametrize("held", [0, 1, 2, 3])
def test_a_query_finds_what_the_destination_lists_and_nothing_else(place: Place, one_uid: bool, held: int) -> None:
    images = place.images(3)
    place.peer.one_uid = one_uid
    place.peer.stored = {image.sop_instance: image.file for image in images[:held]} | {"1.2.of.another": "file"}
    for _ in range(2):
        assert place.destination.query(TAGS, images) == {image.sop_instance for image in images[:held]}
        assert place.destination.lists_images is (held > 0)


def test_the_way_to_ask_that_found_something_is_taken_first(place: Place) -> None:
    images = place.images(5)
    place.peer.stored = {image.sop_instance: image.file for image in images}
    place.peer.one_uid = True
    place.destination.query(TAGS, images)
    assert len(place.peer.calls("query")) == 2 + 5
    place.destination.query(TAGS, images)
    assert len(place.peer.calls("query")) == 2 + 5 + 5
