"""A Pulumi project in a temporary folder, run by the toolchain that ops/setup/toolchain.py finds or builds."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ops.setup.console import ROOT
from ops.setup.toolchain import Pulumi, ensure_docker_plugin, ensure_pulumi
from ops.setup.versions import DOCKER_PLUGIN_VERSION

VENV = ROOT / ".venv"


@pytest.fixture(scope="session")
def pulumi() -> Pulumi:
    found = ensure_pulumi()
    ensure_docker_plugin(found)
    return found


@dataclass
class Project:
    """A project whose state, passphrase and program are its own."""

    folder: Path
    pulumi: Pulumi
    env: dict[str, str] = field(default_factory=dict)

    def command(self, *arguments: str) -> list[str]:
        return [str(self.pulumi.command), *arguments, "--non-interactive", "--color", "never"]

    def environment(self) -> dict[str, str]:
        settings = {
            "PULUMI_BACKEND_URL": f"file://{self.folder / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE": "test",
            # Whatever the machine, a test waits for no download.
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        }
        return os.environ | self.pulumi.env | settings | self.env

    def run(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), cwd=self.folder / "program", env=self.environment(), capture_output=True,
            text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def write(self, program: str, *, options: Mapping[str, str] | None = None) -> None:
        folder = self.folder / "program"
        settings = {"toolchain": "pip", "virtualenv": str(VENV)} | dict(options or {})
        lines = "".join(f"    {key}: {value}\n" for key, value in settings.items())
        (folder / "Pulumi.yaml").write_text(f"name: trial\nruntime:\n  name: python\n  options:\n{lines}")
        (folder / "__main__.py").write_text(program)


@pytest.fixture
def project(tmp_path: Path, pulumi: Pulumi) -> Project:
    (tmp_path / "state").mkdir()
    (tmp_path / "program").mkdir()
    made = Project(tmp_path, pulumi)
    made.write("")
    created = made.run("stack", "init", "dev")
    assert created.returncode == 0, created.stdout + created.stderr
    return made


@pytest.fixture(scope="session")
def schema(tmp_path_factory: pytest.TempPathFactory, pulumi: Pulumi) -> Mapping[str, Any]:
    """What the installed Docker plugin says that it can do."""
    empty = tmp_path_factory.mktemp("schema")
    command = [str(pulumi.command), "package", "get-schema", f"docker@{DOCKER_PLUGIN_VERSION}"]
    done = subprocess.run(command, cwd=empty, env=os.environ | pulumi.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: Mapping[str, Any] = json.loads(done.stdout)
    return found
