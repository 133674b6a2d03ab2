"""C-STORE of a CT series: from the client to the server with one and four jobs, and into the client from outside; with the project's
settings and with those of the stack that it replaces."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Final

import pydicom
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE

from bench.orthanc import Node, send_by_jobs, store
from bench.phantom import CT, Phantom, write
from bench.results import Row
from bench.session import BenchError, Session
from bench.stack import running

IMAGES: Final = 300
JOBS: Final = (1, 4)
#: pynetdicom installs one of the same name beside Python.
_DCMTK_STORESCU: Final = shutil.which(
    "storescu", path=os.pathsep.join(f for f in os.environ.get("PATH", "").split(os.pathsep) if not f.startswith(sys.prefix))
)


def measure(session: Session, runs: int) -> None:
    """Send the series in turns through both stacks, which run at the same time; the server is empty before each."""
    results, images = session.results("dicom"), session.size(IMAGES, 8)
    files = list(Phantom(CT).files(images, per_series=images))
    folder = write(files, session.folder / "series")
    with running(session, "dicom") as project, running(session, "dicom", "seed") as seed:
        # What is measured is the transfer, asked for by hand.
        project.stop()
        seed.stop()
        for number in range(1, runs + 1):
            for system, stack in {"project": project, "seed": seed}.items():
                client, server = stack.client, stack.server
                for sender, seconds in _outside(client, folder, images):
                    results.add(Row("C-STORE", system, f"{sender} to client", number, images / seconds, "images/s"))
                client.empty()
                identifiers = store(client, files).identifiers
                for jobs in JOBS:
                    server.empty()
                    seconds = send_by_jobs(client, [[identifiers[i::jobs]] for i in range(jobs)])
                    if (held := server.instances()) != images:
                        raise BenchError(f"{system}: {held} of {images} images arrived")
                    way = f"client to server, {jobs} {'job' if jobs == 1 else 'jobs'}"
                    results.add(Row("C-STORE", system, way, number, images / seconds, "images/s"))
                server.empty()


def _outside(client: Node, folder: Path, images: int) -> Iterator[tuple[str, float]]:
    """Sender and seconds: one association from this machine to the client's DICOM port, by pynetdicom and, if it is here, DCMTK."""
    senders: dict[str, Callable[[Node, Path], float]] = {"pynetdicom": _pynetdicom}
    if _DCMTK_STORESCU:
        senders |= {"storescu": _storescu, "storescu with TCP_NODELAY": _storescu_no_delay}
    for sender, send in senders.items():
        client.empty()
        seconds = send(client, folder)
        if (held := client.instances()) != images:
            raise BenchError(f"{sender}: the client holds {held} of {images} images")
        yield sender, seconds


def _pynetdicom(client: Node, folder: Path, identity: Path | None = None) -> float:
    # Read before the clock runs: it is the transfer that is measured.
    images = [pydicom.dcmread(BytesIO(path.read_bytes())) for path in sorted(folder.iterdir())]
    ae = AE(ae_title="WORKSTATION")
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    tls = _tls_context(client, identity) if identity else None
    started = time.monotonic()
    association = ae.associate(*client.dicom, ae_title=client.aet, max_pdu=131072, tls_args=tls)
    if not association.is_established:
        raise BenchError(f"{client.name} refuses the association")
    refused = [image for image in images if association.send_c_store(image).get("Status") != 0]
    association.release()
    seconds = time.monotonic() - started
    if refused:
        raise BenchError(f"{client.name} refused {len(refused)} images")
    return seconds


def _tls_context(client: Node, identity: Path) -> tuple[ssl.SSLContext, str]:
    context = ssl.create_default_context(cadata=client.trust)
    context.load_cert_chain(identity)
    return context, client.dicom[0]


def send(client: Node, folder: Path, identity: Path | None = None) -> float:
    """Send a folder over one association, as fast as a sender here can; the seconds until it has ended.

    Args:
        client: the node.
        folder: the files.
        identity: the certificate and the key of the sender, for a node with TLS.
    """
    return _storescu_no_delay(client, folder, identity) if _DCMTK_STORESCU else _pynetdicom(client, folder, identity)


def _storescu(client: Node, folder: Path, identity: Path | None = None, **env: str) -> float:
    titles = ("-aet", "WORKSTATION", "-aec", client.aet)
    tls = _tls_options(client, identity) if identity else ()
    command = [_DCMTK_STORESCU or "", *titles, *tls, "--scan-directories", client.dicom[0], str(client.dicom[1]), str(folder)]
    started = time.monotonic()
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode != 0:
        raise BenchError(f"storescu failed: {(done.stdout + done.stderr)[-500:]}")
    return time.monotonic() - started


def _storescu_no_delay(client: Node, folder: Path, identity: Path | None = None) -> float:
    return _storescu(client, folder, identity, TCP_NODELAY="1")


def _tls_options(client: Node, identity: Path) -> tuple[str, ...]:
    trust = identity.with_suffix(f".{client.name}")
    trust.write_text(client.trust, encoding="utf-8")
    return ("--enable-tls", str(identity), str(identity), "--add-cert-file", str(trust))
