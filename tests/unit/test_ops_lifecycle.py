"""What `make destroy` and `make up` refuse because data would go: by the state, not by the stack file."""

from __future__ import annotations

from typing import Any

import pytest

from configs.held import Held
from ops import lifecycle
from ops.setup.console import SetupError
from ops.up import refuse_removed
from tests.unit.stacks import node, settings_of, stack

PART = "urn:pulumi:dev::orthanc-stack::orthanc-stack:index:OrthancNode$docker:index/volume:Volume::"


def volume(part: str, *, protect: bool) -> dict[str, Any]:
    """A data volume as a state holds it."""
    return {"type": "docker:index/volume:Volume", "urn": f"{PART}{part}-data", "protect": protect, "outputs": {"name": f"s-{part}"}}


class Recorded:
    """A stack whose state is given, and what Pulumi was asked to do."""

    name = "dev"
    tools = type("Tools", (), {"docker": ("docker",)})

    def __init__(self, held: Held, volumes: dict[str, bool]) -> None:
        self.asked: list[tuple[str, ...]] = []
        self._held, self._volumes = held, volumes

    def held(self) -> Held:
        return self._held

    def volumes(self) -> dict[str, bool]:
        return self._volumes

    def export(self) -> dict[str, Any]:
        return {"resources": [volume("kept", protect=True), volume("free", protect=False)]}

    def run(self, *arguments: str) -> int:
        self.asked.append(arguments)
        return 0


@pytest.fixture
def destroyed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Destroys a recorded stack, and returns it."""

    def destroy(held: Held, volumes: dict[str, bool], *, yes: bool) -> Recorded:
        recorded = Recorded(held, volumes)
        monkeypatch.setattr(lifecycle, "deployed", lambda _: recorded)
        monkeypatch.setattr(lifecycle, "was_interrupted", lambda _: False)
        lifecycle.destroy("dev", yes=yes)
        return recorded

    return destroy


def test_what_is_protected_stays_whatever_the_stack_file_says(destroyed: Any) -> None:
    assert "--exclude-protected" in destroyed(Held(keeps_data=True), {"s-a": True}, yes=True).asked[0]
    assert "--exclude-protected" not in destroyed(Held(), {"s-a": False}, yes=True).asked[0]


def test_a_run_that_was_to_protect_the_data_and_did_not_end(destroyed: Any) -> None:
    with pytest.raises(SetupError, match=r"was to protect the data volumes, and did not end. `make up STACK=dev`"):
        destroyed(Held(keeps_data=True), {"s-a": True, "s-b": False}, yes=True)


def test_nobody_is_there_to_ask(destroyed: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", open("/dev/null", encoding="utf-8"))  # noqa: PTH123, SIM115
    with pytest.raises(SetupError, match="YES=1"):
        destroyed(Held(), {"s-a": False, "s-b": True}, yes=False)
    assert "that go with it: s-a\n  that stay: s-b" in capsys.readouterr().out


def test_a_protected_node_that_the_stack_file_no_longer_has() -> None:
    recorded: Any = Recorded(Held(), {})
    refuse_removed(recorded, settings_of(stack(node("kept"))))
    with pytest.raises(SetupError, match=rf"s-kept is protected[\s\S]*pulumi state unprotect '{PART.replace('$', '.')}kept-data'"):
        refuse_removed(recorded, settings_of(stack(node("free"))))
