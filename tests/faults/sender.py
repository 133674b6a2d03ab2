"""Scanners: they send images by C-STORE, and send again what was not acknowledged, until it is. One alone, or many as a load."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from random import Random
from typing import Any

from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom.dimse_primitives import C_STORE

from tests.faults.images import LARGE, SMALL, SYNTAX, Image
from tests.faults.ledger import Ledger
from tests.faults.world import SCANNER, World
from tests.stack.dicom import SUCCESS, _answers_for_the_caller
from tests.stack.harness import Node

#: Seconds that a node may take to answer: longer than a restart takes, so that it is a failure when it is one.
_PATIENCE = 20
#: Seconds until what was not acknowledged is sent again. Scanners wait longer.
_PAUSE = 0.5
#: One series of a load in so many is of large images.
_LARGE_EVERY = 25


class Sender:
    """A device that stores images at a node; when ``stop`` is set, it sends nothing more."""

    def __init__(self, ledger: Ledger, aet: str = SCANNER) -> None:
        self.aet = aet
        self.ledger = ledger
        self.stop = threading.Event()

    def send(self, node: Node, images: Iterable[Image], *, seconds: float, wait: Callable[[], object] = lambda: None) -> int:
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

    def must_send(self, node: Node, images: Iterable[Image], *, seconds: float = 120) -> None:
        """Send images, and fail where one was not acknowledged."""
        left = self.send(node, images, seconds=seconds)
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


class Load:
    """Scanners at work as long as the context lasts, one for each client, who share a pace; each ends with the series that it is sending.

    The pace is kept within a series. A pause is made between two, because a scanner does not hold an association open without using it:
    Orthanc waits for such a one before it stops.

    Attributes:
        given_up: images that were never acknowledged, and that nobody was promised.
    """

    def __init__(
        self,
        world: World,
        rng: Random,
        *,
        per_second: float = 30,
        images: tuple[int, int] = (5, 20),
        allowed: Callable[[], float] = lambda: float("inf"),
    ) -> None:
        """Images a second, of all scanners together, and of a series; and how many may have been sent where another series begins."""
        self.given_up = 0
        self._world, self._pause, self._images, self._allowed = world, 1 / per_second, images, allowed
        self._lock = threading.Lock()
        self._next, self._taken = time.monotonic(), 0
        self._stop = threading.Event()
        self._senders = [Sender(world.ledger) for _ in world.clients]
        work = [(sender, client, Random(rng.random())) for sender, client in zip(self._senders, world.clients, strict=True)]
        self._threads = [threading.Thread(target=self._work, args=args, daemon=True) for args in work]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(0 if kind else 120)
        for sender in self._senders:
            sender.stop.set()

    def _work(self, sender: Sender, client: str, rng: Random) -> None:
        while not self._stop.is_set():
            if self._taken >= self._allowed():
                time.sleep(0.1)
                continue
            large = rng.randrange(_LARGE_EVERY) == 0
            count = self._images[0] if large else rng.randint(*self._images)
            series = self._world.new_series(count, LARGE if large else SMALL)
            self.given_up += sender.send(self._world.node(client), series.images(), seconds=600, wait=self._wait)

    def _wait(self) -> None:
        """Until an image may be sent."""
        with self._lock:
            now = time.monotonic()
            # What was not used while a node was down is not made up for in one go.
            at = self._next = max(self._next, now - 1) + self._pause
            self._taken += 1
        time.sleep(max(0.0, at - now))
