"""examples/own-program on Docker: what another program makes of the components."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.stack.dicom import as_file, ct_series, echo
from tests.stack.harness import ROOT, Node, docker, eventually, free_ports, need_pulumi

pytestmark = pytest.mark.slow("a stack of its own, of seven containers: 60 s")


@dataclass(frozen=True)
class Program:
    """A copy of the example, its state beside it."""

    folder: Path
    stack: str
    password: str

    def pulumi(self, *command: str, ok: bool = True) -> str:
        more = {"PULUMI_BACKEND_URL": f"file://{self.folder}/state", "PULUMI_CONFIG_PASSPHRASE": "p", "PULUMI_SKIP_UPDATE_CHECK": "true"}
        done = subprocess.run(
            ["pulumi", *command, "--non-interactive"],
            cwd=self.folder / "examples" / "own-program",
            env=os.environ | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        assert (done.returncode == 0) is ok, done.stdout
        return done.stdout

    def nodes(self) -> dict[str, Node]:
        outputs: dict[str, Any] = json.loads(self.pulumi("stack", "output", "--json"))
        aets = {"trial-a": "TRIAL_A", "trial-b": "TRIAL_B", "gateway": "GATEWAY"}
        return {
            name: Node(name, aets[name], "127.0.0.1", outputs["dicom"][name], url, ("physicist", self.password))
            for name, url in outputs["urls"].items()
        }

    def held(self, kind: str) -> set[str]:
        command = ["ps", "--all", "--format", "{{.Names}}"] if kind == "container" else [kind, "ls", "--format", "{{.Name}}"]
        return set(docker(*command, "--filter", f"label=orthanc-stack.stack=own-program-{self.stack}").splitlines())


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    need_pulumi()
    folder = tmp_path_factory.mktemp("own")
    for part in ("components", "configs", "examples", "forwarder", "images"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "state").mkdir()
    made = Program(folder, f"t{secrets.token_hex(3)}", f"pw{secrets.token_hex(8)}")
    made.pulumi("stack", "init", made.stack)
    made.pulumi("config", "set", "--secret", "password", made.password)
    made.pulumi("config", "set", "ports", json.dumps(free_ports(6)))
    try:
        made.pulumi("up", "--yes", "--skip-preview")
        yield made
    finally:
        for kind in ("container", "network", "volume"):
            if left := made.held(kind):
                docker(kind, "rm", *(["--force"] if kind == "container" else []), *left)


def test_it_is_deployed_and_stays(program: Program) -> None:
    assert len(program.held("container")) == 8
    program.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes")


def test_an_image_goes_from_the_gateway_to_one_archive_and_the_other_is_out_of_reach(program: Program) -> None:
    nodes = program.nodes()
    image = ct_series(slices=1, size=64)[0]
    identifier = nodes["gateway"].post("/instances", as_file(image))["ID"]
    eventually("it arrives", lambda: nodes["trial-a"].holds([str(image.SOPInstanceUID)]) == {str(image.SOPInstanceUID): identifier}, 60)
    assert nodes["trial-b"].get("/instances") == []
    assert not echo(nodes["trial-b"], "GATEWAY")
    gateway = f"own-program-{program.stack}-gateway"
    assert docker("exec", gateway, "getent", "hosts", "trial-a") != ""
    assert docker("exec", gateway, "getent", "hosts", "trial-b", check=False) == ""


def test_a_node_that_is_renamed_keeps_its_data_by_an_alias(program: Program) -> None:
    file = program.folder / "examples" / "own-program" / "program.py"
    text = file.read_text()
    volume = f"own-program-{program.stack}-gateway-data"
    identifier = docker("volume", "inspect", "--format", '{{index .Labels "orthanc-stack.volume"}}', volume)
    try:
        file.write_text(_renamed(text, "door", before="gateway"))
        program.pulumi("up", "--yes", "--skip-preview")
        assert f"own-program-{program.stack}-door" in program.held("container")
        assert docker("volume", "inspect", "--format", '{{index .Labels "orthanc-stack.volume"}}', volume) == identifier
    finally:
        file.write_text(_renamed(text, "gateway", before="door"))
        program.pulumi("up", "--yes", "--skip-preview")
        file.write_text(text)
    assert "unchanged" in program.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes")


def _renamed(text: str, name: str, *, before: str) -> str:
    """The program with another name for the gateway, which the state knows by the one before."""
    known_as = f'pulumi.ResourceOptions(aliases=[pulumi.Alias(name="{before}")])'
    edits = {
        'gateway = orthanc.OrthancNode(\n    "gateway",': f'gateway = orthanc.OrthancNode(\n    "{name}",',
        "    ),\n)\northanc.Forwarder(": f"    ),\n    {known_as},\n)\northanc.Forwarder(",
        'reached_on(network_a, "gateway")': f'reached_on(network_a, "{name}")',
    }
    for old, new in edits.items():
        assert old in text
        text = text.replace(old, new)
    return text


def test_protected_data_is_not_destroyed(program: Program) -> None:
    """The last test of this stack: it is destroyed."""
    program.pulumi("config", "set", "protect", "true")
    program.pulumi("up", "--yes", "--skip-preview")
    assert "protected" in program.pulumi("destroy", "--yes", "--skip-preview", ok=False)
    assert {f"own-program-{program.stack}-trial-{which}-data" for which in "ab"} <= program.held("volume")
    program.pulumi("config", "set", "protect", "false")
    program.pulumi("up", "--yes", "--skip-preview")
    program.pulumi("destroy", "--yes", "--skip-preview")
    assert [program.held(kind) for kind in ("container", "network", "volume")] == [set(), set(), set()]
