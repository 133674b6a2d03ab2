"""The launcher, and the virtual environment that it makes."""

import ast
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from ops.setup import venv
from ops.setup.console import ROOT, SetupError

# --- The launcher, with commands that only tell how they were started -------------------------------------------------

TELLING = """
import json, os, sys
seen = {"arguments": sys.argv[1:], "name": os.path.basename(sys.argv[0]), "folder": os.getcwd(), "utf8": sys.flags.utf8_mode, "é": "é"}
print(json.dumps({**seen, "prefix": sys.prefix, "children": os.environ["PYTHONUTF8"]}, ensure_ascii=False))
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the launcher and what it needs; its requirement files ask for nothing."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "ops" / "setup", folder / "ops" / "setup")
    shutil.copy(ROOT / "orthanc-stack", folder)
    (folder / "ops" / "cli.py").write_text(TELLING)
    for name in venv._FILES:
        (folder / name).write_text("# nothing\n")
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "orthanc-stack").symlink_to(folder / "orthanc-stack")
    return folder


def launch(checkout: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the launcher through a symlink in another folder. It has a cache of its own."""
    env = {**os.environ, "XDG_CACHE_HOME": str(checkout / "cache"), **environ}
    command = [sys.executable, "orthanc-stack", *arguments]
    return subprocess.run(command, cwd=checkout / "elsewhere", env=env, capture_output=True, encoding="utf-8", check=False)


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_launcher_makes_the_environment_once_and_hands_the_command_line_on(checkout: Path) -> None:
    completing = launch(checkout, _ORTHANC_STACK_COMPLETE="complete_bash")
    assert (completing.returncode, completing.stdout, completing.stderr) == (0, "", ""), (
        "a shell that completes waits, and shows all output"
    )
    both: list[subprocess.CompletedProcess[str]] = []
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    runs = [threading.Thread(target=lambda: both.append(launch(checkout, "send", "Ä", **locale))) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    wanted = {"arguments": ["send", "Ä"], "name": "orthanc-stack", "folder": str(checkout / "elsewhere"), "utf8": 1, "é": "é"}
    assert [told(run) for run in both] == [wanted | {"prefix": str(checkout / ".venv"), "children": "1"}] * 2
    assert sum("requirements-ops.txt installed" in run.stderr for run in both) == 1
    assert launch(checkout).stderr == ""
    assert "requirements-dev.txt installed" in launch(checkout, "dev", "lint").stderr
    assert launch(checkout, "dev", "lint").stderr == ""


def with_command(checkout: Path, program: str, shell: str = '"$@"') -> subprocess.CompletedProcess[str]:
    """Launch another program in place of ops/cli.py, by a line of the shell's."""
    told(launch(checkout))
    command = ["sh", "-c", shell, "sh", str(checkout / ".venv" / "bin" / "python"), str(checkout / "orthanc-stack")]
    (checkout / "ops" / "cli.py").write_text(program)
    try:
        env = {**os.environ, "XDG_CACHE_HOME": str(checkout / "cache")}
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    finally:
        (checkout / "ops" / "cli.py").write_text(TELLING)


def test_a_closed_stream_goes_to_no_file_that_is_opened_later(checkout: Path, tmp_path: Path) -> None:
    """Of all that is started, too: pulumi may open its state as file 1."""
    file = tmp_path / "state"
    writing = f"import os, subprocess\nos.open({str(file)!r}, os.O_CREAT | os.O_WRONLY)\nprint('said')\n"
    done = with_command(checkout, writing + "subprocess.run(['echo', 'said'], close_fds=False, check=True)", '"$@" <&- >&-')
    assert (done.returncode, done.stderr) == (0, "")
    assert file.read_text() == ""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_ends_in_good_order(checkout: Path, tmp_path: Path, sent: signal.Signals) -> None:
    """Wherever it is: here while modules are loaded. A pipeline's job that is cancelled gets a SIGTERM."""
    draft = tmp_path / "draft"
    # What is started in the background of a shell, as in some pipelines, inherits that SIGINT is ignored.
    heeding = "import os, pathlib, signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program = f"{heeding}try:\n    pathlib.Path({str(draft)!r}).touch()\n    os.kill(os.getpid(), {int(sent)})\n"
    done = with_command(checkout, f"{program}finally:\n    os.unlink({str(draft)!r})\n")
    assert (done.returncode, draft.exists()) == (130, False)
    assert done.stderr == "\nInterrupted. Give the same command again: it puts right what this run has left.\n"


def test_a_damaged_environment_is_told(checkout: Path) -> None:
    done = with_command(checkout, "import a_package_that_somebody_deleted")
    assert done.returncode == 1
    assert f"Delete {checkout / '.venv'}: the same command then makes it anew" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_upgraded_python_gets_a_new_environment(checkout: Path) -> None:
    told(launch(checkout))
    stamp = checkout / ".venv" / venv._STAMP
    stamp.write_text(stamp.read_text().replace(f'"{venv._VERSION}"', '"3.0"'))
    shutil.rmtree(next((checkout / ".venv" / "lib").glob("python*")))  # its packages are below a folder with the old version
    assert launch(checkout, _ORTHANC_STACK_COMPLETE="complete_bash").stderr == ""
    again = launch(checkout)
    assert told(again)["prefix"] == str(checkout / ".venv")
    assert "of a Python that was upgraded or removed: making it anew" in again.stderr


def test_a_checkout_that_cannot_be_written_to_is_told(checkout: Path) -> None:
    shutil.rmtree(checkout / ".venv", ignore_errors=True)
    (checkout / ".venv").symlink_to("/proc/nothing")
    try:
        done = launch(checkout)
    finally:
        (checkout / ".venv").unlink()
    assert done.returncode == 1
    assert "/.venv cannot be written to" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_old_python_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    ast.parse((ROOT / "orthanc-stack").read_text(), feature_version=(3, 6))
    refuse = runpy.run_path(str(ROOT / "orthanc-stack"))["refuse_old_python"]
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    monkeypatch.setattr(sys, "argv", ["./orthanc-stack", "up", "dev"])
    with pytest.raises(
        SystemExit, match=r"(?s)3\.11 or newer, and .* is 3\.9\..*apt-get install python3\.11.*: python3\.11 \./orthanc-stack up"
    ):
        refuse()


# --- The virtual environment ------------------------------------------------------------------------------------------


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose environment notes that it was made, and its pip that it was called."""
    (tmp_path / "requirements.txt").write_text("a\n")
    (tmp_path / "requirements-ops.txt").write_text("-r requirements.txt\nb\n")
    (tmp_path / "requirements-dev.txt").write_text("-r requirements-ops.txt\nc\n")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def create(folder: Path) -> None:
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        (folder / venv._UNFINISHED).touch()
        with (folder / "made").open("a") as made:
            made.write("once more\n")
        python = folder / "bin" / "python"
        python.unlink(missing_ok=True)
        python.write_text('#!/bin/sh\n[ "$1" = -c ] && echo 3.11 || echo "$@" >>"${0%/*/*}/installed"\ntest ! -e "${0%/*}/broken"\n')
        python.chmod(0o755)

    monkeypatch.setattr(venv, "_create", create)
    return tmp_path


def lines_in(checkout: Path, what: str) -> int:
    return len((checkout / ".venv" / what).read_text().splitlines())


def test_what_is_installed_is_not_installed_again_until_it_changes(quick: Path) -> None:
    for _ in range(2):
        venv.ensure_venv("requirements-ops.txt", quick)
    assert lines_in(quick, "installed") == 1
    (quick / "requirements.txt").write_text("a==2\n")
    assert not venv.is_complete("requirements-ops.txt", quick)
    venv.ensure_venv("requirements-ops.txt", quick)
    assert (lines_in(quick, "installed"), lines_in(quick, "made")) == (2, 1)


def test_the_development_set_holds_the_other(quick: Path) -> None:
    venv.ensure_venv("requirements-ops.txt", quick)
    assert not venv.is_complete("requirements-dev.txt", quick)
    (quick / "requirements.txt").write_text("a==2\n")
    venv.ensure_venv("requirements-dev.txt", quick)
    assert venv.is_complete("requirements-ops.txt", quick)
    assert lines_in(quick, "installed") == 2
    (quick / "requirements-ops.txt").write_text("b==3\n")
    assert not venv.is_complete("requirements-dev.txt", quick)


def test_a_removed_python_gets_a_new_environment(quick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    venv.ensure_venv("requirements-ops.txt", quick)
    python = venv.venv_python(quick)
    python.rename(python.with_name("old"))
    python.symlink_to("/nowhere/python3.0")
    assert not venv.is_complete("requirements-ops.txt", quick)
    venv.ensure_venv("requirements-ops.txt", quick)
    assert lines_in(quick, "made") == 2
    assert "making it anew" in capsys.readouterr().err


def test_an_interrupted_installation_begins_anew(quick: Path) -> None:
    venv.ensure_venv("requirements-ops.txt", quick)
    (quick / ".venv" / venv._UNFINISHED).touch()
    assert not venv.is_complete("requirements-ops.txt", quick)
    venv.ensure_venv("requirements-ops.txt", quick)
    assert lines_in(quick, "made") == 2
    assert venv.is_complete("requirements-ops.txt", quick)


def test_a_failed_installation_is_not_taken_for_a_complete_one(quick: Path) -> None:
    venv._create(quick / ".venv")
    (quick / ".venv" / "bin" / "broken").touch()
    with pytest.raises(SetupError, match=r"installing requirements-ops\.txt"):
        venv.ensure_venv("requirements-ops.txt", quick)
    assert not venv.is_complete("requirements-ops.txt", quick)
