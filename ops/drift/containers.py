"""A container against what it was made from."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any, Final

from configs.names import DICOM_PORT, FORWARDER_PORT, HTTP_PORT
from ops.drift.deployed import Deployed
from ops.drift.engine import Engine, ReadFiles, name_of
from ops.drift.files import check_files
from ops.drift.findings import EVERYTHING, Finding, code, listed
from ops.drift.hardening import differing

#: What a port inside a container is in the stack file, by the container's role.
_PORT_SETTINGS: Final[Mapping[str, Mapping[int, str]]] = {
    "node": {HTTP_PORT: "httpPort", DICOM_PORT: "dicomPort"},
    "forwarder": {FORWARDER_PORT: "metricsPort"},
    "adminer": {8080: "port"},
}
#: What else `docker update` sets, and no component does; the provider does not read all of it.
_FURTHER_LIMITS: Final[Mapping[str, str]] = {
    "block I/O": "BlkioWeight",
    "CPUs": "CpusetCpus",
    "kernel memory": "KernelMemory",
    "memory nodes": "CpusetMems",
    "memory reservation": "MemoryReservation",
    "processes": "PidsLimit",
    "real-time CPU": "CpuRealtimeRuntime",
}
_ALL: Final = frozenset({EVERYTHING})


def check_container(one: Deployed, engine: Engine, read: ReadFiles, prefix: str, networks: Mapping[str, str]) -> Iterator[Finding]:
    """What of a container is not as it was deployed: everything that the engine tells, and its files.

    Args:
        one: the container.
        engine: what the engine holds.
        read: reads files out of containers.
        prefix: what the names of the stack's containers begin with.
        networks: the identifiers of the stack's networks, by name.
    """
    held = engine.containers.get(one.id)
    if held is not None:
        yield from _differences(one, held, engine, prefix, networks)
        yield from check_files(one, one.id, read)
        return
    other = engine.container_named(one.name)
    if other is None:
        yield _finding(one, "removed", "was removed", covers=_ALL)
        return
    name = shlex.quote(one.name)
    remove = (f"docker stop -t 60 {name}", f"docker rm {name}")
    said = f"was removed, and another container made by hand under its name, {code(one.name)}"
    yield _finding(one, "recreated", said, covers=_ALL, by_hand=remove)
    yield from _differences(one, other, engine, prefix, networks)
    if extra := differing(one.inputs, other):
        yield _finding(one, "other", f"differs in what it may do: {', '.join(extra)}")
    yield from check_files(one, str(other["Id"]), read)


def _finding(one: Deployed, change: str, said: str, **more: Any) -> Finding:
    return Finding(one.part, change, f"{one.said} {said}.", one.name, urn=one.urn, **more)


def _differences(one: Deployed, held: Mapping[str, Any], engine: Engine, prefix: str, networks: Mapping[str, str]) -> Iterator[Finding]:
    yield from _state(one, held)
    if (name := name_of(held)) != one.name:
        # Named as before it is the one that was deployed, and need not be replaced; and a deployment would find its ports taken.
        before = shlex.quote(one.name)
        taken = (f"docker stop {before}", f"docker rm {before}") if engine.container_named(one.name) else ()
        by_hand = (*taken, f"docker rename {shlex.quote(name)} {before}")
        yield _finding(one, "renamed", f"was renamed to {code(name)}", covers=frozenset({"name"}), by_hand=by_hand)
    if (image := str(held["Image"])) != one.inputs.get("image", image):
        yield _finding(one, "image", f"runs another image, {code(image)}", covers=frozenset({"image"}), replace=True)
    yield from _ports(one, held)
    yield from _limits(one, held, engine)
    yield from _networks(one, held, prefix, networks)
    own = engine.images.get(str(held["Image"]))
    yield from _volumes(one, held, own, prefix)
    yield from _process(one, held, own)


def _state(one: Deployed, held: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether it runs. One that is made to run once may have ended; how, `make verify` says."""
    state, status = held["State"], str(held["State"]["Status"])
    if not one.inputs.get("mustRun", True) or status == "running":
        return
    # A stopped container publishes no ports, and its exit status is read, too.
    covers = frozenset({"mustRun", "ports", "exitCode"})
    if status == "paused":
        yield _finding(one, "paused", "is paused", covers=covers, by_hand=(f"docker unpause {str(held['Id'])[:12]}",))
    elif status == "restarting":
        yield _finding(one, "restarting", f"does not run: it ends with status {state['ExitCode']}, and is started again", covers=covers)
    else:
        yield _finding(one, "stopped", f"was stopped: it is {code(status)}, with exit status {state['ExitCode']}", covers=covers)


def _ports(one: Deployed, held: Mapping[str, Any]) -> Iterator[Finding]:
    """The ports that the host publishes, as they were asked for: a container that is stopped or off a network has none of them."""
    wanted = {int(port["internal"]): (str(port["ip"]), int(port["external"])) for port in one.inputs.get("ports") or ()}
    found: dict[int, set[tuple[str, int]]] = {}
    for inside, bindings in (held["HostConfig"].get("PortBindings") or {}).items():
        found[int(inside.partition("/")[0])] = {(at["HostIp"] or "0.0.0.0", int(at["HostPort"] or 0)) for at in bindings or ()}
    settings = _PORT_SETTINGS.get(one.role, {})
    for inside in sorted(wanted.keys() | found.keys()):
        setting = code(settings[inside]) if inside in settings else f"port {inside} inside it"
        expected, there = wanted.get(inside), found.get(inside, set())
        if expected is None:
            said = f"publishes {setting} at {_places(there)}, which it should not"
        elif not there:
            said = f"does not publish {setting}, which was at {_places({expected})}"
        elif there != {expected}:
            said = f"has {setting} at {_places(there)} instead of {_places({expected})}"
        else:
            continue
        yield _finding(one, "port", said, covers=frozenset({"ports"}), replace=True)


def _places(places: set[tuple[str, int]]) -> str:
    return ", ".join(code(f"[{host}]:{port}" if ":" in host else f"{host}:{port}") for host, port in sorted(places))


def _limits(one: Deployed, held: Mapping[str, Any], engine: Engine) -> Iterator[Finding]:
    """What `docker update` changes of a container that goes on."""
    host, inputs = held["HostConfig"], one.inputs
    memory, wanted = int(host.get("Memory") or 0) >> 20, int(inputs.get("memory") or 0)
    if memory != wanted:
        # Its swap is given as the sum with it: what is left of a difference is told below.
        covers = frozenset({"memory", "memorySwap"})
        yield _finding(one, "memory", f"has {code('memory')} {_limit(memory)} instead of {_limit(wanted)}", covers=covers)
    sum_, wanted_swap = int(host.get("MemorySwap") or 0), int(inputs.get("memorySwap") or 0) - wanted
    swap = -1 if sum_ == -1 else (sum_ >> 20) - memory
    if swap != wanted_swap and (engine.limits_swap or swap != -1):
        said = "as much swap as there is" if swap == -1 else f"{_mib(swap)} of swap"
        yield _finding(one, "swap", f"may use {said} instead of {_mib(wanted_swap)}", covers=frozenset({"memorySwap"}))
    cpus = _cpus(host.get("CpuQuota"), host.get("CpuPeriod")) or int(host.get("NanoCpus") or 0) / 1e9
    wanted_cpus = _cpus(inputs.get("cpuQuota"), inputs.get("cpuPeriod"))
    if cpus != wanted_cpus:
        said = f"has {code('cpus')} {_or_all(cpus)} instead of {_or_all(wanted_cpus)}"
        yield _finding(one, "cpus", said, covers=frozenset({"cpus", "cpuPeriod", "cpuQuota"}), replace=True)
    shares, wanted_shares = int(host.get("CpuShares") or 0), int(inputs.get("cpuShares") or 0)
    if shares != wanted_shares:
        said = f"has the CPU weight {shares} instead of {wanted_shares}"
        yield _finding(one, "cpu-weight", said, covers=frozenset({"cpuShares"}))
    if further := sorted(name for name, key in _FURTHER_LIMITS.items() if not _is_none(host.get(key))):
        covers = frozenset({"cpuSet", "memoryReservation"})
        yield _finding(one, "limit", f"has limits that it was not deployed with: {', '.join(further)}", covers=covers, replace=True)
    policy = str((host.get("RestartPolicy") or {}).get("Name") or "no")
    if policy != (inputs.get("restart") or "no"):
        said = f"has the restart policy {code(policy)} instead of {code(inputs.get('restart') or 'no')}"
        yield _finding(one, "restart-policy", said, covers=frozenset({"restart", "maxRetryCount"}))


def _is_none(limit: Any) -> bool:
    return limit in (None, 0, -1, "")


def _limit(memory: int) -> str:
    return _mib(memory) if memory else "without limit"


def _mib(size: int) -> str:
    return f"{size} MiB" if size else "none"


def _cpus(quota: Any, period: Any) -> float:
    return int(quota or 0) / int(period or 100_000)


def _or_all(cpus: float) -> str:
    return f"{cpus:g}" if cpus > 0 else "without limit"


def _networks(one: Deployed, held: Mapping[str, Any], prefix: str, networks: Mapping[str, str]) -> Iterator[Finding]:
    """The networks that it is on. The provider never reads them; off the one of its ports, it has none of those either."""
    ports, identifier = frozenset({"ports"}), str(held["Id"])[:12]
    # Of one that does not run, the identifier of a network may be an old one, which is found by its name at the next start.
    running = held["State"]["Status"] == "running"
    wanted = {str(network["name"]): set(network.get("aliases") or ()) for network in one.inputs.get("networksAdvanced") or ()}
    found = held["NetworkSettings"].get("Networks") or {}
    for network in sorted(wanted.keys() | found.keys()):
        short, at = code(network.removeprefix(f"{prefix}-")), found.get(network) or {}
        if network not in found:
            yield _finding(one, "off-network", f"was taken off the network {short}", covers=ports, replace=True)
        elif network not in wanted:
            by_hand = (f"docker network disconnect {shlex.quote(network)} {identifier}",)
            yield _finding(one, "on-network", f"is on the network {short} as well, which it should not", covers=ports, by_hand=by_hand)
        elif running and at.get("NetworkID") != networks.get(network, at.get("NetworkID")):
            yield _finding(one, "off-network", f"is on another network, made under the name {short}", covers=ports, replace=True)
        elif missing := wanted[network] - set(at.get("Aliases") or ()):
            yield _finding(one, "alias", f"is on the network {short} without its name there, {listed(sorted(missing))}", replace=True)


def _volumes(one: Deployed, held: Mapping[str, Any], image: Mapping[str, Any] | None, prefix: str) -> Iterator[Finding]:
    """What is mounted into it. For each folder that the image wants a volume for, and gets none, the engine has made a nameless one."""
    wanted = {str(volume["containerPath"]): str(volume.get("volumeName") or "") for volume in one.inputs.get("volumes") or ()}
    found = {str(mount["Destination"]): str(mount.get("Name") or mount.get("Source") or "") for mount in held.get("Mounts") or ()}
    wanted_by_image = ((image or {}).get("Config") or {}).get("Volumes") or {}
    for path in sorted(wanted.keys() | found.keys()):
        volume, there = wanted.get(path, ""), found.get(path, "")
        if volume and volume != there:
            elsewhere = f"has {code(there)} there instead" if there else "keeps what it takes inside itself"
            said = f"is not on its volume {code(volume.removeprefix(f'{prefix}-'))} at {code(path)}, and {elsewhere}"
            yield _finding(one, "volume", said, data=True, replace=True)
        elif there and not volume and path not in wanted_by_image:
            yield _finding(one, "mount", f"has {code(there)} mounted at {code(path)}, which it should not", replace=True)


def _process(one: Deployed, held: Mapping[str, Any], image: Mapping[str, Any] | None) -> Iterator[Finding]:
    """What runs in it: the variables, by their names alone, the command, the user. What the stack does not say, its image does."""
    inputs, config, own = one.inputs, held["Config"], (image or {}).get("Config") or {}
    wanted = _variables(own.get("Env")) | _variables(inputs.get("envs"))
    found = _variables(config.get("Env"))
    if image is None:
        found = {name: value for name, value in found.items() if name in wanted}
    if differ := sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)):
        said = f"has other environment variables: {listed(differ)}"
        yield _finding(one, "environment", said, covers=frozenset({"envs"}), replace=True)
    entrypoint = list(inputs.get("entrypoints") or own.get("Entrypoint") or ())
    # An entry point of its own leaves the image's command out.
    command = list(inputs.get("command") or (() if inputs.get("entrypoints") else own.get("Cmd") or ()))
    if image is not None and [*entrypoint, *command] != [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]:
        yield _finding(one, "command", "runs another command", covers=frozenset({"command", "entrypoints"}), replace=True)
    user = str(inputs.get("user") or own.get("User") or "")
    if image is not None and user != str(config.get("User") or ""):
        said = f"runs as {code(config.get('User') or 'root')} instead of {code(user or 'root')}"
        yield _finding(one, "user", said, covers=frozenset({"user"}), replace=True)


def _variables(pairs: Any) -> dict[str, str]:
    return dict(str(pair).partition("=")[::2] for pair in pairs or ())
