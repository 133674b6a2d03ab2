"""The same topology for docker compose: the file, made from what the program asks of Docker, and the command that runs it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from bench.pulumi_stack import PulumiStack
from bench.session import PREFIX, BenchError, run
from ops.setup.console import ROOT, cache_dir

#: In Debian's package docker-compose.
_PLUGIN: Final = "usr/libexec/docker/cli-plugins/docker-compose"
_CACHED: Final = "docker-compose-debian"


def render(resources: Sequence[Mapping[str, Any]], project: str) -> dict[str, Any]:
    """A compose file of what the program registers.

    Files become `configs` with their content in them, which compose, like the provider, copies into the container before it starts.

    Args:
        resources: as bench.record prints them.
        project: compose's project name.
    """
    by_name = {resource["name"]: resource for resource in resources}
    containers = [resource for resource in resources if resource["type"] == "Container"]
    service_of = {resource["name"]: str(resource["inputs"]["hostname"]) for resource in containers}
    configs: dict[str, Any] = {}
    services = {
        service_of[container["name"]]: _service(container["inputs"], configs)
        | _depends_on([service_of[name] for name in container["dependencies"] if name in service_of], by_name, service_of)
        for container in containers
    }
    return {
        "name": project,
        "services": services,
        "networks": {_one(r)["name"]: _network(r) for r in resources if r["type"] == "Network"},
        "volumes": {_one(r)["name"]: _named(r) for r in resources if r["type"] == "Volume"},
        "configs": configs,
    }


def _one(resource: Mapping[str, Any]) -> Mapping[str, Any]:
    inputs: Mapping[str, Any] = resource["inputs"]
    return inputs


def _named(resource: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": resource["inputs"]["name"], "labels": _labels(resource["inputs"])}


def _network(resource: Mapping[str, Any]) -> dict[str, Any]:
    inputs = _one(resource)
    options = {"driver_opts": inputs["options"]} if inputs.get("options") else {}
    return _named(resource) | {"driver": inputs["driver"], "internal": inputs["internal"]} | options


def _labels(inputs: Mapping[str, Any]) -> dict[str, str]:
    return {label["label"]: label["value"] for label in inputs.get("labels") or ()}


#: What _service() translates; anything else in a container's inputs stops the bench, so that nothing is left out in silence.
_TRANSLATED: Final = (
    "capabilities",
    "command",
    "cpuPeriod",
    "cpuQuota",
    "cpuShares",
    "destroyGraceSeconds",
    "entrypoints",
    "envs",
    "healthcheck",
    "hostname",
    "hosts",
    "image",
    "labels",
)
_TRANSLATED_TOO: Final = (
    "logDriver",
    "logOpts",
    "memory",
    "memorySwap",
    "name",
    "networksAdvanced",
    "ports",
    "readOnly",
    "restart",
    "securityOpts",
    "shmSize",
    "tmpfs",
    "uploads",
    "user",
    "volumes",
)
#: How the provider itself waits and removes: `--wait`, depends_on and `down --volumes` here.
_OF_THE_PROVIDER: Final = ("attach", "mustRun", "removeVolumes", "wait", "waitTimeout")
_KNOWN: Final = frozenset((*_TRANSLATED, *_TRANSLATED_TOO, *_OF_THE_PROVIDER))


def _service(inputs: Mapping[str, Any], configs: dict[str, Any]) -> dict[str, Any]:
    if unknown := {key for key, value in inputs.items() if value is not None} - _KNOWN:
        raise BenchError(f"the program says {sorted(unknown)} of a container, which bench/compose.py does not translate")
    capabilities = inputs.get("capabilities") or {}
    service: dict[str, Any] = {
        "image": inputs["image"],
        "pull_policy": "never",
        "container_name": inputs["name"],
        "hostname": inputs["hostname"],
        "entrypoint": inputs.get("entrypoints"),
        "command": _escaped(inputs.get("command")),
        "environment": _escaped(inputs.get("envs")),
        "networks": {n["name"]: {"aliases": n["aliases"]} for n in inputs["networksAdvanced"]},
        "ports": [f"{p['ip']}:{p['external']}:{p['internal']}/{p['protocol']}" for p in inputs.get("ports") or ()],
        "volumes": [f"{v['volumeName']}:{v['containerPath']}" for v in inputs.get("volumes") or ()],
        "extra_hosts": [f"{h['host']}:{h['ip']}" for h in inputs.get("hosts") or ()],
        "cap_add": [name.removeprefix("CAP_") for name in capabilities.get("adds") or ()],
        "cap_drop": capabilities.get("drops") or [],
        "user": inputs.get("user"),
        "read_only": inputs["readOnly"] or None,
        "tmpfs": [f"{path}:{options}" for path, options in (inputs.get("tmpfs") or {}).items()],
        "security_opt": inputs["securityOpts"],
        "mem_limit": f"{inputs['memory']}m",
        "memswap_limit": f"{inputs['memorySwap']}m",
        "shm_size": f"{inputs['shmSize']}m" if inputs.get("shmSize") else None,
        "cpu_shares": inputs["cpuShares"],
        "cpu_period": inputs.get("cpuPeriod"),
        "cpu_quota": inputs.get("cpuQuota"),
        "labels": _labels(inputs),
        "logging": {"driver": inputs["logDriver"], "options": inputs["logOpts"]},
        "restart": inputs["restart"],
        "stop_grace_period": f"{inputs['destroyGraceSeconds']}s",
        "configs": [_config(inputs["hostname"], file, configs) for file in inputs.get("uploads") or ()],
    }
    if check := inputs.get("healthcheck"):
        service["healthcheck"] = {
            "test": _escaped(check["tests"]),
            "interval": check["interval"],
            "timeout": check["timeout"],
            "start_period": check["startPeriod"],
            "retries": check["retries"],
        }
    return {key: value for key, value in service.items() if value not in (None, [], {})}


def _config(service: str, file: Mapping[str, Any], configs: dict[str, Any]) -> dict[str, Any]:
    name = re.sub(r"[^a-z0-9]+", "-", f"{service}{file['file']}".lower())
    configs[name] = {"content": _escape(str(file["content"]))}
    return {"source": name, "target": file["file"], "mode": int(str(file["permissions"]), 8)}


def _escape(text: str) -> str:
    """compose replaces $NAME."""
    return text.replace("$", "$$")


def _escaped(texts: Sequence[str] | None) -> list[str] | None:
    return None if texts is None else [_escape(text) for text in texts]


def _depends_on(services: Sequence[str], by_name: Mapping[str, Any], service_of: Mapping[str, str]) -> dict[str, Any]:
    once = {service for name, service in service_of.items() if not by_name[name]["inputs"].get("healthcheck")}
    conditions = {
        service: {"condition": "service_completed_successfully" if service in once else "service_healthy"} for service in sorted(services)
    }
    return {"depends_on": conditions} if conditions else {}


def recorded(stack: PulumiStack) -> list[dict[str, Any]]:
    """What the program asks of Docker for a stack file; in a process of its own."""
    env = stack.env | {"BENCH_SECRETS": json.dumps(stack.secrets), "PYTHONPATH": f"{stack.program}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "bench.record", stack.name, str(stack.program)]
    loaded: list[dict[str, Any]] = json.loads(run(command, cwd=stack.program, env=env))
    return loaded


@dataclass(frozen=True)
class Compose:
    """A compose project.

    Attributes:
        command: docker compose.
        file: the compose file.
        services: those that stay up; the others run once.
    """

    command: Sequence[str]
    file: Path
    services: Sequence[str]

    def up(self, *, wait: bool = True) -> float:
        """`up -d --wait` until all are healthy, or `up -d`; the seconds that it took."""
        started = time.monotonic()
        # Named, because --wait takes a container that ended, as the one that makes the roles does, for a failure. It is run all the same,
        # and again with each up: the server depends on its success.
        self._run("up", "--detach", *(["--wait"] if wait else []), *self.services)
        return time.monotonic() - started

    def down(self) -> None:
        """Remove everything, volumes as well."""
        self._run("down", "--volumes", "--timeout", "5")

    def _run(self, *arguments: str) -> str:
        return run([*self.command, "--file", str(self.file), *arguments])


def compose_of(stack: PulumiStack, command: Sequence[str]) -> Compose:
    """The compose project that deploys what a stack file asks for."""
    rendered = render(recorded(stack), stack.prefix)
    file = stack.session.folder / f"compose-{stack.name}.yaml"
    file.write_text(yaml.safe_dump(rendered, sort_keys=False), encoding="utf-8")
    return Compose(command, file, [name for name, service in rendered["services"].items() if "healthcheck" in service])


def find_compose() -> tuple[list[str], str]:
    """docker compose v2: the plugin, the command, or Debian's package unpacked into the cache.

    Returns:
        The command, and its version with where it comes from.

    Raises:
        BenchError: there is none, and none can be had.
    """
    cached = cache_dir() / _CACHED
    for command, origin in (
        (["docker", "compose"], "the docker command's plugin"),
        (["docker-compose"], "on PATH"),
        ([str(cached)], f"Debian's package, unpacked to {_CACHED} in the cache"),
    ):
        if command[0] == str(cached) and not cached.exists():
            _unpack_debian(cached)
        if version := _version(command):
            return command, f"{version} ({origin})"
    raise BenchError("no docker compose v2 that runs on this machine: install it (Debian: docker-compose; else docker-compose-plugin)")


def _version(command: Sequence[str]) -> str:
    """Its version if it is v2; else nothing."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, check=False)
    version = done.stdout.strip().removeprefix("v")
    return version if done.returncode == 0 and version.partition(".")[0] in ("2", "3", "4", "5") else ""


def _unpack_debian(target: Path) -> None:
    """Get the binary out of Debian trixie's package, in a container of the base that the images are built from."""
    bases = [line for line in run(["docker", "images", "--format", "{{.Repository}}:{{.Tag}}"]).split() if "/debian:trixie-" in line]
    if not bases:
        return
    name = f"{PREFIX}{os.getpid()}-compose"
    script = "apt-get update -qq && cd /tmp && apt-get download docker-compose && dpkg-deb -x docker-compose_*.deb x"
    print("  getting docker compose from Debian's package …", flush=True)
    draft = target.with_suffix(f".{os.getpid()}")
    try:
        run(["docker", "run", "--name", name, "--network", "host", "--env=DEBIAN_FRONTEND=noninteractive", bases[0], "sh", "-c", script])
        run(["docker", "cp", f"{name}:/tmp/x/{_PLUGIN}", str(draft)])
        draft.rename(target)
    finally:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)
