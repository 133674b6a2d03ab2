"""What an update really does: which containers the engine stopped, and which DICOM ports did not answer meanwhile."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterable

from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from configs import names
from tests.stack.engine import docker

_EVERY_SECONDS = 0.1
#: An Orthanc that is alive answers within milliseconds; on a machine with other work, within this.
_PATIENCE_SECONDS = 3.0


def answers(port: int) -> bool:
    """Whether a DICOM server answers at a port of this machine, with TLS or without. One that refuses the caller is up as well."""
    ae = AE(ae_title="PROBE")
    ae.connection_timeout = ae.acse_timeout = _PATIENCE_SECONDS
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", port, ae_title="ANYBODY")
    if association.is_established:
        association.abort()
        return True
    if association.is_rejected:
        return True
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
