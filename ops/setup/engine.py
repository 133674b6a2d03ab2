"""A Docker engine that answers: the one that the stack file or the user names, else one that is installed and started here."""

import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ops.setup import apt
from ops.setup.console import SetupError, cache_dir, run_slow, say, without_secrets

_LABEL = "Docker"
_START_SECONDS = 60
#: Where an engine listens by default. `./orthanc-stack env` names it, so the name is nobody's choice.
_DEFAULT = "unix:///var/run/docker.sock"
#: What says which engine is meant. Pulumi's provider, the docker command and Docker's SDK all know them, but for two: DOCKER_TLS is for
#: the docker command, which needs it where a server's certificate is not verified; contexts are unknown to the SDK.
_VARIABLES = ("DOCKER_HOST", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "DOCKER_TLS", "DOCKER_CONTEXT")
_ADVICE = """Install Docker and start it, or set DOCKER_HOST to an engine that runs.
On Debian and Ubuntu the same command, run as root, installs and starts it."""
#: There where systemd starts services.
_SYSTEMD = Path("/run/systemd/system")
#: All that an engine needs of the environment. It outlives this program, and its processes may be looked at.
_FOR_AN_ENGINE = frozenset({"HOME", "PATH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"})


def ensure_engine(config: Mapping[str, Any]) -> None:
    """Find a running engine, or as root on Debian or Ubuntu install and start one; say which in one line.

    From then on, DOCKER_HOST and its companions in this process's environment name it, for all that is started. In the `config:` block of
    the stack file, docker:host, docker:context and docker:certPath name an engine. A SetupError says what to do where there is none.
    """
    if not shutil.which("docker"):
        named = [*map(config.get, ("docker:host", "docker:context")), *map(os.environ.get, ("DOCKER_HOST", "DOCKER_CONTEXT"))]
        if any(named) or not apt.can_install():
            raise SetupError(f"there is no docker command on PATH.\n{_ADVICE}")
        _install()
    where = choose_engine(config)
    version, error = _ask()
    if version:
        say(_LABEL, f"engine {version}{f' at {where}' if where else ''}")
        return
    if where:
        # Another engine beside the one that somebody chose would not be what they meant.
        raise SetupError(f"no Docker engine answers at {where}: {error}\nStart it there, or choose another one.")
    if not apt.can_install():
        raise SetupError(f"no Docker engine answers: {error}\n{_advice(error)}")
    _install()
    _start()
    say(_LABEL, f"engine {_ask()[0]}, started")


def choose_engine(config: Mapping[str, Any]) -> str:
    """Put DOCKER_HOST and its companions for the engine that is meant into the environment.

    The order is that of Pulumi's provider, then of docker: docker:context of the stack file, docker:host, DOCKER_HOST, DOCKER_CONTEXT, the
    context that `docker context use` chose. The provider would find the host of a context, but not its certificates.
    Returns the engine and who named it, for people; "" for the one that docker looks for where nobody named any.
    """
    context, host, certificates = (str(config.get(f"docker:{key}") or "") for key in ("context", "host", "certPath"))
    env = {name: os.environ[name] for name in _VARIABLES[:-1] if os.environ.get(name)}
    by = "docker:host of the stack file" if host else "DOCKER_HOST"
    if context or not (host or "DOCKER_HOST" in env):
        name, found = _context(context)
        by, env = f"context {name}", found if name != "default" else env | found
    elif host:
        env["DOCKER_HOST"] = host
    if certificates:
        env |= {"DOCKER_CERT_PATH": certificates, "DOCKER_TLS_VERIFY": "1"}
    for name in _VARIABLES:
        os.environ.pop(name, None)
    os.environ.update(env)
    if "DOCKER_CERT_PATH" in env:
        # With them, Docker's SDK would trust these authorities instead of the engine's own (psf/requests#3829).
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            os.environ.pop(name, None)
    return "" if env["DOCKER_HOST"] == _DEFAULT else f"{env['DOCKER_HOST']} ({by})"


def docker(*arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Run the docker command; what came of it, also where it failed. A SetupError where there is none, or it does not end in time."""
    try:
        return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=timeout_s)
    except FileNotFoundError:
        raise SetupError("there is no docker command on PATH. Install Docker, or add its folder to PATH.") from None
    except subprocess.TimeoutExpired:
        raise SetupError(f"`docker {' '.join(arguments[:2])}` does not end within {timeout_s:.0f} s.") from None


def holds(*images: str) -> bool:
    """Whether the engine has all of these images. A SetupError where it does not answer."""
    asked = docker("image", "inspect", "--format", "{{.Id}}", *images)
    if asked.returncode != 0 and "no such image" not in asked.stderr.lower():
        raise SetupError(f"the Docker engine does not answer: {asked.stderr.strip()}")
    return asked.returncode == 0


def _context(name: str) -> tuple[str, dict[str, str]]:
    """A context, or the one in use where none is named: its name, and what says the same in the environment."""
    shown = docker("context", "inspect", *([name] if name else []))
    if shown.returncode != 0:
        raise SetupError(f"the Docker context {name or os.environ.get('DOCKER_CONTEXT', '')} is chosen, but: {shown.stderr.strip()}")
    context = json.loads(shown.stdout)[0]
    endpoint = context["Endpoints"]["docker"]
    env = {"DOCKER_HOST": str(endpoint["Host"])}
    if context.get("TLSMaterial", {}).get("docker"):
        verified = "DOCKER_TLS" if endpoint.get("SkipTLSVerify") else "DOCKER_TLS_VERIFY"
        env |= {"DOCKER_CERT_PATH": str(Path(context["Storage"]["TLSPath"]) / "docker"), verified: "1"}
    return str(context["Name"]), env


def _ask() -> tuple[str, str]:
    """The engine's version and "", or "" and why it did not answer."""
    try:
        answer = docker("version", "--format", "{{.Server.Version}}", timeout_s=30)
    except SetupError as error:
        return "", str(error)
    if answer.returncode != 0:
        return "", (answer.stderr.strip().splitlines() or ["it gives no reason"])[-1]
    return answer.stdout.strip(), ""


def _advice(error: str) -> str:
    if platform.system() != "Linux":
        return "Start Docker Desktop (or the engine that you use), wait until it says that it runs, and try again."
    if "permission denied" in error.lower():
        return "This user may not use it. As root: usermod -aG docker <user>; then log out and in, and try again."
    if shutil.which("dockerd", path=_system_path()):
        return "Start it (sudo systemctl start docker) and try again."
    return _ADVICE


def _system_path() -> str:
    """PATH with sbin, which a user's often lacks: dockerd is there."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def _install() -> None:
    """Install what is missing of an engine. Since Debian 13, the docker command is a package of its own."""
    enabled = Path("/sys/module/apparmor/parameters/enabled")
    # Where the kernel has AppArmor, dockerd loads a profile with apparmor_parser.
    apparmor = [("apparmor_parser", "apparmor")] if enabled.exists() and enabled.read_text().startswith("Y") else []
    for command, package in [("dockerd", "docker.io"), *apparmor, ("docker", "docker-cli")]:
        if not shutil.which(command, path=_system_path()):
            apt.install(_LABEL, [package], "a Docker engine")


def _start() -> None:
    """Start the engine and wait until it answers."""
    engine, log = None, cache_dir() / "logs" / "dockerd.log"
    if _SYSTEMD.is_dir():
        hint = "See: journalctl --unit docker"
        run_slow(_LABEL, "starting the engine", ["systemctl", "start", "docker"], env=without_secrets(os.environ), hint=hint)
    else:
        log.parent.mkdir(exist_ok=True)
        env = {name: value for name, value in os.environ.items() if name.upper() in _FOR_AN_ENGINE} | {"PATH": _system_path()}
        dockerd = shutil.which("dockerd", path=_system_path()) or "dockerd"
        with log.open("ab") as out:
            # A session of its own: it outlives this program, and a Ctrl-C here does not reach it.
            engine = subprocess.Popen([dockerd], stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd="/", env=env, start_new_session=True)
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and (engine is None or engine.poll() is None):
        if _ask()[0]:
            return
        time.sleep(0.5)
    if engine is None:
        raise SetupError(f"the Docker engine does not answer {_START_SECONDS} s after its start. See: journalctl --unit docker")
    tail = "\n".join(f"    {line}" for line in log.read_text(errors="replace").splitlines()[-15:])
    what = f"does not answer within {_START_SECONDS} s" if engine.poll() is None else "ended"
    advice = "A container or a sandbox often may not run one: set DOCKER_HOST to an engine outside."
    raise SetupError(f"the Docker engine was started and {what}:\n{tail}\n    all of it: {log}\n{advice}")
