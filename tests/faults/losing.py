"""An archive that accepts and loses: files that are gone from its disk as soon as it has written them, behind its database's back.

The kernel tells of each file that was written (fanotify(7)), within a millisecond or so: before the archive has answered, and long
before anybody asks it to commit itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_ADD, _FILESYSTEM, _CLOSE_WRITE, _AT_FDCWD = 0x1, 0x100, 0x8, -100
_EVENT = struct.Struct("=IBBHQii")  # struct fanotify_event_metadata
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass
class Loss:
    """What was lost of a volume, and how much may be.

    Attributes:
        files: UUIDs of the files.
        slowest: the longest time between the end of writing a file and its end, in seconds.
    """

    volume: Path
    most: int
    files: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def take(self, name: Path) -> None:
        """Remove a file that was written somewhere, if it is the archive's and it is not yet enough."""
        parts = name.parts[-3:]
        if len(parts) < 3 or len(parts[2]) != 36 or len(self.files) >= self.most:
            return
        path = self.volume.joinpath(*parts)
        with contextlib.suppress(FileNotFoundError):
            written = path.stat().st_mtime
            path.unlink()
            self.slowest = max(self.slowest, time.time() - written)
            self.files.append(parts[2])


@contextlib.contextmanager
def losing(volume: Path, most: int) -> Iterator[Loss]:
    """Lose the next files that are written to a volume, a path on this machine, and no more than so many."""
    loss, stop = Loss(volume, most), threading.Event()
    channel = _LIBC.fanotify_init(0, os.O_RDONLY)
    if channel < 0 or _LIBC.fanotify_mark(channel, _ADD | _FILESYSTEM, ctypes.c_uint64(_CLOSE_WRITE), _AT_FDCWD, bytes(volume)) < 0:
        raise OSError(ctypes.get_errno(), f"fanotify: {os.strerror(ctypes.get_errno())}")
    thread = threading.Thread(target=_watch, args=(channel, loss, stop), daemon=True)
    thread.start()
    try:
        yield loss
    finally:
        stop.set()
        thread.join()
        os.close(channel)


def _watch(channel: int, loss: Loss, stop: threading.Event) -> None:
    while not stop.is_set():
        if not select.select([channel], [], [], 0.1)[0]:
            continue
        events = os.read(channel, 8192)
        while len(events) >= _EVENT.size:
            length, _, _, _, _, file, _ = _EVENT.unpack_from(events)
            events = events[length:]
            if file >= 0:
                # Relative to the container's own mounts, so that only its end means something here.
                name = Path(f"/proc/self/fd/{file}").readlink()
                os.close(file)
                loss.take(name)
