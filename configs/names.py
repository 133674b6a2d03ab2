"""The names of everything that a stack makes outside Pulumi: containers, volumes, networks, databases, labels."""

import re
import zlib
from collections.abc import Mapping
from typing import Any, Final, TypeVar

Value = TypeVar("Value")

#: The project's name in Pulumi.yaml; also the namespace of the stack file's keys.
PROJECT: Final = "orthanc-stack"

#: On every container, volume and network: prefix() of the stack that made it.
LABEL_STACK: Final = f"{PROJECT}.stack"
#: On every container, volume and network: the identifier of the state that made it (components/ownership.py). It tells stacks of the same
#: name in two checkouts apart.
LABEL_OWNER: Final = f"{PROJECT}.owner"
#: On a data volume: its own identifier, which the database of the node also holds (components/payload/ensure_roles.sh).
LABEL_VOLUME: Final = f"{PROJECT}.volume"
#: On every container: what it is (db, db-roles, node, forwarder, adminer); BACKUP on those that a backup, a restore or a check runs once.
LABEL_ROLE: Final = f"{PROJECT}.role"
BACKUP: Final = "backup"
#: On a data volume, never changed: the format of its data ("postgresql-17", "sqlite"), which components/preflight.py compares with the
#: stack file.
LABEL_FORMAT: Final = f"{PROJECT}.data-format"
#: On a volume that an upgrade of PostgreSQL has made: the volume, major version and image that it came from ("db 17 postgres:17.11").
LABEL_UPGRADED: Final = f"{PROJECT}.upgraded-from"

#: The network of nodes and forwarders. It leads out, and the host publishes their ports through it.
DICOM_NETWORK: Final = "dicom"
#: The network of PostgreSQL, the one-shot that makes its roles, the nodes whose index it holds, and Adminer. It leads nowhere.
INDEX_NETWORK: Final = "index"
#: The network of Adminer alone, for its port.
ADMIN_NETWORK: Final = "admin"

#: The index database: its alias on the network `index`, its port, its superuser. Only the one-shot that makes the nodes' roles knows the
#: superuser's password.
DB_HOST: Final = "db"
DB_PORT: Final = 5432
DB_SUPERUSER: Final = "postgres"
#: That one-shot's container, and the variable whose new value makes the roles again.
DB_ROLES: Final = "db-roles"
AGAIN: Final = "AGAIN"
#: Adminer's container.
ADMINER: Final = "adminer"
#: The logical name of each volume that PostgreSQL's data may be in: `db-data`, `db.18-data`.
INDEX_VOLUME: Final = re.compile(rf"{DB_HOST}(\.\d+)?-data")
#: The variable with the name of a volume that `upgrade-db` has filled: only then may the database change over to it.
FILLED: Final = "ORTHANC_STACK_FILLED_VOLUME"

#: Every Orthanc's ports inside its container, Orthanc's defaults. The host's ports are in the stack file, so that a change of one concerns
#: only its node.
HTTP_PORT: Final = 8042
DICOM_PORT: Final = 4242
#: The user of a node's REST API for its forwarder, and the port of the forwarder's status and metrics inside its container.
FORWARDER_USER: Final = "forwarder"
FORWARDER_PORT: Final = 9042


def short_name(stack: str) -> str:
    """The name of a stack less its organization and project: "prod" of "organization/orthanc-stack/prod"."""
    return stack.rpartition("/")[2]


def own(config: Mapping[Any, Value]) -> dict[str, Value]:
    """The part of a configuration in the project's namespace; its keys are without the namespace."""
    mine = f"{PROJECT}:"
    return {key.removeprefix(mine): value for key, value in config.items() if isinstance(key, str) and key.startswith(mine)}


def prefix(stack: str, project: str = PROJECT) -> str:
    """What the physical names of a stack begin with: ``orthanc-stack-dev``, and ``orthanc-stack-ct_room`` for "ct-room".

    It has no hyphen of the stack's name, and no two stacks have the same: else "ct" with a node "room-archive" and "ct-room" with a node
    "archive" would share a volume.
    """
    without_hyphens = str.maketrans({"-": "_", "_": ".u", ".": ".."})
    return f"{project}-{stack.translate(without_hyphens)}"


def database_of(node: str) -> str:
    """The database of a node, and the role that owns it: an SQL identifier that needs no quotes."""
    return f"orthanc_{node.replace('-', '_')}"


def forwarder_of(node: str) -> str:
    """The forwarder of a node: its component, and its alias on the network `dicom`."""
    return f"{node}-forwarder"


def record_number(target: str) -> int:
    """The number of the metadata in which a node that forwards records, for each series, what a destination has confirmed: 10000 to 59999.

    It follows from the destination's name, so that it stays when other links change. Orthanc leaves 1024 to 65535 to its users.
    """
    return 10000 + zlib.crc32(target.encode()) % 50000


def sqlite_format() -> str:
    """The data format of a node's volume with the index inside."""
    return "sqlite"


def postgresql_format(major_version: int | None = None, *, alpine: bool = False) -> str:
    """The data format of PostgreSQL's volume; without a version, of a node's volume with the index in PostgreSQL.

    ``alpine``: Alpine's image made the volume. Debian's has no mark, because older volumes have none.
    """
    return "postgresql" if major_version is None else f"postgresql-{major_version}{'-alpine' if alpine else ''}"


def postgresql_folder(major_version: int) -> str:
    """Where PostgreSQL's volume is mounted: on the image's VOLUME. Elsewhere, data goes into an anonymous one, deleted with the container.

    From 18 on, the image keeps its data under /var/lib/postgresql/<version>/docker, and refuses a mount on the old place.
    """
    return "/var/lib/postgresql" if major_version >= 18 else "/var/lib/postgresql/data"


def upgraded_volume(major_version: int) -> str:
    """The part of the volume that an upgrade of PostgreSQL fills: `db.18`. No node has such a name: it has a dot."""
    return f"{DB_HOST}.{major_version}"


def backup_volume(prefix: str, what: str) -> str:
    """A volume of a stack's backups: `cache`, `index`, `restore`. No node's volume has such a name: it has a dot after the stack's."""
    return f"{prefix}-{BACKUP}.{what}"
