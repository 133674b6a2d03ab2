"""What an update really does: which containers the engine stopped, and which DICOM ports did not answer meanwhile."""

from __future__ import annotations

import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterable

from configs import names
from tests.stack.engine import docker

_EVERY_SECONDS = 0.1
#: An Orthanc that is alive answers within milliseconds; on a machine with other work, within this.
_PATIENCE_SECONDS = 3.0


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


def _association_request() -> bytes:
    """A-ASSOCIATE-RQ (PS3.8, 9.3.2) of nobody for C-ECHO. Refused or not, whoever answers it is a DICOM server that is up."""
    context = _item(0x30, b"1.2.840.10008.1.1") + _item(0x40, b"1.2.840.10008.1.2")
    body = struct.pack(">HH16s16s32x", 1, 0, b"ANYBODY".ljust(16), b"PROBE".ljust(16))
    body += _item(0x10, b"1.2.840.10008.3.1.1.1") + _item(0x20, b"\x01\x00\x00\x00" + context)
    body += _item(0x50, _item(0x51, struct.pack(">I", 16384)))
    return struct.pack(">BBI", 1, 0, len(body)) + body


#: By hand: an association of pynetdicom's at times ends without saying that it was refused (twice in one run of these tests).
_REQUEST = _association_request()
#: A-ASSOCIATE-AC, A-ASSOCIATE-RJ.
_ANSWERS = (b"\x02", b"\x03")


def answers(port: int) -> bool:
    """Whether a DICOM server answers at a port of this machine, with TLS or without."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_SECONDS) as connection:
            connection.sendall(_REQUEST)
            if connection.recv(1) in _ANSWERS:
                return True
    except OSError:
        pass
    # What has TLS hangs up on the other without a word, as the engine does for a container that is not there.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_SECONDS) as raw, context.wrap_socket(raw):
            return True
    except ssl.SSLError as error:
        return "ALERT" in str(error.reason)  # it wants a certificate, and so it is there
    except OSError:
        return False


class Outage:
    """Looks at DICOM ports ten times a second, and at what the engine does to the containers of a stack, as long as it is open."""

    def __init__(self, prefix: str, ports: Iterable[int]) -> None:
        #: For how many seconds each was seen down, from the first look without an answer to the last; 0 where it always answered.
        self.down = dict.fromkeys(ports, 0.0)
        self.looks = dict.fromkeys(self.down, 0)
        #: The containers that were there and ended or were removed, by their names in the stack.
        self.stopped: set[str] = set()
        self._prefix = prefix
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._look, args=(port,)) for port in self.down]

    def __enter__(self) -> Outage:
        label = f"label={names.LABEL_STACK}={self._prefix}"
        self._before = set(docker("ps", "--all", "--filter", label, "--format", "{{.Names}}").split())
        # Followed as they come: the engine keeps the last 256 alone, and each run of a health check is three.
        filters = [f"--filter={key}" for key in ("type=container", label, "event=die", "event=destroy")]
        command = ["docker", "events", "--since", f"{time.time():.3f}", "--format", "{{.Actor.Attributes.name}}", *filters]
        self._events = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()
        # What the engine has just done is told a moment later.
        time.sleep(1)
        self._events.terminate()
        ended = self._before & set(self._events.communicate()[0].split())
        self.stopped = {name.removeprefix(f"{self._prefix}-") for name in ended}

    def _look(self, port: int) -> None:
        first: float | None = None
        while not self._end.wait(_EVERY_SECONDS):
            began = time.monotonic()
            self.looks[port] += 1
            if not answers(port):
                first = began if first is None else first
                self.down[port] = max(time.monotonic() - first, _EVERY_SECONDS)
