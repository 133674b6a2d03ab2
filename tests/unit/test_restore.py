"""What a restore refuses, and what it puts back: never over something that is in use."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ops.backup import restore
from ops.backup.found import Found
from ops.backup.restore import put_back, refuse_containers, refuse_other_engine, refuse_volumes
from ops.setup.console import SetupError
from ops.setup.prepare import Tools
from ops.setup.state import State
from ops.stack.stack import Stack

OURS = "config:\n  orthanc-stack:dbPassword:\n    secure: v1:x\n"


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """A stack whose checkout is empty."""
    monkeypatch.setattr(restore, "ROOT", tmp_path)
    for name in ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)
    return Stack("prod", Tools(tmp_path / "pulumi", State("", "")), tmp_path)


class Backup(Found):
    """A backup with this stack file, and with a passphrase."""

    def __init__(self, content: str = OURS, *, passphrase: bool = True) -> None:
        super().__init__(None, "id", {"passphrase": passphrase})  # type: ignore[arg-type]
        object.__setattr__(self, "files", {"stack.yaml": content.encode(), "passphrase": b"words\n"})

    def file(self, name: str) -> bytes:
        return self.files[name]  # type: ignore[attr-defined, no-any-return]


def test_stack_file_and_passphrase_are_put_back(stack: Stack) -> None:
    put_back(Backup(), stack)
    assert (stack.root / "Pulumi.prod.yaml").read_text() == OURS
    passphrase = stack.root / ".pulumi-state" / "passphrase"
    assert passphrase.read_text() == "words\n"
    assert passphrase.stat().st_mode & 0o777 == 0o600
    put_back(Backup(), stack)  # once more, after it was broken off


def test_a_stack_file_with_other_secrets_is_never_overwritten(stack: Stack) -> None:
    file = stack.root / "Pulumi.prod.yaml"
    file.write_text(OURS.replace("v1:x", "v1:y"))
    with pytest.raises(SetupError, match=r"mv Pulumi\.prod\.yaml"):
        put_back(Backup(), stack)
    assert "v1:y" in file.read_text()
    assert not (stack.root / ".pulumi-state").exists()


def test_a_stack_file_may_name_another_engine_than_that_of_the_backup(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    put_back(Backup(OURS + "  docker:host: ssh://lost\n"), stack)
    monkeypatch.setenv("DOCKER_HOST", "ssh://lost")  # as prepare() finds it in the stack file
    with pytest.raises(SetupError, match=r"nothing was restored yet: Pulumi\.prod\.yaml is back, and names the engine ssh://lost"):
        refuse_other_engine(stack, "unix:///var/run/docker.sock")
    file = stack.root / "Pulumi.prod.yaml"
    file.write_text(OURS)
    put_back(Backup(OURS + "  docker:host: ssh://lost\n"), stack)
    assert file.read_text() == OURS
    refuse_other_engine(stack, "ssh://lost")


def test_a_stack_file_with_other_images_alone_stays(stack: Stack) -> None:
    """The way back to an older Orthanc: a backup that `up` has made names the newer one."""
    file, images = stack.root / "Pulumi.prod.yaml", "  orthanc-stack:images: {orthanc: 'o:1'}\n"
    file.write_text(OURS + images)
    put_back(Backup(OURS + images.replace("o:1", "o:2")), stack)
    assert file.read_text() == OURS + images
    with pytest.raises(SetupError, match="is not the stack file of the backup"):
        put_back(Backup(OURS + "  orthanc-stack:bind: 10.0.0.1\n"), stack)


def test_the_clones_own_stack_file_is_moved_away(stack: Stack) -> None:
    file = stack.root / "Pulumi.prod.yaml"
    file.write_text("config: {}\n")
    put_back(Backup(), stack)
    assert file.read_text() == OURS
    assert (stack.root / "Pulumi.prod.yaml.before-restore").read_text() == "config: {}\n"


def test_another_stacks_passphrase_stays(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    passphrase = stack.root / ".pulumi-state" / "passphrase"
    passphrase.parent.mkdir()
    passphrase.write_text("others\n")
    with pytest.raises(SetupError, match="another passphrase"):
        put_back(Backup(), stack)
    assert passphrase.read_text() == "others\n"
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "words")
    put_back(Backup(), stack)


def test_a_restore_from_sftp_wants_a_key_file_and_the_host_key(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTIC_PASSWORD", "words")
    (stack.root / "key").write_text("a private key\n")
    for variables, said in (
        ({}, "set ORTHANC_BACKUP_KEY_FILE to a file"),
        ({"KEY_FILE": str(stack.root / "key")}, "set ORTHANC_BACKUP_KEY_FILE to a file"),
        ({"KEY_FILE": str(stack.root / "none"), "HOST_KEY": "ssh-rsa AAAAB3"}, "set ORTHANC_BACKUP_KEY_FILE to a file"),
        ({"KEY_FILE": str(stack.root / "key"), "HOST_KEY": "host ssh-rsa AAAAB3"}, "^ORTHANC_BACKUP_HOST_KEY is not an SSH server's key"),
    ):
        for name, value in variables.items():
            monkeypatch.setenv(f"ORTHANC_BACKUP_{name}", value)
        with pytest.raises(SetupError, match=said):
            restore._repository(stack, None, "sftp://user@host//srv", "image")


def engine(monkeypatch: pytest.MonkeyPatch, *, containers: dict[str, str] | None = None, volumes: tuple[str, ...] = ()) -> None:
    """An engine with containers (each with its role) and volumes."""
    found = [SimpleNamespace(name=name, labels={"orthanc-stack.role": role}) for name, role in (containers or {}).items()]
    held = [SimpleNamespace(name=name) for name in volumes]

    def listing(result: list[Any]) -> SimpleNamespace:
        return SimpleNamespace(list=lambda **_: result)

    monkeypatch.setattr(restore, "client", lambda: SimpleNamespace(containers=listing(found), volumes=listing(held)))


def test_a_stack_that_is_there_is_refused_also_when_it_is_stopped(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(monkeypatch, containers={"orthanc-stack-prod-db": "db", "orthanc-stack-prod-roles": "db-roles"})
    refuse_containers(stack)  # what a restore that was broken off leaves
    engine(monkeypatch, containers={"orthanc-stack-prod-archive": "node"}, volumes=("orthanc-stack-prod-db", "orthanc-stack-prod-a"))
    with pytest.raises(SetupError, match=r"\(orthanc-stack-prod-archive\).*docker volume rm orthanc-stack-prod-a orthanc-stack-prod-db$"):
        refuse_containers(stack)
    engine(monkeypatch, containers={"orthanc-stack-prod-archive": "node"})
    with pytest.raises(SetupError, match=r"`\./orthanc-stack destroy prod`\.$"):
        refuse_containers(stack)


def test_volumes_of_the_stack_are_refused_and_those_of_its_backups_are_not(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(monkeypatch, volumes=("orthanc-stack-prod-backup.cache", "other-orthanc-stack-prod-a"))
    refuse_volumes(stack)
    engine(monkeypatch, volumes=("orthanc-stack-prod-backup.cache", "orthanc-stack-prod-db", "orthanc-stack-prod-backup"))
    with pytest.raises(SetupError, match="docker volume rm orthanc-stack-prod-backup orthanc-stack-prod-db"):
        refuse_volumes(stack)
