"""What a node really has: its files, read past all of Orthanc's caches; the REST API; and, in PostgreSQL, each time it stored one."""

from __future__ import annotations

import hashlib
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.stack.dicom import dataset_bytes
from tests.stack.harness import Node, Stack, docker

_CHUNK = 250
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
#: Counts each file of an image that is stored, in the transaction that stores it: Orthanc's own changes log forgets what was replaced.
_COUNT = """
create table if not exists public.faults_stored (instance text not null, at timestamptz not null default clock_timestamp());
create or replace function public.faults_note() returns trigger language plpgsql security definer as
$$ begin insert into public.faults_stored (instance) select publicid from resources where internalid = new.id; return null; end $$;
create or replace trigger faults_note after insert on attachedfiles
for each row when (new.filetype = 1) execute function public.faults_note();
"""


class DownError(Exception):
    """No answer, or one that says no."""


def fetch(url: str, body: Any = None, *, authorization: str = "", seconds: float = 20) -> tuple[int, bytes]:
    """The status and the content of the answer to GET, or to POST of JSON.

    Raises:
        DownError: there was none, or 503.
    """
    data = None if body is None else json.dumps(body).encode()
    try:
        with _OPENER.open(urllib.request.Request(url, data, {"Authorization": authorization}), timeout=seconds) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.HTTPStatus.SERVICE_UNAVAILABLE:
                raise DownError("503") from None
            return error.code, error.read()
    except (OSError, http.client.HTTPException) as error:
        raise DownError(f"{type(error).__name__}: {error}") from None


@dataclass(frozen=True)
class Archive:
    """A node that images arrive at."""

    stack: Stack
    node: Node

    @property
    def volume(self) -> Path:
        """Its data volume, on this machine."""
        return Path(docker("volume", "inspect", f"{self.stack.prefix}-{self.node.name}", "--format", "{{.Mountpoint}}"))

    def json(self, path: str, body: Any = None, seconds: float = 20) -> Any:
        status, content = fetch(self.node.url + path, body, authorization=self.node.authorization, seconds=seconds)
        if status != http.HTTPStatus.OK:
            raise DownError(f"{path}: {status} {content[:200]!r}")
        return json.loads(content)

    def answers(self) -> bool:
        """Whether it answers from its database."""
        try:
            self.json("/statistics", seconds=3)
        except DownError:
            return False
        return True

    # --- what it has ---

    def files(self, ids: Sequence[str]) -> dict[str, Path]:
        """The file of each of these images that its database knows."""
        found, volume = {}, self.volume
        for start in range(0, len(ids), _CHUNK):
            asked = {"Resources": ids[start : start + _CHUNK], "Level": "Instance", "Metadata": False}
            for one in self.json("/tools/bulk-content", asked):
                uuid = one["FileUuid"]
                found[one["ID"]] = volume / uuid[:2] / uuid[2:4] / uuid
        return found

    def on_disk(self, ids: Sequence[str]) -> dict[str, str]:
        """MD5 of the data set of each of these images that its database knows; empty where the file is gone or broken."""
        return {id_: _md5(path.read_bytes()) if path.exists() else "" for id_, path in self.files(ids).items()}

    def by_rest(self, ids: Sequence[str]) -> dict[str, str]:
        """MD5 of the data set of each of these images, as the REST API gives it; empty where it gives none."""

        def read(id_: str) -> str:
            status, content = fetch(f"{self.node.url}/instances/{id_}/file", authorization=self.node.authorization, seconds=60)
            return _md5(content) if status == http.HTTPStatus.OK else ""

        with ThreadPoolExecutor(2) as pool:
            return dict(zip(ids, pool.map(read, ids), strict=True))

    # --- how often it stored each ---

    def count_stores(self) -> None:
        """Begin to count; needs an index in PostgreSQL."""
        said = self._sql(_COUNT)
        assert not said, said

    def stores(self, ids: Iterable[str] | None = None) -> tuple[int, int]:
        """How often it stored an image, these or any, and how many different ones, since count_stores()."""
        listed = ", ".join(f"'{id_}'" for id_ in ids or ())
        only = f" where instance in ({listed})" if ids is not None else ""
        stores, images = self._sql(f"select count(*), count(distinct instance) from public.faults_stored{only}").split("|")
        return int(stores), int(images)

    def _sql(self, query: str) -> str:
        return self.stack.sql(query, database=f"orthanc_{self.node.name}".replace("-", "_"))


def _md5(file: bytes) -> str:
    """Of the data set in a file; empty where it is no DICOM file."""
    try:
        return hashlib.md5(dataset_bytes(file)).hexdigest()
    except (AssertionError, IndexError):
        return ""
