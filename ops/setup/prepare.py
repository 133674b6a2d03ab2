"""The steps that make this machine ready, in their order, and the environment that all later commands run in."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components import engine as engines
from ops.setup.console import ROOT, say
from ops.setup.engine import ensure_engine
from ops.setup.state import State, ensure_state


@dataclass(frozen=True)
class Tools:
    """What was found or made.

    Attributes:
        pulumi: the Pulumi command.
        state: where it keeps its state.
        docker: the docker command, with the options that the stack file asks for.
    """

    pulumi: Path
    state: State
    docker: tuple[str, ...]


def prepare(stack: str, *, engine: bool = True, state: bool = True) -> Tools:
    """Find or make what commands on a stack need, and put it into this process's environment for its children.

    Args:
        stack: the stack's name.
        engine: also a running Docker engine and Pulumi's plugin for it.
        state: also the state backend; the tests bring their own.

    Raises:
        SetupError: something is missing that only the user can provide.
    """
    # Not at the top: the first stage runs without the virtual environment, and has no use for it.
    from ops.setup.toolchain import ensure_docker_plugin, ensure_pulumi  # noqa: PLC0415

    pulumi = ensure_pulumi()
    docker = docker_command(stack)
    _enter(pulumi.env)
    if engine:
        found = ensure_engine(docker[1:])
        _enter(found.env)
        if found.env:
            # Translated into DOCKER_HOST, which Pulumi knows as well.
            os.environ.pop("DOCKER_CONTEXT", None)
        ensure_docker_plugin(pulumi)
    backend = State("", "")
    if state:
        backend = ensure_state(stack)
        _enter(backend.env)
        say("State", backend.origin)
    # Offline this check costs seconds, and the version is ours to raise.
    os.environ.setdefault("PULUMI_SKIP_UPDATE_CHECK", "true")
    return Tools(pulumi.command, backend, docker)


def stack_file(stack: str, root: Path = ROOT) -> Path:
    """The stack file of a stack; of "organization/project/dev" only the last part counts."""
    return root / f"Pulumi.{stack.rpartition('/')[2]}.yaml"


def stack_config(stack: str, root: Path = ROOT) -> dict[str, Any]:
    """The `config:` block of a stack file as it stands there: secrets encrypted, nothing checked."""
    import yaml  # noqa: PLC0415 - in the virtual environment

    try:
        content = yaml.safe_load(stack_file(stack, root).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return dict((content or {}).get("config") or {})


def docker_command(stack: str) -> tuple[str, ...]:
    """The docker command for the engine that the stack is on: docker:context or docker:host of the stack file, else the user's."""
    return tuple(engines.docker_command(stack_config(stack)))


def exports(before: dict[str, str], after: dict[str, str], stack: str) -> list[tuple[str, str]]:
    """The variables that preparation has set or changed, for the user's own shell, in alphabetical order."""
    changed = {key: value for key, value in after.items() if before.get(key) != value}
    return sorted({**changed, "PULUMI_STACK": stack}.items())


def _enter(env: dict[str, str]) -> None:
    os.environ.update(env)
