"""Whose data is it: what another state made is not touched, and a mistake in the stack file deletes nobody's images (S2 to S5)."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs import names
from tests.stack.dicom import as_file, ct_series
from tests.stack.harness import Stack, copy_program, docker


def one_node(program: Path, like: str, name: str = "", index: str = "sqlite") -> Stack:
    """A stack of one node."""
    stack = Stack(program, like, name=name, nodes=[], modalities=[])
    stack.settings.pop("adminer", None)
    stack.add_node("archive", index=index, tls=False)
    return stack


def image(stack: Stack) -> str:
    """The SOP instance UID of an image that the node holds."""
    made = ct_series(slices=1, size=64)[0]
    stack.node("archive").post("/instances", as_file(made))
    return str(made.SOPInstanceUID)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory, program: Path) -> Path:
    """A second checkout, with a state of its own."""
    return copy_program(tmp_path_factory.mktemp("elsewhere"))


@pytest.fixture(scope="module")
def kept(program: Path) -> Iterator[Stack]:
    """A stack like prod of one node."""
    stack = one_node(program, "prod")
    try:
        stack.up()
        yield stack
    finally:
        stack.remove()


def test_a_second_checkout_takes_over_nothing(kept: Stack, elsewhere: Path) -> None:
    uid, before = image(kept), (kept.containers(), kept.networks())
    other = one_node(elsewhere, "dev", name=kept.name)
    for _ in range(2):
        done = other.try_up()
        assert not done.ok
        assert f"nodes[0].name = 'archive' needs the volume {kept.prefix}-archive, which another state made" in " ".join(done.text.split())
        assert "use its state" in done.text
    other.destroy()
    assert other.command("stack", "rm", "--yes").ok
    assert (kept.containers(), kept.networks()) == before
    assert kept.node("archive").holds([uid])


def test_what_was_prod_stays_protected_until_it_is_said_twice(kept: Stack) -> None:
    uid = image(kept)
    with kept.trying() as settings:
        settings["environment"] = "dev"
        done = kept.up()
        assert "environment is dev, and the stack was prod: its data volumes stay protected" in done.text
        assert not kept.command("destroy", "--yes").ok
        assert kept.node("archive").holds([uid])
        assert kept.volumes() == {"archive"}
        settings["releaseData"] = True
        volume = f"{kept.prefix}-archive"
        assert f"delete patients' images: {volume}" in " ".join(kept.preview().text.split())
    kept.up()
    assert kept.node("archive").holds([uid])


def test_a_renamed_stack_keeps_its_data(kept: Stack) -> None:
    uid, old = image(kept), kept.name
    kept.rename(f"{old}-renamed")
    try:
        kept.up()
        assert kept.node("archive").holds([uid])
        assert kept.state().count(f'"{names.prefix(old)}-archive"') > 0
    finally:
        kept.rename(old)
        kept.up()
    assert kept.node("archive").holds([uid])


@pytest.fixture(scope="module")
def indexed(elsewhere: Path) -> Iterator[Stack]:
    """A stack like dev of two nodes with their indexes in PostgreSQL."""
    stack = one_node(elsewhere, "dev", index="postgresql")
    stack.add_node("other", index="postgresql")
    stack.settings["indexDb"] = {"startTimeout": 15}
    try:
        stack.up()
        yield stack
    finally:
        stack.remove()


def databases(stack: Stack) -> set[str]:
    """The databases of nodes, those that have gone as well."""
    return set(stack.sql("select datname from pg_database where datname like 'orthanc%'", database="postgres").split())


def test_a_node_that_was_removed_and_added_again_begins_empty(indexed: Stack) -> None:
    image(indexed)
    with indexed.trying() as settings:
        del settings["nodes"][0]
        indexed.up()
        assert "archive" not in indexed.volumes()
        gone = databases(indexed) - {"orthanc_other"}
        assert [name.partition(".")[0] for name in gone] == ["orthanc_archive"]
        assert "." in gone.pop()
    indexed.up()
    assert json.loads(indexed.node("archive").read("/instances")) == []
    uid = image(indexed)
    assert indexed.node("archive").holds([uid])
    assert len(databases(indexed)) == 3, "the database of the node that was removed is kept"


def test_a_volume_that_was_lost_is_not_replaced_in_silence(indexed: Stack) -> None:
    image(indexed)
    docker("rm", "--force", f"{indexed.prefix}-archive")
    docker("volume", "rm", f"{indexed.prefix}-archive")
    gone = indexed.try_up()
    assert not gone.ok
    assert f"had the volume {indexed.prefix}-archive, which is gone from the engine" in " ".join(gone.text.split())
    assert "archive" not in indexed.volumes(), "Docker would make an empty one for a container"
    # The way out that it tells. The database still holds the index of what is lost, and that is refused as well, as often as it is tried.
    indexed.refresh()
    for _ in range(2):
        done = indexed.try_up()
        assert not done.ok
        assert "The database orthanc_archive belongs to the volume" in done.text
        assert "archive" not in indexed.containers()
        indexed.refresh()  # forgets that a start has failed
    command = re.search(r"'(ALTER DATABASE orthanc_archive RENAME TO \S+)'", done.text)
    assert command
    indexed.sql(command[1], database="postgres")
    indexed.up()
    indexed.preview(expect_no_changes=True)
    assert json.loads(indexed.node("archive").read("/instances")) == []


def test_a_volume_whose_state_is_lost_can_be_adopted(kept: Stack, elsewhere: Path) -> None:
    uid, image_of = image(kept), kept.outputs()["images"]["orthanc"]
    assert kept.destroy(exclude_protected=True).ok
    other = one_node(elsewhere, "prod", name=kept.name)
    other.settings |= {"adopt": [f"{kept.prefix}-archive"], "environment": "dev"}
    try:
        user = docker("create", "--volume", f"{kept.prefix}-archive:/data", image_of)
        refused = other.try_up()
        docker("rm", user)
        assert not refused.ok
        assert "still uses" in refused.text, "what is in use is another stack's"
        other.up()
        assert other.node("archive").holds([uid])
        assert not other.command("destroy", "--yes").ok, "what was adopted is protected in dev as well"
    finally:
        other.destroy(exclude_protected=True)
        subprocess.run(["docker", "volume", "inspect", f"{kept.prefix}-archive"], check=True, capture_output=True)
