"""Secrets: random, only where they are missing, all or none, and on no command line."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from ops.prepare import Tools
from ops.secrets import missing_keys, random_secret, set_secrets
from ops.setup.console import SetupError
from ops.setup.state import State
from ops.stack import Stack

#: Stands in for pulumi: writes its arguments and its standard input beside itself, and the key into the configuration file.
FAKE_PULUMI = """#!{python}
import sys
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
def stack(tmp_path: Path) -> Stack:
    pulumi = tmp_path / "pulumi"
    pulumi.write_text(FAKE_PULUMI.format(python=sys.executable))
    pulumi.chmod(0o755)
    (tmp_path / "Pulumi.dev.yaml").write_text("config:\n")
    return Stack("dev", Tools(pulumi, State("file:///nowhere", ""), ("docker",)), tmp_path)


def test_a_secret_is_long_safe_and_never_a_number() -> None:
    drawn = {random_secret() for _ in range(200)}
    assert len(drawn) == 200
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9]{31}", secret) for secret in drawn)


def test_only_what_is_not_set_is_missing() -> None:
    config = {"orthanc-stack:dbPassword": {"secure": "v1:x"}, "other:userPassword.a.b": "x", "orthanc-stack:dbPassword.x": "clear"}
    assert missing_keys(["dbPassword", "dbPassword.x", "userPassword.a.b"], config) == ["userPassword.a.b"]


def test_secrets_are_set_by_standard_input_and_stand_on_no_command_line(stack: Stack) -> None:
    set_secrets(stack, {"dbPassword": "first", "userPassword.a.b": "second"}, stack.root / "Pulumi.dev.yaml")
    calls = (stack.root / "calls").read_text()
    assert re.findall(r"^config set --secret (\S+)", calls, re.MULTILINE) == ["orthanc-stack:dbPassword", "orthanc-stack:userPassword.a.b"]
    assert (stack.root / "values").read_text().split() == ["first", "second"]
    assert "first" not in calls
    assert "second" not in calls
    assert (stack.root / "Pulumi.dev.yaml").read_text().count("secure:") == 2


def test_when_one_cannot_be_set_the_stack_file_is_as_before(stack: Stack) -> None:
    with pytest.raises(SetupError, match="refused"):
        set_secrets(stack, {"dbPassword": "first", "refused": "second"}, stack.root / "Pulumi.dev.yaml")
    assert (stack.root / "Pulumi.dev.yaml").read_text() == "config:\n"
    assert not list(stack.root.glob(".Pulumi*"))
