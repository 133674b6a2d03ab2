"""The stack of these tests: prod's, with TLS everywhere, on the contract images, and a device that speaks DICOM TLS.

The device and the database have certificates of another authority, as a hospital gives them; the nodes those of the stack's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.stack.harness import Node, Stack
from tests.stack.like_dev import USERS
from tests.unit.pki import Authority, Pair, calling

DEVICE = "SCANNER"


@dataclass
class Secured:
    """A stack with TLS everywhere.

    Attributes:
        stack: the stack.
        hospital: who signs for the device and the database.
        foreign: who signs for nobody here.
    """

    stack: Stack
    hospital: Authority
    foreign: Authority

    def shown(self, case: str, name: str) -> Pair | None:
        """What somebody shows whose certificate should be the hospital's, for a name."""
        made: dict[str, Callable[[], Pair | None]] = {
            "no certificate": lambda: None,
            "foreign authority": lambda: self.foreign.issue(name),
            "expired": lambda: self.hospital.issue(name, over=True),
            # For DICOM, of the stack's own authority, and trusted there by nobody; elsewhere the hospital's for somebody else.
            "wrong host": lambda: self.own("client") if name == DEVICE else self.hospital.issue("elsewhere"),
        }
        return made.get(case, lambda: self.hospital.issue(name))()

    def own(self, node: str) -> Pair:
        """The certificate that the stack's authority made for a node."""
        return Pair(self.stack.certificates[f"tlsCertificate.{node}"], self.stack.secrets[f"tlsKey.{node}"])

    @property
    def authority(self) -> str:
        """The stack's own authority."""
        return self.stack.certificates["tlsCaCertificate"]

    @property
    def client(self) -> Node:
        """The node that the device sends to."""
        return dataclasses.replace(self.stack.node("client"), as_device=calling(self.shown("good", DEVICE), self.authority))


@contextmanager
def deployed(program: Path, images: dict[str, str]) -> Iterator[Secured]:
    """Deploy it, and remove it afterwards."""
    stack, hospital = Stack(program, "prod", images=images), Authority("hospital")
    for node in stack.settings["nodes"]:
        node["users"] = USERS
    device = {
        "name": "scanner",
        "aet": DEVICE,
        "host": "host.docker.internal",
        "nodes": ["client"],
        "allow": ["echo", "store"],
        "tls": True,
    }
    stack.settings["modalities"] = [device]
    stack.give_ports()
    db = hospital.issue("db")
    stack.certificates |= {"tlsTrust.scanner": hospital.pem, "tlsTrust.db": hospital.pem, "tlsCertificate.db": db.certificate}
    stack.secrets["tlsKey.db"] = db.key
    with stack.deployed():
        yield Secured(stack, hospital, Authority("foreign"))
