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
#: The folder of each major version of PostgreSQL that is built here. The newer one has a hash of its own: it replaces no container of a
#: stack with the older one.
POSTGRES = {17: "postgres", 18: "postgres-18"}


def images_hash(*roles: str) -> str:
    """Twelve hexadecimal digits that change when what the images of these roles are built from changes; all of ROLES, where none is named.

    That is each file in a sub-folder, path and bytes. This module and README.md are in no image: editing them must not
    replace a stack's containers.
    """
    # The entry point of each version of PostgreSQL is in postgres/.
    folders, digest = {*(roles or ROLES), *(role.partition("-")[0] for role in roles), "common"}, hashlib.sha256()
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
    known = (*dict.fromkeys((*ROLES, *POSTGRES.values(), RESTIC)),)
    if role not in known:
        raise ValueError(f"no image for the role {role!r}: there are {', '.join(known)}")
    return f"orthanc-stack/{role.partition('-')[0]}:local-{images_hash() if role in ROLES else images_hash(role)}"


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


def local_roles(major: int) -> dict[str, str]:
    """The folder that each role's image is built from, for a stack with this major version of PostgreSQL."""
    return {role: POSTGRES.get(major, role) if role == "postgres" else role for role in ROLES}


def candidates(major: int = 17) -> tuple[str, ...]:
    """The locally built images that a stack with this major version of PostgreSQL could run, by their names on the engine."""
    return tuple(map(local_image, local_roles(major).values()))


def is_alpine(image: str) -> bool:
    """Whether an image of PostgreSQL is Alpine's, by its tag: it sorts text by musl, Debian's by glibc, and neither reads the other's
    indexes of text rightly (docker-library/postgres, README, "postgres:<version>-alpine")."""
    return "alpine" in image.partition("@")[0].rpartition(":")[2]


def choose(settings: ImageSettings, held: Collection[str], major: int = 17) -> ImageChoice:
    """The images to run.

    Args:
        settings: the stack file's images.
        major: the major version of PostgreSQL.
        held: those of candidates() that the engine holds. "auto" means local if it holds them all: then somebody built them because no
            registry answered (`./orthanc-stack up STACK` does), and a stack does not change over when one answers later.
    """
    local = settings.source == "local" or (settings.source == "auto" and set(candidates(major)) <= set(held))
    if local:
        return ImageChoice("local", **{role: local_image(folder) for role, folder in local_roles(major).items()})
    return ImageChoice("registry", settings.orthanc, settings.postgres, settings.adminer)
