"""The virtual environment in .venv, as requirements.txt (or requirements-dev.txt) wants it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

from ops.setup import apt
from ops.setup.console import ROOT, SetupError, run_slow, say

_LABEL = "Python"
#: Written when an installation is complete: the digests of the requirement files that it satisfies.
_STAMP = "orthanc-stack.json"
#: There while pip works: an environment that still has it was left half made, and is made anew.
_UNFINISHED = "orthanc-stack.unfinished"


def venv_python(root: Path = ROOT) -> Path:
    """The environment's interpreter."""
    return root / ".venv" / "bin" / "python"


def digests(root: Path) -> dict[str, str]:
    """What each set of requirements looks like now, by the name of its file."""
    run = (root / "requirements.txt").read_bytes()
    dev = (root / "requirements-dev.txt").read_bytes()
    # requirements-dev.txt includes requirements.txt, so a change of either changes the set.
    return {
        "requirements.txt": hashlib.sha256(run).hexdigest(),
        "requirements-dev.txt": hashlib.sha256(run + b"\0" + dev).hexdigest(),
    }


def is_complete(requirements: str, root: Path = ROOT) -> bool:
    """Whether the environment holds what a requirements file asks for, by its stamp: no process is started."""
    venv = root / ".venv"
    if (venv / _UNFINISHED).exists() or not venv_python(root).exists():
        return False
    return _stamp(venv).get(requirements) == digests(root)[requirements]


def ensure_venv(requirements: str = "requirements.txt", root: Path = ROOT, *, quiet: bool = False) -> Path:
    """Make the environment or bring it up to date, and say so in one line.

    Args:
        requirements: requirements.txt, or requirements-dev.txt for tests and linters.
        root: the checkout.
        quiet: say nothing when there is nothing to do.

    Returns:
        the environment's interpreter.

    Raises:
        SetupError: Python cannot make environments here, or pip failed.
    """
    python = venv_python(root)
    if is_complete(requirements, root):
        if not quiet:
            say(_LABEL, f".venv, as {requirements} wants it")
        return python
    venv = root / ".venv"
    if (venv / _UNFINISHED).exists() or not _runs(python):
        _create(venv)
    unfinished = venv / _UNFINISHED
    unfinished.touch()
    pip: list[str | Path] = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    hint = "Is the package index reached? pip reads PIP_INDEX_URL and pip.conf. Then run the same command again."
    run_slow(_LABEL, f"installing {requirements} into .venv", [*pip, "-r", root / requirements], hint=hint)
    wanted = digests(root)
    done = {name: digest for name, digest in _stamp(venv).items() if wanted.get(name) == digest}
    done[requirements] = wanted[requirements]
    if requirements == "requirements-dev.txt":
        done["requirements.txt"] = wanted["requirements.txt"]
    (venv / _STAMP).write_text(json.dumps(done, indent=2) + "\n")
    unfinished.unlink()
    say(_LABEL, f"{requirements} installed into .venv (Python {sys.version_info.major}.{sys.version_info.minor})")
    return python


def _stamp(venv: Path) -> dict[str, str]:
    try:
        stamp = json.loads((venv / _STAMP).read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _runs(python: Path) -> bool:
    """Whether there is an environment with pip; the one of a Python that was since removed does not start."""
    try:
        done = subprocess.run([python, "-c", "import pip"], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def _create(venv: Path) -> None:
    if importlib.util.find_spec("ensurepip") is None:
        # Debian keeps ensurepip in a package of its own.
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        if not apt.can_install():
            raise SetupError(
                f"{sys.executable} cannot make virtual environments: its ensurepip module is missing.\n"
                f"On Debian and Ubuntu: sudo apt-get install {package}; then run the same command again."
            )
        apt.install(_LABEL, [package], "virtual environments")
    venv.mkdir(exist_ok=True)
    (venv / _UNFINISHED).touch()
    run_slow(_LABEL, "making .venv", [sys.executable, "-m", "venv", "--clear", venv])
