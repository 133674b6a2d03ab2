"""What a run leaves that ended in the middle, and what `up` and `down` start, stop and refuse."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs.held import Held
from configs.settings import StackSettings
from ops.setup.console import SetupError
from ops.setup.prepare import Tools
from ops.setup.state import State
from ops.stack import engine, interrupted, lifecycle, up
from ops.stack import stack as operated
from ops.stack.engine import Container, amiss
from ops.stack.interrupted import half_made
from ops.stack.lifecycle import stop_order
from ops.stack.stack import Stack
from ops.stack.up import refuse_unplanned, start_stopped
from tests.unit.containers import HEALTHY, PREFIX, STOPPED, container, in_state

CONTAINER, NETWORK, VOLUME = ("docker:index/container:Container", "docker:index/network:Network", "docker:index/volume:Volume")


def creating(kind: str, name: str, operation: str = "creating") -> dict[str, Any]:
    return {"type": operation, "resource": {"type": kind, "urn": f"urn::{name}", "inputs": {"name": name}}}


PENDING = [creating(NETWORK, "s-network"), creating(CONTAINER, "s-server"), creating(VOLUME, "s-server")]


class FakeEngine:
    """An engine whose things were all made by one owner."""

    def __init__(self, owner: str) -> None:
        def listing(*names: str) -> Any:
            def listed(*, filters: dict[str, str], **_: Any) -> list[Any]:
                ours = filters["label"] == f"orthanc-stack.owner={owner}"
                return [SimpleNamespace(name=name, id=f"id-{name}") for name in names] if ours else []

            return SimpleNamespace(list=listed)

        self.containers, self.networks = listing("s-client", "s-server"), listing("s-network", "s-other")


@pytest.mark.parametrize(
    ("pending", "owners", "known", "removed"),
    [
        pytest.param(PENDING, ("me", "me"), set(), ["s-server", "s-network"], id="what was being made, containers before their networks"),
        pytest.param(PENDING, ("me", "me"), {"id-s-server"}, ["s-network"], id="not what the state knows all the same"),
        # A second checkout of the same stack file, with a state of its own.
        pytest.param(PENDING, ("another", "me"), set(), [], id="not what another state made under the same name"),
        pytest.param(PENDING, ("", ""), set(), [], id="nothing for a state that has made nothing"),
        pytest.param([creating(CONTAINER, "s-server", "deleting")], ("me", "me"), set(), [], id="not what was being deleted"),
        pytest.param([], ("me", "me"), set(), [], id="not what is not pending"),
    ],
)
def test_only_what_this_state_was_making_is_removed(
    pending: Any, owners: tuple[str, str], known: set[str], removed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made_by, owner = owners
    monkeypatch.setattr(interrupted, "client", lambda: FakeEngine(made_by))
    assert [thing.name for thing in half_made(pending, owner, known)] == removed


@pytest.fixture
def dev(tmp_path: Path) -> Callable[[str], Stack]:
    """A stack whose pulumi is a program of the test's."""

    def made(program: str) -> Stack:
        pulumi = tmp_path / "pulumi-program"
        pulumi.write_text(f"#!{sys.executable}\nimport sys, json\n{program}\n")
        pulumi.chmod(0o755)
        return Stack("dev", Tools(pulumi, State(f"file://{tmp_path}", "")), tmp_path)

    return made


def test_nothing_is_removed_while_another_run_lives(dev: Callable[[str], Stack], monkeypatch: pytest.MonkeyPatch) -> None:
    """Pulumi refuses the refresh, which comes first."""
    state = json.dumps({"deployment": {"pending_operations": PENDING, "resources": []}})
    living = dev(f"print({state!r})\nsys.exit('error: the stack is currently locked' if sys.argv[1] == 'refresh' else 0)")
    monkeypatch.setattr(interrupted, "half_made", lambda *_: pytest.fail("it was looked at what to remove"))
    with pytest.raises(SetupError, match=r"locked: wait for that run, or, where it has died, `\./orthanc-stack unlock dev`"):
        interrupted.put_right(living)


def test_only_a_stack_that_the_backend_does_not_know_is_none(dev: Callable[[str], Stack]) -> None:
    assert dev("print('{}')").exists()
    assert not dev("sys.exit(\"error: no stack named 'dev' found\")").exists()
    with pytest.raises(SetupError, match="AccessDenied"):
        dev("sys.exit('error: AccessDenied: status code: 403')").exists()
    with pytest.raises(SetupError, match=r"postgres://ops:…@db/state: failed"):  # it goes on into the report of a preview
        dev("sys.exit('error: unable to open bucket postgres://ops:geheim@db/state: failed to ping')").exists()


def test_what_was_begun_is_told_by_name(dev: Callable[[str], Stack]) -> None:
    assert dev(f"print({json.dumps({'deployment': {'pending_operations': PENDING}})!r})").unfinished == ["s-network", "s-server"]
    assert dev("print('{}')").unfinished == []


# --- the lock ---


@pytest.fixture
def locked(dev: Callable[[str], Stack], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], Stack]:
    """A stack whose lock is held by a process of a machine. Its pulumi notes that it was asked to cancel."""
    it = dev("open('cancelled', 'w') if sys.argv[1] == 'cancel' else print('{}')")
    monkeypatch.setattr(interrupted, "deployed", lambda *_, **__: it)

    def held_by(pid: int, machine: str) -> Stack:
        folder = tmp_path / ".pulumi" / "locks" / "organization" / "orthanc-stack" / "dev"
        folder.mkdir(parents=True)
        lock = {"pid": pid, "username": "ops", "hostname": machine, "timestamp": "2026-11-28T01:00:00Z"}
        (folder / "a.json").write_text(json.dumps(lock))
        return it

    return held_by


def test_the_lock_of_a_run_that_lives_stays(locked: Callable[[int, str], Stack], tmp_path: Path) -> None:
    (tmp_path / "pulumi").symlink_to(str(shutil.which("sleep")))
    with subprocess.Popen([tmp_path / "pulumi", "60"]) as run:
        try:
            while "pulumi" not in Path(f"/proc/{run.pid}/comm").read_text():
                time.sleep(0.01)  # it is this test's own for a moment
            locked(run.pid, socket.gethostname())
            with pytest.raises(SetupError, match=rf"process {run.pid} of ops"):
                interrupted.unlock("dev", yes=True)
        finally:
            run.kill()
    assert not (tmp_path / "cancelled").exists()


@pytest.mark.parametrize("machine", [socket.gethostname(), "another"])
def test_the_lock_of_a_run_that_died_goes_when_it_is_asked_for(locked: Callable[[int, str], Stack], tmp_path: Path, machine: str) -> None:
    """The number of a process here may have gone to another program since: this one."""
    locked(os.getpid(), machine)
    assert interrupted.unlock("dev", yes=True) == 0
    assert (tmp_path / "cancelled").exists()


def test_without_a_lock_there_is_nothing_to_take_away(
    dev: Callable[[str], Stack], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    it = dev("open('cancelled', 'w') if sys.argv[1] == 'cancel' else print('{}')")
    monkeypatch.setattr(interrupted, "deployed", lambda *_, **__: it)
    assert interrupted.unlock("dev", yes=True) == 0
    assert "nobody holds a lock" in capsys.readouterr().err
    assert not (tmp_path / "cancelled").exists()


def test_a_lock_is_not_taken_away_where_nobody_is_there_to_ask(locked: Callable[[int, str], Stack], tmp_path: Path) -> None:
    locked(0, "another")
    with pytest.raises(SetupError, match=r"\./orthanc-stack unlock dev --yes"):
        interrupted.unlock("dev", yes=False)
    assert not (tmp_path / "cancelled").exists()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "7", '{"pid": null}', '{"pid": "x"}', '{"pid": -1, "hostname": HERE}', '{"pid": 1e99, "hostname": HERE}',
     f'{{"pid": {10**30}, "hostname": HERE}}', '{"username": "\\u001b[2J", "hostname": HERE}'],
)  # fmt: skip
def test_a_broken_lock_is_told_and_goes_when_it_is_asked_for(
    locked: Callable[[int, str], Stack], tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    locked(0, "another")
    next(tmp_path.rglob("a.json")).write_text(content.replace("HERE", json.dumps(socket.gethostname())))
    assert interrupted.unlock("dev", yes=True) == 0
    assert (tmp_path / "cancelled").exists()
    told = capsys.readouterr().err
    assert "Lock       of process" in told
    assert "\x1b" not in told


# --- as it was deployed ---

RESOURCES = [in_state("server", "node"), in_state("db"), in_state("db-roles"), {"type": VOLUME, "id": "server"}]
WELL = [container("server", "node"), container("db"), container("db-roles", **STOPPED)]


@pytest.mark.parametrize(
    ("part", "how", "said"),
    [
        ("server", None, "missing"),
        ("server", STOPPED, "exited, with exit status 0"),
        ("server", {"state": "running", "health": "unhealthy"}, "unhealthy"),
        ("server", {"state": "running", "health": "starting"}, ""),
        ("server", {"state": "restarting", "exit_status": 1}, ""),
        ("server", {"state": "paused", "health": "healthy"}, "paused"),
        ("db-roles", None, "missing"),
        ("db-roles", {"state": "exited", "exit_status": 1}, "exited, with exit status 1"),
        ("db-roles", {"state": "running"}, ""),
        ("db", HEALTHY, ""),
    ],
)
def test_a_stack_is_as_it_was_deployed_or_it_is_said_what_is_not(part: str, how: dict[str, Any] | None, said: str) -> None:
    found = [one for one in WELL if one.part != part] + ([container(part, "node" if part == "server" else "", **how)] if how else [])
    assert amiss(RESOURCES, found) == ({f"{PREFIX}-{part}": said} if said else {})


def test_a_plan_is_refused_where_something_else_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(found: list[Container], pending: list[Any]) -> str:
        monkeypatch.setattr(up, "containers_of", lambda *_: found)
        names = [one["resource"]["inputs"]["name"] for one in pending]
        it: Any = SimpleNamespace(name="dev", prefix=PREFIX, resources=RESOURCES, unfinished=names, held=Held)
        try:
            refuse_unplanned(it, tmp_path / "p.json")
        except SetupError as error:
            return str(error)
        return ""

    assert refused(WELL, []) == ""
    assert "db is missing: the plan p.json knows nothing of that. `./orthanc-stack up dev` without it" in refused([WELL[0], WELL[2]], [])
    assert "an earlier run ended while it was changing s-network" in refused(WELL, PENDING)
    # A one-shot that has ended may be pruned: no plan would ever be taken again.
    assert refused(WELL[:2], []) == ""


def test_the_database_stops_last() -> None:
    db, one, adminer, forwarder = container("db"), container("server", "node"), container("adminer"), container("f", "forwarder")
    assert stop_order([db, one, adminer, forwarder]) == [[forwarder], [one, adminer], [db]]
    assert stop_order([one]) == [[one]]


class Startable:
    """What the SDK has of a container that is started."""

    def __init__(self, part: str, started: list[str]) -> None:
        self.part, self.started = part, started

    def start(self) -> None:
        self.started.append(self.part)
        if self.part == "server":
            raise OSError("port is already allocated")


def test_what_was_stopped_is_started_again_the_database_first_and_the_one_shot_not() -> None:
    started: list[str] = []
    parts = {"adminer": STOPPED, "server": STOPPED, "db": STOPPED, "db-roles": STOPPED, "healthy": HEALTHY}
    found = [container(part, handle=Startable(part, started), **how) for part, how in parts.items()]
    assert start_stopped(found)
    assert started == ["db", "adminer", "server"]
    assert not start_stopped([container("db")])


def test_what_a_run_has_half_made_is_stopped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state does not know it, and it serves: a copy of its volume would be one of a volume in use."""
    stopped: list[str] = []

    def handle(name: str, owner: str) -> Any:
        state = {"Status": "running", "ExitCode": 0}
        labels = {"orthanc-stack.owner": owner, "orthanc-stack.role": "node"}
        attributes = {"State": state, "Config": {"Hostname": name}}
        return SimpleNamespace(name=name, id=name, labels=labels, attrs=attributes, stop=lambda timeout: stopped.append(name))

    found = [handle("known", "me"), handle("half-made", "me"), handle("anothers", "another")]
    listed = SimpleNamespace(containers=SimpleNamespace(list=lambda **_: found))
    monkeypatch.setattr(engine, "client", lambda: listed)
    held = Held(owner="me", containers={"known-container": "known"})
    monkeypatch.setattr(lifecycle, "deployed", lambda _: SimpleNamespace(prefix=PREFIX, held=lambda: held))
    assert lifecycle.down("dev") == 0
    assert sorted(stopped) == ["half-made", "known"]


def test_pulumi_asks_nothing_of_its_own(dev: Callable[[str], Stack]) -> None:
    """On a terminal it would ask about each operation that an earlier run has begun."""
    state = json.dumps({"deployment": {"resources": []}})
    it = dev(f"print({state!r})\nsys.exit(0 if sys.argv[1] != 'refresh' or '--non-interactive' in sys.argv else 7)")
    interrupted.put_right(it)


def test_a_killed_pulumi_and_a_misspelt_stack_are_told(dev: Callable[[str], Stack], monkeypatch: pytest.MonkeyPatch) -> None:
    it = dev("sys.exit(\"error: no stack named 'deb' found\")")
    assert "was killed (signal 9), and may have left its lock" in str(it.failure("`up` of dev did not end well", -9))
    monkeypatch.setattr(operated, "prepare", lambda *_, **__: it.tools)
    with pytest.raises(SetupError, match=r"there is no stack deb in .*\. Did you mean 'dev'\?"):
        operated.deployed("deb")


def test_what_the_engine_refuses_is_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    engine.client.cache_clear()
    with pytest.raises(SetupError, match="the Docker engine: "):
        engine.list_containers(PREFIX)
    engine.client.cache_clear()


def test_an_engines_address_that_is_none_is_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:port")
    engine.client.cache_clear()
    with pytest.raises(SetupError, match="the Docker engine: Port could not be cast"):
        engine.client()


def test_the_lock_of_another_users_run_that_died_goes(locked: Callable[[int, str], Stack], monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of its process has gone to another program of another user's since: this one."""

    def refuse(*_: int) -> None:
        raise PermissionError

    locked(os.getpid(), socket.gethostname())
    monkeypatch.setattr(os, "kill", refuse)
    assert interrupted.unlock("dev", yes=True) == 0


@pytest.mark.parametrize(("on_engine", "refused"), [(["s-db"], True), (["s-db-of-another"], False), ([], False)])
def test_a_database_without_its_password_is_refused(
    on_engine: list[str], refused: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "Pulumi.dev.yaml").write_text("config:\n")
    named = [SimpleNamespace(name=name) for name in on_engine]
    monkeypatch.setattr(up, "client", lambda: SimpleNamespace(volumes=SimpleNamespace(list=lambda **_: named)))
    recorded: Any = SimpleNamespace(name="dev", root=tmp_path, held=lambda: Held(volumes={"db-data": "s-db"}))
    with pytest.raises(SetupError, match=r'eval "\$\(./orthanc-stack env dev\)"\n    pulumi config set') if refused else nullcontext():
        up.refuse_lost_password(recorded, StackSettings(nodes=()))


def test_an_engine_that_hangs_keeps_nobody(monkeypatch: pytest.MonkeyPatch, dev: Callable[[str], Stack]) -> None:
    hanging, asked = threading.Event(), threading.Event()

    def look(_: str) -> list[Container]:
        if threading.current_thread() is not threading.main_thread():
            asked.set()
            hanging.wait(30)
        return []

    monkeypatch.setattr(up, "_look", look)
    monkeypatch.setattr(up, "_WATCH_SECONDS", 0.01)
    started = time.monotonic()
    with up.watching(dev("")):
        assert asked.wait(10)
    assert time.monotonic() - started < 10
    hanging.set()


def test_a_container_that_restarts_is_told_with_the_end_of_its_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], dev: Callable[[str], Stack]
) -> None:
    log = SimpleNamespace(logs=lambda **_: b"\x1b[2Jno licence\n")
    looks = [[container("server", state="restarting", restarts=restarts, handle=log)] for restarts in (5, 6, 7)]
    monkeypatch.setattr(up, "list_containers", lambda _: looks.pop(0) if len(looks) > 1 else looks[0])
    monkeypatch.setattr(up, "_WATCH_SECONDS", 0.01)
    with up.watching(dev("")):
        time.sleep(0.3)
    told = capsys.readouterr().out
    assert told.count("ends and is started again, 7 times by now") == 1
    assert r"| \x1b[2Jno licence" in told
