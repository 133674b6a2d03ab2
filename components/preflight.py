"""What is checked against the stack's state, the engine and this machine before a resource is touched: data that is lost or another
stack's, ports that are taken, containers that are still starting.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

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

_WHOSE = """It may hold patients' images, and is left alone.
      - This very stack, deployed from another checkout or login: use its state, by the same `pulumi login` or a copy of its .pulumi-state/.
      - Another stack's: copy this stack file to another name; or, if this node was never deployed, give it another name.
      - Its state is lost, and nothing else uses it: take it over, by orthanc-stack:adopt: [{volume}] in the stack file, for
        as long as it is used."""
_LOST = """Its images are lost unless there is a backup: restore that first, into a volume of
      that name and with its labels (`./orthanc-stack drift STACK` shows what is missing). To go on without them, let the state
      forget it, then deploy:
          eval "$(./orthanc-stack env STACK)"      and      pulumi refresh"""
#: Why a node, or the database, must not use its volume.
_GONE = f"had the volume {{volume}}, which is gone from the engine. {_LOST}"
_MADE_ANEW = f"had the volume {{volume}}, which is gone; one of that name was made anew. {_LOST}"
_ANOTHERS = f"needs the volume {{volume}}, which another state made ({{owner}}). {_WHOSE}"
_UNKNOWN = f"needs the volume {{volume}}, which this stack's state does not hold. {_WHOSE}"
#: Why its data does not fit the stack file.
_OTHER_INDEX = (
    "does not fit the volume {volume}, whose index is in {held}: its images would stay on the disk and not be found. "
    "Set it back; to change over, add a node with another name and send the images to it."
)
_OTHER_SORTING = (
    "does not fit the data in the volume {volume}, which was made under {libc}'s PostgreSQL. Alpine's C library sorts text otherwise than "
    "Debian's: with the same indexes, a search would miss some entries and find others twice. Set it back; to change over, dump the "
    "databases under the old image and restore them into a new volume."
)
_OTHER_VERSION = (
    "does not fit the data in the volume {volume}, which PostgreSQL {was} wrote. Another major version cannot read it: set it back. To "
    "upgrade to the next one: ./orthanc-stack upgrade-db STACK"
)
_SWITCHED = (
    "is not the volume in use, which is {used}: the nodes would not find their images in {wanted}. Only `./orthanc-stack upgrade-db STACK` "
    "changes over, and goes on where it was broken off; with --undo, it goes back. If you changed it by hand, set it back."
)
#: Why a port cannot be bound. Other errors do not count: ports below 1024 are for the engine to bind, not for this program.
_UNBOUND = {
    errno.EADDRINUSE: (
        "is taken on this host, at {address}, by something outside this stack. See what it is (ss -ltnp 'sport = :{port}'), or set "
        "another port. A node of this stack that is no longer in the stack file, or had another name, holds its ports until it is gone."
    ),
    errno.EADDRNOTAVAIL: "cannot be bound: {address} is not an address of this host. Correct bind.",
    errno.EAFNOSUPPORT: "cannot be bound: this host has no IPv6, and {address} is an address of it. Correct bind.",
}


@dataclass(frozen=True)
class Situation:
    """Where a stack is deployed, and what exists of it already. A part is a node, or the database, by name."""

    settings: StackSettings
    prefix: str  #: What its physical names begin with.
    first_prefix: str = ""  #: What they began with before 2026-12; another one where the stack's name has a hyphen.
    held: Held = field(default_factory=Held)  #: What its state holds.
    engine: Engine = field(default_factory=Engine)  #: What the engine holds.

    @property
    def keeps_data(self) -> bool:
        """Whether the data volumes are protected, and stay on the engine when the stack goes."""
        return self.settings.is_prod or (self.held.keeps_data and not self.settings.release_data)

    @cached_property
    def images(self) -> ImageChoice:
        """The images to run."""
        return choose(self.settings.images, self.engine.images, self.settings.index_db.major_version)

    @property
    def data_parts(self) -> dict[str, tuple[str, str]]:
        """The parts with a data volume, in order: the path of the setting that the data must fit, and the format that it means."""
        settings = self.settings
        parts: dict[str, tuple[str, str]] = {node.name: (f"nodes[{i}].index", node.index) for i, node in enumerate(settings.nodes)}
        if settings.index_nodes:
            wanted = names.postgresql_format(settings.index_db.major_version, alpine=is_alpine(self.images.postgres))
            parts[names.DB_HOST] = ("indexDb.majorVersion", wanted)
        return dict(sorted(parts.items()))

    def keeps(self, part: str) -> bool:
        """Whether the data volume of a part is protected: one that the stack file adopts is, too."""
        return self.keeps_data or self.volume_of(part) in self.settings.adopt

    def logical_of(self, part: str) -> str:
        """The logical name of the data volume of a part."""
        return f"{self.settings.index_db.volume if part == names.DB_HOST else part}-data"

    @property
    def spare_volumes(self) -> dict[str, str]:
        """Volumes of the database's that are not in use, logical names and names: kept until an upgrade is confirmed."""
        used = self.logical_of(names.DB_HOST)
        return {logical: name for logical, name in self.held.index_volumes.items() if logical != used}

    def holds(self, part: str) -> bool:
        """Whether the state holds the data volume of a part."""
        return self.logical_of(part) in self.held.volumes

    def first_volume_of(self, part: str) -> str:
        """The name that the data volume of a part had before 2026-12."""
        return f"{self.first_prefix}-{part}"

    def volume_of(self, part: str) -> str:
        """The name of the data volume of a part: the one that it has, or the one that it gets."""
        first = self.first_volume_of(part)
        own = f"{self.prefix}-{self.logical_of(part).removesuffix('-data')}"
        return self.held.volumes.get(self.logical_of(part), first if first in self.settings.adopt else own)

    def passes_over(self, part: str) -> bool:
        """Whether the state has lost a part's volume from before 2026-12: the part would begin with an empty one."""
        first = self.first_volume_of(part)
        found = self.engine.volumes.get(first)
        if found is None or self.holds(part) or first == self.volume_of(part):
            return False
        return not found.owner and found.stack == self.first_prefix

    def host_of(self, address: str) -> str:
        """Where a port that is bound to an address of the engine's machine is reached."""
        return reached_at(address, self.engine.host)

    def is_own(self, part: str, found: Volume) -> bool:
        """Whether a volume that exists is this stack's: by its owner label.

        Without that label it is this stack's only if the state holds it, and has never seen a label on it: it is from before there were
        owners. One that had a label was lost, and a volume of its name was made anew.
        """
        if found.owner:
            return found.owner == self.held.owner
        return self.holds(part) and self.volume_of(part) not in self.held.labelled

    def warnings(self) -> Iterator[str]:
        """Data of a stack that was prod and is no longer protected; addresses that open on the engine's machine alone."""
        settings, host = self.settings, self.engine.host
        if self.held.keeps_data and not settings.is_prod:
            volumes = ", ".join(sorted(self.held.volumes.values()))
            yield (
                "releaseData: the data volumes are no longer protected. After this run, `pulumi destroy`, and a node that is removed from "
                f"the stack file, delete patients' images: {volumes}."
                if settings.release_data
                else f"environment is dev, and the stack was prod: its data volumes stay protected ({volumes}). releaseData: true in the "
                "stack file gives them up."
            )
        bound = {settings.bind_of(part) for part in (*settings.nodes, settings.adminer) if part}
        if host and (loopback := sorted(filter(is_loopback, bound))):
            yield (
                f"The engine is at {host}, and ports are bound to {', '.join(loopback)} there: these addresses open on that machine alone. "
                f"For others, set bind; for yourself, ssh -L <port>:{loopback[0]}:<port> {host}"
            )


def look(loaded: Loaded, config: Mapping[str, str]) -> Situation:
    """Find out where a stack is deployed, and whether it can be, by its stack file and all the configuration that Pulumi hands over.

    Raises:
        SettingsError: the stack cannot be deployed as it is. No resource was touched.
    """
    stack, docker, settings = pulumi.get_stack(), docker_command(config), loaded.settings
    project = pulumi.get_project()
    situation = Situation(settings, names.prefix(stack, project), f"{project}-{stack}", _read_state())
    parts = [*(part for node in settings.nodes for part in (node.name, names.forwarder_of(node.name))), names.ADMINER]
    logical = (*(f"{part}-container" for part in parts), names.DB_ROLES)
    containers = [identifier for name in logical if (identifier := situation.held.containers.get(name))]
    first = (situation.first_volume_of(part) for part in situation.data_parts if not situation.holds(part))
    volumes = sorted({*map(situation.volume_of, situation.data_parts), *settings.adopt, *first})
    situation = replace(
        situation, engine=engines.inspect(docker, candidates(settings.index_db.major_version), containers, volumes, situation.held.owner)
    )
    if problems := check(loaded.parts, situation, docker):
        raise SettingsError(report(problems, stack_file_name(stack)))
    if not pulumi.runtime.is_dry_run() and (refusal := await_starts(start_limits(situation), docker, pulumi.log.info)):
        raise SettingsError(refusal)
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
        hint = "Start it (or: ./orthanc-stack up STACK), or point DOCKER_HOST or docker:host to the one to use."
        return [Problem("the Docker engine", f"is not reached: {engine.error}\n      {hint}")]
    problems = list(_switched(situation)) or list(_owners(situation, docker)) or list(_formats(situation))
    wanted = {*candidates(situation.settings.index_db.major_version)}
    if situation.settings.images.source == "local" and (missing := sorted(wanted - engine.images)):
        message = f"needs images that the engine does not hold: {', '.join(missing)}. Build them: ./orthanc-stack images STACK"
        problems.append(Problem("images.source", message, "local"))
    if engine.local:
        problems += [problem for port in host_ports(parts) if port.port not in engine.ports and (problem := _try_port(port))]
    return problems


def _switched(situation: Situation) -> Iterator[Problem]:
    """Another volume for the database than the one that it has: it would be empty, or out of date."""
    held, wanted = situation.held, situation.volume_of(names.DB_HOST)
    spare = [] if situation.holds(names.DB_HOST) else [*situation.spare_volumes.values()]
    used = next(filter(None, (held.index_volume, *spare)), wanted)
    if names.DB_HOST in situation.data_parts and used != wanted and os.environ.get(names.FILLED) != wanted:
        yield Problem("indexDb.volume", _SWITCHED.format(used=used, wanted=wanted), situation.settings.index_db.volume)


def _owners(situation: Situation, docker: Sequence[str]) -> Iterator[Problem]:
    """Volumes of other stacks, whose images would be shown here and deleted with this one; own volumes that are lost, each of which an
    empty one would replace.
    """
    volumes = situation.engine.volumes
    adopted = [volume for volume in situation.settings.adopt if volume in volumes]
    if adopted and (users := engines.users_of(adopted, docker, situation.held.containers.values())):
        message = f"takes over {', '.join(adopted)}, which {', '.join(users)} still uses. Remove that first: docker rm -f"
        yield Problem("adopt", message, list(adopted))
    own = {part: situation.volume_of(part) for part in situation.data_parts}
    if unknown := sorted({*adopted} - {*own.values(), *situation.spare_volumes.values()}):
        known = ", ".join(sorted(own.values()))
        message = f"names a volume that no part of this stack has: {', '.join(unknown)}. Its volumes are {known}. Leave it out."
        yield Problem("adopt", message, unknown)
    for part, (path, _) in situation.data_parts.items():
        place = "indexDb" if part == names.DB_HOST else f"{path.partition('.')[0]}.name"
        if situation.passes_over(part):
            yield Problem(place, _UNKNOWN.format(volume=situation.first_volume_of(part)), part)
        found, held = volumes.get(own[part]), situation.holds(part)
        if own[part] in adopted or (situation.is_own(part, found) if found else not held):
            continue
        message = _GONE if not found else _ANOTHERS if found.owner else _MADE_ANEW if held else _UNKNOWN
        yield Problem(place, message.format(volume=own[part], owner=found.owner if found else ""), part)


def _formats(situation: Situation) -> Iterator[Problem]:
    """Data that cannot be read as the stack file has it."""
    for part, (path, wanted) in situation.data_parts.items():
        volume = situation.volume_of(part)
        held = situation.engine.volumes.get(volume, Volume()).format or wanted
        (was, _, libc), (major, _, _) = (data_format.removeprefix("postgresql-").partition("-") for data_format in (held, wanted))
        place, message, value = path, _OTHER_VERSION, major
        if part != names.DB_HOST:
            message, value = _OTHER_INDEX, wanted
        elif was == major:
            place, message, value = "images.postgres", _OTHER_SORTING, situation.images.postgres
        if held != wanted:
            yield Problem(place, message.format(volume=volume, held=held, was=was, libc=libc.capitalize() or "Debian"), value)


def _try_port(wanted: HostPort) -> Problem | None:
    """Try to bind a port as the engine would, and let go of it at once."""
    family = socket.AF_INET6 if ":" in wanted.address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            attempt.bind((wanted.address, wanted.port))
    except OSError as error:
        if message := _UNBOUND.get(error.errno or 0):
            return Problem(wanted.path, message.format(address=wanted.address, port=wanted.port), wanted.port)
    return None


def start_limits(situation: Situation) -> dict[str, int]:
    """How many seconds each container that may upgrade its data at a start has for it, by the container's name."""
    settings, prefix = situation.settings, situation.prefix
    database = {f"{prefix}-{names.DB_HOST}": settings.index_db.start_timeout} if settings.index_nodes else {}
    return database | {f"{prefix}-{node.name}": node.start_timeout for node in settings.nodes}


def await_starts(limits: Mapping[str, int], docker: Sequence[str], say: Callable[[str], None]) -> str | None:
    """Wait for containers that are starting, by name with the most seconds for each: `up` might replace one during an upgrade of its data.

    A container that ended and was started again has failed, and is not waited for. Returns what to do about a container that is still
    starting; None where there is none.
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
