"""What an interrupted run leaves: only what this state was making is removed, and never a volume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
PENDING = [
    {"type": "creating", "resource": {"type": kind, "inputs": {"name": name}}}
    for kind, name in (
        ("docker:index/network:Network", "s-network"),
        ("docker:index/container:Container", "s-server"),
        ("docker:index/volume:Volume", "s-server"),
    )
]
DELETING = [{**operation, "type": "deleting"} for operation in PENDING]


@pytest.mark.parametrize(
    ("pending", "made_by", "owner", "removed"),
    [
        pytest.param(PENDING, "me", "me", [LOST, LOST_NETWORK], id="what was being made, containers before their networks"),
        # A second checkout of the same stack file, with a state of its own.
        pytest.param(PENDING, "another", "me", [], id="not what another state made under the same name"),
        pytest.param(PENDING, "", "", [], id="nothing for a state that has made nothing"),
        pytest.param(DELETING, "me", "me", [], id="not what was being deleted"),
        pytest.param([], "me", "me", [], id="not what is not pending"),
    ],
)
def test_only_what_this_state_was_making_is_removed(pending: Any, made_by: str, owner: str, removed: list[Thing]) -> None:
    def docker(arguments: Sequence[str]) -> str:
        things = (LOST_NETWORK,) if arguments[0] == "network" else (LOST, Thing("container", "id-other", "s-client"))
        return "".join(f"{thing.id} {thing.name}\n" for thing in things if f"label=orthanc-stack.owner={made_by}" in arguments)

    assert half_made(pending, owner, docker) == removed


@pytest.mark.parametrize(
    ("things", "commands"),
    [
        ([LOST, LOST_NETWORK], [["stop", "-t", "60", "id-lost"], ["rm", "id-lost"], ["network", "rm", "id-net"]]),
        ([], []),
    ],
)
def test_removal_stops_containers_first_and_keeps_their_volumes(things: list[Thing], commands: list[list[str]]) -> None:
    calls: list[list[str]] = []

    def docker(arguments: Sequence[str]) -> str:
        calls.append(list(arguments))
        return ""

    remove(docker, things)
    assert calls == commands


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    (tmp_path / ".pulumi-state").mkdir()
    return Stack("dev", Tools(Path("pulumi"), State(f"file://{tmp_path}/.pulumi-state", ""), ("docker",)), tmp_path)


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose command line ends with these, while the block runs."""
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", *arguments])
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def test_a_marker_of_nobody_who_works_is_an_interruption(stack: Stack) -> None:
    assert not was_interrupted(stack)
    stack.marker().touch()
    assert was_interrupted(stack)
    with process("pulumi") as ended:
        pass
    write_marker(stack.marker(), ended.pid, os.getpid())
    assert was_interrupted(stack)


def test_a_process_that_has_taken_over_the_number_is_not_waited_for(stack: Stack) -> None:
    with process("another program") as other:
        write_marker(stack.marker(), other.pid)
        assert was_interrupted(stack)


def test_a_run_is_left_alone_while_it_works_and_not_waited_for_when_it_was_killed(stack: Stack) -> None:
    with process("pulumi") as other:
        write_marker(stack.marker(), other.pid)
        with pytest.raises(SetupError, match=rf"process {other.pid} is working on the stack dev"):
            was_interrupted(stack)
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # ended, and still in the table: nobody has taken it away
        assert was_interrupted(stack)


@pytest.mark.parametrize(("program", "status", "left"), [("", 0, False), ("raise SystemExit(3)", 3, True)])
def test_the_marker_stays_exactly_when_pulumi_did_not_end_well(stack: Stack, program: str, status: int, left: bool) -> None:
    pulumi = stack.root / "pulumi"
    pulumi.write_text(f"#!{sys.executable}\nfrom pathlib import Path\nassert Path({str(stack.marker())!r}).exists()\n{program}\n")
    pulumi.chmod(0o755)
    assert Stack("dev", Tools(pulumi, stack.tools.state, ("docker",)), stack.root).run("up") == status
    assert stack.marker().exists() is left


PREFIX = "orthanc-stack-dev"
HEALTHY = ("running", "Up 3 minutes (healthy)")
STOPPED = ("exited", "Exited (0) 1 minute ago")
#: By role, which here is a part's name as well.
WELL = {"node": HEALTHY, "db": HEALTHY, "db-roles": STOPPED}
NODE = NodeSettings(name="node", aet="S", httpPort=8042, dicomPort=4242)


@pytest.mark.parametrize(
    ("change", "refresh"),
    [
        ({}, False),
        ({"db-roles": None}, False),  # the one-shot container may be gone
        ({"node": None}, True),
        ({"node": STOPPED}, True),
        ({"node": ("running", "Up 1 minute (unhealthy)")}, True),
        ({"node": ("running", "Up 1 second (health: starting)")}, False),
        ({"node": ("paused", "Up 1 hour (Paused)")}, True),
    ],
)
def test_pulumi_looks_at_each_resource_only_when_one_is_not_as_it_was(change: dict[str, tuple[str, str] | None], refresh: bool) -> None:
    def docker(arguments: Sequence[str]) -> str:
        assert f"label=orthanc-stack.stack={PREFIX}" in arguments
        found = {role: status for role, status in {**WELL, **change}.items() if status}
        labels = f"a=b,orthanc-stack.stack={PREFIX},orthanc-stack.role="
        return "\n".join(
            json.dumps({"Names": f"{PREFIX}-{role}", "ID": "0" * 64, "Labels": f"{labels}{role}", "State": state, "Status": status})
            for role, (state, status) in found.items()
        )

    settings = StackSettings(environment="dev", nodes=(NODE,))
    assert needs_refresh(list_containers(docker, PREFIX), settings, PREFIX) is refresh


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

    states = {**dict.fromkeys(("adminer", "node", "db", "db-roles"), STOPPED), "healthy": HEALTHY}
    found = [Container(role, role, role, *state) for role, state in states.items()]
    assert start_stopped(docker, found)
    assert started == ["db", "adminer", "node"]
    assert not start_stopped(docker, [Container("db", "db", "db", *HEALTHY)])
