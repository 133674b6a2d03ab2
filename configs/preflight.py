"""What is checked against the machine and the Docker engine before a resource is touched.

The only module of configs/ that looks at the world: two calls of the docker command, side by side, and an attempt to bind each port where
the engine is this machine's own. Without the docker command these checks are left out and Pulumi's provider finds out.
"""

from __future__ import annotations

import errno
import json
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from configs import names
from configs.checks import HostPort, Parts, host_ports
from configs.engine import engine_url, host_in, is_local
from configs.held import Held
from configs.images import candidates, choose, is_alpine
from configs.problems import Problem
from configs.settings import StackSettings

_TIMEOUT_SECONDS = 20


@dataclass(frozen=True)
class Stack:
    """Which stack it is, and what its state holds.

    Attributes:
        prefix: what its physical names begin with.
        first_prefix: what those of its volumes began with in the first versions.
        held: what its state holds.
        adopted: the names of the volumes that its stack file takes over.
    """

    prefix: str
    first_prefix: str
    held: Held = field(default_factory=Held)
    adopted: frozenset[str] = frozenset()

    def holds(self, part: str) -> bool:
        """Whether the state holds the data volume of a node, or of the database."""
        return f"{part}-data" in self.held.volumes

    def first_volume_of(self, part: str) -> str:
        """The name that the data volume of a node, or of the database, had in the first versions."""
        return f"{self.first_prefix}-{part}"

    def volume_of(self, part: str) -> str:
        """The name of the data volume of a node, or of the database: the one that it has, or the one that it gets."""
        if self.holds(part):
            return self.held.volumes[f"{part}-data"]
        first = self.first_volume_of(part)
        return first if first in self.adopted else f"{self.prefix}-{part}"

    def is_its(self, volume: str, part: str, found: Volume) -> bool:
        """Whether the stack may use a volume that exists; for a name of the first versions: whether it may pass over it."""
        if volume != self.volume_of(part):
            return bool(found.owner) or self.holds(part) or found.stack != self.first_prefix
        if found.owner:
            return found.owner == self.held.owner
        return self.holds(part) and volume not in self.held.labelled


@dataclass(frozen=True)
class Volume:
    """A volume on the engine.

    Attributes:
        format: the format of its data; "" where it has no label.
        owner: the identifier of the state that made it; "" where it has no label.
        stack: prefix of the stack that made it; "" where it has no label.
    """

    format: str = ""
    owner: str = ""
    stack: str = ""


@dataclass(frozen=True)
class Engine:
    """What a Docker engine holds of a stack.

    Attributes:
        reachable: whether there is an engine, as far as could be found out.
        error: what the docker command said, if it is not.
        local: whether the engine is this machine's own, so that its ports are this machine's ports.
        host: the host of an engine elsewhere; empty for this machine.
        images: the locally built images that it holds.
        ports: the host's ports that running containers of the stack hold, which it has and keeps.
        volumes: those volumes that exist of the ones that the stack wants, by name.
        users: the names of containers that use a volume which the stack file adopts, and that the state does not hold.
        again: what tells the container that makes the roles to run again: its own identifier where it has not ended well.
    """

    reachable: bool = True
    error: str = ""
    local: bool = False
    host: str = ""
    images: frozenset[str] = frozenset()
    ports: frozenset[int] = frozenset()
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    users: frozenset[str] = frozenset()
    again: str = ""


def docker_command(config: Mapping[str, str]) -> list[str]:
    """The docker command for the engine that Pulumi's provider uses: docker:context or docker:host of the stack file, else the user's."""
    if context := config.get("docker:context"):
        return ["docker", "--context", context]
    if host := config.get("docker:host"):
        return ["docker", "--host", host]
    return ["docker"]


def inspect(settings: StackSettings, stack: Stack, docker: Sequence[str]) -> Engine | None:
    """Ask the engine for what it holds of a stack; None where there is no docker command."""
    parts = [*(part for node in settings.nodes for part in (node.name, names.forwarder_of(node.name))), names.ADMINER]
    logical = [*(f"{part}-container" for part in parts), names.DB_ROLES]
    containers = [stack.held.containers[name] for name in logical if name in stack.held.containers]
    volumes = sorted({name for part in _data_parts(settings) for name in (stack.volume_of(part), stack.first_volume_of(part))})
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
    engine = _engine([thing for printed, _ in answers for thing in json.loads(printed or "[]")], engine_url(docker))
    return replace(engine, users=_users(settings.adopt, stack, docker)) if settings.adopt else engine


def _users(volumes: Sequence[str], stack: Stack, docker: Sequence[str]) -> frozenset[str]:
    filters = [word for volume in volumes for word in ("--filter", f"volume={volume}")]
    command = [*docker, "ps", "--all", "--no-trunc", *filters, "--format", "{{.ID}} {{.Names}}"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False).stdout
    using = (line.split(" ", 1) for line in shown.splitlines())
    return frozenset(name for identifier, name in using if identifier not in stack.held.containers.values())


def _engine(found: Sequence[Mapping[str, Any]], url: str) -> Engine:
    images: set[str] = set()
    ports: set[int] = set()
    again = ""
    volumes: dict[str, Volume] = {}
    for thing in found:
        if "RepoTags" in thing:
            images.update(thing["RepoTags"] or ())
        elif "Mountpoint" in thing:
            labels = thing.get("Labels") or {}
            said = (labels.get(label, "") for label in (names.LABEL_FORMAT, names.LABEL_OWNER, names.LABEL_STACK))
            volumes[thing["Name"]] = Volume(*said)
        elif (thing.get("Config", {}).get("Labels") or {}).get(names.LABEL_ROLE) == names.DB_ROLES:
            told = dict(variable.partition("=")[::2] for variable in thing["Config"].get("Env") or ()).get(names.AGAIN, "")
            well = thing["State"]["Status"] == "exited" and thing["State"]["ExitCode"] == 0
            again = told if well else thing["Id"][:12]
        elif thing.get("State", {}).get("Running"):
            bindings = thing["HostConfig"].get("PortBindings") or {}
            ports.update(int(b["HostPort"]) for bound in bindings.values() for b in bound or () if b.get("HostPort"))
    return Engine(local=is_local(url), host=host_in(url), images=frozenset(images), ports=frozenset(ports), volumes=volumes, again=again)


def check(parts: Parts, stack: Stack, engine: Engine) -> list[Problem]:
    """What does not fit between a stack file and the machine it is for."""
    if not engine.reachable:
        hint = "Start it (or: make up), or point DOCKER_HOST or docker:host to the one to use."
        return [Problem("the Docker engine", f"is not reached: {engine.error}\n      {hint}")]
    problems = _owners(parts.settings, stack, engine) or _formats(parts.settings, stack, engine)
    if parts.settings.images.source == "local" and (missing := sorted(set(candidates()) - engine.images)):
        problems.append(
            Problem("images.source", f"needs images that the engine does not hold: {', '.join(missing)}. Build them: make images", "local")
        )
    if engine.local:
        problems += [problem for port in host_ports(parts) if port.port not in engine.ports and (problem := _try_port(port))]
    return problems


def _data_parts(settings: StackSettings, images: frozenset[str] = frozenset()) -> dict[str, tuple[str, str]]:
    """What has a data volume, by name: the setting that its data must fit, and the format that this setting means."""
    parts: dict[str, tuple[str, str]] = {node.name: (f"nodes[{i}].index", node.index) for i, node in enumerate(settings.nodes)}
    if settings.index_nodes:
        alpine = is_alpine(choose(settings.images, images).postgres)
        parts[names.DB_HOST] = ("indexDb.majorVersion", names.postgresql_format(settings.index_db.major_version, alpine=alpine))
    return parts


_WHOSE = """It may hold patients' images, and is left alone.
      - This very stack, deployed from another checkout or login: use its state, by the same `pulumi login` or a copy of its .pulumi-state/.
      - Another stack: give this one, or its node, another name.
      - Its state is lost, and nothing else uses it: take it over, by orthanc-stack:adopt: [{volume}] in the stack file, for
        as long as it is used."""

_LOST = """Its images are lost unless there is a backup: restore that first, into a volume of
      that name and with its labels (`make drift` shows what is missing). To go on without them, have the state forget it, then deploy:
          eval "$(make -s env STACK=…)"      and      pulumi refresh"""


def _owners(settings: StackSettings, stack: Stack, engine: Engine) -> list[Problem]:
    """Volumes that are not this stack's, whose images would be shown here and deleted with it; and its own that are lost, in whose place an
    empty one would stand.
    """
    problems = []
    for part, (path, _) in sorted(_data_parts(settings, engine.images).items()):
        place = f"{path.partition('.')[0]}.name" if part != names.DB_HOST else "indexDb"
        for volume in sorted({stack.volume_of(part), stack.first_volume_of(part)}):
            if volume in settings.adopt and volume in engine.volumes:
                if engine.users:
                    said = f"takes over {volume}, which {', '.join(sorted(engine.users))} still uses. Remove that first: docker rm -f"
                    problems.append(Problem("adopt", said, volume))
            elif said := _objection(volume, part, stack, engine.volumes.get(volume)):
                problems.append(Problem(place, said, part))
    return problems


def _objection(volume: str, part: str, stack: Stack, found: Volume | None) -> str:
    """What is against the use of a volume by a node, or by the database; empty where nothing is."""
    if found is None:
        lost = stack.holds(part) and volume == stack.volume_of(part)
        return f"had the volume {volume}, which is gone from the engine. {_LOST}" if lost else ""
    if stack.is_its(volume, part, found):
        return ""
    if found.owner:
        return f"needs the volume {volume}, which another state made ({found.owner}). {_WHOSE.format(volume=volume)}"
    if stack.holds(part):
        return f"had the volume {volume}, which is gone; one of that name was made anew. {_LOST}"
    return f"needs the volume {volume}, which this stack's state does not hold. {_WHOSE.format(volume=volume)}"


def _formats(settings: StackSettings, stack: Stack, engine: Engine) -> list[Problem]:
    problems = []
    for part, (path, wanted) in sorted(_data_parts(settings, engine.images).items()):
        volume = stack.volume_of(part)
        held = engine.volumes.get(volume, Volume()).format or wanted
        if held == wanted:
            continue
        if part == names.DB_HOST:
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
