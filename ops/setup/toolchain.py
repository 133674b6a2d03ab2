"""The `pulumi` command and its Docker plugin: found on this machine, else downloaded, else built from toolchain/.

Standard library only: this runs before the virtual environment exists. `python3 -m ops.setup.toolchain` shows what it
finds, and gets what is missing.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ops.setup.console import SetupError, cache_dir, run_slow, say
from ops.setup.download import download_folder, download_plugin, download_pulumi
from ops.setup.go_build import HOST, PLUGIN, build_cli, build_folder, build_plugin
from ops.setup.versions import DOCKER_PLUGIN_VERSION, MINIMUM_PULUMI, PULUMI_VERSION, pulumi_version, toolchain_hash, version


@dataclass(frozen=True)
class Pulumi:
    """A `pulumi` that can run this project.

    Attributes:
        command: the command itself.
        env: what to add to the environment of everything that runs it.
        origin: where it comes from: "PATH", "downloaded" or "built".
    """

    command: Path
    env: dict[str, str]
    origin: str


def ensure_pulumi() -> Pulumi:
    """Find a `pulumi` that can run this project, or get one.

    ORTHANC_STACK_TOOLCHAIN says where from: `build` (from toolchain/, never a download), `download` (never a build),
    nothing (whatever is there; then a download; then a build).
    """
    wish = _wish()
    known = _recall()
    if known is not None:
        pulumi, said = known
    else:
        on_path = _on_path() if not wish else None
        pulumi = on_path or _installed(wish) or _download(wish) or _build()
        said = pulumi_version(pulumi.command)
        _remember(pulumi, said)
    say("Pulumi", f"{said} ({pulumi.origin}: {pulumi.command})")
    return pulumi


def ensure_docker_plugin(pulumi: Pulumi) -> str:
    """Make sure that the Docker plugin is in Pulumi's plugin cache, and say how it came there."""
    folder = _plugin_folder()
    ours = folder.with_name(folder.name + ".orthanc-stack")  # the hash of what we built, beside what we installed
    complete = (folder / PLUGIN).exists() and not folder.with_name(folder.name + ".partial").exists()
    if complete and not ours.exists():
        origin = "installed"
    elif complete and ours.read_text() == toolchain_hash():
        origin = "built"
    elif not complete and pulumi.origin != "built" and _download_plugin(pulumi):
        ours.unlink(missing_ok=True)
        origin = "downloaded"
    else:
        _install_plugin(pulumi, build_plugin())
        _write(ours, toolchain_hash())
        origin = "built"
    found = f"docker {DOCKER_PLUGIN_VERSION} ({origin})"
    say("Plugin", found)
    return found


# --- What is there ---------------------------------------------------------------------------------------------------


def _wish() -> str:
    wish = os.environ.get("ORTHANC_STACK_TOOLCHAIN", "")
    if wish not in {"", "build", "download"}:
        raise SetupError(f'ORTHANC_STACK_TOOLCHAIN is "{wish}"; it may be "build", "download" or unset')
    return wish


def _stamp() -> Path:
    return cache_dir() / "pulumi.json"


def _situation() -> dict[str, str]:
    """What the remembered answer depends on. Asking `pulumi` for its version takes 0.2 s; this takes microseconds."""
    return {
        "wish": _wish(),
        "path": shutil.which("pulumi") or "",
        "minimum": MINIMUM_PULUMI,
        "version": PULUMI_VERSION,
        "toolchain": toolchain_hash(),
    }


def _marks(command: Path) -> dict[str, str]:
    """A command's size and time, and its host's: an upgrade or a removal shows."""
    host = _host_of(command)
    return {
        str(file): f"{status.st_size} {status.st_mtime_ns}" for file in (command, host) if file is not None for status in (file.stat(),)
    }


def _recall() -> tuple[Pulumi, str] | None:
    """The answer of an earlier run, with the version, if nothing that it depends on has changed."""
    try:
        stamp = json.loads(_stamp().read_text())
        found = stamp["pulumi"]
        pulumi = _pulumi(Path(found["command"]), found["origin"])
        same = stamp["situation"] == _situation() and stamp["marks"] == _marks(pulumi.command)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (pulumi, found["version"]) if same else None


def _remember(pulumi: Pulumi, said: str) -> None:
    found = {"command": str(pulumi.command), "origin": pulumi.origin, "version": said}
    stamp = {"pulumi": found, "situation": _situation(), "marks": _marks(pulumi.command)}
    _write(_stamp(), json.dumps(stamp, indent=1))


def _write(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=file.name, delete=False) as new:
        new.write(text)
    Path(new.name).replace(file)


def _env(command: Path, origin: str) -> dict[str, str]:
    env = {
        "PATH": os.pathsep.join([str(command.parent), os.environ.get("PATH", os.defpath)]),
        # Said, because a `pulumi` built with cgo looks into the home folder of the user database, and one without it into $HOME.
        "PULUMI_HOME": str(_pulumi_home()),
        "PULUMI_SKIP_UPDATE_CHECK": "1",
    }
    if origin == "built":
        # Built here because downloads do not work here: without this each missing plugin waits for them to fail.
        env["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] = "true"
    return env


def _pulumi(command: Path, origin: str) -> Pulumi:
    return Pulumi(command, _env(command, origin), origin)


def _host_of(command: Path) -> Path | None:
    """The Python language host that a `pulumi` command finds: beside it, or on PATH."""
    found = shutil.which(HOST, path=os.pathsep.join([str(command.resolve().parent), os.environ.get("PATH", "")]))
    return Path(found) if found else None


def _on_path() -> Pulumi | None:
    found = shutil.which("pulumi")
    if found is None or _host_of(Path(found)) is None:
        return None
    return _pulumi(Path(found), "PATH") if version(pulumi_version(Path(found))) >= version(MINIMUM_PULUMI) else None


def _installed(wish: str) -> Pulumi | None:
    """What an earlier run has downloaded or built. Both are moved into place whole, so what is there is complete."""
    for origin, folder in (("downloaded", download_folder()), ("built", build_folder())):
        unwanted = {"build": "downloaded", "download": "built"}.get(wish)
        command = folder / "bin" / "pulumi"
        if origin != unwanted and command.exists():
            return _pulumi(command, origin)
    return None


# --- What is missing -------------------------------------------------------------------------------------------------


def _download(wish: str) -> Pulumi | None:
    command = download_pulumi(required=wish == "download") if wish != "build" else None
    return _pulumi(command, "downloaded") if command is not None else None


def _build() -> Pulumi:
    return _pulumi(build_cli(), "built")


def _download_plugin(pulumi: Pulumi) -> bool:
    wish = _wish()
    return wish != "build" and download_plugin(pulumi.command, pulumi.env, required=wish == "download")


def _install_plugin(pulumi: Pulumi, binary: Path) -> None:
    install = [str(pulumi.command), "plugin", "install", "resource", "docker", f"v{DOCKER_PLUGIN_VERSION}"]
    command = [*install, "--reinstall", "--file", str(binary)]
    run_slow("Toolchain", "installing the Docker plugin", command, env=os.environ | pulumi.env)


def _pulumi_home() -> Path:
    return Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")


def _plugin_folder() -> Path:
    return _pulumi_home() / "plugins" / f"resource-docker-v{DOCKER_PLUGIN_VERSION}"


def main() -> int:
    """Show what there is, and get what is missing."""
    try:
        ensure_docker_plugin(ensure_pulumi())
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
