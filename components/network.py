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
    """Where the containers of a stack reach a DICOM application."""

    aet: str  #: Its AE title.
    #: Its host name or IP address. A node's is an output of its network, which exists before the node's container. So two nodes can know
    #: each other: neither waits for the other.
    host: pulumi.Input[str]
    port: int = names.DICOM_PORT


def private_network(
    name: str, *, stack: Ownership | None = None, internal: bool = False, way_out: bool = True, opts: pulumi.ResourceOptions | None = None
) -> docker.Network:
    """A bridge network. Containers on it refer to it by output, and are replaced with it: Docker removes no network that has users.

    Args:
        name: its name; the physical name is ``<stack>-<name>``.
        stack: the stack that owns it; None for the stack that Pulumi runs.
        internal: whether it connects its containers alone: no way out, and no port of the host leads in.
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
    """The host name, on a network of this physical name, of the container with this alias; an output of the network."""
    return pulumi.Output.from_input(network).apply(lambda _: name)
