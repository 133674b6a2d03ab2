"""The containers and networks of a stack as the Docker engine shows them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from configs.names import LABEL_ROLE, LABEL_STACK, forwarder_of
from ops.setup.console import SetupError

#: Runs the docker command with these arguments and returns what it prints.
Docker = Callable[[Sequence[str]], str]

#: What Pulumi calls a container.
CONTAINER_TYPE: Final = "docker:index/container:Container"

#: The one-shot container that makes the databases' roles: it ends, and that is well.
ROLE_ONE_SHOT = "db-roles"

#: The program in a forwarder's container that asks the forwarder; what to ask for follows.
FORWARDER_ASK = ("python3", "-SB", "-m", "forwarder")


@dataclass(frozen=True)
class Container:
    """A container of a stack.

    Attributes:
        name: its name.
        id: its whole identifier.
        role: what it is: db, db-roles, node, forwarder, adminer.
        state: created, running, exited, …
        status: the engine's words: "Up 3 minutes (healthy)".
    """

    name: str
    id: str
    role: str
    state: str
    status: str

    @property
    def starting(self) -> bool:
        """Whether it is too early to say how it is."""
        one_shot_at_work = self.role == ROLE_ONE_SHOT and self.state in ("created", "running")
        return one_shot_at_work or self.state == "restarting" or "health: starting" in self.status

    @property
    def well(self) -> bool:
        """Whether it does what it is there for."""
        if self.role == ROLE_ONE_SHOT:
            return self.state == "exited" and self.status.startswith("Exited (0)")
        return self.state == "running" and "(unhealthy)" not in self.status and not self.starting


def docker_runner(command: Sequence[str]) -> Docker:
    """A Docker that runs this command ("docker", with its options)."""

    def run(arguments: Sequence[str]) -> str:
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=300)
        if done.returncode != 0:
            raise SetupError(f"`docker {' '.join(arguments[:2])}` failed: {done.stderr.strip()}")
        return done.stdout

    return run


def list_containers(docker: Docker, prefix: str, ids: Collection[str] | None = None) -> list[Container]:
    """All containers of a stack, stopped ones as well, sorted by name: one call of the docker command.

    Args:
        docker: the docker command.
        prefix: what their names begin with.
        ids: instead of those that bear the stack's name, which another checkout may have made, those with these identifiers.
    """
    # `--format json` is not known to clients before 23 (Debian 12 has 20.10).
    label = f"{LABEL_STACK}={prefix}" if ids is None else LABEL_STACK
    shown = docker(["ps", "--all", "--no-trunc", "--filter", f"label={label}", "--format", "{{json .}}"])
    found = (_container(line) for line in shown.splitlines())
    return sorted((one for one in found if ids is None or one.id in ids), key=lambda container: container.name)


def _container(line: str) -> Container:
    fields = json.loads(line)
    labels = dict(label.partition("=")[::2] for label in fields["Labels"].split(","))
    return Container(fields["Names"], fields["ID"], labels.get(LABEL_ROLE, ""), fields["State"], fields["Status"])


def expected_names(prefix: str, nodes: Sequence[str], *, index_db: bool, adminer: bool, forwarding: Sequence[str] = ()) -> set[str]:
    """The names of the containers that a stack should have running.

    Args:
        prefix: what they begin with.
        nodes: the stack's nodes.
        index_db: whether it has an index database.
        adminer: whether it has an Adminer.
        forwarding: those of the nodes that forward.
    """
    names = {f"{prefix}-{name}" for name in (*nodes, *map(forwarder_of, forwarding))}
    return names | ({f"{prefix}-db"} if index_db else set()) | ({f"{prefix}-adminer"} if adminer else set())


@dataclass(frozen=True)
class Thing:
    """A container or a network that the engine holds."""

    kind: str
    id: str
    name: str
