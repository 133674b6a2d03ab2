"""What `make destroy` and `make up` refuse because data would go: by the state, not by the stack file."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from configs.held import Held
from ops import lifecycle
from ops.setup.console import SetupError
from ops.up import refuse_removed
from tests.unit.stacks import node, settings_of, stack

PART = "urn:pulumi:dev::orthanc-stack::orthanc-stack:index:OrthancNode$docker:index/volume:Volume::"
PROTECTING = Held(keeps_data=True)


def volume(part: str, *, protect: bool) -> dict[str, Any]:
    """A data volume as a state holds it."""
    return {"type": "docker:index/volume:Volume", "urn": f"{PART}{part}-data", "protect": protect, "outputs": {"name": f"s-{part}"}}


def destroy(monkeypatch: pytest.MonkeyPatch, held: Held, volumes: dict[str, bool], *, yes: bool = True) -> list[str]:
    """What Pulumi is asked to do about a stack with that state."""
    asked: list[str] = []

    def run(*arguments: str) -> int:
        asked.extend(arguments)
        return 0

    recorded = SimpleNamespace(name="dev", tools=SimpleNamespace(docker=()), held=lambda: held, volumes=lambda: volumes, run=run)
    monkeypatch.setattr(lifecycle, "deployed", lambda _: recorded)
    monkeypatch.setattr(lifecycle, "was_interrupted", lambda _: False)
    lifecycle.destroy("dev", yes=yes)
    return asked


def test_what_is_protected_stays_whatever_the_stack_file_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--exclude-protected" in destroy(monkeypatch, PROTECTING, {"s-a": True})
    assert "--exclude-protected" not in destroy(monkeypatch, Held(), {"s-a": False})


def test_a_run_that_was_to_protect_the_data_and_did_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SetupError, match=r"was to protect the data volumes, and did not end. `make up STACK=dev`"):
        destroy(monkeypatch, PROTECTING, {"s-a": True, "s-b": False})


def test_nobody_is_there_to_ask(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False))
    with pytest.raises(SetupError, match="YES=1"):
        destroy(monkeypatch, Held(), {"s-a": False, "s-b": True}, yes=False)
    assert "that go with it: s-a\n  that stay: s-b" in capsys.readouterr().out


def test_a_protected_node_that_the_stack_file_no_longer_has() -> None:
    volumes = [volume("kept", protect=True), volume("free", protect=False)]
    recorded: Any = SimpleNamespace(name="dev", export=lambda: {"resources": volumes})
    refuse_removed(recorded, settings_of(stack(node("kept"))))
    with pytest.raises(SetupError, match=rf"s-kept is protected[\s\S]*pulumi state unprotect '{PART.replace('$', '.')}kept-data'"):
        refuse_removed(recorded, settings_of(stack(node("free"))))
