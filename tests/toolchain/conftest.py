"""A Pulumi project in a temporary folder, run by the toolchain that ops/setup/toolchain.py finds or builds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
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

    @property
    def program(self) -> Path:
        return self.folder / "program"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        settings = {
            "PULUMI_BACKEND_URL": f"file://{self.folder / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE": "test",
            "PULUMI_STACK": "dev",
            # Whatever the machine, a test waits for no download.
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        }
        command = [str(self.pulumi.command), *arguments, "--non-interactive", "--color", "never"]
        env = os.environ | self.pulumi.env | settings
        return subprocess.Popen(command, cwd=self.program, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *arguments: str, fails: bool = False) -> str:
        """What a command prints where it succeeds, or, with its errors, where it must fail."""
        running = self.start(*arguments)
        output, errors = running.communicate(timeout=60)
        assert (running.returncode != 0) == fails, output + errors
        return output + errors if fails else output

    def write(self, program: str, *, options: Mapping[str, str] | None = None) -> None:
        settings = {"toolchain": "pip", "virtualenv": str(VENV)} | dict(options or {})
        lines = "".join(f"    {key}: {value}\n" for key, value in settings.items())
        (self.program / "Pulumi.yaml").write_text(f"name: trial\nruntime:\n  name: python\n  options:\n{lines}")
        (self.program / "__main__.py").write_text(program)


@pytest.fixture(scope="session")
def new_project(tmp_path_factory: pytest.TempPathFactory, pulumi: Pulumi) -> Path:
    """With a stack in which nothing is deployed, made once: that takes a second."""
    made = Project(tmp_path_factory.mktemp("project"), pulumi)
    (made.folder / "state").mkdir()
    made.program.mkdir()
    made.write("")
    made.run("stack", "init", "dev")
    return made.folder


@pytest.fixture
def project(tmp_path: Path, new_project: Path, pulumi: Pulumi) -> Project:
    return Project(shutil.copytree(new_project, tmp_path / "project"), pulumi)


@pytest.fixture(scope="session")
def schema(tmp_path_factory: pytest.TempPathFactory, pulumi: Pulumi) -> Mapping[str, Any]:
    """What the installed Docker plugin says that it can do."""
    command = [str(pulumi.command), "package", "get-schema", f"docker@{DOCKER_PLUGIN_VERSION}"]
    empty = tmp_path_factory.mktemp("schema")
    found: Mapping[str, Any] = json.loads(subprocess.check_output(command, cwd=empty, env=os.environ | pulumi.env, text=True))
    return found
