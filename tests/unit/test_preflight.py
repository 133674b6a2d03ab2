"""What is checked against the machine: real sockets, and a docker command that answers from a file."""

from __future__ import annotations

import json
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from configs import names, preflight
from configs.held import Held
from configs.images import candidates
from configs.loader import parse
from configs.preflight import Engine, Volume
from tests.unit.stacks import node, only, settings_of, stack

P = preflight.Stack("p", "p", Held(owner="me"))


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port of loopback that something else listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def docker_that(folder: Path, *, prints: object = (), volumes: object = (), says: str = "", ends: int = 0) -> list[str]:
    """A docker command that prints JSON, of volumes when it is asked for them, says something on standard error, and ends."""
    (folder / "answer").write_text(json.dumps(prints))
    (folder / "volumes").write_text(json.dumps(volumes))
    (folder / "said").write_text(says)
    command = folder / "docker"
    answers = f"if [ $1 = volume ]; then cat '{folder}/volumes'; else cat '{folder}/answer'; fi"
    command.write_text(f"#!/bin/sh\n{answers}; cat '{folder}/said' >&2; exit {ends}\n")
    command.chmod(command.stat().st_mode | stat.S_IEXEC)
    return [str(command)]


def state(stack: str = "x", **held: Any) -> preflight.Stack:
    """A stack and what its state holds; its owner is "me"."""
    return preflight.Stack(names.prefix(stack), names.first_prefix(stack), Held(**{"owner": "me", **held}))


def checked(raw: dict[str, Any], engine: Engine, stack_x: preflight.Stack | None = None) -> list[Any]:
    stack_x = stack_x or state()
    _, parts, problems = parse(raw)
    assert not problems
    return preflight.check(parts, stack_x, engine)


def test_a_port_that_something_else_holds(taken_port: int) -> None:
    problem = only(checked(stack(node("a", httpPort=taken_port)), Engine(local=True)))
    assert (problem.path, problem.value) == ("nodes[0].httpPort", taken_port)
    assert "is taken on this host" in problem.message


def test_a_port_that_the_stack_itself_holds(taken_port: int) -> None:
    assert checked(stack(node("a", httpPort=taken_port)), Engine(local=True, ports=frozenset({taken_port}))) == []


def test_ports_of_an_engine_elsewhere_are_not_this_machines(taken_port: int) -> None:
    assert checked(stack(node("a", httpPort=taken_port)), Engine(local=False)) == []


def test_an_address_that_is_not_this_hosts() -> None:
    problems = checked(stack(node("a", bind="192.0.2.1")), Engine(local=True))  # TEST-NET-1: nobody's
    assert [problem.path for problem in problems] == ["nodes[0].httpPort", "nodes[0].dicomPort"]
    assert all("not an address of this host" in problem.message for problem in problems)


def test_a_volume_of_another_major_version() -> None:
    engine = Engine(volumes={"orthanc-stack-x-db": Volume("postgresql-16", "me")})
    problem = only(checked(stack(node("a")), engine))
    assert problem.path == "indexDb.majorVersion"
    assert "PostgreSQL 16 wrote" in problem.message


@pytest.mark.parametrize(
    ("held", "tag", "fits"),
    [
        ("postgresql-17", "17.11", True),  # before there was the mark, and after
        ("postgresql-17", "17.11-alpine3.22", False),
        ("postgresql-17-alpine", "17.11-alpine3.22", True),
        ("postgresql-17-alpine", "17.11", False),
    ],
)
def test_data_of_another_c_library(held: str, tag: str, fits: bool) -> None:
    """Text is sorted otherwise: the indexes of what was made under one are broken under the other."""
    raw = stack(node("a"), images={"source": "registry", "postgres": f"postgres:{tag}"})
    problems = checked(raw, Engine(volumes={"orthanc-stack-x-db": Volume(held, "me")}))
    assert [(problem.path, problem.value) for problem in problems] == ([] if fits else [("images.postgres", f"postgres:{tag}")])
    if not fits:
        assert f"made under {'Alpine' if held.endswith('alpine') else 'Debian'}'s PostgreSQL" in problems[0].message


def test_what_is_built_here_is_debians_whatever_the_registrys_would_be() -> None:
    raw = stack(node("a"), images={"source": "auto", "postgres": "postgres:17.11-alpine"})
    engine = Engine(volumes={"orthanc-stack-x-db": Volume("postgresql-17", "me")}, images=frozenset(candidates()))
    assert checked(raw, engine) == []


@pytest.mark.parametrize(("held", "wanted"), [("sqlite", "postgresql"), ("postgresql", "sqlite")])
def test_a_node_whose_index_is_elsewhere(held: str, wanted: str) -> None:
    engine = Engine(volumes={"orthanc-stack-x-a": Volume(held, "me")})
    problem = only(checked(stack(node("a", index=wanted)), engine))
    assert (problem.path, problem.value) == ("nodes[0].index", wanted)
    assert checked(stack(node("a", index=held)), engine) == []


@pytest.mark.parametrize("found", [Volume(owner="another", stack="orthanc-stack-x"), Volume(stack="orthanc-stack-x"), Volume()])
def test_a_volume_that_this_state_did_not_make(found: Volume) -> None:
    engine = Engine(volumes={"orthanc-stack-x-a": found})
    for me in ("me", ""):  # a first deployment has no owner yet, and neither has a volume without a label
        problem = only(checked(stack(node("a")), engine, state(owner=me)))
        assert (problem.path, problem.value) == ("nodes[0].name", "a")
        assert "orthanc-stack-x-a, which" in problem.message
    assert checked(stack(node("a"), adopt=["orthanc-stack-x-a"]), engine) == []


def test_a_volume_from_before_there_were_owners_is_the_states_that_holds_it() -> None:
    engine = Engine(volumes={"orthanc-stack-x-a": Volume(stack="orthanc-stack-x")})
    assert checked(stack(node("a")), engine, state(volumes={"a-data": "orthanc-stack-x-a"})) == []


def test_a_volume_that_another_state_made_in_the_place_of_one_that_is_held() -> None:
    engine = Engine(volumes={"orthanc-stack-x-a": Volume(owner="another")})
    assert only(checked(stack(node("a")), engine, state(volumes={"a-data": "orthanc-stack-x-a"}))).path == "nodes[0].name"


def test_a_volume_that_the_state_holds_and_the_engine_does_not() -> None:
    held: dict[str, Any] = {"volumes": {"a-data": "v"}, "labelled": frozenset({"v"})}
    assert "v, which is gone from the engine" in only(checked(stack(node("a")), Engine(), state(**held))).message
    # A container's start makes an empty one of the name, which has no label.
    engine = Engine(volumes={"v": Volume()})
    assert "made anew" in only(checked(stack(node("a")), engine, state(**held))).message


def test_what_is_in_use_cannot_be_adopted() -> None:
    engine = Engine(volumes={"orthanc-stack-x-a": Volume(owner="another")}, users=frozenset({"theirs"}))
    problem = only(checked(stack(node("a"), adopt=["orthanc-stack-x-a"]), engine))
    assert (problem.path, "theirs still uses" in problem.message) == ("adopt", True)


@pytest.mark.parametrize(
    ("status", "code", "again"), [("exited", 0, "before"), ("exited", 1, "id-of-roles-"), ("running", 0, "id-of-roles-")]
)
def test_what_makes_the_roles_runs_again_until_it_has_ended_well(tmp_path: Path, status: str, code: int, again: str) -> None:
    config = {"Labels": {names.LABEL_ROLE: names.DB_ROLES}, "Env": ["PATH=/bin", f"{names.AGAIN}=before"]}
    roles = {
        "Id": "id-of-roles-of-the-stack",
        "Config": config,
        "State": {"Status": status, "ExitCode": code, "Running": status == "running"},
    }
    engine = preflight.inspect(settings_of(stack(node("a"))), P, docker_that(tmp_path, prints=[roles]))
    assert engine is not None
    assert engine.again == again


def test_two_stacks_whose_names_would_meet_have_volumes_of_their_own() -> None:
    """S1: a node room-archive of the stack ct, and a node archive of the stack ct-room."""
    first, second = state("ct"), state("ct-room")
    assert first.volume_of("room-archive") != second.volume_of("archive")
    assert len({names.prefix(stack) for stack in ("a-b", "a_b", "a.b", "a.ub", "a..b", "ab")}) == 6
    # Made by the newer ct; the first ct-room had one of this name, too.
    engine = Engine(volumes={"orthanc-stack-ct-room-archive": Volume(owner="another", stack="orthanc-stack-ct")})
    assert checked(stack(node("archive")), engine, second) == []


def test_a_kept_volume_of_an_earlier_version_is_not_passed_over_in_silence() -> None:
    old = "orthanc-stack-ct-room-a"
    engine = Engine(volumes={old: Volume(stack="orthanc-stack-ct-room")})
    assert old in only(checked(stack(node("a")), engine, state("ct-room"))).message
    adopted = preflight.Stack(names.prefix("ct-room"), names.first_prefix("ct-room"), adopted=frozenset({old}))
    assert adopted.volume_of("a") == old


def test_a_renamed_stack_keeps_its_volumes() -> None:
    assert state("new", volumes={"a-data": "orthanc-stack-old-a"}).volume_of("a") == "orthanc-stack-old-a"


def test_locally_built_images_that_are_not_there() -> None:
    raw = stack(node("a"), images={"source": "local"})
    assert "make images" in only(checked(raw, Engine(images=frozenset(candidates()[:1])))).message
    assert checked(raw, Engine(images=frozenset(candidates()))) == []


def test_an_engine_that_is_not_there(tmp_path: Path) -> None:
    docker = docker_that(tmp_path, says="Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?\n", ends=1)
    engine = preflight.inspect(settings_of(stack(node("a"))), P, docker)
    assert engine is not None
    problem = only(checked(stack(node("a")), engine))
    assert "Cannot connect to the Docker daemon" in problem.message
    assert "DOCKER_HOST" in problem.message


def test_no_docker_command_is_no_error() -> None:
    assert preflight.inspect(settings_of(stack(node("a"))), P, ["docker-command-that-is-not-there"]) is None


def test_what_the_engine_holds_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    labels = {names.LABEL_FORMAT: "postgresql-17", names.LABEL_OWNER: "o", names.LABEL_STACK: "p"}
    volumes = [
        {
            "Name": "p-db",
            "Mountpoint": "/m",
            "Labels": labels,
        },
        {"Name": "p-a", "Mountpoint": "/m", "Labels": None},
    ]
    prints = [
        {"RepoTags": ["orthanc-stack/orthanc:local-1"]},
        {"State": {"Running": True}, "HostConfig": {"PortBindings": {"8042/tcp": [{"HostPort": "8000"}]}}},
        {"State": {"Running": False}, "HostConfig": {"PortBindings": {"8042/tcp": [{"HostPort": "9000"}]}}},
    ]
    docker = docker_that(tmp_path, prints=prints, volumes=volumes, says="Error: No such object: p-b\n", ends=1)
    assert preflight.inspect(settings_of(stack(node("a"))), P, docker) == Engine(
        local=True,
        images=frozenset({"orthanc-stack/orthanc:local-1"}),
        ports=frozenset({8000}),
        volumes={"p-db": Volume("postgresql-17", "o", "p"), "p-a": Volume()},
    )


def test_the_containers_that_the_state_holds_are_asked_for_by_their_identifiers(tmp_path: Path) -> None:
    """A second checkout's have the same names, and a renamed stack's have others. One that goes holds its ports until it is gone."""
    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/sh\necho \"$@\" >>'{tmp_path}/asked'; echo '[]'\n")
    docker.chmod(0o755)
    held = {"a-container": "id-a", "a-forwarder-container": "id-f", "adminer-container": "id-ad", "gone-container": "id-gone"}
    settings = settings_of(stack(node("a", forwardTo=["b"], metricsPort=9042), node("b", 1)))
    preflight.inspect(settings, preflight.Stack("p", "p", Held(containers=held)), [str(docker)])
    (asked,) = [line.split() for line in (tmp_path / "asked").read_text().splitlines() if not line.startswith("volume")]
    assert [one for one in asked if one.startswith("id-")] == ["id-a", "id-f", "id-ad"]


def test_a_metrics_port_that_something_else_holds(taken_port: int) -> None:
    raw = stack(node("a", forwardTo=["b"], metricsPort=taken_port), node("b", 1))
    assert only(checked(raw, Engine(local=True))).path == "nodes[0].metricsPort"


@pytest.mark.parametrize(
    ("config", "command"),
    [
        ({}, ["docker"]),
        ({"docker:host": "ssh://x"}, ["docker", "--host", "ssh://x"]),
        ({"docker:context": "c"}, ["docker", "--context", "c"]),
    ],
)
def test_the_engine_of_the_stack_file_is_asked(config: dict[str, str], command: list[str]) -> None:
    assert preflight.docker_command(config) == command
