"""The devices of the zoo, and the stack whose nodes forward to them."""

from __future__ import annotations

import calendar
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import FileDataset

from tests.devices.device import Device
from tests.devices.habits import Aborting, Answering, Crashing, Described, Fickle, HalfOpen, Renumbering, Routing, SlowLine, Twins
from tests.devices.programs import QrScp, StoreScp
from tests.stack.dicom import ct_series, store
from tests.stack.forwarding import forwarder_of, link, status
from tests.stack.harness import Node, Stack, docker, eventually

#: A node that keeps everything, and one that deletes what has been confirmed.
ROOM, HALL = "room", "hall"
#: Seconds after its last image until the hall deletes a series.
KEPT_SECONDS = 20
#: Who sends images to the nodes, and who sends them back for a device under another AE title than the device's.
SENDER, ROUTER_OUT = "WORKSTATION", "ROUTER_OUT"
#: Seconds until the late device reports: longer than any request for a report is waited for at once.
LATE_SECONDS = 60.0
#: Seconds until the slow device answers.
SLOW_SECONDS = 40.0
#: The room's DicomScuTimeout, half of the default: the half-open device is found out sooner, and the slow line takes longer than that.
SCU_TIMEOUT = 60

#: Statuses of C-STORE by what is to come of the image: DICOM PS3.4, table B.2-1, and PS3.7, annex C.
WARNINGS = (0xB000, 0xB006, 0xB007, 0x0001, 0x0107, 0x0116)
REFUSALS = (0xA900, 0xA9FF, 0xC000, 0xC123, *(0x0105, 0x0106, 0x0115, 0x0117, 0x0118, 0x0119, 0x0120, 0x0121, 0x0122, 0x0211))
PASSING = (0xA700, 0xA7FF, 0x0110, 0x0124, 0x0210, 0x0212, 0x0213, 0xFE00)


def of_the_room() -> list[Device]:
    """The devices that the room forwards to; first those that take longest."""
    return [
        Device("late", f"reports commitment after {LATE_SECONDS:.0f} s", commits=True, report_after=LATE_SECONDS),
        SlowLine("slow-line", "250 kB/s, images of 0.5 MB", count=30, size=512),
        HalfOpen("half-open", "accepts connections, and says nothing"),
        Described("described", "link with a rule on StudyDescription", count=5, link={"only": {"studyDescription": ["*knee*"]}}),
        Device("slow-answer", f"answers after {SLOW_SECONDS:.0f} s", count=1, delay=SLOW_SECONDS),
        Crashing("crasher", "ends at one image"),
        Answering("weary", "8 statuses, to two tries each", statuses=PASSING, tries=2),
        Answering("refuser", f"{len(REFUSALS)} statuses of refusal", statuses=REFUSALS),
        Answering("warner", f"{len(WARNINGS)} statuses of warning", statuses=WARNINGS),
        Renumbering("renumbers", "changes UIDs", count=3, commits=True),
        Routing("returns", "sends all back", allow=["store"]),
        Routing("router", "sends all back under another AE title", caller=ROUTER_OUT),
        Device("never-reports", "takes requests for commitment, never reports", commits=True, report_after=None),
        Device("plain", "stores, and no more", count=30),
        Device("plain-named", "no commitment, which its link names", count=30, link={"confirm": "commitment"}),
        Device("finder", "C-FIND", count=30, finds=True),
        Device("one-uid", "C-FIND of one UID", count=30, link={"confirm": "query"}, finds=True, one_uid=True),
        Device("committer", "storage commitment", count=30, commits=True),
        Device("same-association", "reports over the association of the request", commits=True, same_association=True),
        Device("no-echo", "no C-ECHO; away for a moment", echoes=False, finds=True),
        Device("uncompressed", "uncompressed images only", uncompressed=True),
        StoreScp("storescp", "DCMTK's storescp", count=100),
        QrScp("dcmqrscp", "DCMTK's dcmqrscp", count=100, link={"confirm": "query"}),
        Device("pdu-tiny", "PDUs of 4096 bytes", pdu=4096),
        Device("pdu-any", "PDUs without a limit", pdu=0),
        Device("retitled", "another AE title for a moment", count=5),
        Aborting("aborts-after", "aborts after each answer"),
        Aborting("aborts-before", "stores one image, and aborts", answers=False, finds=True),
        Device("first-wins", "keeps the first version", commits=True, first_wins=True),
        Twins("twins", "one UID in two series", count=5, finds=True),
    ]


def of_the_hall() -> list[Device]:
    """The devices that the hall forwards to: it deletes what they have confirmed."""
    return [
        Fickle("fickle", "commits once, then is silent", commits=True),
        Device("steady", "commits", commits=True),
        Device("older", "keeps the first version, commits", count=3, commits=True, first_wins=True),
        Twins("pair", "one UID in two series, commits", count=3, commits=True),
    ]


@dataclass
class Zoo:
    """The stack, and the devices by their names.

    Attributes:
        rows: what came of each device, for the table at the end.
    """

    stack: Stack
    room: Sequence[Device]
    hall: Sequence[Device]
    rows: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def devices(self) -> Sequence[Device]:
        """All of them."""
        return [*self.room, *self.hall]

    def __getitem__(self, name: str) -> Device:
        return next(one for one in self.devices if one.name == name)

    def node_of(self, device: Device) -> Node:
        """The node that forwards to a device."""
        return self.stack.node(ROOM if device in self.room else HALL)

    def open(self) -> None:
        """Have each node get what it is to forward, long stories first."""
        for device in self.devices:
            device.node = self.node_of(device)
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(self._fill, self.devices))

    def _fill(self, device: Device) -> None:
        device.sent, device.began = device.images(), time.time()
        self.send(device, device.sent)

    def send(self, device: Device, images: Sequence[FileDataset]) -> None:
        """Send images for a device to its node."""
        for image in images:
            image.StationName = device.name
        taken = store(self.node_of(device), SENDER, images)
        assert len(taken) == len(images), f"the node took {len(taken)} of {len(images)} images for {device.name}"

    def send_series(self, name: str, count: int = 5) -> list[FileDataset]:
        """Send one more series for a device."""
        images = ct_series(count, 64)
        self.send(self[name], images)
        return images

    def link(self, name: str) -> dict[str, Any]:
        """What the forwarder says of the link to a device."""
        return link(self.stack, self.node_of(self[name]).name, name)

    def status(self, node: str) -> dict[str, Any]:
        """What the forwarder of a node says."""
        return status(self.stack, node)

    def aside(self, name: str) -> list[dict[str, Any]]:
        """The images that are set aside for a device."""
        asked = docker("exec", forwarder_of(self.stack, self.node_of(self[name]).name), "python3", "-SB", "-m", "forwarder", "aside")
        return [one for one in json.loads(asked)["aside"] if one["to"] == name]

    def await_link(self, name: str, what: str, probe: Callable[[dict[str, Any]], object], seconds: float = 60) -> dict[str, Any]:
        """Wait until the forwarder says something of a link; what it then says is in the table."""
        said: dict[str, Any] = {}

        def holds() -> object:
            said.update(self.link(name))
            return probe(said)

        try:
            eventually(what, holds, seconds)
        except AssertionError as error:
            raise AssertionError(f"{name}: not within {seconds:.0f} s: {what}; {said}") from error
        finally:
            self.note(name, said)
        return said

    def delivered(self, name: str, count: int, seconds: float = 60) -> dict[str, Any]:
        """Wait until a device has confirmed so many images, and nothing is left to do for it."""
        return self.await_link(
            name, f"{count} are delivered", lambda said: said["delivered"] >= count and not (said["waiting"] or said["inFlight"]), seconds
        )

    def rest_until(self, moment: float) -> None:
        """Give a device time, until time.time() is so late, to be sent what it is not to be sent."""
        time.sleep(max(0.0, moment - time.time()))

    def note(self, name: str, said: dict[str, Any]) -> None:
        """Put into the table what came of a device."""
        device = self[name]
        counts = device.counts()
        why = "; ".join(f"{one['images']}: {one['reason']}" for one in said.get("reasons", []))
        end = calendar.timegm(time.strptime(said["lastDelivered"], "%Y-%m-%dT%H:%M:%SZ")) if said["lastDelivered"] else time.time()
        self.rows[name] = (
            name,
            device.habit,
            str(len(counts)),
            f"{sum(counts.values())}, {max(counts.values(), default=0)} at most",
            f"{said['delivered']} by {said['confirmedBy']}",
            str(said["setAside"]),
            "; ".join(filter(None, (why, said["note"], said["reason"]))) or "-",
            f"{max(0, end - device.began):.0f}",
        )

    def counts(self, name: str, images: Iterable[FileDataset]) -> Counter[int]:
        """How many of some images a device was sent how often."""
        counts = self[name].counts()
        return Counter(counts[uid] for uid in {str(image.SOPInstanceUID) for image in images})
