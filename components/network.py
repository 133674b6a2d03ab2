"""The private network of a stack. Containers reach each other by their names in the stack file, and nobody else does."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_docker as docker

from components.base import child, labels
from configs import names
from configs.settings import ModalitySettings, NodeSettings
from configs.wiring import DicomEndpoint


@dataclass(frozen=True, kw_only=True)
class StackNetworkArgs:
    """What a StackNetwork is made from.

    Attributes:
        stack: prefix of the stack's physical names.
    """

    stack: str


class StackNetwork(pulumi.ComponentResource):
    """A bridge network.

    It knows where each node will be reached, before the node's container exists: that breaks the circle of "the server needs the
    client, the client needs the server". Its users refer to it by output, so that they are replaced with it: Docker does not remove
    a network that has users.
    """

    network_name: pulumi.Output[str]

    def __init__(self, name: str, args: StackNetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("orthanc-stack:index:StackNetwork", name, {}, opts)
        network = docker.Network(
            f"{name}-network",
            name=f"{args.stack}-{name}",
            driver="bridge",
            labels=[docker.NetworkLabelArgs(label=label, value=value) for label, value in labels({names.LABEL_STACK: args.stack})],
            opts=child(self),
        )
        self.network_name = network.name
        self.register_outputs({"networkName": self.network_name})

    def endpoint(self, node: NodeSettings) -> DicomEndpoint[pulumi.Output[str]]:
        """Where a node is reached by the other nodes: its name is its alias on this network."""
        return DicomEndpoint(node.aet, self.network_name.apply(lambda _: node.name), names.DICOM_PORT)

    def outside(self, modality: ModalitySettings) -> DicomEndpoint[pulumi.Output[str]]:
        """Where the nodes reach a device outside the stack."""
        return DicomEndpoint(modality.aet, pulumi.Output.from_input(modality.host), modality.port)
