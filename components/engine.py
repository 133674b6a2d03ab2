"""A Docker engine, asked by the docker command: where it is, and what it holds of a stack. Needs no Pulumi."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from configs import names
from configs.problems import SettingsError

_TIMEOUT_SECONDS = 60
#: A container's name, its status, its health, and how often it ended and was started again.
_STATE = "{{.Name}} {{.State.Status}} {{with .State.Health}}{{.Status}}{{end}} {{.RestartCount}}"


@dataclass(frozen=True)
class Volume:
    """A volume on the engine."""

    format: str = ""  #: The format of its data; "" where it has no label.
    owner: str = ""  #: The identifier of the state that made it; "" where it has no label.
    stack: str = ""  #: The prefix of the stack that made it; "" where it has no label.


@dataclass(frozen=True)
class Engine:
    """What a Docker engine holds of a stack."""

    reachable: bool = True  #: Whether the engine answers.
    error: str = ""  #: What the docker command printed, if the engine does not answer.
    local: bool = False  #: Whether it is this machine's own, so that its ports are this machine's ports.
    host: str = ""  #: The host of an engine elsewhere; "" for this machine.
    images: frozenset[str] = frozenset()  #: The locally built images that it holds.
    ports: frozenset[int] = frozenset()  #: The host's ports that running containers of the stack hold.
    volumes: Mapping[str, Volume] = field(default_factory=dict)  #: The volumes that exist, of those that the stack wants, by name.
    again: str = ""  #: Has the roles made again: the ID of the container that made them, where it has not ended well.


def docker_command(config: Mapping[str, Any]) -> list[str]:
    """The docker command for the engine that Pulumi's provider uses: docker:context or docker:host of the stack file, else the user's."""
    for option in ("context", "host"):
        if value := config.get(f"docker:{option}"):
            return ["docker", f"--{option}", value]
    return ["docker"]


def engine_url(docker: Sequence[str]) -> str:
    """The URL of the engine that a docker command speaks to, such as unix:///var/run/docker.sock; "" where that cannot be told."""
    if "--host" in docker:
        return docker[-1]
    if "--context" not in docker and ((host := os.environ.get("DOCKER_HOST")) or not os.environ.get("DOCKER_CONTEXT")):
        return host or "unix://"
    try:
        return _ask([docker[0], "context", "inspect", *docker[2:], "--format", "{{.Endpoints.docker.Host}}"]).strip()
    except (FileNotFoundError, SettingsError):
        return ""


def is_local(url: str) -> bool:
    """Whether an engine listens on a socket of this machine, so that its ports are this machine's."""
    return url.startswith(("unix://", "npipe://"))


def host_in(url: str) -> str:
    """The host of an engine elsewhere; "" for this machine's own, and for one behind a tunnel that begins here."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return ""
    return "" if is_local(url) or is_loopback(host) else host


def is_loopback(host: str) -> bool:
    """Whether a host is a machine's own address, which only that machine reaches."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def reached_at(address: str, engine: str = "") -> str:
    """Where a port is reached that an engine binds to an address of its host (0.0.0.0 and :: are all of them).

    engine is the host of an engine elsewhere; "" for this machine.
    """
    this_machine = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    return (engine or this_machine[address]) if address in this_machine else address


def host_and_port(host: str, port: int) -> str:
    """A port of a host, given by name or address, as a URL has it: ``[::1]:4242``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def inspect(docker: Sequence[str], images: Iterable[str], containers: Iterable[str], volumes: Iterable[str], owner: str = "") -> Engine:
    """Ask the engine, by the docker command, which of these it holds: locally built images and volumes by name, containers by ID.

    Ports are also those of containers with this owner's label that the state does not know: an interrupted run has made them.
    """
    # Volumes apart: a volume has the name of its container, and an inspection without a type finds the container alone.
    commands = [[*docker, "inspect", *images, *containers], [*docker, "volume", "inspect", *volumes]]
    commands += [[*docker, "ps", "--filter", f"label={names.LABEL_OWNER}={owner}", "--format", "{{.Ports}}"]] if owner else []
    try:
        asked = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for command in commands]
    except FileNotFoundError:
        return Engine(reachable=False, error="there is no docker command on PATH. Install Docker's command-line client.")
    try:
        answers = [process.communicate(timeout=_TIMEOUT_SECONDS) for process in asked]
    except subprocess.TimeoutExpired:
        for process in asked:
            process.kill()
        return Engine(reachable=False, error=f"it does not answer within {_TIMEOUT_SECONDS} s")
    # The docker command lists on standard error what the engine does not hold, a line each, and prints the rest.
    lines = [line for _, errors in answers for line in errors.splitlines()]
    if errors := [line for line in lines if "no such" not in line.lower() and not line.startswith("WARNING")]:
        return Engine(reachable=False, error=errors[0])
    found = _engine([one for printed, _ in answers[:2] for one in json.loads(printed or "[]")], engine_url(docker))
    # "127.0.0.1:4242->4242/tcp, …", a line for each container.
    half_made = {int(port) for printed, _ in answers[2:] for port in re.findall(r":(\d+)->", printed)}
    return replace(found, ports=found.ports | half_made)


def users_of(volumes: Iterable[str], docker: Sequence[str], besides: Collection[str]) -> list[str]:
    """The names, sorted, of the containers that use one of these volumes, besides the containers with certain IDs."""
    filters = [word for volume in volumes for word in ("--filter", f"volume={volume}")]
    listed = _ask([*docker, "ps", "--all", "--no-trunc", *filters, "--format", "{{.ID}} {{.Names}}"])
    using = (line.split(" ", 1) for line in listed.splitlines())
    return sorted(name for identifier, name in using if identifier not in besides)


def starting(containers: Iterable[str], docker: Sequence[str]) -> set[str]:
    """The containers, of those with these names, that run, have not ended and been started again, and whose health is not known yet."""
    lines = _ask([*docker, "container", "inspect", "--format", _STATE, *containers]).splitlines()
    states = (line.removeprefix("/").partition(" ") for line in lines)
    return {name for name, _, state in states if state == "running starting 0"}


def _ask(command: Sequence[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False).stdout
    except subprocess.TimeoutExpired:
        said = f"The Docker engine does not answer within {_TIMEOUT_SECONDS} s, and nothing was touched: {' '.join(command[:3])}"
        raise SettingsError(said) from None


def _engine(found: Iterable[Mapping[str, Any]], url: str) -> Engine:
    """What an engine holds, by what docker printed of images, containers and volumes."""
    images, ports, volumes, again = set[str](), set[int](), dict[str, Volume](), ""
    for one in found:
        if "RepoTags" in one:
            images.update(one["RepoTags"] or ())
        elif "Mountpoint" in one:
            labels = one.get("Labels") or {}
            known = (names.LABEL_FORMAT, names.LABEL_OWNER, names.LABEL_STACK)
            volumes[one["Name"]] = Volume(*(labels.get(label, "") for label in known))
        elif (one.get("Config", {}).get("Labels") or {}).get(names.LABEL_ROLE) == names.DB_ROLES:
            environment = dict(variable.partition("=")[::2] for variable in one["Config"].get("Env") or ())
            ended_well = one["State"]["Status"] == "exited" and one["State"]["ExitCode"] == 0
            again = environment.get(names.AGAIN, "") if ended_well else one["Id"][:12]
        elif one.get("State", {}).get("Running"):
            bindings = one["HostConfig"].get("PortBindings") or {}
            ports.update(int(b["HostPort"]) for bound in bindings.values() for b in bound or () if b.get("HostPort"))
    return Engine(local=is_local(url), host=host_in(url), images=frozenset(images), ports=frozenset(ports), volumes=volumes, again=again)
