"""Which stack a volume, a network or a container belongs to: by its name, and by a random identifier that the stack's state keeps."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi

from configs import names
from configs.held import KEEPS_DATA, OWNER


@dataclass(frozen=True)
class Ownership:
    """The stack that a resource on the engine belongs to."""

    #: What its physical name begins with; the project's and the stack's name when left out.
    prefix: str = field(default_factory=lambda: names.prefix(pulumi.get_stack(), pulumi.get_project()))
    owner: pulumi.Input[str] | None = None  #: The identifier of the state that made it; on no label when left out.

    def physical(self, name: str) -> str:
        """The name on the engine of a part with this name."""
        return f"{self.prefix}-{name}"

    def labels(self, more: Mapping[str, pulumi.Input[str]] | None = None) -> list[tuple[str, pulumi.Input[str]]]:
        """The labels of a resource, in a fixed order: its stack, its owner, and others."""
        owner = {} if self.owner is None else {names.LABEL_OWNER: self.owner}
        labels = {names.LABEL_STACK: self.prefix, **owner, **(more or {})}
        return [(label, labels[label]) for label in sorted(labels)]


def owner_of(prefix: str, held: str, *, keep: bool) -> Ownership:
    """The ownership by this stack's state, whose identifier the first deployment makes and keeps in the state.

    The state has it before any resource carries it. So what a killed run leaves on the engine is never taken for another stack's.

    Args:
        prefix: what the stack's physical names begin with.
        held: the identifier that the state holds; empty before the first deployment.
        keep: whether the stack's data is kept. The next run finds this in the state, whatever its stack file says.
    """
    value = {OWNER: held or fresh_identifier(), KEEPS_DATA: keep}
    stash = pulumi.Stash(OWNER, input=value, opts=pulumi.ResourceOptions(protect=keep))
    return Ownership(prefix, held or stash.output.apply(lambda first: str(first[OWNER])))


def fresh_identifier() -> pulumi.Input[str]:
    """A random identifier for a new resource. Unknown in a preview: `up` makes another one than the plan of a preview would name."""

    async def nothing() -> str:
        return ""

    async def is_known() -> bool:
        return False

    return pulumi.Output(set(), nothing(), is_known()) if pulumi.runtime.is_dry_run() else secrets.token_hex(8)
