"""`check-data --mend`: images whose files are missing or damaged are fetched from another node; orphaned files are taken in again."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ops.backup.check import UUID, Checked, Fault, check_stack
from ops.backup.data import DATA, NodeData, data_of
from ops.backup.dicom import look, with_header
from ops.backup.oneshot import OneShot, volume
from ops.setup.console import SetupError, say
from ops.stack.probes import CheckFailedError, Node, nodes_of, reason
from ops.stack.send import refuse_stranger
from ops.stack.stack import Stack
from ops.stack.terminal import table

_LABEL: Final = "Mend"
MENDED, TAKEN_IN, REMOVED, LEFT = "mended", "taken in", "removed", "left"
#: The attachments that Orthanc makes itself, and makes again with the image. All others are users'.
_OWN: Final = frozenset(("dicom", "dicom-as-json", "dicom-until-pixel-data"))
_OF_NOTHING: Final = hashlib.md5(b"", usedforsecurity=False).hexdigest()
#: Other images of a series whose meta header is tried.
_SIBLINGS: Final = 3
_SHOWN: Final = 30


@dataclass(frozen=True)
class Outcome:
    """What became of a fault."""

    node: str
    fault: Fault
    outcome: str  #: MENDED, TAKEN_IN, REMOVED or LEFT
    why: str


def mend(stack: Stack, found: Sequence[Checked], forgotten: Collection[str] = ()) -> list[Outcome]:
    """Mend what a check has found, and check again; what became of each fault.

    Args:
        stack: a stack whose nodes run.
        found: what the check has found.
        forgotten: Orthanc's identifiers of patients who do not come back.
    """
    outputs = stack.outputs(show_secrets=True)
    nodes, data = _answering(outputs), {one.name: one for one in data_of(stack, outputs)}
    outcomes = []
    for checked in found:
        node = nodes.get(checked.node)
        if node is None:
            outcomes += [Outcome(checked.node, fault, LEFT, "the node does not answer") for fault in checked.faults]
            continue
        # The destinations of its links first.
        elsewhere = [one for one in nodes.values() if one is not node]
        others = [one for first in (True, False) for one in elsewhere if (one.name in node.forward_to) is first]
        # An orphaned file may be what another fault misses.
        for fault in sorted(checked.faults, key=lambda fault: fault.what != "orphaned"):
            try:
                if fault.what == "orphaned":
                    done = _take_in(node, _Volume(data[node.name], stack.prefix), fault, forgotten)
                else:
                    done = _mend(node, others, fault)
            except (CheckFailedError, SetupError) as error:
                done = LEFT, str(error)
            outcomes.append(Outcome(node.name, fault, *done))
    if outcomes:
        left = {(one.node, one.fault.file) for one in outcomes if one.outcome == LEFT}
        for again in check_stack(stack, 0):
            new = (fault for fault in again.faults if (again.node, fault.file) not in left)
            outcomes += [Outcome(again.node, fault, LEFT, "found when it was checked again") for fault in new]
    return outcomes


def report(outcomes: Sequence[Outcome]) -> None:
    """Print what became of the faults: what is left comes first."""
    print()
    rows = [
        (one.node, one.fault.what, one.fault.patient, one.fault.instance, one.fault.file, one.outcome, one.why)
        for one in sorted(outcomes, key=lambda one: one.outcome != LEFT)
    ]
    table(("node", "fault", "patient", "image", "file", "outcome", "why"), rows[:_SHOWN])
    counted = Counter(one.outcome for one in outcomes)
    print("  " + ", ".join(f"{counted[one]} {one}" for one in (MENDED, TAKEN_IN, REMOVED, LEFT)))


def _answering(outputs: Mapping[str, Any]) -> dict[str, Node]:
    """The nodes that answer, by name. A SetupError where another Orthanc does."""
    found = {}
    for node in nodes_of(outputs):
        try:
            refuse_stranger(node)
            found[node.name] = node
        except CheckFailedError as error:
            say(_LABEL, f"{node.name} does not answer: {error}")
    return found


def _mend(node: Node, others: Sequence[Node], fault: Fault) -> tuple[str, str]:
    """Mend an image from the first other node that has what was stored here."""
    about = _about(node, fault.instance)
    if about.get("Uuid") != fault.file:
        if about and fault.file not in _files(node, fault.instance):
            return MENDED, "another file has taken its place"
        return LEFT, "it is not the file of an image, but attached to one: restore it from a backup"
    if _would_lose(node, fault.instance):
        return LEFT, "users have given the image labels or attachments, which would go: note them, and send it again"
    wanted, why = about["MD5"], list[str]()
    for other in others:
        there = _about(other, fault.instance)
        if not there:
            continue
        reply = other.ask(f"/instances/{fault.instance}/file", other.login)
        if reply.status_code != 200 or (there["MD5"] and _md5(reply.content) != there["MD5"]):
            why.append(f"its file at {other.name} is damaged, too")
        elif not (wanted or there["MD5"]):
            why.append(f"neither this node nor {other.name} knows its MD5")
        else:
            try:
                same = look(reply.content).instance == fault.instance
            except ValueError as error:
                why.append(f"at {other.name}, {error}")
                continue
            for file in _candidates(node, fault.instance, reply.content) if same else ():
                if not wanted or _md5(file) == wanted:
                    refused = _store(node, file, fault.instance)
                    return (LEFT, refused) if refused else (MENDED, f"from {other.name}")
            why.append(f"{other.name} has another file of it: MD5 {_md5(reply.content)}, and {wanted} was stored here")
    return LEFT, "; ".join(why) or "no other node of the stack has the image: restore it from a backup, or have it sent again"


def _candidates(node: Node, instance: str, file: bytes) -> Iterator[bytes]:
    """A file from another node, as it is, and with the meta headers that it may have had here: its own, and its series' other images'."""
    yield file
    siblings = node.ask(f"/instances/{instance}/series", node.login).json()["Instances"]
    for one in [instance, *[other for other in siblings if other != instance][:_SIBLINGS]]:
        reply = node.ask(f"/instances/{one}/file", node.login)
        if reply.status_code == 200:
            try:
                yield with_header(file, reply.content)
            except ValueError:
                continue


@dataclass(frozen=True)
class _Volume:
    """The volume of a node, and the stack whose helpers work on it."""

    data: NodeData
    prefix: str

    def run(self, *command: str, read_only: bool = True) -> bytes:
        """Run a command beside it; what it prints."""
        mounts = [volume(self.data.volume, DATA, read_only=read_only)]
        options: dict[str, Any] = {"entrypoint": command[:1], "capabilities": ["DAC_OVERRIDE"]}
        return b"".join(OneShot(self.data.image, command[1:], self.prefix, mounts, **options).stream())


def _take_in(node: Node, held: _Volume, fault: Fault, forgotten: Collection[str]) -> tuple[str, str]:
    """Take an orphaned file in, if it is an image that the node has not, or not whole; and remove it."""
    if not UUID.fullmatch(fault.file):
        return LEFT, "Orthanc gives files no such name"
    at = f"{DATA}/{fault.file[:2]}/{fault.file[2:4]}/{fault.file}"
    file = held.run("cat", at)
    try:
        image = look(file)
    except ValueError as error:
        return LEFT, str(error)
    about = _about(node, image.instance)
    if image.patient in forgotten and node.ask(f"/patients/{image.patient}", node.login).status_code == 200:
        return LEFT, "its patient was forgotten, and came again: is it an old image?"
    if image.patient in forgotten:
        done = REMOVED, "its patient was forgotten"
    elif about and about["MD5"] != _md5(file):
        return LEFT, f"the node has another file of the image {image.instance}"
    elif about and _is_whole(node, image.instance):
        done = REMOVED, f"the node has the image {image.instance}"
    elif about and _would_lose(node, image.instance):
        return LEFT, f"the image {image.instance} lacks it, and has users' labels or attachments, which would go"
    elif refused := _store(node, file, image.instance):
        return LEFT, refused
    else:
        done = TAKEN_IN, f"as the image {image.instance}"
    held.run("rm", at, read_only=False)
    return done


def _files(node: Node, instance: str) -> list[str]:
    """The files that belong to an image."""
    names = node.ask(f"/instances/{instance}/attachments", node.login).json()
    return [node.ask(f"/instances/{instance}/attachments/{name}/info", node.login).json()["Uuid"] for name in names]


def _about(node: Node, instance: str) -> Mapping[str, Any]:
    """What a node's index says of the file of an image: Uuid; MD5, empty where it does not know. Nothing where it has no such image."""
    reply = node.ask(f"/instances/{instance}/attachments/dicom/info", node.login)
    if reply.status_code == 404:
        return {}
    if reply.status_code != 200:
        raise CheckFailedError(f"{node.name} does not tell of the image: {reason(reply)}")
    said = reply.json()
    # Orthanc before 1.12.8 has the MD5 of nothing for files from 2 GiB on.
    return {"Uuid": said["Uuid"], "MD5": str(said.get("UncompressedMD5") or "").replace(_OF_NOTHING, "")}


def _would_lose(node: Node, instance: str) -> bool:
    """Whether users have put labels or attachments on an image, or on what has no other: Orthanc deletes those with what it replaces."""
    at = f"/instances/{instance}"
    for above, folder, children in (("series", "series", "Instances"), ("study", "studies", "Series"), ("patient", "patients", "Studies")):
        if _marked(node, at):
            return True
        resource = node.ask(f"/instances/{instance}/{above}", node.login).json()
        if len(resource[children]) > 1:
            return False
        at = f"/{folder}/{resource['ID']}"
    return _marked(node, at)


def _marked(node: Node, at: str) -> bool:
    labels, attachments = (node.ask(f"{at}/{what}", node.login).json() for what in ("labels", "attachments"))
    return bool(labels or set(attachments) - _OWN)


def _store(node: Node, file: bytes, instance: str) -> str:
    """Have a node store a file as an image, in the place of what it has; what was refused, or nothing."""
    reply = node.ask("/instances", node.login, file)
    if reply.status_code != 200:
        return f"{node.name} refused it: {reason(reply)}"
    said = reply.json()
    if said.get("ID") != instance or said.get("Status") != "Success":
        return f"{node.name} answered {said.get('Status')}, and keeps what it has: see its OverwriteInstances"
    return "" if _is_whole(node, instance) else f"{node.name} stored it, and its file is damaged again: see the disk"


def _is_whole(node: Node, instance: str) -> bool:
    """Whether a node reads the file of an image as it was stored."""
    return node.ask(f"/instances/{instance}/attachments/dicom/verify-md5", node.login, b"").status_code == 200


def _md5(file: bytes) -> str:
    return hashlib.md5(file, usedforsecurity=False).hexdigest()
