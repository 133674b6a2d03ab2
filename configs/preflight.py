"""What is checked against the machine and the Docker engine before a resource is touched.

The only module of configs/ that looks at the world: two calls of the docker command, side by side, and an attempt to bind each port where
the engine is this machine's own. Without the docker command these checks are left out and Pulumi's provider finds out.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from configs import names
from configs.checks import HostPort, Parts, host_ports
from configs.images import candidates, choose, is_alpine
from configs.problems import Problem
from configs.settings import StackSettings

_TIMEOUT_SECONDS = 20


@dataclass(frozen=True)
class Engine:
    """What a Docker engine holds of a stack.

    Attributes:
        reachable: whether there is an engine, as far as could be found out.
        error: what the docker command said, if it is not.
        local: whether the engine is this machine's own, so that its ports are this machine's ports.
        images: the locally built images that it holds.
        ports: the host's ports that running containers of the stack hold.
        formats: the data format of each volume of the stack that exists, by the volume's name; "" where it has no label.
    """

    reachable: bool = True
    error: str = ""
    local: bool = False
    images: frozenset[str] = frozenset()
    ports: frozenset[int] = frozenset()
    formats: Mapping[str, str] = field(default_factory=dict)


def docker_command(config: Mapping[str, str]) -> list[str]:
    """The docker command for the engine that Pulumi's provider uses: docker:context or docker:host of the stack file, else the user's."""
    if context := config.get("docker:context"):
        return ["docker", "--context", context]
    if host := config.get("docker:host"):
        return ["docker", "--host", host]
    return ["docker"]


def inspect(settings: StackSettings, prefix: str, docker: Sequence[str]) -> Engine | None:
    """Ask the engine for what it holds of a stack; None where there is no docker command."""
    containers = [f"{prefix}-{name}" for node in settings.nodes for name in (node.name, names.forwarder_of(node.name))]
    containers.append(f"{prefix}-adminer")
    volumes = list(_expected_formats(settings, prefix))
    # Volumes apart: a volume has the name of its container, and an inspection without a type finds the container alone.
    commands = ([*docker, "inspect", *candidates(), *containers], [*docker, "volume", "inspect", *volumes])
    try:
        asked = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for command in commands]
        answers = [one.communicate(timeout=_TIMEOUT_SECONDS) for one in asked]
    except FileNotFoundError:
        return None
    except subprocess.TimeoutExpired:
        for one in asked:
            one.kill()
        return Engine(reachable=False, error=f"it does not answer within {_TIMEOUT_SECONDS} s")
    # What the engine does not hold is said on standard error, a line each; the rest is still printed.
    said = [line for _, errors in answers for line in errors.splitlines()]
    errors = [line for line in said if "no such" not in line.lower() and not line.startswith("WARNING")]
    if errors:
        return Engine(reachable=False, error=errors[0])
    return _engine([thing for printed, _ in answers for thing in json.loads(printed or "[]")], _is_local(docker))


def _engine(found: Sequence[Mapping[str, Any]], local: bool) -> Engine:
    images: set[str] = set()
    ports: set[int] = set()
    formats: dict[str, str] = {}
    for thing in found:
        if "RepoTags" in thing:
            images.update(thing["RepoTags"] or ())
        elif "Mountpoint" in thing:
            formats[thing["Name"]] = (thing.get("Labels") or {}).get(names.LABEL_FORMAT, "")
        elif thing.get("State", {}).get("Running"):
            bindings = thing["HostConfig"].get("PortBindings") or {}
            ports.update(int(b["HostPort"]) for bound in bindings.values() for b in bound or () if b.get("HostPort"))
    return Engine(local=local, images=frozenset(images), ports=frozenset(ports), formats=formats)


def _is_local(docker: Sequence[str]) -> bool:
    """Whether the engine listens on a socket of this machine. A context that is not the default one may be anywhere."""
    host = docker[2] if "--host" in docker else os.environ.get("DOCKER_HOST", "unix://")
    return host.startswith(("unix://", "npipe://")) and "--context" not in docker and not os.environ.get("DOCKER_CONTEXT")


def check(parts: Parts, prefix: str, engine: Engine) -> list[Problem]:
    """What does not fit between a stack file and the machine it is for."""
    if not engine.reachable:
        hint = "Start it (or: make up), or point DOCKER_HOST or docker:host to the one to use."
        return [Problem("the Docker engine", f"is not reached: {engine.error}\n      {hint}")]
    problems = _formats(parts.settings, prefix, engine)
    if parts.settings.images.source == "local" and (missing := sorted(set(candidates()) - engine.images)):
        problems.append(
            Problem("images.source", f"needs images that the engine does not hold: {', '.join(missing)}. Build them: make images", "local")
        )
    if engine.local:
        problems += [problem for port in host_ports(parts) if port.port not in engine.ports and (problem := _try_port(port))]
    return problems


def _expected_formats(settings: StackSettings, prefix: str, images: frozenset[str] = frozenset()) -> dict[str, tuple[str, str]]:
    """For each volume of a stack: the setting that its data must fit, and the data format that this setting means."""
    formats: dict[str, tuple[str, str]] = {f"{prefix}-{n.name}": (f"nodes[{i}].index", n.index) for i, n in enumerate(settings.nodes)}
    if settings.index_nodes:
        alpine = is_alpine(choose(settings.images, images).postgres)
        formats[f"{prefix}-db"] = ("indexDb.majorVersion", names.postgresql_format(settings.index_db.major_version, alpine=alpine))
    return formats


def _formats(settings: StackSettings, prefix: str, engine: Engine) -> list[Problem]:
    problems = []
    for volume, (path, wanted) in sorted(_expected_formats(settings, prefix, engine.images).items()):
        held = engine.formats.get(volume) or wanted
        if held == wanted:
            continue
        if volume == f"{prefix}-db":
            (_, was, *of), (_, major, *_) = held.split("-"), wanted.split("-")
            if was == major:
                problems.append(_other_library(volume, "Alpine's" if of else "Debian's", choose(settings.images, engine.images).postgres))
                continue
            message = (
                f"does not fit the data in the volume {volume}, which PostgreSQL {was} wrote. Another major version "
                "cannot read it: set it back; to upgrade, dump the databases with the old version and restore them into a new volume."
            )
        else:
            message = (
                f"does not fit the volume {volume}, whose index is in {held}: the images in it would be on the disk and no longer found. "
                "Set it back; to change over, add a node with another name and send the images to it."
            )
        problems.append(Problem(path, message, wanted.removeprefix("postgresql-").removesuffix("-alpine")))
    return problems


def _other_library(volume: str, was: str, image: str) -> Problem:
    return Problem(
        "images.postgres",
        f"does not fit the data in the volume {volume}, which was made under {was} PostgreSQL. Alpine's C library sorts text otherwise "
        "than Debian's: the same indexes would find some things no more, and others twice. Set it back; to change over, dump the databases "
        "under the old image and restore them into a new volume.",
        image,
    )


def _try_port(wanted: HostPort) -> Problem | None:
    """Try to bind a port as the engine would, and let go of it at once."""
    family = socket.AF_INET6 if ":" in wanted.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((wanted.address, wanted.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                hint = (
                    f"See what it is (ss -ltnp 'sport = :{wanted.port}'), or set another port. A node of this stack that is no longer in "
                    "the stack file, or had another name, holds its ports until it is gone."
                )
                return Problem(
                    wanted.path, f"is taken on this host, at {wanted.address}, by something that is not of this stack. {hint}", wanted.port
                )
            if error.errno == errno.EADDRNOTAVAIL:
                return Problem(wanted.path, f"cannot be bound: {wanted.address} is not an address of this host. Correct bind.", wanted.port)
            # Ports below 1024 are the engine's to bind, not ours.
            return None
    return None
