"""What is checked against the machine: real sockets, and a docker command that answers from a file."""

from __future__ import annotations

import json
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from configs import preflight
from configs.images import candidates
from configs.loader import parse
from configs.preflight import Engine
from tests.unit.stacks import node, only, settings_of, stack


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


def checked(raw: dict[str, Any], engine: Engine) -> list[Any]:
    _, parts, problems = parse(raw)
    assert not problems
    return preflight.check(parts, "orthanc-stack-x", engine)


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
    engine = Engine(formats={"orthanc-stack-x-db": "postgresql-16"})
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
    problems = checked(raw, Engine(formats={"orthanc-stack-x-db": held}))
    assert [(problem.path, problem.value) for problem in problems] == ([] if fits else [("images.postgres", f"postgres:{tag}")])
    if not fits:
        assert f"made under {'Alpine' if held.endswith('alpine') else 'Debian'}'s PostgreSQL" in problems[0].message


def test_what_is_built_here_is_debians_whatever_the_registrys_would_be() -> None:
    raw = stack(node("a"), images={"source": "auto", "postgres": "postgres:17.11-alpine"})
    engine = Engine(formats={"orthanc-stack-x-db": "postgresql-17"}, images=frozenset(candidates()))
    assert checked(raw, engine) == []


@pytest.mark.parametrize(("held", "wanted"), [("sqlite", "postgresql"), ("postgresql", "sqlite")])
def test_a_node_whose_index_is_elsewhere(held: str, wanted: str) -> None:
    engine = Engine(formats={"orthanc-stack-x-a": held})
    problem = only(checked(stack(node("a", index=wanted)), engine))
    assert (problem.path, problem.value) == ("nodes[0].index", wanted)
    assert checked(stack(node("a", index=held)), engine) == []


def test_a_volume_that_somebody_made_by_hand_is_taken_as_it_is() -> None:
    assert checked(stack(node("a")), Engine(formats={"orthanc-stack-x-db": ""})) == []


def test_locally_built_images_that_are_not_there() -> None:
    raw = stack(node("a"), images={"source": "local"})
    assert "make images" in only(checked(raw, Engine(images=frozenset(candidates()[:1])))).message
    assert checked(raw, Engine(images=frozenset(candidates()))) == []


def test_an_engine_that_is_not_there(tmp_path: Path) -> None:
    docker = docker_that(tmp_path, says="Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?\n", ends=1)
    engine = preflight.inspect(settings_of(stack(node("a"))), "p", docker)
    assert engine is not None
    problem = only(checked(stack(node("a")), engine))
    assert "Cannot connect to the Docker daemon" in problem.message
    assert "DOCKER_HOST" in problem.message


def test_no_docker_command_is_no_error() -> None:
    assert preflight.inspect(settings_of(stack(node("a"))), "p", ["docker-command-that-is-not-there"]) is None


def test_what_the_engine_holds_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    volumes = [
        {"Name": "p-db", "Mountpoint": "/m", "Labels": {"orthanc-stack.data-format": "postgresql-17"}},
        {"Name": "p-a", "Mountpoint": "/m", "Labels": None},
    ]
    prints = [
        {"RepoTags": ["orthanc-stack/orthanc:local-1"]},
        {"State": {"Running": True}, "HostConfig": {"PortBindings": {"8042/tcp": [{"HostPort": "8000"}]}}},
        {"State": {"Running": False}, "HostConfig": {"PortBindings": {"8042/tcp": [{"HostPort": "9000"}]}}},
    ]
    docker = docker_that(tmp_path, prints=prints, volumes=volumes, says="Error: No such object: p-b\n", ends=1)
    assert preflight.inspect(settings_of(stack(node("a"))), "p", docker) == Engine(
        local=True,
        images=frozenset({"orthanc-stack/orthanc:local-1"}),
        ports=frozenset({8000}),
        formats={"p-db": "postgresql-17", "p-a": ""},
    )


def test_the_ports_of_forwarders_are_the_stacks_own(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/sh\necho \"$@\" >>'{tmp_path}/asked'; echo '[]'\n")
    docker.chmod(0o755)
    preflight.inspect(settings_of(stack(node("a", forwardTo=["b"], metricsPort=9042), node("b", 1))), "p", [str(docker)])
    (asked,) = [line.split() for line in (tmp_path / "asked").read_text().splitlines() if not line.startswith("volume")]
    assert {"p-a", "p-b", "p-a-forwarder", "p-adminer"} <= set(asked)


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
