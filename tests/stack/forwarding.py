"""What a forwarder says of its links, what is in its records, and what a destination commits itself to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

from configs import names
from forwarder.config import Rules
from forwarder.record import Record
from tests.stack.harness import Node, Stack, docker, eventually

#: The program of a forwarder asks the one that runs beside it.
_ASK = ("python3", "-SB", "-m", "forwarder")


def forwarder_of(stack: Stack, node: str) -> str:
    """The container of a node's forwarder."""
    return f"{stack.prefix}-{names.forwarder_of(node)}"


def status(stack: Stack, node: str) -> dict[str, Any]:
    """What the forwarder of a node says of itself."""
    said: dict[str, Any] = json.loads(docker("exec", forwarder_of(stack, node), *_ASK, "status"))
    return said


def aside(stack: Stack, node: str) -> list[dict[str, Any]]:
    """What it has set aside."""
    said: list[dict[str, Any]] = json.loads(docker("exec", forwarder_of(stack, node), *_ASK, "aside"))["aside"]
    return said


def link(stack: Stack, node: str, to: str) -> dict[str, Any]:
    """What it says of one destination."""
    found: dict[str, Any] = next(link for link in status(stack, node)["links"] if link["to"] == to)
    return found


def nothing_waits(stack: Stack, node: str, to: str) -> bool:
    """Whether nothing waits, is on its way, is not confirmed or is set aside; a forwarder of an earlier version tells less."""
    now = link(stack, node, to)
    return not any(now.get(key) for key in ("waiting", "inFlight", "setAside", "unconfirmed", "more"))


def unrecorded(node: Node, to: str) -> list[str]:
    """The series whose records do not say that the destination has confirmed all of them, and what they say: also what came a moment ago,
    which the forwarder may not have seen yet.
    """
    ids = node.get("/series")
    found = node.post("/tools/bulk-content", {"Resources": ids, "Level": "Series", "Metadata": True})
    number, rules = str(names.record_number(to)), Rules().digest
    left = []
    for series in found:
        record, updated, count = Record.parse(series["Metadata"].get(number)), series["Metadata"]["LastUpdate"], len(series["Instances"])
        if record.closed != (updated, count, rules) or record.aside or record.stored:
            left.append(f"{series['ID']}, {count} images, changed {updated}: {record.text()}")
    return left


def await_delivery(stack: Stack, node: str, to: str, seconds: float = 120) -> None:
    """Wait until the forwarder of a node has nothing to do, and has recorded everything that the node holds as confirmed."""
    sender, left = stack.node(node), list[Any]()

    def delivered() -> bool:
        left[:] = [link(stack, node, to), *unrecorded(sender, to)]
        return nothing_waits(stack, node, to) and not left[1:]

    try:
        eventually(f"{to} has confirmed all that {node} holds", delivered, seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}; {left}") from None


@dataclass(frozen=True)
class Answer:
    """An answer to a request for storage commitment.

    Attributes:
        kept: the SOP instance UIDs of what the destination keeps.
        failed: those of what it does not, with its reason (DICOM PS3.3, C.14.1.1).
    """

    kept: set[str]
    failed: dict[str, int]


def ask_commitment(sender: Node, to: str, images: Sequence[Dataset]) -> Answer:
    """Ask a destination, from a node that knows it, for storage commitment of images."""
    wanted = [{"SOPClassUID": str(image.SOPClassUID), "SOPInstanceUID": str(image.SOPInstanceUID)} for image in images]
    asked = sender.post(f"/modalities/{to}/storage-commitment", {"DicomInstances": wanted})
    report = eventually(f"an answer of {to}", lambda: _report(sender, asked["ID"]))
    return Answer(
        kept={one["SOPInstanceUID"] for one in report["Success"]},
        failed={one["SOPInstanceUID"]: int(one["FailureReason"]) for one in report["Failures"]},
    )


def _report(sender: Node, transaction: str) -> dict[str, Any] | None:
    report: dict[str, Any] = sender.get(f"/storage-commitment/{transaction}")
    return report if report["Status"] != "Pending" else None
