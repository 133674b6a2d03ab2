"""Destinations that are none: what the node of orthancs.py sends to, and what can be wrong with it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

CT = "1.2.840.10008.5.1.4.1.1.2"
SECRET = "1.2.840.10008.5.1.4.1.1.481.1"
LITTLE = "1.2.840.10008.1.2.1"
JPEG = "1.2.840.10008.1.2.4.70"
#: What nothing but the images themselves may hold.
PATIENT = "Doe^Jane"


@dataclass(frozen=True)
class Stored:
    """An image of the node."""

    id: str
    series: str
    file: str
    uid: str
    sop_class: str = CT
    syntax: str = LITTLE
    aet: str = "SCANNER"
    received: str = ""


class RefusedError(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, code: int, details: str) -> None:
        super().__init__(details)
        self.answer = status, {"HttpStatus": status, "OrthancStatus": code, "OrthancError": "Error", "Details": details}


@dataclass
class Peer:
    """A destination, with what can be wrong with it, and what it remembers."""

    down: bool = False  # nothing reaches it
    refuses: set[str] = field(default_factory=set)  # SOP classes that it does not accept
    statuses: dict[str, str] = field(default_factory=dict)  # DIMSE statuses of C-STORE, by SOP instance UID; ``*`` for all
    loses: int = 0  # how many images it will accept and not keep
    report_after: float | None = 0.0  # seconds until it reports on storage commitment; None for never
    omits: set[str] = field(default_factory=set)  # SOP instance UIDs that its reports say nothing of
    commits: bool = True  # whether it has storage commitment
    echoes: bool = True  # whether it has C-ECHO
    finds: bool = True  # whether it has C-FIND
    one_uid: bool = False  # whether its C-FIND knows one UID at a time
    converts: bool = True  # whether the node can convert to a transfer syntax that it takes
    slow: float = 0.0  # seconds that each association takes
    nonsense: bool = False  # whether its answers to a request for commitment or a query are none
    lists_uids: bool = True  # whether its answers to a query hold what was asked for
    stored: dict[str, str] = field(default_factory=dict)  # the file that it has, by SOP instance UID
    got: list[str] = field(default_factory=list)  # the files that it took, in their order, also those that it lost
    batches: list[list[Stored]] = field(default_factory=list)  # the images of each association that got through
    tried: list[tuple[float, str]] = field(default_factory=list)  # when it was called, and for what

    def call(self, what: str) -> None:
        """An association begins, for a service that is accepted or not, as Orthanc's DicomAssociation::Open tells it."""
        self.tried.append((time.monotonic(), what))
        if self.down:
            raise RefusedError(500, 9, f"DicomAssociation - connecting to AET: TCP Initialization Error: Connection refused {PATIENT}")
        if not {"echo": self.echoes, "query": self.finds, "storage-commitment": self.commits}.get(what, True):
            self.refuse_service()

    @staticmethod
    def refuse_service() -> None:
        """It accepts the association, and no presentation context."""
        raise RefusedError(500, 2015, f'Unable to negotiate a presentation context with AET "{PATIENT}"')

    def calls(self, what: str) -> list[float]:
        """When it was called for something."""
        return [at for at, why in self.tried if why == what]

    def take(self, image: Stored) -> None:
        """C-STORE."""
        if image.sop_class in self.refuses:
            raise RefusedError(500, 2015, f"No valid presentation context was negotiated for {PATIENT}")
        if image.syntax == JPEG and not self.converts:
            raise RefusedError(500, -1, f"Cannot transcode instance of SOPClassUID {CT} from {JPEG} to one of [ {LITTLE} ] {PATIENT}")
        if status := self.statuses.get(image.uid) or self.statuses.get("*"):
            raise RefusedError(500, 9, f'C-STORE SCU to AET "X" has failed with DIMSE status 0x{status} ({PATIENT})')
        self.got.append(image.file)
        if self.loses > 0:
            self.loses -= 1
        else:
            self.stored[image.uid] = image.file

    def report(self, asked: list[tuple[str, str]]) -> dict[str, Any]:
        """What it says of images, by class and UID."""
        told = [{"SOPClassUID": one, "SOPInstanceUID": uid} for one, uid in asked if uid not in self.omits]
        there = [one for one in told if one["SOPInstanceUID"] in self.stored]
        gone = [{**one, "FailureReason": 0x0112} for one in told if one not in there]
        return {"Status": "Failure" if gone else "Success", "Success": there, "Failures": gone}
