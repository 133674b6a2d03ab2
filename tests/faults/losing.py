"""An archive that accepts and loses: files that are gone from its disk as soon as it has written them, behind its database's back.

The kernel tells of each file that was written (fanotify(7)), within a millisecond or so: before the archive has answered, and long
before anybody asks it to commit itself. What is noticed later is left: a file that the archive has read for a commitment is lost in
earnest, and no forwarder can know. A process of its own looks, because threads that make images would keep it waiting for seconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_ADD, _FILESYSTEM, _CLOSE_WRITE, _AT_FDCWD = 0x1, 0x100, 0x8, -100
_EVENT = struct.Struct("=IBBHQii")  # struct fanotify_event_metadata
_LIBC = ctypes.CDLL(None, use_errno=True)
#: Seconds after which a file is left. A commitment comes later: the archive answers, the job ends, another association begins.
_SOON = 0.01


@dataclass
class Loss:
    """What was lost of a volume: the UUIDs of the files."""

    files: list[str] = field(default_factory=list)


@contextlib.contextmanager
def losing(volume: Path, most: int) -> Iterator[Loss]:
    """Lose the next files that are written to a volume, a path on this machine, and no more than so many."""
    command = [sys.executable, "-m", __name__, str(volume), str(most)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        loss, said = Loss(), process.stdout
        assert said.readline() == "ready\n", "fanotify does not work here"
        reading = threading.Thread(target=lambda: loss.files.extend(line.strip() for line in said), daemon=True)
        reading.start()
        try:
            yield loss
        finally:
            process.stdin.close()  # the process ends
            reading.join()


def lose(path: Path) -> bool:
    """Remove a file. Returns False, and leaves it, if it was not written just now, or somebody else has removed it."""
    lost = path.with_suffix(".lost")
    with contextlib.suppress(FileNotFoundError):
        path.rename(lost)
        if time.time() - lost.stat().st_mtime < _SOON:
            lost.unlink()
            return True
        lost.rename(path)
    return False


def _watch(volume: Path, most: int) -> None:
    channel = _LIBC.fanotify_init(0, os.O_RDONLY)
    if channel < 0 or _LIBC.fanotify_mark(channel, _ADD | _FILESYSTEM, ctypes.c_uint64(_CLOSE_WRITE), _AT_FDCWD, bytes(volume)) < 0:
        raise OSError(ctypes.get_errno(), f"fanotify: {os.strerror(ctypes.get_errno())}")
    print("ready", flush=True)
    while sys.stdin not in (ready := select.select([channel, sys.stdin], [], [])[0]):
        events = os.read(ready[0], 8192)
        while len(events) >= _EVENT.size:
            length, _, _, _, _, file, _ = _EVENT.unpack_from(events)
            events = events[length:]
            if file < 0:
                continue
            # Relative to the container's own mounts, so that only its end means something here.
            parts = Path(f"/proc/self/fd/{file}").readlink().parts[-3:]
            os.close(file)
            if most and len(parts) == 3 and len(parts[2]) == 36 and lose(volume.joinpath(*parts)):
                most -= 1
                print(parts[2], flush=True)


if __name__ == "__main__":
    _watch(Path(sys.argv[1]), int(sys.argv[2]))
