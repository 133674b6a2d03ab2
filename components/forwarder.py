"""The forwarder of a node: a container that sends the node's new images to its destinations, until each has confirmed them."""

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

from components.container import File, Limits, PublishedArgs, container
from components.orthanc_node import OrthancNode
from configs import names
from configs.settings import LinkSettings

_SOURCE = Path(__file__).resolve().parents[1] / "forwarder"
#: The program in the container: a zip file, as bzip2.
_PROGRAM = "/usr/local/lib/orthanc-stack/forwarder.zip.bz2"
#: The same, unpacked at each start to where the forwarder may write. Python imports from it.
_UNPACKED = "/tmp/forwarder.zip"
#: -S, -B: no packages of the image's, and no compiled files.
_PYTHON = ("python3", "-SB")
_START = f"""
import bz2, os
with bz2.open("{_PROGRAM}") as packed, open("{_UNPACKED}", "wb") as program:
    program.write(packed.read())
os.execvp("{_PYTHON[0]}", [*{_PYTHON}, "-m", "forwarder"])
"""

_TRUSTED = "/etc/forwarder-trusted.pem"

#: The forwarder touches the file while its loops go round.
_PROBE = "find /tmp/forwarder-alive -newermt '-60 seconds' | grep -q ."
#: Only Orthanc's user has this number, and Orthanc does not run here. As a number, because the engine then reads no file of the image.
_USER = "999:999"
#: It takes 29 MiB with 20,000 images that wait (docs/bench): images themselves do not pass through it.
_LIMITS = Limits(memory=256, shares=512)


@dataclass(frozen=True, kw_only=True)
class ForwarderArgs(PublishedArgs):
    """The arguments of a Forwarder. Its image is the node's own, which has Python."""

    network: pulumi.Input[str]  #: The network that the node is reached on.
    node: OrthancNode  #: The node whose images it sends.
    links: Sequence[LinkSettings]  #: Where the node forwards.
    password: pulumi.Input[str]  #: The password of the node's user "forwarder".
    #: The destinations that are nodes of the same program, by name; the others are devices outside. When one is deployed anew, it is sent
    #: again what it had refused.
    destinations: Mapping[str, OrthancNode] = field(default_factory=dict)
    #: A series that every destination has confirmed is deleted so many seconds after its last image came; None for never.
    delete_after: int | None = None
    metrics_port: int | None = None  #: The host's port for status and metrics; None for none.


class Forwarder(pulumi.ComponentResource):
    """A container of the node's image that runs this project's forwarder instead of Orthanc.

    It holds no data: the node's database tells what is still to be sent. It refers to its node and its destinations by their names: it is
    made after them and stopped before them, and not replaced with them. Its public configuration is also an input of this component, with
    a digest of the program, so that a preview shows what changes (see OrthancNode).
    """

    metrics_url: pulumi.Output[str] | None  #: Its metrics for Prometheus, from the host; None where no port is published.

    def __init__(self, name: str, args: ForwarderArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        if strangers := [link.to for link in args.links if link.to not in args.node.peers]:
            raise pulumi.RunError(f"Forwarder {name}: links: {', '.join(strangers)}: no peer of the node {args.node.name}")
        configuration = _public(args)
        certificate = args.node.tls_certificate
        trusts = {"trusts": {args.node.name: certificate.trust_fingerprint}} if certificate else {}
        program = _program()
        inputs = {"configuration": configuration, "program": hashlib.sha256(program.encode()).hexdigest()[:12], **trusts}
        super().__init__("orthanc-stack:index:Forwarder", name, inputs, opts)
        port = args.metrics_port
        login = pulumi.Output.json_dumps({"user": names.FORWARDER_USER, "password": args.password}, sort_keys=True)
        made = container(
            f"{name}-container",
            self,
            args,
            name=name,
            role="forwarder",
            networks=[args.network],
            limits=_LIMITS,
            user=_USER,
            entrypoint=[*_PYTHON, "-c", _START],
            environment={"PYTHONPATH": _UNPACKED, "PYTHONUNBUFFERED": "1"},
            files=[
                File(path=_PROGRAM, content=program, base64=True),
                File(path="/etc/forwarder.json", content=configuration.apply(lambda public: json.dumps(public, sort_keys=True, indent=1))),
                # 0444: files are root's, and the forwarder is not root. The container has no other user.
                File(path="/run/secrets/forwarder.json", content=pulumi.Output.secret(login)),
                *([File(path=_TRUSTED, content=certificate.trust)] if certificate else []),
            ],
            ports={names.FORWARDER_PORT: port} if port else {},
            address=args.address,
            probe=_PROBE,
            # It ends what it has begun. The rest it finds again.
            grace_seconds=30,
            after=[args.node, *args.destinations.values()],
        )
        # An output of the container: it exists when the container serves.
        self.metrics_url = made.name.apply(lambda _: f"{args.url(port)}/metrics") if port else None
        self.register_outputs({"metricsUrl": self.metrics_url})


@cache
def _program() -> str:
    """The program's modules in one file, in base64; the same on every machine.

    One small file, because the provider compares files slowly in every preview: 18 files took 300 ms for each forwarder, this one takes
    20. bzip2, because it has one implementation; what deflate makes depends on the machine's zlib. Python cannot import from bzip2: it
    imports from the zip file inside, which is not compressed.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(_SOURCE.glob("*.py")):
            entry = zipfile.ZipInfo(f"forwarder/{file.name}")  # dated 1980
            entry.create_system = 3  # Unix, wherever it is made
            archive.writestr(entry, file.read_bytes().replace(b"\r\n", b"\n"))
    return base64.b64encode(bz2.compress(packed.getvalue())).decode()


def _public(args: ForwarderArgs) -> pulumi.Output[dict[str, Any]]:
    """The program's configuration without the password."""

    def configuration(found: Mapping[str, str]) -> dict[str, Any]:
        revisions = dict(found)  # of nothing, Output.all makes a list
        return {
            "node": args.node.name,
            "host": args.node.name,
            "port": names.HTTP_PORT,
            "trust": _TRUSTED if args.node.tls_certificate else None,
            "statusPort": names.FORWARDER_PORT,
            "deleteAfterSeconds": args.delete_after,
            "scuTimeout": args.node.scu_timeout,
            "links": [
                {
                    "to": link.to,
                    "record": names.record_number(link.to),
                    "aet": args.node.peers[link.to].endpoint.aet,
                    "outside": link.to not in args.destinations,
                    "associations": link.associations,
                    "confirm": link.confirm,
                    "only": link.only.model_dump(mode="json", by_alias=True, exclude_none=True),
                    "not": link.but_not.model_dump(mode="json", by_alias=True, exclude_none=True),
                    "revision": revisions.get(link.to, ""),
                }
                for link in args.links
            ],
        }

    return pulumi.Output.all(**{name: node.revision for name, node in args.destinations.items()}).apply(configuration)
