"""Where state and passphrase are kept: an existing login first, else a private folder of the checkout."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from ops.setup.console import SetupError
from ops.setup.state import State, ensure_state


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home" / ".pulumi").mkdir(parents=True)
    return tmp_path / "home"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "checkout").mkdir()
    return tmp_path / "checkout"


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_without_a_login_there_is_a_private_local_backend(home: Path, checkout: Path) -> None:
    state = ensure_state("dev", {"HOME": str(home)}, checkout)
    passphrase = checkout / ".pulumi-state" / "passphrase"
    assert state.env == {
        "PULUMI_BACKEND_URL": f"file://{checkout}/.pulumi-state",
        "PULUMI_CONFIG_PASSPHRASE_FILE": str(passphrase),
    }
    assert (_mode(checkout / ".pulumi-state"), _mode(passphrase)) == (0o700, 0o600)
    assert len(passphrase.read_text().strip()) >= 32


def test_the_passphrase_is_made_once(home: Path, checkout: Path) -> None:
    ensure_state("dev", {"HOME": str(home)}, checkout)
    first = (checkout / ".pulumi-state" / "passphrase").read_text()
    ensure_state("dev", {"HOME": str(home)}, checkout)
    assert (checkout / ".pulumi-state" / "passphrase").read_text() == first


def test_two_checkouts_have_two_passphrases(home: Path, checkout: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for root in (checkout, other):
        ensure_state("dev", {"HOME": str(home)}, root)
    passphrases = {(root / ".pulumi-state" / "passphrase").read_text() for root in (checkout, other)}
    assert len(passphrases) == 2


def test_a_login_that_exists_is_used(home: Path, checkout: Path) -> None:
    (home / ".pulumi" / "credentials.json").write_text(json.dumps({"current": "https://api.pulumi.com"}))
    state = ensure_state("dev", {"HOME": str(home)}, checkout)
    assert (state.url, state.env) == ("https://api.pulumi.com", {})
    assert not (checkout / ".pulumi-state").exists()


def test_an_access_token_is_a_login(home: Path, checkout: Path) -> None:
    state = ensure_state("dev", {"HOME": str(home), "PULUMI_ACCESS_TOKEN": "pul-x"}, checkout)
    assert (state.url, state.env) == ("https://api.pulumi.com", {})


def test_the_backend_variable_goes_before_a_login(home: Path, checkout: Path) -> None:
    (home / ".pulumi" / "credentials.json").write_text(json.dumps({"current": "https://api.pulumi.com"}))
    environ = {"HOME": str(home), "PULUMI_BACKEND_URL": "s3://bucket", "PULUMI_CONFIG_PASSPHRASE": ""}
    state = ensure_state("dev", environ, checkout)
    # An empty passphrase is the caller's choice too.
    assert (state.url, state.env) == ("s3://bucket", {})


def test_pulumi_home_is_where_the_login_is_looked_for(home: Path, checkout: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "credentials.json").write_text(json.dumps({"current": "https://pulumi.example.org"}))
    state = ensure_state("dev", {"HOME": str(home), "PULUMI_HOME": str(elsewhere)}, checkout)
    assert state.url == "https://pulumi.example.org"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"current": ""}', "null"])
def test_a_broken_or_empty_login_is_none(home: Path, checkout: Path, content: str) -> None:
    (home / ".pulumi" / "credentials.json").write_text(content)
    assert ensure_state("dev", {"HOME": str(home)}, checkout).url.startswith("file://")


def test_the_callers_passphrase_is_respected(home: Path, checkout: Path) -> None:
    state = ensure_state("dev", {"HOME": str(home), "PULUMI_CONFIG_PASSPHRASE_FILE": "/mine"}, checkout)
    assert "PULUMI_CONFIG_PASSPHRASE_FILE" not in state.env
    assert not (checkout / ".pulumi-state" / "passphrase").exists()


def test_a_lost_passphrase_is_not_replaced_by_another(home: Path, checkout: Path) -> None:
    (checkout / "Pulumi.dev.yaml").write_text("config: {}\nencryptionsalt: v1:abc=:v1:def\n")
    with pytest.raises(SetupError, match=r"(?s)Pulumi\.dev\.yaml holds secrets.*encryptionsalt"):
        ensure_state("dev", {"HOME": str(home)}, checkout)
    assert not (checkout / ".pulumi-state" / "passphrase").exists()


def test_a_key_service_needs_no_passphrase(home: Path, checkout: Path) -> None:
    (checkout / "Pulumi.prod.yaml").write_text("secretsprovider: awskms://key\nencryptedkey: abc\nconfig: {}\n")
    state = ensure_state("prod", {"HOME": str(home), "PULUMI_BACKEND_URL": "s3://bucket"}, checkout)
    assert state.env == {}


@pytest.mark.parametrize("runner", ["GITHUB_ACTIONS", "GITLAB_CI"])
def test_no_state_is_left_to_a_runners_checkout(home: Path, checkout: Path, runner: str) -> None:
    with pytest.raises(SetupError, match="PULUMI_BACKEND_URL"):
        ensure_state("dev", {"HOME": str(home), runner: "true", "PULUMI_BACKEND_URL": ""}, checkout)
    assert not (checkout / ".pulumi-state").exists()
    environ = {"HOME": str(home), runner: "true", "PULUMI_BACKEND_URL": "s3://bucket", "PULUMI_CONFIG_PASSPHRASE": "known"}
    assert ensure_state("dev", environ, checkout).url == "s3://bucket"


@pytest.mark.parametrize(
    ("content", "provider", "asks"),
    [
        ("config: {}\n", "hashivault://stacks", False),
        ("config: {}\n", "passphrase", True),
        # What a stack is encrypted with is not what a new one would be.
        ("encryptionsalt: v1:abc=:v1:def\nconfig: {}\n", "hashivault://stacks", True),
        ("secretsprovider: awskms://key\nconfig: {}\n", "passphrase", False),
    ],
)
def test_a_key_service_for_a_new_stack_needs_no_passphrase(home: Path, checkout: Path, content: str, provider: str, asks: bool) -> None:
    (checkout / "Pulumi.dev.yaml").write_text(content)
    (checkout / ".pulumi-state").mkdir()
    (checkout / ".pulumi-state" / "passphrase").write_text("known\n")
    environ = {"HOME": str(home), "PULUMI_BACKEND_URL": "s3://bucket", "SECRETS_PROVIDER": provider}
    assert ("PULUMI_CONFIG_PASSPHRASE_FILE" in ensure_state("dev", environ, checkout).env) == asks


def test_a_file_backend_is_looked_into_where_pulumi_keeps_it() -> None:
    assert State("file:///srv/state", "").folder == Path("/srv/state/.pulumi")
    assert State("file://~", "").folder == Path.home() / ".pulumi"
    assert State("https://api.pulumi.com", "").folder is None
