"""What `upgrade-db` refuses, compares and writes."""

from __future__ import annotations

from typing import Any

import pytest

from components.engine import Engine, Volume
from configs import names
from configs.held import Held, held_of
from configs.loader import parse
from images import POSTGRES, ROLES, candidates, choose, local_image
from ops.setup.console import SetupError
from ops.upgrade.command import compare, refuse_full
from ops.upgrade.server import Table, differences
from ops.upgrade.situation import Place
from tests.unit.stacks import node, stack
from tests.unit.test_preflight import checked

TABLES = {"public.resources": Table(3, "11"), "sequence public.s": Table(1, "9")}


@pytest.mark.parametrize(
    ("image", "following"),
    [
        ("postgres:17.11", "postgres:18.6"),
        ("mirror.example:5000/library/postgres:17.9-alpine3.22", "mirror.example:5000/library/postgres:18.6-alpine3.22"),
        ("postgres:17.11-trixie@sha256:0123", "postgres:18.6-trixie"),
    ],
)
def test_the_next_version_is_named_as_the_stack_file_names_this_one(image: str, following: str) -> None:
    assert Place("db", 17, image).next() == Place("db.18", 18, following)


def test_there_is_nothing_beyond_the_newest() -> None:
    with pytest.raises(SetupError, match="the newest"):
        Place("db.18", 18, "postgres:18.6").next()


def test_without_room_nothing_begins() -> None:
    refuse_full(1_000_000_000, 1_300_000_000)
    with pytest.raises(SetupError, match=r"1000 MB, of which a copy needs 1300 MB, and 1299 MB are free"):
        refuse_full(1_000_000_000, 1_299_000_000)


@pytest.mark.parametrize(
    ("new", "told"),
    [
        (TABLES, []),
        (TABLES | {"public.resources": Table(3, "12")}, ["public.resources: 3 rows, checksum 11; 3 rows, checksum 12"]),
        (TABLES | {"public.more": Table(0, "0")}, ["public.more: missing; 0 rows, checksum 0"]),
        ({"public.resources": TABLES["public.resources"]}, ["sequence public.s: 1 rows, checksum 9; missing"]),
    ],
)
def test_a_copy_that_differs_is_refused(new: dict[str, Table], told: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert differences(TABLES, new) == told
    if told:
        with pytest.raises(SetupError, match=f"orthanc_a {told[0]}"):
            compare({"orthanc_a": TABLES}, {"orthanc_a": new})
    else:
        assert compare({"orthanc_a": TABLES}, {"orthanc_a": new}) == {"orthanc_a": TABLES}
    assert ("DIFFERS" in capsys.readouterr().out) == bool(told)


@pytest.mark.parametrize(
    ("major", "volume", "wrong"), [(17, "db", []), (18, "db.18", []), (18, "db", []), (17, "db.18", ["indexDb.volume"])]
)
def test_the_volume_fits_the_version(major: int, volume: str, wrong: list[str]) -> None:
    raw = stack(node("a"), indexDb={"majorVersion": major, "volume": volume}, images={"postgres": f"postgres:{major}.1"})
    assert [problem.path for problem in parse(raw)[2]] == wrong


DB, ONE = "orthanc-stack-x-db", stack(node("a"))
UPGRADED = stack(node("a"), indexDb={"majorVersion": 18, "volume": "db.18"}, images={"postgres": "postgres:18.6"})
OLD_DB, NEW_DB = {"db-data": DB}, {"db.18-data": f"{DB}.18"}
FITS = {DB: Volume("postgresql-17", "me"), f"{DB}.18": Volume("postgresql-18", "me")}


@pytest.mark.parametrize(
    ("raw", "held", "filled", "refused"),
    [
        # By hand: an empty one, or one that an upgrade has not filled to its end; back, to one that is out of date.
        (UPGRADED, Held("me", volumes=OLD_DB, index_volume=DB), "", True),
        (UPGRADED, Held("me", volumes=OLD_DB | NEW_DB, index_volume=DB), "", True),
        (UPGRADED, Held("me", volumes=OLD_DB), "", True),
        (ONE, Held("me", volumes=OLD_DB | NEW_DB, index_volume=f"{DB}.18"), "", True),
        # By the command; as it is deployed; a first deployment; without its container.
        (UPGRADED, Held("me", volumes=OLD_DB, index_volume=DB), f"{DB}.18", False),
        (UPGRADED, Held("me", volumes=OLD_DB | NEW_DB, index_volume=f"{DB}.18"), "", False),
        (ONE, Held("me", volumes=OLD_DB | NEW_DB, index_volume=DB), "", False),
        (UPGRADED, Held("me"), "", False),
        (UPGRADED, Held("me", volumes=OLD_DB | NEW_DB), "", False),
    ],
)
def test_the_database_changes_over_by_the_command_alone(
    raw: dict[str, Any], held: Held, filled: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(names.FILLED, filled)
    problems = checked(raw, Engine(volumes=FITS), held)
    assert [problem.path for problem in problems] == (["indexDb.volume"] if refused else [])
    assert all("upgrade-db" in problem.message for problem in problems)


def test_the_state_says_which_volume_the_database_has() -> None:
    container: dict[str, Any] = {"id": "1", "volumes": [{"containerPath": "/v", "volumeName": "s-db"}]}
    volumes = {
        f"urn::{name}-data": {"type": "docker:index/volume:Volume", "outputs": {"name": f"s-{name}"}} for name in ("db", "db.18", "a")
    }
    held = held_of({"urn::db-container": {"type": "docker:index/container:Container", "outputs": container}, **volumes})
    assert held.index_volume == "s-db"
    assert held.index_volumes == {"db-data": "s-db", "db.18-data": "s-db.18"}
    assert Held().index_volumes == {}


def test_each_version_of_postgresql_has_an_image_of_its_own() -> None:
    assert set(POSTGRES) == {17, 18}
    assert {*candidates(17)} ^ {*candidates(18)} == {local_image("postgres"), local_image("postgres-18")}
    settings, _, _ = parse(stack(node("a"), images={"source": "local"}, indexDb={"majorVersion": 18}))
    assert settings is not None, "both can be built here"
    assert choose(settings.images, candidates(18), 18).postgres == local_image("postgres-18")
    assert "postgres-18" not in ROLES
