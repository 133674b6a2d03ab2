"""One version of everything: the command, its SDK, the plugin, Go."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from ops.setup import versions
from ops.setup.console import ROOT
from tests.toolchain.conftest import Project


def pinned(package: str) -> str:
    match = re.search(rf"^{package}==([\d.]+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert match, f"requirements.txt pins no {package}"
    return match[1]


def go_mod(module: str, line: str) -> str:
    match = re.search(line, (ROOT / "toolchain" / module / "go.mod").read_text(), re.MULTILINE)
    assert match, f"toolchain/{module}/go.mod: {line}"
    return match[1]


@pytest.mark.parametrize("part", ["sdk", "pkg"])
@pytest.mark.parametrize("module", ["cli", "docker"])
def test_the_modules_agree_on_pulumis_version(module: str, part: str) -> None:
    assert go_mod(module, rf"github\.com/pulumi/pulumi/{part}/v3 v(\S+)") == versions.PULUMI_VERSION


def test_the_python_sdk_is_of_the_commands_version() -> None:
    assert pinned("pulumi").split(".")[:2] == versions.PULUMI_VERSION.split(".")[:2]


def test_what_is_built_is_recent_enough_for_the_project() -> None:
    numbers = [tuple(map(int, v.split("."))) for v in (versions.MINIMUM_PULUMI, versions.PULUMI_VERSION)]
    assert numbers == sorted(numbers)


def test_the_go_that_is_asked_for_builds_every_module() -> None:
    asked = tuple(map(int, versions.MINIMUM_GO.split(".")))
    for module in ("cli", "docker", "docker/upstream"):
        assert tuple(map(int, go_mod(module, r"^go ([\d.]+)$").split("."))) <= asked, module


def test_a_build_by_hand_gives_the_pinned_plugin() -> None:
    default = re.search(r'^var version = "(.*)"$', (ROOT / "toolchain/docker/provider.go").read_text(), re.MULTILINE)
    assert default is not None
    assert default[1] == pinned("pulumi-docker") == versions.DOCKER_PLUGIN_VERSION


def test_the_command_and_the_plugin_report_their_versions(project: Project, schema: Mapping[str, Any]) -> None:
    if project.pulumi.origin != "PATH":
        assert project.run("version").stdout.strip() == f"v{versions.PULUMI_VERSION}"
    assert schema["version"] == versions.DOCKER_PLUGIN_VERSION
    listed = json.loads(project.run("plugin", "ls", "--json").stdout)
    assert {"docker": versions.DOCKER_PLUGIN_VERSION} in [{p["name"]: p["version"]} for p in listed]
