"""The language host: what it says when something is wrong, that secrets stay secret, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.toolchain.conftest import VENV, Project

#: What a stack trace of the host itself would show.
GO_TRACE = ("goroutine ", "panic:", ".go:")


def failed_preview(project: Project) -> str:
    done = project.run("preview")
    output = done.stdout + done.stderr
    assert done.returncode != 0, output
    assert not [trace for trace in GO_TRACE if trace in output], output
    return output


def test_a_program_without_configuration_runs(project: Project) -> None:
    project.write("import pulumi\npulumi.export('answer', 42)\n")
    done = project.run("preview")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "answer: 42" in done.stdout


@pytest.mark.parametrize("makefile", [True, False])
def test_a_missing_virtual_environment_is_named_with_its_remedy(project: Project, makefile: bool) -> None:
    project.write("", options={"virtualenv": ".nowhere"})
    if makefile:
        (project.folder / "program" / "Makefile").touch()
    output = failed_preview(project)
    assert f"there is no Python virtual environment in {project.folder}/program/.nowhere" in output
    assert "python3 -m venv --clear .nowhere && .nowhere/bin/python -m pip install -r requirements.txt" in output
    assert ("make up, or: " in output) == makefile


def test_an_environment_without_pulumi_is_named_with_its_remedy(project: Project) -> None:
    empty = project.folder / "program" / ".venv"
    subprocess.run([VENV / "bin" / "python", "-m", "venv", "--without-pip", empty], check=True)
    project.write("", options={"virtualenv": ".venv"})
    output = failed_preview(project)
    assert f"the package pulumi is not installed in the virtual environment {empty}" in output
    assert "pip install -r requirements.txt" in output


def test_a_raising_program_shows_its_own_lines_only(project: Project) -> None:
    project.write("import pulumi\n\ndef wrong():\n    raise ValueError('no such node')\n\nwrong()\n")
    output = failed_preview(project)
    assert "ValueError: no such node" in output
    assert "__main__.py" in output
    assert "unhandled error occurred" not in output


def test_a_syntax_error_names_file_and_line(project: Project) -> None:
    project.write("import pulumi\nx = (1,\n")
    output = failed_preview(project)
    assert "SyntaxError: '(' was never closed" in output
    assert 'program/__main__.py", line 2' in output


def test_an_exit_status_is_told(project: Project) -> None:
    project.write("import sys\nprint('the printed reason')\nsys.exit(3)\n")
    output = failed_preview(project)
    assert "stopped with exit status 3; what it printed above says why" in output
    assert "the printed reason" in output


def test_an_unknown_toolchain_is_told(project: Project) -> None:
    project.write("", options={"toolchain": "conda"})
    assert 'runtime.options.toolchain is "conda"; it may be pip, poetry or uv' in failed_preview(project)


def status_of(pid: int) -> tuple[str, int]:
    """A process's state and parent, from /proc; ("", 0) when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", 0
    return fields[0], int(fields[1])


def descendants(pid: int) -> set[int]:
    """The processes that a process has started, and those that they have: the host, Python, plugins."""
    parents = {int(entry.name): status_of(int(entry.name))[1] for entry in Path("/proc").glob("[0-9]*")}
    found = {pid}
    while grown := {child for child, parent in parents.items() if parent in found} - found:
        found |= grown
    return found - {pid}


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if status_of(pid)[0] not in {"", "Z"}}


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return condition()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_cancelled_run_leaves_no_process(project: Project, how: signal.Signals) -> None:
    # It ignores both polite ways to end, as a program that hangs in C code does.
    project.write(
        "import pathlib, signal, time\n"
        "for way in (signal.SIGINT, signal.SIGTERM): signal.signal(way, signal.SIG_IGN)\n"
        "pathlib.Path('started').touch()\ntime.sleep(300)\n"
    )
    process = subprocess.Popen(
        project.command("preview"), cwd=project.folder / "program", env=project.environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    started: set[int] = set()
    try:
        assert wait_for((project.folder / "program" / "started").exists, 20)
        started = descendants(process.pid)
        assert len(started) >= 2, "the language host and Python are expected"
        process.send_signal(how)
        process.wait(timeout=20)
        assert wait_for(lambda: not alive(started), 8), alive(started)
    finally:
        for left in {process.pid, *alive(started)}:
            try:
                os.kill(left, signal.SIGKILL)
            except ProcessLookupError:
                continue


def test_secrets_arrive_as_secrets_and_stay_encrypted(project: Project) -> None:
    project.write(
        "import pulumi\npulumi.export('shown', pulumi.Config().require_secret('word'))\n"
        "pulumi.export('known', pulumi.runtime.is_config_secret('trial:word'))\n"
    )
    assert project.run("config", "set", "--secret", "word", "hunter2-plain").returncode == 0
    done = project.run("up", "--yes", "--skip-preview")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[secret]" in done.stdout
    written = [file for file in project.folder.rglob("*") if file.is_file()]
    assert any("checkpoint" in file.read_text(errors="replace") for file in written)
    assert not [file for file in written if "hunter2-plain" in file.read_text(errors="replace")]
    shown = project.run("stack", "output", "--json", "--show-secrets")
    assert json.loads(shown.stdout) == {"shown": "hunter2-plain", "known": True}


POLICY = """
from pulumi_policy import EnforcementLevel, PolicyPack, StackValidationPolicy

def refuse(args, report):
    report("no stack is good enough")

PolicyPack("trial", policies=[StackValidationPolicy(
    name="refuse", description="Refuses.", enforcement_level=EnforcementLevel.MANDATORY, validate=refuse)])
"""


def test_a_policy_pack_blocks_a_preview(project: Project) -> None:
    project.write("import pulumi\npulumi.export('a', 1)\n")
    pack = project.folder / "pack"
    pack.mkdir()
    (pack / "PulumiPolicy.yaml").write_text(f"runtime:\n  name: python\n  options:\n    toolchain: pip\n    virtualenv: {VENV}\n")
    (pack / "__main__.py").write_text(POLICY)
    done = project.run("preview", "--policy-pack", str(pack))
    assert done.returncode != 0, done.stdout
    assert "no stack is good enough" in done.stdout + done.stderr


def test_about_names_python_the_plugins_and_the_packages(project: Project) -> None:
    project.write("import pulumi\n")
    about = json.loads(project.run("about", "--json").stdout)
    assert about["runtime"]["executable"] == str(VENV / "bin" / "python")
    assert "docker" in {plugin["name"] for plugin in about["plugins"]}
    assert any(dependency["name"] == "pulumi-docker" for dependency in about["dependencies"])
