"""A scanner: sends images by C-STORE, and sends again what was not acknowledged, until it is."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from typing import Any

from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom.dimse_primitives import C_STORE

from tests.faults.images import SYNTAX, Image
from tests.faults.ledger import Ledger
from tests.stack.dicom import SUCCESS, _answers_for_the_caller
from tests.stack.harness import Node

#: Seconds that a node may take to answer: longer than a restart takes, so that it is a failure when it is one.
_PATIENCE = 20
#: Seconds until what was not acknowledged is sent again. Scanners wait longer.
_PAUSE = 0.5


class Sender:
    """A device that stores images at a node.

    Attributes:
        aet: its AE title.
        stop: set, it sends nothing more.
    """

    def __init__(self, aet: str, ledger: Ledger) -> None:
        self.aet = aet
        self.ledger = ledger
        self.stop = threading.Event()

    def send(self, node: Node, images: Iterable[Image], *, seconds: float = 120, wait: Callable[[], object] = lambda: None) -> int:
        """Send images until each was acknowledged.

        Args:
            node: where to.
            images: what.
            seconds: how long to try.
            wait: called before each image: what makes a pace.

        Returns:
            how many were not acknowledged: 0, or what was left when the time was over or the sender was told to stop.
        """
        left = list(images)
        end = time.monotonic() + seconds
        while left and not self.stop.is_set() and time.monotonic() < end:
            left = left[self._try(node, left, wait) :]
            if left:
                self.stop.wait(_PAUSE)
        return len(left)

    def must_send(self, node: Node, images: Iterable[Image], *, seconds: float = 120, wait: Callable[[], object] = lambda: None) -> None:
        """Send images, and fail where one was not acknowledged."""
        left = self.send(node, images, seconds=seconds, wait=wait)
        assert not left, f"{node.name} did not take {left} images within {seconds:.0f} s"

    def _try(self, node: Node, images: Sequence[Image], wait: Callable[[], object]) -> int:
        """One association; how many images were acknowledged, one after the other."""
        done = 0
        # A node that dies in the middle of a handshake shows in many ways: each of them is one more failure to send.
        with contextlib.suppress(OSError, RuntimeError, ValueError), contextlib.ExitStack() as open_:
            association = self._associate(node, {image.sop_class for image in images})
            if not association.is_established:
                return 0
            open_.callback(lambda: association.release() if association.is_established else None)
            open_.enter_context(_answers_for_the_caller(association))
            contexts = {context.abstract_syntax: context.context_id for context in association.accepted_contexts}
            for number, image in enumerate(images):
                wait()
                if self.stop.is_set() or image.sop_class not in contexts:
                    break
                self.ledger.sent(image)
                if not _stored(association, contexts[UID(image.sop_class)], image, number):
                    break
                self.ledger.acknowledged(image)
                done += 1
        return done

    def _associate(self, node: Node, sop_classes: Iterable[str]) -> Any:
        ae = AE(ae_title=self.aet)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = _PATIENCE
        ae.connection_timeout = 3
        for sop_class in sorted(sop_classes):
            ae.add_requested_context(sop_class, SYNTAX)
        return ae.associate(node.host, node.port, ae_title=node.aet, max_pdu=131072)


def _stored(association: Any, context: int, image: Image, number: int) -> bool:
    """C-STORE of the bytes as they are: pynetdicom's own send_c_store() would encode the data set anew."""
    request = C_STORE()
    request.MessageID = number % 65535 + 1
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = image.sop_class, image.uid
    request.Priority = 2
    request.DataSet = BytesIO(image.dataset)
    if not association.is_established:
        return False
    association.dimse.send_msg(request, context)
    _, answer = association.dimse.get_msg(block=True)
    return answer is not None and answer.is_valid_response and answer.Status == SUCCESS
