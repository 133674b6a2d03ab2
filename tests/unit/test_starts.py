"""What is waited for before anything is touched: a docker command that answers from a file."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from configs.starts import await_starts, limits_of
from tests.unit.stacks import node, settings_of, stack


def docker_that_says(folder: Path, *states: str) -> list[str]:
    """A docker command that knows these containers' states, and nothing of the others."""
    (folder / "states").write_text("".join(f"/{state}\n" for state in states))
    command = folder / "docker"
    command.write_text(f"#!/bin/sh\ncat '{folder}/states'; echo 'Error: No such container: x' >&2; exit 1\n")
    command.chmod(0o755)
    return [str(command)]


@pytest.mark.parametrize("state", ["running healthy 0", "running unhealthy 0", "running starting 3", "restarting starting 1", "exited  0"])
def test_what_serves_or_has_failed_is_not_waited_for(tmp_path: Path, state: str) -> None:
    said: list[str] = []
    assert await_starts({"p-a": 60}, docker_that_says(tmp_path, f"p-a {state}"), said.append) is None
    assert said == []


def test_what_is_starting_is_waited_for(tmp_path: Path) -> None:
    docker, said = docker_that_says(tmp_path, "p-a running starting 0", "p-b running healthy 0"), list[str]()
    threading.Timer(1.5, docker_that_says, (tmp_path, "p-a running healthy 0")).start()
    begun = time.monotonic()
    assert await_starts({"p-a": 60, "p-b": 60}, docker, said.append) is None
    assert 1 < time.monotonic() - begun < 30
    assert len(said) == 1
    assert "p-a is still starting" in said[0]


def test_a_start_that_does_not_end_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    refusal = await_starts({"p-a": 0, "p-b": 60}, docker_that_says(tmp_path, "p-a running starting 0"), lambda _: None)
    assert refusal is not None
    assert "docker stop p-a" in refusal


def test_each_has_its_own_limit() -> None:
    nodes = node("a", startTimeout="1h"), node("b", 1, index="sqlite")
    assert limits_of(settings_of(stack(*nodes, indexDb={"startTimeout": "30m"})), "p") == {"p-a": 3600, "p-b": 120, "p-db": 1800}
    assert limits_of(settings_of(stack(nodes[1])), "p") == {"p-b": 120}
