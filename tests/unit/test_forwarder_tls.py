"""The forwarder speaks with its own node only: of all servers in its place, the one with the right certificate."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from forwarder.orthanc import NodeDownError, Orthanc
from tests.unit.pki import Authority, serving

HOSPITAL = Authority("hospital")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A caller that hangs up is what is looked for."""


@contextmanager
def server(context: ssl.SSLContext | None) -> Iterator[int]:
    serving_ = _Server(("127.0.0.1", 0), _Handler)
    if context:
        # The handshake in the request's own thread, so that one that fails ends that request alone.
        serving_.socket = context.wrap_socket(serving_.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=serving_.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield int(serving_.server_address[1])
    finally:
        serving_.shutdown()
        serving_.server_close()
        thread.join()


CONTEXTS: dict[str, Callable[[], ssl.SSLContext | None]] = {
    "plain": lambda: None,
    "no certificate": lambda: serving(None),
    "foreign authority": lambda: serving(Authority("foreign").issue("127.0.0.1")),
    "expired": lambda: serving(HOSPITAL.issue("127.0.0.1", over=True)),
    "wrong host": lambda: serving(HOSPITAL.issue("elsewhere")),
    "old protocol": lambda: serving(HOSPITAL.issue("127.0.0.1"), old=True),
    "good": lambda: serving(HOSPITAL.issue("127.0.0.1")),
}


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize("case", CONTEXTS)
def test_only_the_good_one_is_told_the_password(case: str, tmp_path: Path) -> None:
    trust = tmp_path / "trust.pem"
    trust.write_text(HOSPITAL.pem)
    with server(CONTEXTS[case]()) as port:
        orthanc = Orthanc("127.0.0.1", port, "user", "word", str(trust))
        if case == "good":
            assert orthanc.get("/system") == orthanc.get("/system") == {}
        else:
            with pytest.raises(NodeDownError):
                orthanc.get("/system")
