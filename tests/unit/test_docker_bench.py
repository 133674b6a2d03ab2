"""The checks of tests/stack/docker_bench.py, on containers that are made up: each warns of its own fault and of nothing else."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.stack import docker_bench
from tests.stack.docker_bench import CHECKS, documented

GOOD: dict[str, Any] = {
    "Id": "abc",
    "AppArmorProfile": "docker-default",
    "Config": {"User": "999:999"},
    "State": {"Running": True, "Health": {"Status": "healthy"}},
    "Mounts": [{"Type": "volume", "Source": "/var/lib/docker/volumes/x/_data", "Propagation": ""}],
    "NetworkSettings": {"Networks": {"orthanc-stack-x-node.a": {}}},
    "HostConfig": {
        "CapAdd": None,
        "CapDrop": ["ALL"],
        "CgroupParent": "",
        "CpuShares": 512,
        "Devices": None,
        "IpcMode": "private",
        "LogConfig": {"Config": {"max-file": "3", "max-size": "10m"}},
        "Memory": 1 << 28,
        "MemorySwap": 1 << 28,
        "NanoCpus": 0,
        "NetworkMode": "bridge",
        "PidMode": "",
        "PidsLimit": 100,
        "PortBindings": {"8042/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8042"}]},
        "Privileged": False,
        "ReadonlyRootfs": True,
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 5},
        "SecurityOpt": ["no-new-privileges:true"],
        "UTSMode": "",
        "UsernsMode": "",
    },
}


def bound(address: str, port: int) -> dict[str, Any]:
    return {"PortBindings": {"8042/tcp": [{"HostIp": address, "HostPort": str(port)}]}}


def mounted(source: str, propagation: str = "rprivate") -> dict[str, Any]:
    return {"Mounts": [{"Type": "bind", "Source": source, "Propagation": propagation}]}


#: A check's number, the part of the container that is otherwise.
FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("4.1", {"Config": {"User": ""}}),
    ("4.1", {"Config": {"User": "0:0"}}),
    ("5.2", {"AppArmorProfile": "unconfined"}),
    ("5.2", {"AppArmorProfile": ""}),
    ("5.4", {"HostConfig": {"CapAdd": ["CAP_CHOWN"]}}),
    ("5.4", {"HostConfig": {"CapDrop": None}}),
    ("5.5", {"HostConfig": {"Privileged": True}}),
    ("5.6", mounted("/etc")),
    ("5.6", mounted("/")),
    ("5.8", {"HostConfig": bound("127.0.0.1", 104)}),
    ("5.10", {"HostConfig": {"NetworkMode": "host"}}),
    ("5.11", {"HostConfig": {"Memory": 0, "MemorySwap": 0}}),
    ("5.11", {"HostConfig": {"MemorySwap": -1}}),
    ("5.12", {"HostConfig": {"CpuShares": 0}}),
    ("5.13", {"HostConfig": {"ReadonlyRootfs": False}}),
    ("5.14", {"HostConfig": bound("0.0.0.0", 8042)}),
    ("5.14", {"HostConfig": bound("", 8042)}),
    ("5.15", {"HostConfig": {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 0}}}),
    ("5.16", {"HostConfig": {"PidMode": "host"}}),
    ("5.17", {"HostConfig": {"IpcMode": "host"}}),
    ("5.18", {"HostConfig": {"Devices": [{"PathOnHost": "/dev/sda"}]}}),
    ("5.20", mounted("/srv", "rshared")),
    ("5.21", {"HostConfig": {"UTSMode": "host"}}),
    ("5.22", {"HostConfig": {"SecurityOpt": ["no-new-privileges:true", "seccomp=unconfined"]}}),
    ("5.25", {"HostConfig": {"CgroupParent": "/other"}}),
    ("5.26", {"HostConfig": {"SecurityOpt": ["label=disable"]}}),
    ("5.27", {"State": {"Running": True, "Health": {"Status": "unhealthy"}}}),
    ("5.27", {"State": {"Running": True}}),
    ("5.29", {"HostConfig": {"PidsLimit": None}}),
    ("5.30", {"NetworkSettings": {"Networks": {"bridge": {}}}}),
    ("5.31", {"HostConfig": {"UsernsMode": "host"}}),
    ("5.32", mounted("/var/run/docker.sock")),
    ("log", {"HostConfig": {"LogConfig": {"Config": {}}}}),
]


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine with AppArmor; no container runs a server of SSH."""
    said = {"info": "[name=apparmor name=seccomp,profile=default]", "top": "PID COMMAND\n1 Orthanc\n"}
    monkeypatch.setattr(docker_bench, "docker", lambda command, *_: said[command])


def warned(container: dict[str, Any]) -> set[str]:
    return {number for number, check in CHECKS.items() if check(container)}


def test_nothing_is_wrong_with_a_good_one() -> None:
    assert warned(GOOD) == set()


@pytest.mark.parametrize(("number", "otherwise"), FAULTS)
def test_a_fault_is_found_by_its_check_alone(number: str, otherwise: dict[str, Any]) -> None:
    container = copy.deepcopy(GOOD)
    for key, value in otherwise.items():
        container[key] = container[key] | value if key == "HostConfig" else value
    assert warned(container) == {number}


def test_no_security_option_at_all_is_two_faults() -> None:
    assert warned(GOOD | {"HostConfig": GOOD["HostConfig"] | {"SecurityOpt": None}}) == {"5.3", "5.26"}


def test_a_server_of_ssh_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_bench, "docker", lambda command, *_: "name=apparmor" if command == "info" else "7 /usr/sbin/sshd -D\n")
    assert warned(GOOD) == {"5.7"}


def test_each_check_has_a_fault_here() -> None:
    assert {number for number, _ in FAULTS} | {"5.3", "5.7"} == CHECKS.keys()


def test_the_documented_exceptions_are_of_checks_and_of_roles() -> None:
    exceptions = documented()
    assert exceptions
    assert exceptions.keys() <= CHECKS.keys()
    assert set().union(*exceptions.values()) <= {"adminer", "db", "db-roles", "forwarder", "node"}
