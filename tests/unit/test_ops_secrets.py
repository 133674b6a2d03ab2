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
value = sys.stdin.read()
with (here / "calls").open("a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
with (here / "values").open("a") as values:
    values.write(value + "\\n")
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
    calls, values = (stack.root / "calls").read_text(), (stack.root / "values").read_text().split()
    assert [line.split()[:4] for line in calls.splitlines()] == [
        ["config", "set", "--secret", "orthanc-stack:dbPassword"],
        ["config", "set", "--secret", "orthanc-stack:userPassword.a.b"],
    ]
    assert values == ["first", "second"]
    assert all(value not in calls for value in values)
    assert (stack.root / "Pulumi.dev.yaml").read_text().count("secure:") == 2


def test_when_one_cannot_be_set_the_stack_file_is_as_before(stack: Stack) -> None:
    with pytest.raises(SetupError, match="refused"):
        set_secrets(stack, {"dbPassword": "first", "refused": "second"}, stack.root / "Pulumi.dev.yaml")
    assert (stack.root / "Pulumi.dev.yaml").read_text() == "config:\n"
    assert not list(stack.root.glob(".Pulumi*"))
