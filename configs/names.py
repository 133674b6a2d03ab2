"""The names of everything that a stack makes outside Pulumi: containers, volumes, networks, databases, labels."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, Final, TypeVar

Value = TypeVar("Value")

#: The project's name in Pulumi.yaml; also the namespace of the stack file's keys.
PROJECT: Final = "orthanc-stack"

#: On every container, volume and network: prefix() of the stack that made it.
LABEL_STACK: Final = f"{PROJECT}.stack"
#: On every container, volume and network: the identifier of the state that made it (components/ownership.py). Two checkouts may have a
#: stack of the same name, and then only this tells whose a thing is.
LABEL_OWNER: Final = f"{PROJECT}.owner"
#: On a data volume: an identifier of its own, which the database of the node knows, too (components/payload/ensure_roles.sh).
LABEL_VOLUME: Final = f"{PROJECT}.volume"
#: On every container: what it is (db, db-roles, node, forwarder, adminer).
LABEL_ROLE: Final = f"{PROJECT}.role"
#: On a data volume, written when it is made and never changed: what the data in it was made by ("postgresql-17", "sqlite").
#: components/preflight.py compares it with the stack file.
LABEL_FORMAT: Final = f"{PROJECT}.data-format"

#: The index database's alias on the network `index`; its port is DB_PORT.
DB_HOST: Final = "db"
#: The container that runs once and makes the roles.
DB_ROLES: Final = "db-roles"
#: The variable that has the roles made again, by a value that it did not have before.
AGAIN: Final = "AGAIN"
#: The stack's networks. Nodes and forwarders; leads out, and the host publishes their ports through it.
DICOM_NETWORK: Final = "dicom"
#: PostgreSQL, the container that makes its roles, the nodes whose index it holds, Adminer; leads nowhere.
INDEX_NETWORK: Final = "index"
#: Adminer alone, for its port.
ADMIN_NETWORK: Final = "admin"
#: Adminer's container.
ADMINER: Final = "adminer"
DB_PORT: Final = 5432
#: PostgreSQL's superuser. Nodes do not know its password; the one-shot container that makes their roles does.
DB_SUPERUSER: Final = "postgres"

#: Every Orthanc's ports inside its container, Orthanc's defaults. The host's are in the stack file: so a change of a host's port
#: concerns one node, and not all that know it.
HTTP_PORT: Final = 8042
DICOM_PORT: Final = 4242

#: The user of a node's REST API that its forwarder logs in as.
FORWARDER_USER: Final = "forwarder"
#: Where a forwarder serves its status and metrics, inside its container.
FORWARDER_PORT: Final = 9042


def own(config: Mapping[Any, Value]) -> dict[str, Value]:
    """What a configuration says under the project's namespace, by its keys less that."""
    mine = f"{PROJECT}:"
    return {key.removeprefix(mine): value for key, value in config.items() if isinstance(key, str) and key.startswith(mine)}


#: No hyphen is left in a stack's name, and no two names become the same: "ct" with a node "room-archive" and "ct-room" with a node
#: "archive" would otherwise share a volume.
_WITHOUT_HYPHENS = str.maketrans({"-": "_", "_": ".u", ".": ".."})


def prefix(stack: str, project: str = PROJECT) -> str:
    """What the physical names of a stack begin with: ``orthanc-stack-dev``, and ``orthanc-stack-ct_room`` for "ct-room".

    Before the hyphen that follows it, a name tells the stack, and behind it the part: names of two stacks never meet.
    """
    return f"{project}-{stack.translate(_WITHOUT_HYPHENS)}"


def database_of(node: str) -> str:
    """The database, and the role that owns it, of a node: its name as an SQL identifier that needs no quotes."""
    return f"orthanc_{node.replace('-', '_')}"


def forwarder_of(node: str) -> str:
    """The forwarder of a node: its component, and its alias on the network `dicom`."""
    return f"{node}-forwarder"


def record_number(target: str) -> int:
    """The metadata of each series, at a node that forwards, that holds what a destination has confirmed: 10000 to 59999.

    Made from the destination's name, so that it stays when other links come and go. Orthanc leaves 1024 to 65535 to its users.
    """
    return 10000 + zlib.crc32(target.encode()) % 50000


def sqlite_format() -> str:
    """The data format of a node's volume with the index inside."""
    return "sqlite"


def postgresql_format(major_version: int | None = None, *, alpine: bool = False) -> str:
    """The data format of the database's volume, or, without a version, of a node's volume with the index in PostgreSQL.

    Args:
        major_version: of PostgreSQL.
        alpine: made under Alpine's image of it; otherwise under Debian's, as everything before there was this mark.
    """
    return "postgresql" if major_version is None else f"postgresql-{major_version}{'-alpine' if alpine else ''}"
