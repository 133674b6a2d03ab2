"""Which images a stack runs: the registry's or the ones built here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from configs.settings import ImageSettings
from images import ROLES, local_image


@dataclass(frozen=True)
class ImageChoice:
    """The images of one deployment.

    Attributes:
        source: where they come from; never "auto".
        orthanc: Orthanc's image, with its tag.
        postgres: PostgreSQL's.
        adminer: Adminer's.
    """

    source: Literal["registry", "local"]
    orthanc: str
    postgres: str
    adminer: str


def candidates() -> tuple[str, ...]:
    """The locally built images that a stack could run, by their names on the engine."""
    return tuple(local_image(role) for role in ROLES)


def is_alpine(image: str) -> bool:
    """Whether an image of PostgreSQL is Alpine's, by its tag: it sorts text by musl, Debian's by glibc, and neither reads the other's
    indexes of text rightly (docker-library/postgres, README, "postgres:<version>-alpine")."""
    return "alpine" in image.partition("@")[0].rpartition(":")[2]


def choose(settings: ImageSettings, held: Collection[str] | None, last: Mapping[str, Any] | None = None) -> ImageChoice:
    """The images to run.

    Args:
        settings: the stack file's images.
        held: those of candidates() that the engine holds; None where there is no docker command to ask by. "auto" means local if it
            holds them all: then somebody built them because no registry answered (`make up` does), and a stack does not change over
            when one answers later. Where nobody can ask, it means what the last deployment ran.
        last: the last deployment's output ``images``; None before the first one.
    """
    last = last or {}
    if settings.source == "auto" and held is None and last.get("source") == "local":
        # By name: this checkout may build others.
        return ImageChoice("local", **{role: last.get(role) or local_image(role) for role in ROLES})
    local = settings.source == "local" or (settings.source == "auto" and set(candidates()) <= set(held or ()))
    if local:
        return ImageChoice("local", **{role: local_image(role) for role in ROLES})
    return ImageChoice("registry", settings.orthanc, settings.postgres, settings.adminer)
