"""What an interrupted run leaves: only what this state was making is removed, and never a volume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from configs.settings import NodeSettings, StackSettings
from ops.containers import Container, Thing, list_containers
from ops.lifecycle import stop_order
from ops.prepare import Tools
from ops.recover import half_made, remove, was_interrupted
from ops.setup.console import SetupError
from ops.setup.state import State
from ops.stack import Stack, write_marker
from ops.up import needs_refresh, start_stopped

LOST = Thing("container", "id-lost", "s-server")
LOST_NETWORK = Thing("network", "id-net", "s-network")


def creating(kind: str, name: str) -> dict[str, Any]:
    """A pending operation, as a state holds it."""
    return {"type": "creating", "resource": {"type": kind, "inputs": {"name": name}}}


PENDING = [
    creating("docker:index/network:Network", "s-network"),
    creating("docker:index/container:Container", "s-server"),
    creating("docker:index/volume:Volume", "s-server"),
]


class Engine:
    """An engine with these things; each belongs to the owner "me" or to another one."""

    def __init__(self, *things: tuple[Thing, str]) -> None:
        self.things = things

    def __call__(self, arguments: Sequence[str]) -> str:
        kind = "network" if arguments[0] == "network" else "container"
        (label,) = (argument for argument in arguments if argument.startswith("label="))
        ours = [thing for thing, owner in self.things if thing.kind == kind and label == f"label=orthanc-stack.owner={owner}"]
        return "".join(f"{thing.id} {thing.name}\n" for thing in ours)


def test_only_what_was_being_made_is_removed_and_containers_before_their_networks() -> None:
    other = Thing("container", "id-other", "s-client")
    assert half_made(PENDING, "me", Engine((LOST_NETWORK, "me"), (LOST, "me"), (other, "me"))) == [LOST, LOST_NETWORK]


def test_what_another_state_made_under_the_same_name_is_left_alone() -> None:
    """S2: a second checkout of the same stack file, with a state of its own."""
    assert half_made(PENDING, "me", Engine((LOST_NETWORK, "another"), (LOST, "another"))) == []
    assert half_made(PENDING, "", Engine((LOST, ""))) == [], "a state that has made nothing has nothing to remove"


def test_what_was_being_deleted_or_is_not_pending_is_left_alone() -> None:
    deleting = [{**operation, "type": "deleting"} for operation in PENDING]
    for pending in (deleting, []):
        assert half_made(pending, "me", Engine((LOST, "me"))) == []


def test_removal_stops_containers_first_and_keeps_their_volumes() -> None:
    calls: list[list[str]] = []

    def docker(arguments: Sequence[str]) -> str:
        calls.append(list(arguments))
        return ""

    remove(docker, [LOST, LOST_NETWORK])
    assert calls == [["stop", "-t", "60", "id-lost"], ["rm", "id-lost"], ["network", "rm", "id-net"]]


def test_nothing_to_remove_asks_docker_nothing() -> None:
    def docker(arguments: Sequence[str]) -> str:
        raise AssertionError(arguments)

    remove(docker, [])


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    (tmp_path / ".pulumi-state").mkdir()
    return Stack("dev", Tools(Path("pulumi"), State(f"file://{tmp_path}/.pulumi-state", ""), ("docker",)), tmp_path)


def test_a_run_that_ended_well_leaves_nothing_to_recover(stack: Stack) -> None:
    assert not was_interrupted(stack)


def test_a_marker_of_processes_that_are_gone_is_an_interruption(stack: Stack) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    write_marker(stack.marker(), ended.pid, os.getpid())
    assert was_interrupted(stack)


def test_an_empty_marker_is_an_interruption(stack: Stack) -> None:
    stack.marker().touch()
    assert was_interrupted(stack)


def test_a_process_that_has_taken_over_the_number_is_not_waited_for(stack: Stack) -> None:
    other = subprocess.Popen(["sleep", "60"])
    try:
        write_marker(stack.marker(), other.pid)
        assert was_interrupted(stack)
    finally:
        other.kill()
        other.wait()


def test_a_killed_run_that_nobody_has_taken_away_is_not_waited_for(stack: Stack) -> None:
    dead = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "pulumi"])
    try:
        dead.kill()
        os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)  # ended, and still in the table
        write_marker(stack.marker(), dead.pid)
        assert was_interrupted(stack)
    finally:
        dead.wait()


def test_a_run_that_is_still_at_work_is_left_alone(stack: Stack) -> None:
    # Its command line holds the word pulumi, as that of the real one does.
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "pulumi"])
    try:
        write_marker(stack.marker(), other.pid)
        with pytest.raises(SetupError, match=rf"process {other.pid} is working on the stack dev"):
            was_interrupted(stack)
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize(("program", "status", "left"), [("", 0, False), ("raise SystemExit(3)", 3, True)])
def test_the_marker_stays_exactly_when_pulumi_did_not_end_well(stack: Stack, program: str, status: int, left: bool) -> None:
    pulumi = stack.root / "pulumi"
    pulumi.write_text(f"#!{sys.executable}\nfrom pathlib import Path\nassert Path({str(stack.marker())!r}).exists()\n{program}\n")
    pulumi.chmod(0o755)
    assert Stack("dev", Tools(pulumi, stack.tools.state, ("docker",)), stack.root).run("up") == status
    assert stack.marker().exists() is left


def _line(name: str, role: str, state: str, status: str) -> str:
    labels = f"a=b,orthanc-stack.role={role},orthanc-stack.stack=orthanc-stack-dev"
    return json.dumps({"Names": name, "ID": "0" * 64, "Labels": labels, "State": state, "Status": status})


HEALTHY = ("running", "Up 3 minutes (healthy)")
WELL = [
    ("orthanc-stack-dev-server", "node", *HEALTHY),
    ("orthanc-stack-dev-db", "db", *HEALTHY),
    ("orthanc-stack-dev-db-roles", "db-roles", "exited", "Exited (0) 3 minutes ago"),
]
NODE = NodeSettings(name="server", aet="S", httpPort=8042, dicomPort=4242)
SETTINGS = StackSettings(environment="dev", nodes=(NODE,))


@pytest.mark.parametrize(
    ("containers", "refresh"),
    [
        (WELL, False),
        (WELL[:2], False),  # the one-shot container may be gone
        (WELL[1:], True),
        ([("orthanc-stack-dev-server", "node", "exited", "Exited (0) 1 minute ago"), *WELL[1:]], True),
        ([("orthanc-stack-dev-server", "node", "running", "Up 1 minute (unhealthy)"), *WELL[1:]], True),
        ([("orthanc-stack-dev-server", "node", "running", "Up 1 second (health: starting)"), *WELL[1:]], False),
        ([("orthanc-stack-dev-server", "node", "paused", "Up 1 hour (Paused)"), *WELL[1:]], True),
    ],
)
def test_pulumi_looks_at_each_resource_only_when_one_is_not_as_it_was(containers: list[tuple[str, str, str, str]], refresh: bool) -> None:
    def docker(arguments: Sequence[str]) -> str:
        assert "label=orthanc-stack.stack=orthanc-stack-dev" in arguments
        return "\n".join(_line(*container) for container in containers)

    found = list_containers(docker, "orthanc-stack-dev")
    assert needs_refresh(found, SETTINGS, "orthanc-stack-dev") is refresh


def test_the_database_stops_last() -> None:
    db, node, adminer = (Container(role, "", role, *HEALTHY) for role in ("db", "node", "adminer"))
    assert stop_order([db, node, adminer]) == [[node, adminer], [db]]
    assert stop_order([node]) == [[node]]


def test_what_was_stopped_is_started_again_the_database_first_and_the_one_shot_not() -> None:
    started: list[str] = []

    def docker(arguments: Sequence[str]) -> str:
        started.append(arguments[1])
        if arguments[1] == "node":
            raise SetupError("port is already allocated")
        return ""

    stopped = ("exited", "Exited (0) 1 minute ago")
    states = {"adminer": stopped, "node": stopped, "db": stopped, "db-roles": stopped, "healthy": HEALTHY}
    found = [Container(role, role, role, *state) for role, state in states.items()]
    assert start_stopped(docker, found)
    assert started == ["db", "adminer", "node"]
    assert not start_stopped(docker, [Container("db", "db", "db", *HEALTHY)])
