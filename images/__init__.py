"""The images that the project builds itself, for sites that reach no image registry: their names."""

from __future__ import annotations

import hashlib
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent

#: The roles that have an image here: images/<role>/Dockerfile.
ROLES = ("orthanc", "postgres", "adminer")


def images_hash() -> str:
    """Twelve hexadecimal digits that change when what the images are built from changes.

    That is each file in a sub-folder, path and bytes. This module and README.md are in no image: editing them must not
    replace a stack's containers.
    """
    digest = hashlib.sha256()
    for path in sorted(_FOLDER.glob("*/*")):
        if path.is_file() and path.parent.name != "__pycache__":
            content = path.read_bytes()
            digest.update(f"{path.relative_to(_FOLDER).as_posix()} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()[:12]


def local_image(role: str) -> str:
    """The name of a role's image as this checkout builds it.

    Raises:
        ValueError: there is no such role.
    """
    if role not in ROLES:
        raise ValueError(f"no image for the role {role!r}: there are {', '.join(ROLES)}")
    return f"orthanc-stack/{role}:local-{images_hash()}"
