"""The policy pack on the resources that the program makes, and on what the engine sends: unknown values, secrets, the environment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import grpc  # type: ignore[import-untyped]
import pytest
from pulumi.runtime.proto import analyzer_pb2, analyzer_pb2_grpc
from pulumi_policy import ResourceValidationArgs, deserialize
from pulumi_policy.proxy import UNKNOWN_STRING_VALUE, unknown_checking_proxy

from components.engine import Engine
from images import candidates
from policy import engine, rules
from policy.resources import CONTAINER, UNKNOWN, VOLUME, Resource, SecretText
from policy.rules import violations
from tests.program.harness import ROOT, Run, raw_stack_file, run_program

_UNKNOWN = UNKNOWN_STRING_VALUE
_SECRET = {deserialize.SPECIAL_SIG_KEY: deserialize.SPECIAL_SECRET_SIG}


def resources(run: Run) -> list[Resource]:
    """What the program registered, as the pack gets it: an input that holds a secret is secret as a whole."""
    return [
        Resource(
            type=made.type,
            name=made.name,
            inputs={key: engine.marked(value, secret=key in made.secret_inputs) for key, value in made.inputs.items()},
            protected=made.request.protect,
        )
        for made in run.resources.values()
    ]


def complaints(run: Run, *, prod: bool) -> set[tuple[str, str]]:
    """Which rule each resource breaks."""
    return {(rule, resource.name) for resource in resources(run) for rule, _ in violations(resource, prod=prod)}


@pytest.mark.parametrize("held", [(), candidates()], ids=["registry", "local"])
@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_the_projects_own_stacks_break_no_rule(stack: str, held: tuple[str, ...]) -> None:
    raw = raw_stack_file(stack)
    if stack == "prod" and held:
        raw["images"] = {"source": "local"}
    run = run_program(raw, stack, Engine(images=frozenset(held)))
    assert {resource.type for resource in resources(run)} >= {CONTAINER}
    assert complaints(run, prod=stack == "prod") == set()


def test_dev_would_not_do_for_prod() -> None:
    run = run_program(raw_stack_file("dev"), "dev")
    adminer = {("no-adminer-in-prod", name) for name in ("images-adminer", "adminer-container")}
    volumes = {("no-unprotected-data-volume-in-prod", f"{name}-data") for name in ("db", "server", "client")}
    assert complaints(run, prod=True) == adminer | volumes


def test_images_of_the_stack_file_are_judged_where_they_are_pulled() -> None:
    images = {"source": "registry", "adminer": "adminer:5.5.0", "postgres": "postgres:17", "orthanc": "orthancteam/orthanc:25.1.0"}
    run = run_program(raw_stack_file("dev") | {"images": images}, "dev")
    assert complaints(run, prod=False) == {
        ("version-floor", "images-adminer"),
        ("version-floor", "images-orthanc"),
        ("no-floating-image-tag", "images-postgres"),
    }


def seen(monkeypatch: pytest.MonkeyPatch, inputs: dict[str, Any], *, protect: bool = False) -> Resource:
    """What a rule gets for inputs as the engine sends them."""
    got: list[Resource] = []
    monkeypatch.setattr(rules, "RULES", [])

    @rules.Rule(CONTAINER)
    def a_rule(resource: Resource) -> Iterator[str]:
        """A rule."""
        got.append(resource)
        yield from ()

    options: Any = SimpleNamespace(protect=protect)
    args = ResourceValidationArgs(CONTAINER, unknown_checking_proxy(inputs), "urn", "db", options, None)
    engine.policy_of(rules.RULES[0]).validate(args, Mock())
    return got[0]


def test_unknown_values_arrive_as_unknown_at_any_depth_and_secrets_with_their_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = seen(monkeypatch, {"image": _UNKNOWN, "ports": [{"internal": _UNKNOWN}], "envs": ["A=b", _UNKNOWN]})
    assert resource.inputs == {"image": UNKNOWN, "ports": [{"internal": UNKNOWN}], "envs": ["A=b", UNKNOWN]}
    resource = seen(monkeypatch, {"envs": {**_SECRET, "value": ["A=b", _UNKNOWN]}, "name": "db", "image": {**_SECRET, "value": "x"}})
    assert resource.inputs == {"envs": ["A=b", UNKNOWN], "name": "db", "image": "x"}
    marks = [resource.inputs["envs"][0], resource.inputs["image"], resource.inputs["name"]]
    assert [isinstance(value, SecretText) for value in marks] == [True, True, False]
    assert [seen(monkeypatch, {}, protect=protect).protected for protect in (True, False)] == [True, False]


class Pack:
    """The pack in a process of its own, as Pulumi starts it: it writes the port that it is asked at."""

    def __init__(self, port: int) -> None:
        self._engine = analyzer_pb2_grpc.AnalyzerStub(grpc.insecure_channel(f"127.0.0.1:{port}"))

    def configure(self, config: dict[str, str]) -> None:
        self._engine.ConfigureStack(analyzer_pb2.AnalyzerStackConfigureRequest(project="mine", stack="dev", config=config))

    def judge(self, kind: str, inputs: dict[str, Any], *, protect: bool = False) -> dict[str, str]:
        """The rules that a resource breaks, with what the user reads."""
        options = analyzer_pb2.AnalyzerResourceOptions(protect=protect)
        answer = self._engine.Analyze(analyzer_pb2.AnalyzeRequest(type=kind, name="own", properties=inputs, options=options))
        assert {(one.policyPackName, one.enforcementLevel) for one in answer.diagnostics} <= {("orthanc-stack", analyzer_pb2.MANDATORY)}
        return {one.policyName: one.message for one in answer.diagnostics}


@pytest.fixture(scope="module")
def pack() -> Iterator[Pack]:
    command = (sys.executable, "-u", "-m", "pulumi.policy", "127.0.0.1:1", ".")
    with subprocess.Popen(command, cwd=ROOT / "policy", stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            yield Pack(int(process.stdout.readline()))
        finally:
            process.terminate()


def test_the_pack_tells_the_engine_what_is_known_and_wrong(pack: Pack) -> None:
    good = {"destroyGraceSeconds": 10, "logOpts": {"max-size": "1m", "max-file": "1"}, "healthcheck": {"tests": ["CMD", "true"]}}
    assert pack.judge(CONTAINER, {**good, "image": _UNKNOWN, "ports": [{"internal": _UNKNOWN}]}) == {}
    told = pack.judge(CONTAINER, {**good, "image": "busybox:1.37", "envs": {**_SECRET, "value": ["GREETING=hunter2", _UNKNOWN]}})
    ((rule, message),) = told.items()
    assert rule == "no-password-in-environment"
    assert message.startswith("Passwords are in files, not in environment variables.\nown: one of its environment variables is a secret")
    assert "hunter2" not in message


def test_a_stack_is_prod_unless_its_configuration_says_dev(pack: Pack) -> None:
    in_prod = {"no-unprotected-data-volume-in-prod"}
    assert set(pack.judge(VOLUME, {}, protect=True)) == set()
    assert set(pack.judge(VOLUME, {})) == in_prod, "an engine that says nothing"
    for key, value in (("mine:environment", "prod"), ("mine:environment", "Dev"), ("other:environment", "dev"), ("mine:x", "dev")):
        pack.configure({"mine:environment": "dev"})
        assert set(pack.judge(VOLUME, {})) == set()
        pack.configure({key: value})
        assert set(pack.judge(VOLUME, {})) == in_prod, (key, value)
