"""One version of everything: the command, its SDK, the plugin, Go."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ops.setup import versions
from ops.setup.console import ROOT
from tests.toolchain.conftest import Project


def pinned(file: str, line: str) -> str:
    match = re.search(line, (ROOT / file).read_text(), re.MULTILINE)
    assert match, f"{file}: {line}"
    return match[1]


def test_the_modules_and_the_python_sdk_are_of_one_version_of_pulumi() -> None:
    parts = [(module, part) for module in ("cli", "docker") for part in ("sdk", "pkg")]
    found = {at: pinned(f"toolchain/{at[0]}/go.mod", rf"github\.com/pulumi/pulumi/{at[1]}/v3 v(\S+)") for at in parts}
    assert found == dict.fromkeys(parts, versions.PULUMI_VERSION)
    assert pinned("requirements.txt", r"^pulumi==([\d.]+)$").split(".")[:2] == versions.PULUMI_VERSION.split(".")[:2]


def test_what_is_built_is_recent_enough_for_the_project() -> None:
    assert versions.version(versions.MINIMUM_PULUMI) <= versions.version(versions.PULUMI_VERSION)


def test_the_go_that_is_asked_for_builds_every_module() -> None:
    for module in ("cli", "docker", "docker/upstream"):
        wanted = pinned(f"toolchain/{module}/go.mod", r"^go ([\d.]+)$")
        assert versions.version(wanted) <= versions.version(versions.MINIMUM_GO), module


def test_a_build_by_hand_gives_the_pinned_plugin() -> None:
    default = pinned("toolchain/docker/provider.go", r'^var version = "(.*)"$')
    assert default == pinned("requirements.txt", r"^pulumi-docker==([\d.]+)$") == versions.DOCKER_PLUGIN_VERSION


def test_the_command_and_the_plugin_report_their_versions(project: Project, schema: Mapping[str, Any]) -> None:
    if project.pulumi.origin != "PATH":
        assert project.run("version").strip() == f"v{versions.PULUMI_VERSION}"
    assert schema["version"] == versions.DOCKER_PLUGIN_VERSION
    listed = json.loads(project.run("plugin", "ls", "--json"))
    assert {"docker": versions.DOCKER_PLUGIN_VERSION} in [{plugin["name"]: plugin["version"]} for plugin in listed]
