"""`send`: uploads a folder of images to a node, with progress, and says what was refused and why."""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from configs.problems import nearest
from ops.setup.console import SetupError
from ops.stack.engine import is_here
from ops.stack.probes import CheckFailedError, Node, nodes_of, reason
from ops.stack.stack import deployed
from ops.stack.terminal import NOT_WELL, table

#: At once: Orthanc takes uploads in parallel, and more of them wait for its index.
_THREADS: Final = 4
#: How often a file is tried where the node does not answer, or answers with a fault of its own (503 while its database starts).
_TRIES: Final = 4
_PAUSE_SECONDS: Final = 2.0
_MOST_LINES: Final = 30

STORED, THERE, REFUSED = "stored", "there already", "refused"


@dataclass(frozen=True)
class Sent:
    """What became of a file."""

    file: Path
    outcome: str  #: STORED, THERE or REFUSED
    why: str = ""  #: Orthanc's reason


def send(name: str, node_name: str, folder: Path) -> int:
    """Upload each file of a folder and of those in it; 0, or NOT_WELL where one was refused.

    Raises:
        SetupError: there is no such node, or no file; or the node does not answer.
    """
    nodes = {node.name: node for node in nodes_of(deployed(name).outputs(show_secrets=True))}
    if not nodes:
        raise SetupError(f"nothing of the stack {name} is deployed. `./orthanc-stack up {name}` does that.")
    if node_name not in nodes:
        raise SetupError(f"the stack {name} has no node {node_name}.{nearest(node_name, nodes)} There are: {', '.join(nodes)}.")
    files = sorted(images_in(folder))
    if not files:
        raise SetupError(f"{folder} holds no file to send: neither it nor a folder in it.")
    try:
        refuse_stranger(nodes[node_name])
        sent = upload(nodes[node_name], files)
    except CheckFailedError as error:
        raise SetupError(
            f"{node_name} does not answer: {error}. `./orthanc-stack verify {name}` tells what is wrong; then the same command goes on."
        ) from error
    counted = Counter(one.outcome for one in sent)
    print(f"  {node_name}: " + ", ".join(f"{counted[outcome]} {outcome}" for outcome in (STORED, THERE, REFUSED)))
    refused = [one for one in sent if one.outcome == REFUSED]
    if refused:
        print()
        table(("refused", "why"), [(str(one.file), one.why) for one in refused[:_MOST_LINES]])
        if len(refused) > _MOST_LINES:
            print(f"  and {len(refused) - _MOST_LINES} more")
    return NOT_WELL if refused else 0


def refuse_stranger(node: Node) -> None:
    """Refuse to send patients' images to anything but the node: its address may be another stack's.

    Raises:
        SetupError: what answers at its address is not the node, or would not be.
        CheckFailedError: nothing answers.
    """
    if node.loopback and not is_here():
        raise SetupError(f"{node.name} is bound to 127.0.0.1 of the engine's machine: send from there, or give it another `bind`.")
    reply = node.ask("/system", node.login)
    if reply.status_code != 200:
        raise SetupError(f"{node.url} answers {reply.status_code} to {node.name}'s user: is that another stack, or is `up` due?")
    if (aet := reply.json().get("DicomAet")) != node.aet:
        raise SetupError(f"{node.url} is {aet}, and not {node.aet}: another Orthanc answers there.")


def images_in(folder: Path) -> Iterator[Path]:
    """The files below a folder that may be images: all but hidden ones and DICOMDIR. A single file stands for itself.

    Raises:
        SetupError: there is no such folder, or it cannot be read.
    """
    if folder.is_file():
        yield folder
        return
    if not folder.is_dir():
        raise SetupError(f"there is no folder {folder}.")
    try:
        for file in folder.rglob("*"):
            # DICOMDIR is the index of a medium, and no image.
            if file.is_file() and file.name != "DICOMDIR" and not any(part.startswith(".") for part in file.relative_to(folder).parts):
                yield file
    except OSError as error:
        raise SetupError(f"{folder} cannot be read: {error}") from error


def upload(node: Node, files: Sequence[Path]) -> list[Sent]:
    """Upload files, some at once, with a bar on a terminal; what became of each, in their order.

    Raises:
        CheckFailedError: the node does not answer, also when it is asked again: no other file is tried.
    """
    columns = TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    hurry = threading.Event()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar, ThreadPoolExecutor(_THREADS) as threads:
        task = bar.add_task(f"sending to {node.name}", total=len(files))

        def one(file: Path) -> Sent:
            sent = _upload(node, file, hurry)
            bar.advance(task)
            return sent

        try:
            return list(threads.map(one, files))
        finally:  # also after Ctrl-C: nobody waits for another try
            hurry.set()


def _upload(node: Node, file: Path, hurry: threading.Event) -> Sent:
    """Upload a file. `hurry` is set while no pause is worth it: the node has not taken a file for long, so that others will fare alike."""
    try:
        content = file.read_bytes()
    except OSError as error:
        return Sent(file, REFUSED, f"cannot be read: {error.strerror}")
    for attempt in range(1, _TRIES + 1):
        try:
            reply = node.ask("/instances", node.login, content)
        except CheckFailedError as error:
            found: Sent | CheckFailedError = error
        else:
            if reply.status_code < 500:
                hurry.clear()
                return _told(file, reply)
            found = Sent(file, REFUSED, f"{reply.status_code}: {reason(reply)}")
        if attempt == _TRIES or hurry.wait(_PAUSE_SECONDS * attempt):
            break
    hurry.set()
    if isinstance(found, CheckFailedError):
        raise found
    return found


def _told(file: Path, reply: httpx.Response) -> Sent:
    """What Orthanc's answer means: an object for an image, a list of them for a ZIP archive of images."""
    if reply.status_code != 200:
        return Sent(file, REFUSED, f"{reply.status_code}: {reason(reply)}")
    said = reply.json()
    states = [str(one.get("Status")) for one in (said if isinstance(said, list) else [said]) if isinstance(one, dict)]
    if states and all(state == "AlreadyStored" for state in states):
        return Sent(file, THERE)
    if bad := [state for state in states if state not in ("Success", "AlreadyStored")] or (["an empty answer"] if not states else []):
        return Sent(file, REFUSED, bad[0])
    return Sent(file, STORED)
