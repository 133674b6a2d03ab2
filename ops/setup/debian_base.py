"""The Debian bases of the images in images/: made with mmdebstrap and imported, so that nothing is pulled.

A base holds the machine's package sources, which is why it never leaves the machine: the images themselves are built from scratch in
their last stage, and copy from it.
"""

import contextlib
import hashlib
import http.client
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from ops.setup.apt import can_install, install
from ops.setup.console import SetupError, cache_dir, run_slow, say, without_secrets
from ops.setup.engine import holds

_LABEL = "Images"
#: Change it when a base is made in another way.
_BASE_RECIPE = "2"
_MIRROR_TIMEOUT_S = 10
#: What switches off one check of one source, and no other (sources.list(5)).
_STALE = "check-valid-until=no"
#: What every package list is verified with; a base has it at the same path.
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def ensure_base(suite: str, proxies: Mapping[str, str], hint: str) -> str:
    """The name of a suite's base image, made if the engine does not hold it. DEBIAN_MIRROR overrides the machine's own mirror."""
    sources = _sources(suite, proxies)
    identity = hashlib.sha256(json.dumps([_BASE_RECIPE, *sources]).encode()).hexdigest()[:8]
    base = f"orthanc-stack/debian:{suite}-{identity}"
    if holds(base):
        return base
    _need_mmdebstrap(hint)
    if stale := [source.split()[-2] for source in sources if _STALE in source]:
        say(_LABEL, f"{', '.join(stale)}: the mirror is past its Valid-Until. That check alone is off there; signatures are checked")
    started = time.monotonic()
    env = without_secrets(os.environ) | dict(proxies)
    with tempfile.TemporaryDirectory(dir=cache_dir(), prefix="image-base-") as folder:
        tar = f"{folder}/base.tar"
        # No device nodes: the engine makes its own, and a rootless one cannot unpack them.
        options = ["--variant=minbase", "--include=ca-certificates", "--skip=output/dev", f"--keyring={_KEYRING}"]
        advice = f"Set DEBIAN_MIRROR to a mirror that this machine reaches, or:\n{hint}"
        run_slow(_LABEL, f"making the base of Debian {suite}", ["mmdebstrap", *options, suite, tar, *sources], env=env, hint=advice)
        run_slow(_LABEL, "importing the Debian base", ["docker", "import", tar, base])
    out_of_reach = bool(sources) and not any(f"{suite}-security" in source for source in sources)
    security = "WITHOUT (out of reach here)" if out_of_reach else "with"
    say(_LABEL, f"made {base}, {security} security updates, in {time.monotonic() - started:.0f} s")
    return base


def _need_mmdebstrap(hint: str) -> None:
    """Install it if it is missing. Without root it works in a user namespace, whose users newuidmap makes."""
    commands = {"mmdebstrap": "mmdebstrap", **({} if os.geteuid() == 0 else {"newuidmap": "uidmap"})}
    packages = [package for command, package in commands.items() if not shutil.which(command)]
    if not _KEYRING.exists():
        packages.append("debian-archive-keyring")  # Ubuntu has it as a package of its own
    if packages and not can_install():
        raise SetupError(f"building the images needs {' '.join(packages)}: apt-get install {' '.join(packages)} (as root), or:\n{hint}")
    if packages:
        install(_LABEL, packages, "the Debian bases")


def _sources(suite: str, proxies: Mapping[str, str]) -> list[str]:
    """The suite's entries of a sources.list; none means mmdebstrap's own: Debian's site, with security updates."""
    listed: list[tuple[str, str]] = []
    with contextlib.suppress(OSError):
        listed = apt_sources() if platform.freedesktop_os_release().get("ID") == "debian" else []
    override = os.environ.get("DEBIAN_MIRROR", "").rstrip("/")
    mirrors = [override] if override else [uri for uri, its in listed if not its.endswith(("-security", "-backports"))]
    for mirror in dict.fromkeys(mirrors):
        entry = _entry(mirror, suite, proxies)
        if override and not entry:
            raise SetupError(f"DEBIAN_MIRROR {override} does not answer, or has no {suite} of Debian's")
        if entry:
            # The machine's own security archive, or the one beside the mirror (…/debian-security), where most mirrors have it.
            beside = [*(uri for uri, its in listed if its.endswith("-security") and not override), f"{mirror}-security"]
            security = next(filter(None, (_entry(uri, f"{suite}-security", proxies) for uri in beside)), None)
            return list(filter(None, [entry, _entry(mirror, f"{suite}-updates", proxies), security]))
    return []


def _entry(uri: str, suite: str, proxies: Mapping[str, str]) -> str | None:
    """An archive's line of a sources.list, if it answers, has the suite, and is Debian's own: others name their suites after Debian's."""
    if not uri.startswith(("http://", "https://")):
        return None
    by_scheme = {key.removesuffix("_proxy"): value for key, value in proxies.items() if key != "no_proxy"}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(by_scheme))
    try:
        with opener.open(f"{uri}/dists/{suite}/InRelease", timeout=_MIRROR_TIMEOUT_S) as answer:
            release = answer.read(4096).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return None
    if "\nOrigin: Debian\n" not in release:
        return None
    # A mirror that lags behind would be refused by apt; testing's lists are good for a week.
    until = re.search(r"^Valid-Until: (.+)$", release, re.MULTILINE)
    stale = [_STALE] if until and parsedate_to_datetime(until[1]) < datetime.now(UTC) else []
    return f"deb [{' '.join([*stale, f'signed-by={_KEYRING}'])}] {uri} {suite} main"


def apt_sources() -> list[tuple[str, str]]:
    """(URI, suite) of each entry with a component main, in apt's order: as apt reads its configuration (apt-get(8), indextargets)."""
    listed = _ask("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages")
    entries = [line.split() for line in listed.splitlines()]
    return [(e[0].rstrip("/"), e[1]) for e in entries if len(e) == 3 and e[2] == "main"]


def apt_proxies() -> dict[str, str]:
    """The proxies that apt is configured for, as the variables that apt and wget read; those of the environment as well."""
    found = {key: os.environ[key] for key in ("http_proxy", "https_proxy", "no_proxy") if os.environ.get(key)}
    configured = _ask("apt-config", "shell", "http_proxy", "Acquire::http::Proxy", "https_proxy", "Acquire::https::Proxy")
    for assignment in shlex.split(configured):
        key, _, value = assignment.partition("=")
        if value and value != "DIRECT":
            found[key] = value
    return found


def _ask(*command: str) -> str:
    """What a command of apt's prints; nothing where there is no apt."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout if shutil.which(command[0]) else ""
