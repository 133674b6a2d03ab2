"""The images of a stack, as the engine holds them."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_docker as docker

from components.base import child
from components.errors import on_error
from configs.images import ImageChoice


@dataclass(frozen=True, kw_only=True)
class StackImagesArgs:
    """What StackImages are made from.

    Attributes:
        choice: which images.
        roles: those of them that the stack runs: orthanc, postgres, adminer.
    """

    choice: ImageChoice
    roles: tuple[str, ...]


class StackImages(pulumi.ComponentResource):
    """The images that a stack runs, pulled where the engine does not hold them.

    Containers refer to an image by its ID: a tag that moved on the engine then shows in the next refresh. An image is never removed
    from the engine, where other stacks may run it.
    """

    def __init__(self, name: str, args: StackImagesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("orthanc-stack:index:StackImages", name, {"source": args.choice.source}, opts)
        self._ids = {role: self._image(f"{name}-{role}", str(getattr(args.choice, role))) for role in sorted(args.roles)}
        self.register_outputs({**self._ids})

    def id_of(self, role: str) -> pulumi.Output[str]:
        """The ID of a role's image."""
        return self._ids[role]

    def _image(self, logical_name: str, image: str) -> pulumi.Output[str]:
        return docker.RemoteImage(
            logical_name,
            name=image,
            keep_locally=True,
            opts=child(self, hooks=on_error()),
        ).image_id
