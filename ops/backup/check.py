"""`check-data`: whether each node's index and files agree, in both directions."""

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from configs.loader import load_stack_file
from ops.backup.backup import alone
from ops.backup.data import DATA, NodeData, copies, data_of, freeze, query
from ops.backup.forget import made_repository
from ops.backup.found import forgotten
from ops.backup.oneshot import OneShot, volume
from ops.setup.console import SetupError, say
from ops.stack.stack import Stack, deployed
from ops.stack.terminal import NOT_WELL, table

_SCRIPT: Final = (Path(__file__).parent / "payload" / "compare.py").read_text(encoding="utf-8")
#: PostgreSQL's plugin and SQLite have another name for the MD5 of what is on the disk.
_LIST: Final = "SELECT uuid, compressedSize, COALESCE({}, '') FROM AttachedFiles"
#: Whose a file is: its resource, and those above it. Of an image these are instance, series, study, patient; and the patient's ID.
_WHOSE: Final = """SELECT a.uuid, r1.publicId, COALESCE(r2.publicId, ''), COALESCE(r3.publicId, ''), COALESCE(r4.publicId, ''),
COALESCE(t.value, '') FROM AttachedFiles a JOIN Resources r1 ON r1.internalId = a.id
LEFT JOIN Resources r2 ON r2.internalId = r1.parentId LEFT JOIN Resources r3 ON r3.internalId = r2.parentId
LEFT JOIN Resources r4 ON r4.internalId = r3.parentId
LEFT JOIN MainDicomTags t ON t.id = COALESCE(r4.internalId, r3.internalId, r2.internalId, r1.internalId) AND t.tagGroup = 16
AND t.tagElement = 32 WHERE a.uuid IN ({})"""
UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: Files that are asked about at once: each time, the database reads its whole list.
_AT_ONCE: Final = 5000
_SHOWN: Final = 10


@dataclass(frozen=True)
class Fault:
    """A file that is not as its index says."""

    file: str  #: its name: a UUID
    what: str  #: missing, damaged, orphaned
    how: str  #: in which way
    patient: str = ""  #: the PatientID
    study: str = ""  #: Orthanc's identifiers
    series: str = ""
    instance: str = ""


@dataclass
class Checked:
    """What was found at a node."""

    node: str
    files: int = 0  #: that the index lists
    size: int = 0  #: their bytes
    hashed: int = 0  #: files whose MD5 was compared
    seconds: float = 0.0
    faults: list[Fault] = field(default_factory=list)

    def count(self, what: str) -> int:
        """How many faults of a kind there are."""
        return sum(fault.what == what for fault in self.faults)


def check_data(name: str, *, sample: int, as_json: bool, mending: bool = False) -> int:
    """Check the data of a stack; 0, or NOT_WELL where a file is missing, damaged or orphaned, and stays so.

    Args:
        name: the stack's name.
        sample: of how many percent of the files the MD5 is compared: another part of them each day.
        as_json: whether to print all that was found, as JSON; with `mending`, what became of it.
        mending: whether to mend what can be mended.
    """
    from ops.backup import mend  # noqa: PLC0415 - it checks again

    stack = deployed(name)
    with alone(stack):
        found = check_stack(stack, sample)
        if not as_json:
            report(found)
        outcomes = mend.mend(stack, found, _forgotten(stack, found)) if mending else []
    if as_json:
        print(json.dumps([asdict(one) for one in (outcomes if mending else found)], indent=1))
    elif outcomes:
        mend.report(outcomes)
    if mending:
        return NOT_WELL if any(one.outcome == mend.LEFT for one in outcomes) else 0
    return NOT_WELL if any(one.faults for one in found) else 0


def _forgotten(stack: Stack, found: Sequence[Checked]) -> set[str]:
    """The patients of whom no orphaned file is taken in."""
    orphaned = any(one.count("orphaned") for one in found)
    repository = made_repository(stack, load_stack_file(stack.name)) if orphaned else None
    return set(forgotten(repository)) if repository else set()


def check_stack(stack: Stack, sample: int, moment: float = 0.0) -> list[Checked]:
    """What is found at each node, by name. Of a stack that was restored, `moment` is when its backup began: no younger file is orphaned."""
    found = []
    for node in data_of(stack, stack.outputs(show_secrets=False)):
        found.append(_check(stack, node, sample, moment))
        say("Check", f"{node.name}: {found[-1].files} files, {len(found[-1].faults)} not as they should be")
    return found


def _check(stack: Stack, node: NodeData, sample: int, moment: float) -> Checked:
    begun, checked = time.monotonic(), Checked(node.name)
    with copies(stack):
        if not node.database:
            freeze(node, stack.prefix)
        listed = query(stack, node, _LIST.format("compressedHash" if node.database else "compressedMD5"))
        command = ["-c", _SCRIPT, DATA, str(sample), f"{time.time() // 86400:.0f}", str(moment)]
        mounts = [volume(node.volume, DATA)]
        script = OneShot(node.image, command, stack.prefix, mounts, entrypoint=["python3"], capabilities=["DAC_OVERRIDE"])
        done = script.run_with(listed)
        if done.status != 0:
            raise SetupError(f"the files of {node.name} could not be checked: {done.errors[-2000:]}")
        *suspects, counts = (json.loads(line) for line in done.out.splitlines())
        checked.files, checked.size, checked.hashed = counts["files"], counts["bytes"], counts["hashed"]
        if suspects:
            # What came or went since the index was read is no fault.
            if not node.database:
                freeze(node, stack.prefix)
            checked.faults = list(_confirmed(stack, node, suspects))
    checked.seconds = time.monotonic() - begun
    return checked


def _confirmed(stack: Stack, node: NodeData, suspects: Sequence[Mapping[str, str]]) -> Iterator[Fault]:
    """The suspects that the index, read once more, still makes faults, with whose they are."""
    for start in range(0, len(suspects), _AT_ONCE):
        some = suspects[start : start + _AT_ONCE]
        names = ", ".join(f"'{one['file']}'" for one in some if UUID.fullmatch(one["file"]))
        answer = b"".join(query(stack, node, _WHOSE.format(names))).decode() if names else ""
        rows = (line.split("\t") for line in answer.splitlines())
        whose = {file: chain for file, *chain in rows}
        for one in some:
            if one["what"] == "orphaned":
                if one["file"] not in whose:
                    yield Fault(**one)
            elif one["file"] in whose:
                yield Fault(**one, **_named(whose[one["file"]]))


def _named(chain: Sequence[str]) -> dict[str, str]:
    """Whose a file is. One that belongs to a series, a study or a patient has that one's identifier alone."""
    instance, *above = chain
    series, study, patient, patient_id = above if len(above) == 4 else ("", "", "", "")
    return {"instance": instance, "series": series, "study": study, "patient": patient_id} if patient else {"instance": instance}


def report(found: Sequence[Checked]) -> None:
    """Print what was found: a table of the nodes, and the first faults."""
    kinds = ("missing", "damaged", "orphaned")
    rows = [(one.node, f"{one.files}", f"{one.hashed}", *(f"{one.count(kind)}" for kind in kinds), f"{one.seconds:.1f}") for one in found]
    table(("node", "files", "MD5 compared", *kinds, "seconds"), rows)
    faults = [(one.node, fault) for one in found for fault in one.faults]
    if faults:
        print()
        shown = [(node, one.what, one.patient, one.study, one.series, one.file, one.how) for node, one in faults[:_SHOWN]]
        table(("node", "fault", "patient", "study", "series", "file", "how"), shown)
    if len(faults) > _SHOWN:
        print(f"  … and {len(faults) - _SHOWN} more: --json lists all")
