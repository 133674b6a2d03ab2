"""The language host: what it says when something is wrong, that secrets stay secret, and that it leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.stack.engine import eventually
from tests.toolchain.conftest import VENV, Project

#: What a stack trace of the host itself would show.
GO_TRACE = ("goroutine ", "panic:", ".go:")
#: For the tests that let Python run: Pulumi's package alone takes a second or two to load.
LOADS_PYTHON = pytest.mark.slow("3 to 6 s: it runs a program, or several commands of Pulumi")


def failed_preview(project: Project) -> str:
    output = project.run("preview", fails=True)
    assert not [trace for trace in GO_TRACE if trace in output], output
    return output


def test_a_program_without_configuration_runs(project: Project) -> None:
    project.write("import pulumi\npulumi.export('answer', 42)\n")
    assert "answer: 42" in project.run("preview")


@pytest.mark.parametrize("makefile", [True, False])
def test_a_missing_virtual_environment_is_named_with_its_remedy(project: Project, makefile: bool) -> None:
    project.write("", options={"virtualenv": ".nowhere"})
    if makefile:
        (project.program / "Makefile").touch()
    output = failed_preview(project)
    assert f"there is no Python virtual environment in {project.program}/.nowhere" in output
    assert "python3 -m venv --clear .nowhere && .nowhere/bin/python -m pip install -r requirements.txt" in output
    assert ("make up, or: " in output) == makefile


def test_an_environment_without_pulumi_is_named_with_its_remedy(project: Project) -> None:
    empty = project.program / ".venv"
    subprocess.run([VENV / "bin" / "python", "-m", "venv", "--without-pip", empty], check=True)
    project.write("", options={"virtualenv": ".venv"})
    output = failed_preview(project)
    assert f"the package pulumi is not installed in the virtual environment {empty}" in output
    assert "pip install -r requirements.txt" in output


def test_an_unknown_toolchain_is_told(project: Project) -> None:
    project.write("", options={"toolchain": "conda"})
    assert 'runtime.options.toolchain is "conda"; it may be pip, poetry or uv' in failed_preview(project)


@pytest.mark.parametrize(
    ("program", "said", "unsaid"),
    [
        pytest.param(
            "import pulumi\n\ndef wrong():\n    raise ValueError('no such node')\n\nwrong()\n",
            ["ValueError: no such node", "__main__.py"],
            ["unhandled error occurred"],
            id="raises",
        ),
        pytest.param(
            "import pulumi\nx = (1,\n",
            ["SyntaxError: '(' was never closed", 'program/__main__.py", line 2'],
            ["unhandled error occurred"],
            id="syntax-error",
        ),
        pytest.param(
            "import sys\nprint('the printed reason')\nsys.exit(3)\n",
            ["stopped with exit status 3; what it printed above says why", "the printed reason"],
            [],
            id="exits",
        ),
    ],
)
@LOADS_PYTHON
def test_a_program_that_fails_shows_its_own_lines_only(project: Project, program: str, said: list[str], unsaid: list[str]) -> None:
    project.write(program)
    output = failed_preview(project)
    assert [text for text in said if text not in output] == [], output
    assert [text for text in unsaid if text in output] == [], output


def processes_of(project: Project) -> set[int]:
    """The processes that have the project's folder in their environment: Pulumi, the host, Python, plugins. One that ended has none."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            found |= {int(file.parent.name)} if os.fsencode(project.folder) in file.read_bytes() else set()
    return found


@pytest.mark.slow("5 to 8 s each: it begins a preview, and waits for the end of all that this has started")
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_cancelled_run_leaves_no_process(project: Project, how: signal.Signals) -> None:
    # It ignores both polite ways to end, as a program that hangs in C code does.
    project.write(
        "import pathlib, signal, time\n"
        "for way in (signal.SIGINT, signal.SIGTERM): signal.signal(way, signal.SIG_IGN)\n"
        "pathlib.Path('started').touch()\ntime.sleep(300)\n"
    )
    process = project.start("preview")
    try:
        eventually("the program runs", (project.program / "started").exists, 20)
        assert len(processes_of(project) - {process.pid}) >= 2, "the language host and Python are expected"
        process.send_signal(how)
        process.wait(timeout=20)
        eventually("all have ended", lambda: not processes_of(project), 8)
    finally:
        for left in processes_of(project):
            with contextlib.suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)


@LOADS_PYTHON
def test_secrets_arrive_as_secrets_and_stay_encrypted(project: Project) -> None:
    project.write(
        "import pulumi\npulumi.export('shown', pulumi.Config().require_secret('word'))\n"
        "pulumi.export('known', pulumi.runtime.is_config_secret('trial:word'))\n"
    )
    project.run("config", "set", "--secret", "word", "hunter2-plain")
    assert "[secret]" in project.run("up", "--yes", "--skip-preview")
    written = [file for file in project.folder.rglob("*") if file.is_file()]
    assert any("checkpoint" in file.read_text(errors="replace") for file in written)
    assert not [file for file in written if "hunter2-plain" in file.read_text(errors="replace")]
    shown = project.run("stack", "output", "--json", "--show-secrets")
    assert json.loads(shown) == {"shown": "hunter2-plain", "known": True}


POLICY = """
from pulumi_policy import EnforcementLevel, PolicyPack, StackValidationPolicy

def refuse(args, report):
    report("no stack is good enough")

PolicyPack("trial", policies=[StackValidationPolicy(
    name="refuse", description="Refuses.", enforcement_level=EnforcementLevel.MANDATORY, validate=refuse)])
"""


@LOADS_PYTHON
def test_a_policy_pack_blocks_a_preview(project: Project) -> None:
    project.write("import pulumi\npulumi.export('a', 1)\n")
    pack = project.folder / "pack"
    pack.mkdir()
    (pack / "PulumiPolicy.yaml").write_text(f"runtime:\n  name: python\n  options:\n    toolchain: pip\n    virtualenv: {VENV}\n")
    (pack / "__main__.py").write_text(POLICY)
    assert "no stack is good enough" in project.run("preview", "--policy-pack", str(pack), fails=True)


@LOADS_PYTHON
def test_about_names_python_the_plugins_and_the_packages(project: Project) -> None:
    about = json.loads(project.run("about", "--json"))
    assert about["runtime"]["executable"] == str(VENV / "bin" / "python")
    assert "docker" in {plugin["name"] for plugin in about["plugins"]}
    assert any(dependency["name"] == "pulumi-docker" for dependency in about["dependencies"])
