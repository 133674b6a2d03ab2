"""What a deployed stack keeps, node by node, and how an index is read while its node works."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from docker.models.containers import Container as Handle

from configs.names import BACKUP, DB_HOST, DB_SUPERUSER, LABEL_ROLE, backup_volume
from ops.backup.oneshot import OneShot, output, scratch, volume
from ops.setup.console import SetupError
from ops.stack.engine import Container, client, containers_of, engine_errors
from ops.stack.stack import Stack

#: Where a helper finds a node's volume, and the volume with copies of indexes in SQLite.
DATA, INDEX = "/data", "/index"
#: The index in SQLite, in a node's volume.
INDEX_FILES: Final = ("index", "index-wal", "index-shm", "index-journal")
#: However this program ends, a node is not frozen for longer.
_FROZEN_AT_MOST: Final = 20
#: How often a copy is tried of an index whose node starts meanwhile.
_TRIES: Final = 5
#: Orthanc's own index numbers the types of resources from 1 (ResourceType, Enumerations.h), PostgreSQL's plugin from 0
#: (OrthancPluginResourceType, OrthancCPlugin.h): an instance is the fourth.
COUNT_POSTGRESQL: Final = "SELECT COUNT(*) FROM Resources WHERE resourceType = 3"
COUNT_SQLITE: Final = "SELECT COUNT(*) FROM Resources WHERE resourceType = 4"
#: The files are in the kernel's cache then, and copying them does not wait for the disk while the node is frozen.
_WARM: Final = f"cd {DATA}; cat {' '.join(INDEX_FILES)} > /dev/null 2>&1; mkdir -p {INDEX}/$0; cd {INDEX}/$0; rm -f {' '.join(INDEX_FILES)}"
_COPY: Final = f"cd {DATA}; for file in {' '.join(INDEX_FILES)}; do if [ -e $file ]; then cp -p $file {INDEX}/$0/ || exit 1; fi; done"
#: What is read is what SQLite makes of the copy: as after a power failure.
_SQLITE: Final = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchone())"
PSQL: Final = ("psql", "-h", "/var/run/postgresql", "-U", DB_SUPERUSER, "-AtXq", "--set=ON_ERROR_STOP=1", "-d")
_SNAPSHOT: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT pg_export_snapshot();\n"


@dataclass(frozen=True)
class NodeData:
    """What a node keeps."""

    name: str
    volume: str  #: with its images
    database: str  #: of its index; empty for one in SQLite
    image: str  #: the identifier of its image


def data_of(stack: Stack, outputs: Mapping[str, Any]) -> list[NodeData]:
    """The nodes of a deployed stack with these outputs, by name. A SetupError where nothing is deployed."""
    volumes = stack.held().volumes
    found = {one.part: one for one in containers_of(stack) if one.role == "node"}
    if not outputs.get("nodes"):
        raise SetupError(f"the stack {stack.name} is not deployed: `./orthanc-stack up {stack.name}` does that.")
    nodes = []
    for name, node in sorted(outputs["nodes"].items()):
        held = found.get(name)
        image = str(held.handle.attrs["Image"]) if held else str(outputs["images"]["orthanc"])
        nodes.append(NodeData(name, volumes[f"{name}-data"], str(node.get("indexDatabase") or ""), image))
    return nodes


def database_of(stack: Stack) -> Container:
    """The container of the stack's PostgreSQL, which runs. A SetupError where it does not."""
    for one in containers_of(stack):
        if one.part == DB_HOST and one.state == "running":
            return one
    raise SetupError(f"the database of the stack {stack.name} does not run: `./orthanc-stack up {stack.name}` starts it.")


@contextlib.contextmanager
def dumping(db: Container, database: str) -> Iterator[tuple[int, Iterator[bytes]]]:
    """One moment of a database: how many instances it lists, and its dump. A SetupError, in the middle of it, where it cannot be read."""
    command = ("exec", "--interactive", "--user", "postgres", db.name)
    psql = ["docker", *command, *PSQL, database]
    with subprocess.Popen(psql, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as session:
        assert session.stdin is not None
        assert session.stdout is not None
        try:
            session.stdin.write(f"{_SNAPSHOT}{COUNT_POSTGRESQL};\n".encode())
            session.stdin.flush()
            snapshot, count = (session.stdout.readline().decode().strip() for _ in range(2))
            if not count:
                raise SetupError(f"the database {database} cannot be read; see: docker logs --tail 30 {db.name}")
            options = ("-Fc", "-Z0", "--no-owner", f"--snapshot={snapshot}", database)
            dump = (*command, "pg_dump", "-h", "/var/run/postgresql", "-U", DB_SUPERUSER, *options)
            yield int(count), output(*dump, what=f"pg_dump {database}")
        finally:
            with contextlib.suppress(OSError):
                session.stdin.close()


@dataclass(frozen=True)
class FrozenIndex:
    """A copy of an index in SQLite, in the volume of such copies."""

    instances: int
    seconds: float  #: for which its node was frozen


@contextlib.contextmanager
def copies(stack: Stack) -> Iterator[None]:
    """A volume for copies of indexes; gone afterwards, because patients' names are in it."""
    try:
        yield
    finally:
        remove_copies(stack)


def remove_copies(stack: Stack) -> None:
    """Remove the copies of indexes."""
    remove_volume(backup_volume(stack.prefix, "index"))


def remove_volume(name: str) -> None:
    """Remove a volume, if there is one."""
    with contextlib.suppress(SetupError), engine_errors():
        client().volumes.get(name).remove()


def freeze(node: NodeData, prefix: str) -> FrozenIndex:
    """Copy the index of a node on SQLite; the node stands still as long as that takes.

    SQLite's write-ahead log lets nobody else read a consistent index: a node holds its lock as long as it runs. So index and log are copied
    in one moment, as a power failure would leave them, and SQLite recovers from that.
    """
    mounts = [volume(node.volume, DATA), scratch(prefix, "index", INDEX)]
    # As process 1, sleep heeds nothing else.
    options: dict[str, Any] = {"entrypoint": ["sleep"], "stop_signal": "SIGKILL"}
    helper = OneShot(node.image, ["3600"], prefix, mounts, capabilities=["DAC_OVERRIDE", "CHOWN", "FOWNER"], **options)
    with helper.made() as made, engine_errors():
        made.start()
        inside = Container(str(made.name), str(made.id), "", "running", handle=made)
        inside.run(["sh", "-c", _WARM, node.name])
        seconds = _copy(node, inside, ["sh", "-c", _COPY, node.name])
        # What an exec prints may get lost (seen once; moby#27289): then it is asked again.
        counts = (inside.run(["python3", "-c", _SQLITE, f"{INDEX}/{node.name}/index", COUNT_SQLITE]) for _ in range(_TRIES))
        count = next(filter(None, counts), None)
    if count is None:
        raise SetupError(f"the copy of the index of {node.name} cannot be read")
    return FrozenIndex(int(count), seconds)


def _copy(node: NodeData, helper: Container, command: list[str]) -> float:
    """Run the command that copies, with nobody at work on the volume; for how many seconds the node was frozen, 0 where it did not run.

    A SetupError where the node starts again and again. Whether it runs is looked at now and afterwards: it may have been started, or been
    replaced, since the backup began.
    """
    for _ in range(_TRIES):
        before = _users(node)
        for one in before:
            if one.status in ("running", "paused"):
                return _while_frozen(Container(str(one.name), str(one.id), "node", one.status, part=node.name, handle=one), helper, command)
        helper.run(command)
        if _starts(before) == _starts(_users(node)):
            return 0.0
    raise SetupError(f"{node.name} starts and ends again and again: its index cannot be copied. Mend the node, or stop it, first.")


def _users(node: NodeData) -> list[Handle]:
    """The containers that have the node's volume, other than our helpers."""
    with engine_errors():
        found = client().containers.list(all=True, filters={"volume": node.volume}, ignore_removed=True)
    return [one for one in found if one.labels.get(LABEL_ROLE) != BACKUP]


def _starts(containers: Sequence[Handle]) -> set[tuple[str, str]]:
    return {(str(one.id), str(one.attrs["State"]["StartedAt"])) for one in containers}


def _while_frozen(node: Container, helper: Container, command: list[str]) -> float:
    """Run a command in the helper while a node's processes stand still; for how many seconds."""
    watchdog = _pause(node)
    started = time.monotonic()
    try:
        helper.run(command)
    finally:
        with engine_errors():
            node.handle.unpause()
        # Not before: where that failed, the watchdog lets the node go.
        seconds = time.monotonic() - started
        _dismiss(watchdog)
    if seconds > _FROZEN_AT_MOST:
        raise SetupError(f"copying the index of {node.part} took over {_FROZEN_AT_MOST} s; its node was let go, and the copy is not whole.")
    return seconds


def _pause(node: Container) -> subprocess.Popen[bytes]:
    """Pause a container, again where the engine has just begun to call it paused (see _await_running).

    Returns a watchdog, which lets the container go after _FROZEN_AT_MOST seconds.
    """
    thaw, tries = f"sleep {_FROZEN_AT_MOST}; docker unpause {node.name}", 0
    while True:
        # Before the watchdog: its time is for the pause alone.
        _await_running(node)
        # In a session of its own: it outlives this program, if that is killed.
        watchdog = subprocess.Popen(
            ["sh", "-c", thaw], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            with engine_errors():
                node.handle.pause()
        except SetupError as error:
            tries += 1
            if tries == _TRIES or "already paused" not in str(error):
                raise  # the watchdog lets it go, if it was paused all the same
            _dismiss(watchdog)
        else:
            return watchdog


def _dismiss(watchdog: subprocess.Popen[bytes]) -> None:
    os.killpg(watchdog.pid, signal.SIGKILL)
    watchdog.wait()


def _await_running(node: Container) -> None:
    """Wait until the engine calls a node running. A SetupError where that takes too long: somebody else has paused it, or it has ended.

    Docker 20.10 calls a container paused for some two seconds after it was let go: containerd's events come late (ProcessEvent).
    """
    end = time.monotonic() + _FROZEN_AT_MOST + 5
    while True:
        with engine_errors():
            node.handle.reload()
        if node.handle.status == "running":
            return
        if time.monotonic() > end:
            way = f"docker unpause {node.name}" if node.handle.status == "paused" else f"see docker logs --tail 30 {node.name}"
            raise SetupError(f"{node.name} is {node.handle.status}, and not by this command: {way}")
        time.sleep(0.2)


def query(stack: Stack, node: NodeData, sql: str) -> Iterator[bytes]:
    """What a query of a node's index answers, in chunks: a line for each row, tabs between values. SQLite: of its copy."""
    if node.database:
        copy = f"COPY ({sql}) TO STDOUT"
        asked = ("exec", "--user", "postgres", database_of(stack).name, *PSQL, node.database, "-c", copy)
        yield from output(*asked, what=f"psql {node.database}")
        return
    script = "import sqlite3, sys\nfor row in sqlite3.connect(sys.argv[1]).execute(sys.argv[2]): print(*row, sep='\\t')"
    command = ["-c", script, f"{INDEX}/{node.name}/index", sql]
    mounts = [scratch(stack.prefix, "index", INDEX)]
    yield from OneShot(node.image, command, stack.prefix, mounts, entrypoint=["python3"], capabilities=["DAC_OVERRIDE"]).stream()
