"""What a failure means, and when to try again."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from enum import Enum

from forwarder.orthanc import AnswerError

#: The first pause after a failure, and the longest, in seconds.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 300.0
#: Tries of its own after which an image is set aside: one that the destination refuses, and one of which that is not certain.
TRIES_REFUSED = 3
TRIES_UNCLEAR = 5
#: How long an image that was refused lies aside before it is tried once more all the same: devices change without telling anybody.
ASIDE_SECONDS = 24 * 3600

_STATUS = re.compile(r"DIMSE status (?:0x)?([0-9A-Fa-f]{4})")

_NO_PRESENTATION_CONTEXT = 2015
#: Orthanc's error codes that are an image's: it, or this node's file of it, cannot be sent.
_IMAGE_CODES = {
    15: "its file in this node cannot be read",
    2014: "it has no SOP class or instance UID",
    _NO_PRESENTATION_CONTEXT: "no presentation context was accepted for its SOP class and transfer syntax",
}
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
    #: No association, or it was cut: the destination, or the way to it.
    DESTINATION = "destination"
    #: A status that may mean either: out of resources, unable to process.
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Failure:
    """One failure.

    Attributes:
        fault: whose fault it is.
        reason: what happened, in words that hold no patient's data.
        refuses_class: it holds for all images of the SOP class and transfer syntax.
    """

    fault: Fault
    reason: str
    refuses_class: bool = False


def failure_of(error: AnswerError) -> Failure:
    """What Orthanc's answer about a failed transfer means.

    Statuses are those of DICOM PS3.4, B.2.3: A9xx (data set does not match SOP class), Cxxx (cannot understand) and 0122 (SOP class
    not supported) are the image's; A7xx (out of resources) is what Orthanc answers for a full disk as well as for an image that it
    cannot read. Of the answer's words only what is known here is repeated as a reason.
    """
    if match := _STATUS.search(error.details):
        status = match[1].upper()
        refused = status.startswith(("A9", "C")) or status == "0122"
        meaning = {"A7": ", out of resources", "A9": ", data set does not match SOP class", "01": ", SOP class not supported"}
        return Failure(Fault.IMAGE if refused else Fault.UNCLEAR, f"DIMSE status 0x{status}{meaning.get(status[:2], '')}")
    if error.code in _IMAGE_CODES:
        return Failure(Fault.IMAGE, _IMAGE_CODES[error.code], refuses_class=error.code == _NO_PRESENTATION_CONTEXT)
    text = error.details.lower()
    return Failure(Fault.DESTINATION, next((reason for word, reason in _NETWORK_WORDS if word in text), "network error"))


class Backoff:
    """Pauses that double from one second to five minutes, each by chance up to a quarter shorter, for ever.

    The chance keeps many nodes from asking a destination that comes back all at once.
    """

    def __init__(self) -> None:
        self.tries = 0
        self.reason = ""
        self.until = 0.0

    def failed(self, now: float, reason: str) -> float:
        """Note a failure; the length of the pause that follows, in seconds.

        Args:
            now: the time; ``until`` is on the same clock.
            reason: what happened.
        """
        pause = pause_after(self.tries)
        self.tries += 1
        self.reason = reason
        self.until = now + pause
        return pause

    def succeeded(self) -> None:
        """It works."""
        self.tries, self.reason, self.until = 0, "", 0.0


def pause_after(tries: int) -> float:
    """The pause after this many failures before the last one, in seconds."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(tries, 16))
    return longest * random.uniform(0.75, 1.0)
