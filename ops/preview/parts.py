"""A change as its pieces: which container belongs to which part of the stack, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from configs import names
from ops.preview.model import Fate
from ops.preview.sides import Side, part_of, role_of, sides
from ops.preview.steps import Preview, Step

_FATES: Mapping[str, Fate] = {"create": Fate.ADDED, "update": Fate.CHANGED, "replace": Fate.REPLACED, "delete": Fate.REMOVED}


def fate_of(step: Step) -> Fate | None:
    """What becomes of a resource; None where it stays, or where the step is of a kind that has no word here."""
    return _FATES.get(step.op)


@dataclass(frozen=True)
class Change:
    """A preview with the stack before and after."""

    preview: Preview
    old: Side
    new: Side

    @classmethod
    def of(cls, preview: Preview) -> Change:
        """The change that a preview tells of."""
        return cls(preview, *sides(preview))

    @cached_property
    def containers(self) -> Mapping[str, Step]:
        """The step of each container, by its name in the stack."""
        return {part_of(step.state): step for step in self.preview.steps if step.is_container}

    @cached_property
    def components(self) -> Mapping[tuple[str, str], Step]:
        """The step of each component, by type and name."""
        return {(step.type, step.name): step for step in self.preview.steps if not step.type.startswith("docker:")}

    def of_type(self, type_: str) -> Iterator[Step]:
        """The steps of a type that change something."""
        return (step for step in self.preview.steps if step.type == type_ and step.changes)

    def fate(self, container: str) -> Fate | None:
        """What becomes of a container."""
        step = self.containers.get(container)
        return fate_of(step) if step else None

    def network(self, physical_name: str) -> str:
        """A network's name in the stack: less the prefix of the stack."""
        return physical_name.removeprefix(f"{names.prefix(self.preview.stack)}-")

    def differing(self, step: Step) -> set[str]:
        """The inputs of a resource that differ, in what was asked for or in what the provider compares."""
        old: Mapping[str, Any] = step.old.inputs if step.old else {}
        new: Mapping[str, Any] = step.new.inputs if step.new else {}
        if step.old is None or step.new is None:
            return set()
        return {key for key in {*old, *new} if old.get(key) != new.get(key)} | set(step.differs) | set(step.causes)


def role(step: Step) -> str:
    """What a container is."""
    return role_of(step.state)
