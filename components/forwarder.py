"""The forwarder of a node: a container that sends what the node gets to its destinations, until each has confirmed it."""

from __future__ import annotations

import base64
import bz2
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pulumi

from components.container import File, Limits, Port, container, eager_probe, url_of
from components.engine import reached_at
from components.orthanc_node import OrthancNode
from components.ownership import Ownership
from configs import names
from configs.settings import LinkSettings

_SOURCE = Path(__file__).resolve().parents[1] / "forwarder"
#: The program in the container: a zip file, as bzip2.
_PROGRAM = "/usr/local/lib/orthanc-stack/forwarder.zip.bz2"
#: The same, unpacked at each start, where the forwarder may write. Python imports from it.
_UNPACKED = "/tmp/forwarder.zip"
#: -S, -B: nothing of the image's but Python itself, and no compiled files.
_PYTHON = ("python3", "-SB")
_START = f"""
import bz2, os
with bz2.open("{_PROGRAM}") as packed, open("{_UNPACKED}", "wb") as program:
    program.write(packed.read())
os.execvp("{_PYTHON[0]}", [*{_PYTHON}, "-m", "forwarder"])
"""

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
        image: the image's ID: the node's own, which has Python.
        network: the network that the node is reached on.
        node: the node whose images it sends.
        links: where the node forwards. Plain: they steer the program.
        destinations: those destinations that are nodes of the same program, by name. One that is deployed anew is asked again for what it
            had refused.
        password: the password of the node's user "forwarder".
        delete_after: seconds after its last image came that a series which every destination has confirmed is deleted; None for never.
        address: the host's IP address that the port is bound to.
        host: where the port is reached; the address when left out.
        metrics_port: the host's port for status and metrics; None for none.
        stack: the stack that owns it; None for the stack that Pulumi runs.
    """

    image: pulumi.Input[str]
    network: pulumi.Input[str]
    node: OrthancNode
    links: Sequence[LinkSettings]
    password: pulumi.Input[str]
    destinations: Mapping[str, OrthancNode] = field(default_factory=dict)
    delete_after: int | None = None
    address: str = "127.0.0.1"
    host: str = ""
    metrics_port: int | None = None
    stack: Ownership | None = None


class Forwarder(pulumi.ComponentResource):
    """A container of the node's image that runs this project's forwarder instead of Orthanc.

    It holds no data: what is still to be sent is known from the node's database. It is made after its node and its destinations, and
    stopped before them, without being replaced with them: it refers to them by their names. Its public configuration is also an input of
    this component, with a digest of the program, so that a preview shows what changes (see OrthancNode).

    Attributes:
        metrics_url: its metrics for Prometheus, from the host; None where no port is published.
    """

    metrics_url: pulumi.Output[str] | None

    def __init__(self, name: str, args: ForwarderArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        configuration = _public(args)
        certificate = args.node.tls_certificate
        trusts = {"trusts": {args.node.name: certificate.trust_fingerprint}} if certificate else {}
        program = _program()
        inputs = {"configuration": configuration, "program": hashlib.sha256(program.encode()).hexdigest()[:12], **trusts}
        super().__init__("orthanc-stack:index:Forwarder", name, inputs, opts)
        port = args.metrics_port
        made = container(
            f"{name}-container",
            self,
            stack=args.stack,
            name=name,
            role="forwarder",
            image=args.image,
            networks=[args.network],
            limits=_LIMITS,
            user=_USER,
            entrypoint=[*_PYTHON, "-c", _START],
            environment={"PYTHONPATH": _UNPACKED, "PYTHONUNBUFFERED": "1"},
            files=[
                File(path=_PROGRAM, content=program, base64=True),
                File(path="/etc/forwarder.json", content=configuration.apply(_as_file)),
                # 0444: root's, as all files are, and the forwarder is not root. There is nobody else in the container.
                File(path="/run/secrets/forwarder.json", content=_secret(args)),
                *([File(path=_TRUSTED, content=certificate.trust)] if certificate else []),
            ],
            ports=[Port(internal=names.FORWARDER_PORT, external=port, address=args.address)] if port else [],
            healthcheck=eager_probe(_PROBE, seconds_to_start=30),
            # It ends what it waits for. What it was about to send, it finds again.
            grace_seconds=30,
            after=[args.node, *args.destinations.values()],
        )
        host = args.host or reached_at(args.address)
        # By output of the container: it is true when the container serves.
        self.metrics_url = made.name.apply(lambda _: f"{url_of(host, port)}/metrics") if port else None
        self.register_outputs({"metricsUrl": self.metrics_url})


@cache
def _program() -> str:
    """The program's modules in one file, in base64; the same on every machine.

    One file, and a small one, because the provider compares files slowly in every preview: 18 files took 300 ms for each forwarder, this
    one takes 10. bzip2, because it has one implementation; what deflate makes depends on the machine's zlib. Python cannot import from
    bzip2, so that the zip file inside is not compressed.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(_SOURCE.glob("*.py")):
            entry = zipfile.ZipInfo(f"forwarder/{file.name}")  # dated 1980
            entry.create_system = 3  # Unix, wherever it is made
            archive.writestr(entry, file.read_bytes().replace(b"\r\n", b"\n"))
    return base64.b64encode(bz2.compress(packed.getvalue())).decode()


def _public(args: ForwarderArgs) -> pulumi.Output[dict[str, Any]]:
    """What the program reads, less the password."""

    def configuration(found: Mapping[str, str]) -> dict[str, Any]:
        revisions = dict(found)  # of nothing, Output.all makes a list
        return {
            "node": args.node.name,
            "host": args.node.name,
            "port": names.HTTP_PORT,
            "trust": _TRUSTED if args.node.tls_certificate else None,
            "statusPort": names.FORWARDER_PORT,
            "deleteAfterSeconds": args.delete_after,
            "links": [_link(link, revisions.get(link.to, "")) for link in args.links],
        }

    return pulumi.Output.all(**{name: node.revision for name, node in args.destinations.items()}).apply(configuration)


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
