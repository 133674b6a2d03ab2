"""`forget`: erases a patient at every node of a stack, and from what a restore brings back."""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from configs.loader import load_stack_file
from configs.secrets import BACKUP_PASSWORD
from configs.settings import BackupSettings, StackSettings
from ops.backup.backup import alone, repository_of
from ops.backup.dicom import identifier
from ops.backup.found import FORGOTTEN, FORGOTTEN_FILE, MANIFEST, forgotten
from ops.backup.restic import Repository
from ops.setup.console import SetupError, say
from ops.setup.prepare import stack_config
from ops.stack.probes import CheckFailedError, Node, nodes_of, reason
from ops.stack.secrets import missing_keys
from ops.stack.send import refuse_stranger
from ops.stack.stack import Stack, deployed
from ops.stack.terminal import NOT_WELL, confirm, table

_LABEL: Final = "Forget"
#: What a node was sending when it was told to erase may arrive elsewhere after that: how long its jobs may take, in seconds.
_JOBS_SECONDS: Final = 600


def forget(name: str, patient: str, *, yes: bool) -> int:
    """Erase a patient at every node, after asking unless `yes`; 0, or NOT_WELL where a node still has something of the patient.

    Args:
        name: the stack's name.
        patient: the PatientID, exactly as the images have it.
        yes: whether not to ask.
    """
    settings, stack = load_stack_file(name), deployed(name)
    who = identifier(patient.strip())
    with alone(stack):
        found = _all_nodes(stack, who)
        nodes, held = [node for node, _ in found], [(node.name, *map(str, counts)) for node, counts in found if counts]
        repository = made_repository(stack, settings)
        if not held and not repository:
            raise SetupError(f"no node of the stack {name} has a patient with the PatientID {patient!r}, written exactly so.")
        table(("node", "studies", "images"), held)
        if not yes:
            what = f"This erases the patient {patient} at these nodes, for good, and from what a restore of {stack.name} brings back."
            confirm(stack.name, what, f"forget --patient {patient!r}")
        # First of all: however this ends, no restore brings the patient back.
        if repository:
            _remember(repository, who)
        left = _erase(nodes, who)
        _tell_rest(nodes, repository, settings.backup)
    for node, why in left.items():
        say(_LABEL, f"{node} may still have images of the patient: {why}. Give the same command again.")
    if not left:
        say(_LABEL, "no node has the patient any more")
    return NOT_WELL if left else 0


def made_repository(stack: Stack, settings: StackSettings) -> Repository | None:
    """The repository of a stack's backups; None where none was made so far."""
    if settings.backup is None or missing_keys([BACKUP_PASSWORD], stack_config(stack.name, stack.root)):
        return None
    repository = repository_of(stack, settings, settings.backup)
    return repository if repository.exists() else None


def _all_nodes(stack: Stack, who: str) -> list[tuple[Node, tuple[int, int] | None]]:
    """The nodes of a stack, and what each has of a patient. A SetupError where one does not answer."""
    nodes = nodes_of(stack.outputs(show_secrets=True))
    if not nodes:
        raise SetupError(f"nothing of the stack {stack.name} is deployed.")
    found = []
    for node in nodes:
        try:
            refuse_stranger(node)
            found.append((node, _counts(node, who)))
        except CheckFailedError as error:
            raise SetupError(f"nothing was touched: {node.name} does not answer, and may have images of the patient: {error}") from error
    return found


def _counts(node: Node, who: str) -> tuple[int, int] | None:
    """How many studies and images a node has of a patient; None where it does not know the patient."""
    reply = node.ask(f"/patients/{who}/statistics", node.login)
    if reply.status_code == 404:
        return None
    if reply.status_code != 200:
        raise CheckFailedError(f"{node.name} does not tell of the patient: {reason(reply)}")
    studies, images = (int(reply.json()[key]) for key in ("CountStudies", "CountInstances"))
    # A node on SQLite counts nothing, where one on PostgreSQL answers 404.
    return (studies, images) if images else None


def _remember(repository: Repository, who: str) -> None:
    """Note in the repository that a patient is forgotten; a restore of an older backup erases the patient. There is one such snapshot."""
    before = [str(one["id"]) for one in repository.snapshots(FORGOTTEN)]
    content = json.dumps(forgotten(repository) | {who: datetime.now(UTC).isoformat(timespec="seconds")}).encode()
    repository.save(repository.backup(FORGOTTEN_FILE, tags=[FORGOTTEN], files={FORGOTTEN_FILE.rpartition("/")[2]: content}))
    if before:
        repository.ask("forget", *before)
    say(_LABEL, "noted in the repository: no restore brings the patient back")


def _erase(nodes: Sequence[Node], who: str) -> dict[str, str]:
    """Erase a patient at all nodes, again and again until none has anything; the nodes that still may have something, and why.

    An image that a node was sending arrives after it was erased there: so the jobs of all nodes are waited for, and all are asked again.
    It may be sent on once more by each node.
    """
    for _ in range(len(nodes) + 2):
        left = dict[str, str]()
        for node in nodes:
            try:
                if _counts(node, who):
                    left[node.name] = "images came while it was erased"
                    # It also takes what is protected. A large patient takes longer than an answer may: the next round sees to that.
                    reply = node.ask("/tools/bulk-delete", node.login, json.dumps({"Resources": [who]}).encode())
                    if reply.status_code != 200:
                        left[node.name] = f"it answers {reply.status_code}: {reason(reply)}"
            except CheckFailedError as error:
                left[node.name] = str(error)
        if not left:
            break
        for node in nodes:
            try:
                _await_jobs(node)
            except CheckFailedError as error:
                return left | {node.name: str(error)}
    return left


def _await_jobs(node: Node) -> None:
    """Wait for the end of the jobs that a node has now. A CheckFailedError where they do not end, or it does not answer."""
    end, at_work = time.monotonic() + _JOBS_SECONDS, _jobs(node)
    while at_work and time.monotonic() < end:
        time.sleep(0.2)
        at_work &= _jobs(node)
    if at_work:
        raise CheckFailedError(f"its jobs have not ended for {_JOBS_SECONDS} s, and may send images of the patient")


def _jobs(node: Node) -> set[str]:
    return {str(job["ID"]) for job in node.ask("/jobs?expand", node.login).json() if job["State"] in ("Pending", "Running")}


def _tell_rest(nodes: Sequence[Node], repository: Repository | None, where: BackupSettings | None) -> None:
    """Print what is out of reach: devices outside of the stack, and the files in backups."""
    names = {node.name for node in nodes}
    rest = [
        (f"device {one}", f"{node.name} forwards to it: have it erase the patient, too")
        for node in nodes
        for one in node.forward_to
        if one not in names
    ]
    if repository and where and (backups := repository.snapshots(MANIFEST)):
        newest, keep = datetime.fromisoformat(str(backups[-1]["time"])[:19]), where.keep
        gone = newest + timedelta(days=max(keep.daily + 1, 7 * (keep.weekly + 1), 31 * (keep.monthly + 1)))
        until = f"hold the files until `keep` lets them go: by {gone:%Y-%m-%d}, if a backup is made each day"
        rest.append((f"{len(backups)} backups until {newest:%Y-%m-%d}", until))
    if rest:
        print()
        table(("not erased", "why"), rest)
