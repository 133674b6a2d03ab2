"""Networks, volumes and images against what was deployed, and what the stack did not make."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from configs.names import LABEL_OWNER, LABEL_STACK
from ops.drift.deployed import Deployed, labels_of
from ops.drift.engine import Engine, name_of
from ops.drift.findings import EVERYTHING, Finding, Part, code

_ALL: Final = frozenset({EVERYTHING})
_MASQUERADE: Final = "com.docker.network.bridge.enable_ip_masquerade"


def check_volume(one: Deployed, engine: Engine) -> Iterator[Finding]:
    """A volume that is gone, or that somebody made anew."""
    held = engine.volumes.get(one.name)
    if held is None:
        said = f"**Its data volume {code(one.name)} was removed, with all that was in it.** A new one is empty: restore a backup first."
        yield Finding(one.part, "volume-removed", said, one.name, data=True, urn=one.urn, covers=_ALL)
        return
    labels = held.get("Labels") or {}
    if any(labels.get(label) != value for label, value in labels_of(one.inputs).items()):
        said = f"**Its data volume {code(one.name)} is another one, made by hand**: it has not the labels of the one that was deployed."
        yield Finding(one.part, "volume-recreated", said, one.name, data=True, urn=one.urn, covers=_ALL)


def check_network(one: Deployed, engine: Engine, ours: Sequence[Deployed]) -> Iterator[Finding]:
    """A network that is gone, made anew, or that somebody else is on.

    Args:
        one: the network.
        engine: what the engine holds.
        ours: the stack's containers.
    """
    held, name = engine.networks.get(one.id), shlex.quote(one.name)
    if held is None and (other := engine.network_named(one.name)) is None:
        yield Finding(one.part, "removed", "It was removed.", one.name, urn=one.urn, covers=_ALL)
        return
    if held is None:
        assert other is not None
        leave = [f"docker network disconnect --force {name} {identifier[:12]}" for identifier in sorted(_members(other))]
        said = "It was removed, and another one made by hand under its name."
        by_hand = (*leave, f"docker network rm {name}")
        yield Finding(one.part, "recreated", said, one.name, urn=one.urn, covers=_ALL, by_hand=by_hand)
        held = other
    if bool(held.get("Internal")) != bool(one.inputs.get("internal")):
        said = "It leads nowhere but to its members, and should lead out." if held.get("Internal") else "It leads out, and should not."
        yield Finding(one.part, "internal", said, one.name, urn=one.urn, covers=frozenset({"internal"}))
    if _masquerades(held.get("Options")) != _masquerades(one.inputs.get("options")):
        said = "Who is on it reaches the outside otherwise than it was deployed."
        yield Finding(one.part, "options", said, one.name, urn=one.urn, covers=frozenset({"options"}))
    ids, names = {container.id for container in ours}, {container.name for container in ours}
    for identifier, member in sorted(_members(held).items(), key=lambda item: item[1]):
        if identifier not in ids and member not in names:
            by_hand = (f"docker network disconnect {name} {identifier[:12]}",)
            yield Finding(one.part, "stranger", f"The container {code(member)}, not of this stack, is on it.", one.name, by_hand=by_hand)


def _members(network: Mapping[str, Any]) -> dict[str, str]:
    return {str(identifier): str(member.get("Name", "")) for identifier, member in (network.get("Containers") or {}).items()}


def _masquerades(options: Any) -> bool:
    return str((options or {}).get(_MASQUERADE, "true")) != "false"


def check_image(one: Deployed, engine: Engine) -> Iterator[Finding]:
    """A name that means another image than the one that runs, or none any more."""
    held = engine.images.get(one.name)
    if held is None:
        said = "The engine no longer holds it; what runs, goes on. `make up` builds it or pulls it when a container needs it."
        yield Finding(one.part, "removed", said, one.name, urn=one.urn, covers=_ALL)
    elif held["Id"] != one.id:
        said = (
            f"The name means another image now, {code(_short(held['Id']))} instead of {code(_short(one.id))}: "
            "the next deployment that refreshes replaces whoever runs it."
        )
        yield Finding(one.part, "moved", said, one.name, urn=one.urn, covers=_ALL)


def _short(identifier: str) -> str:
    return identifier.removeprefix("sha256:")[:12]


def check_unknown(deployed: Iterable[Deployed], engine: Engine, prefix: str) -> Iterator[Finding]:
    """Containers and networks with the stack's label that its state does not know. Volumes may: prod keeps those of removed nodes."""
    deployed = list(deployed)
    known = {one.id for one in deployed}
    names = {(one.kind, one.name) for one in deployed}
    held = [("container", i, name_of(one), one["Config"].get("Labels")) for i, one in engine.containers.items()]
    held += [("network", i, str(one["Name"]), one.get("Labels")) for i, one in engine.networks.items()]
    owners = {(labels or {}).get(LABEL_OWNER) for _, identifier, _, labels in held if identifier in known}
    for kind, identifier, name, labels in sorted(held, key=lambda one: one[:3]):
        if identifier not in known and (kind, name) not in names and (labels or {}).get(LABEL_STACK) == prefix:
            if (labels or {}).get(LABEL_OWNER) in owners:
                by_hand = (f"docker network rm {shlex.quote(name)}",) if kind == "network" else _remove(name)
                said = f"The {kind} {code(name)} has the stack's label, and the stack does not know it."
            else:
                by_hand, said = (), f"The {kind} {code(name)} is of a stack of the same name that another checkout or login made."
            yield Finding(Part("unknown"), f"unknown-{kind}", said, name, by_hand=by_hand)


def _remove(container: str) -> tuple[str, ...]:
    name = shlex.quote(container)
    return f"docker stop -t 60 {name}", f"docker rm {name}"
