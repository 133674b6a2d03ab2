"""Which containers of a stack reach which, as the stack file says it and as it is."""

from __future__ import annotations

from typing import Any

from configs.names import LABEL_ROLE
from tests.stack.docker_bench import inspect
from tests.stack.harness import Stack
from tests.stack.reach import Target, addresses, answering

#: What listens in a container, by its role.
LISTENING = {"node": (8042, 4242), "forwarder": (9042,), "db": (5432,), "adminer": (8080,)}
#: Published ports, inside.
PUBLISHED = {"node": {8042, 4242}, "adminer": {8080}, "db": set(), "forwarder": set(), "db-roles": set()}


def role_of(container: dict[str, Any]) -> str:
    return str(container["Config"]["Labels"][LABEL_ROLE])


def may_reach(stack: Stack, name: str) -> set[str]:
    """The containers that one may reach, as the stack file says it."""
    nodes = stack.settings["nodes"]
    links = {(node["name"], target) for node in nodes for target in node.get("forwardTo", ())}
    links |= {(f"{node['name']}-forwarder", node["name"]) for node in nodes if node.get("forwardTo")}
    links |= {("db", node["name"]) for node in nodes if node.get("index") == "postgresql"}
    links |= {("adminer", "db")} if stack.settings.get("adminer") else set()
    return {b for a, b in links if a == name} | {a for a, b in links if b == name}


def reached(stack: Stack) -> dict[str, set[tuple[str, int]]]:
    """For each container that runs, what it reaches of all others, at any of their addresses."""
    running = {name: shown for name, shown in inspect(stack.containers()).items() if shown["State"]["Running"]}
    owner: dict[Target, str] = {}
    for name, shown in running.items():
        owner |= {(address, port): name for address in addresses(shown).values() for port in LISTENING[role_of(shown)]}
    found = {}
    for name, shown in running.items():
        others = {target for target in owner if owner[target] != name}
        found[name] = {(owner[target], target[1]) for target in answering(shown["Id"], role_of(shown), others)}
    return found


def expected(stack: Stack) -> dict[str, set[tuple[str, int]]]:
    roles = {name: role_of(shown) for name, shown in inspect(stack.containers()).items() if shown["State"]["Running"]}
    return {name: {(other, port) for other in may_reach(stack, name) for port in LISTENING[roles[other]]} for name in roles}
