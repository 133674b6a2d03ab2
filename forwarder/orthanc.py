"""The REST API of the node's Orthanc, as far as forwarding needs it."""

from __future__ import annotations

import calendar
import contextlib
import http.client
import json
import ssl
import threading
import time
from base64 import b64encode
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from forwarder import say

#: Seconds that Orthanc may take to answer what it answers from its database.
_TIMEOUT = 60.0
#: Orthanc's codes of a database that is away or busy (ErrorCode_Database, _DatabasePlugin, _DatabaseUnavailable,
#: _DatabaseCannotSerialize): some come as HTTP 500.
_DATABASE_CODES = frozenset({11, 31, 36, 42, *range(1000, 1016)})
#: Resources that are asked for in one request: what bounds the memory of both sides.
_CHUNK = 250
#: At most one in so many images of a series are read one by one; of more, the whole series is read.
_FEW = 20
#: Series of a study that are read together; those of larger studies are read one by one.
_MANY = 250
#: What is asked of each instance that a query finds; and the type of attachment that is the image's file.
_FOUND = ["MainDicomTags", "Metadata", "Attachments"]
_DICOM_FILE = 1
#: Metadata of an instance that was made from another one of the same node (ResourceModificationJob.cpp).
_MADE_HERE = frozenset({"AnonymizedFrom", "ModifiedFrom"})
#: Series of a page of all of them, and by how much a page goes back into the one before it.
_PAGE, _OVERLAP = 100, 10
#: How many identifiers are remembered to tell that a page follows on what was seen.
_REMEMBERED = 1000
#: How Orthanc writes times.
_TIME = "%Y%m%dT%H%M%S"


class NodeDownError(Exception):
    """The node's own Orthanc does not answer: nothing is known of any destination."""


class AnswerError(Exception):
    """Orthanc answered that it could not: an HTTP status, its own code (OrthancException's ErrorCode) or 0, and what it says of it."""

    def __init__(self, status: int, code: int, details: str) -> None:
        super().__init__(f"HTTP {status}: {details}")
        self.status, self.code, self.details = status, code, details


@dataclass(frozen=True)
class Image:
    """One instance that the node holds."""

    id: str  #: its identifier in Orthanc
    file: str  #: the UUID of its file: another one after it was stored again
    sop_class: str  #: its SOP class UID
    sop_instance: str  #: its SOP instance UID
    syntax: str  #: its transfer syntax UID
    calling_aet: str  #: who sent it; empty when it came by HTTP
    received: str  #: when it was stored, as Orthanc writes it: ``20260131T120000``, UTC
    size: int = 0  #: of its file, in bytes
    md5: str = ""  #: of its content; empty where Orthanc was not asked for it (``Orthanc.md5``)
    origin: str = "received"  #: ``created`` where it was made in this node from another one, else ``received``


@dataclass(frozen=True)
class Series:
    """One series that the node holds."""

    id: str  #: its identifier in Orthanc
    study: str  #: that of its study
    images: tuple[str, ...]  #: the identifiers of its instances
    tags: Mapping[str, str]  #: its main DICOM tags, by name
    metadata: Mapping[str, str]  #: its metadata, by name, or by number for those that have none

    @property
    def last_update(self) -> str:
        """When an image was last stored in it: ``20260131T120000``, UTC."""
        return self.metadata.get("LastUpdate", "")


class Orthanc:
    """A connection to an Orthanc for each thread that asks."""

    def __init__(self, host: str, port: int, user: str, password: str, trust: str | None = None) -> None:
        tls = ssl.create_default_context(cafile=trust) if trust else None
        https = partial(http.client.HTTPSConnection, host, port, context=tls)
        self._connect = https if tls else partial(http.client.HTTPConnection, host, port)
        self._headers = {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}
        self._of_thread = threading.local()
        #: The jobs that this program follows: with the lock held, no other is just being submitted.
        self.jobs, self.submitting = set[str](), threading.Lock()
        #: Not known before it was asked, nor after it was away: it may come back with another index.
        self._extended_find: bool | None = None

    # --- requests ---

    def get(self, path: str) -> Any:
        """The JSON answer to a GET."""
        return json.loads(self._ask("GET", path, None, _TIMEOUT))

    def post(self, path: str, body: Any, timeout: float = _TIMEOUT) -> Any:
        """The JSON answer to a POST of JSON."""
        return json.loads(self._ask("POST", path, json.dumps(body).encode(), timeout) or b"null")

    def delete(self, path: str) -> None:
        """DELETE."""
        self._ask("DELETE", path, None, _TIMEOUT)

    def put_metadata(self, series: str, number: int, text: str) -> None:
        """Set a metadata of a series."""
        self._ask("PUT", f"/series/{series}/metadata/{number}", text.encode(), _TIMEOUT)

    # --- what it holds ---

    def pages(self, stopping: threading.Event) -> Iterator[list[str]]:
        """The identifiers of all series that are there from the beginning to the end; some of them more than once.

        Orthanc counts pages by position: a series that is deleted meanwhile moves all that follow it, also, in PostgreSQL's order, one
        that is new. A page follows without a gap when it holds something that was seen; where it does not, this goes back a page.
        """
        start = 0
        seen: deque[str] = deque(maxlen=_REMEMBERED)
        while not stopping.is_set():
            ids: list[str] = self.get(f"/series?since={start}&limit={_PAGE}")
            known = set(seen)
            if start and known.isdisjoint(ids):
                start = max(0, start - _PAGE)
                continue
            if new := [one for one in ids if one not in known]:
                yield new
                seen.extend(new)
            if len(ids) < _PAGE:
                return
            start += _PAGE - _OVERLAP

    def series(self, ids: Sequence[str]) -> list[Series]:
        """Series with all that they hold, by their identifiers or those of instances in them; those that are gone are left out.

        With an index in SQLite, by way of their studies: for each series that it is asked for by its identifier, Orthanc 1.13.0 goes
        several times through all instances of the node (72 to 150 ms each beside 100,000, and 1 to 10 ms by way of its study).
        """
        left, found = dict.fromkeys(ids), list[Series]()
        # Where it cannot tell of a whole study it may still tell of some of its series.
        with contextlib.suppress(AnswerError):
            for study in self.post("/tools/bulk-content", {"Resources": list(ids), "Level": "Study"}) if ids and self._finds() else ():
                if len(study["Series"]) > _MANY:
                    continue
                content = ["MainDicomTags", "Metadata", "Children", "Parent"]
                wanted = {"Level": "Series", "Query": {}, "ParentStudy": study["ID"], "ResponseContent": content}
                for one in map(_series, self.post("/tools/find", wanted)):
                    if asked := left.keys() & {one.id, *one.images}:
                        found.append(one)
                        left = {id_: None for id_ in left if id_ not in asked}
        if left:
            # Also what the query left out: LimitFindResults may be set.
            found += map(_series, self.post("/tools/bulk-content", {"Resources": list(left), "Level": "Series", "Metadata": True}))
        return found

    def _finds(self) -> bool:
        """Whether its index answers a query as a whole (SQLite, newer plugins); else Orthanc asks it for one resource after another."""
        if self._extended_find is None:
            self._extended_find = bool(self.get("/system").get("Capabilities", {}).get("HasExtendedFind"))
        return self._extended_find

    def readable(self, ids: Sequence[str]) -> Iterator[Series]:
        """The same; where Orthanc cannot tell of all together, one by one, less those of which it cannot tell."""
        try:
            yield from self.series(ids) if ids else ()
        except AnswerError as error:
            if len(ids) == 1:
                say("series cannot be read", of=ids[0], status=error.status)
            else:
                for one in ids:
                    yield from self.readable([one])

    def images_of(self, series: Series, ids: Sequence[str]) -> Iterator[Image]:
        """Instances of a series; those that are gone are left out.

        Where there are not very few of them, by one query for the whole series: with an index in SQLite, Orthanc 1.13.0 goes through all
        instances of the node for each that it is asked for by its identifier (13 ms each beside 100,000, and 57 ms for a series).
        """
        left = dict.fromkeys(ids)
        if len(left) * _FEW > len(series.images):
            asked = {"Level": "Instance", "Query": {}, "ParentSeries": series.id, "ResponseContent": _FOUND}
            for said in self.post("/tools/find", asked):
                if said["ID"] in left:
                    del left[said["ID"]]
                    yield _image(said, next((one for one in said["Attachments"] if one["ContentType"] == _DICOM_FILE), {}))
        # Also what the query left out: LimitFindInstances may be set.
        yield from self.images(list(left))

    def images(self, ids: Sequence[str]) -> Iterator[Image]:
        """Instances of any series; those that are gone are left out."""
        for start in range(0, len(ids), _CHUNK):
            asked = {"Resources": ids[start : start + _CHUNK], "Level": "Instance", "Metadata": True}
            for said in self.post("/tools/bulk-content", asked):
                yield _image(said, {"Uuid": said.get("FileUuid"), "UncompressedSize": said.get("FileSize")})

    def series_with(self, sop_instances: Sequence[str]) -> dict[str, set[str]]:
        """By SOP instance UID the series that hold such an instance: several where, against the standard, a UID was given twice."""
        query = {"SOPInstanceUID": "\\".join(sop_instances)}
        found: dict[str, set[str]] = {uid: set() for uid in sop_instances}
        for said in self.post("/tools/find", {"Level": "Instance", "Query": query, "ResponseContent": ["MainDicomTags", "Parent"]}):
            found.setdefault(said["MainDicomTags"]["SOPInstanceUID"], set()).add(said["ParentSeries"])
        return found

    @property
    def version(self) -> tuple[int, ...]:
        """Its version; (0,) of one that was built from the source's main line."""
        parts = str(self.get("/system")["Version"]).split(".")
        return tuple(int(part) for part in parts) if all(map(str.isdigit, parts)) else (0,)

    def md5(self, image: Image) -> str:
        """The MD5 of an instance's content, as it was when it was stored; empty where that file is gone, or Orthanc computes none."""
        asked = {"Level": "Instance", "Query": {"SOPInstanceUID": image.sop_instance}, "ResponseContent": ["Attachments"]}
        with contextlib.suppress(AnswerError):
            files = [file for said in self.post("/tools/find", asked) for file in said["Attachments"]]
            return next((str(file["UncompressedMD5"]) for file in files if file["Uuid"] == image.file), "")
        return ""

    def is_as_stored(self, image: str) -> bool:
        """Whether the file of an instance still has the MD5 that it had when it was stored; reads the file."""
        try:
            self.post(f"/instances/{image}/attachments/dicom/verify-md5", {})
        except AnswerError:
            return False
        return True

    def study(self, study: str) -> tuple[dict[str, str], bool]:
        """The main DICOM tags of a study, by name, and whether it is stable: nothing was stored in it for Orthanc's ``StableAge``."""
        said = self.get(f"/studies/{study}")
        return dict(said["MainDicomTags"]), bool(said["IsStable"])

    def tag_of_images(self, images: Sequence[str], tag: str) -> dict[str, str]:
        """The values that a tag has in the files of instances, by their identifiers.

        ``RequestedTags`` would not do: of a tag that its index has of the study, Orthanc 1.13.0 answers what its first image had.
        """
        return {image: str(self.get(f"/instances/{image}/simplified-tags").get(tag) or "") for image in images}

    def _ask(self, method: str, path: str, body: bytes | None, timeout: float) -> bytes:
        """One request; once more where a connection that lay idle turns out to be closed.

        Raises:
            NodeDownError: no answer, or one that Orthanc gives while its database is away.
            AnswerError: any other answer but 200.
        """
        for attempt in (1, 2):
            connection = getattr(self._of_thread, "connection", None)
            if fresh := connection is None:
                connection = self._of_thread.connection = self._connect()
            connection.timeout = timeout
            if connection.sock is not None:
                connection.sock.settimeout(timeout)
            try:
                connection.request(method, path, body, self._headers)
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self._of_thread.connection = self._extended_find = None
                if attempt == 1 and not fresh and not isinstance(error, TimeoutError):
                    continue
                raise NodeDownError(f"{type(error).__name__}: {error}") from None
            if answer.status == http.HTTPStatus.OK:
                return content
            error_answer = _error(answer.status, content)
            if answer.status == http.HTTPStatus.SERVICE_UNAVAILABLE or error_answer.code in _DATABASE_CODES:
                raise NodeDownError("its database is away")
            raise error_answer
        raise AssertionError  # the second attempt returns or raises


def _series(said: Mapping[str, Any]) -> Series:
    return Series(said["ID"], said["ParentStudy"], tuple(said["Instances"]), said["MainDicomTags"], said.get("Metadata", {}))


def _image(said: Mapping[str, Any], file: Mapping[str, Any]) -> Image:
    metadata = said["Metadata"]
    return Image(
        id=said["ID"],
        file=file.get("Uuid") or "",
        sop_class=metadata.get("SopClassUid", ""),
        sop_instance=said["MainDicomTags"]["SOPInstanceUID"],
        syntax=metadata.get("TransferSyntax", ""),
        calling_aet=metadata.get("RemoteAET", ""),
        received=metadata.get("ReceptionDate", ""),
        size=int(file.get("UncompressedSize") or 0),
        md5=file.get("UncompressedMD5", ""),
        origin="created" if _MADE_HERE & metadata.keys() else "received",
    )


def _error(status: int, content: bytes) -> AnswerError:
    try:
        said = json.loads(content)
        return AnswerError(status, int(said.get("OrthancStatus", 0)), f"{said.get('OrthancError', '')}: {said.get('Details', '')}")
    except (ValueError, AttributeError):
        return AnswerError(status, 0, "")


def timestamp() -> str:
    """Now, as Orthanc writes times: ``20260131T120000``, in UTC, of whole seconds."""
    return time.strftime(_TIME, time.gmtime())


def epoch(text: str) -> float:
    """A time that Orthanc wrote, in seconds since 1970; now where it wrote none."""
    try:
        return float(calendar.timegm(time.strptime(text, _TIME)))
    except ValueError:
        return time.time()
