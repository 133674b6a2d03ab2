"""A private network, and where a DICOM application is reached on it."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_docker as docker

from components.errors import on_error
from components.ownership import Ownership
from configs import names


@dataclass(frozen=True)
class DicomEndpoint:
    """Where a DICOM application is reached by the containers of a stack.

    Attributes:
        aet: its AE title.
        host: its host name or IP address. For a node it is an output of the network that makes it reachable: it exists before the node's
            container. That breaks the circle of "the server needs the client, the client needs the server".
        port: its port.
    """

    aet: str
    host: pulumi.Input[str]
    port: int = names.DICOM_PORT


def private_network(
    name: str,
    *,
    stack: Ownership | None = None,
    internal: bool = False,
    way_out: bool = True,
    opts: pulumi.ResourceOptions | None = None,
) -> docker.Network:
    """A bridge network. Containers on it refer to it by output, and are replaced with it: Docker removes no network that has users.

    Args:
        name: its name; the physical name is ``<stack>-<name>``.
        stack: the stack that owns it; None for the stack that Pulumi runs.
        internal: whether it leads nowhere but to its containers: no way out, and no port of the host leads in.
        way_out: whether its containers can begin connections to outside the engine's machine; without, they can only answer.
        opts: the caller's options.
    """
    stack = stack or Ownership()
    # Docker's own default, true, is left out: the provider would find it as a difference on engines that do not show it.
    no_way_out = None if internal or way_out else {"com.docker.network.bridge.enable_ip_masquerade": "false"}
    return docker.Network(
        name,
        name=stack.physical(name),
        driver="bridge",
        internal=internal,
        options=no_way_out,
        labels=[docker.NetworkLabelArgs(label=label, value=value) for label, value in stack.labels()],
        opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(hooks=on_error())),
    )


def reached_on(network: pulumi.Input[str], name: str) -> pulumi.Output[str]:
    """The host name of a container for the others on a network, by output of the network.

    Args:
        network: the network's physical name.
        name: the container's name in the stack, which is its alias on the network.
    """
    return pulumi.Output.from_input(network).apply(lambda _: name)
