"""The virtual environment's stamp, and which files are scripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from dev.lint import shell_scripts
from ops.setup import venv
from ops.setup.console import SetupError


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
