"""`make down` and `make destroy`: a stack stops, or goes."""

from __future__ import annotations

from configs.loader import load_stack_file
from configs.names import prefix
from ops.containers import Container, Docker, docker_runner, list_containers, list_volumes
from ops.prepare import docker_command
from ops.recover import recover, was_interrupted
from ops.setup.console import SetupError, say
from ops.setup.engine import ensure_engine
from ops.up import deployed

#: Orthanc and PostgreSQL write down what they hold when they are asked to stop, and are killed after this.
_GRACE_SECONDS = 60


def down(name: str) -> int:
    """Stop a stack's containers and keep everything; the exit status."""
    command = docker_command(name)
    engine = ensure_engine(command[1:])
    if host := engine.env.get("DOCKER_HOST"):
        command = (*command, "--host", host) if len(command) == 1 else command
    docker = docker_runner(command)
    found = list_containers(docker, prefix(name.rpartition("/")[2]))
    running = [container for container in found if container.state in ("running", "restarting", "paused")]
    if not running:
        say("Down", f"nothing of the stack {name} is running")
        return 0
    for group in stop_order(running):
        docker(["stop", "-t", str(_GRACE_SECONDS), *(container.name for container in group)])
        say("Down", f"stopped {', '.join(container.name for container in group)}")
    say("Down", f"its containers, data and settings are kept; `make up STACK={name}` starts it again")
    return 0


def stop_order(running: list[Container]) -> list[list[Container]]:
    """What is stopped together, in order: forwarders first, so that what they have sent is still confirmed; the database last."""
    forwarders = [container for container in running if container.role == "forwarder"]
    users = [container for container in running if container.role not in ("forwarder", "db")]
    servers = [container for container in running if container.role == "db"]
    return [group for group in (forwarders, users, servers) if group]


def destroy(name: str) -> int:
    """Remove a stack; in prod its data volumes stay. The exit status."""
    settings = load_stack_file(name)
    stack = deployed(name)
    docker = docker_runner(stack.tools.docker)
    if was_interrupted(stack):
        recover(stack, docker)
    status = stack.run("destroy", "--yes", "--skip-preview", *(["--exclude-protected"] if settings.is_prod else []))
    if status != 0:
        raise SetupError(f"the stack {name} is not gone: pulumi ended with exit status {status}; what it says is above.")
    _say_what_stays(name, stack.prefix, docker)
    return 0


def _say_what_stays(name: str, stack_prefix: str, docker: Docker) -> None:
    print()
    if kept := list_volumes(docker, stack_prefix):
        say("Destroy", f"kept, with their data: {', '.join(kept)}")
        say("Destroy", f"`make up STACK={name}` takes them up again; `docker volume rm` deletes them for good")
    else:
        say("Destroy", "no data volume is left")
    say("Destroy", f"settings and secrets stay in Pulumi.{name.rpartition('/')[2]}.yaml")
