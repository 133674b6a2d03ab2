"""What is asked of the node's Orthanc to send images to a destination, and to have them confirmed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from forwarder.orthanc import AnswerError, Image, Orthanc
from forwarder.trouble import Failure, Fault, failure_of

#: Seconds that a destination may take to accept an association or to answer a message.
_SECONDS_TO_ANSWER = 30
_SECONDS_TO_ECHO = 5
#: Seconds that a batch may take in all: some large images over a slow line.
_SECONDS_TO_SEND = 1800.0

#: Storage commitment's reasons for a failure, DICOM PS3.3, C.14.1.1.
_FAILURE_REASONS: Mapping[int, str] = {
    0x0110: "its file there cannot be read",
    0x0112: "it is not there",
    0x0119: "it is there with another SOP class",
    0x0122: "SOP class not supported",
    0x0131: "transaction UID used twice",
    0x0213: "out of resources",
}


class Destination:
    """One entry of the node's DicomModalities."""

    def __init__(self, orthanc: Orthanc, name: str) -> None:
        self._orthanc = orthanc
        self._path = f"/modalities/{name}"

    def echo(self) -> Failure | None:
        """C-ECHO: None when it answers."""
        try:
            self._orthanc.post(f"{self._path}/echo", {"Timeout": _SECONDS_TO_ECHO}, timeout=_SECONDS_TO_ECHO * 6)
        except AnswerError as error:
            return Failure(Fault.DESTINATION, failure_of(error).reason)
        return None

    def store(self, images: Sequence[Image], *, commitment: bool) -> str:
        """C-STORE over one association, and a request for storage commitment after it; ends at the first image that fails.

        Orthanc 1.12.7 fails a job that mixes transfer syntaxes of one SOP class: the images have one.

        Returns:
            the UID of the storage commitment transaction; empty without one.

        Raises:
            AnswerError: an image failed, which one is not told.
        """
        wanted = {
            "Resources": [image.id for image in images],
            "StorageCommitment": commitment,
            "Synchronous": True,
            "Timeout": _SECONDS_TO_ANSWER,
        }
        job = self._orthanc.post(f"{self._path}/store", wanted, timeout=_SECONDS_TO_SEND)
        return str(job.get("StorageCommitmentTransactionUID", "")) if commitment else ""

    def ask_commitment(self, images: Iterable[Image]) -> str:
        """Ask for storage commitment of images; the transaction's UID.

        Raises:
            AnswerError: the destination cannot be asked.
        """
        wanted = [{"SOPClassUID": image.sop_class, "SOPInstanceUID": image.sop_instance} for image in images]
        asked = self._orthanc.post(
            f"{self._path}/storage-commitment", {"DicomInstances": wanted, "Timeout": _SECONDS_TO_ANSWER}, timeout=_SECONDS_TO_ANSWER * 4
        )
        return str(asked["ID"])

    def commitment(self, transaction: str) -> Mapping[str, str] | None:
        """The report of a transaction: for each SOP instance UID a reason why it is not committed, empty where it is.

        Returns:
            None while there is none.

        Raises:
            LookupError: the node knows no such transaction: it was started anew, or never asked.
        """
        try:
            report = self._orthanc.get(f"/storage-commitment/{transaction}")
        except AnswerError:
            raise LookupError(transaction) from None
        if report["Status"] == "Pending":
            return None
        failures = {one["SOPInstanceUID"]: _reason(int(one["FailureReason"])) for one in report["Failures"]}
        return {one["SOPInstanceUID"]: "" for one in report["Success"]} | failures

    def query(self, study_uid: str, series_uid: str, images: Iterable[Image]) -> set[str]:
        """C-FIND: which of a series' images the destination lists.

        Raises:
            AnswerError: it cannot be asked.
        """
        # A list of UIDs in one key is DICOM's own way to ask for several (PS3.4, C.2.2.2.2).
        wanted = {
            "StudyInstanceUID": study_uid,
            "SeriesInstanceUID": series_uid,
            "SOPInstanceUID": "\\".join(image.sop_instance for image in images),
        }
        body = {"Level": "Instance", "Query": wanted, "Timeout": _SECONDS_TO_ANSWER}
        asked = self._orthanc.post(f"{self._path}/query", body, timeout=_SECONDS_TO_SEND)
        answers = self._orthanc.get(f"/queries/{asked['ID']}/answers?expand&simplify")
        return {str(answer["SOPInstanceUID"]).strip("\0 ") for answer in answers}


def _reason(number: int) -> str:
    return _FAILURE_REASONS.get(number, f"storage commitment failed with reason 0x{number:04X}")
