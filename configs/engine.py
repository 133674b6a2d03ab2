"""Where a Docker engine is, as seen from this machine: its ports are reached there."""

from __future__ import annotations

import ipaddress
import os
import subprocess
from collections.abc import Sequence
from urllib.parse import urlsplit

_ANY_ADDRESS = frozenset({"0.0.0.0", "::"})
_SECONDS_TO_ASK = 10


def engine_url(docker: Sequence[str]) -> str:
    """The URL of the engine that a docker command speaks to, such as unix:///var/run/docker.sock; empty where that cannot be told.

    Args:
        docker: the command, with --host or --context where the stack file has docker:host or docker:context.
    """
    if "--host" in docker:
        return docker[-1]
    if "--context" not in docker and ((host := os.environ.get("DOCKER_HOST")) or not os.environ.get("DOCKER_CONTEXT")):
        return host or "unix://"
    command = [docker[0], "context", "inspect", *docker[2:], "--format", "{{.Endpoints.docker.Host}}"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS_TO_ASK, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return asked.stdout.strip()


def is_local(url: str) -> bool:
    """Whether an engine listens on a socket of this machine, so that its ports are this machine's."""
    return url.startswith(("unix://", "npipe://"))


def host_in(url: str) -> str:
    """The host of an engine elsewhere; empty for this machine's own, and for one behind a tunnel that begins here."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return ""
    return "" if is_local(url) or is_loopback(host) else host


def is_loopback(host: str) -> bool:
    """Whether an address is the machine's own, where only that machine reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def reached_at(address: str, engine: str) -> str:
    """Where a port that an engine binds to an address of its host is reached.

    Args:
        address: the address; 0.0.0.0 and :: are all that the host has.
        engine: the host of an engine elsewhere; empty for this machine.
    """
    if address not in _ANY_ADDRESS:
        return address
    return engine or ("::1" if address == "::" else "127.0.0.1")


def host_and_port(host: str, port: int) -> str:
    """A port of a host, a name or an address of either kind, as it is written in a URL: ``[::1]:4242``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
