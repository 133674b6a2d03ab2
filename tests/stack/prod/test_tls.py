"""TLS both ways: of all that a caller or a server may show, only the right certificate passes. Renewed under load, nothing is lost."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import socket
import ssl
import sys
import threading
import urllib.error
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from configs.loader import parse
from ops.stack.authority import AUTHORITY
from ops.stack.secrets import renew_certificates
from ops.stack.terminal import drawn
from tests.stack.dicom import ct_series, echo
from tests.stack.forwarding import await_delivery
from tests.stack.harness import Node, docker
from tests.stack.prod.secured import DEVICE, Secured
from tests.stack.sending import Sender, operated_on, sending
from tests.unit.pki import Pair, calling, serving

pytestmark = [
    pytest.mark.filterwarnings("ignore:ssl.TLSVersion"),
    pytest.mark.skipif(sys.platform != "linux", reason="listens at the engine's own addresses, which a virtual machine has elsewhere"),
]

_UNDER_LOAD = pytest.mark.slow("deploys twice, the second time under load: 90 s")
CASES = ("plain", "no certificate", "foreign authority", "expired", "wrong host", "old protocol", "good")


# --- by DICOM ---


def device_calls(secured: Secured, case: str) -> bool:
    """Whether the node serves a device by DICOM."""
    context = None
    if case != "plain":
        context = calling(secured.shown(case, DEVICE), secured.authority, old=case == "old protocol")
    return echo(dataclasses.replace(secured.client, as_device=context), DEVICE)


def node_calls(secured: Secured, case: str) -> bool:
    """Whether the node speaks with a device that it calls."""
    ae = AE(ae_title=DEVICE)
    ae.add_supported_context(Verification)
    context = None
    if case != "plain":
        context = serving(secured.shown(case, DEVICE), secured.authority, old=case == "old protocol")
    (device,) = secured.stack.settings["modalities"]
    # Where the node finds this machine. The engine's own word for it, the gateway of its default network, is not there at its first start.
    hosts = docker("exec", f"{secured.stack.prefix}-client", "cat", "/etc/hosts").splitlines()
    (address,) = {line.split()[0] for line in hosts if device["host"] in line.split()}
    ae.start_server((address, device["port"]), block=False, ssl_context=context)
    try:
        return secured.client.echoes("scanner")
    finally:
        ae.shutdown()


# --- by HTTP ---


def browser_calls(secured: Secured, case: str) -> bool:
    """Whether a node serves a user who comes by HTTP: users show passwords, not certificates."""
    node = secured.client
    if case == "plain":
        with contextlib.suppress(OSError, urllib.error.URLError):
            return dataclasses.replace(node, url=node.url.replace("https:", "http:"), trust="").ask("/system")[0] == 200
        return False
    host, port = node.url.removeprefix("https://").split(":")
    context = calling(None, secured.authority, old=case == "old protocol")
    context.check_hostname = True
    with (
        contextlib.suppress(OSError),
        socket.create_connection((host, int(port)), 10) as raw,
        context.wrap_socket(raw, server_hostname=host),
    ):
        return True
    return False


# --- by PostgreSQL's protocol ---


def node_calls_database(secured: Secured, case: str) -> bool:
    """Whether libpq, told what a node is told, says who it is to a server in the database's place."""
    prefix = secured.stack.prefix
    uri = json.loads(docker("exec", f"{prefix}-server", "cat", "/run/secrets/orthanc.json"))["PostgreSQL"]["ConnectionUri"]
    trusted = re.search(r"sslrootcert=(\S+)", uri)
    assert trusted is not None
    pem = docker("exec", f"{prefix}-server", "cat", trusted[1])
    docker("exec", f"{prefix}-db", "sh", "-c", f"echo '{pem}' > /tmp/trusted.pem")
    context = None if case == "plain" else serving(secured.shown(case, "db"), old=case == "old protocol")
    address = gateway(f"{prefix}-index")
    with FakeDatabase(address, context) as fake:
        told = uri.replace(trusted[1], "/tmp/trusted.pem").replace("@db:5432", f"@db:{fake.port}")
        docker("exec", f"{prefix}-db", "psql", f"{told}&hostaddr={address}&connect_timeout=5", "-c", "select 1", check=False)
        return fake.said_who_it_is


def somebody_calls_database(secured: Secured, case: str) -> bool:
    """Whether the database talks with somebody who has the password."""
    address = json.loads(docker("inspect", f"{secured.stack.prefix}-db"))[0]["NetworkSettings"]["Networks"]
    host = next(one["IPAddress"] for name, one in address.items() if name.endswith("-index"))
    if case in ("plain", "good"):
        mode = "disable" if case == "plain" else "verify-full"
        login = f"user=orthanc_server password={secured.stack.secrets['dbPassword.server']} dbname=orthanc_server"
        where = f"host=db hostaddr={host} sslmode={mode} sslrootcert=/tmp/trusted.pem"
        return docker("exec", f"{secured.stack.prefix}-db", "psql", f"{login} {where}", "-Atc", "select 1", check=False) == "1"
    with contextlib.suppress(OSError), socket.create_connection((host, 5432), 10) as raw:
        raw.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f")  # SSLRequest
        assert raw.recv(1) == b"S"
        with calling(None, secured.hospital.pem, old=True).wrap_socket(raw):
            return True
    return False


class FakeDatabase:
    """Takes one connection as PostgreSQL would, up to the first message in which the client names its role."""

    def __init__(self, address: str, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._listener = socket.create_server((address, 0))
        self._listener.settimeout(20)
        self._thread = threading.Thread(target=self._serve)
        self.port = self._listener.getsockname()[1]
        self.said_who_it_is = False

    def __enter__(self) -> FakeDatabase:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(30)
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            with connection:
                connection.settimeout(10)
                asked = connection.recv(8)
                connection.sendall(b"S" if self._context else b"N")
                talk = self._context.wrap_socket(connection, server_side=True) if self._context else connection
                self.said_who_it_is = len(asked) == 8 and b"orthanc_server" in talk.recv(1000)


def gateway(network: str) -> str:
    """This machine's address on a network of the engine's."""
    return str(json.loads(docker("network", "inspect", network))[0]["IPAM"]["Config"][0]["Gateway"])


#: Who calls whom, and by what; the cases that there are.
WAYS: dict[str, tuple[Callable[[Secured, str], bool], tuple[str, ...]]] = {
    "DICOM: a device calls a node": (device_calls, CASES),
    "DICOM: a node calls a device": (node_calls, CASES),
    "HTTPS: a user calls a node": (browser_calls, ("plain", "old protocol", "good")),
    "PostgreSQL: a node calls the database": (node_calls_database, CASES),
    "PostgreSQL: somebody calls the database": (somebody_calls_database, ("plain", "old protocol", "good")),
}


@pytest.fixture(scope="module")
def matrix(secured: Secured, artifacts: Path) -> dict[tuple[str, str], bool]:
    """What passes, by way and case."""
    seen = {(way, case): call(secured, case) for way, (call, cases) in WAYS.items() for case in cases}
    words = {True: "passes", False: "refused", None: "-"}
    rows = [(way, *(words[seen.get((way, case))] for case in CASES)) for way in WAYS]
    (artifacts / "tls.txt").write_text(drawn(("who calls whom", *CASES), rows) + "\n")
    return seen


@pytest.mark.parametrize(("way", "case"), [(way, case) for way, (_, cases) in WAYS.items() for case in cases])
def test_only_the_good_one_passes(matrix: dict[tuple[str, str], bool], way: str, case: str) -> None:
    assert matrix[way, case] == (case == "good")


def test_the_old_protocol_is_one_that_the_tests_can_speak(secured: Secured) -> None:
    """Else its refusal would prove nothing."""
    pair = secured.hospital.issue("db")
    listener = socket.create_server(("127.0.0.1", 0))
    spoken: list[str | None] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with serving(pair, old=True).wrap_socket(connection, server_side=True) as talk:
            spoken.append(talk.version())

    thread = threading.Thread(target=serve)
    thread.start()
    with socket.create_connection(listener.getsockname()) as raw, calling(None, secured.hospital.pem, old=True).wrap_socket(raw) as talk:
        assert talk.version() == "TLSv1.1"
    thread.join(10)
    listener.close()
    assert spoken == ["TLSv1.1"]


def test_every_connection_to_the_database_is_encrypted(secured: Secured) -> None:
    query = "select bool_and(ssl), count(*) from pg_stat_ssl join pg_stat_activity using (pid) where usename like 'orthanc%'"
    encrypted, count = secured.stack.sql(query, database="postgres").split("|")
    assert encrypted == "t"
    assert int(count) >= 2


# --- renewed under load ---


@dataclass
class Renewed:
    """What became of a renewal of all certificates."""

    before: dict[str, str]
    old_client: Pair
    sender: Sender


@pytest.fixture(scope="module")
def renewed(secured: Secured, matrix: object) -> Renewed:
    """The authority and with it all its certificates are made anew, the database's too, while a device sends to the client."""
    stack = secured.stack
    client, shown, first = secured.client, secured.shown("good", DEVICE), secured.authority

    def as_device() -> Node:
        """The device trusts the authority, and from the renewal on the new one, too."""
        return dataclasses.replace(client, as_device=calling(shown, first + secured.authority))

    # From here on the database's is the stack's own, too.
    for key in ("tlsTrust.db", "tlsCertificate.db"):
        del stack.certificates[key]
    stack.up()
    sender = Sender(as_device, ct_series(slices=400, size=16), DEVICE)
    old = secured.own("client")
    before = dict(stack.certificates)
    with sending(sender), operated_on(stack) as seen:
        settings = parse(stack.settings)[0] or pytest.fail("the settings are refused")
        assert renew_certificates(seen, settings, [AUTHORITY])
        stack.adopt_certificates()
        stack.up()
    return Renewed(before, old, sender)


@_UNDER_LOAD
def test_a_renewal_under_load_loses_nothing(secured: Secured, renewed: Renewed, artifacts: Path) -> None:
    sender, stack = renewed.sender, secured.stack
    (artifacts / "tls-renewal.txt").write_text(f"{len(sender.taken)} images, longest interruption {sender.longest:.1f} s\n")
    changed = {key for key, value in renewed.before.items() if stack.certificates[key] != value}
    parties = ("client", "db", "server")
    assert changed == {"tlsCaCertificate", *(f"{kind}.{party}" for kind in ("tlsCertificate", "tlsTrust") for party in parties)}
    assert len(sender.taken) > 10
    await_delivery(stack, "client", "server")
    assert stack.node("client").holds(sender.taken).keys() == set(sender.taken) == stack.node("server").holds(sender.taken).keys()
    assert sender.longest < 30


@_UNDER_LOAD
def test_the_old_certificate_opens_nothing(secured: Secured, renewed: Renewed) -> None:
    """The client's, at the server, which trusted it: the new one passes."""
    stack = secured.stack
    server = stack.node("server")
    for pair, passes in ((renewed.old_client, False), (secured.own("client"), True)):
        assert echo(dataclasses.replace(server, as_device=calling(pair, secured.authority)), "ORTHANC_CLIENT") == passes
