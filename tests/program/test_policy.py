"""The policy pack on the resources that the program makes, and on what the engine sends: unknown values, secrets, the environment."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from pulumi.runtime.proto import analyzer_pb2
from pulumi_policy import ResourceValidationArgs, deserialize
from pulumi_policy import policy as upstream
from pulumi_policy.proxy import UNKNOWN_STRING_VALUE, unknown_checking_proxy

from components.engine import Engine
from images import candidates
from policy import engine
from policy.resources import CONTAINER, UNKNOWN, Resource, SecretText
from policy.rules import violations
from tests.program.harness import Run, raw_stack_file, run_program

SECRET = {deserialize.SPECIAL_SIG_KEY: deserialize.SPECIAL_SECRET_SIG}


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


def asked(inputs: Mapping[str, Any], *, protect: bool = False) -> Resource:
    """What the rules get for inputs as the engine sends them."""
    proxied = unknown_checking_proxy(engine._deserialize_properties(dict(inputs)))
    args = ResourceValidationArgs(CONTAINER, proxied, "urn", "db", SimpleNamespace(protect=protect), None)  # type: ignore[arg-type]
    return engine.resource_of(args)


def test_unknown_values_arrive_as_unknown_at_any_depth_and_secrets_with_their_mark() -> None:
    unknown = UNKNOWN_STRING_VALUE
    resource = asked({"image": unknown, "ports": [{"internal": unknown}], "envs": ["A=b", unknown]})
    assert resource.inputs == {"image": UNKNOWN, "ports": [{"internal": UNKNOWN}], "envs": ["A=b", UNKNOWN]}
    resource = asked({"envs": {**SECRET, "value": ["A=b", unknown]}, "name": "db", "image": {**SECRET, "value": "x"}})
    assert resource.inputs == {"envs": ["A=b", UNKNOWN], "name": "db", "image": "x"}
    marks = [resource.inputs["envs"][0], resource.inputs["image"], resource.inputs["name"]]
    assert [isinstance(value, SecretText) for value in marks] == [True, True, False]
    assert [asked({}, protect=protect).protected for protect in (True, False)] == [True, False]


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> type:
    """pulumi-policy's server, as the pack starts it."""
    monkeypatch.setattr(upstream, "_PolicyAnalyzerServicer", upstream._PolicyAnalyzerServicer)
    monkeypatch.setattr(upstream, "deserialize_properties", deserialize.deserialize_properties)
    monkeypatch.setattr(engine._Stack, "environment", None)
    engine.listen()
    return upstream._PolicyAnalyzerServicer


@pytest.mark.parametrize(
    ("config", "prod"),
    [
        ({"mine:environment": "dev"}, False),
        ({"mine:environment": "prod"}, True),
        ({"mine:environment": "Dev"}, True),
        ({"other:environment": "dev"}, True),
        ({}, True),
    ],
)
def test_a_stack_is_prod_unless_its_configuration_says_dev(listening: type, config: dict[str, str], prod: bool) -> None:
    assert engine.is_prod(), "an engine that says nothing"
    server = listening("pack", "1.0.0", [SimpleNamespace()], upstream.EnforcementLevel.MANDATORY)
    server.ConfigureStack(analyzer_pb2.AnalyzerStackConfigureRequest(project="mine", stack="dev", config=config), None)
    assert engine.is_prod() == prod
