"""A resource as the rules see it: plain values, with a mark where one is secret or not known yet. Pulumi is not needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from configs.names import LABEL_ROLE

CONTAINER: Final = "docker:index/container:Container"
IMAGE: Final = "docker:index/remoteImage:RemoteImage"
VOLUME: Final = "docker:index/volume:Volume"


class SecretText(str):
    """Text that Pulumi keeps secret. A list that holds one such value comes with all its values marked."""

    __slots__ = ()


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"

    def __bool__(self) -> bool:
        return False


#: Stands for a value that a preview does not know, such as the ID of an image that is not pulled yet. Rules pass over it:
#: the update, which runs the pack as well, knows it.
UNKNOWN: Final = _Unknown()


@dataclass(frozen=True, kw_only=True)
class Resource:
    """What a program wants of one resource.

    Attributes:
        type: its type, as Pulumi writes it.
        name: its logical name.
        inputs: its inputs, by the names that the provider has for them (camelCase).
        protected: whether Pulumi refuses to delete it.
    """

    type: str
    name: str
    inputs: Mapping[str, Any]
    protected: bool = False

    def __str__(self) -> str:
        """What users know it by: a container's name on the engine; of an image, which is named in each message, Pulumi's."""
        return self.name if self.type == IMAGE else self.text("name") or self.name

    def text(self, key: str) -> str:
        """A text among the inputs; empty where there is none, or none that is known."""
        value = self.inputs.get(key)
        return value if isinstance(value, str) else ""

    def items(self, key: str) -> list[Any]:
        """A list among the inputs, less what is not known; empty where there is none."""
        value = self.inputs.get(key)
        return [item for item in value if item is not UNKNOWN] if isinstance(value, list) else []

    def mappings(self, key: str) -> list[Mapping[str, Any]]:
        """The mappings in a list among the inputs."""
        return [item for item in self.items(key) if isinstance(item, Mapping)]

    def mapping(self, key: str) -> Mapping[str, Any]:
        """A mapping among the inputs; empty where there is none."""
        value = self.inputs.get(key)
        return value if isinstance(value, Mapping) else {}

    def lacks(self, key: str) -> bool:
        """Whether an input is not given; one that is not known yet is given."""
        return self.inputs.get(key) is None

    @property
    def role(self) -> str:
        """What a container is, by the label that the components give it: db, node, adminer …"""
        return next((str(label.get("value")) for label in self.mappings("labels") if label.get("label") == LABEL_ROLE), "")

    def variables(self) -> Iterator[tuple[str, str]]:
        """A container's environment variables: name and value."""
        for variable in self.items("envs"):
            name, _, value = str(variable).partition("=")
            yield name, value
