"""Runs inside an Orthanc that others forward to: answers storage commitment after reading each file.

Loaded by Orthanc's Python plugin, not by this project's program. Orthanc's own answer comes from its caches where it can: an image
whose file is gone from the disk is still committed to as long as the image is in memory. This one reads the file from the disk and
compares its MD5 with the one in the database (DICOM PS3.4, J.3: "safely stored").
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orthanc  # made by Orthanc's Python plugin

#: Images that are looked up at once: one by one, that was half of what a commitment cost with the index in PostgreSQL.
_CHUNK = 100
_DICOM_FILE = 1  # OrthancPluginContentType_Dicom
_MD5_OF_NOTHING = hashlib.md5(usedforsecurity=False).hexdigest()
_STORAGE = Path(json.loads(orthanc.GetConfiguration())["StorageDirectory"])


class _Transaction:
    """What one transaction asks for; looked up some images at a time, when the first of them is wanted."""

    def __init__(self, uids: Sequence[str]) -> None:
        self._uids = uids
        self._positions = {uid: position for position, uid in enumerate(uids)}
        self._found: dict[str, list[dict[str, Any]]] = {}

    def instances(self, uid: str) -> list[dict[str, Any]]:
        """The instances with a SOP instance UID: several where, against the standard, two series have it."""
        if uid not in self._found:
            start = self._positions[uid]
            wanted = self._uids[start : start + _CHUNK]
            self._found = {one: [] for one in wanted}
            for instance in _find(wanted):
                self._found.setdefault(instance["MainDicomTags"]["SOPInstanceUID"], []).append(instance)
        return self._found[uid]


def _find(uids: Sequence[str]) -> list[dict[str, Any]]:
    """The instances with these SOP instance UIDs, each with its files."""
    asked = {"Level": "Instance", "Query": {"SOPInstanceUID": "\\".join(uids)}, "ResponseContent": ["MainDicomTags", "Attachments"]}
    found: list[dict[str, Any]] = json.loads(orthanc.RestApiPost("/tools/find", json.dumps(asked)))
    return found


def _begin(
    job_id: str, transaction_uid: str, sop_class_uids: Sequence[str], sop_instance_uids: Sequence[str], remote_aet: str, called_aet: str
) -> _Transaction:
    """A transaction begins."""
    return _Transaction(sop_instance_uids)


def _is_safely_stored(sop_class_uid: str, sop_instance_uid: str, transaction: _Transaction) -> int:
    """Whether an image is here, with a file that is what was stored: 0, or the reason why not (DICOM PS3.3, C.14.1.1)."""
    success: int = orthanc.StorageCommitmentFailureReason.SUCCESS
    try:
        instances = transaction.instances(sop_instance_uid)
        if instances and all(_is_as_stored(instance) for instance in instances):
            return success
    except (orthanc.OrthancException, OSError, KeyError, ValueError):
        pass
    # Not here, or broken; or stored once more since it was looked up; or not a plain file on this disk.
    return _asked_anew(sop_instance_uid)


def _file_of(instance: dict[str, Any]) -> dict[str, Any]:
    """What the database says of the file of an instance."""
    (file,) = (one for one in instance["Attachments"] if one["ContentType"] == _DICOM_FILE)
    return dict(file)


def _is_as_stored(instance: dict[str, Any]) -> bool:
    """Whether the file of an instance has the size and the MD5 that the database says.

    The size, because an Orthanc before 1.12.8 took the length of a file for a 32-bit integer (Toolbox::ComputeMD5): from 2 GiB on, the MD5
    in its database is that of nothing, which an empty file has, and from 4 GiB on that of the file's beginning.
    """
    file = _file_of(instance)
    uuid: str = file["Uuid"]
    with (_STORAGE / uuid[:2] / uuid[2:4] / uuid).open("rb") as content:
        if os.fstat(content.fileno()).st_size != file["CompressedSize"]:
            return False
        # In parts: a file may be larger than the container's memory.
        md5 = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False))
    return md5.hexdigest() == str(file["CompressedMD5"])


def _asked_anew(uid: str) -> int:
    """The same of an image as it is now."""
    reasons = orthanc.StorageCommitmentFailureReason
    try:
        instances = _find([uid])
        # Orthanc's own check is from its cache since 1.13.0 (it was not in 1.12.7): it finds right what is gone from the disk. It is asked
        # only where files are a plugin's, and this cannot read them.
        check = _is_as_stored if json.loads(orthanc.RestApiGet("/system"))["StorageAreaPlugin"] is None else _is_right_by_orthanc
        if not all(map(check, instances)):
            return int(reasons.PROCESSING_FAILURE)
    except (orthanc.OrthancException, OSError, KeyError, ValueError):
        return int(reasons.PROCESSING_FAILURE)
    return int(reasons.SUCCESS if instances else reasons.NO_SUCH_OBJECT_INSTANCE)


def _is_right_by_orthanc(instance: dict[str, Any]) -> bool:
    """Whether Orthanc says so: it answers only when the MD5 is right, and raises when there is no file, or another one.

    The MD5 of nothing (see _is_as_stored) is right for any content to an Orthanc before 1.12.8.
    """
    orthanc.RestApiPost(f"/instances/{instance['ID']}/attachments/dicom/verify-md5", "")
    return bool(_file_of(instance)["CompressedMD5"] != _MD5_OF_NOTHING)


orthanc.RegisterStorageCommitmentScpCallback(_begin, _is_safely_stored)
