"""Where the images' packages come from, asked of a mirror that answers (ops/setup/debian_base.py)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from ops.setup.console import SetupError
from ops.setup.debian_base import _sources


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[str]:
    """A mirror on this machine whose files are those of the test's folder; nothing in it is signed."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/debian"
        server.shutdown()


def release(folder: Path, path: str, *, origin: str = "Debian", valid: timedelta = timedelta(days=7)) -> None:
    file = folder / path / "InRelease"
    file.parent.mkdir(parents=True)
    until = (datetime.now(UTC) + valid).strftime("%a, %d %b %Y %H:%M:%S UTC")
    file.write_text(f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nOrigin: {origin}\nSuite: testing\nValid-Until: {until}\n")


def test_only_what_is_past_its_time_is_not_held_to_it(mirror: str, tmp_path: Path) -> None:
    release(tmp_path, "debian/dists/forky")
    release(tmp_path, "debian-security/dists/forky-security", valid=timedelta(days=-1))
    fresh, security = _sources("forky", {"DEBIAN_MIRROR": f"{mirror}/"}, {})
    assert fresh == f"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror} forky main"
    assert security.startswith("deb [check-valid-until=no signed-by=/")
    assert security.endswith(f"] {mirror}-security forky-security main")


@pytest.mark.parametrize("origin", ["Ubuntu", None])
def test_a_mirror_without_debians_release_is_refused(mirror: str, tmp_path: Path, origin: str | None) -> None:
    if origin:
        release(tmp_path, "debian/dists/forky", origin=origin)
    with pytest.raises(SetupError, match=r"DEBIAN_MIRROR .* has no forky of Debian's"):
        _sources("forky", {"DEBIAN_MIRROR": mirror}, {})
