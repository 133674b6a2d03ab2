"""The Debian base of the images in images/: made with debootstrap and imported, so that nothing is pulled.

It holds the machine's package sources, which is why it never leaves the machine: the images themselves are built from scratch in
their last stage, and copy from it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ops.setup.console import SetupError, cache_dir, run_slow, say
from ops.setup.engine import holds_image

_LABEL = "Images"
_SUITE = "trixie"
#: Change it when the base is made in another way.
_BASE_RECIPE = "1"
_MIRROR_TIMEOUT_S = 10


class Mirror(NamedTuple):
    """Where Debian's packages come from; None for debootstrap's own default, or for no security updates."""

    main: str | None
    security: str | None


def ensure_base(docker: Sequence[str], env: Mapping[str, str], proxies: Mapping[str, str], hint: str) -> str:
    """The name of the base image, made if the engine does not hold it."""
    mirror = _find_mirror(env, proxies)
    identity = hashlib.sha256(json.dumps([_BASE_RECIPE, *mirror]).encode()).hexdigest()[:8]
    base = f"orthanc-stack/debian:{_SUITE}-{identity}"
    if holds_image(base, docker, env):
        return base
    if os.geteuid() != 0:
        raise SetupError(f"building the images needs root, for debootstrap. Run it as root (sudo), or:\n{hint}")
    debootstrap = _debootstrap(hint)
    started = time.monotonic()
    with _work_folder() as folder:
        root = folder / "root"
        # debootstrap names a script by suite; one that is older than the suite has sid's, which does as well.
        script = Path("/usr/share/debootstrap/scripts")
        extra = [] if (script / _SUITE).exists() or not mirror.main else [str(script / "sid")]
        if not mirror.main and not (script / _SUITE).exists():
            raise SetupError(f"this debootstrap does not know {_SUITE}: set DEBIAN_MIRROR, or:\n{hint}")
        command = [debootstrap, "--variant=minbase", "--include=ca-certificates", _SUITE, str(root)]
        run_slow(
            _LABEL,
            "making the Debian base",
            [*command, *([mirror.main] if mirror.main else []), *extra],
            env={**env, **proxies},
            hint=f"Set DEBIAN_MIRROR to a mirror that this machine reaches, or:\n{hint}",
        )
        sources = root / "etc/apt/sources.list"
        site = mirror.main or sources.read_text().split()[1]
        lines = [f"deb {site} {_SUITE} main", f"deb {site} {_SUITE}-updates main"]
        if not mirror.main and not mirror.security:
            mirror = Mirror(None, _answering_security(site, proxies))
        if mirror.security:
            lines.append(f"deb {mirror.security} {_SUITE}-security main")
        sources.write_text("\n".join(lines) + "\n")
        # What debootstrap copied from this machine.
        for name in ("etc/hostname", "etc/resolv.conf"):
            (root / name).unlink(missing_ok=True)
        # No device nodes: the engine makes its own, and a rootless one cannot unpack them.
        command = [
            *("tar", "--create", "--file", str(folder / "base.tar"), "--directory", str(root), "--numeric-owner"),
            *("--exclude=./dev/*", "--exclude=./var/cache/apt/archives/*.deb", "--exclude=./var/lib/apt/lists/*_*", "."),
        ]
        run_slow(_LABEL, "packing the Debian base", command)
        run_slow(_LABEL, "importing the Debian base", [*docker, "import", str(folder / "base.tar"), base], env=env)
    security = "with" if mirror.security else "WITHOUT (out of reach here)"
    say(_LABEL, f"made {base}, {security} security updates, in {time.monotonic() - started:.0f} s")
    return base


@contextlib.contextmanager
def _work_folder() -> Iterator[Path]:
    """A folder to build in, gone afterwards; what a killed run left is removed first."""
    parent = cache_dir()
    for left in parent.glob("image-base-*"):
        # The process's number is in the name: another run that is building now is left alone.
        pid = left.name.split("-")[2]
        if not (pid.isdigit() and Path(f"/proc/{pid}").exists()):
            _remove(left)
    folder = Path(tempfile.mkdtemp(prefix=f"image-base-{os.getpid()}-", dir=parent))
    try:
        yield folder
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    """Delete a folder, after unmounting what debootstrap may have left mounted in it (/proc, /sys).

    A debootstrap whose run was killed may go on writing for a moment. What is still there then is left to the next run:
    nothing reads it.
    """
    for _ in range(5):
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        inside = sorted((m for m in mounts if m.startswith(f"{folder}/")), reverse=True)
        unmounted = [subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True).returncode for mount in inside]
        if any(unmounted):
            return  # deleting would reach into the mounted /proc
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.5)


def _debootstrap(hint: str) -> str:
    """debootstrap's path, installed if it is missing."""
    packages = [] if shutil.which("debootstrap", path=_SYSTEM_PATH) else ["debootstrap"]
    if not Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists():
        packages.append("debian-archive-keyring")  # Ubuntu has it as a package of its own
    if packages:
        if not shutil.which("apt-get"):
            raise SetupError(f"no {' and no '.join(packages)} here, and no apt-get to install it with.\n{hint}")
        apt_env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        run_slow(_LABEL, "reading the package lists", ["apt-get", "update"], env=apt_env, hint=hint)
        command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
        run_slow(_LABEL, f"installing {' '.join(packages)}", command, env=apt_env, hint=hint)
    return shutil.which("debootstrap", path=_SYSTEM_PATH) or "debootstrap"


#: A user's PATH often lacks sbin, where debootstrap is.
_SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _find_mirror(env: Mapping[str, str], proxies: Mapping[str, str]) -> Mirror:
    """The Debian mirror that this machine is configured for, if it has this suite and answers."""
    override = env.get("DEBIAN_MIRROR")
    if override:
        return Mirror(override.rstrip("/"), _answering_security(override, proxies))
    sources = apt_sources() if _is_debian() else []
    security = [uri for uri, suite in sources if suite.endswith("-security")]
    for uri, suite in sources:
        if not suite.endswith(("-security", "-backports")) and _is_debians(uri, _SUITE, proxies):
            known = next((u for u in security if _is_debians(u, f"{_SUITE}-security", proxies)), None)
            return Mirror(uri, known or _answering_security(uri, proxies))
    return Mirror(None, None)


def _answering_security(mirror: str, proxies: Mapping[str, str]) -> str | None:
    """The security archive beside a mirror (…/debian-security), where most mirrors have it, if it answers."""
    uri = f"{mirror.rstrip('/')}-security"
    return uri if _is_debians(uri, f"{_SUITE}-security", proxies) else None


def _is_debian() -> bool:
    with contextlib.suppress(OSError):
        return platform.freedesktop_os_release().get("ID") == "debian"
    return False


def apt_sources() -> list[tuple[str, str]]:
    """(URI, suite) of each entry with a component main, in apt's order.

    apt itself reads its configuration: one-line lists, deb822 files and options all come out the same
    (apt-get(8), indextargets).
    """
    if not shutil.which("apt-get"):
        return []
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    entries = [line.split() for line in listed.stdout.splitlines()]
    return [(e[0].rstrip("/"), e[1]) for e in entries if len(e) == 3 and e[2] == "main"]


def apt_proxies() -> dict[str, str]:
    """The proxies that apt is configured for, as the variables that apt and wget read; those of the environment as well."""
    found = {key: os.environ[key] for key in ("http_proxy", "https_proxy", "no_proxy") if os.environ.get(key)}
    if shutil.which("apt-config"):
        command = ["apt-config", "shell", "http_proxy", "Acquire::http::Proxy", "https_proxy", "Acquire::https::Proxy"]
        out = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        for assignment in shlex.split(out):
            key, _, value = assignment.partition("=")
            if value and value != "DIRECT":
                found[key] = value
    return found


def _is_debians(uri: str, suite: str, proxies: Mapping[str, str]) -> bool:
    """Whether an archive answers, has the suite, and is Debian's own: other vendors name their suites after Debian's."""
    if not uri.startswith(("http://", "https://")):
        return False
    by_scheme = {key.removesuffix("_proxy"): value for key, value in proxies.items() if key != "no_proxy"}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(by_scheme))
    try:
        with opener.open(f"{uri}/dists/{suite}/InRelease", timeout=_MIRROR_TIMEOUT_S) as answer:
            return b"Origin: Debian\n" in answer.read(4096)
    except (OSError, urllib.error.URLError):
        return False
