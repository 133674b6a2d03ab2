"""The bench deploys by docker compose what the program says (bench/compose.py); the stacks that it holds against each other
(bench/security.py) differ in what they are said to differ in, and in nothing else; and a stack grows (bench/scale.py) by nodes."""

from __future__ import annotations

import ast
import base64
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.compose import render
from bench.pulumi_stack import copy_program, dev_settings
from bench.scale import star
from bench.security import WITHOUT_HARDENING
from bench.session import BenchError, Session
from components import container as component
from configs.secrets import secret_keys
from tests.program.harness import ROOT, Run, raw_stack_file, run_program
from tests.unit.stacks import settings_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


# --- compose ---


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
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(component.container))) if isinstance(node, ast.Call)]
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


def test_a_file_that_is_not_text_reaches_compose_as_it_is(everything: Run) -> None:
    archive = bytes(range(256)) + b"$HOME"
    (urn,) = (urn for urn, resource in everything.resources.items() if resource.name == "adminer-container")
    upload = {"file": "/a.zip", "permissions": "0444", "contentBase64": base64.b64encode(archive).decode()}

    def rendered(**more: str) -> dict[str, Any]:
        adminer = everything.resources[urn]
        adminer = replace(adminer, inputs={**adminer.inputs, "uploads": [upload | more]})
        return render(replace(everything, resources=everything.resources | {urn: adminer}), "x")

    file = rendered()
    (config,) = file["services"]["adminer"]["configs"]
    assert (config["target"], config["mode"]) == ("/a.zip", 0o444)
    assert yaml.safe_load(yaml.safe_dump(file))["configs"][config["source"]] == {"content": archive.replace(b"$", b"$$")}
    with pytest.raises(BenchError, match="executable of a file"):
        rendered(executable="true")


# --- scale ---


def test_each_further_node_brings_its_forwarder_and_nothing_else(folder: Path) -> None:
    settings = star(Session(folder), 5)
    small, large = (run_program({**settings, "nodes": settings["nodes"][:count]}, "x").of_type("Container") for count in (2, 5))
    assert {container.name for container in large} - {container.name for container in small} == {
        f"client-{number}{part}-container" for number in (2, 3, 4) for part in ("", "-forwarder")
    }
    assert {container.name for container in small} == {"archive-container", "client-1-container", "client-1-forwarder-container"}


# --- security ---

_HARDENED = ("capabilities", "cpuShares", "memory", "memorySwap", "securityOpts")


@pytest.fixture(scope="module")
def settings(folder: Path) -> dict[str, Any]:
    return dev_settings(Session(folder))


_RECORD = """
import json, sys
from pathlib import Path
from tests.program.mocked import run_mocked
run = run_mocked(*json.loads(sys.argv[1]), "x", root=Path.cwd())
print(json.dumps({one.name: one.inputs for one in run.resources.values() if one.type.endswith(":Container")}))
"""


def containers(program: Path, settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The inputs of the containers that a copy of the program asks for, by name."""
    secrets = {key: f"pw{key}" for key in secret_keys(settings_of(dict(settings)))}
    # In a process of its own, which imports the copy's modules.
    env = os.environ | {"PYTHONPATH": f"{program}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-c", _RECORD, json.dumps([settings, secrets])]
    done = subprocess.run(command, cwd=program, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    loaded: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return loaded


def configuration(inputs: Mapping[str, Any]) -> dict[str, Any]:
    (content,) = (file["content"] for file in inputs["uploads"] if file["file"] == "/etc/orthanc/orthanc.json")
    loaded: dict[str, Any] = json.loads(content)
    return loaded


def test_what_is_not_hardened_lacks_the_hardening_and_nothing_else(folder: Path, settings: dict[str, Any]) -> None:
    hardened = containers(copy_program(folder / "hardened"), settings)
    bare = containers(copy_program(folder / "bare", replace=WITHOUT_HARDENING), settings)
    assert bare.keys() == hardened.keys()
    for name, inputs in bare.items():
        assert [key for key in _HARDENED if key in inputs] == [], name
        assert set(_HARDENED) <= hardened[name].keys(), name
        others = {key: value for key, value in inputs.items() if key != "uploads"}
        assert others == {key: value for key, value in hardened[name].items() if key not in (*_HARDENED, "uploads")}, name
    for node in ("client-container", "server-container"):
        without, having = configuration(bare[node]), configuration(hardened[node])
        assert "LuaScripts" in having
        assert "LuaScripts" not in without
        changed = {key for key in having.keys() | without.keys() if having.get(key) != without.get(key)}
        assert changed == {"LuaScripts", "DicomCheckCalledAet", *(key for key in having if key.startswith("DicomAlwaysAllow"))}


def test_a_text_that_is_no_longer_there_is_an_error(folder: Path) -> None:
    with pytest.raises(BenchError, match="no longer holds 'nobody wrote this'"):
        copy_program(folder / "other", replace={"__main__.py": {"nobody wrote this": ""}})


def test_with_tls_nothing_speaks_without(folder: Path, settings: dict[str, Any]) -> None:
    assert "tlsTrust" not in run_program(settings, "x").outputs["nodes"]["client"]
    run = run_program(dev_settings(Session(folder), tls=True), "x")
    for node in ("client", "server"):
        assert run.outputs["nodes"][node]["httpUrl"].startswith("https://")
        said = run.configuration(node)
        assert said["DicomTlsEnabled"]
        assert [peer for peer, entry in said["DicomModalities"].items() if entry.get("UseDicomTls") is not True] == []
    assert run.forwarder("client")["trust"]
    assert run.configuration("server")["PostgreSQL"]["EnableSsl"]
