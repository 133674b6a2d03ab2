"""The PostgreSQL server that holds the nodes' indexes, with a database and a role for each node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi
import pulumi_docker as docker

from components.container import (
    PAYLOAD,
    START_SECONDS,
    File,
    Limits,
    container,
    data_volume,
    eager_probe,
    identifier_of,
    patience,
)
from components.ownership import Ownership
from configs import names
from configs.secrets import Certificate

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
        data_id: the identifier of its volume (container.identifier_of). A database and a volume know each other: the index of one and the
            images of another are patients whose images are not there, or another patient's.
    """

    password: pulumi.Input[str]
    data_id: pulumi.Input[str]


@dataclass(frozen=True, kw_only=True)
class IndexDatabase:
    """The database that holds a node's index.

    Attributes:
        host: its server's host name on the network.
        network: the network that both are on.
        database: its name, and that of the role.
        password: the role's password.
        port: its server's port.
        certificate: the server's certificate; None for connections without TLS.
        after: the server, which the node starts after and stops before.
    """

    host: str
    network: pulumi.Input[str]
    database: str
    password: pulumi.Input[str]
    port: int = names.DB_PORT
    certificate: Certificate | None = None
    after: Sequence[pulumi.Resource] = ()


@dataclass(frozen=True, kw_only=True)
class OrthancIndexDbArgs:
    """What an OrthancIndexDb is made from.

    Attributes:
        image: the image's ID.
        network: the network of the server and its clients. It need not lead anywhere else.
        password: the superuser's password.
        nodes: the nodes that get a database, by name.
        major_version: PostgreSQL's major version; decides where the image keeps its data.
        alpine: whether the image is Alpine's, which sorts text otherwise than Debian's.
        data: its data volume; one of its own when left out.
        limits: what the server may use of the machine; a quarter of its memory may be shared memory (/dev/shm).
        start_seconds: how long the server may take to become healthy, and the roles to be made.
        max_connections: PostgreSQL's max_connections.
        certificate: its certificate; None for connections without TLS.
        key: its private key, with a certificate.
        rename_removed: whether the database of a node that is gone is renamed, because its volume goes.
        again: another value has the roles made again; empty where they were never to be.
        stack: the stack that owns it; None for the stack that Pulumi runs.
    """

    image: pulumi.Input[str]
    network: pulumi.Input[str]
    password: pulumi.Input[str]
    nodes: Mapping[str, DatabaseOwner]
    major_version: int
    alpine: bool = False
    data: docker.Volume | None = None
    # Docker's own weight is 1024. All nodes wait for the database, so it gets twice as much.
    limits: Limits = field(default_factory=lambda: Limits(shares=2048))
    start_seconds: int = START_SECONDS
    max_connections: int = 100
    certificate: Certificate | None = None
    key: pulumi.Input[str] = ""
    rename_removed: bool = False
    again: str = ""
    stack: Ownership | None = None


class OrthancIndexDb(pulumi.ComponentResource):
    """A PostgreSQL server, on no port of the host.

    A second container, which runs once and ends, makes the nodes' roles and databases, and sets the roles' passwords. It runs again
    when a node or a password changes, so that a node can be added to a stack that runs. It removes nothing. Where the data is not kept, it
    renames the database of a node that left the stack file, whose volume goes.

    Its clients refer to it by its name and depends_on, not by output: a new container of it replaces no node.

    Does not back up, does not change the superuser's password of a volume that exists, does not upgrade to another major version.

    Attributes:
        host: its host name on the network.
        port: its port there.
    """

    host: str
    port: int

    def __init__(self, name: str, args: OrthancIndexDbArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        certificate = {"certificate": args.certificate.shown()} if args.certificate else {}
        super().__init__("orthanc-stack:index:OrthancIndexDb", name, {"databases": _databases(args), **certificate}, opts)
        self.host, self.port, self._args = name, names.DB_PORT, args
        data_format = names.postgresql_format(args.major_version, alpine=args.alpine)
        own = pulumi.ResourceOptions(parent=self)
        data = args.data or data_volume(f"{name}-data", data_format=data_format, stack=args.stack, opts=own)
        password = pulumi.Output.secret(args.password)
        server = container(
            f"{name}-container",
            self,
            stack=args.stack,
            name=name,
            role="db",
            image=args.image,
            networks=[args.network],
            limits=args.limits,
            entrypoint=["sh", "-ec", _WITH_KEY, "sh"] if args.certificate else None,
            start_seconds=args.start_seconds,
            # Parallel queries and VACUUM (PARALLEL) run out of Docker's 64 MB. It is no memory beside the limit's.
            shm=args.limits.memory // 4,
            command=["postgres", *(f"-c{option}" for option in _options(args))],
            environment={"POSTGRES_PASSWORD_FILE": _PASSWORD_FILE, "POSTGRES_USER": names.DB_SUPERUSER},
            # 0444: this project's image reads it after it has become postgres; upstream's, before.
            files=[File(path=_PASSWORD_FILE, content=password), *_tls_files(args)],
            volumes=[(data.name, _mount_path(args.major_version))],
            capabilities=_CAPABILITIES,
            # Over TCP: while the image makes its first cluster, a temporary server answers on the socket alone.
            healthcheck=eager_probe(f"pg_isready -q -h 127.0.0.1 -U {names.DB_SUPERUSER}", seconds_to_start=patience(args.start_seconds)),
            # A fast shutdown writes a checkpoint; killed before its end, the next start has to recover from the log.
            grace_seconds=90,
        )
        container(
            f"{name}-roles",
            self,
            stack=args.stack,
            name=f"{name}-roles",
            role=names.DB_ROLES,
            image=args.image,
            networks=[args.network],
            limits=_ROLES_LIMITS,
            user=_OS_USER,
            command=["sh", _ROLES_SCRIPT],
            environment={
                "PGHOST": name,
                "PGPORT": str(self.port),
                "PGUSER": names.DB_SUPERUSER,
                "PGDATABASE": "postgres",
                **({"RENAME_REMOVED": "true"} if args.rename_removed else {}),
                **({names.AGAIN: args.again} if args.again else {}),
                **({"PGSSLMODE": "verify-full", "PGSSLROOTCERT": _TRUST_FILE} if args.certificate else {}),
            },
            files=[
                File(path=_ROLES_SCRIPT, content=(PAYLOAD / "ensure_roles.sh").read_text(encoding="utf-8")),
                File(path=_PASSWORD_FILE, content=password),
                File(path=_ROLES_FILE, content=_roles_file(args.nodes)),
                # Not read: a new volume of the database, which is empty, has the roles made again.
                File(path=_VOLUME_FILE, content=identifier_of(data)),
                *([File(path=_TRUST_FILE, content=args.certificate.trust)] if args.certificate else []),
            ],
            healthcheck=None,
            start_seconds=args.start_seconds,
            grace_seconds=10,
            after=[server],
        )
        self.register_outputs({"host": self.host, "port": self.port})

    def index_of(self, node: str) -> IndexDatabase:
        """The database of one of its nodes."""
        args = self._args
        return IndexDatabase(
            host=self.host,
            network=args.network,
            database=names.database_of(node),
            password=args.nodes[node].password,
            certificate=args.certificate,
            after=[self],
        )


def _options(args: OrthancIndexDbArgs) -> list[str]:
    tls = ["ssl=on", f"ssl_cert_file={_CERTIFICATE_FILE}", f"ssl_key_file={_KEY}", f"hba_file={_HBA_FILE}"] if args.certificate else []
    return [f"max_connections={args.max_connections}", *_CUT_OFF, *tls]


def _tls_files(args: OrthancIndexDbArgs) -> list[File]:
    if args.certificate is None:
        return []
    return [
        File(path=_CERTIFICATE_FILE, content=args.certificate.chain),
        File(path=_KEY_FILE, content=pulumi.Output.secret(args.key), mode="0400"),
        File(path=_HBA_FILE, content=_HBA),
    ]


def _databases(args: OrthancIndexDbArgs) -> dict[str, str]:
    return {node: names.database_of(node) for node in sorted(args.nodes)}


def _mount_path(major_version: int) -> str:
    """Where the data volume is mounted: on the image's VOLUME. Elsewhere, data goes into an anonymous one, deleted with the container."""
    return "/var/lib/postgresql" if major_version >= _FIRST_WITH_VERSIONED_DATA else "/var/lib/postgresql/data"


def _roles_file(nodes: Mapping[str, DatabaseOwner]) -> pulumi.Output[str]:
    """A line for each node, sorted: its role, which is also its database, the role's password, the identifier of its volume."""
    known = sorted(nodes)
    lines = (pulumi.Output.concat(names.database_of(node), " ", nodes[node].password, " ", nodes[node].data_id, "\n") for node in known)
    return pulumi.Output.secret(pulumi.Output.concat(*lines))
