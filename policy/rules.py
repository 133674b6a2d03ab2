"""The rules: what each is for, and whether it holds in prod alone. A rule is named after its function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from policy import exposure, image_names, lifetime, variables
from policy.resources import CONTAINER, IMAGE, VOLUME, Resource


@dataclass(frozen=True)
class Rule:
    """A rule of the pack.

    Attributes:
        validate: yields a message for each thing that is wrong with a resource: what, where, how to put it right.
        types: the types of resources that it looks at.
        description: the rule in a sentence.
        prod_only: whether it holds in prod alone.
    """

    validate: Callable[[Resource], Iterator[str]]
    types: tuple[str, ...]
    description: str
    prod_only: bool = False

    @property
    def name(self) -> str:
        """The policy's name in Pulumi."""
        return self.validate.__name__.replace("_", "-")


_IMAGES = (IMAGE, CONTAINER)
_CONTAINERS = (CONTAINER,)

RULES: tuple[Rule, ...] = (
    Rule(image_names.no_floating_image_tag, _IMAGES, "An image is named so that it is the same tomorrow."),
    Rule(image_names.version_floor, _IMAGES, "Orthanc, Adminer and PostgreSQL have no holes that are known and mended."),
    Rule(exposure.no_published_database, _CONTAINERS, "A database is reached on the stack's network alone."),
    Rule(exposure.no_adminer_in_prod, _IMAGES, "There is no Adminer in prod.", prod_only=True),
    Rule(exposure.no_privileged_container, _CONTAINERS, "No container can do on the host what root can."),
    Rule(variables.no_password_in_environment, _CONTAINERS, "Passwords are in files, not in environment variables."),
    Rule(lifetime.stop_grace_is_set, _CONTAINERS, "A container is given time to stop."),
    Rule(lifetime.health_check_is_set, _CONTAINERS, "A container says whether it serves."),
    Rule(lifetime.log_limits_are_set, _CONTAINERS, "A container's log does not fill the disk."),
    Rule(
        lifetime.no_unprotected_data_volume_in_prod,
        (VOLUME, CONTAINER),
        "Data volumes in prod outlive mistakes.",
        prod_only=True,
    ),
)


def violations(resource: Resource, *, prod: bool) -> Iterator[tuple[str, str]]:
    """Everything that is wrong with a resource: name of the rule, message."""
    for rule in RULES:
        if resource.type in rule.types and (prod or not rule.prod_only):
            for message in rule.validate(resource):
                yield rule.name, message
