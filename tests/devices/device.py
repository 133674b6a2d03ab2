"""A DICOM device outside the stack, with habits that devices in hospitals have; it counts what it is sent."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, build_role, evt
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from tests.stack.dicom import ct_series
from tests.stack.harness import Node

#: The well-known instance of storage commitment (DICOM PS3.4, J.3.5).
_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
SUCCESS, _ABSENT = 0x0000, 0x0112
#: Seconds until a device reports, where it does not take its time.
_PROMPT = 0.3


@dataclass
class Device:
    """A device, and what it remembers. A subclass has habits that take more than a setting.

    Attributes:
        name: its name in the stack file.
        habit: what is odd about it, in words.
        count: how many images it is to get when the zoo opens.
        size: the rows and columns of each.
        link: what the link to it says besides its name and its rules.
        allow: what it may ask of its node.
        echoes: it has C-ECHO.
        finds: it has C-FIND.
        one_uid: its C-FIND knows one UID at a time: a list finds nothing, nor does a whole series.
        commits: it has storage commitment.
        report_after: seconds until it reports; None: it takes requests, and never reports.
        same_association: it reports over the association of the request; if that is closed by then, over one of its own.
        uncompressed: it takes uncompressed images only.
        delay: seconds until it answers a transfer.
        pdu: the largest PDU that it takes, in bytes; 0 is any.
        first_wins: it keeps the first copy of a SOP instance UID, and answers 0x0111 to any other.
        title: the AE title that it answers to.
        transfers: the SOP instance UIDs that it was sent, in their order.
        held: the MD5 of each data set that it keeps, by series and SOP instance UID.
        asked: how often it was asked for storage commitment.
        node: the node that it reports to.
        sent: what it was to get when the zoo opened.
        began: when the first of it was sent, as time.time().
    """

    name: str
    habit: str = ""
    count: int = 10
    size: int = 64
    link: dict[str, Any] = field(default_factory=dict)
    allow: list[str] = field(default_factory=list)
    echoes: bool = True
    finds: bool = False
    one_uid: bool = False
    commits: bool = False
    report_after: float | None = _PROMPT
    same_association: bool = False
    uncompressed: bool = False
    delay: float = 0.0
    pdu: int = 16384
    first_wins: bool = False
    title: str = ""
    transfers: list[str] = field(default_factory=list)
    held: dict[tuple[str, str], str] = field(default_factory=dict)
    asked: int = 0
    node: Node | None = None
    sent: list[FileDataset] = field(default_factory=list)
    began: float = 0.0
    _to_report: dict[Any, Dataset] = field(default_factory=dict)
    _port: int = 0
    _server: Any = None

    def __post_init__(self) -> None:
        self.title = self.title or self.aet

    @property
    def aet(self) -> str:
        """Its AE title in the stack file."""
        return self.name.upper().replace("-", "_")

    def images(self) -> list[FileDataset]:
        """What it is to get when the zoo opens."""
        return ct_series(self.count, self.size)

    def counts(self) -> Counter[str]:
        """How often it was sent each image, by SOP instance UID."""
        return Counter(self.transfers)

    def holds(self, uid: str) -> bool:
        """Whether it keeps an image, in any series."""
        return any(of == uid for _, of in list(self.held))

    # --- its life ---

    def start(self, port: int) -> None:
        """Listen."""
        self._port = port
        self._server = self._listen("0.0.0.0", port)

    def _listen(self, host: str, port: int) -> Any:
        ae = AE(ae_title=self.title)
        ae.require_called_aet = True
        ae.maximum_pdu_size = self.pdu
        ae.maximum_associations = 20
        ae.network_timeout = ae.dimse_timeout = None  # lines may be slow
        syntaxes = [ImplicitVRLittleEndian, ExplicitVRLittleEndian] if self.uncompressed else ALL_TRANSFER_SYNTAXES
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(str(context.abstract_syntax), syntaxes)
        if self.echoes:
            ae.add_supported_context(Verification)
        if self.finds:
            ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        if self.commits:
            ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        return ae.start_server((host, port), block=False, evt_handlers=self.handlers())

    def handlers(self) -> list[Any]:
        """What it does at each event."""
        return [
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_C_FIND, self._on_find),
            (evt.EVT_N_ACTION, self._on_action),
            (evt.EVT_PDU_SENT, self._on_sent),
        ]

    def stop(self) -> None:
        """Be away: associations are cut, and nothing answers."""
        server, self._server = self._server, None
        if server:
            server.shutdown()
            for association in server.active_associations:
                association.abort(block=False)

    def come_back(self) -> None:
        """Listen where it did before."""
        self.start(self._port)

    # --- transfers ---

    def _on_store(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        self.transfers.append(uid)
        time.sleep(self.delay)
        return self.take(event, uid)

    def take(self, event: Any, uid: str) -> int:
        """The status that answers a transfer."""
        if self.first_wins and self.holds(uid):
            return 0x0111
        self.keep(event, uid)
        return SUCCESS

    def keep(self, event: Any, uid: str) -> None:
        """Keep an image."""
        self.held[str(event.dataset.SeriesInstanceUID), uid] = hashlib.md5(event.request.DataSet.getvalue()).hexdigest()

    # --- confirmation ---

    def _on_find(self, event: Any) -> Iterator[tuple[int, Dataset]]:
        asked = event.identifier.get("SOPInstanceUID") or []
        wanted = [asked] if isinstance(asked, str) else list(asked)
        if self.one_uid and len(wanted) != 1:
            return
        series = str(event.identifier.get("SeriesInstanceUID", ""))
        for of, uid in list(self.held):
            if of == series and (not wanted or uid in wanted):
                found = Dataset()
                found.QueryRetrieveLevel = "IMAGE"
                found.StudyInstanceUID, found.SeriesInstanceUID = event.identifier.get("StudyInstanceUID", ""), of
                found.SOPInstanceUID = uid
                yield 0xFF00, found

    def _on_action(self, event: Any) -> tuple[int, None]:
        self.asked += 1
        if self.report_after is not None:
            self._to_report[event.assoc] = event.action_information
        return SUCCESS, None

    def _on_sent(self, event: Any) -> None:
        """Begin with a report as soon as the request is answered."""
        if isinstance(event.pdu, P_DATA_TF) and (asked := self._to_report.pop(event.assoc, None)):
            association = event.assoc if self.same_association else None
            threading.Thread(target=self._report, args=(asked, association), daemon=True).start()

    def _report(self, asked: Dataset, association: Any) -> None:
        if association and _send(association, self._answer(asked)):
            return
        time.sleep(self.report_after or 0)
        assert self.node
        ae = AE(ae_title=self.aet)
        ae.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scu_role=False, scp_role=True)
        own = ae.associate(self.node.host, self.node.port, ae_title=self.node.aet, ext_neg=[role])
        if own.is_established:
            _send(own, self._answer(asked))
            own.release()

    def _answer(self, asked: Dataset) -> Dataset:
        answer = Dataset()
        answer.TransactionUID = asked.TransactionUID
        held = [item for item in asked.ReferencedSOPSequence if self.holds(str(item.ReferencedSOPInstanceUID))]
        missing = [item for item in asked.ReferencedSOPSequence if item not in held]
        for item in missing:
            item.FailureReason = _ABSENT
        if held:
            answer.ReferencedSOPSequence = held
        if missing:
            answer.FailedSOPSequence = missing
        return answer


def _send(association: Any, answer: Dataset) -> bool:
    """Send a report (N-EVENT-REPORT); whether it was taken."""
    association.dimse_timeout = 5
    kind = 2 if "FailedSOPSequence" in answer else 1
    try:
        status, _ = association.send_n_event_report(answer, kind, StorageCommitmentPushModel, _COMMITMENT_INSTANCE)
    except (RuntimeError, ValueError):  # the association has ended
        return False
    return bool(status.get("Status") == SUCCESS)
