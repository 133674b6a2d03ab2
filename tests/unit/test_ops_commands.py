"""The virtual environment's stamp, and what the commands say: outputs without passwords unless they are asked for, and what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dev.lint import shell_scripts
from ops.cli import COMMANDS
from ops.setup import venv
from ops.setup.console import ROOT, SetupError
from ops.setup.prepare import exports
from ops.stack.outputs import MASK, outputs_json
from ops.stack.up import summary


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose environment notes that it was made, and its pip that it was called."""
    (tmp_path / "requirements.txt").write_text("a\n")
    (tmp_path / "requirements-dev.txt").write_text("-r requirements.txt\nb\n")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def create(folder: Path) -> None:
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        (folder / venv._UNFINISHED).touch()
        with (folder / "made").open("a") as made:
            made.write("once more\n")
        python = folder / "bin" / "python"
        python.write_text('#!/bin/sh\n[ "$2" = "import pip" ] || echo "$@" >>"${0%/*/*}/installed"\ntest ! -e "${0%/*}/broken"\n')
        python.chmod(0o755)

    monkeypatch.setattr(venv, "_create", create)
    return tmp_path


def _count(checkout: Path, what: str) -> int:
    return len((checkout / ".venv" / what).read_text().splitlines())


def test_what_is_installed_is_not_installed_again_until_it_changes(checkout: Path) -> None:
    for _ in range(2):
        venv.ensure_venv("requirements.txt", checkout)
    assert _count(checkout, "installed") == 1
    (checkout / "requirements.txt").write_text("a==2\n")
    assert not venv.is_complete("requirements.txt", checkout)
    venv.ensure_venv("requirements.txt", checkout)
    assert _count(checkout, "installed") == 2


def test_the_development_set_holds_the_other(checkout: Path) -> None:
    venv.ensure_venv("requirements.txt", checkout)
    assert not venv.is_complete("requirements-dev.txt", checkout)
    (checkout / "requirements.txt").write_text("a==2\n")
    venv.ensure_venv("requirements-dev.txt", checkout)
    assert venv.is_complete("requirements.txt", checkout)
    assert _count(checkout, "installed") == 2
    (checkout / "requirements.txt").write_text("a==3\n")
    assert not venv.is_complete("requirements-dev.txt", checkout)


def test_an_interrupted_installation_begins_anew(checkout: Path) -> None:
    venv.ensure_venv("requirements.txt", checkout)
    (checkout / ".venv" / venv._UNFINISHED).touch()
    assert not venv.is_complete("requirements.txt", checkout)
    venv.ensure_venv("requirements.txt", checkout)
    assert _count(checkout, "made") == 2
    assert venv.is_complete("requirements.txt", checkout)


def test_a_failed_installation_is_not_taken_for_a_complete_one(checkout: Path) -> None:
    venv._create(checkout / ".venv")
    (checkout / ".venv" / "bin" / "broken").touch()
    with pytest.raises(SetupError, match=r"installing requirements\.txt"):
        venv.ensure_venv("requirements.txt", checkout)
    assert not venv.is_complete("requirements.txt", checkout)


def test_scripts_are_known_by_name_or_first_line(tmp_path: Path) -> None:
    files = {"a.sh": "", "run": "#!/bin/sh -eu\n", "b": "#!/usr/bin/env bash\n", "c": "#!/usr/bin/env python3\n", "d": "", "e.md": "sh\n"}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert shell_scripts(tmp_path, [*files, "deleted.sh"]) == ["a.sh", "run", "b"]


def _ops(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ops", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_command_is_a_target_and_listed() -> None:
    targets = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("COMMANDS :="))
    assert targets.split()[2:] == ["help", *COMMANDS]
    shown = _ops("help").stdout
    assert all(f"make {command}" in shown for command in COMMANDS)


def test_an_unknown_command_is_refused_with_the_known_ones() -> None:
    done = _ops("upp")
    assert done.returncode == 2
    assert "'upp'" in done.stderr
    assert "preview" in done.stderr
    assert "Traceback" not in done.stderr


OUTPUTS = {
    "users": {"server": {"orthanc": "Geheim123"}, "client": {"orthanc": "Anders456", "viewer": "Noch789"}},
    "nodes": {"server": {"aet": "SERVER", "httpUrl": "http://127.0.0.1:8042", "dicomHost": "127.0.0.1", "dicomPort": 4242}},
    "adminerUrl": "http://127.0.0.1:8080",
    "indexDb": None,
    "images": {"source": "local", "orthanc": "orthanc-stack/orthanc:local-1", "postgres": None, "adminer": "a:1"},
}


def shown(outputs: dict[str, Any] = OUTPUTS, *, show_secrets: bool = False) -> dict[str, Any]:
    """The outputs as a program reads them."""
    return dict(json.loads(outputs_json(outputs, show_secrets=show_secrets)))


def test_passwords_are_masked_and_their_owners_named_until_they_are_asked_for() -> None:
    assert shown() == OUTPUTS | {"users": {"server": {"orthanc": MASK}, "client": {"orthanc": MASK, "viewer": MASK}}}
    assert shown(show_secrets=True) == OUTPUTS
    # What Pulumi masked stays masked.
    assert shown({"users": "[secret]"})["users"] == "[secret]"


def test_the_order_of_keys_is_stable() -> None:
    backwards = dict(reversed(OUTPUTS.items()))
    assert outputs_json(OUTPUTS, show_secrets=True) == outputs_json(backwards, show_secrets=True)
    assert list(shown()) == sorted(OUTPUTS)


def test_the_summary_says_where_the_stack_is_found_and_no_password() -> None:
    text = summary(OUTPUTS, "dev")
    for wanted in ("http://127.0.0.1:8042", "SERVER", "127.0.0.1:4242", "http://127.0.0.1:8080", "SHOW_SECRETS=1"):
        assert wanted in text
    assert "built here from Debian's packages: orthanc-stack/orthanc:local-1, a:1" in text
    assert "Geheim123" not in text
    server = {"aet": "SERVER", "httpUrl": "http://[fd00::7]:8042", "dicomHost": "fd00::7", "dicomPort": 4242}
    assert " [fd00::7]:4242" in summary({"nodes": {"server": server}}, "dev")


def test_the_users_shell_gets_what_changed_and_the_stack() -> None:
    before = {"PATH": "/bin", "HOME": "/h"}
    after = {"PATH": "/tools:/bin", "HOME": "/h", "PULUMI_BACKEND_URL": "file:///s"}
    changed = [("PATH", "/tools:/bin"), ("PULUMI_BACKEND_URL", "file:///s"), ("PULUMI_STACK", "prod")]
    assert exports(before, after, "prod") == changed
