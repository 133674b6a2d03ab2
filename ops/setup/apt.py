"""Installs Debian packages where this process may: as root on Debian, Ubuntu and what is made from them."""

import os
import shutil
from collections.abc import Sequence

from ops.setup.console import run_slow, say, without_secrets

_APT = ("apt-get", "-o", "DPkg::Lock::Timeout=300")


def can_install() -> bool:
    """Whether packages can be installed: apt-get is there and this is root."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(label: str, packages: Sequence[str], why: str) -> None:
    """Install packages, after reading the package lists, and say in one line what they are needed for (`why`); or a SetupError."""
    env = {**without_secrets(os.environ), "DEBIAN_FRONTEND": "noninteractive"}
    run_slow(label, "reading Debian's package lists", [*_APT, "update"], env=env)
    command = [*_APT, "install", "--yes", "--no-install-recommends", *packages]
    run_slow(label, f"installing {' '.join(packages)}", command, env=env, hint=f"Needed for {why}.")
    say(label, f"{', '.join(packages)} installed, for {why}")
