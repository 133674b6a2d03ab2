"""The soak's device outside the stack: no C-ECHO, no storage commitment, a C-FIND that knows one UID at a time.

It runs in a process of its own. In the soak's process it would take Python's lock from the thread that loses the archive's files, which
then comes after the archive has read and confirmed them.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.devices.device import Device
from tests.stack.engine import eventually

NAME = "pacs"


@dataclass
class Pacs:
    """The device, from the outside. ``kept`` is a file with a line for each image that it was sent: series, UID, MD5 of the data set."""

    port: int
    kept: Path
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run; wait until it listens."""
        command = [sys.executable, "-m", "tests.faults.pacs", str(self.port), str(self.kept)]
        process = self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout
        eventually("the device listens", process.stdout.readline, 30)

    def stop(self) -> None:
        """kill -9."""
        if self._process:
            self._process.kill()
            self._process.communicate()

    def held(self) -> dict[str, str]:
        """The MD5 of the data set of each image, by SOP instance UID."""
        return {uid: md5 for _, uid, md5 in _read(self.kept)}

    @property
    def transfers(self) -> int:
        """How many images it was sent."""
        return len(_read(self.kept))


@dataclass
class _Remembering(Device):
    """What runs in the process: it remembers over its end."""

    kept: Path = Path()

    def keep(self, event: Any, uid: str) -> None:
        """Keep an image, before it is acknowledged."""
        super().keep(event, uid)
        series = str(event.dataset.SeriesInstanceUID)
        with self.kept.open("a") as file:
            file.write(f"{series} {uid} {self.held[series, uid]}\n")


def _read(kept: Path) -> list[tuple[str, str, str]]:
    """The images that were kept; less a line that was not written to its end."""
    lines = (line.split() for line in kept.read_text().splitlines()) if kept.exists() else ()
    return [(series, uid, md5) for series, uid, md5 in lines if len(md5) == 32]


def main(port: int, kept: Path) -> None:
    """Be the device until the end of the process."""
    device = _Remembering(NAME, finds=True, one_uid=True, echoes=False, kept=kept)
    device.held = {(series, uid): md5 for series, uid, md5 in _read(kept)}
    device.start(port)
    print("listening", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
