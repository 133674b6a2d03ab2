"""What `verify` asks a running stack: one function a check, each saying what it found."""

import functools
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from components.engine import is_loopback
from configs.names import DB_SUPERUSER
from ops.stack.engine import FORWARDER_ASK, Container
from ops.stack.forwarding import summary


class CheckFailedError(Exception):
    """A check did not pass. Its text is the reason, and holds no secret."""


@dataclass(frozen=True)
class Node:
    """A node as the stack's outputs describe it."""

    name: str
    aet: str  #: its AE title
    url: str  #: its web interface and REST API
    forward_to: tuple[str, ...]  #: the nodes and modalities that it forwards to
    index: str  #: where its index is: postgresql, sqlite
    database: str | None  #: the database of its index
    users: Mapping[str, str] = field(repr=False)  #: its users' passwords
    roles: Mapping[str, str] = field(default_factory=dict)  #: its users' roles
    trust: str = field(default="", repr=False)  #: what its certificate is known by, as PEM; empty for one without TLS

    @property
    def loopback(self) -> bool:
        """Whether only its own machine reaches it."""
        return is_loopback(urlsplit(self.url).hostname or "")

    @property
    def login(self) -> tuple[str, str]:
        """An admin and the password."""
        return next((user, password) for user, password in self.users.items() if self.roles.get(user, "admin") == "admin")

    def ask(self, path: str, login: tuple[str, str] | None = None, body: bytes | None = None) -> httpx.Response:
        """GET a path of its REST API, or POST a body to it; any status is an answer. A CheckFailedError where there is none."""
        return request(self.url + path, login, body, trust=self.trust, name=self.name)


def nodes_of(outputs: Mapping[str, Any]) -> list[Node]:
    """The nodes that the outputs describe, by name."""
    return [
        Node(
            name=name,
            aet=node["aet"],
            url=str(node["httpUrl"]).rstrip("/"),
            forward_to=tuple(node.get("forwardTo") or ()),
            index=node["index"],
            database=node.get("indexDatabase"),
            users=(outputs.get("users") or {}).get(name) or {},
            roles=node.get("roles") or {},
            trust=node.get("tlsTrust") or "",
        )
        for name, node in sorted((outputs.get("nodes") or {}).items())
    ]


@functools.cache
def http_client(trust: str = "") -> httpx.Client:
    """What asks nodes whose certificate is known by this (PEM), or that have none; never by the proxy that the environment names."""
    context = ssl.create_default_context(cadata=trust) if trust else False
    return httpx.Client(verify=context, trust_env=False, timeout=20, limits=httpx.Limits(max_keepalive_connections=0))


def request(url: str, login: tuple[str, str] | None = None, body: Any = None, *, trust: str = "", name: str = "") -> httpx.Response:
    """GET an address, or POST a body to it; any status is an answer. A CheckFailedError where there is none.

    `trust` is what the certificate of the address is known by; `name` is in that certificate, whatever address it is reached by.
    """
    # The name that TLS asks for, and compares with the certificate (https://www.python-httpx.org/advanced/extensions/#sni_hostname).
    extensions = {"sni_hostname": name} if trust else {}
    try:
        return http_client(trust).request("GET" if body is None else "POST", url, auth=login, content=body, extensions=extensions)
    except httpx.HTTPError as error:
        raise CheckFailedError(f"no answer from {url}: {error or type(error).__name__}") from None


def check_login(node: Node, user: str) -> str:
    """A user gets in with the password; nobody gets in with another one, or with none."""
    right = node.ask("/system", (user, node.users[user])).status_code
    if right != 200:
        raise CheckFailedError(f"{user}'s password is answered with {right} instead of 200; was it changed since the last `up`?")
    for what, login in (("a wrong password", (user, "not-the-password")), ("no password", None)):
        status = node.ask("/system", login).status_code
        if status != 401:
            raise CheckFailedError(f"{what} is answered with {status} instead of 401: the node is open to anyone")
    return "password accepted; a wrong one and none refused"


def check_echo(node: Node, peer: Node) -> str:
    """The node reaches its peer by DICOM: a C-ECHO, sent from inside the node's container."""
    started = time.monotonic()
    reply = node.ask(f"/modalities/{peer.name}/echo", node.login, b"{}")
    if reply.status_code == 404:
        raise CheckFailedError(f"{node.name} does not know {peer.name}: `up` is due")
    if reply.status_code != 200:
        raise CheckFailedError(f"C-ECHO to {peer.aet} failed ({reply.status_code}): {reason(reply)}")
    return f"{node.aet} -> {peer.aet} in {(time.monotonic() - started) * 1000:.0f} ms"


def check_index(node: Node, database: Container | None) -> str:
    """The node's index is where it should be: the database holds the changes that the node tells of, also while images arrive or go."""
    plugin = str(node.ask("/system", node.login).json().get("DatabaseBackendPlugin") or "")
    if node.index != "postgresql":
        if plugin:
            raise CheckFailedError(f"the index should be SQLite, but is in {plugin}")
        return "SQLite"
    if "postgresql" not in plugin.lower():
        raise CheckFailedError(f"the index should be in PostgreSQL, but is in {plugin or 'SQLite'}: was the plugin loaded? See its log")
    if database is None:
        raise CheckFailedError("there is no container of the database")
    # What the database says lies between what the node says before and after. Changes go with the images that they are of. Where none is
    # left, the node tells the number of the last one that there was (StatelessDatabaseOperations::GetLastChange).
    before = _last_change(node)
    command = ["psql", "-U", DB_SUPERUSER, "-h", "/var/run/postgresql", "-d", node.database or "", "-AtXc"]
    last = "select coalesce((select max(seq) from changes), (select max(value) from globalintegers where key = 6), 0)"
    held = int(database.run([*command, last]))
    after = _last_change(node)
    if not min(before, after) <= held <= max(before, after):
        raise CheckFailedError(f"database {node.database} ends at change {held}, the node at {after}: it writes to another one")
    count = node.ask("/statistics", node.login).json()["CountInstances"]
    return f"PostgreSQL, database {node.database}, as the node says: {count} instances, change {held}"


def _last_change(node: Node) -> int:
    return int(node.ask("/changes?last", node.login).json()["Last"])


def check_adminer(url: str) -> str:
    """Adminer shows its login page."""
    reply = request(url)
    if reply.status_code != 200 or "auth[" not in reply.text:
        raise CheckFailedError(f"{url} answers {reply.status_code} and shows no login form of Adminer: is something else on that port?")
    return "login page shown"


def reason(reply: httpx.Response) -> str:
    """Why Orthanc refused something, in its own words."""
    try:
        said = reply.json()
        return str(said.get("Details") or said.get("Message") or reply.text[:80])
    except (ValueError, AttributeError):
        return reply.text[:80]


def check_forwarder(container: Container | None) -> str:
    """The node's forwarder reaches the node; how its links do. A destination that is away is no fault of the forwarder."""
    if container is None:
        raise CheckFailedError("there is no container of the forwarder")
    said = json.loads(container.run([*FORWARDER_ASK, "status"]))
    if not said["nodeAnswers"]:
        raise CheckFailedError(f"it cannot reach its node; see: docker logs --tail 30 {container.name}")
    return "; ".join(map(summary, said["links"]))
