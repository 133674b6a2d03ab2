"""Asks the node's Orthanc to send images to a destination, and to have them confirmed."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from forwarder.config import Confirm, Method
from forwarder.orthanc import AnswerError, Image, NodeDownError, Orthanc
from forwarder.trouble import UNREADABLE, Failure, Fault, failure_of

#: Seconds that a destination may take at least to answer a message, whatever the node's DicomScuTimeout is: some archives take 40 s.
_SECONDS_TO_ANSWER = 60
#: The same where the node's DicomScuTimeout is 0, which is without an end.
_SECONDS_WITHOUT_END = 600
#: Bytes a second of a slow line: an answer may take the time that the image takes on it.
_SLOW_LINE = 16_000
#: Seconds between two looks at a job: at least, and at most.
_LOOK_LEAST, _LOOK_MOST = 0.005, 0.1
#: The priority of the forwarder's jobs in Orthanc: before its users' jobs (0), and the mark by which it knows its own.
_PRIORITY = 17
_ENDED = ("Success", "Failure")
#: Images that are asked for by one query, and where the destination takes one UID at a time.
_LISTED, _ONE_BY_ONE = 100, 10
#: Seconds until a destination is asked again for what it turned out not to have: devices change without telling anybody.
_ASK_AGAIN_SECONDS = 900.0
#: How a destination can confirm, the strongest first.
METHODS: Sequence[Method] = ("commitment", "query", "stored")
#: The note at a link whose destination lacks the method that the stack file names.
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
    """How a destination confirms: what the stack file asks for (``wanted``), less what the destination turned out not to have."""

    def __init__(self, wanted: Confirm) -> None:
        self.wanted = wanted
        #: What it turned out not to have, and when it is asked again.
        self._lacking: dict[Method, float] = {}

    def lacks(self, method: Method, now: float) -> None:
        """Note that it has no such service; ``now`` is on time.monotonic()'s clock, as every time here."""
        self._lacking[method] = now + _ASK_AGAIN_SECONDS

    def has(self, method: Method) -> bool:
        """Note that it has such a service. Returns whether it was known to lack it."""
        return self._lacking.pop(method, None) is not None

    def ask_soon(self) -> None:
        """Ask for everything again that it turned out not to have."""
        self._lacking = dict.fromkeys(self._lacking, 0.0)

    def may(self, method: Method, now: float) -> bool:
        """Whether to ask it for a service: it is not known to lack it, or was not asked for 15 minutes."""
        return self._lacking.get(method, -math.inf) <= now

    def method(self, now: float) -> Method | None:
        """How to have images confirmed now; None where it is known not to have what the stack file asks for."""
        return next((method for method in (METHODS if self.wanted == "auto" else (self.wanted,)) if self.may(method, now)), None)

    def from_when(self, now: float) -> float:
        """When there may be a way to have images confirmed; 0 where there is one now."""
        return 0.0 if self.method(now) else min(self._lacking.values(), default=0.0)

    @property
    def in_use(self) -> Method | None:
        """How it confirms, as far as is known."""
        return self.method(-math.inf)

    def note(self, *, deletes: bool) -> str:
        """What to tell of a service that it lacks; empty for nothing. ``deletes``: the node deletes what was confirmed."""
        if self.wanted != "auto" and self.wanted in self._lacking:
            return _LACKS[self.wanted]
        if deletes and "commitment" in self._lacking:
            return "offers no storage commitment: keep: until-confirmed deletes nothing that goes there"
        return ""


class GoneError(Exception):
    """The node does not have it: images that were to be sent, or a transaction of storage commitment."""


@dataclass(frozen=True)
class Sent:
    """What came of a transfer."""

    taken: int  #: how many of the images the destination has taken, from the first one on
    failure: Failure | None = None  #: why it ended at the image after those; None where that waits as before


class Destination:
    """One entry of the node's DicomModalities. ``scu_timeout`` is the node's DicomScuTimeout, in seconds."""

    def __init__(self, orthanc: Orthanc, name: str, aet: str, scu_timeout: int) -> None:
        self._orthanc, self._path, self._aet = orthanc, f"/modalities/{name}", aet
        self._patience = max(_SECONDS_TO_ANSWER, scu_timeout) if scu_timeout else _SECONDS_WITHOUT_END
        self._way = "list"
        #: Whether a query has ever found an image there; None before the first one.
        self.lists_images: bool | None = None
        self._posting = threading.Lock()
        #: A job may run that is not among ``Orthanc.jobs``: one of a forwarder before this one, or one whose identifier got lost.
        self._strays = True

    # --- sending ---

    def send(self, images: Sequence[Image], stopping: Callable[[], bool]) -> Sent:
        """C-STORE over one association, as a job of Orthanc; it ends at the first image that fails.

        Orthanc 1.12.7 fails a job that mixes transfer syntaxes of one SOP class: the images have one. Orthanc could ask for storage
        commitment in the same job (``StorageCommitment``). But a destination without it then fails the job after it has taken all
        images, with the error of a destination that accepts no presentation context for them (DicomAssociation::Open).

        Args:
            images: at most 100 of them: the job's progress, in whole percent, then tells which one failed.
            stopping: whether to give up.

        Raises:
            NodeDownError: the node has forgotten the job, or ``stopping``.
            GoneError: one of the images is gone.
        """
        patience = self._patience + max(image.size for image in images) / _SLOW_LINE
        job = self._begin(images, patience)
        try:
            said = self._follow(job, patience, stopping)
        finally:
            self._orthanc.jobs.discard(job)
        if said["State"] == "Success":
            return Sent(len(images))
        # Before the failed one, Orthanc has counted what the destination took (SetOfCommandsJob::Step).
        taken = min(len(images) - 1, round(int(said["Progress"]) * len(images) / 100))
        if said.get("stalled"):
            return Sent(taken, Failure(Fault.BROKEN, f"no answer for {patience:.0f} s"))
        if said["Content"].get("FailedInstancesCount"):
            # Counted of a file that cannot be read, and of nothing else (DicomModalityStoreJob::HandleInstance).
            return Sent(taken, UNREADABLE)
        details = f"{said.get('ErrorDescription', '')}: {said.get('ErrorDetails') or ''}"
        failure = failure_of(AnswerError(500, int(said["ErrorCode"]), details))
        return Sent(taken + 1) if failure.fault is Fault.WARNING else Sent(taken, failure)

    def _begin(self, images: Sequence[Image], patience: float) -> str:
        """Submit a job, after jobs that nobody follows were cancelled. Returns its identifier."""
        wanted = {"Resources": [image.id for image in images], "Synchronous": False, "Timeout": int(patience), "Priority": _PRIORITY}
        with self._posting:
            if self._strays:
                self._cancel_strays()
            self._strays = True
            try:
                with self._orthanc.submitting:
                    job = str(self._orthanc.post(f"{self._path}/store", wanted)["ID"])
                    self._orthanc.jobs.add(job)
            except AnswerError as error:
                self._strays = False
                raise GoneError if error.status == HTTPStatus.NOT_FOUND else error from None
            self._strays = False
        return job

    def _cancel_strays(self) -> None:
        """Cancel jobs of a forwarder that this one does not follow: their images are sent again."""
        with self._orthanc.submitting:
            run = [job for job in self._orthanc.get("/jobs?expand") if job["State"] not in _ENDED and job["ID"] not in self._orthanc.jobs]
        for job in run:
            if job["Priority"] == _PRIORITY and job["Content"].get("RemoteAet") == self._aet:
                self._cancel(job["ID"])

    def _cancel(self, job: str) -> Any:
        """Cancel a job. Returns how it ended."""
        self._orthanc.post(f"/jobs/{job}/cancel", {})
        while (said := self._orthanc.get(f"/jobs/{job}"))["State"] not in _ENDED:
            time.sleep(_LOOK_MOST)
        return said

    def _follow(self, job: str, patience: float, stopping: Callable[[], bool]) -> Any:
        """Wait until a job has ended; one without progress for twice the time that an answer may take is cancelled."""
        progress, since = -1, (began := time.monotonic())
        while True:
            try:
                said = self._orthanc.get(f"/jobs/{job}")
            except AnswerError:
                self._strays = True
                raise NodeDownError("it has forgotten a job") from None
            except NodeDownError:
                if stopping():
                    raise
                time.sleep(1.0)  # the job may go on meanwhile
                continue
            if said["State"] in _ENDED:
                return said
            now = time.monotonic()
            if said["Progress"] != progress or said["State"] == "Pending":
                progress, since = said["Progress"], now
            if now - since > 2 * patience:
                return {**self._cancel(job), "State": "Failure", "stalled": True}
            # Half of the time that is left at the pace so far: the end is seen soon, by few looks.
            left = (now - began) * (100 - progress) / progress if progress else now - began
            time.sleep(min(_LOOK_MOST, max(_LOOK_LEAST, left / 2, (now - since) / 2)))

    # --- confirming ---

    def ask_commitment(self, images: Iterable[Image]) -> str:
        """Ask for storage commitment of images; the transaction's UID. An AnswerError: the destination cannot be asked."""
        wanted = [{"SOPClassUID": image.sop_class, "SOPInstanceUID": image.sop_instance} for image in images]
        return self._ask("storage-commitment", {"DicomInstances": wanted})

    def commitment(self, transaction: str) -> Mapping[str, str] | None:
        """The report of a transaction: for each SOP instance UID a reason why it is not committed, empty where it is. None before it came.

        Raises:
            GoneError: the node knows no such transaction: it was started anew, or never asked; or its report is none.
        """
        try:
            report = self._orthanc.get(f"/storage-commitment/{transaction}")
            if report["Status"] == "Pending":
                return None
            reasons = {one["SOPInstanceUID"]: int(one["FailureReason"]) for one in report["Failures"]}
            failures = {
                uid: _FAILURE_REASONS.get(number, f"storage commitment failed with reason 0x{number:04X}")
                for uid, number in reasons.items()
            }
            return {one["SOPInstanceUID"]: "" for one in report["Success"]} | failures
        except (AnswerError, KeyError, TypeError, ValueError):
            raise GoneError from None

    @property
    def listed_at_once(self) -> int:
        """How many images to ask for by one query(): few where the destination takes one UID at a time."""
        return _ONE_BY_ONE if self._way == "one by one" else _LISTED

    def query(self, tags: Mapping[str, str], images: Iterable[Image]) -> set[str]:
        """C-FIND: which images of a series with these DICOM tags the destination lists.

        A list of UIDs in one key is DICOM's own way to ask for several (PS3.4, C.2.2.2.2). Not every device knows it: what is not found
        is asked for as a whole series, and then one by one. The form that found something last comes first. An AnswerError: it cannot be
        asked.
        """
        wanted = {image.sop_instance for image in images}
        found: set[str] = set()
        for way in sorted(("list", "series", "one by one"), key=lambda way: way != self._way):
            left = sorted(wanted - found)
            there = set[str]()
            for uids in {"list": ["\\".join(left)], "series": [""], "one by one": left}[way]:
                there |= self._find(tags, uids) & wanted
            found |= there
            self.lists_images = bool(self.lists_images or there)
            if there:
                self._way = way
            if found == wanted or (way == "list" and len(there) > 1):
                break  # the destination knows lists: what it does not list, it has not
        return found

    def _find(self, tags: Mapping[str, str], uids: str) -> set[str]:
        wanted = {key: tags.get(key, "") for key in ("StudyInstanceUID", "SeriesInstanceUID")} | {"SOPInstanceUID": uids}
        query = self._ask("query", {"Level": "Instance", "Query": wanted})
        answers = self._orthanc.get(f"/queries/{query}/answers?expand&simplify")
        return {str(answer.get("SOPInstanceUID", "")).strip("\0 ") for answer in answers}

    def _ask(self, service: str, body: Mapping[str, Any]) -> str:
        """Ask the destination for something. Returns the identifier by which Orthanc knows the answer."""
        return str(self._orthanc.post(f"{self._path}/{service}", {**body, "Timeout": self._patience}, timeout=self._patience * 3)["ID"])
