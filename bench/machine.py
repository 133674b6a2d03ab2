"""The machine that measures, as the tables name it."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from images import candidates
from ops.setup.console import ROOT

_POOLS: Final = "{{range .DefaultAddressPools}}{{.Base}} in /{{.Size}} {{end}}"
_PACKAGES: Final = {"orthanc": ("orthanc", "orthanc-postgresql"), "postgres": ("postgresql-17",)}


def describe(compose: str) -> dict[str, str]:
    """What ran the bench: hardware, kernel, engine, tools, images.

    Args:
        compose: docker compose's version.
    """
    return {
        "date": datetime.datetime.now(tz=datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _said(["git", "-C", str(ROOT), "describe", "--always", "--dirty"]),
        "CPU": f"{_cpu()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()) + " (1, 5, 15 minutes)",
        "system": f"{_system()}, Linux {platform.release()}",
        "Docker engine": _said(["docker", "info", "--format", "{{.ServerVersion}}, {{.Driver}} on {{.DockerRootDir}}"]),
        "networks' addresses": _said(["docker", "info", "--format", _POOLS]) or "Docker's default ranges",
        "docker compose": compose,
        "Pulumi": f"{_said(['pulumi', 'version'])}, Python {platform.python_version()}",
        "images": ", ".join(f"`{name}` ({_image(name)})" for name in candidates() if _image(name)),
        "Orthanc, index plugin, PostgreSQL": _packages(),
    }


def _said(command: Sequence[str]) -> str:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        return done.stdout.strip().partition("\n")[0] if done.returncode == 0 else ""
    return ""


def _cpu() -> str:
    with contextlib.suppress(OSError):
        if found := re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE):
            return found[1]
    return platform.processor() or platform.machine()


def _system() -> str:
    with contextlib.suppress(OSError):
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    return platform.system()


def _image(name: str) -> str:
    return _said(["docker", "image", "inspect", "--format", "{{.Id}}", name])[:19]


def _packages() -> str:
    """The versions of Debian's packages in the locally built images."""
    found = []
    for name in candidates():
        packages = _PACKAGES.get(name.partition("/")[2].partition(":")[0])
        if not packages or not _image(name):
            continue
        for package in packages:
            query = ["dpkg-query", "--show", "--showformat=${Package} ${Version}", package]
            found.append(_said(["docker", "run", "--rm", "--network=none", "--entrypoint", query[0], name, *query[1:]]))
    return ", ".join(text for text in found if text)
