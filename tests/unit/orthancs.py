"""An Orthanc that is none: what the forwarder asks of its node, served on loopback, with destinations that can be made to fail.

It does what was seen of Orthanc 1.12.7: a job to store ends at the first image that fails and tells it by its progress only, images of
several transfer syntaxes in one job fail it, transactions of storage commitment are forgotten on a restart.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from tests.unit.jobs import Job, Jobs
from tests.unit.peers import PATIENT, Group, Peer, RefusedError, Stored

T = TypeVar("T")


class Node(Jobs):
    """The node that the forwarder runs beside. With ``lock`` held, nothing changes and nothing is answered from its database."""

    def __init__(self) -> None:
        super().__init__()
        self.peers: defaultdict[str, Peer] = defaultdict(Peer)  # its destinations, by name
        self.series: dict[str, Group] = {}
        self.changes: list[tuple[int, str, str]] = []
        self.last_change = 0
        self.up = True  # whether its database does; without it, it answers 503
        self.cut = False  # whether it hangs up instead of answering
        self.unreadable: set[str] = set()  # images whose files it cannot read
        self.broken: set[str] = set()  # series for which it answers 500
        self.finds = 10**6  # how many resources a query finds at the most
        self.extended = True  # whether its index answers queries as a whole, as SQLite does
        self.version = "1.12.7"
        self.full = False  # whether its disk is: nothing is stored, no metadata set
        self.damaged: set[str] = set()  # images whose files have another MD5 than its database says
        self.unstable: set[str] = set()  # studies for which it still waits for more
        #: The time at which images are stored; without one, each a second after the other, all of them long ago.
        self.clock: Callable[[], float] | None = None
        self.hooks: list[Callable[[str, str], object]] = []  # called before a request is answered, with its method and path
        self.asked: list[str] = []  # the paths that were asked for
        self._clock = time.time() - 200_000
        self._transactions: dict[str, tuple[float | None, dict[str, Any]]] = {}
        self._queries: dict[str, list[dict[str, str]]] = {}
        self._gone: dict[str, Group] = {}
        self._numbers = itertools.count(1)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        """Serve no more."""
        self.server.shutdown()
        self.server.server_close()

    # --- what happens to it ---

    def add(
        self, series: str, images: int = 1, *, study: str = "", tags: dict[str, str] | None = None, event: bool = True, **more: Any
    ) -> list[Stored]:
        """Images are stored in a series, of a study of its own unless one is named; without an event, nobody is told.

        ``tags`` are the series', ``image_tags`` its images'; all other words are fields of Stored.
        """
        more["tags"] = more.pop("image_tags", {})
        with self.lock:
            group = self.series.setdefault(series, Group(series, f"study-{study or series}", {"Modality": "CT", **(tags or {})}))
            ids = [f"{series}-i{next(self._numbers):05}" for _ in range(images)]
            return [self._store(group, Stored(id_, series, self._file(), **{"uid": f"1.2.{id_}", **more}), event) for id_ in ids]

    def again(self, image: Stored, *, event: bool = True, same: bool = False, aet: str = "") -> Stored:
        """An image is stored once more, with other content or the same, by another AE title where one is given."""
        with self.lock:
            if image.series not in self.series:
                self.series[image.series] = replace(self._gone[image.series], metadata={}, images={})
            return self._store(
                self.series[image.series], replace(image, file=self._file(), md5=image.md5 if same else "", aet=aet or image.aet), event
            )

    def _file(self) -> str:
        return f"file-{next(self._numbers)}"

    def _store(self, group: Group, image: Stored, event: bool) -> Stored:
        if self.full:
            raise RefusedError(500, 14, "")  # SystemToolbox::WriteFile
        self._clock += 1
        at = time.strftime("%Y%m%dT%H%M%S", time.gmtime(self.clock() if self.clock else self._clock))
        image = replace(image, received=at)
        group.images[image.id] = image
        group.metadata["LastUpdate"] = at
        self.last_change += 1
        if event:
            self.changes.append((self.last_change, "NewInstance", image.id))
        return image

    def remove(self, image: Stored) -> None:
        """An image is deleted, its series with its last one."""
        with self.lock:
            group = self.series[image.series]
            del group.images[image.id]
            if not group.images:
                self._gone[group.id] = self.series.pop(group.id)

    def restart(self) -> None:
        """Transactions live in memory, and jobs, unless ``resumes``."""
        with self.lock:
            self._transactions.clear()
            self._queries.clear()
            self.restart_jobs()

    def rewind(self) -> None:
        """The changes log was cleared, or is a restored backup's."""
        with self.lock:
            self.changes, self.last_change = [], 0

    def before(self, ending: str, act: Callable[[], object]) -> None:
        """Something happens once, just before a path with this ending is asked for."""
        left = [act]

        def hook(_method: str, path: str) -> None:
            if path.endswith(ending) and left:
                left.pop()()

        self.hooks.append(hook)

    def images(self) -> list[Stored]:
        """All that it holds."""
        with self.lock:
            return [image for group in self.series.values() for image in group.images.values()]

    # --- what it answers ---

    def answer(self, method: str, path: str, body: Any) -> Any:
        """The answer to a request."""
        self.asked.append(path)
        for hook in list(self.hooks):
            hook(method, path)
        url = urlsplit(path)
        parts = url.path.strip("/").split("/")
        if parts[0] == "modalities":
            peer = self.peers[parts[1]]
            peer.aet = peer.aet or parts[1].upper()
            if parts[2] == "store":
                return self._store_at(peer, body)
            peer.call(parts[2])
            return self._at_destination(peer, parts[2], body)
        asked = {key: values[0] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        with self.lock:
            return self._of_database(method, parts, asked, body)

    def _of_database(self, method: str, parts: list[str], asked: dict[str, str], body: Any) -> Any:
        if parts[0] == "jobs":
            return self.answer_of_jobs(method, parts[1:], asked)
        return self._get(parts, asked) if method == "GET" else self._change(method, parts, body)

    def _get(self, parts: list[str], asked: dict[str, str]) -> Any:
        match parts:
            case ["system"]:
                return {"Version": self.version, "Capabilities": {"HasExtendedFind": self.extended}}
            case ["changes"] if "last" in asked:
                return {"Changes": [], "Done": True, "Last": self.last_change}
            case ["changes"]:
                rest = [change for change in self.changes if change[0] > int(asked["since"])]
                page = [{"Seq": number, "ChangeType": kind, "ID": id_} for number, kind, id_ in rest[: int(asked["limit"])]]
                return {"Changes": page, "Done": len(page) == len(rest), "Last": page[-1]["Seq"] if page else self.last_change}
            case ["series"]:
                since = int(asked["since"])
                return sorted(self.series)[since : since + int(asked["limit"])]
            case "studies", id_:
                group = _held({group.study: group for group in self.series.values()}, id_)
                said = {"MainDicomTags": dict(group.study_tags), "PatientMainDicomTags": {"PatientName": PATIENT}}
                return {**said, "ID": id_, "IsStable": id_ not in self.unstable}
            case "instances", id_, "attachments", "dicom", "md5":
                return self._image(id_).md5
            case "instances", id_, "simplified-tags":
                return {"PatientName": PATIENT, **self._image(id_).tags}
            case "storage-commitment", uid:
                ready, report = _held(self._transactions, uid)
                return report if ready is not None and time.monotonic() >= ready else {"Status": "Pending", "Success": [], "Failures": []}
            case "queries", id_, "answers":
                return _held(self._queries, id_)
        raise RefusedError(404, 17, f"Unknown resource {parts}")

    def _change(self, method: str, parts: list[str], body: Any) -> Any:
        match method, *parts:
            case "PUT", "series", id_, "metadata", number:
                group = _held(self.series, id_)
                if self.full:
                    raise RefusedError(500, 1009, "")  # SQLite/Statement.cpp, Statement::Run
                group.metadata[number] = body
                return {}
            case "DELETE", "instances", id_:
                self.remove(self._image(id_))
                return {}
            case "POST", "instances", id_, "attachments", "dicom", "verify-md5":
                self._image(id_)
                if id_ in self.unreadable:
                    raise RefusedError(500, 2006, "The path does not point to a regular file")  # SystemToolbox::ReadFile
                if id_ in self.damaged:
                    raise RefusedError(400)  # OrthancRestResources.cpp, VerifyAttachment: no answer
                return {}
            case "POST", "tools", "bulk-content":
                return self._bulk(body["Level"], body["Resources"], body.get("Metadata", False))
            case "POST", "tools", "find":
                return self._find(body)
        raise RefusedError(404, 17, f"Unknown resource {parts}")

    def _bulk(self, level: str, ids: list[str], metadata: bool) -> Any:
        if level == "Instance":
            images = {image.id: image for image in self.images()}
            return [images[id_].said() for id_ in ids if id_ in images]
        owners = {image.id: image.series for image in self.images()}
        wanted = dict.fromkeys(owners.get(id_, id_) for id_ in ids)
        held = [self.series[id_] for id_ in wanted if id_ in self.series]
        if level == "Study":
            studies = dict.fromkeys(group.study for group in held)
            return [{"ID": study, "Series": [one.id for one in self.series.values() if one.study == study]} for study in studies]
        return self._said_of_series(held, metadata)

    def _find(self, body: Any) -> Any:
        if body["Level"] == "Series":
            groups = [group for group in self.series.values() if group.study == body["ParentStudy"]]
            return self._said_of_series(groups, True)[: self.finds]
        parent = body.get("ParentSeries")
        uids = set(filter(None, body["Query"].get("SOPInstanceUID", "").split("\\")))
        self._refuse_broken(parent)
        wanted = [one for one in self.images() if parent in (None, one.series) and (not uids or one.uid in uids)]
        return [image.found() for image in wanted[: self.finds]]

    def _refuse_broken(self, *series: str | None) -> None:
        if not self.broken.isdisjoint(series):
            raise RefusedError(500, 15, "Inexistent file")

    def _said_of_series(self, groups: list[Group], metadata: bool) -> list[dict[str, Any]]:
        self._refuse_broken(*(group.id for group in groups))
        said = []
        for group in groups:
            tags = {"StudyInstanceUID": f"2.{group.id}", "SeriesInstanceUID": f"3.{group.id}", "SeriesDescription": PATIENT, **group.tags}
            one = {"ID": group.id, "ParentStudy": group.study, "Instances": list(group.images), "MainDicomTags": tags}
            said.append({**one, "Metadata": dict(group.metadata)} if metadata else one)
        return said

    # --- what it does at a destination ---

    def _at_destination(self, peer: Peer, what: str, body: Any) -> Any:
        match what:
            case "query" | "storage-commitment" if peer.nonsense:
                return {}
            case "storage-commitment":
                return {"ID": self._transaction(peer, [(one["SOPClassUID"], one["SOPInstanceUID"]) for one in body["DicomInstances"]])}
            case "query":
                found = self._find_at(peer, body["Query"])
                answers = [{"SOPInstanceUID": f"{uid}\0", "PatientName": PATIENT} if peer.lists_uids else {} for uid in found]
                with self.lock:
                    id_ = f"query-{next(self._numbers)}"
                    self._queries[id_] = answers
                return {"ID": id_}
        raise RefusedError(500, 9, f"no presentation context for {what}")

    def _find_at(self, peer: Peer, wanted: dict[str, str]) -> list[str]:
        uids = list(filter(None, wanted["SOPInstanceUID"].split("\\")))
        if peer.one_uid and len(uids) != 1:
            return []
        series = {image.uid for image in self.images() if f"3.{image.series}" == wanted["SeriesInstanceUID"]}
        return [uid for uid in uids or peer.lists(series) if peer.has(uid, wanted["SeriesInstanceUID"])]

    def _store_at(self, peer: Peer, body: Any) -> dict[str, Any]:
        """A job as it is asked for: OrthancRestModalities.cpp, DicomStore, and OrthancRestApi.cpp, SubmitCommandsJob."""
        for key in ("Timeout", "Priority"):
            if not isinstance(body.get(key, 0), int):
                raise RefusedError(400, 15, f"Integer value expected in field: {key}")
        waits = body.get("Synchronous", True)
        with self.lock:
            ids = [image for id_ in body["Resources"] for image in (self.series[id_].images if id_ in self.series else [id_])]
            if not waits:
                for id_ in ids:
                    self._image(id_)
            name = f"job-{next(self._numbers):06}"
            timeout, priority = body.get("Timeout", 10), body.get("Priority", 0)
            job = Job(name, peer, ids, self._readable, partial(self._came, peer), timeout, priority, passes_over=waits)
            thread = self.begin(job)
        if not waits:
            return {"ID": name, "Path": f"/jobs/{name}"}
        thread.join()
        if job.error:
            raise job.error
        return dict(job.info()["Content"])

    def _image(self, id_: str) -> Stored:
        return _held(next((group.images for group in self.series.values() if id_ in group.images), {}), id_)

    def _readable(self, id_: str) -> Stored | None:
        with self.lock:
            held = (group.images.get(id_) for group in self.series.values())
            return next(filter(None, held), None) if id_ not in self.unreadable else None

    def _came(self, peer: Peer, image: Stored) -> None:
        if peer.returns and not self.full:
            self.again(image, same=not peer.returns_other, aet=peer.returns)

    def _transaction(self, peer: Peer, wanted: list[tuple[str, str]]) -> str:
        with self.lock:
            uid = f"2.25.{next(self._numbers)}"
            after = peer.reports_late.pop(0) if peer.reports_late else peer.report_after
            ready = None if after is None else time.monotonic() + after
            self._transactions[uid] = ready, peer.report(wanted)
            return uid


def _held(all_: Mapping[str, T], id_: str) -> T:
    if id_ not in all_:
        raise RefusedError(404, 17, "Unknown resource")
    return all_[id_]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def __init__(self, node: Node, *request: Any) -> None:
        self._node = node
        super().__init__(*request)

    def _serve(self) -> None:
        node, content = self._node, self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if node.cut:
            self.close_connection = True
            return
        try:
            body = content.decode() if self.command == "PUT" else json.loads(content or b"null")
            status, said = (200, node.answer(self.command, self.path, body)) if node.up else (503, {"Details": "database"})
        except RefusedError as error:
            status, said = error.answer
        text = b"" if said is None else said.encode() if isinstance(said, str) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Nothing."""
