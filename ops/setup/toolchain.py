"""The `pulumi` command and its Docker plugin: found on this machine, else downloaded from Pulumi's site, else built from toolchain/."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ops.setup.cache import lock, moved_into
from ops.setup.console import SetupError, cache_dir, home, run_slow, say
from ops.setup.go_build import HOST, PLUGIN, build_cli, build_folder, build_plugin
from ops.setup.versions import DOCKER_PLUGIN_VERSION, MINIMUM_PULUMI, PULUMI_VERSION, reported, toolchain_hash, version

_INSTALLER = "https://get.pulumi.com"
#: How long Pulumi's site may take to answer before the toolchain is built here instead.
_CONNECT_SECONDS = 5
#: How long a plugin's download may take.
_PLUGIN_SECONDS = 120
#: Run apart, so that all of it is bounded: a time-out given to urlopen() covers neither the name's look-up nor the sum of its attempts.
_FETCH = "import sys, urllib.request; sys.stdout.buffer.write(urllib.request.urlopen(sys.argv[1]).read())"
_INSTALL_PLUGIN = ("plugin", "install", "resource", "docker", f"v{DOCKER_PLUGIN_VERSION}")


@dataclass(frozen=True)
class Pulumi:
    """A `pulumi` that can run this project."""

    command: Path  #: the command itself
    origin: str  #: where it comes from: "PATH", "downloaded" or "built"

    @property
    def env(self) -> dict[str, str]:
        """What to add to the environment of everything that runs it."""
        folder, path = str(self.command.parent), os.environ.get("PATH", os.defpath).split(os.pathsep)
        env = {
            "PATH": os.pathsep.join([folder, *(one for one in path if one != folder)]),
            # Said, because a `pulumi` built with cgo looks into the home folder of the user database, and one without it into $HOME.
            "PULUMI_HOME": str(_pulumi_home()),
            "PULUMI_SKIP_UPDATE_CHECK": "1",
        }
        if self.origin == "built":
            # Built here because downloads do not work here: without this each missing plugin waits for them to fail.
            env["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] = "true"
        return env


def ensure_pulumi() -> Pulumi:
    """Find a `pulumi` that can run this project, or get one.

    ORTHANC_STACK_TOOLCHAIN says where from: `build` (from toolchain/, never a download), `download` (never a build),
    nothing (whatever is there; then a download; then a build).
    """
    wish = _wish()
    pulumi = _on_path(wish) or _in_cache(wish) or _download(wish) or Pulumi(build_cli(), "built")
    say("Pulumi", f"{pulumi.command} ({pulumi.origin})")
    return pulumi


def ensure_docker_plugin(pulumi: Pulumi) -> None:
    """Make sure that the Docker plugin is in Pulumi's plugin cache, and say how it came there."""
    folder = _pulumi_home() / "plugins" / f"resource-docker-v{DOCKER_PLUGIN_VERSION}"
    ours = folder.with_name(folder.name + ".orthanc-stack")  # the hash of what we built, beside what we installed
    with lock("plugin"):
        complete = (folder / PLUGIN).exists() and not folder.with_name(folder.name + ".partial").exists()
        if complete and not ours.exists():
            origin = "installed"
        elif complete and ours.read_text() == toolchain_hash():
            origin = "built"
        elif not complete and _download_plugin(pulumi, _wish()):
            ours.unlink(missing_ok=True)
            origin = "downloaded"
        else:
            command: list[str | Path] = [pulumi.command, *_INSTALL_PLUGIN, "--reinstall", "--file", build_plugin()]
            run_slow("Toolchain", "installing the Docker plugin", command, env=os.environ | pulumi.env)
            ours.write_text(toolchain_hash())
            origin = "built"
    say("Plugin", f"docker {DOCKER_PLUGIN_VERSION} ({origin})")


def _wish() -> str:
    wish = os.environ.get("ORTHANC_STACK_TOOLCHAIN", "")
    if wish not in {"", "build", "download"}:
        raise SetupError(f'ORTHANC_STACK_TOOLCHAIN is "{wish}"; it may be "build", "download" or unset')
    return wish


def _pulumi_home() -> Path:
    return Path(os.environ.get("PULUMI_HOME") or home() / ".pulumi")


def _on_path(wish: str) -> Pulumi | None:
    """The `pulumi` on PATH, where it is recent enough and has its Python language host, beside it or on PATH."""
    found = None if wish else shutil.which("pulumi")
    if found is None:
        return None
    places = os.pathsep.join([str(Path(found).resolve().parent), os.environ.get("PATH", os.defpath)])
    fits = shutil.which(HOST, path=places) and reported(Path(found)) >= version(MINIMUM_PULUMI)
    return Pulumi(Path(found), "PATH") if fits else None


def _in_cache(wish: str) -> Pulumi | None:
    """What an earlier run has downloaded or built. Both are moved into place whole, so what is there is complete."""
    for origin, folder, unwanted in (("downloaded", _download_folder(), "build"), ("built", build_folder(), "download")):
        command = folder / "bin" / "pulumi"
        if wish != unwanted and command.exists():
            return Pulumi(command, origin)
    return None


def _download_folder() -> Path:
    return cache_dir() / f"pulumi-{PULUMI_VERSION}"


def _download(wish: str) -> Pulumi | None:
    """By Pulumi's own installer, into the cache. None, or an error if it is required, where what it needs is out of reach."""
    command = _download_folder() / "bin" / "pulumi"
    try:
        with lock("download"):
            if wish != "build" and not command.exists():
                with moved_into(_download_folder()) as new:
                    _install_into(new)
    except SetupError as error:
        _give_up("Pulumi", error, wish)
    return Pulumi(command, "downloaded") if command.exists() and wish != "build" else None


def _install_into(folder: Path) -> None:
    """Run Pulumi's installer. Fetching its text is the test, too, of whether this network lets downloads through."""
    try:
        fetched = subprocess.run([sys.executable, "-c", _FETCH, _INSTALLER], capture_output=True, timeout=_CONNECT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"{_INSTALLER} did not answer in {_CONNECT_SECONDS} s") from error
    if fetched.returncode != 0:
        raise SetupError(f"{_INSTALLER} is out of reach: {' '.join(fetched.stderr.decode(errors='replace').splitlines()[-1:])}")
    script = folder / "install.sh"
    script.write_bytes(fetched.stdout)
    options = ["--version", PULUMI_VERSION, "--install-root", str(folder), "--no-edit-path"]
    run_slow("Toolchain", f"downloading pulumi {PULUMI_VERSION}", ["sh", script, *options])
    if not (folder / "bin" / "pulumi").exists():
        raise SetupError(f"{_INSTALLER} ran, but installed no pulumi")


def _download_plugin(pulumi: Pulumi, wish: str) -> bool:
    """Let `pulumi` download the plugin. False, or an error if it is required, where that is out of reach."""
    if wish == "build" or pulumi.origin == "built":
        return False
    command, env = [str(pulumi.command), *_INSTALL_PLUGIN], os.environ | pulumi.env
    try:
        subprocess.run(command, env=env, capture_output=True, timeout=_PLUGIN_SECONDS, check=True)
    except subprocess.SubprocessError as error:
        _give_up("Plugin", error, wish)
        return False
    return True


def _give_up(label: str, error: Exception, wish: str) -> None:
    """Say that a build takes a download's place, because of this error; or raise it, where only a download will do."""
    if wish == "download":
        raise SetupError(f"{error}\n  Unset ORTHANC_STACK_TOOLCHAIN, and it is built from Go modules instead.") from error
    say(label, "its download is out of reach: building it from Go modules instead, once")
