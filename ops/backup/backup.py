"""`backup`: a stack's indexes, images, stack file and passphrase into a restic repository, while the stack works.

A backup is several snapshots with the same tag. The one with the manifest is made last: without it, the backup is not complete, and is
never restored.
"""

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from docker.types import Mount

from configs.loader import load_stack_file
from configs.names import PROJECT
from configs.secrets import BACKUP_KEY, BACKUP_PASSWORD, BACKUP_SECRET
from configs.settings import BackupSettings, StackSettings
from ops.backup.data import DATA, INDEX, INDEX_FILES, NodeData, copies, data_of, database_of, dumping, freeze, remove_copies
from ops.backup.found import FORGOTTEN, MANIFEST, TAG, tag_of
from ops.backup.oneshot import FILES, alone_on_engine, remove_drill, remove_left, scratch, volume
from ops.backup.report import print_sheet, report, write_metrics
from ops.backup.restic import Repository, Saved
from ops.setup.console import ROOT, SetupError, say
from ops.setup.images import ensure_restic
from ops.setup.prepare import stack_config, stack_file
from ops.setup.state import STATE_FOLDER, on_runner
from ops.stack.engine import FORWARDER_ASK, Container, containers_of, list_containers, repeating
from ops.stack.secrets import ensure_secrets, missing_keys, refuse_on_runner
from ops.stack.stack import Stack, deployed
from ops.stack.terminal import NOT_WELL

_LABEL: Final = "Backup"
#: Parts of a backup that was broken off are removed when they are older than that: a younger one may still be at work elsewhere.
_BROKEN_OFF: Final = timedelta(days=2)
#: A forwarder holds deletions for ten minutes (forwarder/retention.py).
_HOLD_AGAIN_SECONDS: Final = 120


@dataclass(frozen=True)
class Part:
    """A part of a backup, for the table."""

    node: str
    what: str
    saved: Saved
    seconds: float


@dataclass
class Manifest:
    """What a backup holds."""

    stack: str  #: its short name
    time: str  #: when the backup began, ISO 8601, UTC
    version: str  #: of this project
    images: Mapping[str, Any]  #: what the stack ran
    passphrase: bool  #: whether the passphrase of the stack file's secrets is in it
    #: By node: index, database, volume, image, instances, and by part (files, index) the snapshot.
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)


def repository_of(stack: Stack, settings: StackSettings, backup: BackupSettings, password: str = "") -> Repository:
    """The repository that a stack file names, with its secrets; `password` instead of the stack file's, where there is one."""
    config = stack_config(stack.name, stack.root)

    def secret(key: str) -> str:
        return stack.ask("config", "get", f"{PROJECT}:{key}").rstrip("\n") if f"{PROJECT}:{key}" in config else ""

    login = (secret(BACKUP_KEY), secret(BACKUP_SECRET))
    wanted, what, value = {
        "s3": ((BACKUP_KEY, BACKUP_SECRET), "S3, which wants an access key", ""),
        "sftp": ((BACKUP_KEY,), "SFTP, which wants a private key without a passphrase", " < FILE"),
    }.get(backup.to.partition(":")[0], ((), "", ""))
    if not all(login[: len(wanted)]):
        commands = "\n".join(f"    pulumi config set --secret {key} --stack {stack.name}{value}" for key in missing_keys(wanted, config))
        raise SetupError(f'backup.to is {what}:\n    eval "$(./orthanc-stack env {stack.name})"\n{commands}')
    image = ensure_restic(settings.images)
    return Repository(backup.to, image, stack.prefix, password or secret(BACKUP_PASSWORD), login, backup.host_key or "")


def backup(name: str, *, sheet: bool) -> int:
    """Back up a stack; the exit status. With `sheet`, or the first time, print what a restore begins from."""
    settings = load_stack_file(name)
    if settings.backup is None:
        raise SetupError(f"Pulumi.{name}.yaml says not where backups go. Add, for example:\n    orthanc-stack:backup: {{to: /srv/backup}}")
    stack = deployed(name)
    with alone(stack):
        return back_up(stack, settings, settings.backup, sheet=sheet)


@contextlib.contextmanager
def alone(stack: Stack, image: str = "") -> Iterator[None]:
    """One backup, restore, check or upgrade of a stack at a time; what an earlier one left is removed. A SIGTERM ends it in good order.

    `image` is one that the engine has, for the lock: any will do.
    """
    images = (str(one.handle.attrs["Image"]) for one in list_containers(stack.prefix))
    image = image or next(images, "") or ensure_restic(load_stack_file(stack.name).images)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with alone_on_engine(stack.prefix, image, f"a backup, restore, check, drill or upgrade of {stack.short} is at work on this engine"):
            remove_left(stack.prefix)
            remove_drill(stack)
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def back_up(stack: Stack, settings: StackSettings, where: BackupSettings, *, sheet: bool) -> int:
    """Back up a stack while nothing else of alone() is at work; the exit status."""
    started, moment = time.monotonic(), datetime.now(UTC)
    if missing_keys([BACKUP_PASSWORD], stack_config(stack.name, stack.root)):
        refuse_on_runner(stack.name)
        ensure_secrets(stack, settings)
    repository = repository_of(stack, settings, where)
    outputs = stack.outputs(show_secrets=False)
    nodes = data_of(stack, outputs)
    refuse_undeployed(stack, settings, nodes)
    made = repository.ensure()
    say(_LABEL, f"{'made the repository' if made else 'into the repository'} {where.to}")
    manifest = Manifest(stack.short, moment.isoformat(timespec="seconds"), _version(), outputs["images"], bool(_passphrase()))
    run = _Run(stack, repository, manifest, f"{TAG}{moment:%Y%m%dT%H%M%SZ}")
    with holding([one for one in containers_of(stack) if one.role == "forwarder"], settings), copies(stack):
        # All indexes before all files, so that no index lists a file that was not there yet.
        for node in nodes:
            run.save_index(node)
        remove_copies(stack)
        for node in nodes:
            run.save_files(node)
    run.save_manifest()
    kept = _forget(repository, where, moment)
    seconds = time.monotonic() - started
    report(run.parts, run.frozen, seconds, run.tag)
    write_metrics(stack, run.parts, seconds)
    if sheet or (made and not on_runner()):
        print_sheet(stack, repository, manifest)
    elif made:
        say(_LABEL, f"the recovery sheet is not for a job's log: at a desk, `./orthanc-stack backup {stack.name} --sheet`")
    return 0 if kept else NOT_WELL


def refuse_undeployed(stack: Stack, settings: StackSettings, nodes: Sequence[NodeData]) -> None:
    """Refuse where the stack file, which a restore goes by, names other nodes or indexes than those that are deployed."""
    wanted = {node.name: node.index for node in settings.nodes}
    deployed = {node.name: "postgresql" if node.database else "sqlite" for node in nodes}
    if differ := sorted({name for name, _ in wanted.items() ^ deployed.items()}):
        raise SetupError(
            f"nothing was saved: of {', '.join(differ)}, Pulumi.{stack.short}.yaml says something else than what is deployed. "
            f"`./orthanc-stack up {stack.name}` first, or take the change back."
        )


@dataclass
class _Run:
    """A backup that is being made."""

    stack: Stack
    repository: Repository
    manifest: Manifest
    tag: str  #: of all its snapshots
    parts: list[Part] = field(default_factory=list)
    frozen: dict[str, float] = field(default_factory=dict)  #: for how many seconds each node on SQLite stood still

    def save_index(self, node: NodeData) -> None:
        """Save an index as of one moment, and how many instances it lists."""
        about: dict[str, Any] = {"database": node.database, "volume": node.volume, "image": node.image, "snapshots": {}}
        self.manifest.nodes[node.name] = about
        if node.database:
            with dumping(database_of(self.stack), node.database) as (about["instances"], dump):
                self._save(node, "index", ("--stdin", f"--stdin-filename=/{node.name}.dump"), source=dump)
            return
        copy = freeze(node, self.stack.prefix)
        about["instances"], self.frozen[node.name] = copy.instances, copy.seconds
        self._save(node, "index", (f"{INDEX}/{node.name}",), [scratch(self.stack.prefix, "index", INDEX)])

    def save_files(self, node: NodeData) -> None:
        """Save the volume of a node, less its index."""
        # A path of its own, by which restic finds what was read the last time.
        at = f"{DATA}/{node.name}"
        self._save(node, "files", (*(f"--exclude={at}/{file}" for file in INDEX_FILES), at), [volume(node.volume, at)])

    def _save(
        self, node: NodeData, what: str, paths: Sequence[str], mounts: Sequence[Mount] = (), source: Iterator[bytes] | None = None
    ) -> None:
        begun, tags = time.monotonic(), (self.tag, what, f"node-{node.name}")
        saved = self.repository.save(self.repository.backup(*paths, tags=tags, mounts=mounts), source)
        self.manifest.nodes[node.name]["snapshots"][what] = saved.snapshot
        self.parts.append(Part(node.name, what, saved, time.monotonic() - begun))
        say(_LABEL, f"{node.name}: {what}")

    def save_manifest(self) -> None:
        """Save the stack file, the passphrase and the manifest, which makes the backup complete."""
        begun, passphrase = time.monotonic(), _passphrase()
        files = {
            "manifest.json": json.dumps(asdict(self.manifest), indent=1, sort_keys=True).encode(),
            "stack.yaml": stack_file(self.stack.name, self.stack.root).read_bytes(),
            **({"passphrase": passphrase} if passphrase else {}),
        }
        paths = [f"{FILES}/{file}" for file in files]
        saved = self.repository.save(self.repository.backup(*paths, tags=(self.tag, MANIFEST), files=files))
        self.parts.append(Part("stack", "stack file", saved, time.monotonic() - begun))


def _passphrase() -> bytes:
    """The passphrase of the stack file's secrets, where this project made it; else it is the user's to keep."""
    file = os.environ.get("PULUMI_CONFIG_PASSPHRASE_FILE", "")
    return Path(file).read_bytes() if file == str(ROOT / STATE_FOLDER / "passphrase") else b""


def _version() -> str:
    found = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else "unknown"


def _forget(repository: Repository, where: BackupSettings, now: datetime) -> bool:
    """Remove the backups that are no longer to be kept, each as a whole; whether that could be done."""
    keep = (f"--keep-{name}={number}" for name, number in where.keep.model_dump().items())
    try:
        repository.ask("forget", f"--host={repository.prefix}", f"--tag={MANIFEST}", "--group-by=host", *keep)
        snapshots = repository.snapshots()
        complete = {tag_of(one) for one in snapshots if MANIFEST in one["tags"]}
        # What is too young may belong to a backup that another machine is making.
        old = (now - _BROKEN_OFF).isoformat()
        rest = [one for one in snapshots if not {tag_of(one), *one["tags"]} & {*complete, FORGOTTEN} and str(one["time"])[:19] < old[:19]]
        if rest:
            repository.ask("forget", "--prune", *(str(one["id"]) for one in rest))
            say(_LABEL, f"removed {len({tag_of(one) for one in rest})} older backups")
    except SetupError as error:
        say(_LABEL, f"the backup is complete, and older ones were not removed: {error}")
        return False
    return True


@contextlib.contextmanager
def holding(forwarders: Sequence[Container], settings: StackSettings) -> Iterator[None]:
    """Have the forwarders of nodes that delete images put that off: an index would list files that the backup finds gone."""
    deleting = {f"{node.name}-forwarder" for node in settings.forwarding_nodes if node.delete_after is not None}
    held = [one for one in forwarders if one.part in deleting and one.state == "running"]

    def ask(what: str) -> None:
        for one in held:
            try:
                one.run([*FORWARDER_ASK, what])
            except SetupError:
                say(_LABEL, f"{one.name} does not answer `{what}`: images that it deletes meanwhile may be missing from the backup")

    ask("hold")
    try:
        with repeating(_HOLD_AGAIN_SECONDS, lambda: ask("hold")):
            yield
    finally:
        ask("release")
