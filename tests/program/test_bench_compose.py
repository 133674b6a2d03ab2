"""The bench deploys by docker compose what the program says, all of it (bench/compose.py)."""

from __future__ import annotations

import ast
import inspect
import re
from typing import Any

import pytest

from bench.compose import render
from components import base
from tests.program.harness import Run, raw_stack_file, run_program


@pytest.fixture(scope="module")
def everything() -> Run:
    """A stack that says of its containers whatever the program can say of one."""
    return run_program(raw_stack_file("dev") | {"indexDb": {"tls": True, "cpus": 1.5}}, "x")


@pytest.fixture(scope="module")
def services(everything: Run) -> dict[str, Any]:
    """It, rendered: that is an error where something is not translated."""
    rendered: dict[str, Any] = render(everything, "x")["services"]
    return rendered


def test_nothing_that_the_program_can_say_is_left_out(everything: Run, services: dict[str, Any]) -> None:
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(base.container))) if isinstance(node, ast.Call)]
    (call,) = (call for call in calls if ast.unparse(call.func) == "docker.Container")
    can_say = {re.sub("_(.)", lambda found: found[1].upper(), keyword.arg) for keyword in call.keywords if keyword.arg}
    says = {key for container in everything.of_type("Container") for key in container.inputs}
    assert can_say - says == {"opts"}, "add these to the stack of this test"
    assert services.keys() == {container.inputs["hostname"] for container in everything.of_type("Container")}


def test_compose_waits_for_what_pulumi_waits_for(services: dict[str, Any]) -> None:
    healthy, ended = {"condition": "service_healthy"}, {"condition": "service_completed_successfully"}
    assert {name: service.get("depends_on", {}) for name, service in services.items()} == {
        "db": {},
        "db-roles": {"db": healthy},
        "server": {"db-roles": ended, "db": healthy},
        "client": {},
        "client-forwarder": {"client": healthy, "server": healthy},
        "adminer": {},
    }


def test_limits_and_rights_are_the_same(services: dict[str, Any]) -> None:
    db = services["db"]
    assert (db["cpu_quota"], db["cpu_period"]) == (150_000, 100_000)
    assert db["cap_drop"] == ["ALL"]
    assert "SETUID" in db["cap_add"]
    assert services["adminer"]["read_only"]
    # compose replaces what begins with a dollar sign.
    assert db["entrypoint"][2].endswith('"$$@"')
