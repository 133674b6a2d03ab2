"""A Docker engine that answers: the one that the user's settings name, else one that is installed and started here."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ops.setup import apt
from ops.setup.console import SetupError, cache_dir, run_slow, say

_LABEL = "Docker"
_START_SECONDS = 60


@dataclass(frozen=True)
class Engine:
    """A running engine.

    Attributes:
        version: its version.
        env: what Pulumi needs in its environment to reach the same engine as the docker command.
    """

    version: str
    env: dict[str, str] = field(default_factory=dict)


def ensure_engine(options: Sequence[str] = ()) -> Engine:
    """Find a running engine, or as root on Debian or Ubuntu install and start one; say which in one line.

    Args:
        options: the docker command's own, when the stack file names an engine (("--host", "tcp://…")).

    Raises:
        SetupError: there is none; the message says what to do.
    """
    env, where = ({}, " ".join(options)) if options else _from_context(os.environ)
    if shutil.which("docker"):
        version, error = _ask(options, env)
        if version:
            say(_LABEL, f"engine {version}{f' at {where}' if where else ''}")
            return Engine(version, env)
    else:
        error = "there is no docker command on PATH"
    if where or os.environ.get("DOCKER_HOST"):
        # Somebody chose an engine: another one beside it would not be what they meant.
        chosen = where or f"DOCKER_HOST={os.environ['DOCKER_HOST']}"
        raise SetupError(f"no Docker engine answers at {chosen}: {error}\nStart it there, or choose another one.")
    if not (apt.can_install() and _is_debian_like()):
        raise SetupError(f"no Docker engine answers: {error}\n{_advice(error)}")
    _install()
    _start()
    version, error = _ask((), {})
    if not version:
        raise SetupError(f"the Docker engine was started, but does not answer: {error}")
    say(_LABEL, f"engine {version}, started")
    return Engine(version)


def context_name(environ: Mapping[str, str], config: Mapping[str, Any]) -> str | None:
    """The Docker context in use, or None for the default one. DOCKER_HOST goes before any context, as in docker itself.

    Args:
        environ: the environment.
        config: what the docker command's config.json holds.
    """
    if environ.get("DOCKER_HOST"):
        return None
    name = environ.get("DOCKER_CONTEXT") or config.get("currentContext") or "default"
    return None if name == "default" else str(name)


def context_environment(inspected: Mapping[str, Any]) -> dict[str, str]:
    """What `docker context inspect` says, as the variables that every Docker client knows.

    Pulumi's provider knows DOCKER_HOST and its companions, and no contexts: without them it would deploy to another engine
    than the one that the docker command shows.
    """
    endpoint = inspected["Endpoints"]["docker"]
    env = {"DOCKER_HOST": str(endpoint["Host"])}
    if inspected.get("TLSMaterial", {}).get("docker"):
        env["DOCKER_CERT_PATH"] = str(Path(inspected["Storage"]["TLSPath"]) / "docker")
        if not endpoint.get("SkipTLSVerify"):
            env["DOCKER_TLS_VERIFY"] = "1"
    return env


def _from_context(environ: Mapping[str, str]) -> tuple[dict[str, str], str]:
    folder = Path(environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        config = {}
    name = context_name(environ, config)
    if name is None:
        return {}, environ.get("DOCKER_HOST", "")
    command = ["docker", "context", "inspect", name]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise SetupError(f"the Docker context {name!r} is chosen, but there is no docker command on PATH.") from None
    if shown.returncode != 0:
        raise SetupError(f"the Docker context {name!r} is chosen, but: {shown.stderr.strip()}\nSee `docker context ls`.")
    env = context_environment(json.loads(shown.stdout)[0])
    return env, f"{env['DOCKER_HOST']} (context {name})"


def _ask(options: Sequence[str], env: Mapping[str, str]) -> tuple[str, str]:
    """The engine's version and "", or "" and why it did not answer."""
    command = ["docker", *options, "version", "--format", "{{.Server.Version}}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, env={**os.environ, **env})
    except subprocess.TimeoutExpired:
        return "", "it does not answer within 30 s"
    if answer.returncode != 0:
        return "", (answer.stderr.strip().splitlines() or ["it gives no reason"])[-1]
    return answer.stdout.strip(), ""


def _is_debian_like() -> bool:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return False
    return bool({"debian", "ubuntu"} & {release.get("ID", ""), *release.get("ID_LIKE", "").split()})


def _advice(error: str) -> str:
    if platform.system() != "Linux":
        return "Start Docker Desktop (or the engine that you use), wait until it says that it runs, and try again."
    if "permission denied" in error.lower():
        return "This user may not use it. As root: usermod -aG docker <user>; then log out and in, and try again."
    if shutil.which("dockerd", path=_system_path()):
        return "Start it (sudo systemctl start docker) and try again."
    return (
        "Install Docker and start it, or set DOCKER_HOST to an engine that runs.\n"
        "On Debian and Ubuntu the same command, run as root, installs and starts it."
    )


def _system_path() -> str:
    """PATH with sbin, which a user's often lacks: dockerd is there."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _install() -> None:
    packages = [] if shutil.which("dockerd", path=_system_path()) else ["docker.io"]
    if not shutil.which("docker") and _has_package("docker-cli"):
        packages.append("docker-cli")  # a package of its own since Debian 13
    elif not shutil.which("docker") and not packages:
        packages.append("docker.io")
    enabled = Path("/sys/module/apparmor/parameters/enabled")
    if enabled.exists() and enabled.read_text().startswith("Y") and not shutil.which("apparmor_parser", path=_system_path()):
        packages.append("apparmor")  # where the kernel has it, dockerd loads a profile with apparmor_parser
    if packages:
        apt.install(_LABEL, packages, "a Docker engine")


def _has_package(name: str) -> bool:
    run_slow(_LABEL, "reading Debian's package lists", ["apt-get", "update"])
    found = subprocess.run(["apt-cache", "show", "--no-all-versions", name], capture_output=True, check=False)
    return found.returncode == 0


def _start() -> None:
    """Start the engine and wait until it answers."""
    if Path("/run/systemd/system").is_dir():
        hint = "See: journalctl --unit docker"
        run_slow(_LABEL, "starting the engine", ["systemctl", "start", "docker"], hint=hint)
        process, log = None, None
    else:
        log = cache_dir() / "logs" / "dockerd.log"
        log.parent.mkdir(exist_ok=True)
        with log.open("ab") as out:
            # A session of its own: it stays when this program ends, and a Ctrl-C here is none of its business.
            process = subprocess.Popen(
                [shutil.which("dockerd", path=_system_path()) or "dockerd"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd="/",
                start_new_session=True,
                env={**os.environ, "PATH": _system_path()},
            )
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        if _ask((), {})[0]:
            return
        if process is not None and process.poll() is not None:
            break
        time.sleep(0.5)
    if log is None:
        raise SetupError(f"the Docker engine does not answer {_START_SECONDS} s after its start. See: journalctl --unit docker")
    tail = "\n".join(f"    {line}" for line in log.read_text(errors="replace").splitlines()[-15:])
    what = f"does not answer within {_START_SECONDS} s" if process and process.poll() is None else "ended"
    raise SetupError(
        f"the Docker engine was started and {what}:\n{tail}\n    all of it: {log}\n"
        "A container or a sandbox often may not run one: set DOCKER_HOST to an engine outside."
    )


def holds_image(image: str, docker: Sequence[str], env: Mapping[str, str]) -> bool:
    """Whether the engine has the image."""
    command = [*docker, "image", "inspect", "--format", "{{.Id}}", image]
    try:
        return subprocess.run(command, capture_output=True, check=False, env=env, timeout=60).returncode == 0
    except FileNotFoundError as error:
        raise SetupError(f"no Docker client: {docker[0]} is not on PATH. Install Docker, or name its folder in PATH") from error
