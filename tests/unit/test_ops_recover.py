"""What an interrupted run leaves: only what Pulumi does not know is removed, and never a volume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from configs.settings import NodeSettings, StackSettings
from ops.containers import Container, Thing, list_containers
from ops.lifecycle import stop_order
from ops.prepare import Tools
from ops.recover import leftovers, remove, was_interrupted
from ops.setup.console import SetupError
from ops.setup.state import State
from ops.stack import Stack, write_marker
from ops.up import needs_refresh, start_stopped

KNOWN = Thing("container", "id-known", "s-db")
LOST = Thing("container", "id-lost", "s-server")
LOST_NETWORK = Thing("network", "id-net", "s-network")
VOLUME = Thing("volume", "s-db", "s-db")
STATE = [{"type": "docker:index/container:Container", "id": "id-known"}, {"type": "pulumi:pulumi:Stack"}]


def test_only_what_the_state_does_not_know_is_removed() -> None:
    assert leftovers([KNOWN, LOST], STATE) == [LOST]


def test_containers_go_before_the_networks_that_they_use() -> None:
    assert leftovers([LOST_NETWORK, LOST], STATE) == [LOST, LOST_NETWORK]


def test_a_volume_is_never_removed() -> None:
    assert leftovers([VOLUME], []) == []


def test_a_known_network_stays() -> None:
    assert leftovers([LOST_NETWORK], [{"type": "docker:index/network:Network", "id": "id-net"}]) == []


def test_an_identifier_counts_only_for_its_kind() -> None:
    volume = {"type": "docker:index/volume:Volume", "id": "id-lost"}
    assert leftovers([LOST], [volume]) == [LOST]


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
