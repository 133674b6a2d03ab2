"""The PostgreSQL server that holds the nodes' indexes, with a database and a role for each node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pulumi

from components.base import ContainerSpec, File, Limits, container, eager_probe, identifier_of, patience, volume
from components.ownership import Ownership
from components.tls import Identity
from configs import names

#: The first version whose image keeps its data under /var/lib/postgresql/<version>/docker and refuses a mount on the old place.
_FIRST_WITH_VERSIONED_DATA = 18

#: PostgreSQL's entry point begins as root: it owns the new volume's folder to postgres, and becomes postgres.
_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "SETGID", "SETUID")

#: The user of both images that the server becomes.
_OS_USER = "postgres"

#: One psql after the other.
_ROLES_LIMITS = Limits(memory=256, shares=512)

_CERTIFICATE_FILE = "/etc/orthanc-stack/db.pem"
_TRUST_FILE = "/etc/orthanc-stack/db-trust.pem"
_KEY_FILE = "/run/secrets/db-key.pem"
_HBA_FILE = "/etc/orthanc-stack/pg_hba.conf"
#: PostgreSQL wants the key to be its own, and nobody else to read it; what is written into a container is root's. In a folder that is
#: root's, and by two commands: in /run/postgresql, or with another owner's mode to set, it would need the capability FOWNER.
_KEY = "/run/db-key.pem"
_WITH_KEY = f'install -m 0600 {_KEY_FILE} {_KEY} && chown {_OS_USER} {_KEY} && exec docker-entrypoint.sh "$@"'
#: What the images' own says, but for those who come without TLS.
_HBA = "local all all trust\nhostssl all all all scram-sha-256\n"

#: A client that the network has lost keeps its session, and with it Orthanc's lock on its index: a node that replaces it would wait for
#: the kernel's two hours. So: asked after 5 s of silence, given up 10 s later; the last, in ms, is for what was sent and not acknowledged.
_CUT_OFF = ("tcp_keepalives_idle=5", "tcp_keepalives_interval=5", "tcp_keepalives_count=2", "tcp_user_timeout=15000")

_PASSWORD_FILE = "/run/secrets/postgres-password"
_ROLES_SCRIPT = "/usr/local/bin/ensure-roles"
_ROLES_FILE = "/run/secrets/roles"
_VOLUME_FILE = "/etc/orthanc-stack/volume"


@dataclass(frozen=True, kw_only=True)
class DatabaseOwner:
    """A node that gets a database.

    Attributes:
        password: the password of its role.
        data_id: the identifier of its volume. A database and a volume know each other: the index of one and the images of another are
            patients whose images are not there, or another patient's.
    """

    password: pulumi.Input[str]
    data_id: pulumi.Input[str]


@dataclass(frozen=True, kw_only=True)
class OrthancIndexDbArgs:
    """What an OrthancIndexDb is made from.

    Attributes:
        stack: whose it is.
        image: the image's ID.
        data: the name of its volume on the engine.
        limits: what the server may use of the machine; a quarter of its memory may be shared memory (/dev/shm).
        start_seconds: how long it may take to become healthy.
        networks: the networks that the server is on: one for each node, one for its administration.
        admin_networks: those of them that what makes the roles is on.
        major_version: PostgreSQL's major version; decides where the image keeps its data. Plain: it steers the program.
        alpine: whether the image is Alpine's, which sorts text otherwise than Debian's. Plain.
        max_connections: PostgreSQL's max_connections.
        password: the superuser's password.
        nodes: the nodes that get a database. The names are plain.
        tls: its certificate; None for connections without TLS.
        keep_data: protect the volume, and leave it on the engine when the stack goes.
        rename_removed: whether the database of a node that is gone is renamed, because its volume goes.
        again: another value has the roles made again; empty where they were never to be.
    """

    stack: Ownership
    image: pulumi.Input[str]
    data: str
    limits: Limits
    start_seconds: int
    networks: Sequence[pulumi.Input[str]]
    admin_networks: Sequence[pulumi.Input[str]]
    major_version: int
    alpine: bool
    max_connections: int
    password: pulumi.Input[str]
    nodes: Mapping[str, DatabaseOwner]
    tls: Identity | None
    keep_data: bool
    rename_removed: bool
    again: str = ""


class OrthancIndexDb(pulumi.ComponentResource):
    """A PostgreSQL server on networks that lead nowhere else, one for each of its clients, and on no port of the host.

    A second container, which runs once and ends, makes the nodes' roles and databases, and sets the roles' passwords. It runs again
    when a node or a password changes, so that a node can be added to a stack that runs. It removes nothing. Where the data is not kept, it
    renames the database of a node that left the stack file, whose volume goes.

    What depends on it refers to it by its alias and depends_on, not by output: a new container of it replaces no node.

    Does not back up, does not change the superuser's password of a volume that exists, does not upgrade to another major version.
    """

    host: str
    port: int

    def __init__(self, name: str, args: OrthancIndexDbArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        certificate = {"certificate": args.tls.shown()} if args.tls else {}
        super().__init__("orthanc-stack:index:OrthancIndexDb", name, {"databases": _databases(args), **certificate}, opts)
        self.host, self.port = names.DB_HOST, names.DB_PORT
        data = volume(
            f"{name}-data",
            stack=args.stack,
            name=args.data,
            data_format=names.postgresql_format(args.major_version, alpine=args.alpine),
            keep=args.keep_data,
            parent=self,
        )
        password = pulumi.Output.secret(args.password)
        server = container(
            f"{name}-container",
            ContainerSpec(
                stack=args.stack,
                name=names.DB_HOST,
                role="db",
                image=args.image,
                networks=args.networks,
                limits=args.limits,
                entrypoint=["sh", "-ec", _WITH_KEY, "sh"] if args.tls else None,
                start_seconds=args.start_seconds,
                # Parallel queries and VACUUM (PARALLEL) run out of Docker's 64 MB. It is no memory beside the limit's.
                shm=args.limits.memory // 4,
                command=["postgres", *(f"-c{option}" for option in _options(args))],
                environment={"POSTGRES_PASSWORD_FILE": _PASSWORD_FILE, "POSTGRES_USER": names.DB_SUPERUSER},
                # 0444: this project's image reads it after it has become postgres; upstream's, before.
                files=[File(path=_PASSWORD_FILE, content=password), *_tls_files(args.tls)],
                volumes=[(data.name, _mount_path(args.major_version))],
                capabilities=_CAPABILITIES,
                # Over TCP: while the image makes its first cluster, a temporary server answers on the socket alone.
                healthcheck=eager_probe(
                    f"pg_isready -q -h 127.0.0.1 -U {names.DB_SUPERUSER}", seconds_to_start=patience(args.start_seconds)
                ),
                # A fast shutdown writes a checkpoint; killed before its end, the next start has to recover from the log.
                grace_seconds=90,
            ),
            self,
        )
        container(
            f"{name}-roles",
            ContainerSpec(
                stack=args.stack,
                name=names.DB_ROLES,
                role="db-roles",
                image=args.image,
                networks=args.admin_networks,
                limits=_ROLES_LIMITS,
                user=_OS_USER,
                command=["sh", _ROLES_SCRIPT],
                environment={
                    "PGHOST": self.host,
                    "PGPORT": str(self.port),
                    "PGUSER": names.DB_SUPERUSER,
                    "PGDATABASE": "postgres",
                    **({"RENAME_REMOVED": "true"} if args.rename_removed else {}),
                    **({names.AGAIN: args.again} if args.again else {}),
                    **({"PGSSLMODE": "verify-full", "PGSSLROOTCERT": _TRUST_FILE} if args.tls else {}),
                },
                files=[
                    File(path=_ROLES_SCRIPT, content=_script()),
                    File(path=_PASSWORD_FILE, content=password),
                    File(path=_ROLES_FILE, content=_roles_file(args.nodes)),
                    # Not read: a new volume of the database, which is empty, has the roles made again.
                    File(path=_VOLUME_FILE, content=identifier_of(data)),
                    *([File(path=_TRUST_FILE, content=args.tls.trust.pem)] if args.tls else []),
                ],
                healthcheck=None,
                start_seconds=args.start_seconds,
                grace_seconds=10,
            ),
            self,
            depends_on=[server],
        )
        self.register_outputs({"host": self.host, "port": self.port})


def _options(args: OrthancIndexDbArgs) -> list[str]:
    tls = ["ssl=on", f"ssl_cert_file={_CERTIFICATE_FILE}", f"ssl_key_file={_KEY}", f"hba_file={_HBA_FILE}"] if args.tls else []
    return [f"max_connections={args.max_connections}", *_CUT_OFF, *tls]


def _tls_files(tls: Identity | None) -> list[File]:
    if tls is None:
        return []
    return [
        File(path=_CERTIFICATE_FILE, content=tls.certificate),
        File(path=_KEY_FILE, content=pulumi.Output.secret(tls.key), mode="0400"),
        File(path=_HBA_FILE, content=_HBA),
    ]


def _databases(args: OrthancIndexDbArgs) -> dict[str, str]:
    return {node: names.database_of(node) for node in sorted(args.nodes)}


def _mount_path(major_version: int) -> str:
    """Where the data volume is mounted: on the image's VOLUME. Elsewhere, data goes into an anonymous one, deleted with the container."""
    return "/var/lib/postgresql" if major_version >= _FIRST_WITH_VERSIONED_DATA else "/var/lib/postgresql/data"


def _script() -> str:
    return (Path(__file__).parent / "ensure_roles.sh").read_text(encoding="utf-8")


def _roles_file(nodes: Mapping[str, DatabaseOwner]) -> pulumi.Output[str]:
    """A line for each node, sorted: its role, which is also its database, the role's password, the identifier of its volume."""
    known = sorted(nodes)
    lines = (pulumi.Output.concat(names.database_of(node), " ", nodes[node].password, " ", nodes[node].data_id, "\n") for node in known)
    return pulumi.Output.secret(pulumi.Output.concat(*lines))
