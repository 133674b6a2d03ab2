"""restic, in one-shot containers: one repository, and what is asked of it."""

import json
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import quote, urlsplit

from docker.types import Mount

from ops.backup.oneshot import FILES, Done, OneShot, scratch
from ops.setup.console import SetupError, without_passwords

#: What restic's exit status means (restic's documentation, "Scripting", exit codes).
_SOME_UNREADABLE, _NO_REPOSITORY, _LOCKED, _WRONG_PASSWORD = 3, 10, 11, 12
#: It reads all files of a volume, whoever's they are, and writes as its repository's folder's owner.
READS: Final = ("DAC_OVERRIDE",)
#: It gives files back to their owners.
RESTORES: Final = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID")
#: The options of ssh (ssh_config(5)), which restic runs for SFTP: the key that it is given is tried alone, and the one host key accepted.
#: HostKeyAlias: known_hosts needs neither address nor port. LogLevel: a server's banner is no error of restic's. ServerAliveInterval: a
#: server that went down is noticed after three minutes. -E: ssh writes what is wrong to the container's log itself, because restic may end
#: before it has passed that on.
_SSH: Final = (
    f"-F none -i {FILES}/key -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=yes -o HostKeyAlias=backup "
    f"-o UserKnownHostsFile={FILES}/known_hosts -o GlobalKnownHostsFile=none -o LogLevel=ERROR -o ServerAliveInterval=60 -E /proc/1/fd/2"
)
_FOLDER: Final = "/repository"
#: restic would try for a quarter of an hour to reach a server that does not answer, to read a repository that is a file, or to write to a
#: folder where it cannot, and say nothing meanwhile.
_NO_FOLDER, _READ_ONLY, _NO_ANSWER = 81, 82, 124
_ANSWER_SECONDS: Final = 60
_IN_FOLDER: Final = f'[ -d {_FOLDER} ] || exit {_NO_FOLDER}; [ -w {_FOLDER} ] || exit {_READ_ONLY}; exec restic "$@"'


@dataclass(frozen=True)
class Saved:
    """What one `restic backup` did."""

    snapshot: str  #: its whole identifier
    size: int  #: bytes that are in it
    new: int  #: bytes that the repository grew by
    gone: int = 0  #: files that were deleted while it read


@dataclass(frozen=True)
class Repository:
    """A restic repository, and the engine whose containers work on it."""

    to: str  #: as the stack file has it
    image: str
    prefix: str  #: of the stack, whose cache it has, and whose name its snapshots carry
    password: str = field(repr=False)
    login: tuple[str, str] = field(default=("", ""), repr=False)  #: at its server; for SFTP, a private key
    host_key: str = ""  #: of an SFTP server

    def one_shot(
        self, *arguments: str, mounts: Sequence[Mount] = (), files: dict[str, bytes] | None = None, capabilities: Sequence[str] = READS
    ) -> OneShot:
        """restic, as a container. It has a network only for a repository that is on another machine."""
        folder, sftp = self.to.startswith("/"), self.to.startswith("sftp:")
        login = "[default]\naws_access_key_id={}\naws_secret_access_key={}\n".format(*self.login) if self.to.startswith("s3:") else ""
        held = {"password": self.password.encode(), "repository": self._address().encode(), "credentials": login.encode()}
        if sftp:
            # ssh reads no private key without an end of line.
            held |= {"key": f"{self.login[0].strip()}\n".encode(), "known_hosts": f"backup {self.host_key}\n".encode()}
        return OneShot(
            image=self.image,
            command=["--retry-lock=5m", *([f"--option=sftp.args={_SSH}"] if sftp else []), *arguments],
            entrypoint=["sh", "-c", _IN_FOLDER, "restic"] if folder else None,
            prefix=self.prefix,
            mounts=[scratch(self.prefix, "cache", "/cache"), *([Mount(_FOLDER, self.to, type="bind")] if folder else []), *mounts],
            files=held | (files or {}),
            environment={
                "RESTIC_REPOSITORY_FILE": f"{FILES}/repository",
                "RESTIC_PASSWORD_FILE": f"{FILES}/password",
                "AWS_SHARED_CREDENTIALS_FILE": f"{FILES}/credentials",
                "RESTIC_CACHE_DIR": "/cache",
                "RESTIC_PROGRESS_FPS": "0.01",  # its log would be full of it
                **{name: value for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY") if not folder and (value := os.environ.get(name))},
            },
            network="none" if folder else "bridge",
            capabilities=capabilities,
        )

    def _address(self) -> str:
        """The repository as restic has it, with the login of a REST server."""
        if self.to.startswith("/"):
            return _FOLDER
        if not self.to.startswith("rest:") or not self.login[0]:
            return self.to
        parts = urlsplit(self.to.removeprefix("rest:"))
        user, password = (quote(one, safe="") for one in self.login)
        return "rest:" + parts._replace(netloc=f"{user}:{password}@{parts.netloc}").geturl()

    def ask(self, *arguments: str, mounts: Sequence[Mount] = (), capabilities: Sequence[str] = READS) -> str:
        """Run restic; what it prints. A SetupError where it fails."""
        done = self._run(self.one_shot(*arguments, mounts=mounts, capabilities=capabilities))
        if done.status != 0:
            raise self.failure(done, arguments[0])
        return done.out

    def _run(self, one_shot: OneShot) -> Done:
        try:
            return one_shot.run()
        except SetupError as error:
            # What the engine says of a folder that it cannot mount: none is there, or its parent is a file.
            if "invalid mount config" in str(error):
                raise self.failure(Done(_NO_FOLDER, "", ""), "") from error
            raise

    def failure(self, done: Done, what: str) -> SetupError:
        """What to say where restic failed."""
        said = without_passwords("\n".join(_messages(done.errors)[-10:]))
        if done.status == _NO_REPOSITORY:
            return SetupError(f"there is no backup at {self.to}: no repository of restic's is there.")
        if done.status == _NO_FOLDER:
            return SetupError(
                f"backup.to (or --from): {self.to} is no folder of the engine's machine. Is its disk mounted? "
                f"Make the folder there (mkdir -p {shlex.quote(self.to)}), or name another one."
            )
        if done.status == _NO_ANSWER:
            return SetupError(
                f"backup.to (or --from): {self.to} did not answer within {_ANSWER_SECONDS} s, or with errors alone. Does the engine's "
                f"machine reach it? The last that restic says:\n{said}"
            )
        if "Host key verification failed" in done.errors:
            return SetupError(
                f"the server of {self.to} has another host key than backup.hostKey (or ORTHANC_BACKUP_HOST_KEY) says: "
                "it is another machine, or its key was changed. Ask its operator."
            )
        if "Permission denied (" in done.errors:
            return SetupError(f"the server of {self.to} refuses the private key in backupKey (or ORTHANC_BACKUP_KEY_FILE):\n{said}")
        if done.status == _READ_ONLY:
            return SetupError(
                f"backup.to (or --from): the folder {self.to} of the engine's machine cannot be written to by root: mount it for writing. "
                "A restore writes there as well: restic's lock."
            )
        if done.status == _WRONG_PASSWORD:
            return SetupError(f"the repository {self.to} has another password than backupPassword (or RESTIC_PASSWORD) says.")
        if done.status == _LOCKED:
            return SetupError(f"the repository {self.to} is locked: a run is at work on it, or died less than 30 minutes ago.")
        return SetupError(f"`restic {what}` on {self.to} ended with status {done.status}:\n{said}")

    def exists(self) -> bool:
        """Whether there is a repository. A SetupError where it does not answer, or has another password."""
        one_shot = self.one_shot("cat", "config", "--no-lock")
        if one_shot.entrypoint is None:
            one_shot = replace(one_shot, entrypoint=["timeout", str(_ANSWER_SECONDS), "restic"])
        done = self._run(one_shot)
        if done.status not in (0, _NO_REPOSITORY):
            raise self.failure(done, "cat config")
        return done.status == 0

    def ensure(self) -> bool:
        """Make the repository where there is none; whether it was made."""
        if self.exists():
            return False
        self.ask("init")
        return True

    def save(self, one_shot: OneShot, source: Iterator[bytes] | None = None) -> Saved:
        """Run one `restic backup`, on an input where there is one."""
        done = one_shot.run() if source is None else one_shot.run_with(source)
        errors = [line for line in _messages(done.errors) if "no such file or directory" not in line]
        # A file that was deleted between two looks at it is no failure: its image is no longer wanted.
        if done.status not in (0, _SOME_UNREADABLE) or (done.status == _SOME_UNREADABLE and errors):
            raise self.failure(done, "backup")
        summary = next(line for line in _json_lines(done.out) if line.get("message_type") == "summary")
        gone = done.errors.count('"message_type":"error"')
        return Saved(str(summary["snapshot_id"]), int(summary["total_bytes_processed"]), int(summary["data_added_packed"]), gone)

    def backup(self, *arguments: str, tags: Sequence[str], mounts: Sequence[Mount] = (), files: dict[str, bytes] | None = None) -> OneShot:
        """A `restic backup` under the stack's name, to be run by save()."""
        options = ["--json", f"--host={self.prefix}", *(f"--tag={tag}" for tag in tags)]
        return self.one_shot("backup", *options, *arguments, mounts=mounts, files=files)

    def snapshots(self, *tags: str) -> list[dict[str, Any]]:
        """The stack's snapshots that have all these tags, the oldest first."""
        asked = [f"--tag={','.join(tags)}"] if tags else []
        found: list[dict[str, Any]] = json.loads(self.ask("snapshots", "--json", f"--host={self.prefix}", *asked) or "[]") or []
        return sorted(found, key=lambda one: str(one["time"]))


def _json_lines(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def _messages(errors: str) -> list[str]:
    """What restic says is wrong, without JSON around it."""
    found = []
    for line in errors.splitlines():
        if line.startswith("{"):
            said = json.loads(line)
            found.append(str((said.get("error") or said).get("message") or said))
        elif line.strip():
            found.append(line)
    return [one for one in found if "at least one source file could not be read" not in one]
