"""The forwarder speaks with its own node only: of all servers in its place, the one with the right certificate."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from forwarder.orthanc import NodeDownError, Orthanc
from tests.unit.orthancs import Node
from tests.unit.pki import Authority, serving

HOSPITAL = Authority("hospital")
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
def test_only_the_good_one_is_told_the_password(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trust = tmp_path / "trust.pem"
    trust.write_text(HOSPITAL.pem)
    node = Node()
    # A caller that hangs up is what is looked for, and no error.
    monkeypatch.setattr(node.server, "handle_error", lambda *_: None)
    if context := CONTEXTS[case]():
        # The handshake in the request's own thread, so that one that fails ends that request alone.
        node.server.socket = context.wrap_socket(node.server.socket, server_side=True, do_handshake_on_connect=False)
    orthanc = Orthanc("127.0.0.1", node.port, "user", "word", str(trust))
    try:
        if case == "good":
            assert orthanc.get("/system") == orthanc.get("/system")
        else:
            with pytest.raises(NodeDownError):
                orthanc.get("/system")
        assert len(node.asked) == (2 if case == "good" else 0)
    finally:
        node.close()
