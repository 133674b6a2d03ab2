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
from configs.starts import await_starts, limits_of
from configs.unseen import check_unseen

from components.engine import Engine, Volume, engine_url, host_in, is_local, reached_at
from configs import names, preflight, starts
from configs.held import Held
from configs.loader import parse
from configs.problems import Problem
from configs.settings import ImageSettings
from images import ImageChoice, candidates, choose
from tests.unit.stacks import node, only, settings_of, stack

ONE = stack(node("a"))
P = preflight.Stack("p", "p", Held(owner="me"))


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


def state(stack: str = "x", **held: Any) -> preflight.Stack:
    """A stack and what its state holds; its owner is "me"."""
    return preflight.Stack(names.prefix(stack), names.first_prefix(stack), Held(**{"owner": "me", **held}))


def checked(raw: dict[str, Any], engine: Engine, stack_x: preflight.Stack | None = None) -> list[Problem]:
    _, parts, problems = parse(raw)
    assert not problems
    return preflight.check(parts, stack_x or state(), engine)


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
ANOTHERS, BEFORE_OWNERS, UNKNOWN = Volume(owner="another", stack="orthanc-stack-x"), Volume(stack="orthanc-stack-x"), Volume()
#: The node room-archive of the stack ct, and a node of the stack ct-room, had volumes of one beginning in the first versions.
OF_CT_ROOM = "orthanc-stack-ct-room-a"
OF_DEBIAN, OF_ALPINE = {DB: Volume("postgresql-17", "me")}, {DB: Volume("postgresql-17-alpine", "me")}
DEBIAN, ALPINE = (stack(node("a"), images={"postgres": f"postgres:{tag}"}) for tag in ("17.11", "17.11-alpine3.22"))


@pytest.mark.parametrize(
    ("raw", "stack_x", "volumes", "place", "word"),
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
        *((ONE, state(owner=me), {A: found}, NAME, f"{A}, which") for me in ("me", "") for found in (ANOTHERS, BEFORE_OWNERS, UNKNOWN)),
        *((ADOPTING, state(), {A: found}, "", "") for found in (ANOTHERS, BEFORE_OWNERS, UNKNOWN)),
        (ONE, HELD, {A: BEFORE_OWNERS}, "", ""),
        (ONE, HELD, {A: Volume(owner="another")}, NAME, "another state made"),
        # Of the first versions: what is kept is not passed over in silence, and another stack's of that name is nobody's concern.
        (ONE, state("ct-room"), {OF_CT_ROOM: Volume(stack="orthanc-stack-ct-room")}, NAME, OF_CT_ROOM),
        (ONE, state("ct-room"), {OF_CT_ROOM: Volume(owner="another", stack="orthanc-stack-ct")}, "", ""),
        # The state holds one that the engine does not. A container's start makes an empty one of the name, which has no label.
        (ONE, LOST, {}, NAME, "v, which is gone from the engine"),
        (ONE, LOST, {"v": UNKNOWN}, NAME, "made anew"),
    ],
)
def test_a_volume_fits_or_is_refused(
    raw: dict[str, Any], stack_x: preflight.Stack, volumes: dict[str, Volume], place: str, word: str
) -> None:
    problems = checked(raw, Engine(volumes=volumes), stack_x)
    assert [str(problem).splitlines()[0].strip() for problem in problems] == ([place] if place else [])
    assert all(word in problem.message for problem in problems)


def test_what_is_built_here_is_debians_whatever_the_registrys_would_be() -> None:
    raw = stack(node("a"), images={"source": "auto", "postgres": "postgres:17.11-alpine"})
    assert checked(raw, Engine(volumes=OF_DEBIAN, images=frozenset(candidates()))) == []


def test_what_is_in_use_cannot_be_adopted() -> None:
    problem = only(checked(ADOPTING, Engine(volumes={A: ANOTHERS}, users=frozenset({"theirs"}))))
    assert (problem.path, "theirs still uses" in problem.message) == ("adopt", True)


def test_each_stack_has_volumes_of_its_own_and_keeps_them() -> None:
    assert state("ct").volume_of("room-archive") != state("ct-room").volume_of("archive")
    assert len({names.prefix(stack) for stack in ("a-b", "a_b", "a.b", "a.ub", "a..b", "ab")}) == 6
    renamed = state("new", volumes={"a-data": "orthanc-stack-old-a"})
    assert renamed.volume_of("a") == "orthanc-stack-old-a"
    adopted = preflight.Stack(names.prefix("ct-room"), names.first_prefix("ct-room"), adopted=frozenset({OF_CT_ROOM}))
    assert adopted.volume_of("a") == OF_CT_ROOM


# --- what the engine is asked ---


def test_locally_built_images_that_are_not_there() -> None:
    raw = stack(node("a"), images={"source": "local"})
    assert "make images" in only(checked(raw, Engine(images=frozenset(candidates()[:1])))).message
    assert checked(raw, Engine(images=frozenset(candidates()))) == []


def test_an_engine_that_is_not_there(tmp_path: Path) -> None:
    docker = docker_that(tmp_path, says="Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?\n", ends=1)
    engine = preflight.inspect(settings_of(ONE), P, docker)
    assert engine is not None
    message = only(checked(ONE, engine)).message
    assert "Cannot connect to the Docker daemon" in message
    assert "DOCKER_HOST" in message
    assert preflight.inspect(settings_of(ONE), P, ["docker-command-that-is-not-there"]) is None, "that is no error"


@pytest.mark.parametrize(
    ("status", "code", "again"), [("exited", 0, "before"), ("exited", 1, "id-of-roles-"), ("running", 0, "id-of-roles-")]
)
def test_what_makes_the_roles_runs_again_until_it_has_ended_well(tmp_path: Path, status: str, code: int, again: str) -> None:
    roles = {
        "Id": "id-of-roles-of-the-stack",
        "Config": {"Labels": {names.LABEL_ROLE: names.DB_ROLES}, "Env": ["PATH=/bin", f"{names.AGAIN}=before"]},
        "State": {"Status": status, "ExitCode": code, "Running": status == "running"},
    }
    engine = preflight.inspect(settings_of(ONE), P, docker_that(tmp_path, prints=[roles]))
    assert engine is not None
    assert engine.again == again


def test_what_the_engine_holds_is_read(tmp_path: Path) -> None:
    labels = {names.LABEL_FORMAT: "postgresql-17", names.LABEL_OWNER: "o", names.LABEL_STACK: "p"}
    volumes = [{"Name": "p-db", "Mountpoint": "/m", "Labels": labels}, {"Name": "p-a", "Mountpoint": "/m", "Labels": None}]
    prints = [
        {"RepoTags": ["orthanc-stack/orthanc:local-1"]},
        {"State": {"Running": True}, "HostConfig": {"PortBindings": {"8042/tcp": [{"HostPort": "8000"}]}}},
        {"State": {"Running": False}, "HostConfig": {"PortBindings": {"8042/tcp": [{"HostPort": "9000"}]}}},
    ]
    docker = docker_that(tmp_path, prints=prints, volumes=volumes, says="Error: No such object: p-b\n", ends=1)
    assert preflight.inspect(settings_of(ONE), P, docker) == Engine(
        local=True,
        images=frozenset({"orthanc-stack/orthanc:local-1"}),
        ports=frozenset({8000}),
        volumes={"p-db": Volume("postgresql-17", "o", "p"), "p-a": Volume()},
    )


def test_the_containers_that_the_state_holds_are_asked_for_by_their_identifiers(tmp_path: Path) -> None:
    """A second checkout's have the same names, and a renamed stack's have others. One that goes holds its ports until it is gone."""
    docker = command(tmp_path, f"echo \"$@\" >>'{tmp_path}/asked'; echo '[]'")
    held = {"a-container": "id-a", "a-forwarder-container": "id-f", "adminer-container": "id-ad", "gone-container": "id-gone"}
    settings = settings_of(stack(node("a", forwardTo=["b"], metricsPort=9042), node("b", 1)))
    preflight.inspect(settings, preflight.Stack("p", "p", Held(containers=held)), docker)
    (asked,) = [line.split() for line in (tmp_path / "asked").read_text().splitlines() if not line.startswith("volume")]
    assert [one for one in asked if one.startswith("id-")] == ["id-a", "id-f", "id-ad"]


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
    assert preflight.docker_command(config) == expected


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


# --- without a docker command: nothing makes or deletes a data volume, and the images stay ---

LAST = {"source": "local", "orthanc": "orthanc-stack/orthanc:local-0", "postgres": "orthanc-stack/postgres:local-0", "adminer": None}
AUTO = ImageSettings(source="auto")


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
    problems = check_unseen(settings_of(raw), ("a-data", "db-data"), {"nodes": {"a": {"index": "postgresql"}}})
    assert [problem.path for problem in problems] == paths
    assert all("docker command" in problem.message for problem in problems)


def test_a_first_deployment_that_nobody_can_look_at_is_refused() -> None:
    assert [problem.path for problem in check_unseen(settings_of(ONE), (), {})] == ["nodes[0]", "indexDb"]


def test_auto_stays_on_the_images_of_the_last_deployment() -> None:
    """Even those that an earlier checkout built; what it had none of is this one's."""
    assert choose(AUTO, None, LAST) == ImageChoice("local", str(LAST["orthanc"]), str(LAST["postgres"]), candidates()[2])
    of_the_stack_file = ImageChoice("registry", AUTO.orthanc, AUTO.postgres, AUTO.adminer)
    for last in (None, {}, LAST | {"source": "registry", "orthanc": "orthancteam/orthanc:1.0"}):
        assert choose(AUTO, None, last) == of_the_stack_file
    # Where the engine is seen, it decides.
    assert choose(AUTO, [], LAST) == of_the_stack_file
    assert choose(AUTO, candidates(), LAST).orthanc == candidates()[0]


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

    monkeypatch.setattr(starts, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
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
    assert limits_of(settings_of(stack(*nodes, indexDb={"startTimeout": "30m"})), "p") == {"p-a": 3600, "p-b": 120, "p-db": 1800}
    assert limits_of(settings_of(stack(nodes[1])), "p") == {"p-b": 120}
