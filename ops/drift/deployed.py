"""What was deployed, as Pulumi's state has it, and what the engine holds of it."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from docker import DockerClient
from docker.errors import NotFound

from configs.held import VOLUME, held_of
from configs.names import ADMINER, DB_HOST, DB_ROLES, LABEL_OWNER, LABEL_ROLE, LABEL_STACK, forwarder_of
from ops.drift.findings import Part
from ops.stack.engine import CONTAINER_TYPE, engine_errors, labels_of

#: What marks a secret in an exported state; its value is beside it.
_SECRET_MARK: Final = "4dabf18193072939515e22adb298388d"
_NETWORK, _IMAGE = "docker:index/network:Network", "docker:index/remoteImage:RemoteImage"
_KINDS: Final = {CONTAINER_TYPE: "container", _NETWORK: "network", VOLUME: "volume", _IMAGE: "image"}
_PARTS: Final = {DB_HOST: "database", DB_ROLES: "database", ADMINER: "adminer"}

#: What `docker inspect` shows, by kind (container, network, volume, image) and by identifier or name.
Engine = Mapping[tuple[str, str], Mapping[str, Any]]


@dataclass(frozen=True)
class Deployed:
    """A resource on the engine that the state knows."""

    kind: str  #: container, network, volume, image
    part: Part  #: what it belongs to
    urn: str  #: its name in the state
    id: str  #: the engine's identifier; of a volume its name
    name: str  #: the engine's name
    said: str  #: what it is within its part, to begin a sentence with
    inputs: Mapping[str, Any]  #: what it was made from; secrets in clear
    labels: Mapping[str, str]  #: those of the inputs


@dataclass(frozen=True)
class State:
    """What a stack's state knows."""

    deployed: Sequence[Deployed]  #: its resources on the engine
    prefix: str  #: what the names of its containers begin with
    owner: str  #: the identifier on the owner label

    def made_by(self, labels: Mapping[str, str] | None) -> tuple[bool, str]:
        """Whether another checkout or login made a thing with these labels; and who made it, to end a sentence with."""
        foreign = (labels or {}).get(LABEL_OWNER, self.owner) != self.owner
        return foreign, "made by a stack of the same name, from another checkout or login" if foreign else "made by hand"


def state_of(resources: Sequence[Mapping[str, Any]], prefix: str) -> State:
    """Read an exported state with secrets in clear."""
    current = {str(resource["urn"]): resource for resource in resources if not resource.get("delete")}
    deployed = [_deployed(resource, prefix) for resource in current.values() if resource.get("type") in _KINDS]
    return State(deployed, prefix, held_of(current).owner)


def _deployed(resource: Mapping[str, Any], prefix: str) -> Deployed:
    kind = _KINDS[resource["type"]]
    inputs = {key: plain(value) for key, value in (resource.get("inputs") or {}).items()}
    name = str(inputs.get("name", resource.get("id", "")))
    identifier = (resource.get("outputs") or {}).get("imageId", "") if kind == "image" else resource.get("id", "")
    short, said = name.removeprefix(f"{prefix}-"), "It"
    # A volume has the name of its container. No node has the name of the database or of Adminer.
    part = Part(kind, short) if kind in ("network", "image") else Part(_PARTS[short]) if short in _PARTS else Part("node", short)
    labels = labels_of(inputs)
    if labels.get(LABEL_ROLE) == "forwarder":
        part, said = Part("node", short.removesuffix(forwarder_of(""))), "Its forwarder"
    elif short == DB_ROLES:
        said = "The container that makes its roles"
    return Deployed(kind, part, str(resource["urn"]), str(identifier), name, said, inputs, labels)


def plain(value: Any) -> Any:
    """A value of an exported state without the marks of secrets."""
    if isinstance(value, Mapping):
        if _SECRET_MARK in value and "plaintext" in value:
            return plain(json.loads(value["plaintext"]))
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


def look(client: DockerClient, state: State) -> Engine:
    """Ask the engine for all that the state knows, by identifier and by name, and for what has the stack's label.

    Raises:
        SetupError: the engine does not answer.
    """
    labelled, found = {"label": f"{LABEL_STACK}={state.prefix}"}, dict[tuple[str, str], Mapping[str, Any]]()
    with engine_errors():
        wanted = [(one.kind, key) for one in state.deployed for key in (one.id, one.name)]
        wanted += [("container", str(one["Id"])) for one in client.api.containers(all=True, filters=labelled)]
        wanted += [("network", str(one["Id"])) for one in client.api.networks(filters=labelled)]
        for kind, key in wanted:  # grows: a container's image is asked for after it
            with contextlib.suppress(NotFound):
                if (kind, key) not in found:
                    found[kind, key] = getattr(client.api, f"inspect_{kind}")(key)
                    wanted += [("image", str(found[kind, key]["Image"]))] if kind == "container" else []
    return found


def name_of(thing: Mapping[str, Any]) -> str:
    """The name of a container or network that the engine shows."""
    return str(thing["Name"]).removeprefix("/")
