"""Where state and passphrase are kept, which engine is meant, where packages come from; what is missing is told without a traceback."""

import json
import os
import platform
import shutil
import stat
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import docker
import pytest

from configs.problems import SettingsError
from ops.setup import console, engine, images
from ops.setup.console import ROOT, SetupError
from ops.setup.debian_base import _sources
from ops.setup.engine import choose_engine
from ops.setup.prepare import stack_config
from ops.setup.state import State, ensure_state, on_runner
from tests.unit import pki
from tests.unit.servers import Answer, Request, serving

# --- What may be missing: a message, and no traceback -----------------------------------------------------------------


def test_a_cache_that_cannot_be_written_to_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder in ("/proc/none", "/dev/null"):
        monkeypatch.setenv("XDG_CACHE_HOME", folder)
        with pytest.raises(SetupError, match=f"{folder}/orthanc-stack cannot be written to: .*\nSet XDG_CACHE_HOME"):
            console.cache_dir()
    (tmp_path / "orthanc-stack").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(SetupError, match="a read-only file system"):
        console.cache_dir()


def test_a_user_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", unknown)
    with pytest.raises(SetupError, match="Set HOME"):
        console.cache_dir()


def test_a_command_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(SetupError, match="building x failed: apt-get does not start: No such file or directory"):
        console.run_slow("Test", "building x", ["apt-get"])
    with pytest.raises(SetupError, match="no docker command on PATH"):
        engine.holds("an-image")
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(SetupError, match=r"no docker command on PATH\.\nInstall Docker"):
        engine.ensure_engine({})


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"config: [", "Pulumi.dev.yaml is not YAML"),
        (b"config: {a: \xff}", "is not text in UTF-8"),
        (b"[]", "no stack file|is not a stack"),
    ],
)
def test_a_stack_file_that_cannot_be_read_is_told(place: "Place", content: bytes, told: str) -> None:
    (place.checkout / "Pulumi.dev.yaml").write_bytes(content)
    with pytest.raises(SettingsError, match=told):
        stack_config("organization/orthanc-stack/dev", place.checkout)
    with pytest.raises(SettingsError, match=told):
        place.ensure()


# --- State: an existing login first, else a private folder of the checkout --------------------------------------------

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

    def ensure(self, stack: str = "dev", **environ: str) -> State:
        return ensure_state(stack, {"HOME": str(self.home), **environ}, self.checkout)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_without_a_login_there_is_a_private_local_backend(place: Place, tmp_path: Path) -> None:
    url = f"file://{place.state}"
    assert place.ensure().env == {"PULUMI_BACKEND_URL": url, "PULUMI_CONFIG_PASSPHRASE_FILE": str(place.passphrase)}
    assert [stat.S_IMODE(path.stat().st_mode) for path in (place.state, place.passphrase)] == [0o700, 0o600]
    assert list(place.state.iterdir()) == [place.passphrase]
    made = place.passphrase.read_text()
    assert len(made.strip()) >= 32
    place.ensure()
    assert place.passphrase.read_text() == made
    other = Place(tmp_path / "other")
    other.ensure()
    assert other.passphrase.read_text() != made


def test_two_first_runs_at_once_use_one_passphrase(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers, used = count(), []

    def token(size: int) -> str:
        if (number := next(numbers)) == 0:  # this run has found no passphrase; now another one makes its own, and uses it
            place.ensure()
            used.append(place.passphrase.read_text())
        return f"passphrase {number}"

    monkeypatch.setattr("secrets.token_urlsafe", token)
    place.ensure()
    assert used == [place.passphrase.read_text()] == ["passphrase 1\n"]
    assert list(place.state.iterdir()) == [place.passphrase]


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
    found = place.ensure(**environ)
    assert (found.url, found.env) == (url, {})
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


@pytest.mark.parametrize("stack", ["dev", "organization/orthanc-stack/dev"])
def test_a_lost_passphrase_is_not_replaced_by_another(place: Place, stack: str) -> None:
    (place.checkout / "Pulumi.dev.yaml").write_text(SALTED)
    with pytest.raises(SetupError, match=r"(?s)Pulumi\.dev\.yaml holds secrets.*encryptionsalt"):
        place.ensure(stack)
    assert not place.passphrase.exists()


def test_a_checkout_without_room_for_state_is_told(place: Place) -> None:
    place.state.symlink_to("/proc/nothing")
    with pytest.raises(SetupError, match=r"\.pulumi-state cannot be written to"):
        place.ensure()


@pytest.mark.parametrize("runner", ["GITHUB_ACTIONS", "GITLAB_CI"])
def test_no_state_is_left_to_a_runners_checkout(place: Place, runner: str) -> None:
    assert on_runner({runner: "true"})
    assert not on_runner({runner: "false"})
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
    # `unlock` looks there for who holds the lock: elsewhere it would find nobody, and take it away.
    assert State("file:///srv/state?no_tmp_dir=true", "").folder == Path("/srv/state/.pulumi")
    assert State("file:///srv/a%20b", "").folder == Path("/srv/a b/.pulumi")
    assert State("file://./state", "").folder == ROOT / "state" / ".pulumi"
    assert State("file://", "").folder == ROOT / ".pulumi"


def test_a_checkout_may_have_any_name(tmp_path: Path) -> None:
    strange = Place(tmp_path / "50% #1? ü")
    found = strange.ensure()
    assert found.url == f"file://{tmp_path}/50%25%20%231%3F%20%C3%BC/checkout/.pulumi-state"
    assert found.folder == strange.state / ".pulumi"


@pytest.mark.parametrize("url", ["postgres://ops:geheim@db/state", "postgres://db/state?user=ops&password=geheim&sslmode=require"])
def test_the_password_of_a_backend_is_not_shown(place: Place, url: str) -> None:
    """Its address is in messages and, where a preview is refused, in the comment on the pull request."""
    found = place.ensure(PULUMI_BACKEND_URL=url, PULUMI_CONFIG_PASSPHRASE="")
    assert (found.url, found.origin) == (url, f"{url.replace('geheim', '…')} (PULUMI_BACKEND_URL)")
    (place.home / ".pulumi" / "credentials.json").write_text(json.dumps({"current": url}))
    assert "geheim" not in place.ensure().origin


@pytest.mark.parametrize("text", ["ssh://user@host:22", "tcp://host:2376 of user@host", "file:///a:b@c", "https://host:443/a@b"])
def test_an_address_without_a_password_is_shown_whole(text: str) -> None:
    assert console.without_passwords(text) == text


# --- The engine: what names one, as the three variables that every client knows ---------------------------------------

with_docker = pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker command")


@pytest.fixture
def contexts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who has two Docker contexts: "plain", in use, and "remote" with certificates."""
    for name in engine._VARIABLES:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    authority = pki.Authority("engine")
    client = authority.issue("client")
    for name, text in {"ca": authority.pem, "cert": client.certificate, "key": client.key}.items():
        (tmp_path / f"{name}.pem").write_text(text)
    files = ",".join(f"{name}={tmp_path}/{name}.pem" for name in ("ca", "cert", "key"))
    hosts = {"plain": "host=ssh://user@host", "remote": f"host=tcp://remote:2376,{files}"}
    for name, host in hosts.items():
        subprocess.run(["docker", "context", "create", name, f"--docker={host}"], check=True, capture_output=True)
    subprocess.run(["docker", "context", "use", "plain"], check=True, capture_output=True)
    return tmp_path


@with_docker
@pytest.mark.parametrize(
    ("config", "environ", "host"),
    [
        ({}, {}, "ssh://user@host"),
        ({}, {"DOCKER_CONTEXT": "remote"}, "tcp://remote:2376"),
        ({}, {"DOCKER_CONTEXT": "default"}, "unix:///var/run/docker.sock"),
        ({}, {"DOCKER_CONTEXT": "remote", "DOCKER_HOST": "tcp://x:1"}, "tcp://x:1"),
        ({}, {"DOCKER_HOST": ""}, "ssh://user@host"),
        ({"docker:host": "tcp://y:1"}, {"DOCKER_CONTEXT": "remote", "DOCKER_HOST": "tcp://x:1"}, "tcp://y:1"),
        ({"docker:host": "tcp://y:1", "docker:context": "remote"}, {"DOCKER_HOST": "tcp://x:1"}, "tcp://remote:2376"),
    ],
)
@pytest.mark.usefixtures("contexts")
def test_which_engine_is_meant(monkeypatch: pytest.MonkeyPatch, config: dict[str, str], environ: dict[str, str], host: str) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    for _ in range(2):  # a second preparation finds the same
        assert bool(choose_engine(config)) == (host != "unix:///var/run/docker.sock"), "the default is nobody's choice"
        assert os.environ["DOCKER_HOST"] == host
        assert "DOCKER_CONTEXT" not in os.environ
        assert ("DOCKER_CERT_PATH" in os.environ) == (host == "tcp://remote:2376")


@with_docker
def test_a_context_that_is_not_there_is_told(contexts: Path) -> None:
    with pytest.raises(SetupError, match="the Docker context nowhere is chosen, but"):
        choose_engine({"docker:context": "nowhere"})


@with_docker
@pytest.mark.parametrize("way", ["context", "lax", "certPath"])
def test_an_engine_behind_tls_answers_the_command_and_the_sdk(contexts: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    def answer(asked: Request) -> Answer:
        versions = {"Version": "99.1", "ApiVersion": "1.41", "MinAPIVersion": "1.12"}
        headers = {"Content-Type": "application/json", "Api-Version": "1.41"}
        return Answer(headers=headers, body=json.dumps(versions).encode() if asked.path.endswith("/version") else b"OK")

    authority, stranger = pki.Authority("engine"), pki.Authority("stranger")
    client = authority.issue("client")
    for name, text in {"ca": authority.pem, "cert": client.certificate, "key": client.key}.items():
        (contexts / f"{name}.pem").write_text(text)
    pair = (stranger if way == "lax" else authority).issue("127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(contexts / "cert.pem"))  # a network's authority, which the engine's is not
    with serving(answer, pki.serving(pair, authority.pem)) as url:
        host = url.replace("https", "tcp")
        files = ",".join(f"{name}={contexts}/{name}.pem" for name in ("ca", "cert", "key"))
        tls = f"--docker=host={host},{files}{',skip-tls-verify=true' if way == 'lax' else ''}"
        subprocess.run(["docker", "context", "create", "tls", tls], check=True, capture_output=True)
        engine.ensure_engine({"docker:host": host, "docker:certPath": str(contexts)} if way == "certPath" else {"docker:context": "tls"})
        assert engine._ask() == ("99.1", "")
        assert docker.from_env().version()["Version"] == "99.1"


# --- What outlives the set-up, or comes from others, gets no secrets --------------------------------------------------

SECRETS = {
    "PULUMI_CONFIG_PASSPHRASE": "x",
    "PULUMI_ACCESS_TOKEN": "x",
    "AWS_SECRET_ACCESS_KEY": "x",
    "GITHUB_TOKEN": "x",
    "MY_PASSPHRASE": "x",
}


def put(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a dockerd and a docker command that are first on PATH write their environment; this process's holds secrets."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("https_proxy", "http://proxy.invalid")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    put(tmp_path, "dockerd", f"env >{tmp_path}/draft; mv {tmp_path}/draft {tmp_path}/noted")
    put(
        tmp_path,
        "docker",
        f'[ $1 != build ] || {{ env; echo "command=$*"; }} >{tmp_path}/noted\n[ $1 != version ] || cat {tmp_path}/noted; echo 7',
    )
    return tmp_path / "noted"


def variables(noted: Path) -> set[str]:
    return {line.partition("=")[0] for line in noted.read_text().splitlines()} - {"PWD", "SHLVL", "_", "OLDPWD"}


def test_an_engine_is_started_without_the_users_environment(noted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_SYSTEMD", noted)
    monkeypatch.setattr(engine, "_ask", lambda: ("7" if noted.exists() else "", ""))
    monkeypatch.setattr(subprocess.Popen, "poll", lambda process: None)  # it would have gone on
    engine._start()
    assert {"HOME", "PATH", "https_proxy"} <= variables(noted)
    assert {name.upper() for name in variables(noted)} <= engine._FOR_AN_ENGINE


def test_a_build_of_images_gets_no_secrets(noted: Path) -> None:
    images._build("adminer", "name", "base", {"http_proxy": "http://ops:geheim@proxy"})
    # A command line is every user's to read.
    command = next(line for line in noted.read_text().splitlines() if line.startswith("command="))
    assert " --build-arg=http_proxy " in command
    assert "geheim" not in command
    assert "http_proxy=http://ops:geheim@proxy\n" in noted.read_text()
    assert {"PATH", "https_proxy", "XDG_CACHE_HOME"} <= variables(noted)
    assert not variables(noted) & set(SECRETS)


# --- Packages: a mirror that answers. Nothing on it is signed ---------------------------------------------------------


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
    """A mirror, on a Debian whose own sources are elsewhere; DEBIAN_MIRROR names it."""
    put(tmp_path, "apt-get", "echo http://own.invalid/debian-security/ forky-security main\necho http://own.invalid/debian forky main")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": "debian"})
    with serving(lambda asked: releases.get(asked.path.removesuffix("/InRelease"), Answer(404))) as url:
        monkeypatch.setenv("DEBIAN_MIRROR", f"{url}/debian/")
        yield f"{url}/debian"


def test_only_what_is_past_its_time_is_not_held_to_it(mirror: str, releases: dict[str, Answer]) -> None:
    releases["/debian/dists/forky"] = release()
    releases["/debian-security/dists/forky-security"] = release(valid=timedelta(days=-1))
    fresh, security = _sources("forky", {})
    assert fresh == f"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror} forky main"
    assert security.startswith("deb [check-valid-until=no signed-by=/")
    assert security.endswith(f"] {mirror}-security forky-security main")


@pytest.mark.parametrize("said", [release(origin="Ubuntu"), Answer(404)], ids=["Ubuntu's", "none"])
def test_a_mirror_without_debians_release_is_refused(mirror: str, releases: dict[str, Answer], said: Answer) -> None:
    releases["/debian/dists/forky"] = said
    with pytest.raises(SetupError, match=r"DEBIAN_MIRROR .* has no forky of Debian's"):
        _sources("forky", {})
