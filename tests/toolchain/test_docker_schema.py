"""The Docker plugin knows every resource, input and output that pulumi-docker offers and that components/ use."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pulumi_docker
import pytest

from ops.setup.console import ROOT

RESOURCES = ["Container", "Network", "Volume", "RemoteImage", "Service", "Secret", "ServiceConfig",
             "Plugin", "RegistryImage", "Tag"]  # fmt: skip
FUNCTIONS = ["get_logs", "get_network", "get_plugin", "get_registry_image", "get_registry_image_manifests",
             "get_remote_image"]  # fmt: skip
#: Of pulumi-docker's own making, not from the Terraform provider. Images are built with the engine (images/).
NOT_BUILT = {"Image", "BuildxBuilder"}
NOT_INPUTS = {"self", "__self__", "resource_name", "opts", "__props__", "id"}


def camel(name: str) -> str:
    first, *others = name.rstrip("_").split("_")
    return first + "".join(part.capitalize() for part in others)


def token(name: str) -> str:
    return f"docker:index/{name[0].lower()}{name[1:]}:{name}"


def parameters(function: Any) -> set[str]:
    return {camel(name) for name in inspect.signature(function).parameters if name not in NOT_INPUTS}


def resource(schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = schema["provider"] if name == "Provider" else schema["resources"][token(name)]
    return found


def outputs_of(sdk: Any) -> set[str]:
    return {camel(name) for name, value in vars(sdk).items() if isinstance(value, property)}


@pytest.mark.parametrize("name", [*RESOURCES, "Provider"])
def test_every_input_and_output_of_the_sdk_is_known(schema: Mapping[str, Any], name: str) -> None:
    sdk, known = getattr(pulumi_docker, name), resource(schema, name)
    inputs = parameters(sdk._internal_init)
    assert inputs, "the SDK's signature was not understood"
    assert inputs - set(known["inputProperties"]) == set()
    outputs = outputs_of(sdk) - ({"host"} if name == "Provider" else set())
    assert outputs - set(known.get("properties", {})) - {"id", "urn"} == set()


def test_every_resource_of_the_sdk_is_accounted_for() -> None:
    import pulumi  # noqa: PLC0415

    there = {
        name for name, value in vars(pulumi_docker).items()
        if isinstance(value, type) and issubclass(value, pulumi.CustomResource)
    }  # fmt: skip
    assert there == {*RESOURCES, *NOT_BUILT, "Provider"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_of_the_sdk_is_known(schema: Mapping[str, Any], name: str) -> None:
    known = schema["functions"][f"docker:index/{camel(name)}:{camel(name)}"]
    assert parameters(getattr(pulumi_docker, name)) - set(known.get("inputs", {}).get("properties", {})) <= {"opts"}
    result = getattr(pulumi_docker, f"Get{camel(name)[3:]}Result")
    assert outputs_of(result) - set(known["outputs"]["properties"]) == set()


def nested_types() -> list[str]:
    names = [name for name in dir(pulumi_docker) if name.endswith("Args") and not name.startswith("Get")]
    outer = {f"{name}Args" for name in [*RESOURCES, *NOT_BUILT, "Provider"]}
    # The inputs of docker.Image, which is not built.
    of_image = {"BuilderArgs", "CacheFromArgs", "DockerBuildArgs", "RegistryArgs"}
    return [name.removesuffix("Args") for name in names if name not in outer | of_image]


@pytest.mark.parametrize("name", [n for n in nested_types() if not n.startswith("BuildxBuilder")])
def test_every_nested_type_of_the_sdk_is_known(schema: Mapping[str, Any], name: str) -> None:
    known = schema["types"][f"docker:index/{name}:{name}"]["properties"]
    assert parameters(getattr(pulumi_docker, f"{name}Args").__init__) - set(known) == set()


def used(file: Path) -> Iterator[tuple[str, set[str], int]]:
    """What a component makes of pulumi_docker: the class, the keywords it gives it, the line."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id in {"docker", "pulumi_docker"}:
                yield node.func.attr, {k.arg for k in node.keywords if k.arg} - NOT_INPUTS, node.lineno


def test_what_the_components_use_is_known(schema: Mapping[str, Any]) -> None:
    unknown, seen = [], 0
    for file in sorted((ROOT / "components").rglob("*.py")):
        for name, keywords, line in used(file):
            seen += 1
            plain = name.removesuffix("Args")
            if name in {*RESOURCES, "Provider"} or plain in RESOURCES:
                known = set(resource(schema, plain)["inputProperties"])
            elif name.endswith("Args"):
                known = set(schema["types"].get(f"docker:index/{plain}:{plain}", {}).get("properties", {}))
            elif name.startswith("get_"):
                call = camel(name.removesuffix("_output"))
                known = set(schema["functions"][f"docker:index/{call}:{call}"].get("inputs", {}).get("properties", {}))
            else:
                unknown.append(f"{file.name}:{line}: docker.{name}")
                continue
            missing = {camel(word) for word in keywords} - known
            unknown += [f"{file.name}:{line}: docker.{name}({word}=)" for word in sorted(missing)]
    assert not unknown
    assert seen, "components/ uses nothing of pulumi_docker: has the way it is imported changed?"
