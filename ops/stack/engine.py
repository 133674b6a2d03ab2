"""The containers of a stack on its Docker engine, asked by Docker's own SDK, and whether they are as they were deployed."""

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import docker
from docker.errors import DockerException
from docker.models.containers import Container as Handle
from requests.exceptions import RequestException

from components.engine import is_local
from configs.names import LABEL_OWNER, LABEL_ROLE, LABEL_STACK
from ops.setup.console import SetupError
from ops.stack.stack import Stack

#: How long one answer of the engine may take.
_SECONDS: Final = 300
#: How long a container may take to stop in good order: Orthanc and PostgreSQL write down what they hold.
GRACE_SECONDS: Final = 60
#: What Pulumi calls a container.
CONTAINER_TYPE: Final = "docker:index/container:Container"
#: The one-shot container that makes the databases' roles: it ends, and that is well.
ROLE_ONE_SHOT: Final = "db-roles"
#: The command in a forwarder's container that asks the forwarder; what to ask for follows.
FORWARDER_ASK: Final = ("python3", "-SB", "-m", "forwarder")


@functools.cache
def client() -> docker.DockerClient:
    """The engine that DOCKER_HOST and its companions name (ops/setup/prepare.py sets them); a SetupError where it does not answer."""
    with engine_errors():
        return docker.from_env(timeout=_SECONDS, use_ssh_client=True)


@contextlib.contextmanager
def engine_errors() -> Iterator[None]:
    """Make a SetupError of what the engine refuses inside of the block, or of the lack of an answer."""
    try:
        yield
    # ValueError: the SDK lets one through for a port that is no number (docker.utils.parse_host).
    except (DockerException, RequestException, OSError, ValueError) as error:
        raise SetupError(f"the Docker engine: {getattr(error, 'explanation', None) or error}") from error


def is_here() -> bool:
    """Whether the engine is this machine's own, so that its 127.0.0.1 is ours."""
    return is_local(os.environ.get("DOCKER_HOST") or "unix://")


@contextlib.contextmanager
def repeating(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    """Do something each so many seconds while the block runs. It is waited for at the end, but not for long: an engine may hang."""
    done = threading.Event()

    def work() -> None:
        while not done.wait(seconds):
            act()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(seconds)


@dataclass(frozen=True)
class Container:
    """A container of a stack."""

    name: str
    id: str  #: its whole identifier
    role: str  #: what it is: db, db-roles, node, forwarder, adminer; empty without a label that says so
    state: str  #: created, running, restarting, exited, …
    health: str = ""  #: starting, healthy, unhealthy; empty without a health check
    exit_status: int = 0  #: of its last end
    restarts: int = 0  #: how often it ended and was started again
    part: str = ""  #: its host name, which is its part's name
    handle: Any = None  #: Docker's own object (docker.models.containers.Container), to act on it

    @property
    def starting(self) -> bool:
        """Whether it is too early to say how it is."""
        one_shot_at_work = self.role == ROLE_ONE_SHOT and self.state in ("created", "running")
        return one_shot_at_work or self.state == "restarting" or (self.state == "running" and self.health == "starting")

    @property
    def well(self) -> bool:
        """Whether it does what it is there for."""
        if self.role == ROLE_ONE_SHOT:
            return self.state == "exited" and self.exit_status == 0
        return self.state == "running" and self.health not in ("unhealthy", "starting")

    @property
    def said(self) -> str:
        """How it is, in a word or two."""
        if self.state == "running":
            return self.health or "running"
        return f"{self.state}, with exit status {self.exit_status}" if self.state in ("exited", "restarting", "dead") else self.state

    def run(self, command: Sequence[str]) -> str:
        """Run a command in it; what it prints. A SetupError where it ends with another status than 0, or cannot be run."""
        with engine_errors():
            done = self.handle.exec_run(list(command), demux=True)
        out, errors = ((text or b"").decode(errors="replace") for text in done.output)
        if done.exit_code != 0:
            raise SetupError(f"`{command[0]}` in {self.name} ended with status {done.exit_code}: {errors.strip()}")
        return out


def list_containers(prefix: str, ids: Collection[str] | None = None, owner: str = "") -> list[Container]:
    """All containers with the label of a stack, stopped ones as well, sorted by name.

    Another checkout may have made some of them: `ids` are the identifiers of those that are meant, beside those with this owner's label.
    """
    label = f"{LABEL_STACK}={prefix}" if ids is None else LABEL_STACK
    with engine_errors():
        # ignore_removed: one may go between the list and the look at it.
        found = client().containers.list(all=True, filters={"label": label}, ignore_removed=True)
        containers = [_container(one) for one in found if ids is None or one.id in ids or (owner and one.labels.get(LABEL_OWNER) == owner)]
    return sorted(containers, key=lambda container: container.name)


def containers_of(stack: Stack) -> list[Container]:
    """The containers that the stack's state knows, sorted by name."""
    return list_containers(stack.prefix, stack.held().containers.values())


def _container(handle: Handle) -> Container:
    state = handle.attrs["State"]
    return Container(
        name=str(handle.name),
        id=str(handle.id),
        role=handle.labels.get(LABEL_ROLE, ""),
        state=str(state["Status"]),
        health=str((state.get("Health") or {}).get("Status", "")),
        exit_status=int(state.get("ExitCode") or 0),
        restarts=int(handle.attrs.get("RestartCount") or 0),
        part=str(handle.attrs["Config"].get("Hostname") or ""),
        handle=handle,
    )


def amiss(resources: Sequence[Mapping[str, Any]], found: Sequence[Container]) -> dict[str, str]:
    """The containers of the state's resources that do not run as they were deployed, by name, each with what is the matter.

    One that is still starting is not amiss. `found` are the containers on the engine.
    """
    there = {container.id: container for container in found}
    lost = {}
    for resource in resources:
        if resource.get("type") == CONTAINER_TYPE:
            container = there.get(str(resource.get("id")))
            if container is None:
                lost[str((resource.get("inputs") or {}).get("name"))] = "missing"
            elif not (container.well or container.starting):
                lost[container.name] = container.said
    return dict(sorted(lost.items()))


def labels_of(inputs: Mapping[str, Any]) -> dict[str, str]:
    """The labels of a resource of the engine, as the inputs in the state have them."""
    return {str(label["label"]): str(label["value"]) for label in inputs.get("labels") or ()}
