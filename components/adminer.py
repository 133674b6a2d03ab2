"""Adminer: a web page on the index database, for development."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi

from components.container import Limits, PublishedArgs, container

_PORT = 8080

#: PHP is in every image of Adminer, a command-line client of HTTP is not. -n: without its configuration it starts in 12 ms instead of 17.
_PROBE = f"""php -n -r 'exit(@file_get_contents("http://127.0.0.1:{_PORT}/") === false ? 1 : 0);'"""

#: A page that shows a large table takes all the memory that PHP allows.
_LIMITS = Limits(memory=512, shares=256)


@dataclass(frozen=True, kw_only=True)
class AdminerArgs(PublishedArgs):
    """The arguments of an Adminer."""

    networks: Sequence[pulumi.Input[str]]  #: One with the database, and one that leads out, for its port.
    database_host: str  #: The database server that its login page offers.
    port: int  #: The host's port.


class Adminer(pulumi.ComponentResource):
    """Adminer. It holds no password: users log in with a database role's."""

    url: pulumi.Output[str]  #: Its web page, from the host.

    def __init__(self, name: str, args: AdminerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("orthanc-stack:index:Adminer", name, {}, opts)
        made = container(
            f"{name}-container",
            self,
            args,
            name=name,
            role="adminer",
            networks=args.networks,
            limits=_LIMITS,
            # Sessions, and files on their way into the database.
            read_only_but={"/tmp": "size=192m"},
            environment={"ADMINER_DEFAULT_SERVER": args.database_host},
            ports={_PORT: args.port},
            address=args.address,
            probe=_PROBE,
            grace_seconds=10,
        )
        self.url = made.name.apply(lambda _: args.url(args.port))
        self.register_outputs({"url": self.url})
