"""Adminer: a web page on the index database, for development."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi

from components.base import ContainerSpec, Limits, Port, container, eager_probe, url_of
from components.ownership import Ownership

_PORT = 8080

#: PHP is in every image of Adminer, a command-line client of HTTP is not. -n: without its configuration it starts in 12 ms instead of 17.
_PROBE = f"""php -n -r 'exit(@file_get_contents("http://127.0.0.1:{_PORT}/") === false ? 1 : 0);'"""

#: A page that shows a large table takes what PHP lets it.
_LIMITS = Limits(memory=512, shares=256)


@dataclass(frozen=True, kw_only=True)
class AdminerArgs:
    """What an Adminer is made from.

    Attributes:
        stack: whose it is.
        image: the image's ID.
        networks: the networks that it is on: its own, for its port, and one with the database.
        database_host: the database server that its login page offers.
        address: the host's IP address that its port is bound to.
        host: where the port is reached.
        port: the host's port.
    """

    stack: Ownership
    image: pulumi.Input[str]
    networks: Sequence[pulumi.Input[str]]
    database_host: str
    address: str
    host: str
    port: int


class Adminer(pulumi.ComponentResource):
    """Adminer, which reaches the database and no node. Holds no password: who logs in gives that of a database role."""

    url: pulumi.Output[str]

    def __init__(self, name: str, args: AdminerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("orthanc-stack:index:Adminer", name, {}, opts)
        made = container(
            f"{name}-container",
            ContainerSpec(
                stack=args.stack,
                name=name,
                role="adminer",
                image=args.image,
                networks=args.networks,
                limits=_LIMITS,
                # Sessions, and files on their way into the database.
                read_only_but={"/tmp": "size=192m"},
                environment={"ADMINER_DEFAULT_SERVER": args.database_host},
                ports=[Port(internal=_PORT, external=args.port, address=args.address)],
                healthcheck=eager_probe(_PROBE, seconds_to_start=30),
                grace_seconds=10,
            ),
            self,
        )
        self.url = made.name.apply(lambda _: url_of(args.host, args.port))
        self.register_outputs({"url": self.url})
