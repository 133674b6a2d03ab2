"""The set-up without a deployment: what `make setup` and `make images` do."""

from __future__ import annotations

import sys


def set_up(stack: str) -> int:
    """Find or make all that `make up` needs; the exit status."""
    # In the virtual environment only.
    from configs.loader import load_stack_file  # noqa: PLC0415
    from ops.setup.prepare import prepare  # noqa: PLC0415
    from ops.setup.stack_images import ensure_images  # noqa: PLC0415
    from ops.stack.containers import docker_runner  # noqa: PLC0415

    settings = load_stack_file(stack)
    tools = prepare(stack)
    ensure_images(settings, tools, docker_runner(tools.docker))
    return 0


def build_images(stack: str) -> int:
    """Build the images from Debian's packages, whatever the stack file says; the exit status."""
    from images import ROLES  # noqa: PLC0415
    from ops.setup.engine import ensure_engine  # noqa: PLC0415
    from ops.setup.images import ensure_local_images  # noqa: PLC0415
    from ops.setup.prepare import docker_command  # noqa: PLC0415

    docker = docker_command(stack)
    engine = ensure_engine(docker[1:])
    if host := engine.env.get("DOCKER_HOST"):
        docker = (*docker, "--host", host)
    ensure_local_images(ROLES, docker)
    return 0


if __name__ == "__main__":
    from ops.cli import _guarded

    sys.exit(_guarded(["setup", *sys.argv[1:2]]))
