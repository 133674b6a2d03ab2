"""Whose data is it: what another state made is not touched, and a mistake in the stack file deletes nobody's images (S2 to S5)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs import names
from tests.stack.dicom import as_file, ct_series
from tests.stack.harness import Stack, copy_program, docker, without_nodes

pytestmark = pytest.mark.slow("two stacks whose nodes, volumes and states are removed, lost and made again by one up after the other")


def one_node(program: Path, like: str, name: str = "", index: str = "sqlite") -> Stack:
    stack = without_nodes(program, like, name=name)
    stack.add_node("archive", index=index, tls=False)
    return stack


def image(stack: Stack) -> str:
    """The SOP instance UID of an image that the node holds."""
    made = ct_series(slices=1, size=64)[0]
    stack.node("archive").post("/instances", as_file(made))
    return str(made.SOPInstanceUID)


@pytest.fixture(scope="module")
def kept(program: Path) -> Iterator[Stack]:
    """A stack like prod of one node."""
    with one_node(program, "prod").deployed() as stack:
        yield stack


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


def test_what_was_prod_stays_protected_as_dev(kept: Stack) -> None:
    uid = image(kept)
    with kept.trying() as settings:
        settings["environment"] = "dev"
        assert "environment is dev, and the stack was prod: its data volumes stay protected" in kept.up().text
        assert not kept.command("destroy", "--yes").ok
        assert kept.node("archive").holds([uid])
        assert kept.volumes() == {"archive"}
    kept.up()
    assert kept.node("archive").holds([uid])


def test_a_volume_whose_state_is_lost_can_be_adopted(kept: Stack, tmp_path: Path) -> None:
    uid, image_of, volume = image(kept), kept.outputs()["images"]["orthanc"], f"{kept.prefix}-archive"
    assert kept.destroy(exclude_protected=True).ok
    other = one_node(copy_program(tmp_path), "prod", name=kept.name)
    other.settings |= {"adopt": [volume], "environment": "dev"}
    try:
        user = docker("create", "--volume", f"{volume}:/data", image_of)
        refused = other.try_up()
        docker("rm", "--volumes", user)
        assert not refused.ok
        assert "still uses" in refused.text, "what is in use is another stack's"
        other.up()
        assert other.node("archive").holds([uid])
        assert not other.command("destroy", "--yes").ok, "what was adopted is protected in dev as well"
    finally:
        other.destroy(exclude_protected=True)
    assert kept.volumes() == {"archive"}
    kept.up()  # as the other tests found it


@pytest.fixture(scope="module")
def indexed(program: Path) -> Iterator[Stack]:
    """A stack like dev of two nodes with their indexes in PostgreSQL."""
    stack = one_node(program, "dev", index="postgresql")
    stack.add_node("other", index="postgresql")
    with stack.deployed():
        yield stack


def databases(stack: Stack) -> set[str]:
    """The databases of nodes, those that have gone as well."""
    return set(stack.sql("select datname from pg_database where datname like 'orthanc%'", database="postgres").split())


def test_a_node_that_was_removed_and_added_again_begins_empty(indexed: Stack) -> None:
    image(indexed)
    before = databases(indexed)
    with indexed.trying() as settings:
        del settings["nodes"][0]
        indexed.up()
        assert "archive" not in indexed.volumes()
        (gone,) = databases(indexed) - before
        assert gone.startswith("orthanc_archive.")
        assert "orthanc_archive" not in databases(indexed)
    indexed.up()
    assert indexed.node("archive").get("/instances") == []
    uid = image(indexed)
    assert indexed.node("archive").holds([uid])
    assert databases(indexed) == before | {gone}, "the database of the node that was removed is kept"


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
        with indexed.trying() as settings:
            settings["indexDb"] = {"startTimeout": 5}  # so long, the roles are tried
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
    assert indexed.node("archive").get("/instances") == []
