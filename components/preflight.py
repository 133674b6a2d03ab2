"""What is asked of the stack's state, the engine and this machine before a resource is touched: data that is another stack's or that is
lost, ports that are taken, containers that are still starting.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pulumi

from components import engine as engines
from components.engine import Engine, Volume, docker_command, is_loopback, reached_at
from configs import names
from configs.held import Held, held_of
from configs.loader import Loaded, stack_file_name
from configs.problems import Problem, SettingsError, report
from configs.rules import HostPort, Parts, host_ports
from configs.settings import StackSettings
from images import ImageChoice, candidates, choose, is_alpine

#: How often, and with which pauses, the program tries to read its stack's state.
_READ_ATTEMPTS = 20
_READ_PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class Situation:
    """Where a stack is deployed, and what is there of it already.

    Attributes:
        settings: the stack's settings.
        prefix: what its physical names begin with.
        held: what its state holds.
        engine: what the engine holds.
    """

    settings: StackSettings
    prefix: str
    held: Held = field(default_factory=Held)
    engine: Engine = field(default_factory=Engine)

    @property
    def keeps_data(self) -> bool:
        """Whether the data volumes are protected, and stay on the engine when the stack goes."""
        return self.settings.is_prod or (self.held.keeps_data and not self.settings.release_data)

    @property
    def images(self) -> ImageChoice:
        """The images to run."""
        return choose(self.settings.images, self.engine.images)

    def keeps(self, part: str) -> bool:
        """Whether the data volume of a node, or of the database, is protected: one that the stack file adopts is, too."""
        return self.keeps_data or self.volume_of(part) in self.settings.adopt

    def holds(self, part: str) -> bool:
        """Whether the state holds the data volume of a node, or of the database."""
        return f"{part}-data" in self.held.volumes

    def volume_of(self, part: str) -> str:
        """The name of the data volume of a node, or of the database: the one that it has, or the one that it gets."""
        return self.held.volumes.get(f"{part}-data", f"{self.prefix}-{part}")

    def host_of(self, address: str) -> str:
        """Where a port that is bound to an address of the engine's machine is reached."""
        return reached_at(address, self.engine.host)

    def is_own(self, part: str, found: Volume) -> bool:
        """Whether a volume that exists is this stack's."""
        if found.owner:
            return found.owner == self.held.owner
        return self.holds(part) and self.volume_of(part) not in self.held.labelled

    def warnings(self) -> Iterator[str]:
        """What becomes of the data of a stack that was prod, and addresses that open on the engine's machine alone."""
        if self.held.keeps_data and not self.settings.is_prod:
            volumes = ", ".join(sorted(self.held.volumes.values()))
            yield (
                "releaseData: the data volumes are no longer protected. After this run, `pulumi destroy`, and a node that is removed from "
                f"the stack file, delete patients' images: {volumes}."
                if self.settings.release_data
                else f"environment is dev, and the stack was prod: its data volumes stay protected ({volumes}). releaseData: true in the "
                "stack file gives them up."
            )
        settings, host = self.settings, self.engine.host
        bound = {settings.bind_of(node) for node in settings.nodes} | ({settings.bind_of(settings.adminer)} if settings.adminer else set())
        if host and (loopback := sorted(filter(is_loopback, bound))):
            yield (
                f"The engine is at {host}, and ports are bound to {', '.join(loopback)} there: these addresses open on that machine alone. "
                f"For others, set bind; for yourself, ssh -L <port>:{loopback[0]}:<port> {host}"
            )


def look(loaded: Loaded, config: Mapping[str, str]) -> Situation:
    """Find out where a stack is deployed, and whether it can be.

    Args:
        loaded: its settings.
        config: the whole configuration that Pulumi hands over.

    Raises:
        SettingsError: something stands against the deployment. No resource was touched.
    """
    stack, docker = pulumi.get_stack(), docker_command(config)
    settings = loaded.settings
    situation = Situation(settings, names.prefix(stack, pulumi.get_project()), _read_state())
    parts = [*(part for node in settings.nodes for part in (node.name, names.forwarder_of(node.name))), names.ADMINER]
    logical = [*(f"{part}-container" for part in parts), names.DB_ROLES]
    containers = [situation.held.containers[name] for name in logical if name in situation.held.containers]
    volumes = sorted({*map(situation.volume_of, _data_parts(situation)), *settings.adopt})
    found = engines.inspect(docker, candidates(), containers, volumes)
    situation = Situation(settings, situation.prefix, situation.held, found)
    if problems := check(loaded.parts, situation, docker):
        raise SettingsError(report(problems, stack_file_name(stack)))
    if not pulumi.runtime.is_dry_run() and (still := await_starts(start_limits(situation), docker, pulumi.log.info)):
        raise SettingsError(still)
    return situation


def _read_state() -> Held:
    """What the stack's state holds before this run. The engine's own function: a StackReference would show outputs alone."""
    stack = f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}"
    for attempt in range(_READ_ATTEMPTS):
        try:
            answer = pulumi.runtime.invoke("pulumi:pulumi:readStackResourceOutputs", {"stackName": stack})
        except Exception as error:
            # A backend of files writes the state and a small file beside it, and the second not in one step (gocloud.dev's fileblob,
            # attrs.go): a program that reads while the engine writes its first resources may meet an empty one.
            if attempt == _READ_ATTEMPTS - 1:
                raise pulumi.RunError(f"The state of {stack} cannot be read, and nothing was touched: {error}") from None
            time.sleep(_READ_PAUSE_SECONDS)
        else:
            return held_of(answer.value["outputs"])
    raise AssertionError


def check(parts: Parts, situation: Situation, docker: Sequence[str]) -> list[Problem]:
    """What does not fit between a stack file and the machine that it is for."""
    engine = situation.engine
    if not engine.reachable:
        hint = "Start it (or: make up), or point DOCKER_HOST or docker:host to the one to use."
        return [Problem("the Docker engine", f"is not reached: {engine.error}\n      {hint}")]
    problems = list(_owners(situation, docker)) or list(_formats(situation))
    if situation.settings.images.source == "local" and (missing := sorted(set(candidates()) - engine.images)):
        problems.append(
            Problem("images.source", f"needs images that the engine does not hold: {', '.join(missing)}. Build them: make images", "local")
        )
    if engine.local:
        problems += [problem for port in host_ports(parts) if port.port not in engine.ports and (problem := _try_port(port))]
    return problems


def _data_parts(situation: Situation) -> dict[str, tuple[str, str]]:
    """The parts that have a data volume, by name: the setting that the data must fit, and the format that this setting means."""
    settings = situation.settings
    parts: dict[str, tuple[str, str]] = {node.name: (f"nodes[{i}].index", node.index) for i, node in enumerate(settings.nodes)}
    if settings.index_nodes:
        alpine = is_alpine(situation.images.postgres)
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


def _owners(situation: Situation, docker: Sequence[str]) -> Iterator[Problem]:
    """Volumes that are not this stack's, whose images would be shown here and deleted with it; and its own that are lost, in whose place an
    empty one would stand.
    """
    adopted = [volume for volume in situation.settings.adopt if volume in situation.engine.volumes]
    if adopted and (users := engines.users_of(adopted, docker, situation.held.containers.values())):
        said = f"takes over {', '.join(adopted)}, which {', '.join(users)} still uses. Remove that first: docker rm -f"
        yield Problem("adopt", said, list(adopted))
    own = {situation.volume_of(part) for part in _data_parts(situation)}
    if unknown := sorted(set(adopted) - own):
        said = f"names a volume that no part of this stack has: {', '.join(unknown)}. Theirs are {', '.join(sorted(own))}. Leave it out."
        yield Problem("adopt", said, unknown)
    for part, (path, _) in sorted(_data_parts(situation).items()):
        place = f"{path.partition('.')[0]}.name" if part != names.DB_HOST else "indexDb"
        if situation.volume_of(part) not in adopted and (said := _objection(part, situation)):
            yield Problem(place, said, part)


def _objection(part: str, situation: Situation) -> str:
    """Why a node, or the database, must not use its volume; empty where it may."""
    volume = situation.volume_of(part)
    found = situation.engine.volumes.get(volume)
    if found is None:
        return f"had the volume {volume}, which is gone from the engine. {_LOST}" if situation.holds(part) else ""
    if situation.is_own(part, found):
        return ""
    if found.owner:
        return f"needs the volume {volume}, which another state made ({found.owner}). {_WHOSE.format(volume=volume)}"
    if situation.holds(part):
        return f"had the volume {volume}, which is gone; one of that name was made anew. {_LOST}"
    return f"needs the volume {volume}, which this stack's state does not hold. {_WHOSE.format(volume=volume)}"


def _formats(situation: Situation) -> Iterator[Problem]:
    """Data that what the stack file wants cannot read."""
    for part, (path, wanted) in sorted(_data_parts(situation).items()):
        volume = situation.volume_of(part)
        held = situation.engine.volumes.get(volume, Volume()).format or wanted
        if held == wanted:
            continue
        if part != names.DB_HOST:
            message = (
                f"does not fit the volume {volume}, whose index is in {held}: the images in it would be on the disk and no longer found. "
                "Set it back; to change over, add a node with another name and send the images to it."
            )
            yield Problem(path, message, wanted)
            continue
        (_, was, *alpine), (_, major, *_) = held.split("-"), wanted.split("-")
        if was == major:
            of = "Alpine's" if alpine else "Debian's"
            yield Problem(
                "images.postgres",
                f"does not fit the data in the volume {volume}, which was made under {of} PostgreSQL. "
                "Alpine's C library sorts text otherwise than Debian's: the same indexes would find some things no more, and others twice. "
                "Set it back; to change over, dump the databases under the old image and restore them into a new volume.",
                situation.images.postgres,
            )
            continue
        message = (
            f"does not fit the data in the volume {volume}, which PostgreSQL {was} wrote. Another major version "
            "cannot read it: set it back; to upgrade, dump the databases with the old version and restore them into a new volume."
        )
        yield Problem(path, message, major)


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


def start_limits(situation: Situation) -> dict[str, int]:
    """How many seconds each container that may upgrade its data at a start has for it, by the container's name."""
    settings, prefix = situation.settings, situation.prefix
    database = {f"{prefix}-{names.DB_HOST}": settings.index_db.start_timeout} if settings.index_nodes else {}
    return database | {f"{prefix}-{node.name}": node.start_timeout for node in settings.nodes}


def await_starts(limits: Mapping[str, int], docker: Sequence[str], say: Callable[[str], None]) -> str | None:
    """Wait for containers that are starting, each for as long as it has: `up` might replace one in the middle of an upgrade.

    A container that ended and was started again has failed, and is not waited for.

    Args:
        limits: how many seconds each container has, by its name; those that are not there, or serve, are not waited for.
        docker: the docker command.
        say: shows the user a line.

    Returns:
        what to do about one that is starting still; None where there is none.
    """
    begun = time.monotonic()
    told: set[str] = set()
    while waited_for := engines.starting(limits, docker):
        for name in sorted(waited_for - told):
            say(f"{name} is still starting: waiting {limits[name]} s at most, so as not to end an upgrade of its data in the middle.")
        told |= waited_for
        if late := sorted(name for name in waited_for if time.monotonic() > begun + limits[name]):
            return (
                f"{late[0]} is still starting after another {limits[late[0]]} s. Nothing was touched. What it does: docker logs {late[0]}\n"
                "If it is at work, leave it alone: the next `up` waits again; a longer startTimeout in the stack file interrupts nothing. "
                f"If it hangs: docker stop {late[0]}, and the next `up` makes it anew."
            )
        time.sleep(1)
    return None
