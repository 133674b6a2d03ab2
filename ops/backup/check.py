"""`check-data`: whether each node's index and files agree, in both directions."""

import itertools
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from docker.types import Mount

from configs.loader import load_stack_file
from configs.names import LABEL_STACK, LABEL_VOLUME, PROJECT, backup_volume
from ops.backup.backup import alone
from ops.backup.data import DATA, NodeData, copies, data_of, freeze, query, remove_volume
from ops.backup.forget import made_repository
from ops.backup.found import forgotten
from ops.backup.oneshot import OneShot, volume
from ops.backup.report import write_check_metrics
from ops.setup.console import SetupError, say
from ops.stack.engine import client, engine_errors
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
#: What tells the script that it has got the whole index.
_END: Final = b".\n"
#: Where the script notes how far it has come.
_PROGRESS: Final = "/progress"
#: On the volume for that: when the check began, in seconds since 1970.
_BEGUN: Final = f"{PROJECT}.begun"
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
    before: int = 0  #: how many of these by earlier runs of this check, which were broken off
    read: int = 0  #: bytes that were read for that
    seconds: float = 0.0
    faults: list[Fault] = field(default_factory=list)

    def count(self, what: str) -> int:
        """How many faults of a kind there are."""
        return sum(fault.what == what for fault in self.faults)


def check_data(name: str, *, sample: int, as_json: bool, mending: bool = False, rate: int = 0, anew: bool = False) -> int:
    """Check the data of a stack; 0, or NOT_WELL where a file is missing, damaged or orphaned, and stays so.

    Args:
        name: the stack's name.
        sample: of how many percent of the files the MD5 is compared: another part of them each day.
        as_json: whether to print all that was found, as JSON; with `mending`, what became of it.
        mending: whether to mend what can be mended.
        rate: megabytes (10^6 bytes) to read in a second at most; 0 for no limit.
        anew: whether to begin anew where an earlier check with the same sample was broken off.
    """
    from ops.backup import mend  # noqa: PLC0415 - it checks again

    stack = deployed(name)
    with alone(stack):
        if anew:
            remove_volume(_progress(stack, sample))
        found = check_stack(stack, sample, rate=rate)
        if not as_json:
            report(found)
        outcomes = mend.mend(stack, found, _forgotten(stack, found)) if mending else []
        remove_volume(_progress(stack, sample))
    left = sum(one.outcome == mend.LEFT for one in outcomes) if mending else sum(len(one.faults) for one in found)
    write_check_metrics(stack, left, sum(one.read for one in found), sum(one.seconds for one in found))
    if as_json:
        print(json.dumps([asdict(one) for one in (outcomes if mending else found)], indent=1))
    elif outcomes:
        mend.report(outcomes)
    return NOT_WELL if left else 0


def _forgotten(stack: Stack, found: Sequence[Checked]) -> set[str]:
    """The patients of whom no orphaned file is taken in."""
    orphaned = any(one.count("orphaned") for one in found)
    repository = made_repository(stack, load_stack_file(stack.name)) if orphaned else None
    return set(forgotten(repository)) if repository else set()


def check_stack(stack: Stack, sample: int, moment: float = 0.0, rate: int = 0) -> list[Checked]:
    """What is found at each node, by name; `sample` and `rate` as of check_data.

    Of a stack that was restored, `moment` is when its backup began: no younger file is orphaned.
    """
    nodes, found = data_of(stack, stack.outputs(show_secrets=False)), []
    # Without MD5s there is little to go on with.
    begun, notes = (_begun(stack, sample), [volume(_progress(stack, sample), _PROGRESS, read_only=False)]) if sample else (time.time(), [])
    arguments = (DATA, str(sample), f"{begun // 86400:.0f}", str(moment), str(rate * 1_000_000))
    for node in nodes:
        one = _check(stack, node, arguments, notes)
        found.append(one)
        earlier = f" ({one.before} of {one.hashed} MD5s were compared before)" if one.before else ""
        say("Check", f"{node.name}: {one.files} files, {len(one.faults)} not as they should be{earlier}")
    return found


def _progress(stack: Stack, sample: int) -> str:
    """The volume in which a check notes how far it has come. It is there from the check's beginning to its end, in several runs or one."""
    return backup_volume(stack.prefix, f"check-{sample}")


def _begun(stack: Stack, sample: int) -> float:
    """When the check began that this run begins, or goes on with."""
    now = f"{time.time():.0f}"
    with engine_errors():
        # The engine leaves one that is there as it is.
        made = client().volumes.create(_progress(stack, sample), labels={LABEL_STACK: stack.prefix, _BEGUN: now})
        begun = str(made.attrs["Labels"][_BEGUN])
    if begun != now:
        when = f"{datetime.fromtimestamp(int(begun), UTC):%Y-%m-%d %H:%M} UTC"
        say("Check", f"goes on with the check that began {when} and was broken off; --anew begins again")
    return float(begun)


def _check(stack: Stack, node: NodeData, arguments: Sequence[str], notes: Sequence[Mount]) -> Checked:
    begun, checked = time.monotonic(), Checked(node.name)
    with engine_errors():
        # Not the node's name: a volume that was restored has other files.
        labels = client().volumes.get(node.volume).attrs["Labels"] or {}
    file = f"{_PROGRESS}/{labels.get(LABEL_VOLUME, node.volume)}" if notes else ""
    # As process 1, Python heeds no SIGTERM.
    options: dict[str, Any] = {"entrypoint": ["python3"], "capabilities": ["DAC_OVERRIDE"], "stop_signal": "SIGKILL"}
    script = OneShot(node.image, ["-c", _SCRIPT, *arguments, file], stack.prefix, [volume(node.volume, DATA), *notes], **options)
    with copies(stack):
        if not node.database:
            freeze(node, stack.prefix)
        listed = query(stack, node, _LIST.format("compressedHash" if node.database else "compressedMD5"))
        done = script.run_with(itertools.chain(listed, [_END]))
        if done.status != 0:
            raise SetupError(f"the files of {node.name} could not be checked: {done.errors[-2000:]}")
        *suspects, counts = (json.loads(line) for line in done.out.splitlines())
        checked.files, checked.size, checked.hashed = counts["files"], counts["bytes"], counts["hashed"]
        checked.before, checked.read = counts["before"], counts["read"]
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
