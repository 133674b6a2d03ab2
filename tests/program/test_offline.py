"""The preview without a stack: what it finds, what it compares with, and that it needs nothing and tells no secret."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops import offline
from ops.offline_report import Change, Report, markdown, read, write
from ops.setup.console import SetupError
from tests.program.harness import ROOT

_PARTS = ("__main__.py", "Pulumi.dev.yaml", "Pulumi.prod.yaml", "components", "configs", "forwarder", "images", "ops", "policy")


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of the program, committed as it is."""
    folder = tmp_path_factory.mktemp("checkout")
    for part in _PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, folder / part)
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "m"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def base_of() -> Iterator[Any]:
    """What the commit deploys is found out once for each stack: each time it is the same, and takes half a second."""
    found: Any = cache(offline._before)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(offline, "_before", found)
        yield found


@pytest.fixture
def checkout(committed: Path, base_of: Any) -> Iterator[Path]:
    """The same, to be changed."""
    yield committed
    for command in (["checkout", "-q", "."], ["clean", "-fdqx"]):
        subprocess.run(["git", *command], cwd=committed, check=True)


def change(checkout: Path, edit: Callable[[dict[str, Any]], object], stack: str = "dev") -> None:
    """Edit a stack file's settings."""
    file = checkout / f"Pulumi.{stack}.yaml"
    content = yaml.safe_load(file.read_text())
    edit(content["config"])
    file.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_without_a_change_there_is_no_difference(checkout: Path, stack: str) -> None:
    made = offline.report(stack, checkout, "HEAD")
    assert (made.refused, made.changes, made.violations) == ("", (), ())
    assert dict(made.counts)["OrthancNode"] == 2
    assert "**No difference**, compared with what `HEAD` would deploy." in markdown(made)


def test_a_changed_port_is_one_change(checkout: Path) -> None:
    change(checkout, lambda config: config["orthanc-stack:nodes"][0].update(httpPort=8142))
    made = offline.report("dev", checkout, "HEAD")
    assert made.changes == (Change("change", "Container", "server-container", (("ports[1].external", "8042", "8142"),)),)


def test_a_node_more_and_one_less_and_an_option_of_orthancs_by_its_path(checkout: Path) -> None:
    ct = {"name": "ct", "aet": "CT", "httpPort": 8050, "dicomPort": 4250, "index": "sqlite"}
    change(checkout, lambda config: config["orthanc-stack:nodes"].append(ct))
    change(checkout, lambda config: config["orthanc-stack:nodes"].pop(1))
    change(checkout, lambda config: config["orthanc-stack:nodes"][0].update(orthanc={"MaximumPatientCount": 7}))
    change(checkout, lambda config: config["orthanc-stack:modalities"][0].update(nodes=["server"]))
    made = offline.report("dev", checkout, "HEAD").changes
    for operation, node in (("add", "ct"), ("remove", "client")):
        nodes_own = {("OrthancNode", node), ("Container", f"{node}-container"), ("Volume", f"{node}-data")}
        assert {(one.type, one.name) for one in made if one.operation == operation} >= nodes_own
    (server,) = (one for one in made if (one.type, one.name) == ("OrthancNode", "server"))
    assert ("MaximumPatientCount", "7") in {(path.rpartition(".")[2], new) for path, _, new in server.inputs}


def test_a_changed_program_is_compared_with_the_one_before(checkout: Path, base_of: Any) -> None:
    """Each runs on its own modules: the base's are not those of this change."""
    base_of.cache_clear()
    base = checkout / "components" / "container.py"
    text = base.read_text()
    assert "START_SECONDS = 120" in text
    base.write_text(text.replace("START_SECONDS = 120", "START_SECONDS = 121"))
    made = offline.report("dev", checkout, "HEAD").changes
    assert {value for one in made for value in one.inputs if value[0] == "waitTimeout"} == {("waitTimeout", "120", "121")}


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("nodes", [], "nodes"),
        ("nodes", [{"name": "server", "aet": "FAR_TOO_LONG_AN_AE_TITLE", "httpPort": 1, "dicomPort": 2}], "nodes[0].aet"),
        ("images", {"source": "registry", "postgres": "postgres:17"}, "breaks of the policy pack"),
    ],
)
def test_a_refusal_and_a_broken_rule_are_told(checkout: Path, key: str, value: Any, told: str) -> None:
    change(checkout, lambda config: config.update({f"orthanc-stack:{key}": value}))
    assert offline.preview_offline("dev", checkout, {}) == 1
    assert told in (checkout / "artifacts/preview/dev.md").read_text()
    made = read((checkout / "artifacts/preview/dev.json").read_bytes(), "dev")
    broken = {(rule, name) for rule, name, _ in made.violations}
    assert (bool(made.refused), ("no-floating-image-tag", "images-postgres") in broken) == (key == "nodes", key == "images")


def test_it_tells_no_secret_and_needs_no_command(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "CANARYpassphrase")
    monkeypatch.setenv("PULUMI_ACCESS_TOKEN", "CANARYtoken")
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    # No docker, no pulumi.
    monkeypatch.setenv("PATH", "/nowhere")
    assert offline.preview_offline("prod", checkout, {"BASE": ""}) == 0
    written = "".join((checkout / f"artifacts/preview/prod.{kind}").read_text() for kind in ("md", "json"))
    assert "CANARY" not in written
    assert "Stands-for-value" not in written
    assert "Not compared with any deployed stack" in written


def test_a_program_that_fails_is_told(checkout: Path) -> None:
    (checkout / "__main__.py").write_text("raise KeyError('boom')\n")
    with pytest.raises(SetupError, match=r"(?s)ended with an error.*boom"):
        offline.report("dev", checkout)
    (checkout / "__main__.py").write_text("print('{\"refused\": 1')\nimport os\nos._exit(0)\n")
    with pytest.raises(SetupError, match="ended with an error"):
        offline.report("dev", checkout)


def test_a_base_that_is_none_is_told(checkout: Path) -> None:
    for base in ("nowhere", "--output=x"):
        with pytest.raises(SetupError, match="BASE="):
            offline.report("dev", checkout, base)
    assert not (checkout / "x").exists()


def test_a_stack_that_the_base_does_not_have_is_all_new(checkout: Path) -> None:
    shutil.copy(checkout / "Pulumi.dev.yaml", checkout / "Pulumi.mine.yaml")
    made = offline.report("mine", checkout, "HEAD")
    assert {one.operation for one in made.changes} == {"add"}
    assert len(made.changes) == sum(count for _, count in made.counts)


def test_the_report_survives_its_json() -> None:
    made = Report("dev", "main", "", (("Container", 1),), (Change("add", "Container", "x"),), (("rule", "x", "message"),))
    assert read(write(made).encode(), "dev") == made
    assert json.loads(write(made))["format"] == 1


def test_as_a_command(checkout: Path) -> None:
    """By its file, from another folder, it runs the program of that folder, and not its own."""
    command = [sys.executable, str(ROOT / "ops" / "mocked.py"), "dev"]
    done = subprocess.run(command, cwd=checkout, env=os.environ, capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout)["resources"]) > 20
    assert '"uploads": "[secret]"' in done.stdout
    assert "Stands-for-value" not in done.stdout
