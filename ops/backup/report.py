"""What a backup tells: its table, its metrics, and the recovery sheet."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from ops.backup.restic import Repository
from ops.setup.console import say
from ops.stack.stack import Stack
from ops.stack.terminal import table

if TYPE_CHECKING:
    from ops.backup.backup import Manifest, Part

_METRICS: Final = (
    ("backup_last_success_timestamp_seconds", "When the last backup was complete."),
    ("backup_size_bytes", "The size of all that is in the last backup."),
    ("backup_added_bytes", "By what the last backup made the repository grow."),
    ("backup_duration_seconds", "How long the last backup took."),
)
_CHECK_METRICS: Final = (
    ("check_last_timestamp_seconds", "When the last check of the data ended."),
    ("check_faults", "Files that the last check found missing, damaged or orphaned, and that are so still."),
    ("check_read_bytes", "What the last check read to compare MD5s."),
    ("check_duration_seconds", "How long the last check took, since it was last broken off."),
)


def report(parts: "Sequence[Part]", frozen: Mapping[str, float], seconds: float, tag: str) -> None:
    """Print a backup's table."""
    rows = [(one.node, one.what, size(one.saved.size), size(one.saved.new), f"{one.seconds:.1f}") for one in parts]
    total = [sum(getattr(one.saved, what) for one in parts) for what in ("size", "new")]
    table(("node", "part", "size", "new", "seconds"), [*rows, ("all", tag, *map(size, total), f"{seconds:.1f}")])
    for node, stood in frozen.items():
        print(f"  {node} stood still for {stood:.2f} s, while its index was copied")
    if gone := sum(one.saved.gone for one in parts):
        print(f"  {gone} files were deleted by users meanwhile, and may be missing from this backup")


def size(number: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def write_metrics(stack: Stack, parts: "Sequence[Part]", seconds: float) -> None:
    """Write a backup's metrics."""
    values = (sum(one.saved.size for one in parts), sum(one.saved.new for one in parts), round(seconds, 1))
    _write("Backup", stack, f"{stack.short}.prom", _METRICS, values)


def write_check_metrics(stack: Stack, faults: int, read: int, seconds: float) -> None:
    """Write a check's metrics: the faults that are left, bytes read, seconds."""
    _write("Check", stack, f"{stack.short}-check.prom", _CHECK_METRICS, (faults, read, round(seconds, 1)))


def _write(label: str, stack: Stack, file: str, metrics: Sequence[tuple[str, str]], values: Sequence[float]) -> None:
    """Write the time and these values for the textfile collector of Prometheus' node_exporter: whole, or not at all."""
    lines = []
    for (name, meaning), value in zip(metrics, (round(time.time()), *values), strict=True):
        metric = f"orthanc_stack_{name}"
        lines += [f"# HELP {metric} {meaning}", f"# TYPE {metric} gauge", f'{metric}{{stack="{stack.short}"}} {value}']
    folder = stack.root / "artifacts" / "backup"
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{file}.draft"
    draft.write_text("\n".join(lines) + "\n", encoding="utf-8")
    draft.replace(folder / file)
    say(label, f"metrics: {(folder / file).relative_to(stack.root)}")


def print_sheet(stack: Stack, repository: Repository, manifest: "Manifest") -> None:
    """Print the recovery sheet. It holds the repository's password: it goes to standard output alone, into no log of ours."""
    if manifest.passphrase:
        passphrase = "is in the backup"
    elif "PULUMI_CONFIG_PASSPHRASE" in os.environ or "PULUMI_CONFIG_PASSPHRASE_FILE" in os.environ:
        passphrase = "is NOT in the backup: PULUMI_CONFIG_PASSPHRASE, as you set it. Write it here: ______________________"
    else:
        passphrase = "there is none: the secrets' provider of the state decrypts them"
    login = "\n  login         backupKey and backupSecret: write them here, too: ______________________" if repository.login[0] else ""
    variables = ""
    if repository.to.startswith("sftp:"):
        login = f"\n  host key      {repository.host_key}"
        login += "\n  private key   backupKey, or another one that the server accepts: keep its file elsewhere"
        variables = f"ORTHANC_BACKUP_KEY_FILE=FILE ORTHANC_BACKUP_HOST_KEY='{repository.host_key}' \\\n      "
    engine = os.environ.get("DOCKER_HOST", "")
    docker = f", with DOCKER_HOST={engine}" if engine.startswith(("ssh:", "tcp:")) else ""
    print(f"""
  ── RECOVERY SHEET of the stack {stack.short} ── print it, and keep it where neither this machine nor its backups are ──

  repository    {repository.to}
  password      {repository.password}{login}
  stack         {stack.short}, in version {manifest.version} of orthanc-stack
  passphrase    of the stack file's secrets: {passphrase}
  state         {stack.tools.state.origin}: not in the backup, and not needed: a restore makes it anew

  To restore, on a machine with a clone of orthanc-stack that has neither containers nor volumes of this stack{docker}:

      {variables}./orthanc-stack restore {stack.short} --from '{repository.to}'      # asks for the password
""")
