"""The checks of tests/stack/docker_bench.py, on containers that are made up: each warns of its own fault and of nothing else."""

from __future__ import annotations

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


def host(**settings: Any) -> dict[str, Any]:
    return {"HostConfig": settings}


def bound(address: str, port: int) -> dict[str, Any]:
    return host(PortBindings={"8042/tcp": [{"HostIp": address, "HostPort": str(port)}]})


def mounted(source: str, propagation: str = "rprivate") -> dict[str, Any]:
    return {"Mounts": [{"Type": "bind", "Source": source, "Propagation": propagation}]}


#: By a check's number, the parts of a container that it warns of.
FAULTS: dict[str, list[dict[str, Any]]] = {
    "4.1": [{"Config": {"User": ""}}, {"Config": {"User": "0:0"}}],
    "5.2": [{"AppArmorProfile": "unconfined"}, {"AppArmorProfile": ""}],
    "5.4": [host(CapAdd=["CAP_CHOWN"]), host(CapDrop=None)],
    "5.5": [host(Privileged=True)],
    "5.6": [mounted("/etc"), mounted("/")],
    "5.8": [bound("127.0.0.1", 104)],
    "5.10": [host(NetworkMode="host")],
    "5.11": [host(Memory=0, MemorySwap=0), host(MemorySwap=-1)],
    "5.12": [host(CpuShares=0)],
    "5.13": [host(ReadonlyRootfs=False)],
    "5.14": [bound("0.0.0.0", 8042), bound("", 8042)],
    "5.15": [host(RestartPolicy={"Name": "always", "MaximumRetryCount": 0})],
    "5.16": [host(PidMode="host")],
    "5.17": [host(IpcMode="host")],
    "5.18": [host(Devices=[{"PathOnHost": "/dev/sda"}])],
    "5.20": [mounted("/srv", "rshared")],
    "5.21": [host(UTSMode="host")],
    "5.22": [host(SecurityOpt=["no-new-privileges:true", "seccomp=unconfined"])],
    "5.25": [host(CgroupParent="/other")],
    "5.26": [host(SecurityOpt=["label=disable"])],
    "5.27": [{"State": {"Running": True, "Health": {"Status": "unhealthy"}}}, {"State": {"Running": True}}],
    "5.29": [host(PidsLimit=None)],
    "5.30": [{"NetworkSettings": {"Networks": {"bridge": {}}}}],
    "5.31": [host(UsernsMode="host")],
    "5.32": [mounted("/var/run/docker.sock")],
    "log": [host(LogConfig={"Config": {}})],
}


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine with AppArmor; no container runs a server of SSH."""
    said = {"info": "[name=apparmor name=seccomp,profile=default]", "top": "PID COMMAND\n1 Orthanc\n"}
    monkeypatch.setattr(docker_bench, "docker", lambda command, *_: said[command])


def warned(container: dict[str, Any]) -> set[str]:
    return {number for number, check in CHECKS.items() if check(container)}


def test_nothing_is_wrong_with_a_good_one() -> None:
    assert warned(GOOD) == set()


@pytest.mark.parametrize(("number", "otherwise"), [(number, each) for number, faults in FAULTS.items() for each in faults])
def test_a_fault_is_found_by_its_check_alone(number: str, otherwise: dict[str, Any]) -> None:
    more = {"HostConfig": GOOD["HostConfig"] | otherwise["HostConfig"]} if "HostConfig" in otherwise else otherwise
    assert warned(GOOD | more) == {number}


def test_no_security_option_at_all_is_two_faults() -> None:
    assert warned(GOOD | {"HostConfig": GOOD["HostConfig"] | {"SecurityOpt": None}}) == {"5.3", "5.26"}


def test_a_server_of_ssh_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_bench, "docker", lambda command, *_: "name=apparmor" if command == "info" else "7 /usr/sbin/sshd -D\n")
    assert warned(GOOD) == {"5.7"}


def test_each_check_has_a_fault_here() -> None:
    assert {*FAULTS, "5.3", "5.7"} == CHECKS.keys()


def test_the_documented_exceptions_are_of_checks_and_of_roles() -> None:
    exceptions = documented()
    assert exceptions
    assert exceptions.keys() <= CHECKS.keys()
    assert set().union(*exceptions.values()) <= {"adminer", "db", "db-roles", "forwarder", "node"}
