"""What is checked against machine and engine before anything is touched: real sockets, and a docker command that answers from a file."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components import preflight
from components.engine import Engine, Volume, docker_command, engine_url, host_in, inspect, is_local, reached_at
from components.preflight import Situation, await_starts, start_limits
from configs import names
from configs.held import Held
from configs.loader import Loaded, parse
from configs.problems import Problem
from images import candidates
from tests.unit.stacks import node, only, settings_of, stack

ONE = stack(node("a"))


@pytest.fixture(autouse=True)
def no_docker_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port of loopback that something else listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def command(folder: Path, script: str) -> list[str]:
    """A docker command that is a shell script."""
    docker = folder / "docker"
    docker.write_text(f"#!/bin/sh\n{script}\n")
    docker.chmod(0o755)
    return [str(docker)]


def docker_that(folder: Path, *, prints: object = (), volumes: object = (), says: str = "", ends: int = 0) -> list[str]:
    """A docker command that prints JSON, of volumes when it is asked for them, says something on standard error, and ends."""
    for name, content in (("answer", json.dumps(prints)), ("volumes", json.dumps(volumes)), ("said", says)):
        (folder / name).write_text(content)
    answers = f"if [ $1 = volume ]; then cat '{folder}/volumes'; else cat '{folder}/answer'; fi"
    return command(folder, f"{answers}; cat '{folder}/said' >&2; exit {ends}")


def state(**held: Any) -> Held:
    """What the state holds; its owner is "me"."""
    return Held(**{"owner": "me", **held})


def situation(raw: dict[str, Any], engine: Engine | None = None, held: Held | None = None, stack: str = "x") -> Situation:
    return Situation(settings_of(raw), names.prefix(stack), f"orthanc-stack-{stack}", held or state(), engine or Engine())


def checked(
    raw: dict[str, Any], engine: Engine, held: Held | None = None, docker: list[str] | None = None, stack: str = "x"
) -> list[Problem]:
    _, parts, problems = parse(raw)
    assert not problems
    return preflight.check(parts, situation(raw, engine, held, stack), docker or ["true"])


# --- ports ---


def test_a_port_that_something_else_holds(taken_port: int) -> None:
    raw = stack(node("a", httpPort=taken_port))
    problem = only(checked(raw, Engine(local=True)))
    assert (problem.path, problem.value) == ("nodes[0].httpPort", taken_port)
    assert "is taken on this host" in problem.message
    assert checked(raw, Engine(local=True, ports=frozenset({taken_port}))) == [], "the stack itself holds it"
    assert checked(raw, Engine(local=False)) == [], "ports of an engine elsewhere are not this machine's"
    metrics = stack(node("a", forwardTo=["b"], metricsPort=taken_port), node("b", 1))
    assert only(checked(metrics, Engine(local=True))).path == "nodes[0].metricsPort"


def test_an_address_that_is_not_this_hosts() -> None:
    problems = checked(stack(node("a", bind="192.0.2.1")), Engine(local=True))  # TEST-NET-1: nobody's
    assert [problem.path for problem in problems] == ["nodes[0].httpPort", "nodes[0].dicomPort"]
    assert all("not an address of this host" in problem.message for problem in problems)


# --- volumes ---

NAME = "nodes[0].name = 'a'"
A, DB = "orthanc-stack-x-a", "orthanc-stack-x-db"
ADOPTING = stack(node("a"), adopt=[A])
HELD = state(volumes={"a-data": A})
LOST = state(volumes={"a-data": "v"}, labelled=frozenset({"v"}))
ANOTHERS, BEFORE_OWNERS = Volume(owner="another"), Volume()
OF_DEBIAN, OF_ALPINE = {DB: Volume("postgresql-17", "me")}, {DB: Volume("postgresql-17-alpine", "me")}
DEBIAN, ALPINE = (stack(node("a"), images={"postgres": f"postgres:{tag}"}) for tag in ("17.11", "17.11-alpine3.22"))


@pytest.mark.parametrize(
    ("raw", "held", "volumes", "place", "word"),
    [
        # The format of the data.
        (ONE, state(), {DB: Volume("postgresql-16", "me")}, "indexDb.majorVersion = '17'", "PostgreSQL 16 wrote"),
        (ONE, state(), {A: Volume("sqlite", "me")}, "nodes[0].index = 'postgresql'", "index is in sqlite"),
        (stack(node("a", index="sqlite")), state(), {A: Volume("postgresql", "me")}, "nodes[0].index = 'sqlite'", "index is in postgresql"),
        (ONE, state(), {A: Volume("postgresql", "me")}, "", ""),
        (stack(node("a", index="sqlite")), state(), {A: Volume("sqlite", "me")}, "", ""),
        # Each C library sorts text in its own way: the indexes of what was made under one are broken under the other. No mark is Debian's.
        (DEBIAN, state(), OF_DEBIAN, "", ""),
        (ALPINE, state(), OF_ALPINE, "", ""),
        (ALPINE, state(), OF_DEBIAN, "images.postgres = 'postgres:17.11-alpine3.22'", "under Debian's PostgreSQL"),
        (DEBIAN, state(), OF_ALPINE, "images.postgres = 'postgres:17.11'", "under Alpine's PostgreSQL"),
        # Whose it is. A first deployment has no owner yet, and neither has a volume without a label.
        *((ONE, state(owner=me), {A: found}, NAME, f"{A}, which") for me in ("me", "") for found in (ANOTHERS, BEFORE_OWNERS)),
        *((ADOPTING, state(), {A: found}, "", "") for found in (ANOTHERS, BEFORE_OWNERS)),
        (ONE, HELD, {A: BEFORE_OWNERS}, "", ""),
        (ONE, HELD, {A: Volume(owner="another")}, NAME, "another state made"),
        # The state holds one that the engine does not. A container's start makes an empty one of the name, which has no label.
        (ONE, LOST, {}, NAME, "v, which is gone from the engine"),
        (ONE, LOST, {"v": BEFORE_OWNERS}, NAME, "made anew"),
    ],
)
def test_a_volume_fits_or_is_refused(raw: dict[str, Any], held: Held, volumes: dict[str, Volume], place: str, word: str) -> None:
    problems = checked(raw, Engine(volumes=volumes), held)
    assert [str(problem).splitlines()[0].strip() for problem in problems] == ([place] if place else [])
    assert all(word in problem.message for problem in problems)


def test_what_is_built_here_is_debians_whatever_the_registrys_would_be() -> None:
    raw = stack(node("a"), images={"source": "auto", "postgres": "postgres:17.11-alpine"})
    assert checked(raw, Engine(volumes=OF_DEBIAN, images=frozenset(candidates()))) == []


def test_what_is_in_use_cannot_be_adopted(tmp_path: Path) -> None:
    docker = command(tmp_path, f'[ "$1 $5" = "ps volume={A}" ] && printf "id-theirs theirs\\nid-own own\\n"')
    problem = only(checked(ADOPTING, Engine(volumes={A: ANOTHERS}), state(containers={"a-container": "id-own"}), docker))
    assert (problem.path, "which theirs still uses" in problem.message) == ("adopt", True)


def test_a_volume_from_before_2026_12_is_not_passed_over_and_can_be_adopted() -> None:
    """A stack with a hyphen in its name had volumes of other names. Those of another stack are not its concern."""
    first = "orthanc-stack-ct-room-a"
    engine = Engine(volumes={first: Volume(stack="orthanc-stack-ct-room")})
    problem = only(checked(ONE, engine, stack="ct-room"))
    assert (problem.path, first in problem.message) == ("nodes[0].name", True)
    assert checked(ONE, engine, state(volumes={"a-data": first}), stack="ct-room") == []
    assert checked(ONE, Engine(volumes={first: Volume(owner="another", stack="orthanc-stack-ct")}), stack="ct-room") == []
    adopting = stack(node("a"), adopt=[first])
    assert situation(adopting, engine, stack="ct-room").volume_of("a") == first
    assert checked(adopting, engine, stack="ct-room") == []


def test_what_no_part_has_cannot_be_adopted() -> None:
    raw = stack(node("a"), adopt=["orthanc-stack-y-a", "gone"])
    problem = only(checked(raw, Engine(volumes={"orthanc-stack-y-a": ANOTHERS})))
    assert (problem.path, problem.value, "orthanc-stack-x-a, orthanc-stack-x-db" in problem.message) == (
        "adopt",
        ["orthanc-stack-y-a"],
        True,
    )


def test_each_stack_has_volumes_of_its_own_and_keeps_them() -> None:
    assert situation(ONE, stack="ct").volume_of("room-archive") != situation(ONE, stack="ct-room").volume_of("archive")
    assert len({names.prefix(stack) for stack in ("a-b", "a_b", "a.b", "a.ub", "a..b", "ab")}) == 6
    renamed = situation(ONE, held=state(volumes={"a-data": "orthanc-stack-old-a"}), stack="new")
    assert renamed.volume_of("a") == "orthanc-stack-old-a"


# --- what the engine is asked ---


def test_locally_built_images_that_are_not_there() -> None:
    raw = stack(node("a"), images={"source": "local"})
    assert "./orthanc-stack images STACK" in only(checked(raw, Engine(images=frozenset(candidates()[:1])))).message
    assert checked(raw, Engine(images=frozenset(candidates()))) == []


def test_an_engine_that_is_not_there(tmp_path: Path) -> None:
    docker = docker_that(tmp_path, says="Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?\n", ends=1)
    message = only(checked(ONE, inspect(docker, [], [], []))).message
    assert "Cannot connect to the Docker daemon" in message
    assert "DOCKER_HOST" in message
    message = only(checked(ONE, inspect(["docker-command-that-is-not-there"], [], [], []))).message
    assert "Install Docker's command-line client" in message


@pytest.mark.parametrize(
    ("status", "code", "again"), [("exited", 0, "before"), ("exited", 1, "id-of-roles-"), ("running", 0, "id-of-roles-")]
)
def test_what_makes_the_roles_runs_again_until_it_has_ended_well(tmp_path: Path, status: str, code: int, again: str) -> None:
    roles = {
        "Id": "id-of-roles-of-the-stack",
        "Config": {"Labels": {names.LABEL_ROLE: names.DB_ROLES}, "Env": ["PATH=/bin", f"{names.AGAIN}=before"]},
        "State": {"Status": status, "ExitCode": code, "Running": status == "running"},
    }
    assert inspect(docker_that(tmp_path, prints=[roles]), [], [], []).again == again


def test_the_ports_of_what_an_interrupted_run_has_made_are_the_stacks_own(tmp_path: Path) -> None:
    ports = "127.0.0.1:4242->4242/tcp, [::1]:8042->8042/tcp\\n\\n127.0.0.1:8080->8080/tcp"
    asks = f'[ "$3" = label={names.LABEL_OWNER}=me ] && printf "{ports}"'
    docker = command(tmp_path, f"if [ $1 = ps ]; then {asks}; else echo '[]'; fi")
    assert inspect(docker, [], [], [], "me").ports == {4242, 8042, 8080}
    assert inspect(docker, [], [], []).ports == set()


def test_what_the_engine_holds_is_read(tmp_path: Path) -> None:
    labels = {names.LABEL_FORMAT: "postgresql-17", names.LABEL_OWNER: "o", names.LABEL_STACK: "p"}
    volumes = [{"Name": "p-db", "Mountpoint": "/m", "Labels": labels}, {"Name": "p-a", "Mountpoint": "/m", "Labels": None}]
    prints = [
        {"RepoTags": ["orthanc-stack/orthanc:local-1"]},
        {"State": {"Running": True}, "HostConfig": {"PortBindings": {"8042/tcp": [{"HostPort": "8000"}]}}},
        {"State": {"Running": False}, "HostConfig": {"PortBindings": {"8042/tcp": [{"HostPort": "9000"}]}}},
    ]
    docker = docker_that(tmp_path, prints=prints, volumes=volumes, says="Error: No such object: p-b\n", ends=1)
    assert inspect(docker, [], [], []) == Engine(
        local=True,
        images=frozenset({"orthanc-stack/orthanc:local-1"}),
        ports=frozenset({8000}),
        volumes={"p-db": Volume("postgresql-17", "o", "p"), "p-a": Volume()},
    )


def test_the_engine_is_asked_for_what_the_state_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second checkout's containers have the same names, and a renamed stack's have others. One that goes holds its ports until it is
    gone.
    """
    docker = command(tmp_path, f"echo \"$@\" >>'{tmp_path}/asked'; echo '[]'")
    containers = {"a-container": "id-a", "a-forwarder-container": "id-f", "adminer-container": "id-ad", "gone-container": "id-gone"}
    raw = stack(node("a", forwardTo=["b"], metricsPort=9042), node("b", 1), adopt=["theirs"])
    _, parts, _ = parse(raw)
    monkeypatch.setattr(preflight, "_read_state", lambda: state(containers=containers, volumes={"a-data": "v"}))
    monkeypatch.setattr(preflight, "docker_command", lambda _: docker)
    monkeypatch.setattr(preflight, "check", lambda *_: [])
    monkeypatch.setattr("pulumi.get_stack", lambda: "x")
    monkeypatch.setattr("pulumi.get_project", lambda: "orthanc-stack")
    preflight.look(Loaded(settings_of(raw), parts), {})
    lines = [line.split() for line in (tmp_path / "asked").read_text().splitlines()]
    (asked,) = [line for line in lines if line[0] == "inspect"]
    assert [one for one in asked if one.startswith("id-")] == ["id-a", "id-f", "id-ad"]
    (volumes,) = [line[2:] for line in lines if line[:2] == ["volume", "inspect"]]
    assert sorted(volumes) == ["orthanc-stack-x-b", "orthanc-stack-x-db", "theirs", "v"]


# --- where the engine is ---


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, ["docker"]),
        ({"docker:host": "ssh://x"}, ["docker", "--host", "ssh://x"]),
        ({"docker:context": "c"}, ["docker", "--context", "c"]),
    ],
)
def test_the_engine_of_the_stack_file_is_asked(config: dict[str, str], expected: list[str]) -> None:
    assert docker_command(config) == expected


def test_which_engine_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = command(tmp_path, '[ "$1 $2" = "context inspect" ] && echo "ssh://of-${3#--format}"')
    assert engine_url(docker) == "unix://"
    assert engine_url([*docker, "--host", "tcp://x:1"]) == "tcp://x:1"
    assert engine_url([*docker, "--context", "x"]) == "ssh://of-x"
    assert engine_url(["/no/docker", "--context", "x"]) == ""
    monkeypatch.setenv("DOCKER_CONTEXT", "y")
    assert engine_url(docker) == "ssh://of-"
    monkeypatch.setenv("DOCKER_HOST", "ssh://z")
    assert engine_url(docker) == "ssh://z"
    assert engine_url([*docker, "--context", "x"]) == "ssh://of-x"


@pytest.mark.parametrize(
    ("url", "host", "local"),
    [
        ("unix:///var/run/docker.sock", "", True),
        ("npipe:////./pipe/docker_engine", "", True),
        ("ssh://root@docker7", "docker7", False),
        ("ssh://root@docker7:2222/run/docker.sock", "docker7", False),
        ("tcp://10.0.0.7:2376", "10.0.0.7", False),
        ("tcp://[fd00::7]:2376", "fd00::7", False),
        ("tcp://127.0.0.1:2375", "", False),
        ("tcp://localhost:2375", "", False),
        ("tcp://[broken", "", False),
        ("", "", False),
    ],
)
def test_the_host_of_an_engine(url: str, host: str, local: bool) -> None:
    assert (host_in(url), is_local(url)) == (host, local)


@pytest.mark.parametrize(
    ("address", "here", "elsewhere"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("10.0.0.7", "10.0.0.7", "10.0.0.7"),
        ("0.0.0.0", "127.0.0.1", "docker7"),
        ("::", "::1", "docker7"),
        ("fd00::7", "fd00::7", "fd00::7"),
    ],
)
def test_where_a_port_is_reached(address: str, here: str, elsewhere: str) -> None:
    assert (reached_at(address, ""), reached_at(address, "docker7")) == (here, elsewhere)


# --- what is starting is waited for ---


def docker_that_knows(folder: Path, *states: str) -> list[str]:
    """A docker command that knows these containers' states, and nothing of the others."""
    (folder / "states").write_text("".join(f"/{state}\n" for state in states))
    return command(folder, f"cat '{folder}/states'; echo 'Error: No such container: x' >&2; exit 1")


@pytest.mark.parametrize("found", ["running healthy 0", "running unhealthy 0", "running starting 3", "restarting starting 1", "exited  0"])
def test_what_serves_or_has_failed_is_not_waited_for(tmp_path: Path, found: str) -> None:
    said: list[str] = []
    assert await_starts({"p-a": 60}, docker_that_knows(tmp_path, f"p-a {found}"), said.append) is None
    assert said == []


def test_what_is_starting_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker, said, slept = docker_that_knows(tmp_path, "p-a running starting 0", "p-b running healthy 0"), list[str](), list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            docker_that_knows(tmp_path, "p-a running healthy 0")

    monkeypatch.setattr(preflight, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    assert await_starts({"p-a": 60, "p-b": 60}, docker, said.append) is None
    assert slept == [1, 1, 1]
    assert len(said) == 1
    assert "p-a is still starting" in said[0]


def test_a_start_that_does_not_end_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    refusal = await_starts({"p-a": 0, "p-b": 60}, docker_that_knows(tmp_path, "p-a running starting 0"), lambda _: None)
    assert refusal is not None
    assert "docker stop p-a" in refusal


def test_each_has_its_own_limit() -> None:
    nodes = node("a", startTimeout="1h"), node("b", 1, index="sqlite")
    raw = stack(*nodes, indexDb={"startTimeout": "30m"})
    assert start_limits(situation(raw)) == {"orthanc-stack-x-a": 3600, "orthanc-stack-x-b": 120, "orthanc-stack-x-db": 1800}
    assert start_limits(situation(stack(nodes[1]))) == {"orthanc-stack-x-b": 120}
