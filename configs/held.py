"""What a stack's state holds before a run. Pulumi's engine reads it for the program, `pulumi stack export` for the commands."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from configs.names import DB_HOST, INDEX_VOLUME, LABEL_OWNER

#: The types of a data volume, and of the resource that holds the owner.
VOLUME: Final = "docker:index/volume:Volume"
STASH: Final = "pulumi:index:Stash"
#: The logical name of that resource, also a key of its value; the other key of its value.
OWNER: Final = "owner"
KEEPS_DATA: Final = "keepsData"


@dataclass(frozen=True)
class Held:
    """What the state holds; volumes and containers by their logical names (``server-data``, ``server-container``)."""

    owner: str = ""  #: the identifier that its volumes and networks carry; empty before the first deployment
    keeps_data: bool = False  #: whether its data volumes are protected
    volumes: Mapping[str, str] = field(default_factory=dict)  #: the names of its volumes on the engine
    labelled: frozenset[str] = frozenset()  #: those of the names whose volume carried an owner when the state last saw it
    containers: Mapping[str, str] = field(default_factory=dict)  #: the identifiers of its containers
    index_volume: str = ""  #: the name of the volume that the database's container has; empty without such a container

    def volume_of(self, part: str, prefix: str) -> str:
        """The name on the engine of a part's data volume: the one that it has, or the one that it gets in a stack with this prefix."""
        return self.volumes.get(f"{part}-data", f"{prefix}-{part}")

    @property
    def index_volumes(self) -> dict[str, str]:
        """Those of the volumes that have PostgreSQL's data: two until an upgrade is confirmed."""
        return {logical: name for logical, name in sorted(self.volumes.items()) if INDEX_VOLUME.fullmatch(logical)}


def held_of(resources: Mapping[str, Mapping[str, Any]]) -> Held:
    """Read a state from each resource's type and outputs, by its URN."""
    found: dict[str, Any] = {}
    volumes: dict[str, str] = {}
    labelled: set[str] = set()
    containers: dict[str, str] = {}
    for urn, resource in resources.items():
        name, outputs = urn.rpartition("::")[2], resource.get("outputs") or {}
        kind = resource.get("type")
        if kind == STASH and name == OWNER:
            value = outputs["input"]  # of the last run; "output" is of the first one
            found |= {"owner": str(value[OWNER]), "keeps_data": bool(value[KEEPS_DATA])}
        elif kind == VOLUME:
            volumes[name] = str(outputs.get("name", ""))
            labelled |= {volumes[name] for label in outputs.get("labels") or () if label["label"] == LABEL_OWNER}
        elif kind == "docker:index/container:Container":
            containers[name] = str(outputs.get("id", ""))
            if name == f"{DB_HOST}-container":
                found["index_volume"] = next((str(one["volumeName"]) for one in outputs.get("volumes") or () if one.get("volumeName")), "")
    return Held(**found, volumes=volumes, labelled=frozenset(labelled), containers=containers)
