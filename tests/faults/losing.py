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
from pathlib import Path

_ADD, _FILESYSTEM, _CLOSE_WRITE, _AT_FDCWD = 0x1, 0x100, 0x8, -100
_EVENT = struct.Struct("=IBBHQii")  # struct fanotify_event_metadata
_LIBC = ctypes.CDLL(None, use_errno=True)


class Loss:
    """What was lost.

    Attributes:
        files: UUIDs of the files.
        slowest: the longest time between the end of writing a file and its end, in seconds.
    """

    def __init__(self, volume: Path, most: int) -> None:
        self.files: list[str] = []
        self.slowest = 0.0
        self._volume = volume
        self._most = most

    def take(self, name: Path) -> None:
        """Remove a file that was written somewhere, if it is the archive's and it is not yet enough."""
        parts = name.parts[-3:]
        if len(parts) < 3 or len(parts[2]) != 36 or len(self.files) >= self._most:
            return
        path = self._volume.joinpath(*parts)
        with contextlib.suppress(FileNotFoundError):
            written = path.stat().st_mtime
            path.unlink()
            self.slowest = max(self.slowest, time.time() - written)
            self.files.append(parts[2])


@contextlib.contextmanager
def losing(volume: Path, most: int) -> Iterator[Loss]:
    """Lose the next files that are written to a volume.

    Args:
        volume: on this machine.
        most: how many.
    """
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
        if select.select([channel], [], [], 0.1)[0]:
            for file in _events(os.read(channel, 8192)):
                # Relative to the container's own mounts, so that only its end means something here.
                name = Path(f"/proc/self/fd/{file}").readlink()
                os.close(file)
                loss.take(name)


def _events(read: bytes) -> Iterator[int]:
    """The open file of each event."""
    while len(read) >= _EVENT.size:
        length, _, _, _, _, file, _ = _EVENT.unpack_from(read)
        if file >= 0:
            yield file
        read = read[length:]
