"""No password shows where somebody else could read it."""

from __future__ import annotations

from tests.stack.conftest import Dev
from tests.stack.harness import Stack, docker


def shown_in(text: str, stack: Stack) -> list[str]:
    """The secrets, by their keys, that stand in a text in clear."""
    assert {"dbPassword", "dbPassword.server", "userPassword.client.orthanc", "forwarderPassword.client"} <= stack.secrets.keys()
    return [key for key, value in stack.secrets.items() if value in text]


def test_not_in_docker_inspect(dev: Dev) -> None:
    for container in dev.stack.containers().values():
        assert shown_in(docker("inspect", container), dev.stack) == []


def test_not_in_a_containers_log(dev: Dev) -> None:
    for container in dev.stack.containers().values():
        assert shown_in(docker("logs", container), dev.stack) == []


def test_not_in_a_containers_environment(dev: Dev) -> None:
    """In that of its first process; what a health check or `docker exec` gets is in `docker inspect`."""
    for name, container in dev.stack.containers().items():
        if name != "db-roles":  # which has ended
            environment = docker("exec", "--user", _user_of(container), container, "cat", "/proc/1/environ")
            assert "PATH=" in environment
            assert shown_in(environment, dev.stack) == []


def _user_of(container: str) -> str:
    """The number of the user of a container's first process: root without capabilities may not read another's environment."""
    return docker("exec", container, "stat", "-c", "%u", "/proc/1")


def test_a_forwarders_password_is_in_files_of_it_and_its_node_alone(dev: Dev) -> None:
    """In /tmp the node's image puts the file that it merges for Orthanc, for its user alone."""
    password = dev.stack.secrets["forwarderPassword.client"]
    found = {name: files for name in dev.stack.containers() if name != "db-roles" and (files := _files_with(password, dev.stack, name))}
    assert found == {"client": {"/run/secrets/orthanc.json", "/tmp/orthanc.json"}, "client-forwarder": {"/run/secrets/forwarder.json"}}
    modes = {(name, docker("exec", f"{dev.stack.prefix}-{name}", "stat", "-c", "%a", file)) for name in found for file in found[name]}
    assert modes == {("client", "400"), ("client", "600"), ("client-forwarder", "444")}


def _files_with(text: str, stack: Stack, name: str) -> set[str]:
    """The files in a container that hold a text, where the image, the deployment or a program may have written it."""
    folders = ("/etc", "/home", "/root", "/run", "/tmp", "/usr/local", "/var")
    return set(docker("exec", "--user", "0", f"{stack.prefix}-{name}", "grep", "-rlsF", text, *folders, check=False).split())


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
        dev.stack.secrets["forwarderPassword.client"] = "another-pw-9b3e"
        done = dev.stack.preview(diff=True)
        assert {"client-container", "client-forwarder-container", "server-container", "db-roles"} <= done.replaced
        assert shown_in(done.text, dev.stack) == []
    assert shown_in(done.text, dev.stack) == []
    dev.stack.preview(expect_no_changes=True)


def test_not_in_the_state(dev: Dev) -> None:
    state = dev.stack.state()
    assert "orthanc_server" in state
    assert shown_in(state, dev.stack) == []


def test_but_the_outputs_give_them_to_who_may_decrypt_them(dev: Dev) -> None:
    wanted = {user: dev.stack.secrets[f"userPassword.client.{user}"] for user in ("bringer", "looker", "orthanc")}
    assert dev.stack.outputs()["users"]["client"] == wanted
