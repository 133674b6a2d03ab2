"""Which private networks a stack has, and who is on which: a network for each pair that has to talk, so that no other pair can.

Pure. One flat network would let any container reach any other: whoever is inside Adminer, or inside one node, could then try the
web interface of every node. Docker has no rules between the containers of one network, so there are several.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from configs import names
from configs.settings import NodeSettings, StackSettings

#: Of a network for what runs once, and for Adminer: the database and its administration.
_ADMIN: Final = "db"


@dataclass(frozen=True)
class Network:
    """One private network.

    Attributes:
        name: its name in the stack. A dot is in it, where it has a node's name: no node's name has one, so that no two are the same.
        members: the names of the containers on it, sorted; each is the container's alias there.
        internal: whether it leads nowhere but to its members: no way out, and no port of the host leads in.
        masquerade: whether its members can begin connections to outside the engine's machine, under the machine's address.
    """

    name: str
    members: tuple[str, ...]
    internal: bool = True
    masquerade: bool = False


def networks_of(settings: StackSettings) -> tuple[Network, ...]:
    """The networks of a stack, sorted by name.

    - ``node.<node>``: a node and its forwarder. The only one of the node's that is not internal: its ports are published through it,
      and it reaches devices outside by it. With one such network for each container, which one is the default route is no matter of
      the order in which they are connected.
    - ``link.<node>.<destination>``: the two ends of a link; what they say goes both ways, by DICOM.
    - ``db.<node>``: the database and one node whose index it holds.
    - ``db``: the database, what makes its roles, and Adminer.
    - ``adminer``: Adminer alone, for its port. It leads out of the engine's machine in answers only.
    """
    networks = [_own(node) for node in settings.nodes]
    networks += [_internal(names.link_network(node.name, to), (node.name, to)) for node, to in _links(settings)]
    networks += [_internal(names.database_network(node.name), (names.DB_HOST, node.name)) for node in settings.index_nodes]
    if settings.index_nodes:
        adminer = [names.ADMINER] if settings.adminer else []
        networks.append(_internal(_ADMIN, (names.DB_HOST, names.DB_ROLES, *adminer)))
    if settings.adminer:
        networks.append(Network(names.ADMINER, (names.ADMINER,), internal=False))
    return tuple(sorted(networks, key=lambda network: network.name))


def _own(node: NodeSettings) -> Network:
    forwarder = [names.forwarder_of(node.name)] if node.forward_to else []
    return Network(names.node_network(node.name), tuple(sorted((node.name, *forwarder))), internal=False, masquerade=True)


def _internal(name: str, members: Iterable[str]) -> Network:
    return Network(name, tuple(sorted(members)))


def _links(settings: StackSettings) -> list[tuple[NodeSettings, str]]:
    """The links between nodes; what is forwarded to a device outside goes by the node's own network."""
    known = {node.name for node in settings.nodes}
    return [(node, target) for node in settings.nodes for target in node.targets if target in known]
