"""Runs inside each Orthanc: keeps some of the disk free, and answers storage commitment after reading each file.

Loaded by Orthanc's Python plugin, not by this project's program.

A disk that is full: the index in SQLite then takes no record of what was delivered, and no deletion (Orthanc's error 1009), so that nothing
is ever freed. And Orthanc leaves the beginning of each file that it could not write (FilesystemStorage::Create), whatever the index. It
has no option for it: MaximumStorageSize counts the images of this node, and does not look at the disk. So images are refused before.

Storage commitment: Orthanc's own answer comes from its caches where it can: an image whose file is gone from the disk is still committed
to as long as the image is in memory. This one reads the file from the disk and compares its MD5 with the one in the database (DICOM PS3.4,
J.3: "safely stored").
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Thread, get_ident
from time import sleep
from typing import Any

import orthanc  # made by Orthanc's Python plugin

_STORAGE = Path(json.loads(orthanc.GetConfiguration())["StorageDirectory"])

# --- room on the disk ---

#: What is kept free on the file system of the images: this part of it, and at most so many bytes.
_RESERVED_PART, _MOST_RESERVED = 0.02, 1 << 30
#: Each image is looked at from so many times the reserve on. Not before: that Orthanc calls Python costs 0.1 ms an image, which is 4 % of
#: the images a second where nothing else is slow.
_NEARLY_FULL = 10
_LOOK_EVERY_SECONDS = 1.0
#: The DIMSE status "refused: out of resources" (PS3.4, table B.2-1): the sender may try again.
_OUT_OF_RESOURCES = 0xA700
#: How images come by HTTP: Orthanc's own way, and DICOMweb's.
_UPLOADS = re.compile(r"/instances/*|/dicom-web/studies(/[0-9.]+)?/*")
#: An upload may be a ZIP archive: how many times larger the images may be.
_UNPACKED = 4
#: The size of the image that each of Orthanc's threads took last: its file may still be on the way to the disk.
_taken: dict[int, int] = {}


def _disk() -> tuple[int, int]:
    """How many bytes are free, and how many of them are kept."""
    disk = os.statvfs(_STORAGE)
    return disk.f_bavail * disk.f_frsize, int(min(_MOST_RESERVED, _RESERVED_PART * disk.f_blocks * disk.f_frsize))


def _has_room(size: int) -> bool:
    """Whether so many bytes more leave the reserve free."""
    free, reserve = _disk()
    if free - sum(list(_taken.values())) - size >= reserve:
        return True
    orthanc.LogWarning(f"Refused {size:,} bytes of images: the disk has {free:,} bytes free, and {reserve:,} are kept for the index")
    return False


def _image_status(image: Any) -> int:
    """The DIMSE status to refuse an image with that comes by C-STORE; 0 to store it."""
    thread, size = get_ident(), image.GetInstanceSize()
    _taken[thread] = 0
    if not _has_room(size):
        return _OUT_OF_RESOURCES
    _taken[thread] = size
    return 0


def _is_served(uri: str, method: int, headers: Mapping[str, str], **_: Any) -> bool:
    """Whether Orthanc serves a request by HTTP, or answers 403: the only status that it has for this."""
    if method != orthanc.HttpMethod.POST or not _UPLOADS.fullmatch(uri):
        return True
    return _has_room(_UNPACKED * int(headers.get("content-length", "0")))


def _is_nearly_full() -> bool:
    free, reserve = _disk()
    return free < _NEARLY_FULL * reserve


def _look_at_images() -> None:
    """Let Orthanc ask about each image from now on.

    The requests by HTTP come first. While this thread registers a filter, it holds Python's lock and takes Orthanc's for plugins; a C-STORE
    takes them in the other order once its filter is there (OrthancPlugins.cpp, FilterIncomingCStoreInstance).
    """
    orthanc.RegisterIncomingHttpRequestFilter(_is_served)
    orthanc.RegisterIncomingCStoreInstanceFilter(_image_status)


def _watch() -> None:
    """Wait until the disk is nearly full."""
    while not _is_nearly_full():
        sleep(_LOOK_EVERY_SECONDS)
    _look_at_images()


if _is_nearly_full():
    _look_at_images()
else:
    Thread(target=_watch, daemon=True).start()

# --- storage commitment ---

#: Images that are looked up at once: one by one, that was half of what a commitment cost with the index in PostgreSQL.
_CHUNK = 100
_DICOM_FILE = 1  # OrthancPluginContentType_Dicom
_MD5_OF_NOTHING = hashlib.md5(usedforsecurity=False).hexdigest()


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
