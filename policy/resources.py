"""A resource as the rules see it: plain values, with a mark where one is secret or not known yet. Pulumi is not needed."""

from dataclasses import dataclass
from typing import Any, Final

from policy.images import ImageName

CONTAINER: Final = "docker:index/container:Container"
IMAGE: Final = "docker:index/remoteImage:RemoteImage"
VOLUME: Final = "docker:index/volume:Volume"


class SecretText(str):
    """Text that Pulumi keeps secret. One secret in a list marks the whole list."""


class _Unknown:
    def __bool__(self) -> bool:
        return False


#: What a preview does not know yet, such as the ID of an image to pull. Rules pass over it, and see it in the update, which knows it.
UNKNOWN: Final = _Unknown()


@dataclass(frozen=True, kw_only=True)
class Resource:
    """What a program wants of one resource, by its logical name. The inputs have the names of the provider (camelCase)."""

    type: str
    name: str
    inputs: dict[str, Any]
    protected: bool = False

    def __str__(self) -> str:
        """What users know it by: its name on the engine; an image's logical one, as the messages name the image as well."""
        return self.name if self.type == IMAGE else self.at("name") or self.name

    def at(self, *path: str) -> Any:
        """The input at a path of keys; None where there is none, UNKNOWN where it, or what it is in, is not known."""
        value: Any = self.inputs
        for key in path:
            if value is not UNKNOWN:
                value = value.get(key) if isinstance(value, dict) else None
        return value

    def each(self, *path: str) -> list[Any]:
        """What is known of the list at a path; empty where there is none."""
        items = self.at(*path)
        return [item for item in items if item not in (None, UNKNOWN)] if isinstance(items, list) else []

    def mounts(self, kind: str) -> list[Any]:
        """A container's volumes, which may be of any kind, and its mounts of one kind."""
        return self.each("volumes") + [mount for mount in self.each("mounts") if mount.get("type") == kind]

    @property
    def image(self) -> ImageName | None:
        """The image that it names; None where it has an ID, which is judged where that comes from, or nothing that is known."""
        text = self.at("name" if self.type == IMAGE else "image")
        return ImageName(text) if text and not text.startswith("sha256:") else None
