"""One-shot containers on the stack's engine: restic, and helpers beside a node's data. The engine may be another machine's."""

import contextlib
import io
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from docker.errors import NotFound
from docker.models.containers import Container as Handle
from docker.models.networks import Network
from docker.models.volumes import Volume
from docker.types import LogConfig, Mount

from configs.names import BACKUP, LABEL_ROLE, LABEL_STACK, PROJECT, backup_volume, prefix
from configs.problems import visible
from ops.setup.console import SetupError
from ops.stack.engine import client, engine_errors
from ops.stack.stack import Stack

#: Where the files are that a container is given. No argument, and no variable, ever holds a secret: everybody on the machine reads those.
FILES: Final = "/run/orthanc-stack"
#: What one that is ended gets to end in good order: restic takes its lock off the repository.
_GRACE_SECONDS: Final = 20
_CHUNK: Final = 1 << 20
#: On the container that holds the lock: whose run it is.
_BY: Final = f"{PROJECT}.run"
#: On the volume that marks the second stack of a drill: the folder of its program. What the names of such folders begin with.
_DRILL: Final = f"{PROJECT}.drill"
DRILL_FOLDER: Final = f"{PROJECT}-drill-"
#: Within how many seconds the lock of a run that was killed is gone, on a busy machine.
_GONE_SECONDS: Final = 10


@dataclass(frozen=True)
class Done:
    """How a one-shot container ended."""

    status: int
    out: str
    errors: str


@dataclass(frozen=True)
class OneShot:
    """A container to run once."""

    image: str
    command: Sequence[str]
    prefix: str  #: of the stack
    mounts: Sequence[Mount] = ()
    files: Mapping[str, bytes] | None = None  #: by their names in FILES
    environment: Mapping[str, str] | None = None
    network: str = "none"
    capabilities: Sequence[str] = ()  #: those of root's that it keeps
    entrypoint: Sequence[str] | None = None
    stop_signal: str = "SIGTERM"

    def run(self) -> Done:
        """Run it to its end."""
        with self.made() as made, engine_errors():
            made.start()
            status = int(made.wait(timeout=None)["StatusCode"])
            return _done(made, status)

    @contextlib.contextmanager
    def fed(self) -> Iterator[tuple[Handle, subprocess.Popen[bytes], IO[bytes]]]:
        """Start it with an input: the container, the process that feeds it, and what to write to.

        By the docker command: Docker's SDK has no way to close a command's input over every kind of connection (docker/docker-py#983).
        """
        with self.made(stdin=True) as made:
            command = ["docker", "start", "--attach", "--interactive", str(made.id)]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                assert process.stdin is not None
                try:
                    yield made, process, process.stdin
                except BaseException:
                    # It is told before its input ends: restic would make a snapshot of what it has read so far. And it heeds that when
                    # its input has ended.
                    with contextlib.suppress(SetupError), engine_errors():
                        made.kill("SIGTERM")
                    time.sleep(1)
                    with contextlib.suppress(OSError):
                        process.stdin.close()
                    _end(made)
                    raise

    def run_with(self, source: Iterator[bytes]) -> Done:
        """Run it to its end on an input, which must be read without an error."""
        with self.fed() as (made, process, inlet):
            # Where it ends early, what is the matter is in its status.
            with contextlib.suppress(BrokenPipeError):
                for chunk in source:
                    inlet.write(chunk)
                inlet.close()
            process.wait()
            with engine_errors():
                return _done(made, int(made.wait(timeout=None)["StatusCode"]))

    def stream(self) -> Iterator[bytes]:
        """Run it, and pass on what it prints, of which no log is kept. A SetupError after that, where it failed."""
        with self.made(kept=False) as made:
            yield from output("start", "--attach", str(made.id), what=" ".join(self.command))

    @contextlib.contextmanager
    def made(self, *, stdin: bool = False, kept: bool = True) -> Iterator[Handle]:
        """The container, not started; gone afterwards."""
        with engine_errors():
            made = client().containers.create(
                self.image,
                list(self.command),
                entrypoint=list(self.entrypoint) if self.entrypoint else None,
                environment=dict(self.environment or {}),
                mounts=list(self.mounts),
                network_mode=self.network,
                cap_drop=["ALL"],
                cap_add=[f"CAP_{one}" for one in self.capabilities],
                security_opt=["no-new-privileges:true"],
                labels={LABEL_STACK: self.prefix, LABEL_ROLE: BACKUP},
                # All that it prints is read, whatever the engine does with logs by default.
                log_config=LogConfig(type=LogConfig.types.JSON if kept else "none"),
                stdin_open=stdin,
                # Docker refuses one in another container's network (runconfig, ErrConflictContainerNetworkAndHostname).
                hostname=None if self.network.startswith("container:") else BACKUP,
                stop_signal=self.stop_signal,
                user="0",
            )
        try:
            if self.files:
                with engine_errors():
                    made.put_archive("/", _tar(self.files))
            yield made
        finally:
            _end(made)


def _done(made: Handle, status: int) -> Done:
    out, errors = (made.logs(stdout=out, stderr=not out).decode(errors="replace") for out in (True, False))
    return Done(status, out, errors)


def _end(made: Handle) -> None:
    # It may have gone already: ended once before, or removed by hand.
    with contextlib.suppress(SetupError), engine_errors():
        made.stop(timeout=_GRACE_SECONDS)
    with contextlib.suppress(SetupError), engine_errors():
        made.remove(force=True, v=True)


def _tar(files: Mapping[str, bytes]) -> bytes:
    """The files for a container, which only root reads."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        folder = tarfile.TarInfo(FILES.lstrip("/"))
        folder.type, folder.mode = tarfile.DIRTYPE, 0o700
        tar.addfile(folder)
        for name, content in sorted(files.items()):
            info = tarfile.TarInfo(f"{FILES}/{name}".lstrip("/"))
            info.size, info.mode = len(content), 0o600
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


@contextlib.contextmanager
def alone_on_engine(prefix: str, image: str, what: str) -> Iterator[None]:
    """Let one run at a time work on a stack's backups, whichever user and machine it is of. A SetupError, with `what`, for the others.

    A container with a name that the engine gives once holds the lock. It ends with its input, which ends with this process, however that
    ends; the engine then removes it. `image` is one that the engine has.
    """
    name = lock_name(prefix)
    labels = {
        LABEL_STACK: prefix,
        LABEL_ROLE: BACKUP,
        _BY: f"{os.environ.get('LOGNAME', os.getuid())} on {socket.gethostname()}, process {os.getpid()}",
    }
    options = ("--rm", "--interactive", f"--name={name}", *(f"--label={key}={value}" for key, value in labels.items()))
    confined = ("--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--log-driver=none", "--entrypoint=cat")
    command = ["docker", "run", *options, *confined, image]
    end = time.monotonic() + _GONE_SECONDS
    while True:
        # In a session of its own: the interrupt of a terminal does not end it before the work.
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(b"\n")
                process.stdin.flush()
            if process.stdout.readline():
                yield
                return
            said = process.stderr.read().decode(errors="replace").strip()
        if "is already in use" not in said:
            raise SetupError(f"the Docker engine: {said}")
        # That of a run that was killed goes in a moment.
        if time.monotonic() > end:
            raise SetupError(f"{what}, by {_holder(name)}: wait for its end. If its machine has died meanwhile: docker rm --force {name}")
        time.sleep(0.5)


def _holder(name: str) -> str:
    try:
        with engine_errors():
            return visible(str(client().containers.get(name).labels.get(_BY, "another")))
    except SetupError:
        return "another, which has just ended"


def lock_name(prefix: str) -> str:
    """The container that holds the lock. No node's has such a name: it has a dot after the stack's."""
    return backup_volume(prefix, "lock")


def remove_left(prefix: str) -> None:
    """Remove what a run that was killed has left running. Only for who has the lock."""
    with engine_errors():
        ours: dict[str, Any] = {"label": [f"{LABEL_STACK}={prefix}", f"{LABEL_ROLE}={BACKUP}"]}
        for one in client().containers.list(all=True, filters=ours, ignore_removed=True):
            if one.name != lock_name(prefix):
                _end(one)


def drill_of(stack: Stack) -> str:
    """The name of the second stack that a drill makes of a stack."""
    return f"{stack.short}.drill"


def mark_drill(stack: Stack, folder: str) -> None:
    """Note on the engine that a drill makes its second stack, from this folder. A SetupError where a user's stack has that name."""
    second = prefix(drill_of(stack))
    with engine_errors():
        if found := _all_of(second):
            names = ", ".join(str(one.name) for one in found)
            raise SetupError(f"nothing was made: a drill has the name {drill_of(stack)}, and so has a stack on this engine: {names}.")
        client().volumes.create(_mark(second), labels={LABEL_STACK: second, _DRILL: folder})


def remove_drill(stack: Stack) -> None:
    """Remove the second stack of a drill that was killed, with its images, and its folder. Only for who has the lock."""
    second = prefix(drill_of(stack))
    with engine_errors():
        try:
            mark = client().volumes.get(_mark(second))
        except NotFound:
            return
        # First: a pulumi that has outlived the drill makes nothing more without its state.
        folder = Path((mark.attrs.get("Labels") or {}).get(_DRILL, ""))
        if folder.name.startswith(DRILL_FOLDER):
            shutil.rmtree(folder, ignore_errors=True)
        for one in _all_of(second):
            if one.name != mark.name:
                one.remove(**({"force": True, "v": True} if isinstance(one, Handle) else {}))
        # Last: it says whose the others are.
        mark.remove()


def _mark(second: str) -> str:
    return backup_volume(second, "drill")


def _all_of(prefix: str) -> list[Handle | Network | Volume]:
    """All that has the label of a stack, in an order in which it can be removed."""
    ours: dict[str, Any] = {"label": f"{LABEL_STACK}={prefix}"}
    containers, networks, volumes = client().containers, client().networks, client().volumes
    return [*containers.list(all=True, filters=ours, ignore_removed=True), *networks.list(filters=ours), *volumes.list(filters=ours)]


def volume(name: str, at: str, *, read_only: bool = True) -> Mount:
    """A volume of the engine's, at a place in the container."""
    return Mount(at, name, type="volume", read_only=read_only)


def scratch(prefix: str, what: str, at: str) -> Mount:
    """A volume of a stack's backups, made if it is missing."""
    return Mount(at, backup_volume(prefix, what), type="volume", labels={LABEL_STACK: prefix})


def output(*arguments: str, what: str) -> Iterator[bytes]:
    """What the docker command prints, in chunks. A SetupError after it, where it failed."""
    with subprocess.Popen(["docker", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            while chunk := process.stdout.read(_CHUNK):
                yield chunk
        except GeneratorExit:
            process.kill()  # nobody reads the rest, and it would wait for that
            raise
        said = process.stderr.read().decode(errors="replace").strip()
    if process.returncode != 0:
        raise SetupError(f"`{what}` failed (exit status {process.returncode}): {said[-2000:]}")


def feed(source: Iterator[bytes], *arguments: str, what: str) -> None:
    """Give the docker command an input. A SetupError where it fails, or the input cannot be read to its end."""
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(["docker", *arguments], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said) as process:
            assert process.stdin is not None
            try:
                # Where it ends early, its status says what is the matter.
                with contextlib.suppress(BrokenPipeError):
                    for chunk in source:
                        process.stdin.write(chunk)
                    process.stdin.close()
            except BaseException:
                process.kill()
                raise
        said.seek(0)
        if process.returncode != 0:
            raise SetupError(f"{what} failed (exit status {process.returncode}): {said.read().decode(errors='replace')[-2000:].strip()}")
