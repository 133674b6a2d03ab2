"""A backup in a repository, and which one is meant."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from ops.backup.oneshot import FILES
from ops.backup.restic import Repository
from ops.setup.console import SetupError

#: The tags of snapshots: of the one that makes a backup complete, and what the tag of a whole backup begins with.
MANIFEST, TAG = "manifest", "backup-"
#: That of the snapshot with the patients who were forgotten, and its file.
FORGOTTEN: Final = "forgotten"
FORGOTTEN_FILE: Final = f"{FILES}/{FORGOTTEN}.json"
_IDENTIFIER: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}")


@dataclass(frozen=True)
class Found:
    """A backup in a repository."""

    repository: Repository
    snapshot: str  #: that of its manifest
    manifest: Mapping[str, Any]

    def file(self, name: str) -> bytes:
        """A file beside the manifest."""
        return b"".join(self.repository.one_shot("dump", self.snapshot, f"{FILES}/{name}").stream())


def find(repository: Repository, at: str, begun: str = "") -> Found:
    """The newest complete backup, or the newest before a time, or the one whose restore has begun. A SetupError where there is none."""
    moment = _moment(at)
    if begun and at:
        raise SetupError("a restore has begun: give the same command without --at, which goes on with it. `up` says how to give it up.")
    snapshots = repository.snapshots(MANIFEST)
    wanted = [one for one in snapshots if (one["id"] == begun if begun else began(one) <= moment)]
    if not wanted:
        times = ", ".join(f"{began(one):%Y-%m-%dT%H:%M:%S}" for one in snapshots[-5:]) or "none"
        what = "that was begun" if begun else f"before {at}" if at else "of this stack"
        raise SetupError(f"there is no complete backup {what} at {repository.to}. The newest that are complete (UTC): {times}.")
    snapshot = str(wanted[-1]["id"])
    held = Found(repository, snapshot, {})
    return Found(repository, snapshot, json.loads(held.file("manifest.json")))


def began(snapshot: Mapping[str, Any]) -> datetime:
    """When the backup of a snapshot began: its tag has that."""
    return datetime.strptime(tag_of(snapshot).removeprefix(TAG), "%Y%m%dT%H%M%S%z")


def tag_of(snapshot: Mapping[str, Any]) -> str:
    """The tag of the backup that a snapshot is of; empty for one that is of none."""
    return next((str(tag) for tag in snapshot.get("tags") or () if str(tag).startswith(TAG)), "")


def forgotten(repository: Repository) -> dict[str, str]:
    """When each patient was forgotten, by Orthanc's identifier, in a manifest's notation: no older backup brings one back."""
    files = (b"".join(repository.one_shot("dump", str(one["id"]), FORGOTTEN_FILE).stream()) for one in repository.snapshots(FORGOTTEN))
    return {one: when for file in files for one, when in json.loads(file).items() if _IDENTIFIER.fullmatch(one)}


def _moment(at: str) -> datetime:
    if not at:
        return datetime.max.replace(tzinfo=UTC)
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        raise SetupError(f"{at!r} is no time: write 2026-11-28T06:00, in UTC, or 2026-11-28T06:00+01:00.") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
