"""The script that runs inside each Orthanc, with an Orthanc that this file plays: what real ones do is in the stack's tests."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "components" / "payload" / "storage.py"
SUCCESS, FAILURE, MISSING = 0, 0x0110, 0x0112
OUT_OF_RESOURCES = 0xA700
GET, POST = 1, 2
MIB = 1 << 20


class _OrthancError(Exception):
    pass


@dataclass
class Archive:
    """An Orthanc with files in a folder."""

    storage: Path
    instances: dict[str, tuple[str, str]] = field(default_factory=dict)  # SOP instance UID and the UUID of the file, by identifier
    finds: list[int] = field(default_factory=list)  # how many UIDs each query asked for
    plugin: str | None = None  # what keeps the files instead of Orthanc itself
    verified: list[str] = field(default_factory=list)  # the instances that Orthanc was asked to verify
    log: list[str] = field(default_factory=list)
    asks: list[str] = field(default_factory=list)  # what it asks the script about
    _md5: dict[str, str] = field(default_factory=dict)
    _size: dict[str, int] = field(default_factory=dict)

    def store(self, instance: str, uid: str, content: bytes, md5_of: bytes | None = None) -> Path:
        """Store an image; its file. Orthanc takes it for one of other content where ``md5_of`` says so."""
        uuid = f"{len(self._md5):08x}-0000-0000-0000-000000000000"
        self.instances[instance] = uid, uuid
        self._md5[uuid] = hashlib.md5(content if md5_of is None else md5_of).hexdigest()
        self._size[uuid] = len(content)
        file = self.storage / uuid[:2] / uuid[2:4] / uuid
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file

    def post(self, path: str, body: str) -> str:
        """The REST API, as far as the script needs it."""
        if path == "/tools/find":
            wanted = json.loads(body)["Query"]["SOPInstanceUID"].split("\\")
            self.finds.append(len(wanted))
            return json.dumps([self._told(one) for one, (uid, _) in self.instances.items() if uid in wanted])
        # From the cache, as Orthanc 1.13.0: whatever became of the file.
        self.verified.append(path.split("/")[2])
        return "{}"

    def _told(self, instance: str) -> dict[str, Any]:
        uid, uuid = self.instances[instance]
        image = {"ContentType": 1, "Uuid": uuid, "CompressedMD5": self._md5[uuid], "CompressedSize": self._size[uuid]}
        other = {"ContentType": 3, "Uuid": "x", "CompressedMD5": "", "CompressedSize": 0}
        return {"ID": instance, "MainDicomTags": {"SOPInstanceUID": uid}, "Attachments": [image, other]}


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


@pytest.fixture
def script(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, loaded as Orthanc loads it; its own thread does not run."""
    monkeypatch.setattr(threading, "Thread", lambda **_: SimpleNamespace(start=lambda: None))
    orthanc = SimpleNamespace(
        OrthancException=_OrthancError,
        RestApiPost=archive.post,
        RestApiGet=lambda _: json.dumps({"StorageAreaPlugin": archive.plugin}),
        GetConfiguration=lambda: json.dumps({"StorageDirectory": str(archive.storage)}),
        LogWarning=archive.log.append,
        RegisterIncomingCStoreInstanceFilter=lambda _: archive.asks.append("C-STORE"),
        RegisterIncomingHttpRequestFilter=lambda _: archive.asks.append("HTTP"),
        RegisterStorageCommitmentScpCallback=lambda *_: None,
        HttpMethod=SimpleNamespace(POST=POST),
        StorageCommitmentFailureReason=SimpleNamespace(SUCCESS=SUCCESS, PROCESSING_FAILURE=FAILURE, NO_SUCH_OBJECT_INSTANCE=MISSING),
    )
    monkeypatch.setitem(sys.modules, "orthanc", orthanc)
    spec = importlib.util.spec_from_file_location("storage", SOURCE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def asked(script: Any, uids: list[str]) -> list[int]:
    """The answer for each image of one transaction."""
    transaction = script._begin("job", "2.25.1", [], uids, "CLIENT", "SERVER")
    return [script._is_safely_stored("1.2", uid, transaction) for uid in uids]


def test_images_are_looked_up_a_hundred_at_once(script: Any, archive: Archive) -> None:
    uids = [f"1.2.{number}" for number in range(250)]
    for uid in uids:
        archive.store(f"instance-{uid}", uid, uid.encode())
    assert asked(script, uids) == [SUCCESS] * 250
    assert archive.finds == [100, 100, 50]
    assert archive.verified == []


def test_what_is_missing_gone_or_broken_is_told_of_that_image_alone(script: Any, archive: Archive) -> None:
    archive.store("whole", "1.1", b"whole")
    archive.store("gone", "1.2", b"gone").unlink()
    archive.store("broken", "1.3", b"broken").write_bytes(b"br0ken")
    assert asked(script, ["1.1", "1.2", "1.3", "1.4"]) == [SUCCESS, FAILURE, FAILURE, MISSING]


def test_an_image_that_was_stored_again_since_it_was_looked_up_is_looked_up_anew(script: Any, archive: Archive) -> None:
    first = archive.store("one", "1.1", b"old")
    transaction = script._begin("job", "2.25.1", [], ["1.0", "1.1"], "CLIENT", "SERVER")
    assert script._is_safely_stored("1.2", "1.0", transaction) == MISSING
    archive.store("one", "1.1", b"new")
    first.unlink()
    assert script._is_safely_stored("1.2", "1.1", transaction) == SUCCESS
    assert archive.finds == [2, 1, 1]


def test_files_that_a_plugin_keeps_are_verified_by_orthanc(script: Any, archive: Archive) -> None:
    archive.plugin = "s3"
    archive.store("one", "1.1", b"one").unlink()
    assert asked(script, ["1.1", "1.2"]) == [SUCCESS, MISSING]
    assert archive.verified == ["one"]


def test_of_two_instances_with_one_uid_both_count(script: Any, archive: Archive) -> None:
    archive.store("one", "1.1", b"one")
    other = archive.store("two", "1.1", b"two")
    assert asked(script, ["1.1"]) == [SUCCESS]
    other.unlink()
    assert asked(script, ["1.1"]) == [FAILURE]


def test_an_md5_that_orthanc_made_of_nothing_proves_nothing(script: Any, archive: Archive) -> None:
    """Before Orthanc 1.12.8, that is the MD5 of each file from 2 GiB on; such a file is played by a small one."""
    archive.store("large", "1.1", b"large", md5_of=b"")
    archive.store("emptied", "1.2", b"large", md5_of=b"").write_bytes(b"")
    archive.store("cut", "1.3", b"large", md5_of=b"la").write_bytes(b"la")
    assert asked(script, ["1.1", "1.2", "1.3"]) == [FAILURE] * 3
    archive.plugin = "s3"
    assert asked(script, ["1.1"]) == [FAILURE]


# --- room on the disk ---


@dataclass
class Disk:
    """A file system, as statvfs(3) tells it."""

    size: int
    free: int

    def told(self, _: Path) -> SimpleNamespace:
        return SimpleNamespace(f_frsize=4096, f_blocks=self.size // 4096, f_bavail=self.free // 4096)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk(1000 * MIB, 1000 * MIB)
    monkeypatch.setattr(os, "statvfs", disk.told)
    return disk


def stored(script: Any, size: int) -> int:
    """The DIMSE status of an image by C-STORE."""
    status: int = script._image_status(SimpleNamespace(GetInstanceSize=lambda: size))
    return status


def uploaded(script: Any, size: int, *, method: int = POST, uri: str = "/instances") -> bool:
    """Whether a request by HTTP is served."""
    served: bool = script._is_served(uri, method=method, ip="10.0.0.1", headers={"content-length": str(size)})
    return served


@pytest.mark.parametrize(("size", "reserve"), [(1000 * MIB, 20 * MIB), (4000 * 1024 * MIB, 1024 * MIB)])
def test_an_image_that_would_not_leave_the_reserve_free_is_refused(
    script: Any, archive: Archive, disk: Disk, size: int, reserve: int
) -> None:
    disk.size, disk.free = size, reserve + 3 * MIB
    assert [stored(script, 4 * MIB), stored(script, 3 * MIB)] == [OUT_OF_RESOURCES, 0]
    (line,) = archive.log
    assert f"Refused {4 * MIB:,} bytes" in line
    assert f"has {disk.free:,} bytes free" in line
    disk.free += MIB
    assert stored(script, 4 * MIB) == 0, "there is room again"


def test_an_image_that_another_thread_took_may_not_be_on_the_disk_yet(script: Any, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.free = 20 * MIB + 100 * MIB
    threads = iter([1, 2, 3, 3, 1])
    monkeypatch.setattr(script, "get_ident", lambda: next(threads))
    assert [stored(script, size * MIB) for size in (40, 40, 30, 20)] == [0, 0, OUT_OF_RESOURCES, 0], "100 MiB for three threads"
    assert stored(script, 40 * MIB) == 0, "a thread that takes another image has written the one before"


@pytest.mark.parametrize("uri", ["/instances", "/instances/", "/dicom-web/studies", "/dicom-web/studies/1.2.3"])
def test_an_upload_is_refused_in_time_also_where_it_is_a_zip_archive(script: Any, disk: Disk, uri: str) -> None:
    disk.free = 20 * MIB + 8 * MIB
    assert [uploaded(script, size * MIB, uri=uri) for size in (3, 2)] == [False, True]


def test_nothing_but_uploads_needs_room(script: Any, disk: Disk) -> None:
    disk.free = 0
    others = {
        (POST, "/tools/find"),
        (POST, "/modalities/pacs/store"),
        (POST, "/instances/x/attachments/dicom/verify-md5"),
        (GET, "/instances"),
    }
    assert [uploaded(script, MIB, method=method, uri=uri) for method, uri in sorted(others)] == [True] * 4
    assert not uploaded(script, MIB)


def test_images_are_looked_at_when_the_disk_is_nearly_full(
    script: Any, archive: Archive, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(_: float) -> None:
        assert archive.asks == []
        disk.free -= 300 * MIB

    monkeypatch.setattr(script, "sleep", wait)
    script._watch()
    assert disk.free == 100 * MIB, "of 1000, with 20 kept"
    assert archive.asks == ["HTTP", "C-STORE"], "in the order that cannot block"


def test_a_node_that_starts_on_a_full_disk_looks_at_the_first_image(disk: Disk, request: pytest.FixtureRequest) -> None:
    disk.free = 0
    request.getfixturevalue("script")
    assert request.getfixturevalue("archive").asks == ["HTTP", "C-STORE"]
