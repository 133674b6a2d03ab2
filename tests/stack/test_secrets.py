"""No password shows where somebody else could read it."""

from __future__ import annotations

from tests.stack.conftest import Dev
from tests.stack.harness import Stack, docker


def shown_in(text: str, stack: Stack) -> list[str]:
    """The secrets, by their keys, that stand in a text in clear."""
    assert len(stack.secrets) >= 4
    return [key for key, value in stack.secrets.items() if value in text]


def test_not_in_docker_inspect(dev: Dev) -> None:
    for container in dev.stack.containers().values():
        assert shown_in(docker("inspect", container), dev.stack) == []


def test_not_in_a_containers_log(dev: Dev) -> None:
    for container in dev.stack.containers().values():
        assert shown_in(docker("logs", container), dev.stack) == []


def test_not_on_a_command_line(dev: Dev) -> None:
    for name, container in dev.stack.containers().items():
        if name != "db-roles":  # which has ended
            assert shown_in(docker("top", container, "-eo", "pid,args"), dev.stack) == []


def test_not_in_what_up_prints(dev: Dev) -> None:
    assert "created" in dev.first_up.text
    assert shown_in(dev.first_up.text, dev.stack) == []


def test_not_in_a_preview_of_a_changed_password(dev: Dev) -> None:
    with dev.stack.trying():
        dev.stack.secrets["userPassword.client.orthanc"] = "another-pw-5f1c"
        dev.stack.secrets["dbPassword.server"] = "another-pw-7a2d"
        done = dev.stack.preview(diff=True)
        assert {"client-container", "server-container", "db-roles"} <= done.replaced
        assert shown_in(done.text, dev.stack) == []
    assert shown_in(done.text, dev.stack) == []
    dev.stack.preview(expect_no_changes=True)


def test_not_in_the_state(dev: Dev) -> None:
    state = dev.stack.state()
    assert "orthanc_server" in state
    assert shown_in(state, dev.stack) == []


def test_but_the_outputs_give_them_to_who_may_decrypt_them(dev: Dev) -> None:
    assert dev.stack.outputs()["users"]["client"] == {"orthanc": dev.stack.secrets["userPassword.client.orthanc"]}
