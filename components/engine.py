"""A Docker engine, asked by the docker command: where it is, and what it holds of a stack. Needs no Pulumi."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from configs import names

_ANY_ADDRESS = frozenset({"0.0.0.0", "::"})
_TIMEOUT_SECONDS = 60
#: A container's name, and whether it runs, its probe has neither passed nor failed for good, and it has not ended and been started again.
_STATE = "{{.Name}} {{.State.Status}} {{with .State.Health}}{{.Status}}{{end}} {{.RestartCount}}"


@dataclass(frozen=True)
class Volume:
    """A volume on the engine.

    Attributes:
        format: the format of its data; "" where it has no label.
        owner: the identifier of the state that made it; "" where it has no label.
    """

    format: str = ""
    owner: str = ""


@dataclass(frozen=True)
class Engine:
    """What a Docker engine holds of a stack.

    Attributes:
        reachable: whether the engine answers.
        error: what the docker command said, if it does not.
        local: whether the engine is this machine's own, so that its ports are this machine's ports.
        host: the host of an engine elsewhere; empty for this machine.
        images: the locally built images that it holds.
        ports: the host's ports that running containers of the stack hold, which it has and keeps.
        volumes: those volumes that exist of the ones that the stack wants, by name.
        again: what has the roles made again: the identifier of the container that made them, where it has not ended well.
    """

    reachable: bool = True
    error: str = ""
    local: bool = False
    host: str = ""
    images: frozenset[str] = frozenset()
    ports: frozenset[int] = frozenset()
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    again: str = ""


def docker_command(config: Mapping[str, Any]) -> list[str]:
    """The docker command for the engine that Pulumi's provider uses: docker:context or docker:host of the stack file, else the user's."""
    if context := config.get("docker:context"):
        return ["docker", "--context", context]
    if host := config.get("docker:host"):
        return ["docker", "--host", host]
    return ["docker"]


def engine_url(docker: Sequence[str]) -> str:
    """The URL of the engine that a docker command speaks to, such as unix:///var/run/docker.sock; empty where that cannot be told.

    Args:
        docker: the command, with --host or --context where the stack file has docker:host or docker:context.
    """
    if "--host" in docker:
        return docker[-1]
    if "--context" not in docker and ((host := os.environ.get("DOCKER_HOST")) or not os.environ.get("DOCKER_CONTEXT")):
        return host or "unix://"
    try:
        return _ask([docker[0], "context", "inspect", *docker[2:], "--format", "{{.Endpoints.docker.Host}}"]).strip()
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""


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


def reached_at(address: str, engine: str = "") -> str:
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


def inspect(
    docker: Sequence[str],
    images: Iterable[str],
    containers: Iterable[str],
    volumes: Iterable[str],
) -> Engine:
    """Ask the engine what it holds.

    Args:
        docker: the docker command.
        images: names of locally built images.
        containers: identifiers of the stack's containers.
        volumes: names of volumes.
    """
    # Volumes apart: a volume has the name of its container, and an inspection without a type finds the container alone.
    commands = ([*docker, "inspect", *images, *containers], [*docker, "volume", "inspect", *volumes])
    try:
        asked = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for command in commands]
    except FileNotFoundError:
        return Engine(reachable=False, error="there is no docker command on PATH. Install Docker's command-line client.")
    try:
        answers = [one.communicate(timeout=_TIMEOUT_SECONDS) for one in asked]
    except subprocess.TimeoutExpired:
        for one in asked:
            one.kill()
        return Engine(reachable=False, error=f"it does not answer within {_TIMEOUT_SECONDS} s")
    # The docker command names what the engine does not hold on standard error, a line each, and prints the rest.
    said = [line for _, errors in answers for line in errors.splitlines()]
    errors = [line for line in said if "no such" not in line.lower() and not line.startswith("WARNING")]
    if errors:
        return Engine(reachable=False, error=errors[0])
    return _engine([thing for printed, _ in answers for thing in json.loads(printed or "[]")], engine_url(docker))


def users_of(volumes: Iterable[str], docker: Sequence[str], besides: Collection[str]) -> list[str]:
    """The names of the containers that use one of some volumes, sorted.

    Args:
        volumes: the volumes' names.
        docker: the docker command.
        besides: identifiers of containers that are left out.
    """
    filters = [word for volume in volumes for word in ("--filter", f"volume={volume}")]
    shown = _ask([*docker, "ps", "--all", "--no-trunc", *filters, "--format", "{{.ID}} {{.Names}}"])
    using = (line.split(" ", 1) for line in shown.splitlines())
    return sorted(name for identifier, name in using if identifier not in besides)


def starting(containers: Iterable[str], docker: Sequence[str]) -> set[str]:
    """The containers, of those with these names, whose first probe since their start is still to come."""
    lines = _ask([*docker, "container", "inspect", "--format", _STATE, *containers]).splitlines()
    states = (line.removeprefix("/").partition(" ") for line in lines)
    return {name for name, _, state in states if state == "running starting 0"}


def _ask(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False).stdout


def _engine(found: Iterable[Mapping[str, Any]], url: str) -> Engine:
    images: set[str] = set()
    ports: set[int] = set()
    again = ""
    volumes: dict[str, Volume] = {}
    for thing in found:
        if "RepoTags" in thing:
            images.update(thing["RepoTags"] or ())
        elif "Mountpoint" in thing:
            labels = thing.get("Labels") or {}
            volumes[thing["Name"]] = Volume(labels.get(names.LABEL_FORMAT, ""), labels.get(names.LABEL_OWNER, ""))
        elif (thing.get("Config", {}).get("Labels") or {}).get(names.LABEL_ROLE) == names.DB_ROLES:
            told = dict(variable.partition("=")[::2] for variable in thing["Config"].get("Env") or ()).get(names.AGAIN, "")
            well = thing["State"]["Status"] == "exited" and thing["State"]["ExitCode"] == 0
            again = told if well else thing["Id"][:12]
        elif thing.get("State", {}).get("Running"):
            bindings = thing["HostConfig"].get("PortBindings") or {}
            ports.update(int(b["HostPort"]) for bound in bindings.values() for b in bound or () if b.get("HostPort"))
    return Engine(local=is_local(url), host=host_in(url), images=frozenset(images), ports=frozenset(ports), volumes=volumes, again=again)
