"""The steps that make this machine ready, in their order, and the environment that all later commands run in."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.loader import load_stack_file, stack_file_name
from configs.stack_file import read_config
from images import local_roles
from ops.setup.console import ROOT, say
from ops.setup.engine import ensure_engine
from ops.setup.images import ensure_images, ensure_local_images
from ops.setup.state import State, ensure_state
from ops.setup.toolchain import ensure_docker_plugin, ensure_pulumi


@dataclass(frozen=True)
class Tools:
    """What was found or made."""

    pulumi: Path  #: the Pulumi command
    state: State  #: where it keeps its state


def prepare(stack: str, *, engine: bool = True, state: bool = True) -> Tools:
    """Find or make what commands on a stack need, and put it into this process's environment for its children.

    `engine` means also a running Docker engine, that of the stack, and Pulumi's plugin for it; `state` means also the state backend, which
    tests bring themselves. A SetupError where something is missing that only the user can provide; a SettingsError where the stack file
    cannot be read.
    """
    pulumi = ensure_pulumi()
    os.environ.update(pulumi.env)
    if engine:
        ensure_docker_plugin(pulumi)
        ensure_engine(stack_config(stack))
    backend = ensure_state(stack) if state else State("", "")
    if state:
        os.environ.update(backend.env)
        say("State", backend.origin)
    # Offline this check costs seconds, and the version is ours to raise.
    os.environ.setdefault("PULUMI_SKIP_UPDATE_CHECK", "true")
    return Tools(pulumi.command, backend)


def set_up(stack: str) -> int:
    """Find or make all that `up` needs, and deploy nothing; the exit status."""
    settings = load_stack_file(stack)
    prepare(stack)
    ensure_images(settings)
    return 0


def build_images(stack: str) -> int:
    """Build the images from Debian's packages on the stack's engine, whatever the stack file says of their source; the exit status."""
    settings = load_stack_file(stack)
    ensure_engine(stack_config(stack))
    ensure_local_images(local_roles(settings.index_db.major_version).values())
    return 0


def stack_file(stack: str, root: Path = ROOT) -> Path:
    """The stack file of a stack."""
    return root / stack_file_name(stack)


def stack_names() -> list[str]:
    """The stacks that have a stack file in this checkout."""
    return sorted(file.name.removeprefix("Pulumi.").removesuffix(".yaml") for file in ROOT.glob("Pulumi.*.yaml"))


def stack_config(stack: str, root: Path = ROOT) -> dict[str, Any]:
    """The `config:` block of a stack file as it stands there: secrets encrypted, no setting checked. Empty where there is no file.

    A SettingsError where it cannot be read.
    """
    file = stack_file(stack, root)
    return read_config(file) if file.exists() else {}
