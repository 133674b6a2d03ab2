"""Images on their way: from a workstation into the client, from there into the archive, and back out unchanged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest

from tests.stack.conftest import WORKSTATION, Dev, Forwarded
from tests.stack.dicom import Study, as_file, content, ct_series, dataset_bytes, echo, find, get, move, read, store
from tests.stack.forwarding import await_delivery
from tests.stack.harness import Done, Node, Watch

STRANGER = "STRANGER"
COUNT = "select count(*) from resources where resourcetype = 3"


class TestWhoMayDoWhat:
    """Both ends of a link know each other, the workstation may do what the stack file says, and nobody else anything."""

    def test_each_end_of_the_link_echoes_the_other_from_inside(self, dev: Dev) -> None:
        assert dev.client.echoes("server")
        assert dev.server.echoes("client")

    def test_the_workstation_echoes_both_nodes_from_outside(self, dev: Dev) -> None:
        assert echo(dev.client, WORKSTATION)
        assert echo(dev.server, WORKSTATION)

    @pytest.mark.parametrize("name", ["client", "server"])
    def test_a_stranger_may_neither_echo_nor_store_nor_find(self, dev: Dev, name: str) -> None:
        node, images = dev.stack.node(name), ct_series(slices=1, size=16)
        assert not echo(node, STRANGER)
        assert store(node, STRANGER, images) == []
        assert find(node, STRANGER, "*") is None
        assert node.holds([images[0].SOPInstanceUID]) == {}

    def test_the_workstation_may_find(self, dev: Dev, study: Study, forwarded: Forwarded) -> None:
        wanted = [study.series[0].StudyInstanceUID]
        assert find(dev.client, WORKSTATION, "PHANTOM*") == wanted
        assert find(dev.server, WORKSTATION, "PHANTOM*") == wanted

    @pytest.mark.parametrize("name", ["client", "server"])
    def test_the_workstation_may_not_retrieve(self, dev: Dev, study: Study, forwarded: Forwarded, name: str) -> None:
        node, wanted = dev.stack.node(name), study.series[0].StudyInstanceUID
        assert not move(node, WORKSTATION, wanted, to=WORKSTATION)
        assert not get(node, WORKSTATION, wanted)

    def test_the_server_may_neither_store_nor_find_at_the_client(self, dev: Dev) -> None:
        image = ct_series(slices=1, size=16)[0]
        identifier = dev.server.post("/instances", as_file(image))["ID"]
        status, _ = dev.server.ask("/modalities/client/store", [identifier])
        assert status != 200
        assert dev.client.holds([image.SOPInstanceUID]) == {}
        assert query(dev.server, "client") != 200
        dev.server.ask(f"/instances/{identifier}", method="DELETE")

    def test_the_client_may_not_find_at_the_server(self, dev: Dev) -> None:
        assert query(dev.client, "server") != 200


def query(node: Node, peer: str) -> int:
    """The HTTP status of a C-FIND from inside a node."""
    status, _ = node.ask(f"/modalities/{peer}/query", {"Level": "Study", "Query": {"PatientID": "*"}})
    return status


class TestImages:
    """pydicom's own files, and a CT series of 60 slices of 512 x 512."""

    def test_the_client_took_them_all(self, received: dict[str, str], study: Study) -> None:
        assert len(study.uids) == 73
        assert received.keys() == study.uids
        assert len({image.SOPClassUID for image in study.images}) >= 10

    def test_the_server_got_them_all_and_committed_itself_to_each(self, dev: Dev, study: Study, forwarded: Forwarded) -> None:
        assert dev.server.holds(study.uids) == forwarded.identifiers
        assert forwarded.answer.failed == {}
        assert forwarded.answer.kept == study.uids

    def test_postgresql_holds_them(self, dev: Dev, study: Study, forwarded: Forwarded) -> None:
        assert dev.stack.sql(COUNT, database="orthanc_server") == str(len(study.uids))
        tags = "select count(distinct value) from dicomidentifiers where taggroup = 8 and tagelement = 24"
        assert dev.stack.sql(tags, database="orthanc_server") == str(len(study.uids))

    def test_they_read_back_as_they_were_sent(self, dev: Dev, study: Study, forwarded: Forwarded) -> None:
        assert_unchanged(dev, study, forwarded)

    def test_a_file_uploaded_by_rest_reads_back_bit_for_bit(self, dev: Dev) -> None:
        file = (Path(pydicom.__file__).parent / "data" / "test_files" / "examples_overlay.dcm").read_bytes()
        for node in (dev.client, dev.server):
            identifier = node.post("/instances", file)["ID"]
            assert node.read(f"/instances/{identifier}/file") == file
        await_delivery(dev.stack, "client", "server")  # so that it does not come back after it is deleted
        for node in (dev.client, dev.server):
            node.ask(f"/instances/{identifier}", method="DELETE")


def assert_unchanged(dev: Dev, study: Study, forwarded: Forwarded) -> None:
    """Every image of both nodes holds what was sent: each value, and of the series, which needs no new encoding, each byte."""
    for image in study.images:
        file = f"/instances/{forwarded.identifiers[str(image.SOPInstanceUID)]}/file"
        at_client, at_server = dev.client.read(file), dev.server.read(file)
        assert content(read(at_client)) == content(image) == content(read(at_server)), image.filename
        assert read(at_client).file_meta.TransferSyntaxUID == image.file_meta.TransferSyntaxUID
        assert read(at_server).file_meta.TransferSyntaxUID == image.file_meta.TransferSyntaxUID
    for image in study.series:
        identifier = forwarded.identifiers[str(image.SOPInstanceUID)]
        assert dataset_bytes(dev.client.read(f"/instances/{identifier}/file")) == dataset_bytes(as_file(image))
        md5 = f"/instances/{identifier}/attachments/dicom/md5"
        assert dev.client.read(md5) == dev.server.read(md5)


@dataclass
class Replaced:
    """What became of the stack's containers."""

    done: Done
    watches: dict[str, Watch]
    before: dict[str, str]
    after: dict[str, str]


@pytest.fixture(scope="module")
def replaced(dev: Dev, forwarded: Forwarded) -> Replaced:
    """A change that replaces the database, both nodes and the forwarder, which tries again what another server had refused: an option of
    Orthanc's, and the database's number of connections.
    """
    before = dev.stack.containers()
    watches = {name: Watch(before[name]) for name in ("db", "server", "client", "client-forwarder")}
    for node in dev.stack.settings["nodes"]:
        node["orthanc"] = {"StableAge": 7}
    dev.stack.settings["indexDb"] = {"maxConnections": 61}
    return Replaced(dev.stack.up(), watches, before, dev.stack.containers())


class TestEveryContainerReplaced:
    """The old ones end in good order, the new ones hold the same images."""

    def test_they_are_new(self, replaced: Replaced) -> None:
        assert {f"{name}-container" for name in replaced.watches} <= replaced.done.replaced
        assert all(replaced.before[name] != replaced.after[name] for name in replaced.watches)

    @pytest.mark.parametrize(
        ("name", "last_words"),
        [
            ("db", "database system is shut down"),
            ("server", "Orthanc has stopped"),
            ("client", "Orthanc has stopped"),
            ("client-forwarder", "stopped: unconfirmed=0"),
        ],
    )
    def test_the_old_ones_stopped_by_themselves(self, replaced: Replaced, name: str, last_words: str) -> None:
        assert last_words in replaced.watches[name].log()
        assert replaced.watches[name].exit_code() == 0

    @pytest.mark.usefixtures("replaced")
    def test_the_images_are_the_same(self, dev: Dev, study: Study, forwarded: Forwarded) -> None:
        assert dev.client.holds(study.uids) == dev.server.holds(study.uids) == forwarded.identifiers
        assert dev.stack.sql(COUNT, database="orthanc_server") == str(len(study.uids))
        assert_unchanged(dev, study, forwarded)

    @pytest.mark.usefixtures("replaced")
    def test_the_link_works(self, dev: Dev) -> None:
        await_delivery(dev.stack, "client", "server")
        assert dev.client.echoes("server")
        assert dev.server.echoes("client")
