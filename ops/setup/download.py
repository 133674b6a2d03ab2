"""`pulumi` and its Docker plugin from Pulumi's own site, for networks that reach it.

Standard library only: this runs before the virtual environment exists.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ops.setup.cache import lock, moved_into
from ops.setup.console import SetupError, cache_dir, run_slow, say
from ops.setup.versions import DOCKER_PLUGIN_VERSION, PULUMI_VERSION

_INSTALLER = "https://get.pulumi.com"

#: How long Pulumi's site may take to answer before the toolchain is built here instead.
_CONNECT_SECONDS = 5
#: How long a plugin's download may take.
_PLUGIN_SECONDS = 120

#: Run apart, so that the whole of it is bounded: a time-out given to urlopen() covers neither the name's look-up nor
#: the sum of its attempts.
_FETCH = "import sys, urllib.request; sys.stdout.buffer.write(urllib.request.urlopen(sys.argv[1]).read())"


def download_folder() -> Path:
    """Where the downloaded `pulumi` lies."""
    return cache_dir() / f"pulumi-{PULUMI_VERSION}"


def download_pulumi(*, required: bool) -> Path | None:
    """Pulumi's own installer, into the cache. None, or an error if it is required, where what it needs is out of reach."""
    target = download_folder()
    try:
        with lock("download"):
            if not (target / "bin" / "pulumi").exists():
                _run_installer(_installer(), target)
    except SetupError as error:
        if required:
            raise SetupError(f"{error}\n  Unset ORTHANC_STACK_TOOLCHAIN, and the toolchain is built from Go modules instead.") from error
        say("Pulumi", "its downloads are out of reach: building it from Go modules instead, once")
        return None
    return target / "bin" / "pulumi"


def _installer() -> bytes:
    """The text of Pulumi's installer: the test, too, of whether this network lets downloads through."""
    command = [sys.executable, "-c", _FETCH, _INSTALLER]
    try:
        return subprocess.run(command, capture_output=True, timeout=_CONNECT_SECONDS, check=True).stdout
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"{_INSTALLER} did not answer in {_CONNECT_SECONDS} s") from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise SetupError(f"{_INSTALLER} is out of reach: {' '.join(reason)}") from error


def _run_installer(script: bytes, target: Path) -> None:
    with moved_into(target) as new:
        file = new / "install.sh"
        file.write_bytes(script)
        options = ["--version", PULUMI_VERSION, "--install-root", str(new), "--no-edit-path"]
        run_slow("Toolchain", f"downloading pulumi {PULUMI_VERSION}", ["sh", str(file), *options])
        if not (new / "bin" / "pulumi").exists():
            raise SetupError(f"{_INSTALLER} ran, but installed no pulumi")


def download_plugin(pulumi: Path, env: dict[str, str], *, required: bool) -> bool:
    """Let a `pulumi` download the Docker plugin. False, or an error if it is required, where that is out of reach."""
    command = [str(pulumi), "plugin", "install", "resource", "docker", f"v{DOCKER_PLUGIN_VERSION}"]
    try:
        subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=_PLUGIN_SECONDS, check=True)
    except subprocess.SubprocessError as error:
        if required:
            raise SetupError(f"the Docker plugin is out of reach: {error}") from error
        say("Plugin", "its download is out of reach: building it from Go modules instead, once")
        return False
    return True
