"""What was deployed, as Pulumi's state has it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from configs.names import ADMINER, LABEL_ROLE, forwarder_of
from ops.drift.findings import Part
from ops.stack.containers import CONTAINER_TYPE

#: What marks a secret in an exported state, and what its value is beside it.
_SECRET_MARK: Final = "4dabf18193072939515e22adb298388d"
_PLAINTEXT: Final = "plaintext"

_KINDS: Final = {
    CONTAINER_TYPE: "container",
    "docker:index/network:Network": "network",
    "docker:index/volume:Volume": "volume",
    "docker:index/remoteImage:RemoteImage": "image",
}
_ROLES: Final = {"db": "database", "db-roles": "database", "adminer": "adminer"}


@dataclass(frozen=True)
class Deployed:
    """A resource of the engine's that the state knows.

    Attributes:
        kind: container, network, volume, image.
        part: what it is a part of.
        urn: its name in the state.
        id: the engine's identifier: of a volume its name, of an image its image's identifier.
        name: the engine's name.
        role: of a container, what its label says: node, forwarder, db, db-roles, adminer.
        inputs: what it was made from; secrets in clear.
    """

    kind: str
    part: Part
    urn: str
    id: str
    name: str
    role: str
    inputs: Mapping[str, Any]

    @property
    def said(self) -> str:
        """What it is within its part, to begin a sentence with."""
        return {"forwarder": "Its forwarder", "db-roles": "What makes its roles"}.get(self.role, "It")


def deployed_of(resources: Sequence[Mapping[str, Any]], prefix: str) -> list[Deployed]:
    """The containers, networks, volumes and images of a state.

    Args:
        resources: the state's, secrets in clear.
        prefix: what the names of the stack's containers begin with.
    """
    return [_deployed(resource, prefix) for resource in resources if resource.get("type") in _KINDS and not resource.get("delete")]


def _deployed(resource: Mapping[str, Any], prefix: str) -> Deployed:
    kind = _KINDS[resource["type"]]
    inputs = {key: plain(value) for key, value in (resource.get("inputs") or {}).items()}
    name = str(inputs.get("name", resource.get("id", "")))
    role = labels_of(inputs).get(LABEL_ROLE, "") if kind == "container" else ""
    identifier = str((resource.get("outputs") or {}).get("imageId", "")) if kind == "image" else str(resource.get("id", ""))
    return Deployed(kind, _part(kind, name, role, prefix), resource["urn"], identifier, name, role, inputs)


def _part(kind: str, name: str, role: str, prefix: str) -> Part:
    short = name.removeprefix(f"{prefix}-")
    if kind in ("network", "image"):
        return Part(kind, short)
    if role in _ROLES:
        return Part(_ROLES[role])
    if role == "forwarder":
        return Part("node", short.removesuffix(forwarder_of("")))
    # A volume has the name of whom it belongs to. No node is called as the database or as Adminer.
    return Part(_ROLES[short]) if short in ("db", ADMINER) else Part("node", short)


def labels_of(inputs: Mapping[str, Any]) -> dict[str, str]:
    """The labels of a resource's inputs."""
    return {str(label["label"]): str(label["value"]) for label in inputs.get("labels") or ()}


def plain(value: Any) -> Any:
    """A value of an exported state without the marks of secrets."""
    if isinstance(value, Mapping):
        if _SECRET_MARK in value and _PLAINTEXT in value:
            return plain(json.loads(value[_PLAINTEXT]))
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list) else value
