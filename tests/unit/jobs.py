"""The jobs of the node of orthancs.py."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.unit.peers import ERRORS, Peer, RefusedError, Stored


@dataclass
class Job:
    """A job of the node that sends images, as Orthanc's SetOfCommandsJob, SetOfInstancesJob and DicomModalityStoreJob run it.

    Attributes:
        read: the image of an id; None where it is gone, or its file cannot be read.
        took: called after each image that the destination took.
        passes_over: an image that cannot be read does not fail the job. Orthanc does so only where "Permissive" is true.
        forgotten: the node was started anew.
    """

    id: str
    peer: Peer
    ids: list[str]
    read: Callable[[str], Stored | None]
    took: Callable[[Stored], object]
    timeout: float
    priority: int
    passes_over: bool
    state: str = "Pending"
    position: int = 0
    failed: int = 0
    error: RefusedError | None = None
    canceled: bool = False
    forgotten: bool = False
    created: str = field(default_factory=lambda: time.strftime("%Y%m%dT%H%M%S", time.gmtime()))

    def run(self) -> None:
        """Send the images; ends at the first one that fails, whose number then is the position."""
        self.state = "Running"
        try:
            self._send()
        except RefusedError as error:
            self.error = error
        self.state = "Failure" if self.error else "Success"

    def _send(self) -> None:
        sent: list[Stored] = []
        called = False
        for id_ in self.ids:
            if self.canceled:
                raise RefusedError(500, 37)
            image = self.read(id_)
            if image and not called:
                called = True
                self._call(image)
            if image and not self.forgotten:
                self.peer.take(image, self.timeout)
                sent.append(image)
                self.took(image)
            elif not image:
                self.failed += 1
                if not self.passes_over:
                    raise RefusedError(500, -1)
            if self.forgotten:
                return
            self.position += 1
        self.peer.batches.append(sent)

    def _call(self, first: Stored) -> None:
        self.peer.call("store")
        if any(image and image.syntax != first.syntax for image in map(self.read, self.ids)):
            raise RefusedError(500, 9, "several transfer syntaxes")
        time.sleep(self.peer.slow)

    def info(self) -> dict[str, Any]:
        """What GET /jobs/<id> says (JobInfo::Format)."""
        state = self.state
        error = self.error if state == "Failure" else None
        code = error.code if error else 0
        content = {"Description": "REST API", "InstancesCount": len(self.ids), "FailedInstancesCount": self.failed}
        return {
            "ID": self.id,
            "Type": "DicomModalityStore",
            "State": state,
            "Priority": self.priority,
            "Progress": int(100 * self.position / len(self.ids) + 0.5) if self.ids else 100,
            "ErrorCode": code,
            "ErrorDescription": ERRORS.get(code, "Error"),
            "ErrorDetails": error.details if error else "",
            "CreationTime": self.created,
            "Content": {**content, "RemoteAet": self.peer.aet},
        }


class Jobs:
    """All jobs of a node (Orthanc's JobsRegistry), each of which has a thread.

    Attributes:
        history: how many finished ones are remembered, as JobsHistorySize.
        jobs: those that it knows, by their identifiers.
        resumes: whether they are kept over a restart, as by SaveJobs, and those that were not finished begin again.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.history = 1000
        self.resumes = False
        self.jobs: dict[str, Job] = {}
        self._finished: list[str] = []

    def begin(self, job: Job) -> threading.Thread:
        """Run a job."""
        self.jobs[job.id] = job
        thread = threading.Thread(target=self._run, args=(job,), daemon=True)
        thread.start()
        return thread

    def _run(self, job: Job) -> None:
        job.run()
        with self.lock:
            if job.forgotten:
                job.error = RefusedError(503, 36, "restarted")  # for who waits for it
                return
            self._finished.append(job.id)
            while len(self._finished) > self.history:
                del self.jobs[self._finished.pop(0)]

    def restart_jobs(self) -> None:
        """What is under way is cut. Orthanc resumes a job at the image that it saved last, at the earliest its first."""
        cut = [job for job in self.jobs.values() if job.id not in self._finished]
        for job in cut:
            job.forgotten = True
        if not self.resumes:
            self.jobs, self._finished = {}, []
            return
        for job in cut:
            self.begin(replace(job, state="Pending", position=0, failed=0, error=None, forgotten=False))

    def answer_of_jobs(self, method: str, parts: Sequence[str], asked: dict[str, str]) -> Any:
        """The answer to a request below /jobs."""
        match method, *parts:
            case ["GET"]:
                return [self.jobs[id_].info() if "expand" in asked else id_ for id_ in sorted(self.jobs)]
            case "GET", id_ if id_ in self.jobs:
                return self.jobs[id_].info()
            case "POST", id_, "cancel" if id_ in self.jobs:
                self.jobs[id_].canceled = True
                return {}
        # OrthancRestSystem.cpp, GetJobInfo and ApplyJobAction: no answer for an unknown job
        raise RefusedError(404 if method == "GET" else 400)
