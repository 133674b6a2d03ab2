"""Which images a stack runs: a registry's, or those that the project builds itself, for sites that reach no registry."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from configs.settings import ImageSettings

_FOLDER = Path(__file__).resolve().parent

#: The roles that have an image here: images/<role>/Dockerfile.
ROLES = ("orthanc", "postgres", "adminer")
#: The image of the backups' one-shot containers: in no deployment.
RESTIC = "restic"


def images_hash(*roles: str) -> str:
    """Twelve hexadecimal digits that change when what the images of these roles are built from changes; all of ROLES, where none is named.

    That is each file in a sub-folder, path and bytes. This module and README.md are in no image: editing them must not
    replace a stack's containers.
    """
    folders, digest = {*(roles or ROLES), "common"}, hashlib.sha256()
    for path in sorted(_FOLDER.glob("*/*")):
        if path.is_file() and path.parent.name in folders:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(_FOLDER).as_posix()} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()[:12]


def local_image(role: str) -> str:
    """The name of a role's image as this checkout builds it.

    Raises:
        ValueError: there is no such role.
    """
    if role not in (*ROLES, RESTIC):
        raise ValueError(f"no image for the role {role!r}: there are {', '.join((*ROLES, RESTIC))}")
    return f"orthanc-stack/{role}:local-{images_hash(RESTIC) if role == RESTIC else images_hash()}"


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


def choose(settings: ImageSettings, held: Collection[str]) -> ImageChoice:
    """The images to run.

    Args:
        settings: the stack file's images.
        held: those of candidates() that the engine holds. "auto" means local if it holds them all: then somebody built them because no
            registry answered (`./orthanc-stack up STACK` does), and a stack does not change over when one answers later.
    """
    local = settings.source == "local" or (settings.source == "auto" and set(candidates()) <= set(held))
    if local:
        return ImageChoice("local", **{role: local_image(role) for role in ROLES})
    return ImageChoice("registry", settings.orthanc, settings.postgres, settings.adminer)
