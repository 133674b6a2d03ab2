"""What an interrupted run leaves, and what `make up`, `make down` and `make destroy` start, stop and refuse."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs.held import Held
from ops.setup.console import SetupError
from ops.setup.prepare import Tools
from ops.setup.state import State
from ops.stack import lifecycle
from ops.stack.containers import Container, Thing, list_containers
from ops.stack.lifecycle import stop_order
from ops.stack.recover import half_made, remove, was_interrupted
from ops.stack.stack import Stack, write_marker
from ops.stack.up import needs_refresh, refuse_removed, start_stopped
from tests.unit.stacks import node, settings_of, stack

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
def dev(tmp_path: Path) -> Stack:
    (tmp_path / ".pulumi-state").mkdir()
    return Stack("dev", Tools(Path("pulumi"), State(f"file://{tmp_path}/.pulumi-state", ""), ("docker",)), tmp_path)


@contextmanager
def process(folder: Path, name: str = "pulumi") -> Iterator[subprocess.Popen[bytes]]:
    """A process of a program of that name, while the block runs."""
    (folder / name).symlink_to(str(shutil.which("sleep")))
    started = subprocess.Popen([folder / name, "60"])
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def test_a_marker_of_nobody_who_works_is_an_interruption(dev: Stack, tmp_path: Path) -> None:
    assert not was_interrupted(dev)
    dev.marker().touch()
    assert was_interrupted(dev)
    with process(tmp_path) as ended:
        pass
    write_marker(dev.marker(), ended.pid, os.getpid())
    assert was_interrupted(dev)


def test_a_process_that_has_taken_over_the_number_is_not_waited_for(dev: Stack, tmp_path_factory: pytest.TempPathFactory) -> None:
    with process(tmp_path_factory.mktemp("bin"), "another") as other:
        write_marker(dev.marker(), other.pid)
        assert was_interrupted(dev)


def test_a_run_is_left_alone_while_it_works_and_not_waited_for_when_it_was_killed(
    dev: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")  # to which ps cuts a command line, the program's name with it
    with process(tmp_path) as other:
        write_marker(dev.marker(), other.pid)
        with pytest.raises(SetupError, match=rf"process {other.pid} is working on the stack dev"):
            was_interrupted(dev)
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # ended, and still in the table: nobody has taken it away
        assert was_interrupted(dev)


@pytest.mark.parametrize(("program", "status", "left"), [("", 0, False), ("raise SystemExit(3)", 3, True)])
def test_the_marker_stays_exactly_when_pulumi_did_not_end_well(dev: Stack, program: str, status: int, left: bool) -> None:
    pulumi = dev.root / "pulumi"
    pulumi.write_text(f"#!{sys.executable}\nfrom pathlib import Path\nassert Path({str(dev.marker())!r}).exists()\n{program}\n")
    pulumi.chmod(0o755)
    assert Stack("dev", Tools(pulumi, dev.tools.state, ("docker",)), dev.root).run("up") == status
    assert dev.marker().exists() is left


PREFIX = "orthanc-stack-dev"
HEALTHY = ("running", "Up 3 minutes (healthy)")
STOPPED = ("exited", "Exited (0) 1 minute ago")
#: By role, which here is a part's name as well.
WELL = {"node": HEALTHY, "db": HEALTHY, "db-roles": STOPPED}


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

    assert needs_refresh(list_containers(docker, PREFIX), settings_of(stack(node("node"))), PREFIX) is refresh


def test_the_database_stops_last() -> None:
    db, one, adminer = (Container(role, "", role, *HEALTHY) for role in ("db", "node", "adminer"))
    assert stop_order([db, one, adminer]) == [[one, adminer], [db]]
    assert stop_order([one]) == [[one]]


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


PART = "urn:pulumi:dev::orthanc-stack::orthanc-stack:index:OrthancNode$docker:index/volume:Volume::"
PROTECTING = Held(keeps_data=True)


def volume(part: str, *, protect: bool) -> dict[str, Any]:
    """A data volume as a state holds it."""
    return {"type": "docker:index/volume:Volume", "urn": f"{PART}{part}-data", "protect": protect, "outputs": {"name": f"s-{part}"}}


def destroy(monkeypatch: pytest.MonkeyPatch, held: Held, volumes: dict[str, bool], *, yes: bool = True) -> list[str]:
    """What Pulumi is asked to do about a stack with that state."""
    asked: list[str] = []

    def run(*arguments: str) -> int:
        asked.extend(arguments)
        return 0

    recorded = SimpleNamespace(name="dev", tools=SimpleNamespace(docker=()), held=lambda: held, volumes=lambda: volumes, run=run)
    monkeypatch.setattr(lifecycle, "deployed", lambda _: recorded)
    monkeypatch.setattr(lifecycle, "was_interrupted", lambda _: False)
    lifecycle.destroy("dev", yes=yes)
    return asked


def test_what_is_protected_stays_whatever_the_stack_file_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--exclude-protected" in destroy(monkeypatch, PROTECTING, {"s-a": True})
    assert "--exclude-protected" not in destroy(monkeypatch, Held(), {"s-a": False})


def test_a_run_that_was_to_protect_the_data_and_did_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SetupError, match=r"was to protect the data volumes, and did not end. `make up STACK=dev`"):
        destroy(monkeypatch, PROTECTING, {"s-a": True, "s-b": False})


def test_nobody_is_there_to_ask(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False))
    with pytest.raises(SetupError, match="YES=1"):
        destroy(monkeypatch, Held(), {"s-a": False, "s-b": True}, yes=False)
    assert "that go with it: s-a\n  that stay: s-b" in capsys.readouterr().out


def test_a_protected_node_that_the_stack_file_no_longer_has() -> None:
    volumes = [volume("kept", protect=True), volume("free", protect=False)]
    recorded: Any = SimpleNamespace(name="dev", export=lambda: {"resources": volumes})
    refuse_removed(recorded, settings_of(stack(node("kept"))))
    with pytest.raises(SetupError, match=rf"s-kept is protected[\s\S]*pulumi state unprotect '{PART.replace('$', '.')}kept-data'"):
        refuse_removed(recorded, settings_of(stack(node("free"))))
