"""The command line: what it lists, what it refuses, and how it ends."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import typer
from typer.testing import CliRunner

from configs.problems import SettingsError
from ops import cli
from ops.setup import prepare
from ops.setup.console import ROOT, SetupError
from ops.stack import forwarding, lifecycle, secrets, send, up
from ops.stack.terminal import confirm
from ops.stack.up import summarize
from ops.stack.verify import check

RUNNER = CliRunner()
COMMANDS = sorted(str(one.name or getattr(one.callback, "__name__", "")) for one in cli.app.registered_commands)
#: The commands that change a stack, delete it, or tell of it: each needs its name.
OF_A_STACK = [command for command in COMMANDS if command != "clean"]
#: What a Makefile, a README and people's fingers have known since the beginning.
ALIASES = ["up", "down", "preview", "outputs", "verify", "status", "destroy", "test", "test-slow", "lint", "bench", "soak"]


def run(*arguments: str) -> tuple[int, str]:
    """A command's exit status, and all that it printed, less colours."""
    done = RUNNER.invoke(cli.app, list(arguments), env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    return done.exit_code, re.sub(r"\x1b\[[0-9;]*m", "", done.output)


def test_the_top_lists_every_command_and_each_has_help() -> None:
    status, text = run("--help")
    assert status == 0
    for command in COMMANDS:
        assert re.search(rf"^\W*{command}\b", text, re.MULTILINE), command
        assert run(command, "--help")[0] == 0
    assert run("dev", "--help")[0] == 0


@pytest.mark.parametrize("command", OF_A_STACK)
def test_no_stack_is_meant_by_leaving_its_name_out(command: str) -> None:
    status, text = run(command)
    assert status == 2
    assert "Missing argument 'STACK'" in text


@pytest.mark.parametrize("arguments", [("upp", "dev"), ("up", "dev", "--stak=prod"), ("destroy", "dev", "prod"), ("send", "dev", "a")])
def test_what_is_misspelt_is_an_error_and_does_nothing(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((up, "up"), (lifecycle, "destroy"), (send, "send")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("it was done"))
    status, text = run(*arguments)
    assert status == 2
    assert "Traceback" not in text


def test_the_options_arrive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []

    def asking(*arguments: Any, **options: Any) -> int:
        asked.append((*arguments, *options.values()))
        return 0

    monkeypatch.setattr(up, "up", asking)
    monkeypatch.setattr(lifecycle, "destroy", asking)
    plan = tmp_path / "p.json"
    assert run("up", "prod", "--plan", str(plan))[0] == 2
    plan.touch()
    assert [run("up", "prod", "--plan", str(plan))[0], run("up", "dev")[0], run("up", "dev", "--no-backup")[0]] == [0, 0, 0]
    assert [run("destroy", "dev")[0], run("destroy", "dev", "--yes")[0]] == [0, 0]
    assert asked == [("prod", plan, True), ("dev", None, True), ("dev", None, False), ("dev", False), ("dev", True)]


def _raising(error: BaseException) -> Callable[..., int]:
    def work(*_: Any, **__: Any) -> int:
        raise error

    return work


@pytest.mark.parametrize(
    ("work", "status", "said"),
    [
        (lambda *_, **__: 0, 0, ""),
        (lambda *_, **__: 3, 3, ""),
        (_raising(SetupError("no engine")), 1, "no engine"),
        (_raising(SettingsError("aet is missing")), 1, "aet is missing"),
        (_raising(KeyboardInterrupt()), 130, "Interrupted. Give the same command again"),
        (_raising(PermissionError(13, "Permission denied", "/srv/artifacts")), 1, "\n/srv/artifacts: Permission denied\n"),
        (_raising(OSError("Cannot call rmtree on a symbolic link")), 1, "Cannot call rmtree"),
    ],
)
def test_how_a_command_ends_is_its_exit_status(work: Any, status: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "status", work)
    ended, text = run("status", "dev")
    assert ended == status
    assert said in text


def test_a_fault_of_ours_is_not_told_as_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "status", _raising(KeyError("a fault of the program")))
    done = RUNNER.invoke(cli.app, ["status", "dev"])
    assert isinstance(done.exception, KeyError)


def test_shells_complete_the_names_of_stacks() -> None:
    assert {"dev", "prod"} <= set(cli._stack_names())


def test_make_keeps_its_words() -> None:
    made = (ROOT / "Makefile").read_text()
    phony = next(line for line in made.splitlines() if line.startswith(".PHONY:"))
    assert sorted(phony.split()[1:]) == sorted([*ALIASES, "help"])
    command = ["make", "--no-print-directory", "-n", "destroy", "STACK=prod"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown.split()[1:] == ["./orthanc-stack", "destroy", "prod"]


def test_the_module_that_runs_is_the_one_that_is_tested() -> None:
    done = subprocess.run([sys.executable, "-m", "ops.cli", "nothing"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "No such command 'nothing'" in done.stderr


# --- check, and what up ends with ---


def test_a_stack_file_is_checked_without_an_engine_a_state_or_a_secret(capsys: pytest.CaptureFixture[str]) -> None:
    assert check("organization/orthanc-stack/dev", as_json=False) == 0
    assert "Pulumi.dev.yaml is accepted: 2 nodes" in capsys.readouterr().out
    assert check("dev", as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["accepted"] is True
    assert check("misspelt", as_json=True) == 1
    assert "There is no Pulumi.misspelt.yaml" in json.loads(capsys.readouterr().out)["problems"]
    status, text = run("check", "misspelt")
    assert status == 1
    assert "There are: Pulumi.dev.yaml, Pulumi.prod.yaml" in text


OUTPUTS = {
    "users": {"server": {"orthanc": "Geheim123"}},
    "nodes": {"server": {"aet": "SERVER", "httpUrl": "http://127.0.0.1:8042", "dicomHost": "fd00::7", "dicomPort": 4242}},
    "adminerUrl": "http://127.0.0.1:8080",
    "images": {"source": "local", "orthanc": "orthanc-stack/orthanc:local-1", "postgres": None, "adminer": "a:1"},
}


def test_up_ends_with_where_the_stack_is_found_and_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    summarize(OUTPUTS, "dev")
    text = capsys.readouterr().out
    for wanted in ("http://127.0.0.1:8042", "SERVER", "[fd00::7]:4242", "http://127.0.0.1:8080", "outputs dev --show-secrets"):
        assert wanted in text
    assert "built here from Debian's packages: orthanc-stack/orthanc:local-1, a:1" in text
    assert "Geheim123" not in text


def test_no_command_is_without_a_word_on_what_it_does() -> None:
    assert all(typer.main.get_command(cli.app).commands[command].help for command in COMMANDS)  # type: ignore[attr-defined]


def test_a_reader_that_has_seen_enough_is_no_fault() -> None:
    """`./orthanc-stack outputs dev | head -1`: what is still in the buffer has nowhere to go."""
    read, write = os.pipe()
    os.close(read)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with os.fdopen(write, "wb") as closed:
        command = [sys.executable, "-m", "ops.cli", "check", "dev"]
        done = subprocess.run(command, cwd=ROOT, env=env, stdout=closed, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_a_full_disk_is_told_without_a_traceback() -> None:
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "ops.cli", "check", "dev"]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "\nNo space left on device\n")


def test_clean_says_what_it_could_not_delete(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    (tmp_path / "kept").mkdir()
    (tmp_path / ".venv").symlink_to("kept")
    (tmp_path / "artifacts").mkdir()
    assert run("clean")[0] == 0
    assert [file.name for file in tmp_path.iterdir()] == ["kept"]
    (tmp_path / "artifacts").mkdir()
    monkeypatch.setattr(shutil, "rmtree", _raising(PermissionError(13, "Permission denied", "artifacts")))
    assert run("clean") == (1, "\nartifacts: Permission denied\n")


def test_env_takes_back_what_names_another_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DOCKER_CONTEXT", "DOCKER_TLS_VERIFY"):
        monkeypatch.setenv(name, "1")

    def choosing(_: str) -> None:
        for name in ("DOCKER_CONTEXT", "DOCKER_TLS_VERIFY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("DOCKER_HOST", "unix:///it's mine")

    monkeypatch.setattr(prepare, "prepare", choosing)
    status, text = run("env", "dev")
    assert status == 0
    shell = ["sh", "-c", f'{text}\necho "$DOCKER_HOST,$PULUMI_STACK,$DOCKER_CONTEXT,$DOCKER_TLS_VERIFY"']
    done = subprocess.run(shell, env={"DOCKER_CONTEXT": "1", "DOCKER_TLS_VERIFY": "1"}, capture_output=True, text=True, check=True)
    assert done.stdout == "unix:///it's mine,dev,,\n"


def test_no_answer_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-D, where the name is asked for: nothing is done, and it says so."""
    terminal = io.StringIO("")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    with pytest.raises(SetupError, match="nothing was touched: that is not the stack's name"):
        confirm("dev", "It goes.", "destroy")


def test_modules_are_started_in_the_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`python -m` looks for them in the current folder, which is the user's own."""
    monkeypatch.chdir(tmp_path)
    started: list[tuple[Path, str]] = []
    monkeypatch.setattr(os, "execv", lambda _, command: started.append((Path.cwd(), command[-1])))
    run("dev", "docs")
    assert started == [(ROOT, "dev.reference")]


def test_commands_in_messages_are_complete() -> None:
    """Each names the stack that it is for."""
    lines = [line.strip() for file in (ROOT / "ops").rglob("*.py") for line in file.read_text().splitlines()]
    told = [found for line in lines if line[0:1] != "#" and line[0:3] != '"""' for found in re.findall(r"`\./orthanc-stack (.+?)`", line)]
    assert len(told) > 15
    assert [command for command in told if command in OF_A_STACK] == []


def test_new_secrets_are_deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    rotate, deploy = Mock(return_value=0), Mock(return_value=3)
    monkeypatch.setattr(secrets, "rotate", rotate)
    monkeypatch.setattr(up, "up", deploy)
    assert run("rotate", "dev", "dbPassword")[0] == 3
    assert rotate.called
    # All of them are not what was named.
    assert run("rotate", "dev", "dbPassword", "--all")[0] == 2
    assert rotate.call_count == 1
    deploy.assert_called_once_with("dev")
