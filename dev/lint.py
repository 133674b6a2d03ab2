"""`make lint`: every linter, each with one line when it is content and its whole output when it is not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dev.go_tools import go_install
from ops.setup import apt
from ops.setup.console import ROOT, SetupError, say
from ops.setup.go_build import find_go

#: Its package on PyPI is a script that downloads it from GitHub.
_ACTIONLINT = ("github.com/rhysd/actionlint/cmd/actionlint", "1.7.12")

#: Go's modules, and how to vet each: with the flags that it is built with, so that what vet compiles is not compiled again.
_GO_MODULES: Mapping[str, Sequence[str]] = {
    "toolchain/cli": ("-trimpath",),
    "toolchain/docker": ("-trimpath", "-tags", "no_compose"),
}


def lint() -> int:
    """Run all linters, the later ones also when an earlier one complains; the exit status."""
    python = sys.executable
    results = [
        _lint("ruff", [python, "-m", "ruff", "check", "."]),
        _lint("format", [python, "-m", "ruff", "format", "--check", "."], hint="`.venv/bin/ruff format .` puts it right."),
        _lint("mypy", [python, "-m", "mypy"]),
        _shellcheck(),
        *_workflows(),
        *(_go_vet(module, flags) for module, flags in _GO_MODULES.items()),
    ]
    return 0 if all(results) else 1


def shell_scripts(root: Path, files: Sequence[str]) -> list[str]:
    """Those files that a shell runs, by their name or their first line."""
    return [name for name in files if (root / name).is_file() and _is_shell(root / name)]


def _is_shell(file: Path) -> bool:
    if file.suffix == ".sh":
        return True
    with file.open("rb") as opened:
        first = opened.readline(64)
    words = [word.rpartition(b"/")[2] for word in first.removeprefix(b"#!").split()] if first.startswith(b"#!") else []
    return [word for word in words if word != b"env"][:1] in ([b"sh"], [b"bash"], [b"dash"])


def _lint(label: str, command: Sequence[str | Path], *, cwd: Path = ROOT, env: Mapping[str, str] | None = None, hint: str = "") -> bool:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        last = (done.stdout.strip().splitlines() or ["nothing to complain of"])[-1]
        say(label, f"ok: {last}")
        return True
    said = f"{done.stdout}{done.stderr}".strip()
    print(said, file=sys.stderr)
    say(label, f"FAILED (exit status {done.returncode}), see above. {hint}".rstrip())
    return False


def _shellcheck() -> bool:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        raise SetupError(f"`git ls-files` says which scripts there are, and failed: {listed.stderr.strip()}")
    scripts = shell_scripts(ROOT, [name for name in listed.stdout.split("\0") if name])
    if not shutil.which("shellcheck"):
        if not apt.can_install():
            raise SetupError("there is no shellcheck. On Debian and Ubuntu: sudo apt-get install shellcheck")
        apt.install("shellcheck", ["shellcheck"], "the shell scripts")
    if not scripts:
        say("shellcheck", "ok: no scripts")
        return True
    if not _lint_quietly(["shellcheck", *scripts]):
        say("shellcheck", "FAILED, see above")
        return False
    say("shellcheck", f"ok: {len(scripts)} scripts")
    return True


def _lint_quietly(command: Sequence[str]) -> bool:
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def _workflows() -> tuple[bool, bool]:
    """The workflows: whether GitHub would run them (actionlint, with shellcheck on their scripts), and whom they trust (zizmor)."""
    workflows = [*sorted((ROOT / ".github" / "workflows").glob("*.yml")), ROOT / "examples" / "backup.yml"]
    # Offline: what zizmor asks GitHub for needs GitHub, and a token. No finding is too small.
    trust: list[str | Path] = [Path(sys.executable).with_name("zizmor"), "--offline", "--no-progress", "--quiet", "--persona=pedantic"]
    runs: list[str | Path] = [go_install("Linters", *_ACTIONLINT, takes="half a minute"), "-no-color", *workflows]
    return _lint("actionlint", runs), _lint("zizmor", [*trust, *workflows])


def _go_vet(module: str, flags: Sequence[str]) -> bool:
    go, env = find_go()
    # Embedded, made by each build, and kept by none: vet wants it to exist, and does not read it.
    schema = ROOT / module / "schema.json"
    if (ROOT / module / "schemagen.go").exists() and not schema.exists():
        schema.write_text("{}")
    return _lint(f"vet {Path(module).name}", [go, "vet", *flags, "./..."], cwd=ROOT / module, env=env)
