"""What a stack's state holds before a run: whose volumes are this stack's, and whether they are kept.

Pure. Pulumi's engine reads it for the program, `pulumi stack export` for the commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from configs.names import LABEL_OWNER

#: The type of a data volume.
VOLUME: Final = "docker:index/volume:Volume"
#: The type of the resource that holds the owner.
STASH: Final = "pulumi:index:Stash"
#: Its logical name, and the keys of its value.
OWNER: Final = "owner"
KEEPS_DATA: Final = "keepsData"


@dataclass(frozen=True)
class Held:
    """What the state holds.

    Attributes:
        owner: the identifier that its volumes and networks carry; empty before the first deployment.
        keeps_data: whether its data volumes are protected.
        volumes: the names of its volumes on the engine, by their logical names (``server-data``).
        labelled: those of the names whose volume carried an owner when the state last saw it.
        containers: the identifiers of its containers, by their logical names (``server-container``).
        outputs: the outputs of the last deployment.
    """

    owner: str = ""
    keeps_data: bool = False
    volumes: Mapping[str, str] = field(default_factory=dict)
    labelled: frozenset[str] = frozenset()
    containers: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)


def held_of(resources: Mapping[str, Mapping[str, Any]]) -> Held:
    """Read a state.

    Args:
        resources: each resource's type and outputs, by its URN.
    """
    owner, keeps_data = "", False
    volumes: dict[str, str] = {}
    labelled: set[str] = set()
    containers: dict[str, str] = {}
    outputs: Mapping[str, Any] = {}
    for urn, resource in resources.items():
        name, said = urn.rpartition("::")[2], resource.get("outputs") or {}
        kind = resource.get("type")
        if kind == STASH and name == OWNER:
            # "input" is what the last run said, "output" what the first one did.
            owner, keeps_data = str(said["input"][OWNER]), bool(said["input"][KEEPS_DATA])
        elif kind == VOLUME:
            volumes[name] = str(said.get("name", ""))
            labelled |= {volumes[name] for label in said.get("labels") or () if label["label"] == LABEL_OWNER}
        elif kind == "docker:index/container:Container":
            containers[name] = str(said.get("id", ""))
        elif kind == "pulumi:pulumi:Stack":
            outputs = said
    return Held(owner, keeps_data, volumes, frozenset(labelled), containers, outputs)
