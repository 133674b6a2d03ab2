"""The Docker plugin knows every resource, input and output that pulumi-docker offers, and so all that components/ can use.

A keyword that pulumi-docker does not offer is an error of Python, in the tests of the program.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_docker
import pytest

#: Of pulumi-docker's own making, not from the Terraform provider, with the inputs of the first. Images are built with the engine (images/).
NOT_BUILT = {"Image", "BuildxBuilder"}
NOT_BUILT_TYPES = {"Builder", "CacheFrom", "DockerBuild", "Registry"}
RESOURCES = sorted(
    name
    for name, value in vars(pulumi_docker).items()
    if isinstance(value, type) and issubclass(value, pulumi.CustomResource) and name not in NOT_BUILT
)
FUNCTIONS = sorted(name for name in dir(pulumi_docker) if name.startswith("get_") and not name.endswith("_output"))
ARGUMENTS = {name.removesuffix("Args") for name in dir(pulumi_docker) if name.endswith("Args") and not name.startswith("Get")}
TYPES = sorted(name for name in ARGUMENTS - {*RESOURCES, *NOT_BUILT, *NOT_BUILT_TYPES} if not name.startswith("BuildxBuilder"))
NOT_INPUTS = {"self", "__self__", "resource_name", "opts", "__props__", "id"}


def camel(name: str) -> str:
    first, *others = name.rstrip("_").split("_")
    return first + "".join(part.capitalize() for part in others)


def inputs_of(function: Any) -> set[str]:
    found = {camel(name) for name in inspect.signature(function).parameters if name not in NOT_INPUTS}
    assert found, "the SDK's signature was not understood"
    return found


def outputs_of(sdk: Any) -> set[str]:
    return {camel(name) for name, value in vars(sdk).items() if isinstance(value, property)}


@pytest.mark.parametrize("name", RESOURCES)
def test_every_input_and_output_of_the_sdk_is_known(schema: Mapping[str, Any], name: str) -> None:
    sdk = getattr(pulumi_docker, name)
    token = f"docker:index/{name[0].lower()}{name[1:]}:{name}"
    known = schema["provider"] if name == "Provider" else schema["resources"][token]
    assert inputs_of(sdk._internal_init) - set(known["inputProperties"]) == set()
    outputs = outputs_of(sdk) - ({"host"} if name == "Provider" else set())
    assert outputs - set(known.get("properties", {})) - {"id", "urn"} == set()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_of_the_sdk_is_known(schema: Mapping[str, Any], name: str) -> None:
    known = schema["functions"][f"docker:index/{camel(name)}:{camel(name)}"]
    assert inputs_of(getattr(pulumi_docker, name)) - set(known.get("inputs", {}).get("properties", {})) <= {"opts"}
    result = getattr(pulumi_docker, f"Get{camel(name)[3:]}Result")
    assert outputs_of(result) - set(known["outputs"]["properties"]) == set()


@pytest.mark.parametrize("name", TYPES)
def test_every_nested_type_of_the_sdk_is_known(schema: Mapping[str, Any], name: str) -> None:
    known = schema["types"][f"docker:index/{name}:{name}"]["properties"]
    assert inputs_of(getattr(pulumi_docker, f"{name}Args").__init__) - set(known) == set()
