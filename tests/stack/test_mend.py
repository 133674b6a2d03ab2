"""What `check-data --mend` puts right, and what it leaves: on a real stack, whose files were removed, damaged, orphaned."""

from __future__ import annotations

import json
import re
import secrets as randomness
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.stack.dicom import as_file, ct_series
from tests.stack.engine import eventually
from tests.stack.test_backends import copy_commands
from tests.stack.test_backup import Site, delivered, images, inside

pytestmark = pytest.mark.slow("a stack's files are removed, damaged, orphaned, and mended; a patient is forgotten: 3 min")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A stack with images, all delivered: the archive's files have other meta headers than the client's."""
    folder = tmp_path_factory.mktemp("mend")
    (folder / "checkout").mkdir()
    (folder / "images").mkdir()
    site = Site(f"test-mend-{randomness.token_hex(3)}", copy_commands(folder / "checkout"), folder / "repository")
    try:
        site.it.run("up")
        for number, image in enumerate(ct_series(slices=12, size=64)):
            (folder / "images" / f"{number}.dcm").write_bytes(as_file(image))
        site.it.run("send", "client", str(folder / "images"))
        eventually("all is delivered", lambda: delivered(site))
        yield site
    finally:
        site.remove()


def mended(site: Site, status: int = 0) -> dict[str, dict[str, Any]]:
    """What became of each fault, by the name of its file."""
    said = json.loads(site.it.run("check-data", "--mend", "--json", separate=True, status=status))
    return {one["fault"]["file"]: one for one in said}


def ask(site: Site, node: str) -> httpx.Client:
    return httpx.Client(base_url=site.node(node).url, auth=site.node(node).login, timeout=30)


def file_of(site: Site, node: str, image: str) -> str:
    """Where the file of an image is in its node's volume."""
    uuid = str(ask(site, node).get(f"/instances/{image}/attachments/dicom/info").json()["Uuid"])
    return f"{uuid[:2]}/{uuid[2:4]}/{uuid}"


@pytest.mark.parametrize("node", ["client", "archive"])
def test_missing_damaged_and_orphaned_images_come_back_as_they_were(site: Site, node: str) -> None:
    was = images(site.node(node))
    gone, flipped, longer, lost, twice = list(was)[:5]
    at = {image: file_of(site, node, image) for image in was}
    orphans = [f"ff/ff/ffffffff-0000-0000-0000-00000000000{i}" for i in range(3)]
    inside(site, node, f"rm {at[gone]}; printf x | dd of={at[flipped]} bs=1 seek=1500 conv=notrunc 2>&1; printf x >> {at[longer]}")
    # One whose copy is orphaned is gone from the index, another is in it.
    inside(site, node, f"mkdir -p ff/ff; cp {at[lost]} {orphans[0]}; cp {at[twice]} {orphans[1]}; cp /etc/hostname {orphans[2]}")
    inside(site, node, f"touch -d '2 days ago' {' '.join(orphans)}")
    assert ask(site, node).delete(f"/instances/{lost}").status_code == 200
    before = inside(site, node, "md5sum $@")
    site.it.run("check-data", status=3)
    assert inside(site, node, "md5sum $@") == before, "without --mend, nothing is changed"
    said = mended(site, status=3)
    assert {file: one["outcome"] for file, one in said.items()} == {
        **{Path(at[image]).name: "mended" for image in (gone, flipped, longer)},
        **{Path(file).name: outcome for file, outcome in zip(orphans, ("taken in", "removed", "left"), strict=True)},
    }, said
    assert said[Path(orphans[2]).name]["why"] == "it is not DICOM"
    assert images(site.node(node)) == was
    assert inside(site, node, "ls ff/ff").split() == [Path(orphans[2]).name]
    inside(site, node, f"rm {orphans[2]}")
    site.it.run("check-data")


def test_what_no_other_node_has_is_left_and_told(site: Site) -> None:
    image, labelled = list(images(site.node("client")))[:2]
    eventually("all is delivered", lambda: delivered(site))
    assert ask(site, "archive").delete(f"/instances/{image}").status_code == 200
    assert ask(site, "client").put(f"/instances/{labelled}/labels/mine", content=b"").status_code == 200
    files = [file_of(site, "client", one) for one in (image, labelled)]
    inside(site, "client", f"cp -p {' '.join(files)} /tmp")
    for file in files:
        inside(site, "client", f"printf x | dd of={file} bs=1 seek=1500 conv=notrunc 2>&1")
    try:
        before = inside(site, "client", "md5sum $@")
        said = mended(site, status=3)
        assert {one["outcome"] for one in said.values()} == {"left"}
        assert "no other node of the stack has the image" in said[Path(files[0]).name]["why"]
        assert "labels" in said[Path(files[1]).name]["why"]
        assert inside(site, "client", "md5sum $@") == before
    finally:
        inside(site, "client", "; ".join(f"cp -p /tmp/{Path(file).name} {file}" for file in files))
        ask(site, "client").delete(f"/instances/{labelled}/labels/mine")
    site.it.run("check-data")


def of_patient(site: Site, node: str, patient: str) -> list[str]:
    found = ask(site, node).post("/tools/find", json={"Level": "Instance", "Query": {"PatientID": patient}}).json()
    return [str(one) for one in found]


def test_a_forgotten_patient_stays_away(site: Site, tmp_path: Path) -> None:
    """While images of the patient are on their way; afterwards by an orphaned file, a restore, and a drill."""
    was = {node: images(site.node(node)) for node in ("client", "archive")}

    def send(slices: int) -> None:
        folder = tmp_path / str(slices)
        folder.mkdir()
        for number, image in enumerate(ct_series(slices=slices, size=64)):
            image.PatientID = "FORGET-1"
            (folder / f"{number}.dcm").write_bytes(as_file(image))
        site.it.run("send", "client", str(folder))

    send(5)
    eventually("all is delivered", lambda: delivered(site))
    sheet = site.it.run("backup")
    assert "FORGET-1" not in sheet
    assert "nothing was touched: nobody is there to ask" in site.it.run("forget", "--patient", "FORGET-1", status=1)
    assert len(of_patient(site, "archive", "FORGET-1")) == 5
    orphan = "ff/ff/ffffffff-0000-0000-0000-000000000009"
    copied = file_of(site, "client", of_patient(site, "client", "FORGET-1")[0])
    inside(site, "client", f"mkdir -p ff/ff; cp {copied} {orphan}; touch -d '2 days ago' {orphan}")
    send(100)
    said = site.it.run("forget", "--patient", "FORGET-1", "--yes")
    assert "no node has the patient any more" in said
    assert "1 backups until" in said
    eventually("all is delivered", lambda: delivered(site))
    assert {node: images(site.node(node)) for node in was} == was

    assert mended(site)[Path(orphan).name]["why"] == "its patient was forgotten"
    assert {node: images(site.node(node)) for node in was} == was

    assert len(re.findall("5 files of patients who were forgotten are erased", site.it.run("drill"))) == 2
    site.remove()
    said = site.it.run("restore")
    assert len(re.findall("5 files of patients who were forgotten are erased", said)) == 2
    assert {node: images(site.node(node)) for node in was} == was
    for node, kept in was.items():
        counts = ask(site, node).get("/statistics").json()
        assert (counts["CountPatients"], counts["CountStudies"], counts["CountInstances"]) == (1, 1, len(kept))
    # Nothing of the patient's is left in the volumes, either; and images are taken as before.
    site.it.run("check-data")
    send(3)
    assert len(of_patient(site, "client", "FORGET-1")) == 3
    eventually("all is delivered", lambda: delivered(site))
    assert ask(site, "client").get("/statistics").json()["CountPatients"] == 2
    site.it.run("forget", "--patient", "FORGET-1", "--yes")
    assert {node: images(site.node(node)) for node in was} == was
