"""An Orthanc that is none: what the forwarder asks of its node, served on loopback, with destinations that can be made to fail.

It does what was seen of Orthanc 1.12.7: a job to store ends at the first image that fails and does not say which one that was, images of
several transfer syntaxes in one job fail it, transactions of storage commitment are forgotten on a restart.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.unit.peers import PATIENT, Peer, RefusedError, Stored


@dataclass
class Group:
    """A series of the node."""

    id: str
    study: str
    tags: dict[str, str]
    study_tags: dict[str, str]
    metadata: dict[str, str] = field(default_factory=dict)
    images: dict[str, Stored] = field(default_factory=dict)


class Node:
    """The node that the forwarder runs beside.

    Attributes:
        peers: its destinations, by name.
        series: what it holds.
        up: whether its database does; without it, it answers 503.
        cut: whether it hangs up instead of answering.
        hooks: called before a request is answered, with its method and path.
        broken: series for which it answers 500.
        finds: how many resources a query finds at the most.
        extended: whether its index answers queries as a whole, as SQLite does.
        mixed: how often images of several transfer syntaxes were to be sent at once.
        clock: the time at which images are stored; without one, each a second after the other, all of them long ago.
    """

    def __init__(self, *peers: str) -> None:
        self.peers = {name: Peer() for name in peers}
        self.series: dict[str, Group] = {}
        self.up = True
        self.cut = False
        self.hooks: list[Callable[[str, str], None]] = []
        self.broken: set[str] = set()
        self.finds = 10**6
        self.extended = True
        self.mixed = 0
        self.changes: list[tuple[int, str, str]] = []
        self.last_change = 0
        self._transactions: dict[str, tuple[float | None, dict[str, Any]]] = {}
        self._queries: dict[str, list[dict[str, str]]] = {}
        self._numbers = itertools.count(1)
        self.clock: Callable[[], float] | None = None
        self._clock = time.time() - 200_000
        self.lock = threading.RLock()
        self.server = _Server(self)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    # --- what happens to it ---

    def add(
        self, series: str, images: int = 1, *, study: str = "", tags: dict[str, str] | None = None, event: bool = True, **more: Any
    ) -> list[Stored]:
        """Images are stored in a series, of a study of its own unless one is named; without an event, nobody is told."""
        with self.lock:
            group = self.series.setdefault(series, Group(series, f"study-{study or series}", {"Modality": "CT", **(tags or {})}, {}))
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

    def rewind(self, to: int = 0) -> None:
        """The changes log of a restored backup, or a cleared one."""
        with self.lock:
            self.changes = [change for change in self.changes if change[0] <= to]
            self.last_change = to

    def images(self) -> list[Stored]:
        """All that it holds."""
        with self.lock:
            return [image for group in self.series.values() for image in group.images.values()]

    # --- what it answers ---

    def answer(self, method: str, path: str, body: Any) -> Any:
        """The answer to a request."""
        for hook in list(self.hooks):
            hook(method, path)
        url = urlsplit(path)
        asked = {key: values[0] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        for pattern, call in _ROUTES:
            if match := re.fullmatch(pattern, f"{method} {url.path}"):
                return call(self, *match.groups(), body=body, asked=asked)
        raise RefusedError(404, 17, f"Unknown resource {path}")

    def _changes(self, *, body: Any, asked: dict[str, str]) -> Any:
        with self.lock:
            if "last" in asked:
                return {"Changes": [], "Done": True, "Last": self.last_change}
            since, limit = int(asked["since"]), int(asked["limit"])
            rest = [change for change in self.changes if change[0] > since]
            page = rest[:limit]
            said = [{"Seq": number, "ChangeType": kind, "ID": id_} for number, kind, id_ in page]
            return {"Changes": said, "Done": len(rest) <= limit, "Last": page[-1][0] if page else self.last_change}

    def _list(self, *, body: Any, asked: dict[str, str]) -> Any:
        with self.lock:
            since = int(asked["since"])
            return sorted(self.series)[since : since + int(asked["limit"])]

    def _system(self, *, body: Any, asked: dict[str, str]) -> Any:
        return {"Version": "1.12.7", "Capabilities": {"HasExtendedFind": self.extended}}

    def _bulk(self, *, body: Any, asked: dict[str, str]) -> Any:
        with self.lock:
            if body["Level"] == "Instance":
                images = {image.id: image for image in self.images()}
                return [_said_of(images[id_]) for id_ in body["Resources"] if id_ in images]
            owners = {image.id: image.series for image in self.images()}
            wanted = dict.fromkeys(owners.get(id_, id_) for id_ in body["Resources"])
            held = [self.series[id_] for id_ in wanted if id_ in self.series]
            if body["Level"] == "Study":
                studies = dict.fromkeys(group.study for group in held)
                return [{"ID": study, "Series": [one.id for one in self.series.values() if one.study == study]} for study in studies]
            self._refuse_broken(*wanted)
            return [self._said_of_series(group, body["Metadata"]) for group in held]

    def _find(self, *, body: Any, asked: dict[str, str]) -> Any:
        with self.lock:
            if body["Level"] == "Series":
                groups = [group for group in self.series.values() if group.study == body["ParentStudy"]]
                self._refuse_broken(*(group.id for group in groups))
                return [self._said_of_series(group, True) for group in groups[: self.finds]]
            self._refuse_broken(body["ParentSeries"])
            found = [_said_of(image) for image in self.images() if image.series == body["ParentSeries"]][: self.finds]
            return [
                {**said, "Attachments": [{"ContentType": 3, "Uuid": "none"}, {"ContentType": 1, "Uuid": said.pop("FileUuid")}]}
                for said in found
            ]

    def _refuse_broken(self, *series: str) -> None:
        if not self.broken.isdisjoint(series):
            raise RefusedError(500, 15, "Inexistent file")

    @staticmethod
    def _said_of_series(group: Group, metadata: bool) -> dict[str, Any]:
        tags = {"StudyInstanceUID": f"2.{group.id}", "SeriesInstanceUID": f"3.{group.id}", "SeriesDescription": PATIENT, **group.tags}
        said = {"ID": group.id, "ParentStudy": group.study, "Instances": list(group.images), "MainDicomTags": tags}
        return {**said, "Metadata": dict(group.metadata)} if metadata else said

    def _study(self, id_: str, *, body: Any, asked: dict[str, str]) -> Any:
        with self.lock:
            group = next((group for group in self.series.values() if group.study == id_), None)
            if group is None:
                raise RefusedError(404, 17, "Unknown resource")
            return {"MainDicomTags": dict(group.study_tags), "PatientMainDicomTags": {"PatientName": PATIENT}}

    def _put(self, id_: str, number: str, *, body: Any, asked: dict[str, str]) -> Any:
        with self.lock:
            if id_ not in self.series:
                raise RefusedError(404, 17, "Unknown resource")
            self.series[id_].metadata[number] = body
            return {}

    def _delete(self, id_: str, *, body: Any, asked: dict[str, str]) -> Any:
        with self.lock:
            found = [image for image in self.images() if image.id == id_]
            if not found:
                raise RefusedError(404, 17, "Unknown resource")
            self.remove(found[0])
            return {}

    # --- what it does at a destination ---

    def _echo(self, name: str, *, body: Any, asked: dict[str, str]) -> Any:
        self.peers[name].call("echo")
        return {}

    def _send(self, name: str, *, body: Any, asked: dict[str, str]) -> Any:
        peer = self.peers[name]
        peer.call("store")
        with self.lock:
            held = {image.id: image for image in self.images()}
            if missing := [id_ for id_ in body["Resources"] if id_ not in held]:
                raise RefusedError(404, 17, f"Unknown resource {missing[0]}")
            images = [held[id_] for id_ in body["Resources"]]
            if len({image.syntax for image in images}) > 1:
                self.mixed += 1
                raise RefusedError(500, 9, "several transfer syntaxes")
        time.sleep(peer.slow)
        for image in images:
            peer.take(image)
        peer.batches.append(images)
        return {"StorageCommitmentTransactionUID": self._transaction(peer, [(one.sop_class, one.uid) for one in images])}

    def _commit(self, name: str, *, body: Any, asked: dict[str, str]) -> Any:
        peer = self.peers[name]
        peer.call("commit")
        if not peer.commits:
            raise RefusedError(500, 9, "no presentation context for storage commitment")
        wanted = [(one["SOPClassUID"], one["SOPInstanceUID"]) for one in body["DicomInstances"]]
        return {"ID": self._transaction(peer, wanted)}

    def _transaction(self, peer: Peer, wanted: list[tuple[str, str]]) -> str:
        with self.lock:
            uid = f"2.25.{next(self._numbers)}"
            ready = None if peer.report_after is None else time.monotonic() + peer.report_after
            self._transactions[uid] = ready, peer.report(wanted)
            return uid

    def _report(self, uid: str, *, body: Any, asked: dict[str, str]) -> Any:
        with self.lock:
            if uid not in self._transactions:
                raise RefusedError(404, 17, "Unknown resource")
            ready, report = self._transactions[uid]
            return report if ready is not None and time.monotonic() >= ready else {"Status": "Pending", "Success": [], "Failures": []}

    def _query(self, name: str, *, body: Any, asked: dict[str, str]) -> Any:
        peer = self.peers[name]
        peer.call("query")
        found = [uid for uid in body["Query"]["SOPInstanceUID"].split("\\") if uid in peer.stored]
        with self.lock:
            id_ = f"query-{next(self._numbers)}"
            self._queries[id_] = [{"SOPInstanceUID": f"{uid}\0", "PatientName": PATIENT} if peer.lists_uids else {} for uid in found]
        return {"ID": id_}

    def _answers(self, id_: str, *, body: Any, asked: dict[str, str]) -> Any:
        return self._queries[id_]


def _said_of(image: Stored) -> dict[str, Any]:
    metadata = {"SopClassUid": image.sop_class, "TransferSyntax": image.syntax, "ReceptionDate": image.received}
    said = {"ID": image.id, "FileUuid": image.file, "MainDicomTags": {"SOPInstanceUID": image.uid, "ImageComments": PATIENT}}
    return {**said, "Metadata": {**metadata, **({"RemoteAET": image.aet} if image.aet else {})}}


_ROUTES: tuple[tuple[str, Callable[..., Any]], ...] = (
    (r"GET /system", Node._system),
    (r"GET /changes", Node._changes),
    (r"GET /series", Node._list),
    (r"POST /tools/bulk-content", Node._bulk),
    (r"POST /tools/find", Node._find),
    (r"GET /studies/([^/]+)", Node._study),
    (r"PUT /series/([^/]+)/metadata/(\d+)", Node._put),
    (r"DELETE /instances/([^/]+)", Node._delete),
    (r"POST /modalities/([^/]+)/echo", Node._echo),
    (r"POST /modalities/([^/]+)/store", Node._send),
    (r"POST /modalities/([^/]+)/storage-commitment", Node._commit),
    (r"POST /modalities/([^/]+)/query", Node._query),
    (r"GET /storage-commitment/([^/]+)", Node._report),
    (r"GET /queries/([^/]+)/answers", Node._answers),
)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, node: Node) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.node = node


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        node, content = self.server.node, self.rfile.read(int(self.headers.get("Content-Length", 0)))
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

    def log_message(self, *_: object) -> None:
        """Nothing."""
