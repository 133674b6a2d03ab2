"""Devices whose habits take more than a setting."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import FileDataset
from pydicom.uid import UID, MRImageStorage, SecondaryCaptureImageStorage, generate_uid
from pynetdicom.pdu import P_DATA_TF

from tests.devices.device import SUCCESS, Device
from tests.stack.dicom import ct_series, store

#: How long a device that ended needs until it is back, in seconds.
_RESTART = 1.0


@dataclass
class Crashing(Device):
    """It ends at one image, without an answer, and comes back after a moment."""

    fatal: str = ""
    crashes: int = 0

    def images(self) -> list[FileDataset]:
        """Three series, the fatal image in the second."""
        three = [ct_series(self.count, self.size) for _ in range(3)]
        self.fatal = str(three[1][self.count // 2].SOPInstanceUID)
        return [image for series in three for image in series]

    def take(self, event: Any, uid: str) -> int:
        if uid != self.fatal:
            return super().take(event, uid)
        self.crashes += 1
        threading.Thread(target=self._restart, daemon=True).start()
        # As when a process ends: without an A-ABORT. pynetdicom would still answer as long as the association lives.
        event.assoc.dul.socket.close()
        event.assoc.kill()
        return SUCCESS

    def _restart(self) -> None:
        self.stop()
        time.sleep(_RESTART)
        self.come_back()


@dataclass
class Aborting(Device):
    """It stores, and aborts the association: after each answer, or instead of the answer to one image.

    Attributes:
        answers: it aborts after each answer.
        fatal: the image to which it never answers.
    """

    answers: bool = True
    fatal: str = ""

    def images(self) -> list[FileDataset]:
        made = super().images()
        self.fatal = "" if self.answers else str(made[self.count // 2].SOPInstanceUID)
        return made

    def take(self, event: Any, uid: str) -> int:
        if uid == self.fatal:
            event.assoc.abort(block=True)
        return super().take(event, uid)

    def _on_sent(self, event: Any) -> None:
        super()._on_sent(event)
        if self.answers and isinstance(event.pdu, P_DATA_TF):
            event.assoc.abort(block=False)


@dataclass
class Answering(Device):
    """It answers certain statuses to certain images.

    Attributes:
        statuses: one series each; the second of its images gets the status.
        tries: to how many transfers of each; to all, when it is None.
        status_of: the status of an image, by SOP instance UID.
    """

    statuses: tuple[int, ...] = ()
    tries: int | None = None
    status_of: dict[str, int] = field(default_factory=dict)

    #: Statuses that speak of a SOP class: their images have one of their own, and no others in their series.
    CLASSES: Mapping[int, str] = field(default_factory=lambda: {0x0118: str(MRImageStorage), 0x0122: str(SecondaryCaptureImageStorage)})

    def images(self) -> list[FileDataset]:
        made = []
        for status in self.statuses:
            series = ct_series(1 if status in self.CLASSES else 3, self.size)
            odd = series[len(series) // 2]
            if status in self.CLASSES:
                odd.SOPClassUID = odd.file_meta.MediaStorageSOPClassUID = UID(self.CLASSES[status])
            self.status_of[str(odd.SOPInstanceUID)] = status
            made += series
        return made

    def take(self, event: Any, uid: str) -> int:
        status = self.status_of.get(uid, SUCCESS)
        answered = status if self.tries is None or self.counts()[uid] <= self.tries else SUCCESS
        # Those of a warning are stored: DICOM PS3.7, annex C, and PS3.4, table B.2-1.
        if answered >> 12 == 0xB or answered in (SUCCESS, 0x0001, 0x0107, 0x0116):
            self.keep(event, uid)
        return answered


@dataclass
class Renumbering(Device):
    """It keeps each image under another SOP instance UID, and so never has what it was sent."""

    def keep(self, event: Any, uid: str) -> None:
        super().keep(event, str(generate_uid()))


@dataclass
class Routing(Device):
    """It sends each image back to the node that it came from.

    Attributes:
        caller: the AE title that it calls itself meanwhile.
        returned: the SOP instance UIDs of images that the node took back.
    """

    caller: str = ""
    returned: list[str] = field(default_factory=list)

    def take(self, event: Any, uid: str) -> int:
        image = event.dataset
        image.file_meta = event.file_meta
        threading.Thread(target=self._send_back, args=(image,), daemon=True).start()
        return super().take(event, uid)

    def _send_back(self, image: FileDataset) -> None:
        assert self.node
        self.returned.extend(store(self.node, self.caller or self.aet, [image]))


@dataclass
class Twins(Device):
    """An ordinary device; but one SOP instance UID of its images is in two series."""

    def images(self) -> list[FileDataset]:
        first, second = ct_series(self.count, self.size), ct_series(self.count, self.size)
        for image in second:
            image.StudyInstanceUID = first[0].StudyInstanceUID
        second[0].SOPInstanceUID = second[0].file_meta.MediaStorageSOPInstanceUID = first[0].SOPInstanceUID
        return [*first, *second]


@dataclass
class Described(Device):
    """An ordinary device; but the first image of its study has no StudyDescription."""

    def images(self) -> list[FileDataset]:
        made = super().images()
        for image in made:
            image.StudyDescription = "Knee left"
        del made[0].StudyDescription
        return made


@dataclass
class Fickle(Device):
    """It commits itself to each image once, and is silent when it is asked again."""

    told: set[str] = field(default_factory=set)

    def _on_action(self, event: Any) -> tuple[int, None]:
        asked = {str(item.ReferencedSOPInstanceUID) for item in event.action_information.ReferencedSOPSequence}
        if asked <= self.told:
            return SUCCESS, None
        self.told |= asked
        return super()._on_action(event)


@dataclass
class HalfOpen(Device):
    """It accepts connections, and never says a word, until it is `awake`."""

    awake: bool = False

    def start(self, port: int) -> None:
        if self.awake:
            super().start(port)
            return
        self._port, self._server = port, _Listener(port)


@dataclass
class SlowLine(Device):
    """A line of so many bytes in a second lies before it."""

    rate: int = 250_000
    _behind: Any = None

    def start(self, port: int) -> None:
        self._port = port
        self._behind = self._listen("127.0.0.1", 0)
        self._server = _Listener(port, self._behind.server_address[1], self.rate)

    def stop(self) -> None:
        super().stop()
        self._server, self._behind = self._behind, None
        super().stop()


class _Listener:
    """Accepts connections; keeps them, or passes on what they say to another port, slowly."""

    active_associations = ()

    def __init__(self, port: int, to: int = 0, rate: int = 0) -> None:
        self._to, self._rate = to, rate
        self._open: list[socket.socket] = []
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # As on a slow line, little is on its way.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self._socket.bind(("0.0.0.0", port))
        self._socket.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def shutdown(self) -> None:
        for one in (self._socket, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._socket.accept()
                self._open.append(near)
                if self._to:
                    far = socket.create_connection(("127.0.0.1", self._to))
                    self._open.append(far)
                    threading.Thread(target=self._pass_on, args=(near, far), daemon=True).start()
                    threading.Thread(target=self._pass_on, args=(far, near), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(16384):
                time.sleep(len(data) / self._rate)
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
