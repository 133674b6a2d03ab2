"""Destinations that are none: what the node of orthancs.py sends to, and what can be wrong with it."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from typing import Any

CT = "1.2.840.10008.5.1.4.1.1.2"
SECRET = "1.2.840.10008.5.1.4.1.1.481.1"
LITTLE = "1.2.840.10008.1.2.1"
JPEG = "1.2.840.10008.1.2.4.70"
#: What nothing but the images themselves may hold.
PATIENT = "Doe^Jane"
#: What Orthanc's error codes mean (Enumerations.cpp, EnumerationToString).
ERRORS = {
    -1: "Internal error",
    0: "Success",
    9: "Error in the network protocol",
    37: "This job was canceled",
    2015: "DicomUserConnection: No acceptable presentation context for modality",
}


@dataclass(frozen=True)
class Stored:
    """An image of the node. ``md5`` is of its content: without one, each file has a content of its own."""

    id: str
    series: str
    file: str
    uid: str
    sop_class: str = CT
    syntax: str = LITTLE
    aet: str = "SCANNER"
    received: str = ""
    size: int = 500_000
    md5: str = ""
    tags: dict[str, str] = field(default_factory=dict, hash=False)  # what the node finds in its file
    made_from: str = ""  # the metadata by which the node notes that it made it from another one

    def __post_init__(self) -> None:
        if not self.md5:
            object.__setattr__(self, "md5", hashlib.md5(self.file.encode(), usedforsecurity=False).hexdigest())

    def said(self) -> dict[str, Any]:
        """What the node says of it where it is asked for by its identifier."""
        metadata = {"SopClassUid": self.sop_class, "TransferSyntax": self.syntax, "ReceptionDate": self.received}
        metadata |= {self.made_from: "another one"} if self.made_from else {}
        said = {"ID": self.id, "ParentSeries": self.series, "MainDicomTags": {"SOPInstanceUID": self.uid, "ImageComments": PATIENT}}
        file = {"FileUuid": self.file, "FileSize": self.size}
        return {**said, **file, "Metadata": {**metadata, **({"RemoteAET": self.aet} if self.aet else {})}}

    def found(self) -> dict[str, Any]:
        """What a query answers of it (ResourceFinder::Expand)."""
        said = {key: value for key, value in self.said().items() if not key.startswith("File")}
        sizes = {"UncompressedSize": self.size, "CompressedSize": self.size}
        file = {"Uuid": self.file, "ContentType": 1, **sizes, "UncompressedMD5": self.md5, "CompressedMD5": self.md5}
        return {**said, "Attachments": [{**file, "Uuid": "none", "ContentType": 3}, file]}


@dataclass
class Group:
    """A series of the node."""

    id: str
    study: str
    tags: dict[str, str]
    study_tags: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    images: dict[str, Stored] = field(default_factory=dict)


class RefusedError(Exception):
    """An answer that is not 200. Without a code it has no body, as of a route that answers nothing (RestApiOutput::Finalize)."""

    def __init__(self, status: int, code: int = 0, details: str = "") -> None:
        super().__init__(details)
        self.code, self.details = code, details
        said = {"HttpStatus": status, "OrthancStatus": code, "OrthancError": ERRORS.get(code, "Error"), "Details": details}
        self.answer = status, said if code else None


@dataclass
class Peer:
    """A destination, with what can be wrong with it, and what it remembers."""

    aet: str = ""  # its AE title; without one, its name in capitals
    down: bool = False  # nothing reaches it
    crashes: set[str] = field(default_factory=set)  # SOP instance UIDs at which it cuts the association
    away: float = 0.0  # seconds that nothing reaches it after that
    refuses: set[str] = field(default_factory=set)  # SOP classes that it does not accept
    statuses: dict[str, str] = field(default_factory=dict)  # DIMSE statuses of C-STORE, by SOP instance UID; ``*`` for all
    warnings: dict[str, str] = field(default_factory=dict)  # DIMSE statuses of warning with which it takes an image
    loses: int = 0  # how many images it will accept and not keep
    report_after: float | None = 0.0  # seconds until it reports on storage commitment; None for never
    omits: set[str] = field(default_factory=set)  # SOP instance UIDs that its reports say nothing of
    commits: bool = True  # whether it has storage commitment
    echoes: bool = True  # whether it has C-ECHO
    finds: bool = True  # whether it has C-FIND
    one_uid: bool = False  # whether its C-FIND knows one UID at a time
    converts: bool = True  # whether the node can convert to a transfer syntax that it takes
    slow: float = 0.0  # seconds that each association takes
    slow_image: float = 0.0  # seconds that each image is on its way
    answers_after: float = 0.0  # seconds from an image's arrival to the answer; beyond the node's timeout the association breaks
    first_wins: bool = False  # whether it keeps the first file of a UID; it answers 0x0111, which Orthanc takes for success
    changes_uids: bool = False  # whether it has what it takes under another UID, a new one each time
    returns: str = ""  # the AE title under which it sends back to the node each image that it takes
    returns_other: bool = False  # whether what it sends back has other content
    reports_late: list[float] = field(default_factory=list)  # report_after of the next transactions
    nonsense: bool = False  # whether its answers to a request for commitment or a query are none
    lists_uids: bool = True  # whether its answers to a query hold what was asked for
    stored: dict[str, str] = field(default_factory=dict)  # the file that it has, by SOP instance UID
    got: list[str] = field(default_factory=list)  # the files that it took, in their order, also those that it lost
    batches: list[list[Stored]] = field(default_factory=list)  # the images of each association that got through
    tried: list[tuple[float, str]] = field(default_factory=list)  # when it was called, and for what

    _back: float = 0.0  # when it is there again after a crash
    _series: dict[str, str] = field(default_factory=dict)  # in which series it has what it has

    @property
    def _gone(self) -> bool:
        return self.down or time.monotonic() < self._back

    def call(self, what: str) -> None:
        """An association begins, for a service that is accepted or not, as Orthanc's DicomAssociation::Open tells it."""
        self.tried.append((time.monotonic(), what))
        if self._gone:
            raise self._broken("connecting", f"TCP Initialization Error: Connection refused {PATIENT}")
        if not {"echo": self.echoes, "query": self.finds, "storage-commitment": self.commits}.get(what, True):
            self.refuse_service()

    def _broken(self, command: str, words: str) -> RefusedError:
        """What DicomAssociation::CheckCondition makes of DCMTK's words."""
        return RefusedError(500, 9, f'DicomAssociation - {command} to AET "{self.aet}": {words}')

    @staticmethod
    def refuse_service() -> None:
        """It accepts the association, and no presentation context."""
        raise RefusedError(500, 2015, f'Unable to negotiate a presentation context with AET "{PATIENT}"')

    def calls(self, what: str) -> list[float]:
        """When it was called for something."""
        return [at for at, why in self.tried if why == what]

    def take(self, image: Stored, timeout: float = 0.0) -> None:
        """C-STORE; the node waits ``timeout`` seconds for the answer, 0 for ever."""
        if image.sop_class in self.refuses:
            raise RefusedError(500, 2015, f"No valid presentation context was negotiated for {PATIENT}")
        if image.syntax == JPEG and not self.converts:
            raise RefusedError(500, -1, f"Cannot transcode instance of SOPClassUID {CT} from {JPEG} to one of [ {LITTLE} ] {PATIENT}")
        time.sleep(self.slow_image)
        if image.uid in self.crashes:
            self._back = time.monotonic() + self.away
        if self._gone or image.uid in self.crashes:
            raise self._broken("C-STORE", "Peer aborted Association (or never connected)")
        if status := self.statuses.get(image.uid) or self.statuses.get("*"):
            raise RefusedError(500, 9, f'C-STORE SCU to AET "X" has failed with DIMSE status 0x{status} ({PATIENT})')
        self.got.append(image.file)
        uid = f"{image.uid}.{len(self.got)}" if self.changes_uids else image.uid
        if self.loses > 0:
            self.loses -= 1
        elif not (self.first_wins and uid in self.stored):
            self.stored[uid] = image.file
            self._series[uid] = f"3.{image.series}"
        time.sleep(min(self.answers_after, timeout or self.answers_after))
        if 0 < timeout < self.answers_after:
            raise self._broken("C-STORE", "DIMSE No data available (timeout in non-blocking mode)")
        if image.uid in self.warnings:
            raise RefusedError(500, 9, f'C-STORE SCU to AET "X" has failed with DIMSE status 0x{self.warnings[image.uid]} ({PATIENT})')

    def lists(self, series: set[str]) -> list[str]:
        """The UIDs under which it has images of a series, of which the node has these UIDs."""
        return sorted(uid for uid in self.stored if not series.isdisjoint({uid, uid.rpartition(".")[0]}))

    def has(self, uid: str, series: str) -> bool:
        """Whether it has an image in a series, by the UIDs of both; another image with the same UID has taken its place."""
        return uid in self.stored and self._series.get(uid, series) == series

    def report(self, asked: list[tuple[str, str]]) -> dict[str, Any]:
        """What it says of images, by class and UID."""
        told = [{"SOPClassUID": one, "SOPInstanceUID": uid} for one, uid in asked if uid not in self.omits]
        there = [one for one in told if one["SOPInstanceUID"] in self.stored]
        gone = [{**one, "FailureReason": 0x0112} for one in told if one not in there]
        return {"Status": "Failure" if gone else "Success", "Success": there, "Failures": gone}
