"""Adminer: a web page on the index database, for development."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi

from components.container import Limits, Port, container, eager_probe, url_of
from components.engine import reached_at
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
        image: the image's ID.
        networks: the networks that it is on: one with the database, and one that leads out, for its port.
        database_host: the database server that its login page offers.
        port: the host's port.
        address: the host's IP address that the port is bound to.
        host: where the port is reached; the address when left out.
        stack: the stack that owns it; None for the stack that Pulumi runs.
    """

    image: pulumi.Input[str]
    networks: Sequence[pulumi.Input[str]]
    database_host: str
    port: int
    address: str = "127.0.0.1"
    host: str = ""
    stack: Ownership | None = None


class Adminer(pulumi.ComponentResource):
    """Adminer. Holds no password: a person who logs in gives that of a database role.

    Attributes:
        url: its web page, from the host.
    """

    url: pulumi.Output[str]

    def __init__(self, name: str, args: AdminerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("orthanc-stack:index:Adminer", name, {}, opts)
        made = container(
            f"{name}-container",
            self,
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
        )
        self.url = made.name.apply(lambda _: url_of(args.host or reached_at(args.address), args.port))
        self.register_outputs({"url": self.url})
