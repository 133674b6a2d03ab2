"""One-shot containers on the stack's engine: restic, and helpers beside a node's data. The engine may be another machine's."""

import contextlib
import io
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Final

from docker.models.containers import Container as Handle
from docker.types import LogConfig, Mount

from configs.names import BACKUP, LABEL_ROLE, LABEL_STACK, backup_volume
from ops.setup.console import SetupError
from ops.stack.engine import client, engine_errors

#: Where the files are that a container is given. No argument, and no variable, ever holds a secret: everybody on the machine reads those.
FILES: Final = "/run/orthanc-stack"
#: What one that is ended gets to end in good order: restic takes its lock off the repository.
_GRACE_SECONDS: Final = 20
_CHUNK: Final = 1 << 20


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


def remove_left(prefix: str) -> None:
    """Remove what a run that was killed has left running."""
    with engine_errors():
        for one in client().containers.list(all=True, filters={"label": [f"{LABEL_STACK}={prefix}", f"{LABEL_ROLE}={BACKUP}"]}):
            _end(one)


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
