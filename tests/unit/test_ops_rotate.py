"""Which secrets `make rotate` takes for the ones that are meant."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ops import authority
from ops.rotate import all_keys, chosen, known_keys
from ops.setup.console import SetupError
from tests.unit.pki import Authority
from tests.unit.stacks import node, settings_of, stack

KNOWN = ("dbPassword", "dbPassword.server", "userPassword.server.orthanc")


@pytest.mark.parametrize(
    ("said", "keys"),
    [
        ("dbPassword", ["dbPassword"]),
        ("userPassword.server.orthanc dbPassword", ["dbPassword", "userPassword.server.orthanc"]),
        ("dbPassword dbPassword", ["dbPassword"]),
        ("all", list(KNOWN)),
    ],
)
def test_keys_by_name_or_all(said: str, keys: list[str]) -> None:
    assert chosen(said, (*KNOWN, "tlsKey.scanner"), KNOWN) == keys


@pytest.mark.parametrize("said", ["", " ", "dbPasword.server", "dbPassword dbpassword"])
def test_nothing_is_rotated_that_was_not_named(said: str) -> None:
    with pytest.raises(SetupError, match=r"dbPassword, dbPassword\.server"):
        chosen(said, KNOWN, KNOWN)


def test_all_is_what_nobody_outside_has_to_be_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authority, "_KEY_BITS", 1024)  # a long one takes its time
    device = {"name": "scanner", "aet": "SCANNER", "host": "h", "port": 104, "nodes": ["a"], "tls": True}
    settings = settings_of(stack(node("a", tls=True), node("b", 1, tls=True), modalities=[device], indexDb={"tls": True}))
    held = {**authority.make(settings, {}, datetime.now(UTC)).plain, "tlsCertificate.b": Authority("hospital").issue("b").certificate}
    passwords = ["dbPassword", "dbPassword.a", "dbPassword.b", "userPassword.a.orthanc", "userPassword.b.orthanc"]
    assert all_keys(settings, held) == [*passwords, "tlsKey.a", "tlsKey.db"]
    assert known_keys(settings) == [*passwords, "tlsKey.a", "tlsKey.b", "tlsKey.db", "tlsKey.scanner", "tlsCaKey"]
