"""Commands that only developers need, built from their Go modules into the cache."""

from collections.abc import Sequence
from pathlib import Path

from ops.setup.console import cache_dir, run_slow
from ops.setup.go_build import built


def go_install(label: str, package: str, version: str, *, takes: str, flags: Sequence[str] = ()) -> Path:
    """A command from its Go module, built once for each version; the last part of the package's path is its name.

    `label` is as in ops.setup.console.say(), `takes` says how long a build takes, for people, and `flags` are the build's.
    """
    command = package.rpartition("/")[2]

    def install(go: Path, env: dict[str, str], new: Path) -> None:
        line: list[str | Path] = [go, "install", "-trimpath", *flags, f"{package}@v{version}"]
        run_slow(label, f"building {command} {version} ({takes} the first time)", line, env=env | {"GOBIN": str(new)})

    return built(command, cache_dir() / f"{command}-{version}" / command, install)
