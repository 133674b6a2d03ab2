"""Which secrets `make rotate` takes for the ones that are meant."""

from __future__ import annotations

import pytest

from ops.rotate import chosen
from ops.setup.console import SetupError

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
    assert chosen(said, KNOWN) == keys


@pytest.mark.parametrize("said", ["", " ", "dbPasword.server", "dbPassword dbpassword"])
def test_nothing_is_rotated_that_was_not_named(said: str) -> None:
    with pytest.raises(SetupError, match=r"dbPassword, dbPassword\.server"):
        chosen(said, KNOWN)
