"""A DICOM device outside the stack, with habits that devices in hospitals have; it counts what it is sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, build_role, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

#: The well-known instance of storage commitment (DICOM PS3.4, J.3.5).
_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
_ABSENT = 0x0112


@dataclass
class Device:
    """A device, and what it remembers.

    Attributes:
        name: its name in the stack file.
        link: what the link to it says besides its name.
        echoes: it has C-ECHO.
        finds: it has C-FIND.
        one_uid: its C-FIND knows one UID at a time: a list finds nothing, nor does a whole series.
        commits: it has storage commitment, and reports over an association of its own.
        uncompressed: it takes uncompressed images only.
        transfers: the SOP instance UIDs that it was sent, in their order.
        node: where it reports to: address, port, AE title.
    """

    name: str
    link: dict[str, Any] = field(default_factory=dict)
    echoes: bool = True
    finds: bool = False
    one_uid: bool = False
    commits: bool = False
    uncompressed: bool = False
    transfers: list[str] = field(default_factory=list)
    node: tuple[str, int, str] = ("", 0, "")
    _server: Any = None

    @property
    def aet(self) -> str:
        return self.name.upper().replace("-", "_")

    def start(self, port: int) -> None:
        """Listen."""
        ae = AE(ae_title=self.aet)
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(
                str(context.abstract_syntax),
                [ImplicitVRLittleEndian, ExplicitVRLittleEndian] if self.uncompressed else ALL_TRANSFER_SYNTAXES,
            )
        if self.echoes:
            ae.add_supported_context(Verification)
        if self.finds:
            ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        if self.commits:
            ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        handlers: list[Any] = [(evt.EVT_C_STORE, self._on_store), (evt.EVT_C_FIND, self._on_find), (evt.EVT_N_ACTION, self._on_action)]
        self._server = ae.start_server(("0.0.0.0", port), block=False, evt_handlers=handlers)

    def stop(self) -> None:
        """Be away: nothing answers."""
        if self._server:
            self._server.shutdown()
        self._server = None

    def _on_store(self, event: Any) -> int:
        self.transfers.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    def _on_find(self, event: Any) -> Iterator[tuple[int, Dataset]]:
        asked = event.identifier.get("SOPInstanceUID", "")
        wanted = [asked] if isinstance(asked, str) else list(asked)
        if self.one_uid and len(wanted) > 1:
            return
        for uid in wanted:
            if uid in self.transfers:
                found = Dataset()
                found.QueryRetrieveLevel = "IMAGE"
                found.SOPInstanceUID = uid
                yield 0xFF00, found

    def _on_action(self, event: Any) -> tuple[int, None]:
        threading.Thread(target=self._report, args=(event.action_information,), daemon=True).start()
        return 0x0000, None

    def _report(self, asked: Dataset) -> None:
        time.sleep(0.3)
        answer = Dataset()
        answer.TransactionUID = asked.TransactionUID
        held = [item for item in asked.ReferencedSOPSequence if item.ReferencedSOPInstanceUID in self.transfers]
        missing = [item for item in asked.ReferencedSOPSequence if item not in held]
        for item in missing:
            item.FailureReason = _ABSENT
        if held:
            answer.ReferencedSOPSequence = held
        if missing:
            answer.FailedSOPSequence = missing
        ae = AE(ae_title=self.aet)
        ae.add_requested_context(StorageCommitmentPushModel)
        host, port, aet = self.node
        role = build_role(StorageCommitmentPushModel, scu_role=False, scp_role=True)
        association = ae.associate(host, port, ae_title=aet, ext_neg=[role])
        if association.is_established:
            association.send_n_event_report(answer, 2 if missing else 1, StorageCommitmentPushModel, _COMMITMENT_INSTANCE)
            association.release()
