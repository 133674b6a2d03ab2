"""Secrets: random, only where they are missing, all or none, and on no command line; which ones `rotate` takes for those meant."""

import fcntl
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ops.setup.console import SetupError
from ops.setup.prepare import Tools
from ops.setup.state import State
from ops.stack import authority
from ops.stack import secrets as module
from ops.stack.secrets import all_keys, checked, ensure_secrets, known_keys, missing_keys, random_secret, require_secrets, set_secrets
from ops.stack.stack import Stack
from tests.unit.pki import Authority
from tests.unit.stacks import node, settings_of, stack

#: Stands in for pulumi: writes its arguments and its standard input beside itself, and the key into the configuration file.
FAKE_PULUMI = """#!{python}
import sys
from datetime import UTC, datetime
from pathlib import Path
here = Path(__file__).parent
for file, said in (("calls", " ".join(sys.argv[1:])), ("values", sys.stdin.read())):
    with (here / file).open("a") as kept:
        kept.write(said + "\\n")
key, file = sys.argv[4], sys.argv[sys.argv.index("--config-file") + 1]
if key.endswith("refused"):
    sys.exit("error: refused")
with open(file, "a") as config:
    config.write(f"  {{key}}:\\n    secure: v1:x\\n")
"""


@pytest.fixture
def dev(tmp_path: Path) -> Stack:
    pulumi = tmp_path / "pulumi"
    pulumi.write_text(FAKE_PULUMI.format(python=sys.executable))
    pulumi.chmod(0o755)
    (tmp_path / "Pulumi.dev.yaml").write_text("config:\n")
    return Stack("dev", Tools(pulumi, State("file:///nowhere", "")), tmp_path)


def test_a_secret_is_long_safe_and_never_a_number() -> None:
    drawn = {random_secret() for _ in range(200)}
    assert len(drawn) == 200
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9]{31}", secret) for secret in drawn)


def test_only_what_is_not_set_is_missing() -> None:
    config = {"orthanc-stack:dbPassword": {"secure": "v1:x"}, "other:userPassword.a.b": "x", "orthanc-stack:dbPassword.x": "clear"}
    assert missing_keys(["dbPassword", "dbPassword.x", "userPassword.a.b"], config) == ["userPassword.a.b"]


def test_secrets_are_set_by_standard_input_and_stand_on_no_command_line(dev: Stack) -> None:
    set_secrets(dev, {"dbPassword": "first", "userPassword.a.b": "second"}, dev.root / "Pulumi.dev.yaml")
    calls = (dev.root / "calls").read_text()
    assert re.findall(r"^config set --secret (\S+)", calls, re.MULTILINE) == ["orthanc-stack:dbPassword", "orthanc-stack:userPassword.a.b"]
    assert (dev.root / "values").read_text().split() == ["first", "second"]
    assert "first" not in calls
    assert "second" not in calls
    assert (dev.root / "Pulumi.dev.yaml").read_text().count("secure:") == 2


def test_when_one_cannot_be_set_the_stack_file_is_as_before(dev: Stack) -> None:
    with pytest.raises(SetupError, match="refused"):
        set_secrets(dev, {"dbPassword": "first", "refused": "second"}, dev.root / "Pulumi.dev.yaml")
    assert (dev.root / "Pulumi.dev.yaml").read_text() == "config:\n"
    assert not list(dev.root.glob(".Pulumi*"))


def test_a_stack_file_that_is_a_link_stays_one(dev: Stack) -> None:
    """A site may keep its stack files in a repository of their own."""
    (dev.root / "ours").mkdir()
    link, file = dev.root / "Pulumi.dev.yaml", dev.root / "ours" / "Pulumi.dev.yaml"
    link.rename(file)
    link.symlink_to(file)
    set_secrets(dev, {"dbPassword": "first"}, link)
    assert link.is_symlink()
    assert file.read_text().count("secure:") == 1


KNOWN = ("dbPassword", "dbPassword.server", "userPassword.server.orthanc")


def test_keys_are_taken_once_in_a_stable_order() -> None:
    assert checked(["userPassword.server.orthanc", "dbPassword", "dbPassword"], KNOWN) == ["dbPassword", "userPassword.server.orthanc"]


@pytest.mark.parametrize("said", [[], ["dbPasword.server"], ["dbPassword", "dbpassword"]])
def test_nothing_is_rotated_that_was_not_named(said: list[str]) -> None:
    with pytest.raises(SetupError, match=r"dbPassword, dbPassword\.server"):
        checked(said, KNOWN)


def test_of_two_runs_at_once_the_second_takes_the_first_ones_secrets(dev: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(dev.root))
    settings = settings_of(stack(node("a", index="sqlite"), node("b", 1, index="sqlite")))
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: ensure_secrets(dev, settings), range(2)))
    set_keys = re.findall(r"^config set --secret (\S+)", (dev.root / "calls").read_text(), re.MULTILINE)
    assert sorted(set_keys) == ["orthanc-stack:userPassword.a.orthanc", "orthanc-stack:userPassword.b.orthanc"]


def test_a_pipeline_makes_no_secret_and_names_those_that_are_missing(dev: Stack) -> None:
    before = (dev.root / "Pulumi.dev.yaml").read_bytes()
    with pytest.raises(SetupError, match=r"lacks secrets: userPassword\.a\.orthanc\. .*`\./orthanc-stack secrets dev`"):
        require_secrets(dev, settings_of(stack(node("a", index="sqlite"))))
    assert (dev.root / "Pulumi.dev.yaml").read_bytes() == before


def test_all_is_what_nobody_outside_has_to_be_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authority, "_KEY_BITS", 1024)  # a long one takes its time
    device = {"name": "scanner", "aet": "SCANNER", "host": "h", "port": 104, "nodes": ["a"], "tls": True}
    settings = settings_of(stack(node("a", tls=True), node("b", 1, tls=True), modalities=[device], indexDb={"tls": True}))
    held = {**authority.make(settings, {}, datetime.now(UTC)).plain, "tlsCertificate.b": Authority("hospital").issue("b").certificate}
    passwords = ["dbPassword", "dbPassword.a", "dbPassword.b", "userPassword.a.orthanc", "userPassword.b.orthanc"]
    assert all_keys(settings, held) == [*passwords, "tlsKey.a", "tlsKey.db"]
    assert known_keys(settings) == [*passwords, "tlsKey.a", "tlsKey.b", "tlsKey.db", "tlsKey.scanner", "tlsCaKey"]


def _rotate() -> int:
    return module.rotate("dev", ["dbPassword"], everything=False)


@pytest.mark.parametrize("command", [lambda: module.secrets("dev"), lambda: module.certs("prod"), _rotate])
def test_no_command_writes_the_stack_file_on_a_runner(command: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    for name in ("prepare", "deployed"):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("it went on"))
    with pytest.raises(SetupError, match="nothing was touched: this is a runner"):
        command()


def test_one_run_at_a_time_writes_a_stack_file(dev: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two would have one draft, and the stack file would lose what the second had not yet written."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(dev.root))
    monkeypatch.setattr(authority, "_KEY_BITS", 1024)
    held: list[bool] = []

    def noted(*_: object) -> None:
        with next(dev.root.rglob("secrets-dev.lock")).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(True)

    monkeypatch.setattr(module, "set_secrets", noted)
    settings = settings_of(stack(node("a", tls=True)))
    ensure_secrets(dev, settings)
    module.ensure_certificates(dev, settings)
    module.renew(dev, ["userPassword.a.orthanc"])
    assert held == [True, True, True]


def test_an_engine_that_hangs_is_a_message_without_the_password(dev: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], **given: str) -> None:
        assert given["input"]
        raise subprocess.TimeoutExpired(command, 60)

    monkeypatch.setenv("XDG_CACHE_HOME", str(dev.root))
    monkeypatch.setattr(subprocess, "run", hang)
    monkeypatch.setattr(module, "random_secret", lambda: "Geheim1234567")
    with pytest.raises(SetupError, match="whether dbPassword was changed is not known") as told:
        module.renew(dev, ["dbPassword"])
    assert "Geheim" not in str(told.value)
