"""What the node answers is told apart: that it does not answer, that it could not, and what it holds."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from forwarder.orthanc import AnswerError, NodeDownError, Orthanc
from tests.unit.orthancs import Node
from tests.unit.peers import CT, LITTLE, RefusedError


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node()
    yield made
    made.close()


@pytest.fixture
def orthanc(node: Node) -> Orthanc:
    return Orthanc("127.0.0.1", node.port, "user", "word")


@pytest.mark.parametrize("extended", [True, False])
def test_what_the_node_holds(node: Node, orthanc: Orthanc, extended: bool) -> None:
    node.extended = extended
    stored = node.add("a", 3, aet="CT1")
    node.add("b")
    (series,) = orthanc.series(["a", "gone"])
    assert (series.id, series.study, series.images) == ("a", "study-a", tuple(image.id for image in stored))
    assert series.last_update == node.series["a"].metadata["LastUpdate"]
    image = next(iter(orthanc.images(["gone", stored[0].id])))
    assert (image.file, image.sop_class, image.syntax, image.calling_aet) == (stored[0].file, CT, LITTLE, "CT1")
    assert [one.id for one in orthanc.series([stored[0].id, stored[1].id])] == ["a"]


def test_series_of_a_study_are_read_together_and_only_those_that_are_asked_for(node: Node, orthanc: Orthanc) -> None:
    stored = {name: node.add(name, 2, study="S") for name in ("a", "b", "c")}
    node.add("d")
    assert [one.id for one in orthanc.series([stored["a"][0].id, stored["a"][1].id, "c", "d"])] == ["a", "c", "d"]
    assert orthanc.series([]) == []
    assert node.asked == ["/system", "/tools/bulk-content", "/tools/find", "/tools/find"]


def test_what_a_limit_leaves_out_of_a_query_is_not_gone(node: Node, orthanc: Orthanc) -> None:
    for name in ("a", "b", "c"):
        node.add(name, study="S")
    node.finds = 1
    assert sorted(one.id for one in orthanc.series(["a", "b", "c", "gone"])) == ["a", "b", "c"]


def test_a_study_of_very_many_series_is_not_read_for_one_of_them(node: Node, orthanc: Orthanc) -> None:
    for number in range(251):
        node.add(f"s{number:03}", study="S")
    assert [one.id for one in orthanc.series(["s007"])] == ["s007"]
    assert "/tools/find" not in node.asked


def test_a_series_that_cannot_be_read_hides_no_other_of_its_study(node: Node, orthanc: Orthanc) -> None:
    node.add("a", study="S")
    node.add("b", study="S")
    node.broken.add("a")
    assert [one.id for one in orthanc.series(["b"])] == ["b"]
    with pytest.raises(AnswerError):
        orthanc.series(["a"])


def test_a_node_that_was_away_may_have_another_index(node: Node, orthanc: Orthanc) -> None:
    node.add("a")
    orthanc.series(["a"])
    node.extended, node.cut = False, True
    with pytest.raises(NodeDownError):
        orthanc.series(["a"])
    node.cut = False
    node.asked.clear()
    orthanc.series(["a"])
    assert node.asked == ["/system", "/tools/bulk-content"]


@pytest.mark.parametrize(("wanted", "finds", "requests"), [(600, 10**6, 1), (40, 10**6, 1), (600, 100, 3), (10, 10**6, 1)])
def test_the_images_of_a_series_come_by_one_query_and_what_it_leaves_out_as_well(
    node: Node, orthanc: Orthanc, wanted: int, finds: int, requests: int
) -> None:
    stored = node.add("a", 600)
    node.add("b", 5)
    node.finds = finds
    (series,) = orthanc.series(["a"])
    node.asked.clear()
    found = {image.id: image.file for image in orthanc.images_of(series, [one.id for one in stored[:wanted]])}
    assert found == {one.id: one.file for one in stored[:wanted]}
    assert len(node.asked) == requests
    assert (node.asked[0] == "/tools/find") == (wanted > 600 // 20)


@pytest.mark.parametrize("few", [True, False])
@pytest.mark.parametrize(("made_from", "origin"), [("", "received"), ("AnonymizedFrom", "created"), ("ModifiedFrom", "created")])
def test_what_is_read_of_an_image(node: Node, orthanc: Orthanc, few: bool, made_from: str, origin: str) -> None:
    stored = node.add("a", 1, size=7_000, made_from=made_from, aet="")[0]
    node.add("a", 50 * few)
    (series,) = orthanc.series(["a"])
    (image,) = orthanc.images_of(series, [stored.id])
    assert (image.file, image.sop_instance, image.calling_aet, image.received) == (stored.file, stored.uid, "", stored.received)
    assert (image.size, image.origin) == (7_000, origin)
    assert (image.md5 or orthanc.md5(image)) == stored.md5
    assert bool(image.md5) is not few, "a query tells it, and where an image is asked for by its identifier it is not told"


def test_series_with_the_same_instance_uid_are_found(node: Node, orthanc: Orthanc) -> None:
    for series, uid in (("a", "1.2.3"), ("b", "1.2.3"), ("b", "1.2.4")):
        node.add(series, uid=uid)
    assert orthanc.series_with(["1.2.3", "1.2.4", "1.2.5"]) == {"1.2.3": {"a", "b"}, "1.2.4": {"b"}, "1.2.5": set()}


def test_a_file_that_cannot_be_read_or_has_changed_is_not_as_it_was_stored(node: Node, orthanc: Orthanc) -> None:
    good, unreadable, damaged = node.add("a", 3)
    node.unreadable.add(unreadable.id)
    node.damaged.add(damaged.id)
    assert [orthanc.is_as_stored(image.id) for image in (good, unreadable, damaged)] == [True, False, False]


def test_the_tags_of_a_study_and_of_each_image(node: Node, orthanc: Orthanc) -> None:
    plain, described = node.add("a")[0], node.add("a", image_tags={"StudyDescription": "Chest"})[0]
    node.series["a"].study_tags["StudyDescription"] = "Head"
    node.unstable.add("study-a")
    assert orthanc.study("study-a") == ({"StudyDescription": "Head"}, False)
    assert orthanc.tag_of_images([plain.id, described.id], "StudyDescription") == {plain.id: "", described.id: "Chest"}


@pytest.mark.parametrize(("said", "version"), [("1.12.7", (1, 12, 7)), ("26.8.1", (26, 8, 1)), ("mainline", (0,)), ("1.12.x", (0,))])
def test_the_version_of_the_node(node: Node, orthanc: Orthanc, said: str, version: tuple[int, ...]) -> None:
    node.version = said
    assert orthanc.version == version


def test_a_node_that_is_not_there_is_down() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(NodeDownError):
            Orthanc("127.0.0.1", unused.getsockname()[1], "user", "word").get("/changes?last")


@pytest.mark.parametrize(("status", "code"), [(503, 0), (503, 17), (500, 11), (500, 31), (500, 36), (500, 42), (500, 1000), (500, 1015)])
def test_a_node_whose_database_is_away_is_down(node: Node, orthanc: Orthanc, status: int, code: int) -> None:
    def fail() -> None:
        raise RefusedError(status, code, "Database")

    node.before("/changes?last", fail)
    with pytest.raises(NodeDownError):
        orthanc.get("/changes?last")


def test_an_answer_that_is_none_has_its_code(orthanc: Orthanc) -> None:
    with pytest.raises(AnswerError) as raised:
        orthanc.get("/studies/study-gone")
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
        assert orthanc.get("/a") == orthanc.get("/b") == {}
        with pytest.raises(NodeDownError):
            orthanc.get("/c")
        assert len(served) == 2
