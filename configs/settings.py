"""The settings of one stack, as they stand in its stack file.

Plain values only, frozen, unknown keys refused. A field's rules are here; rules that hold between fields are in
checks.py. The descriptions are the reference: docs/settings.md and docs/settings.schema.json are made from them.
"""

from __future__ import annotations

import ipaddress
import re
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

#: Names that the stack gives to containers of its own on the private network.
RESERVED_NAMES = frozenset({"adminer", "db", "db-roles"})

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}[a-z0-9]|[a-z]")
_USER = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:]+")
_TAGGED_IMAGE = re.compile(r"(?P<name>[^\s:@]+(?::\d+/[^\s:@]+)?)(?::(?P<tag>[\w][\w.-]{0,127}))?(?P<digest>@sha256:[0-9a-f]{64})?")


def _check_name(name: str) -> str:
    if name in RESERVED_NAMES:
        raise ValueError(f"is taken by a container of the stack itself; the names {', '.join(sorted(RESERVED_NAMES))} are reserved.")
    if not _NAME.fullmatch(name):
        raise ValueError(
            "is not a host name: 1 to 32 lower-case letters, digits and hyphens, beginning with a letter, not ending with a hyphen."
        )
    return name


def _check_aet(aet: str) -> str:
    """An AE title: DICOM PS3.5 section 6.2, value representation AE. Orthanc refuses the same ones at its start."""
    if not aet or not aet.strip():
        raise ValueError("is empty; an AE title has 1 to 16 characters.")
    if len(aet) > 16:
        raise ValueError(f"has {len(aet)} characters; an AE title has at most 16.")
    if "\\" in aet:
        raise ValueError("holds a backslash, which separates values in DICOM; use letters, digits, '_' and '-'.")
    if not aet.isascii() or not aet.isprintable():
        raise ValueError("holds a control or non-ASCII character; use letters, digits, '_' and '-'.")
    if aet != aet.strip():
        raise ValueError("begins or ends with a space, which DICOM ignores; leave it out.")
    return aet


def _check_port(port: int) -> int:
    if not 1 <= port <= 65535:
        raise ValueError("is out of range; a port is 1 to 65535.")
    return port


def _check_user(user: str) -> str:
    if not _USER.fullmatch(user):
        raise ValueError("is not a user name: 1 to 32 letters, digits, '_' and '-', beginning with a letter.")
    return user


def _check_address(address: str) -> str:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise ValueError("is not an IP address of this machine, such as 127.0.0.1, or 0.0.0.0 for all of them.") from None
    return address


def _check_host(host: str) -> str:
    if not _HOST.fullmatch(host):
        raise ValueError("is neither a host name nor an IP address.")
    return host


def _check_image(image: str) -> str:
    match = _TAGGED_IMAGE.fullmatch(image)
    if match is None:
        raise ValueError("is not the name of an image; write it as name:tag, or name:tag@sha256:…")
    if match["tag"] == "latest":
        raise ValueError("floats: 'latest' is another image tomorrow; name an exact version.")
    if match["tag"] is None and match["digest"] is None:
        raise ValueError("has no tag, which means 'latest', another image tomorrow; name an exact version.")
    return image


def _from_list(value: Any) -> Any:
    """Lists become tuples, so that settings stay frozen; anything else is left for pydantic to refuse."""
    return tuple(value) if isinstance(value, list) else value


NodeName = Annotated[str, AfterValidator(_check_name)]
AeTitle = Annotated[str, AfterValidator(_check_aet)]
Port = Annotated[int, AfterValidator(_check_port)]
UserName = Annotated[str, AfterValidator(_check_user)]
BindAddress = Annotated[str, AfterValidator(_check_address)]
Host = Annotated[str, AfterValidator(_check_host)]
Image = Annotated[str, AfterValidator(_check_image)]


class Operation(StrEnum):
    """What one DICOM node may ask of another."""

    ECHO = "echo"
    STORE = "store"
    FIND = "find"
    GET = "get"
    MOVE = "move"


class _Settings(BaseModel):
    """Frozen, strict (no "4242" for 4242), unknown keys refused, camelCase in the stack file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=to_camel, populate_by_name=False)


class ImageSettings(_Settings):
    """Which container images the stack runs, and where they come from."""

    source: Literal["auto", "registry", "local"] = Field(
        default="registry",
        description="'registry': pull the images named here. 'local': the ones built from images/ out of Debian's packages, for sites "
        "that reach no registry. 'auto' (dev only): the locally built ones where the engine holds them, else the registry's.",
    )
    orthanc: Image = Field(default="orthancteam/orthanc:26.8.1", description="the registry's image of Orthanc, with an exact tag.")
    postgres: Image = Field(
        default="postgres:17.9",
        description="the registry's image of PostgreSQL, with an exact tag that begins with indexDb.majorVersion.",
    )
    adminer: Image = Field(default="adminer:5.5.0", description="the registry's image of Adminer, with an exact tag.")


class IndexDbSettings(_Settings):
    """The PostgreSQL server that holds the index of each node with ``index: postgresql``."""

    major_version: Annotated[int, Field(ge=14, le=18)] = Field(
        default=17,
        description="PostgreSQL's major version, 14 to 18. The data volume belongs to one major version: a stack file that changes it "
        "is refused as long as the volume exists.",
    )
    max_connections: Annotated[int, Field(ge=20, le=5000)] = Field(
        default=100,
        description="PostgreSQL's max_connections, 20 to 5000. The nodes' PostgreSQL.IndexConnectionsCount, added up, plus 13 in "
        "reserve must fit into it.",
    )


class NodeSettings(_Settings):
    """One Orthanc."""

    name: NodeName = Field(
        description="the node's name, unique; also its host name on the stack's network. 1 to 32 lower-case letters, digits and hyphens."
    )
    aet: AeTitle = Field(description="the node's AE title, unique without regard to case: 1 to 16 ASCII characters, no backslash.")
    http_port: Port = Field(description="the host's port for Orthanc's web interface and REST API, 1 to 65535.")
    dicom_port: Port = Field(description="the host's port for DICOM associations, 1 to 65535.")
    index: Literal["postgresql", "sqlite"] = Field(
        default="postgresql",
        description="where the node keeps its index: 'postgresql' (a database of its own on the stack's server) or 'sqlite' (in its "
        "volume). Fixed once the node's volume exists.",
    )
    forward_to: Annotated[tuple[str, ...], BeforeValidator(_from_list)] = Field(
        default=(), description="the names of the nodes to which this one forwards; each knows the other by this."
    )
    bind: BindAddress | None = Field(
        default=None,
        description="the host's IP address that both ports are bound to; the stack's `bind` when left out.",
    )
    users: Annotated[tuple[UserName, ...], BeforeValidator(_from_list), Field(min_length=1)] = Field(
        default=("orthanc",),
        description="the users of the web interface and the REST API; each has a secret userPassword.<node>.<user>.",
    )
    orthanc: dict[str, Any] = Field(
        default_factory=dict,
        description="further options of Orthanc's own, by their names in Orthanc's configuration; laid over configs/orthanc/.",
    )


class ModalitySettings(_Settings):
    """A DICOM device outside the stack: a scanner, a workstation, another archive."""

    name: NodeName = Field(description="the device's name in each node's DicomModalities, unique among nodes and modalities.")
    aet: AeTitle = Field(description="the device's AE title, unique among nodes and modalities.")
    host: Host = Field(
        description="the device's host name or IP address as the nodes' containers reach it; host.docker.internal is the machine "
        "that runs the Docker engine."
    )
    port: Port = Field(description="the device's DICOM port, 1 to 65535.")
    nodes: Annotated[tuple[str, ...], BeforeValidator(_from_list), Field(min_length=1)] = Field(
        description="the names of the nodes that know the device; all others refuse it."
    )
    allow: Annotated[tuple[Annotated[Operation, Field(strict=False)], ...], BeforeValidator(_from_list)] = Field(
        default=(Operation.ECHO, Operation.STORE),
        description="what the device may ask of those nodes: any of echo, store, find, get, move.",
    )


class AdminerSettings(_Settings):
    """A web page on the index database, for development."""

    port: Port = Field(default=8080, description="the host's port, 1 to 65535.")
    bind: BindAddress | None = Field(
        default=None, description="the host's IP address that it is bound to; the stack's `bind` when left out."
    )


class StackSettings(_Settings):
    """One environment: everything that its stack file says, less the secrets."""

    environment: Literal["dev", "prod"] = Field(
        default="prod",
        description="'dev' or 'prod'. prod keeps its data volumes when the stack is destroyed, refuses weak secrets and Adminer, and "
        "wants `bind` and `images.source` said. configs/orthanc/<environment>.yaml is laid over base.yaml.",
    )
    bind: BindAddress | None = Field(
        default=None,
        description="the host's IP address that every port is bound to unless a node says otherwise; 127.0.0.1 in dev, required in prod.",
    )
    images: ImageSettings = Field(default_factory=ImageSettings, description="the container images.")
    index_db: IndexDbSettings = Field(default_factory=IndexDbSettings, description="the index database.")
    nodes: Annotated[tuple[NodeSettings, ...], BeforeValidator(_from_list)] = Field(description="a list of at least one Orthanc node.")
    modalities: Annotated[tuple[ModalitySettings, ...], BeforeValidator(_from_list)] = Field(
        default=(),
        description="a list of DICOM devices outside the stack; anyone who is neither a node nor listed here is refused.",
    )
    adminer: AdminerSettings | None = Field(default=None, description="Adminer, in dev only; left out, there is none.")

    @property
    def is_prod(self) -> bool:
        """Whether production's rules hold."""
        return self.environment == "prod"

    def bind_of(self, part: NodeSettings | AdminerSettings) -> str:
        """The host's address that a part's ports are bound to."""
        return part.bind or self.bind or "127.0.0.1"

    @property
    def index_nodes(self) -> tuple[NodeSettings, ...]:
        """The nodes whose index is in PostgreSQL, in the stack file's order."""
        return tuple(node for node in self.nodes if node.index == "postgresql")
