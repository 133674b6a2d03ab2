"""Whose a stack's volumes, networks and containers are: a random identifier that its state keeps, and they carry as a label."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi

from configs import names
from configs.held import KEEPS_DATA, OWNER


@dataclass(frozen=True)
class Ownership:
    """Whose a resource on the engine is.

    Attributes:
        prefix: what its physical name begins with.
        owner: the identifier of the state that made it.
    """

    prefix: str
    owner: pulumi.Input[str]

    def labels(self, more: Mapping[str, pulumi.Input[str]] | None = None) -> list[tuple[str, pulumi.Input[str]]]:
        """The labels of what is its: whose it is, and what more there is to say of it; in a fixed order."""
        said = {names.LABEL_STACK: self.prefix, names.LABEL_OWNER: self.owner, **(more or {})}
        return [(label, said[label]) for label in sorted(said)]


def owner_of(prefix: str, held: str, *, keep: bool) -> Ownership:
    """The identifier of this stack's state, made and kept in it by the first deployment.

    In the state before anything that carries it: a run that is killed leaves nothing on the engine that the next one takes for somebody
    else's.

    Args:
        prefix: what the stack's physical names begin with.
        held: the identifier that the state holds; empty before the first deployment.
        keep: whether the stack's data is kept: remembered in the state for the next run, whatever its stack file says.
    """
    said = {OWNER: held or fresh_identifier(), KEEPS_DATA: keep}
    stash = pulumi.Stash(OWNER, input=said, opts=pulumi.ResourceOptions(protect=keep))
    return Ownership(prefix, held or stash.output.apply(lambda first: str(first[OWNER])))


def fresh_identifier() -> pulumi.Input[str]:
    """A random identifier for something that is about to be made.

    Not known in a preview: a plan that named one would not be fulfilled by the run that follows it.
    """
    return _unknown() if pulumi.runtime.is_dry_run() else secrets.token_hex(8)


def _unknown() -> pulumi.Output[Any]:
    async def nothing() -> None: ...

    async def known() -> bool:
        return False

    return pulumi.Output(set(), nothing(), known())
