"""The virtual environment in .venv, as one of the requirement files wants it."""

import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ops.setup import apt
from ops.setup.cache import lock
from ops.setup.console import ROOT, SetupError, run_slow, say

_LABEL = "Python"
_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
#: What can be asked for. Each file includes the one before it; requirements.txt alone is for plain `pulumi`.
_FILES = ("requirements.txt", "requirements-ops.txt", "requirements-dev.txt")
#: Written when an installation is complete: the version of Python, and the digests of the requirement files that it satisfies.
_STAMP = "orthanc-stack.json"
#: There while pip works: an environment that still has it was left half made, and is made anew.
_UNFINISHED = "orthanc-stack.unfinished"


def venv_python(root: Path = ROOT) -> Path:
    """The environment's interpreter."""
    return root / ".venv" / "bin" / "python"


def is_complete(requirements: str, root: Path = ROOT) -> bool:
    """Whether the environment holds what a requirement file asks for, by its stamp: no process is started."""
    venv = root / ".venv"
    stamp = _stamp(venv)
    # After an upgrade of the system's Python, .venv has the new interpreter with the old one's packages. That shows in .venv itself.
    other_python = sys.prefix == str(venv) and stamp.get("python") != _VERSION
    usable = venv_python(root).exists() and not other_python and not (venv / _UNFINISHED).exists()
    return usable and bool(stamp.get(requirements) == _digests(root)[requirements])


def ensure_venv(requirements: str, root: Path = ROOT) -> None:
    """Make the environment or bring it up to date, and say so in a line, where there is something to do.

    A SetupError where Python cannot make environments here, pip failed, or the checkout cannot be written to.
    """
    if is_complete(requirements, root):
        return
    with lock("python"):
        if is_complete(requirements, root):
            return
        try:
            _install(requirements, root)
        except OSError as error:
            advice = "The first run, and the first one after an upgrade, must be a user's who may write there."
            raise SetupError(f"{root / '.venv'} cannot be written to: {error.strerror}.\n{advice}") from error


def _install(requirements: str, root: Path) -> None:
    venv, python = root / ".venv", venv_python(root)
    unfinished = venv / _UNFINISHED
    if unfinished.exists() or not _version(python):
        if venv.exists():
            say(_LABEL, ".venv is unfinished, or of a Python that was upgraded or removed: making it anew")
        _create(venv)
    unfinished.touch()
    pip: list[str | Path] = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    hint = "Is the package index reached? pip reads PIP_INDEX_URL and pip.conf. Then run the same command again."
    run_slow(_LABEL, f"installing {requirements} into .venv", [*pip, "-r", root / requirements], hint=hint)
    wanted, before, version = _digests(root), _stamp(venv), _version(python)
    included = _FILES[: _FILES.index(requirements) + 1]
    done = {name: wanted[name] for name in _FILES if name in included or before.get(name) == wanted[name]}
    (venv / _STAMP).write_text(json.dumps({"python": version, **done}, indent=2) + "\n")
    unfinished.unlink()
    say(_LABEL, f"{requirements} installed into .venv (Python {version})")


def _digests(root: Path) -> dict[str, str]:
    """What each requirement file asks for, with the files that it includes."""
    digest = hashlib.sha256()
    found = {}
    for name in _FILES:
        digest.update((root / name).read_bytes() + b"\0")
        found[name] = digest.hexdigest()
    return found


def _stamp(venv: Path) -> dict[str, Any]:
    try:
        stamp = json.loads((venv / _STAMP).read_bytes())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _version(python: Path) -> str:
    """The version of an interpreter that starts and finds pip, else "": after an upgrade of Python it does not."""
    asked = [str(python), "-c", "import pip, sys; print('%d.%d' % sys.version_info[:2])"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def _create(venv: Path) -> None:
    package = f"python{_VERSION}-venv"  # Debian keeps ensurepip, which fills an environment with pip, in a package of its own
    if importlib.util.find_spec("ensurepip") is None and apt.can_install():
        apt.install(_LABEL, [package], "virtual environments")
    venv.mkdir(exist_ok=True)
    (venv / _UNFINISHED).touch()
    # Not the environment's own interpreter, which --clear removes.
    python = getattr(sys, "_base_executable", None) or sys.executable
    run_slow(_LABEL, "making .venv", [python, "-m", "venv", "--clear", venv], hint=f"On Debian and Ubuntu: sudo apt-get install {package}")
