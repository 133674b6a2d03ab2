"""ops/setup/toolchain.py and what it uses: what is found, what is built again, and that an interrupted build leaves nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ops.setup import go_build, toolchain, versions
from ops.setup.console import ROOT, SetupError


def put_pulumi(folder: Path, version: str = "v999.0.0") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("pulumi", "pulumi-language-python"):
        (folder / name).write_text(f"#!/bin/sh\necho {version}\n")
        (folder / name).chmod(0o755)


def pretend_to_build(_go: Path, _env: dict[str, str], out: Path) -> None:
    put_pulumi(out)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no `pulumi` on PATH, and a build that only pretends."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("ORTHANC_STACK_TOOLCHAIN", "build")
    monkeypatch.setattr(go_build, "find_go", lambda: (Path("go"), {}))
    monkeypatch.setattr(go_build, "_compile_cli", pretend_to_build)
    return tmp_path / "orthanc-stack"


@pytest.fixture
def mine(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on PATH with a `pulumi` of the user's own, which may be taken."""
    monkeypatch.delenv("ORTHANC_STACK_TOOLCHAIN")
    monkeypatch.setattr(toolchain, "_download", lambda wish: None)
    put_pulumi(tmp_path / "mine")
    monkeypatch.setenv("PATH", f"{tmp_path / 'mine'}:/usr/bin:/bin")
    return tmp_path / "mine"


@pytest.mark.parametrize(
    ("name", "built"),
    [("README.md", False), ("docker/schema.json", False), ("cli/a_test.go", False), ("cli/go.mod", True), ("docker/main.go", True)],
)
def test_the_hash_changes_with_what_is_built_and_with_nothing_else(tmp_path: Path, name: str, built: bool) -> None:
    for file in ("cli/go.mod", "docker/main.go", "README.md", "docker/schema.json", "cli/a_test.go"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(file)
    seen = {versions.toolchain_hash(tmp_path)}
    (tmp_path / name).write_text("changed")
    seen.add(versions.toolchain_hash(tmp_path))
    assert len(seen) == 1 + built
    if built:
        (tmp_path / name).rename(tmp_path / "docker" / "other.go")
        seen.add(versions.toolchain_hash(tmp_path))
        assert len(seen) == 3


def test_the_second_call_builds_nothing_and_is_quick(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = toolchain.ensure_pulumi()
    assert first.origin == "built"

    def refuse(*_args: object, **_options: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "run", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)

    def seconds() -> float:
        started = time.perf_counter()
        assert toolchain.ensure_pulumi() == first
        return time.perf_counter() - started

    assert min(seconds() for _ in range(5)) < 0.05, "the quickest of five: the machine may be busy"


def test_what_is_added_to_the_path_is_added_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = toolchain.ensure_pulumi()
    monkeypatch.setenv("PATH", found.env["PATH"])
    assert found.env["PATH"].split(":") == [str(found.command.parent), "/usr/bin", "/bin"]


def test_a_removed_command_is_built_again(cache: Path) -> None:
    command = toolchain.ensure_pulumi().command
    shutil.rmtree(command.parent.parent)
    assert toolchain.ensure_pulumi().command.exists()


def test_an_interrupted_build_leaves_nothing_and_is_repeated(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_go: Path, _env: dict[str, str], out: Path) -> None:
        put_pulumi(out)
        raise KeyboardInterrupt

    monkeypatch.setattr(go_build, "_compile_cli", interrupted)
    with pytest.raises(KeyboardInterrupt):
        toolchain.ensure_pulumi()
    assert not list(cache.rglob("pulumi")), "half a build is in the cache"
    monkeypatch.setattr(go_build, "_compile_cli", pretend_to_build)
    assert toolchain.ensure_pulumi().command.exists()


def test_two_runs_do_not_build_at_once(cache: Path) -> None:
    script = (
        "import time\nfrom ops.setup import cache\n"
        "with cache.lock('build'):\n print('in', time.monotonic(), flush=True)\n"
        " time.sleep(0.4)\n print('out', time.monotonic(), flush=True)\n"
    )
    runs = [subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    spans = []
    for run in runs:
        lines = [line.split() for line in run.communicate(timeout=20)[0].splitlines()]
        times = {line[0]: float(line[1]) for line in lines if line[0] in {"in", "out"}}
        spans.append((times["in"], times["out"]))
    (_, first_out), (second_in, _) = sorted(spans)
    assert first_out <= second_in


def test_a_recent_pulumi_on_path_is_taken(mine: Path) -> None:
    found = toolchain.ensure_pulumi()
    assert (found.origin, found.command) == ("PATH", mine / "pulumi")
    assert "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION" not in found.env
    assert found.env["PATH"].startswith(str(mine))


def test_an_old_pulumi_is_passed_over(mine: Path) -> None:
    put_pulumi(mine, "v3.1.0")
    assert toolchain.ensure_pulumi().origin == "built"


def test_a_pulumi_without_a_language_host_is_passed_over(mine: Path) -> None:
    (mine / "pulumi-language-python").unlink()
    assert toolchain.ensure_pulumi().origin == "built"


def test_an_unknown_wish_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTHANC_STACK_TOOLCHAIN", "buidl")
    with pytest.raises(SetupError, match='is "buidl"; it may be "build", "download" or unset'):
        toolchain.ensure_pulumi()


def test_a_download_that_does_not_answer_is_given_up(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_FETCH", "import time; time.sleep(60)")
    monkeypatch.setattr(toolchain, "_CONNECT_SECONDS", 0.3)
    monkeypatch.delenv("ORTHANC_STACK_TOOLCHAIN")
    started = time.monotonic()
    assert toolchain.ensure_pulumi().origin == "built"
    assert time.monotonic() - started < 2
    monkeypatch.setenv("ORTHANC_STACK_TOOLCHAIN", "download")
    with pytest.raises(SetupError, match="did not answer in"):
        toolchain.ensure_pulumi()
