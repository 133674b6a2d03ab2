"""The script inside an Orthanc that others forward to, with an Orthanc that this file plays; real ones are in the stack's tests."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "components" / "payload" / "commitment.py"
SUCCESS, FAILURE, MISSING = 0, 0x0110, 0x0112


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
    """The script, loaded as Orthanc loads it."""
    orthanc = SimpleNamespace(
        OrthancException=_OrthancError,
        RestApiPost=archive.post,
        RestApiGet=lambda _: json.dumps({"StorageAreaPlugin": archive.plugin}),
        GetConfiguration=lambda: json.dumps({"StorageDirectory": str(archive.storage)}),
        RegisterStorageCommitmentScpCallback=lambda *_: None,
        StorageCommitmentFailureReason=SimpleNamespace(SUCCESS=SUCCESS, PROCESSING_FAILURE=FAILURE, NO_SUCH_OBJECT_INSTANCE=MISSING),
    )
    monkeypatch.setitem(sys.modules, "orthanc", orthanc)
    spec = importlib.util.spec_from_file_location("commitment", SOURCE)
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
