"""Volumes, networks and images that a refresh takes for those that were deployed, and what the stack did not make."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from configs.names import BACKUP, LABEL_OWNER, LABEL_ROLE, LABEL_STACK
from ops.drift.containers import removal
from ops.drift.deployed import Deployed, Engine, State, name_of
from ops.drift.findings import Finding, Part, code, listed


def check_volume(one: Deployed, state: State, engine: Engine) -> Iterator[Finding]:
    """A volume that somebody made anew: the provider knows volumes by their names alone."""
    held = engine.get(("volume", one.name))
    labels = (held or {}).get("Labels") or {}
    if held is not None and (missing := [label for label, value in one.labels.items() if labels.get(label) != value]):
        said = f"**Its data volume {code(one.name)} is another one**, {state.made_by(labels)[1]}. Labels that differ: {listed(missing)}."
        yield Finding(one.part, "volume-recreated", said, one.name, data=True, urn=one.urn)


def check_network(one: Deployed, state: State, engine: Engine) -> Iterator[Finding]:
    """A network that was made anew, or that a container of somebody else is on."""
    held, name = engine.get(("network", one.id)), shlex.quote(one.name)
    if held is None and (held := engine.get(("network", one.name))):
        foreign, maker = state.made_by(held.get("Labels"))
        by_hand = (*(f"docker network disconnect --force {name} {member[:12]}" for member in _members(held)), f"docker network rm {name}")
        said = f"It was removed, and another network has its name, {maker}."
        yield Finding(one.part, "recreated", said, one.name, urn=one.urn, by_hand=() if foreign else by_hand)
    ours = {key for other in state.deployed if other.kind == "container" for key in (other.id, other.name)}
    for identifier, member in _members(held or {}).items():
        if not ours & {identifier, member}:
            by_hand = (f"docker network disconnect {name} {identifier[:12]}",)
            yield Finding(one.part, "stranger", f"The container {code(member)}, not of this stack, is on it.", one.name, by_hand=by_hand)


def _members(network: Mapping[str, Any]) -> dict[str, str]:
    return {str(identifier): str(member.get("Name", "")) for identifier, member in sorted((network.get("Containers") or {}).items())}


def check_image(one: Deployed, engine: Engine) -> Iterator[Finding]:
    """A name that means another image than it did: the preview of a refresh does not show that."""
    held = engine.get(("image", one.name))
    if held is not None and held["Id"] != one.id:
        now, before = (code(identifier.removeprefix("sha256:")[:12]) for identifier in (str(held["Id"]), one.id))
        said = f"The name means another image now, {now} instead of {before}: `pulumi up --refresh` replaces the containers that run it."
        yield Finding(one.part, "moved", said, one.name, urn=one.urn)


def check_unknown(state: State, engine: Engine) -> Iterator[Finding]:
    """Containers and networks with the stack's label that its state does not know. Volumes may be: prod keeps those of removed nodes."""
    known = {(one.kind, key) for one in state.deployed for key in (one.id, one.name)}
    for kind, thing in ((kind, thing) for (kind, _), thing in engine.items() if kind in ("container", "network")):
        labels, name = (thing if kind == "network" else thing["Config"]).get("Labels") or {}, name_of(thing)
        backup = labels.get(LABEL_ROLE) == BACKUP  # a backup is at work
        if labels.get(LABEL_STACK) != state.prefix or backup or known & {(kind, thing["Id"]), (kind, name)}:
            continue
        own, remove = labels.get(LABEL_OWNER) == state.owner, (f"docker network rm {shlex.quote(name)}",)
        said = "has the stack's labels, and the stack does not know it" if own else "is of another checkout's stack of the same name"
        by_hand = (removal(name) if kind == "container" else remove) if own else ()
        yield Finding(Part("unknown"), f"unknown-{kind}", f"The {kind} {code(name)} {said}.", name, by_hand=by_hand)
