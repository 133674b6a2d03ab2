"""What a user is told when a container, an image or a network cannot be made: its name, the end of its log, how to put it right."""

from __future__ import annotations

import subprocess
from functools import lru_cache

import pulumi

from components.engine import docker_command

_LOG_LINES = 15
_TIMEOUT_SECONDS = 10

_PORT_TAKEN = "Another program or container took the port after the check. Free it, or set another port in the stack file."
_NO_RANGE = (
    "The engine has no address range left for one more network. Remove networks that nobody uses (docker network prune), or give it more "
    "ranges: docs/containers.md, How many networks."
)

#: Words of the engine's error, with what a user can do.
_HINTS = {
    "port is already allocated": _PORT_TAKEN,
    "address already in use": _PORT_TAKEN,
    "is already in use by container": (
        "A container of this name exists that this stack's state does not hold, and it is left alone. If an interrupted run left it, "
        "`./orthanc-stack up` removes it. If another checkout or login made it, it belongs to another stack: use that stack's state (the "
        "same `pulumi login`, or a copy of its .pulumi-state/), or rename this stack."
    ),
    "healthy state": (
        "The container was not healthy within its startTimeout. Its log, above, says why; docker inspect shows its health check. If it is "
        "only slow (an index is upgraded), leave it alone: it goes on, and the next `up` waits for it. A longer startTimeout may be set "
        "meanwhile, and interrupts nothing."
    ),
    "context deadline exceeded": "The container did not end in time. Its log, above, says why.",
    "non-overlapping IPv4 address pool": _NO_RANGE,
    "predefined address pools have been fully subnetted": _NO_RANGE,  # newer engines
    "unable to pull image": (
        "No registry gave the image and the engine does not hold it. Correct images.* in the stack file, or build the images here: "
        "images.source: local, and ./orthanc-stack images STACK."
    ),
}


def on_error() -> pulumi.ResourceHookBinding:
    """The binding, for a resource's options, of the hook that explains a failure.

    One hook for all resources of a run: each costs the program, the engine and the provider some milliseconds.
    """
    return pulumi.ResourceHookBinding(on_error=[_hook_of(pulumi.runtime.get_root_resource())])


@lru_cache(maxsize=1)
def _hook_of(_root: pulumi.Resource | None) -> pulumi.ErrorHook:
    """The hook of the run with this root resource."""
    return pulumi.ErrorHook("explain", _explain)


def _explain(args: pulumi.ErrorHookArgs) -> bool:
    """Show which image, network or container failed, the last lines of the container's log, and what can be done."""
    inputs = args.new_inputs or args.old_inputs or {}
    name, kind = str(inputs.get("name", args.name)), args.type.rpartition(":")[2]
    failed = f"{name} failed at its {args.failed_operation}."
    lines = {
        "RemoteImage": [f"The image {name} is missing."],
        "Network": [f"The network {failed}"],
    }.get(kind) or [f"{inputs.get('hostname', args.name)}: the container {failed}", *(f"    | {line}" for line in _log_of(name))]
    error = " ".join(" ".join(args.errors).split())
    pulumi.log.error("\n".join(lines + [f"    {hint}" for words, hint in _HINTS.items() if words in error][:1]))
    return False  # no second try: with the same settings it fails the same way


def _log_of(container: str) -> list[str]:
    """The last lines of a container's log; none where there is no container or no docker command."""
    config = {key: value for key in ("docker:host", "docker:context") if (value := pulumi.runtime.get_config(key))}
    command = [*docker_command(config), "logs", "--tail", str(_LOG_LINES), container]
    try:
        output = subprocess.check_output(command, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=_TIMEOUT_SECONDS)
    except (FileNotFoundError, subprocess.SubprocessError):
        return []
    return output.splitlines()
