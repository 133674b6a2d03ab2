"""The private networks of a stack. Containers reach those that they have to by their names in the stack file, and nobody else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_docker as docker

from components.base import child
from components.errors import on_error
from components.ownership import Ownership
from configs import names
from configs.networks import Network
from configs.settings import ModalitySettings, NodeSettings
from configs.wiring import DicomEndpoint


@dataclass(frozen=True, kw_only=True)
class StackNetworkArgs:
    """What a StackNetwork is made from.

    Attributes:
        stack: whose they are.
        networks: which networks, and who is on each. Plain: they steer the program.
    """

    stack: Ownership
    networks: Sequence[Network]


class StackNetwork(pulumi.ComponentResource):
    """Bridge networks, one for each pair of containers that has to talk (configs/networks.py).

    It knows where each node will be reached, before the node's container exists: that breaks the circle of "the server needs the
    client, the client needs the server". Its users refer to the networks by output, so that they are replaced with them: Docker does
    not remove a network that has users.
    """

    def __init__(self, name: str, args: StackNetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("orthanc-stack:index:StackNetwork", name, {}, opts)
        self._networks = args.networks
        self._names = {network.name: self._make(name, args.stack, network) for network in args.networks}
        self.register_outputs({"networkNames": self._names})

    def of(self, member: str) -> list[pulumi.Output[str]]:
        """The networks that a container is on, in a fixed order."""
        return [self._names[network.name] for network in self._networks if member in network.members]

    def endpoint(self, node: NodeSettings) -> DicomEndpoint[pulumi.Output[str]]:
        """Where a node is reached by those that it is linked to: its name is its alias on each network that it shares with one."""
        return DicomEndpoint(node.aet, pulumi.Output.from_input(node.name), names.DICOM_PORT)

    def outside(self, modality: ModalitySettings) -> DicomEndpoint[pulumi.Output[str]]:
        """Where the nodes reach a device outside the stack."""
        return DicomEndpoint(modality.aet, pulumi.Output.from_input(modality.host), modality.port)

    def _make(self, component: str, stack: Ownership, network: Network) -> pulumi.Output[str]:
        # Docker's own default, true, is not said: the provider would find it as a difference on engines that leave it out.
        no_way_out = None if network.internal or network.masquerade else {"com.docker.network.bridge.enable_ip_masquerade": "false"}
        return docker.Network(
            f"{component}-{network.name}",
            name=f"{stack.prefix}-{network.name}",
            driver="bridge",
            internal=network.internal,
            options=no_way_out,
            labels=[docker.NetworkLabelArgs(label=label, value=value) for label, value in stack.labels()],
            opts=child(self, hooks=on_error()),
        ).name
