"""The parts of a stack, each a Pulumi component over pulumi-docker. A program of one's own can use each: examples/own-program.

The names are imported when they are first used: pulumi_docker takes a tenth of a second, and half of the modules here need no Pulumi.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.adminer import Adminer as Adminer
    from components.adminer import AdminerArgs as AdminerArgs
    from components.container import Limits as Limits
    from components.container import data_volume as data_volume
    from components.container import identifier_of as identifier_of
    from components.container import image as image
    from components.forwarder import Forwarder as Forwarder
    from components.forwarder import ForwarderArgs as ForwarderArgs
    from components.index_db import DatabaseOwner as DatabaseOwner
    from components.index_db import IndexDatabase as IndexDatabase
    from components.index_db import OrthancIndexDb as OrthancIndexDb
    from components.index_db import OrthancIndexDbArgs as OrthancIndexDbArgs
    from components.network import DicomEndpoint as DicomEndpoint
    from components.network import private_network as private_network
    from components.network import reached_on as reached_on
    from components.orthanc_node import OrthancNode as OrthancNode
    from components.orthanc_node import OrthancNodeArgs as OrthancNodeArgs
    from components.orthanc_node import Peer as Peer
    from components.orthanc_node import User as User
    from components.ownership import Ownership as Ownership
    from components.tls import NodeTls as NodeTls

#: The module of each name.
_WHERE = {
    name: module
    for module, names in {
        "adminer": "Adminer AdminerArgs",
        "container": "Limits data_volume identifier_of image",
        "forwarder": "Forwarder ForwarderArgs",
        "index_db": "DatabaseOwner IndexDatabase OrthancIndexDb OrthancIndexDbArgs",
        "network": "DicomEndpoint private_network reached_on",
        "orthanc_node": "OrthancNode OrthancNodeArgs Peer User",
        "ownership": "Ownership",
        "tls": "NodeTls",
    }.items()
    for name in names.split()
}


if not TYPE_CHECKING:  # a checker would take it for any name

    def __getattr__(name):
        if name not in _WHERE:
            raise AttributeError(f"module 'components' has no attribute {name!r}")
        return getattr(import_module(f"components.{_WHERE[name]}"), name)
