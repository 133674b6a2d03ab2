"""What the node answers is told apart: that it does not answer, that it could not, and what it holds."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from forwarder.__main__ import retry
from forwarder.dicom import Destination
from forwarder.orthanc import AnswerError, NodeDownError, Orthanc
from tests.unit.forwarding import World
from tests.unit.orthancs import Node
from tests.unit.peers import CT, LITTLE, RefusedError


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node("archive")
    yield made
    made.server.shutdown()
    made.server.server_close()


def _orthanc(node: Node) -> Orthanc:
    return Orthanc("127.0.0.1", node.port, "user", "word")


@pytest.mark.parametrize("extended", [True, False])
def test_what_the_node_holds(node: Node, extended: bool) -> None:
    node.extended = extended
    stored = node.add("a", 3, aet="CT1")
    node.add("b", 1)
    orthanc = _orthanc(node)
    (series,) = orthanc.series(["a", "gone"])
    assert (series.id, series.study, series.images) == ("a", "study-a", tuple(image.id for image in stored))
    assert series.last_update == node.series["a"].metadata["LastUpdate"]
    image = next(iter(orthanc.images(["gone", stored[0].id])))
    assert (image.file, image.sop_class, image.syntax, image.calling_aet) == (stored[0].file, CT, LITTLE, "CT1")
    assert [one.id for one in orthanc.series([stored[0].id, stored[1].id])] == ["a"]


def _asked(node: Node) -> list[str]:
    asked: list[str] = []
    node.hooks.append(lambda _, path: asked.append(path))
    return asked


def test_series_of_a_study_are_read_together_and_only_those_that_are_asked_for(node: Node) -> None:
    stored = {name: node.add(name, 2, study="S") for name in ("a", "b", "c")}
    node.add("d")
    asked, orthanc = _asked(node), _orthanc(node)
    assert [one.id for one in orthanc.series([stored["a"][0].id, stored["a"][1].id, "c", "d"])] == ["a", "c", "d"]
    assert asked == ["/system", "/tools/bulk-content", "/tools/find", "/tools/find"]
    orthanc.series([])
    assert len(asked) == 4


def test_what_a_limit_leaves_out_of_a_query_is_not_gone(node: Node) -> None:
    for name in ("a", "b", "c"):
        node.add(name, study="S")
    node.finds = 1
    assert sorted(one.id for one in _orthanc(node).series(["a", "b", "c", "gone"])) == ["a", "b", "c"]


def test_a_study_of_very_many_series_is_not_read_for_one_of_them(node: Node) -> None:
    for number in range(251):
        node.add(f"s{number:03}", study="S")
    asked = _asked(node)
    assert [one.id for one in _orthanc(node).series(["s007"])] == ["s007"]
    assert "/tools/find" not in asked


def test_a_series_that_cannot_be_read_hides_no_other_of_its_study(node: Node) -> None:
    node.add("a", study="S")
    node.add("b", study="S")
    node.broken.add("a")
    assert [one.id for one in _orthanc(node).series(["b"])] == ["b"]
    with pytest.raises(AnswerError):
        _orthanc(node).series(["a"])


def test_a_node_that_was_away_may_have_another_index(node: Node) -> None:
    node.add("a")
    orthanc = _orthanc(node)
    orthanc.series(["a"])
    node.extended = False
    node.cut = True
    with pytest.raises(NodeDownError):
        orthanc.series(["a"])
    node.cut = False
    asked = _asked(node)
    orthanc.series(["a"])
    assert asked == ["/system", "/tools/bulk-content"]


def test_more_images_than_are_asked_for_at_once(node: Node) -> None:
    stored = node.add("a", 600)
    asked = _asked(node)
    assert [image.id for image in _orthanc(node).images([one.id for one in stored])] == [one.id for one in stored]
    assert len(asked) == 3


@pytest.mark.parametrize(("wanted", "finds", "paths"), [(600, 10**6, 1), (40, 10**6, 1), (600, 100, 3), (10, 10**6, 1)])
def test_the_images_of_a_series_come_by_one_query_and_what_it_leaves_out_as_well(node: Node, wanted: int, finds: int, paths: int) -> None:
    stored = node.add("a", 600)
    node.add("b", 5)
    node.finds = finds
    orthanc = _orthanc(node)
    (series,) = orthanc.series(["a"])
    asked = _asked(node)
    found = {image.id: image.file for image in orthanc.images_of(series, [one.id for one in stored[:wanted]])}
    assert found == {one.id: one.file for one in stored[:wanted]}
    assert len(asked) == paths
    assert (asked[0] == "/tools/find") == (wanted > 600 // 20)


def test_a_node_that_is_not_there_is_down(node: Node) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(NodeDownError):
            Orthanc("127.0.0.1", unused.getsockname()[1], "user", "word").get("/changes?last")


@pytest.mark.parametrize(("status", "code"), [(503, 0), (503, 17), (500, 11), (500, 1000)])
def test_a_node_whose_database_is_away_is_down(node: Node, status: int, code: int) -> None:
    def fail(method: str, path: str) -> None:
        raise RefusedError(status, code, "Database")

    node.hooks.append(fail)
    with pytest.raises(NodeDownError):
        _orthanc(node).get("/changes?last")


def test_an_answer_that_is_none_has_its_code(node: Node) -> None:
    with pytest.raises(AnswerError) as raised:
        _orthanc(node).get("/studies/study-gone")
    assert (raised.value.status, raised.value.code) == (404, 17)


def test_a_connection_that_was_closed_while_it_lay_idle_is_made_anew() -> None:
    """Orthanc closes those that are idle; once is no failure, twice is."""
    served: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                    served.append(1)
            connection, _ = listener.accept()
            connection.close()

        threading.Thread(target=serve, daemon=True).start()
        orthanc = Orthanc("127.0.0.1", listener.getsockname()[1], "user", "word")
        assert orthanc.get("/a") == {}
        assert orthanc.get("/b") == {}
        with pytest.raises(NodeDownError):
            orthanc.get("/c")
        assert len(served) == 2


def test_a_commitment_is_pending_then_told_then_forgotten(node: Node) -> None:
    here, gone = node.add("a", 2)
    destination = Destination(_orthanc(node), "archive")
    images = list(_orthanc(node).images([here.id, gone.id]))
    node.peers["archive"].stored[here.uid] = here.file
    node.peers["archive"].report_after = None
    assert destination.commitment(destination.ask_commitment(images)) is None
    node.peers["archive"].report_after = 0.0
    transaction = destination.ask_commitment(images)
    assert destination.commitment(transaction) == {here.uid: "", gone.uid: "it is not there"}
    node.restart()
    with pytest.raises(LookupError):
        destination.commitment(transaction)


def test_retry_is_for_every_destination() -> None:
    with World("archive", "second", pause=60.0) as world:
        for peer in world.node.peers.values():
            peer.down = True
        world.node.add("a", 2)
        world.start().until(lambda: world.status(0)["tries"] and world.status(1)["tries"])
        for peer in world.node.peers.values():
            peer.down = False
        retry(world.links)
        world.delivered("archive")
        world.delivered("second")
