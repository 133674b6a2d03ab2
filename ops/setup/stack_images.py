"""Sees to it that the engine can run the stack's images: held, pulled, or built here."""

from __future__ import annotations

from configs.settings import StackSettings
from images import ROLES, local_image
from ops.setup.console import say
from ops.setup.images import ensure_local_images, pull, registry_answers
from ops.setup.prepare import Tools
from ops.stack.containers import Docker

_LABEL = "Images"


def ensure_images(settings: StackSettings, tools: Tools, docker: Docker) -> None:
    """Do what `images.source` says.

    The program chooses by the same rule: with `auto` it runs the locally built images where the engine holds all of them.

    Raises:
        SetupError: images can neither be pulled nor built.
    """
    wanted = registry_images(settings)
    if settings.images.source == "registry":
        say(_LABEL, f"from their registries, which Pulumi pulls: {', '.join(wanted)}")
        return
    held = set(docker(["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]).split())
    if {local_image(role) for role in ROLES} <= held:
        say(_LABEL, "built here before, from Debian's packages")
        return
    if settings.images.source == "auto":
        if set(wanted) <= held:
            say(_LABEL, f"pulled before: {', '.join(wanted)}")
            return
        if registry_answers(wanted[0], tools.docker):
            pull([image for image in wanted if image not in held], tools.docker)
            return
        say(_LABEL, "no registry answers: building them here, from Debian's packages")
    ensure_local_images(ROLES, tools.docker)


def registry_images(settings: StackSettings) -> list[str]:
    """The registries' images that a stack would run."""
    images = settings.images
    return [
        images.orthanc,
        *([images.postgres] if settings.index_nodes else []),
        *([images.adminer] if settings.adminer else []),
    ]
