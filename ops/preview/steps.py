"""A preview, as plain data: its steps, policies and errors. reading.py makes it of what Pulumi tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ops.stack.containers import CONTAINER_TYPE

#: What Pulumi puts in the place of a value that a preview cannot know (sdk/go/common/resource/plugin, UnknownStringValue).
UNKNOWN: Final = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
#: What stands for a secret.
SECRET: Final = "[secret]"


@dataclass(frozen=True)
class State:
    """A resource before or after.

    Attributes:
        inputs: what the program asks for; secrets are SECRET, what is not known yet is UNKNOWN.
        outputs: what the provider gave back.
        protect: whether Pulumi refuses to delete it.
        retain: whether it stays on the engine when Pulumi forgets it.
    """

    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any] = field(default_factory=dict)
    protect: bool = False
    retain: bool = False


@dataclass(frozen=True)
class Step:
    """What would be done to one resource.

    Attributes:
        op: Pulumi's word: same, create, update, replace, delete, or another.
        type: the resource's type token.
        name: its logical name.
        old: it before; None for a new one.
        new: it after; None for one that goes.
        causes: the inputs that make a new resource of it.
        differs: all inputs that differ.
    """

    op: str
    type: str
    name: str
    old: State | None
    new: State | None
    causes: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether anything is done."""
        return self.op != "same"

    @property
    def is_container(self) -> bool:
        """Whether it is a container of Docker's."""
        return self.type == CONTAINER_TYPE

    @property
    def state(self) -> State:
        """It, as it will be, or as it was when it goes."""
        found = self.new or self.old
        return found or State({})


@dataclass(frozen=True)
class Violation:
    """A rule of a policy pack that is broken.

    Attributes:
        pack: the policy pack.
        rule: the rule's name.
        resource: the logical name of the resource that breaks it.
        mandatory: whether it stops an update.
        message: what the rule says.
    """

    pack: str
    rule: str
    resource: str
    mandatory: bool
    message: str


@dataclass(frozen=True)
class Preview:
    """All that a preview tells.

    Attributes:
        stack: the stack's name, without the organization.
        ok: whether it succeeded.
        steps: what would be done, in an order of their own: by type and name.
        config: the stack's configuration as text, secrets masked.
        errors: what went wrong, each a whole message.
        warnings: what the program warns of.
        packs: the policy packs that ran; None where the source does not tell.
        violations: the rules that are broken.
        outputs: the stack's outputs before and after.
        complete: whether what stays as it is was told, too.
    """

    stack: str
    ok: bool
    steps: tuple[Step, ...]
    config: Mapping[str, str]
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    packs: tuple[str, ...] | None = None
    violations: tuple[Violation, ...] = ()
    outputs: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {})
    complete: bool = True
