"""Which images a stack runs: the registry's or the ones built here."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

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


def choose(settings: ImageSettings, held: Collection[str]) -> ImageChoice:
    """The images to run.

    Args:
        settings: the stack file's images.
        held: those of candidates() that the engine holds. "auto" means local if it holds them all: then somebody built them because
            no registry answered (`make up` does), and a stack does not change over when one answers later.
    """
    local = settings.source == "local" or (settings.source == "auto" and set(candidates()) <= set(held))
    if local:
        return ImageChoice("local", **{role: local_image(role) for role in ROLES})
    return ImageChoice("registry", settings.orthanc, settings.postgres, settings.adminer)
