"""What a container may do on its machine, against what it was made from. Nothing of it changes while a container lives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ops.drift.deployed import labels_of


def differing(inputs: Mapping[str, Any], held: Mapping[str, Any]) -> list[str]:
    """The names of what differs; no values, since a label may hold anything."""
    host, config = held["HostConfig"], held["Config"]
    capabilities = inputs.get("capabilities") or {}
    ulimits = {(one["name"], int(one.get("soft") or 0), int(one.get("hard") or 0)) for one in inputs.get("ulimits") or ()}
    labels = labels_of(inputs)
    compared: dict[str, tuple[Any, Any]] = {
        "capabilities": (
            (_capabilities(capabilities.get("adds")), _capabilities(capabilities.get("drops"))),
            (_capabilities(host.get("CapAdd")), _capabilities(host.get("CapDrop"))),
        ),
        "privileged": (bool(inputs.get("privileged")), bool(host.get("Privileged"))),
        "security options": (set(inputs.get("securityOpts") or ()), set(host.get("SecurityOpt") or ())),
        "a root that is read-only": (bool(inputs.get("readOnly")), bool(host.get("ReadonlyRootfs"))),
        "tmpfs": (inputs.get("tmpfs") or {}, host.get("Tmpfs") or {}),
        "limits of its processes": (ulimits, {(one["Name"], one["Soft"], one["Hard"]) for one in host.get("Ulimits") or ()}),
        "names in /etc/hosts": ({f"{one['host']}:{one['ip']}" for one in inputs.get("hosts") or ()}, set(host.get("ExtraHosts") or ())),
        "the host's namespaces": (set(), _hosts_namespaces(host)),
        "devices": (0, len(host.get("Devices") or ())),
        "log": (
            (inputs.get("logDriver"), inputs.get("logOpts") or {}),
            ((host.get("LogConfig") or {}).get("Type"), (host.get("LogConfig") or {}).get("Config") or {}),
        ),
        "health check": (
            list((inputs.get("healthcheck") or {}).get("tests") or ()),
            list((config.get("Healthcheck") or {}).get("Test") or ()),
        ),
        "host name": (inputs.get("hostname"), config.get("Hostname")),
        "labels": (labels, {key: value for key, value in (config.get("Labels") or {}).items() if key in labels}),
    }
    return [name for name, (wanted, found) in sorted(compared.items()) if wanted != found]


def _capabilities(named: Any) -> set[str]:
    """Engines and people write them with and without their prefix."""
    return {str(one).upper().removeprefix("CAP_") for one in named or ()}


def _hosts_namespaces(host: Mapping[str, Any]) -> set[str]:
    return {key for key in ("NetworkMode", "PidMode", "IpcMode", "UTSMode", "UsernsMode") if host.get(key) == "host"}
