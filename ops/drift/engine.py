"""What the engine holds of a stack. Everything here only reads."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final, cast

from configs.names import LABEL_STACK
from ops.drift.deployed import Deployed
from ops.setup.console import SetupError
from ops.stack.containers import Docker

#: No file of a stack is near it; what somebody put in its place is not read.
_LARGEST_FILE: Final = 16 << 20
#: What `docker cp` says of a path that is not there: engines up to 22, and from 23 on.
_ABSENT: Final = ("No such container:path", "Could not find the file")
#: A command line has a limit.
_AT_ONCE: Final = 100


@dataclass(frozen=True)
class Held:
    """A file inside a container.

    Attributes:
        content: its bytes; None where it is no file, or far too large for one of ours.
        mode: its permissions.
        owner: its owner's number.
    """

    content: bytes | None
    mode: int
    owner: int


#: Reads files out of a container: the container's identifier, their paths -> the files that are there, by path.
ReadFiles = Callable[[str, Collection[str]], Mapping[str, Held]]


@dataclass(frozen=True)
class Engine:
    """What the engine holds, as `docker inspect` shows it.

    Attributes:
        containers: by identifier: those that the state knows, those that have their names or the stack's label.
        networks: by identifier, likewise.
        volumes: by name: those that the state knows.
        images: by what the state and the containers call them: a name or an identifier.
        limits_swap: whether it can limit swap; where not, a limit is read back as none.
    """

    containers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    networks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    volumes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    images: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    limits_swap: bool = True

    def container_named(self, name: str) -> Mapping[str, Any] | None:
        """The container of a name."""
        return next((one for one in self.containers.values() if name_of(one) == name), None)

    def network_named(self, name: str) -> Mapping[str, Any] | None:
        """The network of a name."""
        return next((one for one in self.networks.values() if one["Name"] == name), None)


def name_of(container: Mapping[str, Any]) -> str:
    """A container's name."""
    return str(container["Name"]).removeprefix("/")


def look(docker: Docker, deployed: Iterable[Deployed], prefix: str) -> Engine:
    """Ask the engine for all that a stack's state knows, and for what bears the stack's names or label without being known."""
    known = {kind: [one for one in deployed if one.kind == kind] for kind in ("container", "network", "volume", "image")}
    label = ["--filter", f"label={LABEL_STACK}={prefix}"]
    containers = _inspect(docker, "container", _wanted(docker, ["ps", "--all"], "{{.ID}} {{.Names}}", label, known["container"]))
    networks = _inspect(docker, "network", _wanted(docker, ["network", "ls"], "{{.ID}} {{.Name}}", label, known["network"]))
    there = set(docker(["volume", "ls", "--quiet"]).split())
    volumes = _inspect(docker, "volume", sorted(one.name for one in known["volume"] if one.name in there))
    wanted = {one.name for one in known["image"]} | {str(one["Image"]) for one in containers}
    return Engine(
        {str(one["Id"]): one for one in containers},
        {str(one["Id"]): one for one in networks},
        {str(one["Name"]): one for one in volumes},
        {name: found for name in sorted(wanted) if (found := _image(docker, name))},
        docker(["info", "--format", "{{.SwapLimit}}"]).strip() != "false",
    )


def _wanted(docker: Docker, listing: Sequence[str], shown: str, label: Sequence[str], known: Sequence[Deployed]) -> list[str]:
    """The identifiers of what the state knows, by identifier or by name, and of what has the label."""
    everything = [line.split(" ", 1) for line in docker([*listing, "--no-trunc", "--format", shown]).splitlines()]
    labelled = {line.split(" ", 1)[0] for line in docker([*listing, "--no-trunc", *label, "--format", shown]).splitlines()}
    ids, names = {one.id for one in known}, {one.name for one in known}
    return sorted(identifier for identifier, name in everything if identifier in ids | labelled or name in names)


def _inspect(docker: Docker, kind: str, wanted: Sequence[str]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    for start in range(0, len(wanted), _AT_ONCE):
        found += json.loads(docker([kind, "inspect", *wanted[start : start + _AT_ONCE]]))
    return found


def _image(docker: Docker, name: str) -> Mapping[str, Any] | None:
    try:
        found: Mapping[str, Any] = json.loads(docker(["image", "inspect", name]))[0]
    except SetupError as error:
        if "No such image" not in str(error):
            raise
        return None
    return found


def file_reader(command: Sequence[str]) -> ReadFiles:
    """What reads files out of containers, running or not, by `docker cp`; the command is docker, with its options.

    No program of the container is run for it, which could not read a secret, nor be trusted.
    """

    def read(container: str, paths: Collection[str]) -> dict[str, Held]:
        found: dict[str, Held] = {}
        for path, inside in _copies(paths).items():
            found |= _read(command, container, path, inside)
        return found

    return read


def _copies(paths: Collection[str]) -> dict[str, set[str]]:
    """What to copy: a folder of which several files are wanted, once; else the file."""
    folders: dict[str, set[str]] = {}
    for path in sorted(paths):
        folders.setdefault(str(PurePosixPath(path).parent), set()).add(path)
    return {folder if len(inside) > 1 else next(iter(inside)): inside for folder, inside in folders.items()}


def _read(command: Sequence[str], container: str, path: str, wanted: set[str]) -> dict[str, Held]:
    """Some files of one `docker cp`, which writes a TAR archive whose names begin with the last part of the path."""
    copy = [*command, "cp", f"{container}:{path}", "-"]
    with subprocess.Popen(copy, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        found, broken = cast("dict[str, Held]", {}), ""
        above = PurePosixPath(path).parent
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for member in archive:
                    if (name := str(above / member.name)) in wanted:
                        found[name] = _held(archive, member)
        except tarfile.ReadError as error:
            # Nothing came, or not all: the command says why.
            broken = str(error)
        while process.stdout.read(1 << 16):
            pass  # the archive's padding, so that the command ends well
        said = process.stderr.read().decode(errors="replace").strip() or broken
    if (process.returncode == 0 and not broken) or any(absent in said for absent in _ABSENT):
        return found
    raise SetupError(f"`docker cp {container[:12]}:{path}` failed: {said}")


def _held(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Held:
    content = archive.extractfile(member) if member.isfile() and member.size <= _LARGEST_FILE else None
    return Held(content.read() if content else None, member.mode & 0o7777, member.uid)
