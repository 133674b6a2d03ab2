"""The PostgreSQL server that holds the nodes' indexes, with a database and a role for each node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi
import pulumi_docker as docker

from components.container import (
    PAYLOAD,
    START_SECONDS,
    ComponentArgs,
    File,
    Limits,
    container,
    data_volume,
    identifier_of,
    of_component,
    safe_password,
)
from configs import names
from configs.secrets import Certificate

#: The server's CPU weight. Docker's own is 1024: all nodes wait for the database, so it gets twice as much.
DB_SHARES = 2048
#: The one-shot container runs one psql after the other.
_ROLES_LIMITS = Limits(memory=256, shares=512)

#: PostgreSQL's entry point begins as root: it gives the new volume's folder to postgres, and becomes postgres.
_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "SETGID", "SETUID")
#: The user that the server becomes, in both images.
_OS_USER = "postgres"

_CERTIFICATE_FILE = "/etc/orthanc-stack/db.pem"
_TRUST_FILE = "/etc/orthanc-stack/db-trust.pem"
_KEY_FILE = "/run/secrets/db-key.pem"
_HBA_FILE = "/etc/orthanc-stack/pg_hba.conf"
#: PostgreSQL must own its key, and nobody else may read it, but a file that is written into a container is root's. So it is copied, into a
#: folder of root's and by two commands: in /run/postgresql, or with `install -o`, root would need the capability FOWNER.
_KEY = "/run/db-key.pem"
_WITH_KEY = f'install -m 0600 {_KEY_FILE} {_KEY} && chown {_OS_USER} {_KEY} && exec docker-entrypoint.sh "$@"'
#: The images' own rules, without connections that have no TLS.
_HBA = "local all all trust\nhostssl all all all scram-sha-256\n"
_TLS = ("ssl=on", f"ssl_cert_file={_CERTIFICATE_FILE}", f"ssl_key_file={_KEY}", f"hba_file={_HBA_FILE}")

#: A client that the network has lost keeps its session, and with it Orthanc's lock on its index: the new node would wait for the kernel's
#: two hours. So the server probes after 5 s of silence and gives up 10 s later. The last, in ms, is for data that is not acknowledged.
_CUT_OFF = ("tcp_keepalives_idle=5", "tcp_keepalives_interval=5", "tcp_keepalives_count=2", "tcp_user_timeout=15000")

_PASSWORD_FILE = "/run/secrets/postgres-password"
_ROLES_SCRIPT = "/usr/local/bin/ensure-roles"
_ROLES_FILE = "/run/secrets/roles"
_VOLUME_FILE = "/etc/orthanc-stack/volume"


@dataclass(frozen=True, kw_only=True)
class DatabaseOwner:
    """A node that gets a database."""

    password: pulumi.Input[str]  #: The password of its role.
    #: The identifier of its volume (container.identifier_of). A database and a volume know each other: the index of one with the images of
    #: another would show patients without their images, or with another patient's.
    data_id: pulumi.Input[str]


@dataclass(frozen=True, kw_only=True)
class IndexDatabase:
    """The database that holds a node's index."""

    host: str  #: Its server's host name on the network.
    network: pulumi.Input[str]  #: The network of the server and the node.
    database: str  #: Its name, and that of the role.
    password: pulumi.Input[str]  #: The role's password.
    port: int = names.DB_PORT  #: Its server's port.
    certificate: Certificate | None = None  #: The server's certificate; None for connections without TLS.
    after: Sequence[pulumi.Resource] = ()  #: The server: the node starts after it and stops before it.


@dataclass(frozen=True, kw_only=True)
class OrthancIndexDbArgs(ComponentArgs):
    """The arguments of an OrthancIndexDb."""

    network: pulumi.Input[str]  #: The network of the server and its clients. It need not lead anywhere else.
    password: pulumi.Input[str]  #: The superuser's password.
    nodes: Mapping[str, DatabaseOwner]  #: The nodes that get a database, by name.
    major_version: int  #: PostgreSQL's major version. It decides where the image keeps its data.
    alpine: bool = False  #: Whether the image is Alpine's, which sorts text otherwise than Debian's.
    data: docker.Volume | None = None  #: Its data volume; made here when left out.
    #: What the server may use of the machine. A quarter of its memory may be shared memory (/dev/shm).
    limits: Limits = field(default_factory=lambda: Limits(shares=DB_SHARES))
    start_seconds: int = START_SECONDS  #: How long the server may take to become healthy, and the roles to be made.
    max_connections: int = 100  #: PostgreSQL's max_connections.
    certificate: Certificate | None = None  #: Its certificate; None for connections without TLS.
    key: pulumi.Input[str] = ""  #: Its private key, with a certificate.
    rename_removed: bool = False  #: Whether the database of a removed node is renamed, because its volume is deleted.
    again: str = ""  #: A new value has the roles made again; "" where that was never needed.


class OrthancIndexDb(pulumi.ComponentResource):
    """A PostgreSQL server, on no port of the host.

    A one-shot container makes the nodes' roles and databases, and sets the roles' passwords. It runs again when a node or a password
    changes, so that a node can be added to a running stack. It removes nothing. Where the data is not kept, it renames the database of a
    node that left the stack file, whose volume is deleted.

    Its clients refer to it by its name and depends_on, not by output: a new container of it replaces no node.

    It does not back up, does not change the superuser's password of an existing volume, does not upgrade to another major version.
    """

    host: str  #: Its host name on the network.
    port: int  #: Its port there.

    def __init__(self, name: str, args: OrthancIndexDbArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        tls = args.certificate
        inputs = {"databases": {node: names.database_of(node) for node in sorted(args.nodes)}}
        super().__init__("orthanc-stack:index:OrthancIndexDb", name, {**inputs, **({"certificate": tls.shown()} if tls else {})}, opts)
        self.host, self.port, self._args = name, names.DB_PORT, args
        data_format = names.postgresql_format(args.major_version, alpine=args.alpine)
        data = args.data or data_volume(f"{name}-data", data_format=data_format, stack=args.stack, opts=of_component(self, opts))
        # 0444: this project's image reads it after it has become postgres; upstream's, before.
        password = File(path=_PASSWORD_FILE, content=safe_password(args.password))
        options = [f"max_connections={args.max_connections}", *_CUT_OFF, *(_TLS if tls else ())]
        server = container(
            f"{name}-container",
            self,
            args,
            name=name,
            role="db",
            networks=[args.network],
            limits=args.limits,
            entrypoint=["sh", "-ec", _WITH_KEY, "sh"] if tls else (),
            start_seconds=args.start_seconds,
            starts_slowly=True,
            # Parallel queries and VACUUM (PARALLEL) run out of Docker's 64 MB. It is part of the memory limit.
            shm=args.limits.memory // 4,
            command=["postgres", *(f"-c{option}" for option in options)],
            environment={"POSTGRES_PASSWORD_FILE": _PASSWORD_FILE, "POSTGRES_USER": names.DB_SUPERUSER},
            files=[password, *(_tls_files(tls, args.key) if tls else [])],
            volumes=[(data.name, names.postgresql_folder(args.major_version))],
            capabilities=_CAPABILITIES,
            # Over TCP: while the image makes its first cluster, a temporary server answers on the socket alone.
            probe=f"pg_isready -q -h 127.0.0.1 -U {names.DB_SUPERUSER}",
            # A fast shutdown writes a checkpoint. If it is killed before the end, the next start has to recover from the log.
            grace_seconds=90,
        )
        container(
            f"{name}-roles",
            self,
            args,
            name=f"{name}-roles",
            role=names.DB_ROLES,
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
                **({"PGSSLMODE": "verify-full", "PGSSLROOTCERT": _TRUST_FILE} if tls else {}),
            },
            files=[
                File(path=_ROLES_SCRIPT, content=(PAYLOAD / "ensure_roles.sh").read_text(encoding="utf-8")),
                password,
                File(path=_ROLES_FILE, content=_roles_file(args.nodes)),
                # Not read: a new volume of the database, which is empty, has the roles made again.
                File(path=_VOLUME_FILE, content=identifier_of(data)),
                *([File(path=_TRUST_FILE, content=tls.trust)] if tls else []),
            ],
            probe=None,
            start_seconds=args.start_seconds,
            grace_seconds=10,
            after=[server],
        )
        self.register_outputs({"host": self.host, "port": self.port})

    def index_of(self, node: str) -> IndexDatabase:
        """The database of one of its nodes."""
        return IndexDatabase(
            host=self.host,
            network=self._args.network,
            database=names.database_of(node),
            password=self._args.nodes[node].password,
            certificate=self._args.certificate,
            after=[self],
        )


def _tls_files(certificate: Certificate, key: pulumi.Input[str]) -> list[File]:
    return [
        File(path=_CERTIFICATE_FILE, content=certificate.chain),
        File(path=_KEY_FILE, content=pulumi.Output.secret(key), mode="0400"),
        File(path=_HBA_FILE, content=_HBA),
    ]


def _roles_file(nodes: Mapping[str, DatabaseOwner]) -> pulumi.Output[str]:
    """A line for each node, sorted: its role, which is also its database, the role's password, the identifier of its volume."""
    lines = (
        pulumi.Output.concat(names.database_of(name), " ", safe_password(node.password), " ", node.data_id, "\n")
        for name, node in sorted(nodes.items())
    )
    return pulumi.Output.secret(pulumi.Output.concat(*lines))
