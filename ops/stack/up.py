"""`make up`: from whatever is there to a stack that runs and was checked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.engine import host_and_port
from configs.held import VOLUME
from configs.loader import load_stack_file
from configs.names import DB_HOST
from configs.secrets import DB_PASSWORD
from configs.settings import StackSettings
from ops.setup.console import SetupError, say
from ops.setup.images import ensure_images
from ops.setup.prepare import prepare, stack_config, stack_file
from ops.stack.certs import ensure_certificates
from ops.stack.containers import CONTAINER_TYPE, ROLE_ONE_SHOT, Container, Docker, docker_runner, expected_names, list_containers
from ops.stack.recover import recover, was_interrupted
from ops.stack.secrets import ensure_secrets, missing_keys
from ops.stack.stack import Stack, deployed
from ops.stack.table import table
from ops.stack.verify import report, verify
from ops.stack.watch import watching

#: What Pulumi is told to hold the program to; the folder is the project's. It costs half a second of a core, most of it Python's start.
#: Its own exceptions are for plain `pulumi` (docs/policy.md): these commands make none.
POLICIES = ("--policy-pack", "policy")


def up(name: str) -> int:
    """Deploy a stack; with PLAN, nothing but what that plan says. The exit status."""
    # Before anything is installed, built or pulled.
    settings = load_stack_file(name)
    plan = plan_file(os.environ.get("PLAN", ""))
    stack = Stack(name, prepare(name))
    docker = docker_runner(stack.tools.docker)
    interrupted = was_interrupted(stack)
    existed = stack.exists()
    if plan and existed:
        refuse_unplanned(stack, docker, plan, interrupted=interrupted)
    if not existed:
        stack.create()
    if settings.index_nodes:
        refuse_lost_password(stack, docker)
    if existed:
        refuse_removed(stack, settings)
    ensure_secrets(stack, settings)
    ensure_certificates(stack, settings)
    ensure_images(settings, stack.tools, docker)
    if interrupted and existed:
        refresh = recover(stack, docker)
    else:
        ours = stack.held().containers.values() if existed else ()
        found = list_containers(docker, stack.prefix, ours)
        # A plan was made of the state as it was, and refuse_unplanned() has seen that Docker has what it says.
        refresh = existed and plan is None and needs_refresh(found, settings, stack.prefix)
        if refresh and start_stopped(docker, found):
            refresh = needs_refresh(list_containers(docker, stack.prefix, ours), settings, stack.prefix)
    if refresh:
        say("Refresh", "containers are missing, stopped or unhealthy: Pulumi looks at each before it changes any")
    print(flush=True)
    # Without --suppress-outputs the topology's graph would scroll the errors away; without --non-interactive, Pulumi draws on a terminal
    # over what others write, the watch above all.
    options = [*(["--refresh", "--run-program"] if refresh else []), *(["--plan", str(plan)] if plan else [])]
    with watching(stack.tools.docker, stack.prefix, stack.name):
        status = stack.run("up", "--yes", "--skip-preview", "--non-interactive", "--suppress-outputs", *POLICIES, *options)
    if status != 0:
        hint = (
            f" If it says that something is not as planned, the stack has changed since: make preview STACK={name} PLAN=1" if plan else ""
        )
        raise SetupError(f"the stack {name} is not up: pulumi ended with exit status {status}; what it says is above.{hint}")
    outputs = stack.outputs(show_secrets=True)
    text, status = report(verify(outputs, stack.prefix, docker))
    print(f"{text}\n\n{summary(outputs, name)}")
    return status


def verify_stack(name: str) -> int:
    """Check a stack that runs; the exit status."""
    stack = deployed(name)
    text, status = report(verify(stack.outputs(show_secrets=True), stack.prefix, docker_runner(stack.tools.docker)))
    print(f"\n{text}")
    return status


def refuse_unplanned(stack: Stack, docker: Docker, plan: Path, *, interrupted: bool) -> None:
    """Refuse a plan where something else has to be put right first, which the plan does not say.

    Raises:
        SetupError: an earlier run did not end well, or Docker no longer has what Pulumi's state says.
    """
    found = list_containers(docker, stack.prefix, stack.held().containers.values())
    lost = ["an earlier run did not end well"] if interrupted else not_well(stack.export(), found)
    if lost:
        raise SetupError(
            f"{', '.join(lost)}: the plan {plan.name} knows nothing of that. `make up STACK={stack.name}` without it puts it right; "
            "then preview anew."
        )


def not_well(deployment: Mapping[str, Any], found: Sequence[Container]) -> list[str]:
    """The containers that are in Pulumi's state and do not run as they should, each with what is the matter."""
    known = [resource.get("inputs") or {} for resource in deployment.get("resources") or () if resource.get("type") == CONTAINER_TYPE]
    seen = {container.name: container for container in found}
    lost = []
    for name in sorted(str(inputs.get("name")) for inputs in known):
        if name not in seen:
            lost.append(f"{name} is missing")
        elif not (seen[name].well or seen[name].starting):
            lost.append(f"{name} is {seen[name].state}" if seen[name].state != "running" else f"{name} is unhealthy")
    return lost


def plan_file(said: str) -> Path | None:
    """The plan that PLAN names; None where it names none.

    Raises:
        SetupError: there is no such file.
    """
    if not said:
        return None
    plan = Path(said).absolute()
    if not plan.is_file():
        raise SetupError(f"there is no plan {said}: `make preview PLAN=1` writes one, to artifacts/preview/<stack>.plan.json.")
    return plan


def needs_refresh(found: Sequence[Container], settings: StackSettings, prefix: str) -> bool:
    """Whether Docker no longer has what Pulumi's state says: only then is asking for each resource worth its time."""
    nodes = [node.name for node in settings.nodes]
    forwarding = [node.name for node in settings.forwarding_nodes]
    expected = expected_names(
        prefix, nodes, index_db=bool(settings.index_nodes), adminer=settings.adminer is not None, forwarding=forwarding
    )
    return not expected <= {container.name for container in found if container.well or container.starting}


def start_stopped(docker: Docker, found: Sequence[Container]) -> bool:
    """Start what was stopped (by `make down`, say), the database first; whether there was anything to start.

    Pulumi would replace each: started again, a container is the one that its state knows.
    """
    stopped = [container for container in found if container.state == "exited" and container.role != ROLE_ONE_SHOT]
    for container in sorted(stopped, key=lambda container: container.role != "db"):
        try:
            docker(["start", container.id])
        except SetupError as error:
            # Its port was taken meanwhile, say: Pulumi tells more of it than this.
            say("Start", f"{container.name} cannot be started as it is: {error}")
        else:
            say("Start", f"{container.name}, which was stopped")
    return bool(stopped)


def summary(outputs: Mapping[str, Any], name: str) -> str:
    """Where the stack's users find it."""
    nodes = sorted((outputs.get("nodes") or {}).items())
    rows = [(node, at["httpUrl"], at["aet"], host_and_port(at["dicomHost"], at["dicomPort"])) for node, at in nodes]
    lines = [table(("node", "web address", "AE title", "DICOM"), rows), ""]
    if outputs.get("adminerUrl"):
        lines.append(f"  Adminer    {outputs['adminerUrl']}")
    images = outputs.get("images") or {}
    used = ["orthanc", *(["postgres"] if outputs.get("indexDb") else []), *(["adminer"] if outputs.get("adminerUrl") else [])]
    names = ", ".join(str(images[role]) for role in used if images.get(role))
    built = "built here from Debian's packages: " if images.get("source") == "local" else ""
    lines.append(f"  Images     {built}{names}")
    lines.append(f"  Passwords  make outputs STACK={name} SHOW_SECRETS=1")
    return "\n".join(lines)


def refuse_removed(stack: Stack, settings: StackSettings) -> None:
    """Refuse to remove what a protected volume is for: Pulumi would, without a preview, and only then find that the volume has to stay.

    Raises:
        SetupError: the stack file no longer has it.
    """
    wanted = {f"{part}-data" for part in (*(node.name for node in settings.nodes), *([DB_HOST] if settings.index_nodes else []))}
    for resource in stack.export().get("resources") or ():
        name = str(resource.get("urn")).rpartition("::")[2]
        if resource.get("type") == VOLUME and resource.get("protect") and name not in wanted:
            raise SetupError(
                f"nothing was touched: {name.removesuffix('-data')} is no longer in the stack file, and its data volume "
                f"{resource['outputs']['name']} is protected. Put it back; or, to give it up (the volume stays on the engine):\n"
                f"    eval \"$(make -s env STACK={stack.name})\"\n    pulumi state unprotect '{resource['urn']}'"
            )


def refuse_lost_password(stack: Stack, docker: Docker) -> None:
    """A database keeps the password that it was made with: a new one in the stack file would not open it.

    Raises:
        SetupError: the database's volume is there, and its password is not.
    """
    volume = stack.held().volumes.get(f"{DB_HOST}-data", "")
    config = stack_config(stack.name, stack.root)
    if not missing_keys([DB_PASSWORD], config) or volume not in docker(["volume", "ls", "--quiet"]).split():
        return
    raise SetupError(
        f"the volume {volume} holds a database, and {stack_file(stack.name).name} no longer holds its password, {DB_PASSWORD}.\n"
        "Put the stack file back that it was made with (and .pulumi-state/ with it), or set the password that you know:\n"
        f"    pulumi config set --secret {DB_PASSWORD} --stack {stack.name}\n"
        f"or, to begin anew without the images in it: docker volume rm {volume}"
    )
