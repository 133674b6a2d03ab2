"""What `destroy` removes, keeps and asks, and what `up` refuses to remove."""

from types import SimpleNamespace
from typing import Any

import pytest

from configs.held import VOLUME, Held
from ops.setup.console import SetupError
from ops.stack import lifecycle
from ops.stack.engine import Container
from ops.stack.up import refuse_removed
from tests.unit.containers import PREFIX, container
from tests.unit.stacks import node, settings_of, stack

PART = "urn:pulumi:dev::orthanc-stack::orthanc-stack:index:OrthancNode$docker:index/volume:Volume::"
PROTECTING = Held(keeps_data=True)


def volume(part: str, *, protect: bool) -> dict[str, Any]:
    """A data volume as a state holds it."""
    return {"type": VOLUME, "urn": f"{PART}{part}-data", "protect": protect, "outputs": {"name": f"s-{part}"}}


def destroy(
    monkeypatch: pytest.MonkeyPatch, held: Held, volumes: dict[str, bool], *, yes: bool = True, others: tuple[Container, ...] = ()
) -> list[str]:
    """What Pulumi is asked to do about a stack with that state."""
    asked: list[str] = []

    def run(*arguments: str) -> int:
        asked.extend(arguments)
        return 0

    recorded = SimpleNamespace(name="dev", short="dev", prefix=PREFIX, pending=[], held=lambda: held, volumes=lambda: volumes, run=run)
    monkeypatch.setattr(lifecycle, "deployed", lambda _: recorded)
    monkeypatch.setattr(lifecycle, "list_containers", lambda _: list(others))
    lifecycle.destroy("dev", yes=yes)
    return asked


def test_what_is_protected_stays_whatever_the_stack_file_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--exclude-protected" in destroy(monkeypatch, PROTECTING, {"s-a": True})
    assert "--exclude-protected" not in destroy(monkeypatch, Held(), {"s-a": False})


def test_a_run_that_was_to_protect_the_data_and_did_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SetupError, match=r"was to protect the data volumes, and did not end. `./orthanc-stack up dev`"):
        destroy(monkeypatch, PROTECTING, {"s-a": True, "s-b": False})


def test_nobody_is_there_to_ask(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False))
    with pytest.raises(SetupError, match=r"\./orthanc-stack destroy dev --yes"):
        destroy(monkeypatch, Held(), {"s-a": False, "s-b": True}, yes=False)
    assert "that go with it: s-a\n  that stay: s-b" in capsys.readouterr().out


def test_a_second_states_destroy_says_that_the_first_ones_stack_stays(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    destroy(monkeypatch, Held(), {}, others=(container("server", "node"),))
    assert f"made a stack of the same name, which was not touched: {PREFIX}-server" in capsys.readouterr().err


def test_a_protected_node_that_the_stack_file_no_longer_has() -> None:
    recorded: Any = SimpleNamespace(name="dev", resources=[volume("kept", protect=True), volume("free", protect=False)])
    refuse_removed(recorded, settings_of(stack(node("kept"))))
    with pytest.raises(SetupError, match=rf"s-kept is protected[\s\S]*pulumi state unprotect '{PART.replace('$', '.')}kept-data'"):
        refuse_removed(recorded, settings_of(stack(node("free"))))
