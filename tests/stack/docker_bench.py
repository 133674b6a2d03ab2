"""The checks of containers that docker-bench-security makes, with the numbers of the CIS Docker Benchmark 1.6, on what the engine shows.

Each says whether a container is to be warned of. Those of docker-bench that ask a person (5.1 Swarm, 5.9, 5.19, 5.28) or read the
engine's log (5.23, 5.24) are not here; 5.9 is test_ports_from_outside.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tests.stack.engine import docker

_PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "containers.md"

#: Where a container must not look into the machine: "" is its root.
_SENSITIVE: Final = ("", "/boot", "/dev", "/etc", "/lib", "/proc", "/sys", "/usr")

Check = Callable[[Mapping[str, Any]], bool]


def _host(container: Mapping[str, Any]) -> Mapping[str, Any]:
    config: Mapping[str, Any] = container["HostConfig"]
    return config


def _bindings(container: Mapping[str, Any]) -> list[Mapping[str, str]]:
    return [binding for bound in (_host(container)["PortBindings"] or {}).values() for binding in bound or ()]


def _no_apparmor(container: Mapping[str, Any]) -> bool:
    """docker-bench warns where the kernel has none, too; the benchmark says "if applicable"."""
    has_it = "name=apparmor" in docker("info", "--format", "{{.SecurityOptions}}")
    return container["AppArmorProfile"] == "unconfined" or (has_it and not container["AppArmorProfile"])


def _runs_sshd(container: Mapping[str, Any]) -> bool:
    return container["State"]["Running"] and bool(re.search(r"\bsshd\b", docker("top", container["Id"], "-eo", "pid,args")))


def _sensitive_mounts(container: Mapping[str, Any]) -> bool:
    return any(mount["Type"] == "bind" and mount["Source"].rstrip("/") in _SENSITIVE for mount in container["Mounts"])


def _opts(container: Mapping[str, Any]) -> list[str]:
    return list(_host(container)["SecurityOpt"] or ())


CHECKS: Final[Mapping[str, Check]] = {
    "4.1": lambda c: c["Config"]["User"].partition(":")[0] in ("", "root", "0"),
    "5.2": _no_apparmor,
    "5.3": lambda c: not _opts(c),
    "5.4": lambda c: bool(_host(c)["CapAdd"]) or _host(c)["CapDrop"] != ["ALL"],
    "5.5": lambda c: _host(c)["Privileged"],
    "5.6": _sensitive_mounts,
    "5.7": _runs_sshd,
    "5.8": lambda c: any(int(binding["HostPort"]) < 1024 for binding in _bindings(c)),
    "5.10": lambda c: _host(c)["NetworkMode"] == "host",
    "5.11": lambda c: not _host(c)["Memory"] or _host(c)["MemorySwap"] != _host(c)["Memory"],
    "5.12": lambda c: not _host(c)["CpuShares"] and not _host(c)["NanoCpus"],
    "5.13": lambda c: not _host(c)["ReadonlyRootfs"],
    "5.14": lambda c: any(binding["HostIp"] in ("", "0.0.0.0", "::") for binding in _bindings(c)),
    "5.15": lambda c: (_host(c)["RestartPolicy"]["Name"], _host(c)["RestartPolicy"]["MaximumRetryCount"]) != ("on-failure", 5),
    "5.16": lambda c: _host(c)["PidMode"] == "host",
    "5.17": lambda c: _host(c)["IpcMode"] == "host",
    "5.18": lambda c: bool(_host(c)["Devices"]),
    "5.20": lambda c: any(mount.get("Propagation") in ("shared", "rshared") for mount in c["Mounts"]),
    "5.21": lambda c: _host(c)["UTSMode"] == "host",
    "5.22": lambda c: any("seccomp" in opt and "unconfined" in opt for opt in _opts(c)),
    "5.25": lambda c: bool(_host(c)["CgroupParent"]),
    "5.26": lambda c: not {"no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"} & set(_opts(c)),
    "5.27": lambda c: (c["State"].get("Health") or {}).get("Status") != "healthy",
    "5.29": lambda c: (_host(c)["PidsLimit"] or 0) <= 0,
    "5.30": lambda c: "bridge" in c["NetworkSettings"]["Networks"],
    "5.31": lambda c: _host(c)["UsernsMode"] == "host",
    "5.32": lambda c: any("docker.sock" in mount["Source"] for mount in c["Mounts"]),
    # Not docker-bench's: a log without rotation fills the host's disk.
    "log": lambda c: not {"max-file", "max-size"} <= (_host(c)["LogConfig"]["Config"] or {}).keys(),
}


def inspect(containers: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What the engine shows of containers, by the names that they are given by."""
    return dict(zip(containers, json.loads(docker("inspect", *containers.values())), strict=True))


def documented() -> dict[str, set[str]]:
    """The roles that docs/containers.md says a check warns of, by the check's number."""
    rows = re.findall(r"^\| ([0-9.]+|log) \| ([^|]+) \|", _PAGE.read_text(encoding="utf-8").partition("## Exceptions")[2], re.MULTILINE)
    return {number: {role.strip() for role in roles.split(",")} for number, roles in rows}
