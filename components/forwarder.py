"""The forwarder of a node: a container that sends what the node gets to its destinations, until each has confirmed it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pulumi

from components.base import ContainerSpec, File, Limits, Port, container, eager_probe, url_of
from components.ownership import Ownership
from components.tls import Trust
from configs import names
from configs.links import LinkSettings

_SOURCE = Path(__file__).resolve().parents[1] / "forwarder"
#: Where the program is, in the container.
_LIBRARY = "/usr/local/lib/orthanc-stack"

_TRUSTED = "/etc/forwarder-trusted.pem"

#: The forwarder touches the file as long as its loops go round.
_PROBE = "find /tmp/forwarder-alive -newermt '-60 seconds' | grep -q ."

#: Nobody's number but Orthanc's, which does not run here. As a number, because the engine then asks no file of the image for it.
_USER = "999:999"

#: It takes 29 MiB with 20,000 images that wait (docs/bench): images themselves do not pass through it.
_LIMITS = Limits(memory=256, shares=512)


@dataclass(frozen=True, kw_only=True)
class ForwarderArgs:
    """What a Forwarder is made from.

    Attributes:
        stack: whose it is.
        image: the image's ID: the node's own, which has Python.
        networks: the network that it is on: its node's own.
        node: the node's name; also its alias on that network.
        links: where the node forwards. Plain: they steer the program.
        revisions: what changes when a destination is deployed anew, by the destination's name; none for a modality.
        password: with what the forwarder logs in at the node.
        trust: what the node is known by; None for a node without TLS.
        delete_after: seconds after its last image came that a series which every destination has confirmed is deleted; None for never.
        address: the host's IP address that the port is bound to.
        host: where the port is reached.
        metrics_port: the host's port for status and metrics; None for none.
        after: what the container starts after and stops before, without being replaced with it: the node, its destinations.
    """

    stack: Ownership
    image: pulumi.Input[str]
    networks: Sequence[pulumi.Input[str]]
    node: str
    links: Sequence[LinkSettings]
    revisions: Mapping[str, pulumi.Input[str]]
    password: pulumi.Input[str]
    trust: Trust | None
    delete_after: int | None
    address: str
    host: str
    metrics_port: int | None
    after: Sequence[pulumi.Resource] = ()


class Forwarder(pulumi.ComponentResource):
    """A container of the node's image that runs this project's forwarder instead of Orthanc.

    It holds no data: what is still to be sent is known from the node's database. It refers to the node by its alias: a new container of
    the node does not replace it. Its public configuration is also an input of this component, with a digest of the program, so that a
    preview shows what changes (see OrthancNode).

    Attributes:
        metrics_url: its metrics for Prometheus, from the host; None where no port is published.
    """

    metrics_url: pulumi.Output[str] | None

    def __init__(self, name: str, args: ForwarderArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        configuration = _public(args)
        trusted = {"trusts": {args.node: args.trust.fingerprint}} if args.trust else {}
        inputs = {"configuration": configuration, "program": _digest(), **trusted}
        super().__init__("orthanc-stack:index:Forwarder", name, inputs, opts)
        made = container(
            f"{name}-container",
            ContainerSpec(
                stack=args.stack,
                name=name,
                role="forwarder",
                image=args.image,
                networks=args.networks,
                limits=_LIMITS,
                user=_USER,
                # -S, -B: nothing of the image's but Python itself, and no compiled files, which it cannot write.
                entrypoint=["python3", "-SB", "-m", "forwarder"],
                environment={"PYTHONPATH": _LIBRARY, "PYTHONUNBUFFERED": "1"},
                files=[
                    *(File(path=f"{_LIBRARY}/forwarder/{file}", content=text) for file, text in _program()),
                    File(path="/etc/forwarder.json", content=configuration.apply(_as_file)),
                    # 0444: root's, as all files are, and the forwarder is not root. There is nobody else in the container.
                    File(path="/run/secrets/forwarder.json", content=_secret(args)),
                    *([File(path=_TRUSTED, content=args.trust.pem)] if args.trust else []),
                ],
                ports=[Port(internal=names.FORWARDER_PORT, external=args.metrics_port, address=args.address)] if args.metrics_port else [],
                healthcheck=eager_probe(_PROBE, seconds_to_start=30),
                # It ends what it waits for. What it was about to send, it finds again.
                grace_seconds=30,
            ),
            self,
            depends_on=list(args.after),
        )
        self.metrics_url = _metrics_url(args, made.name)
        self.register_outputs({"metricsUrl": self.metrics_url})


@cache
def _program() -> tuple[tuple[str, str], ...]:
    """The program's files, sorted: name and text."""
    return tuple((file.name, file.read_text(encoding="utf-8")) for file in sorted(_SOURCE.glob("*.py")))


def _digest() -> str:
    return hashlib.sha256(json.dumps(_program()).encode()).hexdigest()[:12]


def _public(args: ForwarderArgs) -> pulumi.Output[dict[str, Any]]:
    """What the program reads, less the password."""
    known = sorted(args.revisions)

    def configuration(revisions: Sequence[str]) -> dict[str, Any]:
        revision_of = dict(zip(known, revisions, strict=True))
        return {
            "node": args.node,
            "host": args.node,
            "port": names.HTTP_PORT,
            "trust": _TRUSTED if args.trust else None,
            "statusPort": names.FORWARDER_PORT,
            "deleteAfterSeconds": args.delete_after,
            "links": [_link(link, revision_of.get(link.to, "")) for link in args.links],
        }

    return pulumi.Output.all(*(args.revisions[name] for name in known)).apply(configuration)


def _link(link: LinkSettings, revision: str) -> dict[str, Any]:
    return {
        "to": link.to,
        "record": names.record_number(link.to),
        "associations": link.associations,
        "confirm": link.confirm,
        "only": link.only.model_dump(mode="json", by_alias=True),
        "revision": revision,
    }


def _as_file(configuration: Mapping[str, Any]) -> str:
    return json.dumps(configuration, sort_keys=True, indent=1)


def _secret(args: ForwarderArgs) -> pulumi.Output[str]:
    return pulumi.Output.secret(pulumi.Output.json_dumps({"user": names.FORWARDER_USER, "password": args.password}, sort_keys=True))


def _metrics_url(args: ForwarderArgs, container_name: pulumi.Output[str]) -> pulumi.Output[str] | None:
    """By output of the container: it is true when the container serves."""
    port = args.metrics_port
    return container_name.apply(lambda _: f"{url_of(args.host, port)}/metrics") if port else None
