"""What is settled before anything is deployed: where state and passphrase are kept, which engine, where packages come from."""

from __future__ import annotations

import json
import os
import platform
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ops.setup.console import SetupError
from ops.setup.debian_base import _sources
from ops.setup.engine import context_environment, context_name
from ops.setup.state import State, ensure_state
from tests.unit.servers import Answer, serving

# --- State: an existing login first, else a private folder of the checkout -------------------------------------------

CLOUD = "https://api.pulumi.com"
LOGGED_IN = json.dumps({"current": CLOUD})
ELSEWHERE = {"PULUMI_BACKEND_URL": "s3://bucket"}
#: What a stack file holds once its secrets are encrypted with a passphrase.
SALTED = "config: {}\nencryptionsalt: v1:abc=:v1:def\n"


class Place:
    """A home and a checkout on a machine."""

    def __init__(self, folder: Path) -> None:
        self.home, self.checkout = folder / "home", folder / "checkout"
        for made in (self.home / ".pulumi", self.checkout):
            made.mkdir(parents=True)
        self.state = self.checkout / ".pulumi-state"
        self.passphrase = self.state / "passphrase"

    def ensure(self, **environ: str) -> State:
        return ensure_state("dev", {"HOME": str(self.home), **environ}, self.checkout)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_without_a_login_there_is_a_private_local_backend(place: Place, tmp_path: Path) -> None:
    url = f"file://{place.state}"
    assert place.ensure().env == {"PULUMI_BACKEND_URL": url, "PULUMI_CONFIG_PASSPHRASE_FILE": str(place.passphrase)}
    assert [stat.S_IMODE(path.stat().st_mode) for path in (place.state, place.passphrase)] == [0o700, 0o600]
    made = place.passphrase.read_text()
    assert len(made.strip()) >= 32
    place.ensure()
    assert place.passphrase.read_text() == made
    other = Place(tmp_path / "other")
    other.ensure()
    assert other.passphrase.read_text() != made


@pytest.mark.parametrize(
    ("login", "environ", "url"),
    [
        pytest.param(LOGGED_IN, {}, CLOUD, id="a login"),
        pytest.param("", {"PULUMI_ACCESS_TOKEN": "pul-x"}, CLOUD, id="an access token"),
        # An empty passphrase is the caller's choice too.
        pytest.param(LOGGED_IN, {**ELSEWHERE, "PULUMI_CONFIG_PASSPHRASE": ""}, "s3://bucket", id="the variable before a login"),
    ],
)
def test_a_login_that_exists_is_used(place: Place, login: str, environ: dict[str, str], url: str) -> None:
    (place.home / ".pulumi" / "credentials.json").write_text(login)
    state = place.ensure(**environ)
    assert (state.url, state.env) == (url, {})
    assert not place.state.exists()


def test_pulumi_home_is_where_the_login_is_looked_for(place: Place, tmp_path: Path) -> None:
    (tmp_path / "credentials.json").write_text(LOGGED_IN)
    assert place.ensure(PULUMI_HOME=str(tmp_path)).url == CLOUD


@pytest.mark.parametrize("content", ["", "{", "[]", '{"current": ""}', "null"])
def test_a_broken_or_empty_login_is_none(place: Place, content: str) -> None:
    (place.home / ".pulumi" / "credentials.json").write_text(content)
    assert place.ensure().url.startswith("file://")


def test_the_callers_passphrase_is_respected(place: Place) -> None:
    assert "PULUMI_CONFIG_PASSPHRASE_FILE" not in place.ensure(PULUMI_CONFIG_PASSPHRASE_FILE="/mine").env
    assert not place.passphrase.exists()


def test_a_lost_passphrase_is_not_replaced_by_another(place: Place) -> None:
    (place.checkout / "Pulumi.dev.yaml").write_text(SALTED)
    with pytest.raises(SetupError, match=r"(?s)Pulumi\.dev\.yaml holds secrets.*encryptionsalt"):
        place.ensure()
    assert not place.passphrase.exists()


@pytest.mark.parametrize("runner", ["GITHUB_ACTIONS", "GITLAB_CI"])
def test_no_state_is_left_to_a_runners_checkout(place: Place, runner: str) -> None:
    with pytest.raises(SetupError, match="PULUMI_BACKEND_URL"):
        place.ensure(**{runner: "true", "PULUMI_BACKEND_URL": ""})
    assert not place.state.exists()
    assert place.ensure(**{runner: "true", "PULUMI_CONFIG_PASSPHRASE": "known", **ELSEWHERE}).url == "s3://bucket"


@pytest.mark.parametrize(
    ("stack_file", "provider", "asks"),
    [
        ("config: {}\n", {"SECRETS_PROVIDER": "hashivault://stacks"}, False),
        ("config: {}\n", {"SECRETS_PROVIDER": "passphrase"}, True),
        # What a stack is encrypted with is not what a new one would be.
        (SALTED, {"SECRETS_PROVIDER": "hashivault://stacks"}, True),
        ("secretsprovider: awskms://key\nconfig: {}\n", {"SECRETS_PROVIDER": "passphrase"}, False),
        ("secretsprovider: awskms://key\nencryptedkey: abc\nconfig: {}\n", {}, False),
    ],
)
def test_a_key_service_needs_no_passphrase(place: Place, stack_file: str, provider: dict[str, str], asks: bool) -> None:
    (place.checkout / "Pulumi.dev.yaml").write_text(stack_file)
    place.state.mkdir()
    place.passphrase.write_text("known\n")
    assert set(place.ensure(**ELSEWHERE, **provider).env) == ({"PULUMI_CONFIG_PASSPHRASE_FILE"} if asks else set())


def test_a_file_backend_is_looked_into_where_pulumi_keeps_it() -> None:
    assert State("file:///srv/state", "").folder == Path("/srv/state/.pulumi")
    assert State("file://~", "").folder == Path.home() / ".pulumi"
    assert State(CLOUD, "").folder is None


# --- The engine: Docker contexts, which Pulumi's provider does not know, become DOCKER_HOST --------------------------


@pytest.mark.parametrize(
    ("environ", "config", "name"),
    [
        ({}, {}, None),
        ({}, {"currentContext": "default"}, None),
        ({}, {"currentContext": "remote"}, "remote"),
        ({"DOCKER_CONTEXT": "other"}, {"currentContext": "remote"}, "other"),
        ({"DOCKER_CONTEXT": "default"}, {"currentContext": "remote"}, None),
        ({"DOCKER_CONTEXT": ""}, {"currentContext": "remote"}, "remote"),
        ({"DOCKER_HOST": "tcp://x:1", "DOCKER_CONTEXT": "other"}, {"currentContext": "remote"}, None),
        ({"DOCKER_HOST": ""}, {"currentContext": "remote"}, "remote"),
    ],
)
def test_which_context_is_in_use(environ: dict[str, str], config: dict[str, str], name: str | None) -> None:
    assert context_name(environ, config) == name


@pytest.mark.parametrize(
    ("inspected", "more"),
    [
        pytest.param({}, {}, id="a host"),
        pytest.param(
            {"TLSMaterial": {"docker": ["ca.pem", "cert.pem", "key.pem"]}},
            {"DOCKER_CERT_PATH": "/tls/docker", "DOCKER_TLS_VERIFY": "1"},
            id="its certificates go with it",
        ),
        pytest.param(
            {"TLSMaterial": {"docker": ["ca.pem"]}, "Endpoints": {"docker": {"Host": "tcp://host:2376", "SkipTLSVerify": True}}},
            {"DOCKER_HOST": "tcp://host:2376", "DOCKER_CERT_PATH": "/tls/docker"},
            id="one that skips verification still does",
        ),
    ],
)
def test_a_context_becomes_a_host(inspected: dict[str, Any], more: dict[str, str]) -> None:
    context = {
        "Endpoints": {"docker": {"Host": "ssh://user@host", "SkipTLSVerify": False}},
        "TLSMaterial": {},
        "Storage": {"TLSPath": "/tls"},
    }
    assert context_environment({**context, **inspected}) == {"DOCKER_HOST": "ssh://user@host", **more}


# --- Packages: a mirror that answers. Nothing on it is signed --------------------------------------------------------


def release(*, origin: str = "Debian", valid: timedelta = timedelta(days=7)) -> Answer:
    """What an archive says of itself."""
    until = (datetime.now(UTC) + valid).strftime("%a, %d %b %Y %H:%M:%S UTC")
    signed = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n"
    return Answer(body=f"{signed}Origin: {origin}\nSuite: testing\nValid-Until: {until}\n".encode())


@pytest.fixture
def releases() -> dict[str, Answer]:
    """What the mirror answers, by path."""
    return {}


@pytest.fixture
def mirror(releases: dict[str, Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A mirror, on a Debian whose own sources are elsewhere."""
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\necho http://own.invalid/debian-security/ forky-security main\necho http://own.invalid/debian forky main\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": "debian"})
    with serving(lambda asked: releases.get(asked.path.removesuffix("/InRelease"), Answer(404))) as url:
        yield f"{url}/debian"


def test_only_what_is_past_its_time_is_not_held_to_it(mirror: str, releases: dict[str, Answer]) -> None:
    releases["/debian/dists/forky"] = release()
    releases["/debian-security/dists/forky-security"] = release(valid=timedelta(days=-1))
    fresh, security = _sources("forky", {"DEBIAN_MIRROR": f"{mirror}/"}, {})
    assert fresh == f"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror} forky main"
    assert security.startswith("deb [check-valid-until=no signed-by=/")
    assert security.endswith(f"] {mirror}-security forky-security main")


@pytest.mark.parametrize("said", [release(origin="Ubuntu"), Answer(404)], ids=["Ubuntu's", "none"])
def test_a_mirror_without_debians_release_is_refused(mirror: str, releases: dict[str, Answer], said: Answer) -> None:
    releases["/debian/dists/forky"] = said
    with pytest.raises(SetupError, match=r"DEBIAN_MIRROR .* has no forky of Debian's"):
        _sources("forky", {"DEBIAN_MIRROR": mirror}, {})
