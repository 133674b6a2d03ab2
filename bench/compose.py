"""The same topology for docker compose: the file, made from what the program asks of Docker, and the command that runs it."""

from __future__ import annotations

import base64
import functools
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from bench.pulumi_stack import PulumiStack
from bench.session import PREFIX, BenchError, run
from components.engine import Engine
from ops.setup.console import cache_dir
from tests.program.mocked import Run, run_mocked

#: In Debian's package docker-compose.
_PLUGIN: Final = "usr/libexec/docker/cli-plugins/docker-compose"
_CACHED: Final = "docker-compose-debian"


def render(program: Run, project: str) -> dict[str, Any]:
    """A compose file of what the program registers.

    Files become `configs` with their content in them, which compose, like the provider, copies into the container before it starts.

    Args:
        program: what the program registered.
        project: compose's project name.
    """
    made: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in ("RemoteImage", "Network", "Volume", "Container")}
    for urn, resource in program.resources.items():
        if resource.type.startswith("docker:"):
            # The protocol knows no integers; Docker wants nothing else.
            inputs = json.loads(json.dumps(resource.inputs), parse_float=lambda number: int(float(number)))
            made[resource.type.rpartition(":")[2]][urn] = inputs
    # By the ID that tests.program.mocked gives each.
    images = {f"sha256:{program.resources[urn].name}": inputs["name"] for urn, inputs in made["RemoteImage"].items()}
    containers = made["Container"]
    configs: dict[str, Any] = {}
    services = {}
    for urn, inputs in containers.items():
        before = sorted(_dependencies(program, urn) & containers.keys())
        depends_on = {containers[other]["hostname"]: {"condition": _done(containers[other])} for other in before}
        service = _service(inputs | {"image": images[inputs["image"]]}, configs)
        services[inputs["hostname"]] = service | ({"depends_on": depends_on} if depends_on else {})
    return {
        "name": project,
        "services": services,
        "networks": {inputs["name"]: _network(inputs) for inputs in made["Network"].values()},
        "volumes": {inputs["name"]: _volume(inputs) for inputs in made["Volume"].values()},
        "configs": configs,
    }


def _dependencies(program: Run, urn: str) -> set[str]:
    """What a resource waits for. A child is registered after its parent, and so after what its parent waits for."""
    resource = program.resources.get(urn)
    return set(resource.request.dependencies) | _dependencies(program, resource.parent) if resource else set()


def _done(inputs: Mapping[str, Any]) -> str:
    return "service_healthy" if inputs.get("healthcheck") else "service_completed_successfully"


def _all_translated(kind: str, rest: Mapping[str, Any]) -> None:
    """Stop the bench at inputs that were not translated: compose would leave them out in silence."""
    if rest:
        raise BenchError(f"the program says {', '.join(sorted(rest))} of a {kind}: bench/compose.py does not translate it; add it there")


def _labels(labels: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {label["label"]: label["value"] for label in labels}


def _volume(inputs: dict[str, Any]) -> dict[str, Any]:
    volume = {"name": inputs.pop("name"), "labels": _labels(inputs.pop("labels"))}
    _all_translated("volume", inputs)
    return volume


def _network(inputs: dict[str, Any]) -> dict[str, Any]:
    network = {
        "name": inputs.pop("name"),
        "labels": _labels(inputs.pop("labels")),
        "driver": inputs.pop("driver"),
        "internal": inputs.pop("internal"),
        "driver_opts": inputs.pop("options", {}),
    }
    _all_translated("network", inputs)
    return network


#: How the provider itself waits and removes: `--wait`, depends_on and `down --volumes` here.
_OF_THE_PROVIDER: Final = ("attach", "mustRun", "removeVolumes", "wait", "waitTimeout")


def _service(inputs: dict[str, Any], configs: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in inputs.items() if key not in _OF_THE_PROVIDER}
    hostname, memory, swap = rest.pop("hostname"), rest.pop("memory"), rest.pop("memorySwap")
    capabilities, check, shm = rest.pop("capabilities"), rest.pop("healthcheck", None), rest.pop("shmSize", None)
    service: dict[str, Any] = {
        "image": rest.pop("image"),
        "pull_policy": "never",
        "container_name": rest.pop("name"),
        "hostname": hostname,
        "entrypoint": _escaped(rest.pop("entrypoints", ())),
        "command": _escaped(rest.pop("command", ())),
        "environment": _escaped(rest.pop("envs", ())),
        "networks": {n["name"]: {"aliases": n["aliases"]} for n in rest.pop("networksAdvanced")},
        "ports": [f"{p['ip']}:{p['external']}:{p['internal']}/{p['protocol']}" for p in rest.pop("ports", ())],
        "volumes": [f"{v['volumeName']}:{v['containerPath']}" for v in rest.pop("volumes", ())],
        "extra_hosts": [f"{h['host']}:{h['ip']}" for h in rest.pop("hosts", ())],
        "cap_add": [name.removeprefix("CAP_") for name in capabilities.get("adds", ())],
        "cap_drop": capabilities["drops"],
        "ulimits": {u["name"]: {"soft": u["soft"], "hard": u["hard"]} for u in rest.pop("ulimits", ())},
        "user": rest.pop("user", None),
        "read_only": rest.pop("readOnly"),
        "tmpfs": [f"{path}:{options}" for path, options in rest.pop("tmpfs", {}).items()],
        "security_opt": rest.pop("securityOpts"),
        "shm_size": shm and f"{shm}m",
        "mem_limit": f"{memory}m",
        "memswap_limit": f"{swap}m",
        "cpu_shares": rest.pop("cpuShares"),
        "cpu_period": rest.pop("cpuPeriod", None),
        "cpu_quota": rest.pop("cpuQuota", None),
        "labels": _labels(rest.pop("labels")),
        "logging": {"driver": rest.pop("logDriver"), "options": rest.pop("logOpts")},
        "restart": rest.pop("restart"),
        "stop_grace_period": f"{rest.pop('destroyGraceSeconds')}s",
        "configs": [_config(hostname, file, configs) for file in rest.pop("uploads", ())],
        "healthcheck": check
        and {
            "test": _escaped(check["tests"]),
            "interval": check["interval"],
            "timeout": check["timeout"],
            "start_period": check["startPeriod"],
            "retries": check["retries"],
        },
    }
    _all_translated("container", rest)
    return {key: value for key, value in service.items() if value not in (None, [], {})}


def _config(service: str, file: Mapping[str, Any], configs: dict[str, Any]) -> dict[str, Any]:
    rest = dict(file)
    target, mode = rest.pop("file"), int(rest.pop("permissions"), 8)
    name = re.sub(r"[^a-z0-9]+", "-", f"{service}{target}".lower())
    if "contentBase64" in rest:
        # Bytes, which YAML can hold, and compose writes as they are.
        configs[name] = {"content": base64.b64decode(rest.pop("contentBase64")).replace(b"$", b"$$")}
    else:
        configs[name] = {"content": _escaped([rest.pop("content")])[0]}
    _all_translated("file", rest)
    return {"source": name, "target": target, "mode": mode}


def _escaped(texts: Sequence[str]) -> list[str]:
    """compose replaces $NAME."""
    return [text.replace("$", "$$") for text in texts]


class Compose:
    """The compose project that deploys what a stack file asks for."""

    def __init__(self, stack: PulumiStack) -> None:
        held = frozenset(run(["docker", "images", "--format", "{{.Repository}}:{{.Tag}}"]).split())
        program = run_mocked(stack.settings or {}, stack.secrets, stack.name, Engine(images=held), root=stack.program)
        rendered = render(program, stack.prefix)
        self._file = stack.session.folder / f"compose-{stack.name}.yaml"
        self._file.write_text(yaml.safe_dump(rendered, sort_keys=False), encoding="utf-8")
        #: Those that stay up; the others run once.
        self._services = [name for name, service in rendered["services"].items() if "healthcheck" in service]

    def up(self, *, wait: bool = True) -> float:
        """`up -d --wait` until all are healthy, or `up -d`; the seconds that it took."""
        started = time.monotonic()
        # Named, because --wait takes a container that ended, as the one that makes the roles does, for a failure. It is run all the same,
        # and again with each up: the server depends on its success.
        self._run("up", "--detach", *(["--wait"] if wait else []), *self._services)
        return time.monotonic() - started

    def down(self) -> None:
        """Remove everything, volumes as well."""
        self._run("down", "--volumes", "--timeout", "5")

    def _run(self, *arguments: str) -> None:
        run([*find_compose()[0], "--file", str(self._file), *arguments])


@functools.cache
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
    name = f"{PREFIX}{os.getpid()}_compose"
    script = "apt-get update -qq && cd /tmp && apt-get download docker-compose && dpkg-deb -x docker-compose_*.deb x"
    print("  getting docker compose from Debian's package …", flush=True)
    draft = target.with_suffix(f".{os.getpid()}")
    try:
        run(["docker", "run", "--name", name, "--network", "host", "--env=DEBIAN_FRONTEND=noninteractive", bases[0], "sh", "-c", script])
        run(["docker", "cp", f"{name}:/tmp/x/{_PLUGIN}", str(draft)])
        draft.rename(target)
    finally:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)
