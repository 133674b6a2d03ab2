"""What the commands say: outputs without passwords unless they are asked for, and what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from dev.lint import shell_scripts
from ops.cli import COMMANDS
from ops.setup.console import ROOT
from ops.setup.prepare import exports
from ops.stack.outputs import MASK, outputs_json
from ops.stack.up import summary


def test_scripts_are_known_by_name_or_first_line(tmp_path: Path) -> None:
    files = {"a.sh": "", "run": "#!/bin/sh -eu\n", "b": "#!/usr/bin/env bash\n", "c": "#!/usr/bin/env python3\n", "d": "", "e.md": "sh\n"}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert shell_scripts(tmp_path, [*files, "deleted.sh"]) == ["a.sh", "run", "b"]


def _ops(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ops", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_command_is_a_target_and_listed() -> None:
    targets = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("COMMANDS :="))
    assert targets.split()[2:] == ["help", *COMMANDS]
    shown = _ops("help").stdout
    assert all(f"make {command}" in shown for command in COMMANDS)


def test_an_unknown_command_is_refused_with_the_known_ones() -> None:
    done = _ops("upp")
    assert done.returncode == 2
    assert "'upp'" in done.stderr
    assert "preview" in done.stderr
    assert "Traceback" not in done.stderr


OUTPUTS = {
    "users": {"server": {"orthanc": "Geheim123"}, "client": {"orthanc": "Anders456", "viewer": "Noch789"}},
    "nodes": {"server": {"aet": "SERVER", "httpUrl": "http://127.0.0.1:8042", "dicomHost": "127.0.0.1", "dicomPort": 4242}},
    "adminerUrl": "http://127.0.0.1:8080",
    "indexDb": None,
    "images": {"source": "local", "orthanc": "orthanc-stack/orthanc:local-1", "postgres": None, "adminer": "a:1"},
}


def shown(outputs: dict[str, Any] = OUTPUTS, *, show_secrets: bool = False) -> dict[str, Any]:
    """The outputs as a program reads them."""
    return dict(json.loads(outputs_json(outputs, show_secrets=show_secrets)))


def test_passwords_are_masked_and_their_owners_named_until_they_are_asked_for() -> None:
    assert shown() == OUTPUTS | {"users": {"server": {"orthanc": MASK}, "client": {"orthanc": MASK, "viewer": MASK}}}
    assert shown(show_secrets=True) == OUTPUTS
    # What Pulumi masked stays masked.
    assert shown({"users": "[secret]"})["users"] == "[secret]"


def test_the_order_of_keys_is_stable() -> None:
    backwards = dict(reversed(OUTPUTS.items()))
    assert outputs_json(OUTPUTS, show_secrets=True) == outputs_json(backwards, show_secrets=True)
    assert list(shown()) == sorted(OUTPUTS)


def test_the_summary_says_where_the_stack_is_found_and_no_password() -> None:
    text = summary(OUTPUTS, "dev")
    for wanted in ("http://127.0.0.1:8042", "SERVER", "127.0.0.1:4242", "http://127.0.0.1:8080", "SHOW_SECRETS=1"):
        assert wanted in text
    assert "built here from Debian's packages: orthanc-stack/orthanc:local-1, a:1" in text
    assert "Geheim123" not in text
    server = {"aet": "SERVER", "httpUrl": "http://[fd00::7]:8042", "dicomHost": "fd00::7", "dicomPort": 4242}
    assert " [fd00::7]:4242" in summary({"nodes": {"server": server}}, "dev")


def test_the_users_shell_gets_what_changed_and_the_stack() -> None:
    before = {"PATH": "/bin", "HOME": "/h"}
    after = {"PATH": "/tools:/bin", "HOME": "/h", "PULUMI_BACKEND_URL": "file:///s"}
    changed = [("PATH", "/tools:/bin"), ("PULUMI_BACKEND_URL", "file:///s"), ("PULUMI_STACK", "prod")]
    assert exports(before, after, "prod") == changed
