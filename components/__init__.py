"""The parts of a stack, each a Pulumi component over pulumi-docker. A program of one's own can use each: examples/own-program.

The names are imported when they are first used: pulumi_docker takes a tenth of a second, and half of the modules here need no Pulumi.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.adminer import Adminer, AdminerArgs
    from components.container import Limits, data_volume, identifier_of, image
    from components.forwarder import Forwarder, ForwarderArgs
    from components.index_db import DatabaseOwner, IndexDatabase, OrthancIndexDb, OrthancIndexDbArgs
    from components.network import DicomEndpoint, private_network, reached_on
    from components.orthanc_node import OrthancNode, OrthancNodeArgs, Peer, User
    from components.ownership import Ownership
    from components.tls import NodeTls

_WHERE = {
    "Adminer": "adminer",
    "AdminerArgs": "adminer",
    "DatabaseOwner": "index_db",
    "DicomEndpoint": "network",
    "Forwarder": "forwarder",
    "ForwarderArgs": "forwarder",
    "IndexDatabase": "index_db",
    "Limits": "container",
    "NodeTls": "tls",
    "OrthancIndexDb": "index_db",
    "OrthancIndexDbArgs": "index_db",
    "OrthancNode": "orthanc_node",
    "OrthancNodeArgs": "orthanc_node",
    "Ownership": "ownership",
    "Peer": "orthanc_node",
    "User": "orthanc_node",
    "data_volume": "container",
    "identifier_of": "container",
    "image": "container",
    "private_network": "network",
    "reached_on": "network",
}

__all__ = [*_WHERE]  # noqa: PLE0604 - text


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'components' has no attribute {name!r}")
    return getattr(import_module(f"components.{_WHERE[name]}"), name)
