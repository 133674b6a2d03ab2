"""What a failure means, and when to try again."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from enum import Enum

from forwarder import say
from forwarder.orthanc import AnswerError

#: The first pause after a failure, and the longest, in seconds.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 300.0
#: The longest pause between two requests for a confirmation that did not come.
LONGEST_ASK = 3600.0
#: Tries of its own after which an image is set aside: one that the destination refuses, and one of which that is not certain.
TRIES_REFUSED = 3
TRIES_UNCLEAR = 5
#: How the reason begins for an image that the destination took, and then says that it does not have.
NOT_THERE = "the destination took it, and says that it has it not"
#: The same for an image at which associations broke.
BROKE = "the connection broke at this image, and not at others"
#: The reason of an image that a device outside has taken before, and that was sent again within so many seconds: it may send it back each
#: time.
LOOP, LOOP_SECONDS = "sent twice within the hour: it comes back each time", 3600.0
#: Associations that broke at an image, while others got through, after which it is set aside.
CUTS = 4
#: How many answers may leave out an image that the destination took: then it is sent again.
PATIENCE = 6
#: How long an image that was refused lies aside before it is tried once more all the same: devices change without telling anybody.
ASIDE_SECONDS = 24 * 3600

_STATUS = re.compile(r"DIMSE status (?:0x)?([0-9A-Fa-f]{4})")

_NOT_IMPLEMENTED = 2
_NO_PRESENTATION_CONTEXT = 2015
#: Orthanc's error code of a network error (ErrorCode_NetworkProtocol), and none.
_NETWORK = (0, 9)
#: Orthanc's error codes that are an image's. Not among them are those of files (13, 15, 2006): a file that Orthanc cannot read gives no
#: code (DicomModalityStoreJob::HandleInstance), and a certificate that it cannot read gives 13 or 15 (DicomTls.cpp).
_IMAGE_CODES = {
    _NOT_IMPLEMENTED: "the destination does not take its transfer syntax, and this node cannot convert it",
    2014: "it has no SOP class or instance UID",
    _NO_PRESENTATION_CONTEXT: "no presentation context was accepted for its SOP class and transfer syntax",
}
#: Words that Orthanc says with a code that tells less (DicomStoreUserConnection.cpp): with its code for any internal error, of a transfer
#: syntax without a codec (1.12) or one that it does not know; with that of a network error, where TranscodeDicomProtocol is false.
_CODES_OF_WORDS = {
    "cannot transcode": _NOT_IMPLEMENTED,
    "unknown transfer syntax": _NOT_IMPLEMENTED,
    "no valid presentation context": _NO_PRESENTATION_CONTEXT,
    "request cannot be handled by remote aet": _NO_PRESENTATION_CONTEXT,  # of storage commitment, DicomAssociation.cpp
}
#: What DIMSE statuses mean: of C-STORE, DICOM PS3.4, table B.2-1, by their first digits; of any service, PS3.7, annex C.
_STATUS_MEANINGS = {
    "A7": "out of resources",
    "A9": "data set does not match SOP class",
    "C": "cannot understand",
    "0105": "no such attribute",
    "0106": "invalid attribute value",
    "0110": "processing failure",
    "0111": "duplicate SOP instance",
    "0112": "no such SOP instance",
    "0115": "invalid argument value",
    "0117": "invalid SOP instance",
    "0118": "no such SOP class",
    "0119": "class-instance conflict",
    "0120": "missing attribute",
    "0121": "missing attribute value",
    "0122": "SOP class not supported",
    "0124": "not authorized",
    "0210": "duplicate invocation",
    "0211": "unrecognized operation",
    "0212": "mistyped argument",
    "0213": "resource limitation",
}
#: Statuses by which a destination refuses an image, whenever it comes; all others may be the destination's own trouble.
_REFUSALS = ("A9", "C", "0105", "0106", "0115", "0117", "0118", "0119", "0120", "0121", "0122", "0211")
#: Statuses of warning (PS3.7, annex C): Orthanc takes B000, B006, B007 and 0111 alone for success (DicomStoreUserConnection.cpp).
_WARNINGS = ("0001", "0107", "0116", "B")
#: Those that hold for all images of the SOP class.
_REFUSALS_OF_A_CLASS = ("0118", "0122")
#: What Orthanc's words about the network hold, with what is repeated of them.
_NETWORK_WORDS = (
    ("reject", "association rejected"),
    ("abort", "association aborted"),
    ("timeout", "timeout"),
    ("timed out", "timeout"),
    ("unknown host", "unknown host: it does not run"),
    ("refused", "connection refused"),
    ("connect", "no connection"),
)


class Fault(Enum):
    """Whose fault a failure is."""

    #: The destination says that it does not want this image, whenever it comes.
    IMAGE = "image"
    #: No association: the destination, or the way to it.
    DESTINATION = "destination"
    #: The association broke at this image: the destination, the way to it, or an image that the destination cannot stand.
    BROKEN = "broken"
    #: A status that may mean either: out of resources, unable to process.
    UNCLEAR = "unclear"
    #: None: the destination has taken the image, with a warning that Orthanc takes for a failure.
    WARNING = "warning"


@dataclass(frozen=True)
class Failure:
    """One failure."""

    fault: Fault  #: whose fault it is
    reason: str  #: what happened, in words that hold no patient's data
    refuses_class: bool = False  #: it holds for all images of the SOP class and transfer syntax


#: An image whose file in this node cannot be read.
UNREADABLE = Failure(Fault.IMAGE, "its file in this node cannot be read")


def failure_of(error: AnswerError) -> Failure:
    """What Orthanc's answer about a failed transfer means.

    Of the answer's words only what is known here is repeated as a reason.
    """
    if match := _STATUS.search(error.details):
        status = match[1].upper()
        meaning = next((f", {words}" for digits, words in _STATUS_MEANINGS.items() if status.startswith(digits)), "")
        fault = Fault.IMAGE if status.startswith(_REFUSALS) else Fault.WARNING if status.startswith(_WARNINGS) else Fault.UNCLEAR
        return Failure(fault, f"DIMSE status 0x{status}{meaning}", refuses_class=status in _REFUSALS_OF_A_CLASS)
    text = error.details.lower()
    if "invalid dicom file" in text:  # FromDcmtkBridge::LoadFromMemoryBuffer
        return UNREADABLE
    code = next((code for words, code in _CODES_OF_WORDS.items() if words in text), error.code)
    if code in _IMAGE_CODES:
        return Failure(Fault.IMAGE, _IMAGE_CODES[code], refuses_class=code in (_NOT_IMPLEMENTED, _NO_PRESENTATION_CONTEXT))
    if code not in _NETWORK:
        # It may be this image alone: that is found out as where associations break.
        return Failure(Fault.BROKEN, f"error {code} of this node's Orthanc")
    # DicomAssociation::CheckCondition names what it was doing: "DicomAssociation - connecting to AET ..." or "... - C-STORE to AET ...".
    fault = Fault.BROKEN if "- c-store to" in text else Fault.DESTINATION
    return Failure(fault, next((reason for word, reason in _NETWORK_WORDS if word in text), "network error"))


class Backoff:
    """Pauses that double from one second to five minutes, each by chance up to a quarter shorter, for ever.

    The chance keeps many nodes from asking a destination that comes back all at once. ``what`` fails, and ``fields``, are for the log.
    """

    def __init__(self, what: str, **fields: object) -> None:
        self.tries, self.reason, self.until = 0, "", 0.0
        self._what, self._fields = what, fields

    def failed(self, now: float, reason: str) -> None:
        """Note a failure, after which there is a pause; ``now`` and ``until`` are on the same clock."""
        pause = pause_after(self.tries)
        self.tries, self.reason, self.until = self.tries + 1, reason, now + pause
        say(f"{self._what} failed", **self._fields, reason=reason, tries=self.tries, next_try_s=round(pause, 1))

    def succeeded(self) -> None:
        """Note that it works: no pause."""
        if self.tries:
            say(f"{self._what} works again", **self._fields, tries=self.tries)
        self.tries, self.reason, self.until = 0, "", 0.0


def pause_after(tries: int) -> float:
    """The pause after this many failures before the last one, in seconds."""
    return _growing(tries, LONGEST_PAUSE)


def rest_after(tries: int, reason: str, *, refused: bool) -> float:
    """How long an image that is set aside lies there, in seconds.

    A day where the destination refused it; five minutes where that is not certain. Where each try may leave a copy at the destination, or
    break its associations: five minutes at first, and twice as long after each try, up to a day.
    """
    if reason == LOOP:
        return LOOP_SECONDS
    longer = min(16, max(0, tries - TRIES_UNCLEAR)) if reason.startswith((NOT_THERE, BROKE)) else 0
    return ASIDE_SECONDS if refused else min(ASIDE_SECONDS, LONGEST_PAUSE * 2.0**longer)


def ask_again_after(asked: int) -> float:
    """The pause until a destination is asked again for what it took and did not confirm, in seconds: up to an hour."""
    return _growing(asked, LONGEST_ASK)


def _growing(times: int, longest: float) -> float:
    """A pause that doubles each time, by chance up to a quarter shorter."""
    return min(longest, FIRST_PAUSE * 2.0 ** min(times, 16)) * random.uniform(0.75, 1.0)
