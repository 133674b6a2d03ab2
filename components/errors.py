"""What a user is told when a container or an image cannot be made: which node it is, the end of its log, what to do."""

from __future__ import annotations

import subprocess

import pulumi

from configs.preflight import docker_command

_LOG_LINES = 15
_TIMEOUT_SECONDS = 10

#: What the engine says, and what it means for a user.
_HINTS = (
    (
        "port is already allocated",
        "Another program or container took the port after the check. Free it, or set another port in the stack file.",
    ),
    (
        "address already in use",
        "Another program or container took the port after the check. Free it, or set another port in the stack file.",
    ),
    (
        "is already in use by container",
        "A container of this name exists that is not in this stack's state. `make up` clears what an interrupted "
        "run left; a stack of the same name under another login is its own: rename this one.",
    ),
    ("healthy state", "The container did not become healthy. Its log, above, says why; docker inspect shows its health check."),
    ("context deadline exceeded", "The container did not end in time. Its log, above, says why."),
    (
        "unable to pull image",
        "No registry gave the image and the engine does not hold it. Correct images.* in the stack file, or build "
        "the images here: images.source: local, and make images.",
    ),
)


def show_log(logical_name: str, part: str, physical_name: str) -> pulumi.ErrorHook:
    """A hook that, when a container cannot be made, prints the last lines of its log and what can be done.

    Args:
        logical_name: the container's resource name; the hook's name is made from it.
        part: the node, or what else of the stack it is, as in the stack file.
        physical_name: the container's name on the engine.
    """

    def show(args: pulumi.ErrorHookArgs) -> bool:
        error = " ".join(" ".join(args.errors).split())
        lines = [f"{part}: the container {physical_name} failed at its {args.failed_operation}."]
        lines += [f"    | {line}" for line in _log_of(physical_name)]
        lines += [f"    {hint}" for said, hint in _HINTS if said in error][:1]
        pulumi.log.error("\n".join(lines))
        return False  # never try again: a new container of the same settings fails the same way

    return pulumi.ErrorHook(f"{logical_name}-error", show)


def show_hint(logical_name: str, image: str) -> pulumi.ErrorHook:
    """A hook that, when an image cannot be had, says what can be done."""

    def show(args: pulumi.ErrorHookArgs) -> bool:
        error = " ".join(" ".join(args.errors).split())
        pulumi.log.error("\n".join([f"The image {image} is missing.", *(f"    {hint}" for said, hint in _HINTS if said in error)]))
        return False

    return pulumi.ErrorHook(f"{logical_name}-error", show)


def _log_of(container: str) -> list[str]:
    """The last lines of a container's log; none where there is no container or no docker command."""
    config = {key: value for key in ("docker:host", "docker:context") if (value := pulumi.runtime.get_config(key))}
    try:
        done = subprocess.run(
            [*docker_command(config), "logs", "--tail", str(_LOG_LINES), container],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return []
    return [] if done.returncode != 0 else done.stdout.splitlines()
