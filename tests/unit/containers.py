"""Containers as the engine shows them, for tests that need no engine."""

from collections.abc import Mapping
from typing import Any, Final

from configs.names import LABEL_ROLE
from ops.stack.engine import CONTAINER_TYPE, Container

PREFIX: Final = "orthanc-stack-dev"
HEALTHY: Final = {"state": "running", "health": "healthy"}
STOPPED: Final = {"state": "exited"}


def container(part: str, role: str = "", **how: Any) -> Container:
    """A container of a part, whose identifier is its name; healthy unless it is said how it is."""
    name = f"{PREFIX}-{part}"
    return Container(name, name, role or part, part=part, **(how or HEALTHY))


def in_state(part: str, role: str = "") -> Mapping[str, Any]:
    """The same container as a state has it."""
    name = f"{PREFIX}-{part}"
    labels = [{"label": LABEL_ROLE, "value": role or part}]
    return {"type": CONTAINER_TYPE, "id": name, "urn": f"urn::{part}-container", "inputs": {"name": name, "labels": labels}}
