"""What a node really has: its files, read past all of Orthanc's caches; the REST API; and, in PostgreSQL, each time it stored one."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.faults.rest import DownError, Rest
from tests.stack.dicom import dataset_bytes
from tests.stack.harness import Node, Stack, docker

_CHUNK = 250
#: Counts each file of an image that is stored, in the transaction that stores it: Orthanc's own changes log forgets what was replaced.
_COUNT = """
create table if not exists public.faults_stored (instance text not null, at timestamptz not null default clock_timestamp());
create or replace function public.faults_note() returns trigger language plpgsql security definer as
$$ begin insert into public.faults_stored (instance) select publicid from resources where internalid = new.id; return null; end $$;
create or replace trigger faults_note after insert on attachedfiles
for each row when (new.filetype = 1) execute function public.faults_note();
"""


def _md5(file: bytes) -> str:
    """Of the data set in a file; empty where it is no DICOM file."""
    try:
        return hashlib.md5(dataset_bytes(file)).hexdigest()
    except (AssertionError, IndexError):
        return ""


class Archive:
    """A node that images arrive at."""

    def __init__(self, stack: Stack, name: str) -> None:
        self.name = name
        self._stack = stack
        self._volume: Path | None = None

    @property
    def node(self) -> Node:
        """The node, as it is deployed now."""
        return self._stack.node(self.name)

    @property
    def volume(self) -> Path:
        """Its data volume, on this machine."""
        if self._volume is None:
            found = docker("volume", "inspect", f"{self._stack.prefix}-{self.name}", "--format", "{{.Mountpoint}}")
            self._volume = Path(found)
        return self._volume

    # --- what it has ---

    def files(self, ids: Iterable[str]) -> dict[str, Path]:
        """The file of each of these images that its database knows."""
        rest = Rest(self.node)
        found: dict[str, Path] = {}
        for chunk in _chunks(list(ids)):
            said = rest.json("/tools/bulk-content", {"Resources": chunk, "Level": "Instance", "Metadata": False})
            found |= {one["ID"]: self._path(one["FileUuid"]) for one in said}
        return found

    def on_disk(self, ids: Iterable[str]) -> dict[str, str]:
        """MD5 of the data set of each of these images that its database knows; empty where the file is gone or broken."""
        return {id_: _md5(path.read_bytes()) if path.exists() else "" for id_, path in self.files(ids).items()}

    def by_rest(self, ids: Sequence[str], threads: int = 2) -> dict[str, str]:
        """MD5 of the data set of each of these images, as the REST API gives it; empty where it gives none."""
        rest = Rest(self.node, seconds=60)

        def read(id_: str) -> tuple[str, str | None]:
            status, content = rest.ask(f"/instances/{id_}/file")
            return id_, None if status == 404 else _md5(content) if status == 200 else ""

        with ThreadPoolExecutor(threads) as pool:
            return {id_: md5 for id_, md5 in pool.map(read, ids) if md5 is not None}

    def ids(self) -> set[str]:
        """All images that its database knows."""
        rest = Rest(self.node)
        found: set[str] = set()
        while page := rest.json(f"/instances?since={len(found)}&limit=5000"):
            found.update(page)
        return found

    def _path(self, uuid: str) -> Path:
        return self.volume / uuid[:2] / uuid[2:4] / uuid

    # --- how often it stored each ---

    def count_stores(self) -> None:
        """Begin to count; needs an index in PostgreSQL."""
        said = self._sql(_COUNT)
        assert not said, said

    def stores(self) -> tuple[int, int]:
        """How often it stored an image, and how many different ones, since count_stores()."""
        stores, images = self._sql("select count(*), count(distinct instance) from public.faults_stored").split("|")
        return int(stores), int(images)

    def stores_of(self, ids: Iterable[str]) -> int:
        """How often it stored some images."""
        listed = ", ".join(f"'{id_}'" for id_ in ids)
        return int(self._sql(f"select count(*) from public.faults_stored where instance in ({listed})"))

    def _sql(self, query: str) -> str:
        return self._stack.sql(query, database=f"orthanc_{self.name}".replace("-", "_"))


class Feed:
    """Follows an archive's changes log, while it comes and goes, and knows which images have arrived."""

    def __init__(self, node: Node, every: float = 0.5) -> None:
        self.arrived: dict[str, float] = {}
        self._rest = Rest(node, seconds=5)
        self._every = every
        self._seen = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Feed:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def missing(self, ids: Iterable[str]) -> set[str]:
        """Which of these have not arrived."""
        return {id_ for id_ in ids if id_ not in self.arrived}

    def _follow(self) -> None:
        while not self._stop.wait(self._every):
            try:
                self._read()
            except DownError:
                continue

    def _read(self) -> None:
        while not self._stop.is_set():
            page = self._rest.json(f"/changes?since={self._seen}&limit=1000")
            for change in page["Changes"]:
                if change["ChangeType"] == "NewInstance":
                    self.arrived.setdefault(change["ID"], time.monotonic())
            self._seen = page["Last"]
            if page["Done"]:
                return


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK))
