"""Backups over SFTP: restic in its container, and a real sshd on this machine."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from configs import names
from configs.settings import ImageSettings
from ops.backup import restore
from ops.backup.restic import Repository
from ops.setup.console import SetupError
from ops.setup.images import ensure_restic
from ops.setup.prepare import Tools
from ops.setup.state import State
from ops.stack.stack import Stack
from tests.stack.engine import docker, eventually, free_ports
from tests.stack.test_backup import wipe

_SSHD: Final = shutil.which("sshd", path="/usr/sbin:/usr/bin")

pytestmark = [
    pytest.mark.slow("restic runs in a dozen containers, with an sshd on this machine: 30 s"),
    pytest.mark.skipif(os.getuid() != 0 or _SSHD is None, reason="needs root and an sshd (apt-get install openssh-server)"),
]


def key(file: Path) -> tuple[str, str]:
    """A key pair, whose private key is in this file: both keys."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", file], check=True)
    return file.read_text(), file.with_suffix(".pub").read_text().strip()


@dataclass(frozen=True)
class Server:
    """An sshd that serves files alone, and a repository at it that was not made yet."""

    repository: Repository
    key: Path  #: the private key that it accepts
    home: Path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    assert _SSHD
    private, public = key(tmp_path / "key")
    _, host_key = key(tmp_path / "host")
    address = docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}").strip()
    (port,) = free_ports(1)
    (tmp_path / "keys").write_text(public + "\n")
    # A hospital's server often has a banner, which ssh prints among the errors.
    (tmp_path / "banner").write_text("Authorised use only\n")
    config = f"""ListenAddress {address}:{port}
HostKey {tmp_path}/host
AuthorizedKeysFile {tmp_path}/keys
Banner {tmp_path}/banner
PidFile none
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
Subsystem sftp internal-sftp
ForceCommand internal-sftp
"""
    (tmp_path / "config").write_text(config)
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's own, which its service makes
    prefix = names.prefix(f"test{secrets.token_hex(3)}")
    to = f"sftp://root@{address}:{port}/{tmp_path}/repository"
    made = Repository(to, ensure_restic(ImageSettings(source="auto")), prefix, "a password", (private, ""), host_key)
    log = tmp_path / "log"
    with subprocess.Popen([_SSHD, "-D", "-E", log, "-f", tmp_path / "config"]) as process:
        try:
            eventually("sshd listens", lambda: log.exists() and "listening" in log.read_text())
            yield Server(made, tmp_path / "key", tmp_path)
        finally:
            process.terminate()
            wipe(prefix)


def test_backups_go_to_the_server_and_come_back(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    repository, files = server.repository, {"a": b"an image"}
    assert repository.ensure()
    assert not repository.ensure()
    assert (server.home / "repository" / "config").exists()
    first = repository.save(repository.backup("/run/orthanc-stack/a", tags=("first",), files=files))
    assert repository.save(repository.backup("--stdin", tags=("second",)), iter([b"a dump"])).size == len(b"a dump")
    assert [one["tags"] for one in repository.snapshots()] == [["first"], ["second"]]
    assert repository.one_shot("snapshots").run().errors == "", "a banner is no error"
    # As a restore on an empty machine finds it.
    for name, value in {"RESTIC_PASSWORD": "a password", "ORTHANC_BACKUP_HOST_KEY": repository.host_key}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ORTHANC_BACKUP_KEY_FILE", str(server.key))
    stack = Stack(repository.prefix.removeprefix(f"{names.PROJECT}-"), Tools(server.home, State("", "")), server.home)
    found = restore._repository(stack, None, repository.to, repository.image)
    assert found == replace(repository, login=(server.key.read_text(), ""))
    assert b"".join(found.one_shot("dump", first.snapshot, "/run/orthanc-stack/a").stream()) == files["a"]


def test_another_host_key_and_another_private_key_are_refused(server: Server) -> None:
    private, host_key = key(server.home / "other")
    posing = replace(server.repository, host_key=host_key)
    unknown = replace(server.repository, login=(private, ""))
    for repository, said in ((posing, r"has another host key than backup\.hostKey"), (unknown, "refuses the private key in backupKey")):
        for work in (repository.ensure, repository.snapshots):
            with pytest.raises(SetupError, match=said):
                work()
    assert not (server.home / "repository").exists()
