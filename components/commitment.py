"""Runs inside an Orthanc that others forward to: answers storage commitment after reading each file.

Loaded by Orthanc's Python plugin, not by this project's program. Orthanc's own answer comes from its caches where it can: an image
whose file is gone from the disk is still committed to as long as the image is in memory. This one reads the file from the disk and
compares its MD5 with the one in the database (DICOM PS3.4, J.3: "safely stored").
"""

import json

import orthanc  # made by Orthanc's Python plugin


def _begin(job_id, transaction_uid, sop_class_uids, sop_instance_uids, remote_aet, called_aet):  # type: ignore[no-untyped-def]
    """A transaction begins; nothing has to be kept for it."""
    return None


def _is_safely_stored(sop_class_uid, sop_instance_uid, _transaction):  # type: ignore[no-untyped-def]
    """Whether an image is here, with a file that is what was stored."""
    reasons = orthanc.StorageCommitmentFailureReason
    try:
        # Not by the REST API, which looks on each level: with the index in PostgreSQL that was half of what a commitment cost.
        identifiers = [orthanc.LookupInstance(sop_instance_uid)]
    except orthanc.OrthancException:
        # None, or several: the same UID in two series, against the standard. Then each of them counts.
        found = json.loads(orthanc.RestApiPost("/tools/lookup", sop_instance_uid))
        identifiers = [one["ID"] for one in found if one["Type"] == "Instance"]
    if not identifiers:
        return reasons.NO_SUCH_OBJECT_INSTANCE
    try:
        for identifier in identifiers:
            # Answers only when the MD5 is right; raises when there is no file, or another one. Never from the cache.
            orthanc.RestApiPost(f"/instances/{identifier}/attachments/dicom/verify-md5", "")
    except orthanc.OrthancException:
        return reasons.PROCESSING_FAILURE
    return reasons.SUCCESS


orthanc.RegisterStorageCommitmentScpCallback(_begin, _is_safely_stored)
