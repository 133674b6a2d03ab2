"""The versions that this project asks for, each read from the file that pins it, and those that commands report.

toolchain/ bears no number of its own: a hash stands for its state.
"""

import hashlib
import os
import re
import subprocess
from pathlib import Path

from ops.setup.console import ROOT, SetupError

#: The Go modules that `pulumi` and its Docker plugin can be built from.
TOOLCHAIN = ROOT / "toolchain"

#: How long `pulumi version` and `go version` may take: a command that hangs is as good as missing.
_VERSION_SECONDS = 20

#: Not part of what is built: changing them asks for no new build.
_NOT_BUILT = re.compile(r"^README\.md$|^schema\.json$|_test\.go$")

Version = tuple[int, ...]


def _find(pattern: str, file: Path) -> str:
    """The first group of a pattern in one of the project's files."""
    match = re.search(pattern, file.read_text(encoding="utf-8"), re.MULTILINE)
    if match is None:
        raise SetupError(f"{file}: no line matches {pattern}")
    return match[1]


def version(text: str) -> Version:
    """The numbers of the first version in a text: "v3.256.0" or "go version go1.27.3 linux/amd64"; none where there is none."""
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in match.groups()) if match else ()


#: The version of `pulumi` that toolchain/ builds, and that is downloaded where it can be.
PULUMI_VERSION = _find(r"^\s*github\.com/pulumi/pulumi/sdk/v3 v([\d.]+)$", TOOLCHAIN / "cli" / "go.mod")
#: The version of the Docker plugin: the one that the package pulumi-docker asks for.
DOCKER_PLUGIN_VERSION = _find(r"^pulumi-docker==([\d.]+)$", ROOT / "requirements.txt")
#: The oldest `pulumi` that runs the program.
MINIMUM_PULUMI = _find(r"^requiredPulumiVersion:\s*[\"']?>=\s*([\d.]+)", ROOT / "Pulumi.yaml")
#: The oldest Go that builds toolchain/.
MINIMUM_GO = max((_find(r"^go ([\d.]+)$", TOOLCHAIN / module / "go.mod") for module in ("cli", "docker")), key=version)


def toolchain_hash(folder: Path = TOOLCHAIN) -> str:
    """A short hash over what is built: the paths and contents of toolchain/'s files, and the plugin's version."""
    digest = hashlib.sha256(DOCKER_PLUGIN_VERSION.encode())
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and not _NOT_BUILT.search(path.name)):
        content = file.read_bytes()
        digest.update(f"\0{file.relative_to(folder).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def reported(command: Path) -> Version:
    """The version that a `pulumi` or a `go` reports; none where it cannot be asked."""
    # GOTOOLCHAIN=local: else the answer may be that of the Go which go.mod would have downloaded.
    env = os.environ | {"PULUMI_SKIP_UPDATE_CHECK": "1", "GOTOOLCHAIN": "local"}
    try:
        done = subprocess.run([command, "version"], env=env, capture_output=True, text=True, timeout=_VERSION_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return version(done.stdout)
