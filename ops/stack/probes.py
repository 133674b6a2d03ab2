"""What `make verify` asks a running stack: one function a check, each saying what it found."""

from __future__ import annotations

import base64
import functools
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from configs.names import DB_SUPERUSER
from ops.stack.containers import FORWARDER_ASK, Docker

_TIMEOUT_SECONDS = 20
#: How long a forwarder that was just started may take to reach its node.
_FORWARDER_SECONDS = 10
#: How often an image may arrive between the two counts before they are held against each other.
_COUNT_ATTEMPTS = 4

#: The stack is on this machine or on a host that the user names: never behind the proxy that the environment names.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class CheckFailedError(Exception):
    """A check did not pass. Its text is the reason, and holds no secret."""


@dataclass(frozen=True)
class Node:
    """A node as the stack's outputs describe it.

    Attributes:
        name: its name.
        aet: its AE title.
        url: its web interface and REST API.
        forward_to: the nodes and modalities that it forwards to.
        index: where its index is: postgresql, sqlite.
        database: the database of its index, or None.
        users: its users' passwords.
        roles: its users' roles.
        trust: what its certificate is known by, as PEM; empty for one without TLS.
    """

    name: str
    aet: str
    url: str
    forward_to: tuple[str, ...]
    index: str
    database: str | None
    users: Mapping[str, str] = field(repr=False)
    roles: Mapping[str, str] = field(default_factory=dict)
    trust: str = field(default="", repr=False)

    def ask(self, path: str, login: tuple[str, str] | None = None, body: bytes | None = None) -> Reply:
        """GET a path of its REST API, or POST a body to it."""
        return request(self.url + path, login, body, opener_of(self.trust, self.name))

    @property
    def login(self) -> tuple[str, str]:
        """An admin and the password."""
        return next((user, password) for user, password in self.users.items() if self.roles.get(user, "admin") == "admin")


@dataclass(frozen=True)
class Reply:
    """An HTTP answer."""

    status: int
    body: str

    def json(self) -> dict[str, Any]:
        """The body, as an object."""
        try:
            return dict(json.loads(self.body))
        except (ValueError, TypeError):
            raise CheckFailedError(f"the answer is not JSON: {self.body[:80]!r}") from None


def nodes_of(outputs: Mapping[str, Any]) -> list[Node]:
    """The nodes in a stack's outputs, which must hold the users in clear."""
    users = outputs.get("users") or {}
    return [
        Node(
            name=name,
            aet=node["aet"],
            url=node["httpUrl"].rstrip("/"),
            forward_to=tuple(node.get("forwardTo") or ()),
            index=node["index"],
            database=node.get("indexDatabase"),
            users=users.get(name) or {},
            roles=node.get("roles") or {},
            trust=node.get("tlsTrust") or "",
        )
        for name, node in sorted((outputs.get("nodes") or {}).items())
    ]


class _Named(ssl.SSLContext):
    """Looks in a certificate for a given name instead of the address that was asked."""

    name: str

    def wrap_socket(self, *arguments: Any, **more: Any) -> ssl.SSLSocket:
        return super().wrap_socket(*arguments, **{**more, "server_hostname": self.name})


@functools.cache
def opener_of(trust: str, name: str) -> urllib.request.OpenerDirector:
    """What opens addresses of a node.

    Args:
        trust: what its certificate is known by, as PEM; empty for one without TLS.
        name: the node's name, which is in its certificate whatever address it is reached by.
    """
    if not trust:
        return _OPENER
    context = _Named(ssl.PROTOCOL_TLS_CLIENT)
    context.name = name
    context.load_verify_locations(cadata=trust)
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))


def request(
    url: str,
    login: tuple[str, str] | None = None,
    body: bytes | None = None,
    opener: urllib.request.OpenerDirector = _OPENER,
) -> Reply:
    """GET an address, or POST a body to it; any status is an answer.

    Raises:
        CheckFailedError: there was no answer.
    """
    asked = urllib.request.Request(url, data=body)
    if login:
        asked.add_header("Authorization", "Basic " + base64.b64encode(":".join(login).encode()).decode())
    try:
        with opener.open(asked, timeout=_TIMEOUT_SECONDS) as answer:
            return Reply(answer.status, answer.read().decode(errors="replace"))
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, error.read().decode(errors="replace"))
    except (OSError, urllib.error.URLError) as error:
        raise CheckFailedError(f"no answer from {url}: {getattr(error, 'reason', error)}") from None


def check_login(node: Node, user: str) -> str:
    """A user gets in with the password; nobody gets in with another one, or with none."""
    right = node.ask("/system", (user, node.users[user])).status
    if right != 200:
        raise CheckFailedError(f"{user}'s password is answered with {right} instead of 200; was it changed since the last `make up`?")
    for what, login in (("a wrong password", (user, "not-the-password")), ("no password", None)):
        status = node.ask("/system", login).status
        if status != 401:
            raise CheckFailedError(f"{what} is answered with {status} instead of 401: the node is open to anyone")
    return "password accepted; a wrong one and none refused"


def check_echo(node: Node, peer: Node) -> str:
    """The node reaches its peer by DICOM: a C-ECHO, sent from inside the node's container."""
    started = time.monotonic()
    reply = node.ask(f"/modalities/{peer.name}/echo", node.login, b"{}")
    if reply.status == 404:
        raise CheckFailedError(f"{node.name} does not know {peer.name}: run `make up`")
    if reply.status != 200:
        raise CheckFailedError(f"C-ECHO to {peer.aet} failed ({reply.status}): {_reason(reply)}")
    return f"{node.aet} -> {peer.aet} in {(time.monotonic() - started) * 1000:.0f} ms"


def check_index(node: Node, docker: Docker, db_container: str) -> str:
    """The node's index is where it should be; one in PostgreSQL holds the instances that the node says it has."""
    plugin = str(node.ask("/system", node.login).json().get("DatabaseBackendPlugin") or "")
    if node.index != "postgresql":
        if plugin:
            raise CheckFailedError(f"the index should be SQLite, but is in {plugin}")
        return "SQLite"
    if "postgresql" not in plugin.lower():
        raise CheckFailedError(
            f"the index should be in PostgreSQL, but is in {plugin or 'SQLite'}: was the plugin loaded? See the node's log"
        )
    sql = "select count(*) from resources where resourcetype = 3"
    psql = ["psql", "-U", DB_SUPERUSER, "-h", "/var/run/postgresql", "-d", node.database or "", "-AtXc", sql]
    for _ in range(_COUNT_ATTEMPTS):
        before = _count(node)
        rows = int(docker(["exec", "--user", DB_SUPERUSER, db_container, *psql]))
        # Images may arrive, or be deleted, between the two questions.
        if rows in (before, after := _count(node)):
            return f"PostgreSQL, database {node.database}: {rows} instances, as the node says"
    raise CheckFailedError(f"database {node.database} holds {rows} instances, the node says {after}: it writes to another one")


def check_adminer(url: str) -> str:
    """Adminer shows its login page."""
    reply = request(url)
    if reply.status != 200:
        raise CheckFailedError(f"{url} answers {reply.status} instead of 200")
    if "auth[" not in reply.body:
        raise CheckFailedError(f"{url} does not show Adminer's login form; something else is on that port")
    return "login page shown"


def _count(node: Node) -> int:
    return int(node.ask("/statistics", node.login).json()["CountInstances"])


def _reason(reply: Reply) -> str:
    try:
        said = json.loads(reply.body)
        return str(said.get("Details") or said.get("Message") or reply.body[:80])
    except (ValueError, AttributeError):
        return reply.body[:80]


def check_forwarder(docker: Docker, container: str) -> str:
    """The node's forwarder reaches the node; what waits on its links.

    What a destination says is not looked at: an archive that is away is no fault of the forwarder, and each C-ECHO tells of it.
    """
    end = time.monotonic() + _FORWARDER_SECONDS
    while not (said := json.loads(docker(["exec", container, *FORWARDER_ASK, "status"])))["nodeAnswers"]:
        if time.monotonic() > end:
            raise CheckFailedError(f"it cannot reach its node; see: docker logs --tail 30 {container}")
        time.sleep(0.5)
    links = [(link["to"], link["waiting"] + link["inFlight"], link["setAside"]) for link in said["links"]]
    return "; ".join(f"to {to}: {waiting} on their way, {aside} set aside" for to, waiting, aside in links)
