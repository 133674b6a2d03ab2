"""An Orthanc that is none: what the forwarder asks of its node, served on loopback, with destinations that can be made to fail.

It does what was seen of Orthanc 1.12.7: a job to store ends at the first image that fails and does not say which one that was, images of
several transfer syntaxes in one job fail it, transactions of storage commitment are forgotten on a restart.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from tests.unit.peers import PATIENT, Peer, RefusedError, Stored

T = TypeVar("T")


@dataclass
class Group:
    """A series of the node."""

    id: str
    study: str
    tags: dict[str, str]
    study_tags: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    images: dict[str, Stored] = field(default_factory=dict)


class Node:
    """The node that the forwarder runs beside. With ``lock`` held, nothing changes and nothing is answered from its database."""

    def __init__(self) -> None:
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
        #: The time at which images are stored; without one, each a second after the other, all of them long ago.
        self.clock: Callable[[], float] | None = None
        self.hooks: list[Callable[[str, str], object]] = []  # called before a request is answered, with its method and path
        self.asked: list[str] = []  # the paths that were asked for
        self.lock = threading.RLock()
        self._clock = time.time() - 200_000
        self._transactions: dict[str, tuple[float | None, dict[str, Any]]] = {}
        self._queries: dict[str, list[dict[str, str]]] = {}
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
        """Images are stored in a series, of a study of its own unless one is named; without an event, nobody is told."""
        with self.lock:
            group = self.series.setdefault(series, Group(series, f"study-{study or series}", {"Modality": "CT", **(tags or {})}))
            return [self._store(group, f"{series}-i{next(self._numbers):05}", event, more) for _ in range(images)]

    def again(self, image: Stored, *, event: bool = True) -> Stored:
        """An image is stored once more, with other content."""
        with self.lock:
            more = {"sop_class": image.sop_class, "syntax": image.syntax, "aet": image.aet}
            return self._store(self.series[image.series], image.id, event, more)

    def _store(self, group: Group, id_: str, event: bool, more: dict[str, Any]) -> Stored:
        self._clock += 1
        at = time.strftime("%Y%m%dT%H%M%S", time.gmtime(self.clock() if self.clock else self._clock))
        image = Stored(id_, group.id, f"file-{next(self._numbers)}", f"1.2.{id_}", received=at, **more)
        group.images[id_] = image
        group.metadata["LastUpdate"] = at
        self.last_change += 1
        if event:
            self.changes.append((self.last_change, "NewInstance", id_))
        return image

    def remove(self, image: Stored) -> None:
        """An image is deleted, its series with its last one."""
        with self.lock:
            group = self.series[image.series]
            del group.images[image.id]
            if not group.images:
                del self.series[group.id]

    def restart(self) -> None:
        """Transactions live in memory."""
        with self.lock:
            self._transactions.clear()
            self._queries.clear()

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
            peer.call(parts[2])
            return self._at_destination(peer, parts[2], body)
        asked = {key: values[0] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        with self.lock:
            return self._of_database(method, parts, asked, body)

    def _of_database(self, method: str, parts: list[str], asked: dict[str, str], body: Any) -> Any:
        match method, *parts:
            case "GET", "system":
                return {"Version": "1.12.7", "Capabilities": {"HasExtendedFind": self.extended}}
            case "GET", "changes" if "last" in asked:
                return {"Changes": [], "Done": True, "Last": self.last_change}
            case "GET", "changes":
                rest = [change for change in self.changes if change[0] > int(asked["since"])]
                page = [{"Seq": number, "ChangeType": kind, "ID": id_} for number, kind, id_ in rest[: int(asked["limit"])]]
                return {"Changes": page, "Done": len(page) == len(rest), "Last": page[-1]["Seq"] if page else self.last_change}
            case "GET", "series":
                since = int(asked["since"])
                return sorted(self.series)[since : since + int(asked["limit"])]
            case "GET", "studies", id_:
                group = _held({group.study: group for group in self.series.values()}, id_)
                return {"MainDicomTags": dict(group.study_tags), "PatientMainDicomTags": {"PatientName": PATIENT}}
            case "GET", "storage-commitment", uid:
                ready, report = _held(self._transactions, uid)
                return report if ready is not None and time.monotonic() >= ready else {"Status": "Pending", "Success": [], "Failures": []}
            case "GET", "queries", id_, "answers":
                return _held(self._queries, id_)
            case "PUT", "series", id_, "metadata", number:
                _held(self.series, id_).metadata[number] = body
                return {}
            case "DELETE", "instances", id_:
                self.remove(_held({image.id: image for image in self.images()}, id_))
                return {}
            case "POST", "tools", "bulk-content":
                return self._bulk(body["Level"], body["Resources"], body.get("Metadata", False))
            case "POST", "tools", "find":
                return self._find(body)
        raise RefusedError(404, 17, f"Unknown resource {parts}")

    def _bulk(self, level: str, ids: list[str], metadata: bool) -> Any:
        if level == "Instance":
            images = {image.id: image for image in self.images()}
            return [_said_of(images[id_]) for id_ in ids if id_ in images]
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
        self._refuse_broken(body["ParentSeries"])
        found = [_said_of(image) for image in self.images() if image.series == body["ParentSeries"]][: self.finds]
        other = {"ContentType": 3, "Uuid": "none"}
        return [{**said, "Attachments": [other, {"ContentType": 1, "Uuid": said.pop("FileUuid")}]} for said in found]

    def _refuse_broken(self, *series: str) -> None:
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
            case "echo":
                return {}
            case "query" | "storage-commitment" if peer.nonsense:
                return {}
            case "store":
                return self._store_at(peer, body["Resources"], commitment=body.get("StorageCommitment", False))
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
        return [uid for uid in uids or sorted(series) if uid in peer.stored]

    def _store_at(self, peer: Peer, ids: list[str], *, commitment: bool) -> dict[str, Any]:
        held = {image.id: image for image in self.images()}
        images = [held[id_] for id_ in ids if id_ in held.keys() - self.unreadable]  # Orthanc passes over the others, and tells how many
        if len({image.syntax for image in images}) > 1:
            raise RefusedError(500, 9, "several transfer syntaxes")
        time.sleep(peer.slow)
        for image in images:
            peer.take(image)
        peer.batches.append(images)
        if commitment and not peer.commits:
            peer.refuse_service()  # fails the job, after everything was stored
        asked = self._transaction(peer, [(one.sop_class, one.uid) for one in images]) if commitment else ""
        return {"FailedInstancesCount": len(ids) - len(images), "StorageCommitmentTransactionUID": asked}

    def _transaction(self, peer: Peer, wanted: list[tuple[str, str]]) -> str:
        with self.lock:
            uid = f"2.25.{next(self._numbers)}"
            ready = None if peer.report_after is None else time.monotonic() + peer.report_after
            self._transactions[uid] = ready, peer.report(wanted)
            return uid


def _held(all_: Mapping[str, T], id_: str) -> T:
    if id_ not in all_:
        raise RefusedError(404, 17, "Unknown resource")
    return all_[id_]


def _said_of(image: Stored) -> dict[str, Any]:
    metadata = {"SopClassUid": image.sop_class, "TransferSyntax": image.syntax, "ReceptionDate": image.received}
    said = {"ID": image.id, "FileUuid": image.file, "MainDicomTags": {"SOPInstanceUID": image.uid, "ImageComments": PATIENT}}
    return {**said, "Metadata": {**metadata, **({"RemoteAET": image.aet} if image.aet else {})}}


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
        text = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Nothing."""
