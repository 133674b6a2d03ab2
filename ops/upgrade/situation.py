"""Where a stack's database is: by its stack file, by its state, and on the engine."""

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from docker.errors import NotFound

from configs.held import VOLUME
from configs.loader import load_stack_file
from configs.names import DB_HOST, FILLED, LABEL_UPGRADED, upgraded_volume
from configs.settings import StackSettings
from ops.setup.console import SetupError, say
from ops.stack.engine import Container, client, engine_errors, list_containers
from ops.stack.interrupted import put_right
from ops.stack.secrets import set_settings
from ops.stack.stack import POLICIES, deployed
from ops.upgrade.server import LABEL

#: The newest that the settings know.
NEWEST: Final = 18
#: The registry's tag of each version, where a stack file names the one before.
_TAGS: Final[Mapping[int, str]] = {15: "15.19", 16: "16.15", 17: "17.11", 18: "18.6"}


@dataclass(frozen=True)
class Place:
    """Where a stack's indexes are, by its stack file."""

    volume: str  #: indexDb.volume
    major: int  #: indexDb.majorVersion
    image: str  #: images.postgres

    @classmethod
    def of(cls, settings: StackSettings) -> "Place":
        """The place that a stack file names."""
        return cls(settings.index_db.volume, settings.index_db.major_version, settings.images.postgres)

    def next(self) -> "Place":
        """That of the next major version. A SetupError where there is none."""
        major = self.major + 1
        if major > NEWEST:
            raise SetupError(f"nothing to do: indexDb.majorVersion is {self.major}, the newest that this version knows.")
        # The digest is that of the old one.
        name, _, tag = self.image.partition("@")[0].rpartition(":")
        return Place(upgraded_volume(major), major, f"{name}:{re.sub(r'^[0-9.]+', _TAGS[major], tag)}")


class Situation:
    """What a stack's state, stack file and engine say of its database."""

    def __init__(self, name: str) -> None:
        self.stack, self.settings = deployed(name), load_stack_file(name)
        if not self.settings.index_nodes:
            raise SetupError(f"the stack {name} has no PostgreSQL: each node's index is in its volume.")
        self.place, self.held = Place.of(self.settings), self.stack.held()

    def volume_of(self, place: Place) -> str:
        """The name on the engine of a place's volume."""
        return self.held.volume_of(place.volume, self.stack.prefix)

    @property
    def containers(self) -> list[Container]:
        """The stack's containers, those as well that an interrupted run has made."""
        return list_containers(self.stack.prefix, self.held.containers.values(), self.held.owner)

    @property
    def used(self) -> str:
        """The volume that the database's container has; empty where there is no container."""
        mounts = [mount for one in self.containers if one.role == DB_HOST for mount in one.handle.attrs["Mounts"]]
        return next((str(mount["Name"]) for mount in mounts if mount["Destination"].startswith("/var/lib/postgresql")), "")

    @property
    def before(self) -> Place | None:
        """What an upgrade left that is not confirmed: the place that the stack file's volume was filled from. None where there is none."""
        with engine_errors():
            found = client().volumes.list(filters={"name": self.volume_of(self.place)})
        labels = next((one.attrs.get("Labels") or {} for one in found if one.name == self.volume_of(self.place)), {})
        volume, _, rest = str(labels.get(LABEL_UPGRADED, "")).partition(" ")
        major, _, image = rest.partition(" ")
        return Place(volume, int(major), image) if volume and f"{volume}-data" in self.held.index_volumes else None

    @property
    def spare(self) -> list[str]:
        """The volumes of the database's that the state holds beside the one that the stack file names."""
        return [volume for volume in self.held.index_volumes.values() if volume != self.volume_of(self.place)]

    @property
    def runs(self) -> dict[str, str]:
        """When each container beside the database was last started."""
        return {one.id: str(one.handle.attrs["State"]["StartedAt"]) for one in self.containers if one.role != DB_HOST}

    def drop(self, volume: str) -> None:
        """Remove a volume, where there is one, from the engine and then from the state."""
        with engine_errors(), contextlib.suppress(NotFound):
            client().volumes.get(volume).remove()
        for resource in self.stack.resources:
            if resource.get("type") == VOLUME and resource["outputs"]["name"] == volume:
                self.stack.ask("state", "delete", str(resource["urn"]), "--yes", "--force")

    def switch(self, place: Place) -> None:
        """Have the stack file name a place, and the database use its volume. The other nodes are not touched."""
        local = self.settings.images.source == "local"
        changed = {"indexDb.majorVersion": str(place.major), "indexDb.volume": place.volume}
        if self.stack.pending:
            put_right(self.stack)
        if place != self.place:
            set_settings(self.stack, {**changed, **({} if local else {"images.postgres": place.image})})
        say(LABEL, f"Pulumi.{self.stack.short}.yaml says PostgreSQL {place.major}, in the volume {self.volume_of(place)}")
        os.environ[FILLED] = self.volume_of(place)
        options = ("--yes", "--skip-preview", "--non-interactive", "--suppress-outputs", *POLICIES)
        if status := self.stack.run("up", *options):
            raise self.stack.failure(f"the database of {self.stack.name} did not change over; give the same command again", status)
