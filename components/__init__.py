"""The parts of a stack, each a Pulumi component over pulumi-docker."""

from components.adminer import Adminer, AdminerArgs
from components.forwarder import Forwarder, ForwarderArgs
from components.index_db import OrthancIndexDb, OrthancIndexDbArgs
from components.network import StackNetwork, StackNetworkArgs
from components.orthanc_node import IndexDatabase, OrthancNode, OrthancNodeArgs
from components.stack_images import StackImages, StackImagesArgs

__all__ = [
    "Adminer",
    "AdminerArgs",
    "Forwarder",
    "ForwarderArgs",
    "IndexDatabase",
    "OrthancIndexDb",
    "OrthancIndexDbArgs",
    "OrthancNode",
    "OrthancNodeArgs",
    "StackImages",
    "StackImagesArgs",
    "StackNetwork",
    "StackNetworkArgs",
]
