"""Without a docker command: nothing makes or deletes a data volume, and the images stay."""

from __future__ import annotations

from typing import Any

import pytest

from configs.images import ImageChoice, candidates, choose
from configs.settings import ImageSettings
from configs.unseen import check_unseen
from tests.unit.stacks import node, settings_of, stack

HELD = ("a-data", "db-data")
OUTPUTS: dict[str, Any] = {"nodes": {"a": {"index": "postgresql"}}}
LAST = {"source": "local", "orthanc": "orthanc-stack/orthanc:local-0", "postgres": "orthanc-stack/postgres:local-0", "adminer": None}


@pytest.mark.parametrize(
    ("raw", "paths"),
    [
        (stack(node("a", memory=4096)), []),
        (stack(node("a"), node("b", 1)), ["nodes[1]"]),
        (stack(node("b")), ["nodes[0]", "nodes"]),
        (stack(node("a", index="sqlite")), ["nodes", "nodes[0].index"]),  # and with it the last database
    ],
)
def test_data_volumes_that_nobody_can_look_at(raw: dict[str, Any], paths: list[str]) -> None:
    problems = check_unseen(settings_of(raw), HELD, OUTPUTS)
    assert [problem.path for problem in problems] == paths
    assert all("docker command" in problem.message for problem in problems)


def test_a_first_deployment_is_refused() -> None:
    assert [problem.path for problem in check_unseen(settings_of(stack(node("a"))), (), {})] == ["nodes[0]", "indexDb"]


def test_auto_stays_on_the_images_of_the_last_deployment() -> None:
    """Even those that an earlier checkout built; what it had none of is this one's."""
    assert choose(ImageSettings(source="auto"), None, LAST) == ImageChoice("local", LAST["orthanc"], LAST["postgres"], candidates()[2])  # type: ignore[arg-type]


@pytest.mark.parametrize("last", [None, {}, LAST | {"source": "registry", "orthanc": "orthancteam/orthanc:1.0"}])
def test_the_registrys_images_are_those_of_the_stack_file(last: dict[str, Any] | None) -> None:
    settings = ImageSettings(source="auto")
    assert choose(settings, None, last) == ImageChoice("registry", settings.orthanc, settings.postgres, settings.adminer)


def test_where_the_engine_is_seen_it_decides() -> None:
    assert choose(ImageSettings(source="auto"), [], LAST).source == "registry"
    assert choose(ImageSettings(source="auto"), candidates(), LAST).orthanc == candidates()[0]
