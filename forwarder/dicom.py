"""What is asked of the node's Orthanc to send images to a destination, and to have them confirmed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from forwarder.config import Confirm, Method
from forwarder.orthanc import AnswerError, Image, Orthanc
from forwarder.trouble import FILE_NOT_READABLE, Failure, Fault, failure_of

#: Seconds that a destination may take to accept an association or to answer a message.
_SECONDS_TO_ANSWER = 30
_SECONDS_TO_ECHO = 5
#: Seconds that a batch may take in all: some large images over a slow line.
_SECONDS_TO_SEND = 1800.0
#: Seconds until a destination is asked again for what it turned out not to have: devices change without telling anybody.
_ASK_AGAIN_SECONDS = 900.0
#: How a destination can confirm, the strongest first.
METHODS: Sequence[Method] = ("commitment", "query", "stored")
#: What is said of a link whose destination has not got what the stack file asks for.
_LACKS: Mapping[str, str] = {
    "commitment": "offers no storage commitment: set confirm: query, or stored",
    "query": "answers no query (C-FIND): set confirm: commitment, or stored",
}

#: Storage commitment's reasons for a failure, DICOM PS3.3, C.14.1.1.
_FAILURE_REASONS: Mapping[int, str] = {
    0x0110: "its file there cannot be read",
    0x0112: "it is not there",
    0x0119: "it is there with another SOP class",
    0x0122: "SOP class not supported",
    0x0131: "transaction UID used twice",
    0x0213: "out of resources",
}


class Offers:
    """How a destination confirms: what the stack file asks for, less what the destination turned out not to have.

    Attributes:
        wanted: the link's ``confirm``.
    """

    def __init__(self, wanted: Confirm) -> None:
        self.wanted = wanted
        self._lacking: dict[str, float] = {}

    def lacks(self, method: Method, now: float) -> None:
        """It has no such service; ``now`` is on time.monotonic()'s clock, as every time here."""
        self._lacking[method] = now + _ASK_AGAIN_SECONDS

    def has(self, method: Method) -> bool:
        """It has such a service. Whether that is news."""
        return self._lacking.pop(method, None) is not None

    def ask_soon(self) -> None:
        """Ask for everything again that it turned out not to have."""
        for method in METHODS:
            if method in self._lacking:
                self._lacking[method] = 0.0

    def may(self, method: Method, now: float) -> bool:
        """Whether it may have a service, or may have it by now."""
        return self._lacking.get(method, 0.0) <= now

    def method(self, now: float) -> Method | None:
        """How to have images confirmed now; None where it is known not to have what the stack file asks for."""
        return next((method for method in self._allowed if method == "stored" or self.may(method, now)), None)

    @property
    def in_use(self) -> Method | None:
        """How it confirms, as far as is known."""
        return next((method for method in self._allowed if method not in self._lacking), None)

    @property
    def _allowed(self) -> Sequence[Method]:
        return METHODS if self.wanted == "auto" else (self.wanted,)

    def note(self, *, deletes: bool) -> str:
        """What it lacks of what the stack file asks for, in words; ``deletes``: the node deletes what was confirmed."""
        if self.wanted in self._lacking:
            return _LACKS[self.wanted]
        if deletes and "commitment" in self._lacking:
            return "offers no storage commitment: keep: until-confirmed deletes nothing that goes there"
        return ""


class Destination:
    """One entry of the node's DicomModalities."""

    def __init__(self, orthanc: Orthanc, name: str) -> None:
        self._orthanc = orthanc
        self._path = f"/modalities/{name}"
        self._way = "list"
        #: Whether a query has ever found an image there.
        self.lists_images = False

    def echo(self) -> Failure | None:
        """C-ECHO: None when it answers, or is there and has no C-ECHO: then only a transfer can tell how it does."""
        try:
            self._orthanc.post(f"{self._path}/echo", {"Timeout": _SECONDS_TO_ECHO}, timeout=_SECONDS_TO_ECHO * 6)
        except AnswerError as error:
            failure = failure_of(error)
            return None if failure.fault is Fault.IMAGE else Failure(Fault.DESTINATION, failure.reason)
        return None

    def store(self, images: Sequence[Image]) -> None:
        """C-STORE over one association; ends at the first image that fails.

        Orthanc 1.12.7 fails a job that mixes transfer syntaxes of one SOP class: the images have one. Orthanc could ask for storage
        commitment in the same job (``StorageCommitment``). But a destination without it then fails the job after it has taken all
        images, with the error of a destination that accepts no presentation context for them (DicomAssociation::Open).

        Raises:
            AnswerError: an image failed, which one is not told.
        """
        wanted = {"Resources": [image.id for image in images], "Synchronous": True, "Timeout": _SECONDS_TO_ANSWER}
        job = self._orthanc.post(f"{self._path}/store", wanted, timeout=_SECONDS_TO_SEND)
        if job.get("FailedInstancesCount"):
            # Orthanc passes over images that are gone, or whose files it cannot read, and does not fail the job.
            raise AnswerError(500, FILE_NOT_READABLE, "")

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

        A list of UIDs in one key is DICOM's own way to ask for several (PS3.4, C.2.2.2.2). Not every device knows it: what is not found
        is asked for as a whole series, and one by one. The way that found something last comes first.

        Raises:
            AnswerError: it cannot be asked.
        """
        wanted = {image.sop_instance for image in images}
        found: set[str] = set()
        for way in sorted(("list", "series", "one by one"), key=lambda way: way != self._way):
            left = sorted(wanted - found)
            there = set[str]()
            for uids in {"list": ["\\".join(left)], "series": [""], "one by one": left}[way]:
                there |= self._find(study_uid, series_uid, uids) & wanted
            found |= there
            if there:
                self._way, self.lists_images = way, True
            if found == wanted or (way == "list" and len(there) > 1):
                break  # the destination knows lists: what it does not list, it has not
        return found

    def _find(self, study_uid: str, series_uid: str, uids: str) -> set[str]:
        wanted = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid, "SOPInstanceUID": uids}
        body = {"Level": "Instance", "Query": wanted, "Timeout": _SECONDS_TO_ANSWER}
        asked = self._orthanc.post(f"{self._path}/query", body, timeout=_SECONDS_TO_SEND)
        answers = self._orthanc.get(f"/queries/{asked['ID']}/answers?expand&simplify")
        return {str(answer.get("SOPInstanceUID", "")).strip("\0 ") for answer in answers}


def _reason(number: int) -> str:
    return _FAILURE_REASONS.get(number, f"storage commitment failed with reason 0x{number:04X}")
