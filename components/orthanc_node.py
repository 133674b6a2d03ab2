"""One Orthanc: an archive and a client that forwards to it are the same component with other settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi

from components.base import ContainerSpec, File, Limits, Port, container, eager_probe, identifier_of, patience, shown, url_of, volume
from components.ownership import Ownership
from components.tls import NodeTls, Trust
from configs import names
from configs.orthanc_options import OF_LINKS, overlay
from configs.wiring import DicomEndpoint, Peer

#: DCMTK reads these two; Orthanc's own TcpNoDelay is for HTTP. Without the first, small writes wait for delayed acknowledgements: one
#: association carried 17 images/s of a CT series, and 97 with it, 123 with the second.
_TRANSPORT = {"TCP_BUFFER_LENGTH": "1048576", "TCP_NODELAY": "1"}

#: How the containers reach the machine that runs the engine; Docker Desktop resolves it by itself, engines on Linux from 20.10 on by this.
_ENGINE_HOST = ("host.docker.internal", "host-gateway")

#: The script in Python that answers storage commitment, in the container and here.
_COMMITMENT_SCRIPT = "/etc/orthanc/commitment.py"
_COMMITMENT_SOURCE = Path(__file__).with_name("commitment.py")
#: The script in Lua that says what each user may do; both images run it.
_ROLES_SCRIPT = "/etc/orthanc/roles.lua"
_ROLES_SOURCE = Path(__file__).with_name("roles.lua")

_STORAGE = "/var/lib/orthanc/db"
_DB_TRUSTED = "/etc/orthanc/tls-database.pem"

#: The images' files are another user's (999), and Orthanc runs as root: without it, not even /etc/hostid could be written.
_CAPABILITIES = ("DAC_OVERRIDE",)


@dataclass(frozen=True, kw_only=True)
class IndexDatabase:
    """The database that holds a node's index.

    Attributes:
        host: where it is reached.
        port: its port.
        database: its name, and that of the role.
        password: the role's password.
        trust: what the server is known by; None for connections without TLS.
    """

    host: str
    port: int
    database: str
    password: pulumi.Input[str]
    trust: Trust | None = None

    def uri(self) -> pulumi.Output[str]:
        """How libpq finds it, and makes sure that it is the one: the plugin's own options know no verification."""
        where = f"@{self.host}:{self.port}/{self.database}?sslmode=verify-full&sslrootcert={_DB_TRUSTED}"
        return pulumi.Output.concat(f"postgresql://{self.database}:", self.password, where)


@dataclass(frozen=True)
class User:
    """A user of a node's web interface and REST API.

    Attributes:
        role: admin, viewer, uploader or forwarder: what roles.lua lets the user do. Plain.
        password: the user's password.
    """

    role: str
    password: pulumi.Input[str]


@dataclass(frozen=True, kw_only=True)
class OrthancNodeArgs:
    """What an OrthancNode is made from.

    Attributes:
        stack: whose it is.
        image: the image's ID.
        data: the name of its volume on the engine.
        limits: what its container may use of the machine.
        start_seconds: how long it may take to become healthy.
        networks: the networks that it is on: its own, one for each link, one with its database.
        endpoint: where the other nodes reach this one.
        options: Orthanc's options that do not depend on the topology. Plain: they are laid under what is computed here.
        peers: whom the node knows, and what each may ask of it.
        users: the users of its web interface and REST API, by name. The names are plain.
        address: the host's IP address that both ports are bound to.
        host: where they are reached.
        http_port: the host's port for HTTP.
        dicom_port: the host's port for DICOM.
        commits: whether others ask it for storage commitment.
        deletes: whether its forwarder deletes what all destinations have confirmed.
        unsafe: the options that weaken it on purpose, for a preview to show.
        tls: its certificate, and whose it accepts; None where it is linked to nobody who speaks TLS, and does not itself.
        index: the node's database; None for an index in SQLite, inside the node's volume.
        keep_data: protect the volume, and leave it on the engine when the stack goes.
    """

    stack: Ownership
    image: pulumi.Input[str]
    data: str
    limits: Limits
    start_seconds: int
    networks: Sequence[pulumi.Input[str]]
    endpoint: DicomEndpoint[pulumi.Output[str]]
    options: Mapping[str, Any]
    peers: Sequence[Peer[pulumi.Output[str]]]
    users: Mapping[str, User]
    address: str
    host: str
    http_port: int
    dicom_port: int
    commits: bool
    deletes: bool
    unsafe: Sequence[str]
    tls: NodeTls | None
    index: IndexDatabase | None
    keep_data: bool


class OrthancNode(pulumi.ComponentResource):
    """An Orthanc with a data volume.

    Made in two steps: the volume with the component, the container by start(). Between them the database is made, which has to know the
    volume.

    Its configuration is in two files, which both the upstream image and this project's merge: a public one and a secret one. The
    public one is also an input of this component, so that a preview shows which option changes: of the container's files, pulumi-docker
    shows none as soon as one of them is secret.

    Does not forward by itself: Forwarder does. Does not create the database: OrthancIndexDb does.

    Attributes:
        data_id: the identifier of its volume.
        http_url: its web interface, from the host.
        dicom_host: where the host publishes its DICOM port.
        dicom_port: that port.
        revision: changes when the node is deployed anew with another image or public configuration.
    """

    data_id: pulumi.Output[str]
    http_url: pulumi.Output[str]
    dicom_host: pulumi.Output[str]
    dicom_port: pulumi.Output[int]
    revision: pulumi.Output[str]

    def __init__(self, name: str, args: OrthancNodeArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        configuration = _public(name, args)
        super().__init__("orthanc-stack:index:OrthancNode", name, _inputs(args, configuration), opts)
        self._name, self._args, self._configuration = name, args, configuration
        self._data = volume(
            f"{name}-data",
            stack=args.stack,
            name=args.data,
            data_format=names.postgresql_format() if args.index else names.sqlite_format(),
            keep=args.keep_data,
            parent=self,
        )
        self.data_id = identifier_of(self._data)
        # Not by output of the container, nor of anything else: whoever reads it is not replaced with this node, keeps nothing of this
        # stack from being destroyed, and may be made side by side with it.
        self.revision = shown(pulumi.Output.all(args.image, configuration).apply(_revision))

    def start(self, after: Sequence[pulumi.Resource] = ()) -> None:
        """Make the container.

        Args:
            after: what it starts after and stops before, without being replaced with it: the database.
        """
        name, args = self._name, self._args
        made = container(
            f"{name}-container",
            ContainerSpec(
                stack=args.stack,
                name=name,
                role="node",
                image=args.image,
                networks=args.networks,
                limits=args.limits,
                start_seconds=args.start_seconds,
                environment=_TRANSPORT,
                files=[
                    File(path="/etc/orthanc/orthanc.json", content=self._configuration.apply(_as_file)),
                    File(path="/run/secrets/orthanc.json", content=_secret(args), mode="0400"),
                    *_scripts(args),
                    *_trust(args),
                ],
                volumes=[(self._data.name, _STORAGE)],
                ports=[
                    Port(internal=names.HTTP_PORT, external=args.http_port, address=args.address),
                    Port(internal=names.DICOM_PORT, external=args.dicom_port, address=args.address),
                ],
                hosts=[_ENGINE_HOST],
                # The image's own probe reads the user from the configuration: no password on a command line.
                healthcheck=eager_probe("/probes/test-aliveness.py", seconds_to_start=patience(args.start_seconds)),
                # Orthanc ends its associations and saves its jobs.
                grace_seconds=60,
                capabilities=_CAPABILITIES,
            ),
            self,
            depends_on=list(after),
        )
        # By output of the container: these are true when it serves.
        self.http_url = made.name.apply(lambda _: url_of(args.host, args.http_port, tls=bool(args.tls and args.tls.serves)))
        self.dicom_host = made.name.apply(lambda _: args.host)
        self.dicom_port = made.name.apply(lambda _: args.dicom_port)
        self.register_outputs({"dicomHost": self.dicom_host, "dicomPort": self.dicom_port, "httpUrl": self.http_url})


def _inputs(args: OrthancNodeArgs, configuration: pulumi.Output[dict[str, Any]]) -> dict[str, Any]:
    """What a preview shows of a node besides its containers."""
    roles = {user: said.role for user, said in sorted(args.users.items())}
    more: dict[str, Any] = {"unsafe": sorted(args.unsafe)} if args.unsafe else {}
    trusted = {name: one.fingerprint for name, one in sorted(_trusted(args).items())}
    if args.tls:
        more["certificate"] = args.tls.identity.shown()
    if trusted:
        more["trusts"] = trusted
    return {"configuration": shown(configuration), "roles": roles, **more}


def _public(name: str, args: OrthancNodeArgs) -> pulumi.Output[dict[str, Any]]:
    """The node's configuration, less its secrets. What is computed lies over everything else.

    Only the peers' hosts are outputs. They are resolved first, and everything else stays plain: outputs inside a large mapping cost
    the program tens of milliseconds for each node.
    """

    def configuration(hosts: Mapping[str, str]) -> dict[str, Any]:
        computed: dict[str, Any] = {
            "Name": name,
            "DicomAet": args.endpoint.aet,
            "DicomPort": args.endpoint.port,
            "HttpPort": names.HTTP_PORT,
            "StorageDirectory": _STORAGE,
            # Orthanc keys its saved jobs to it. Its own default is made from the MAC address, which a new container changes. The volume's
            # name stays when the stack is renamed.
            "DatabaseServerIdentifier": args.data,
            "LuaScripts": [_ROLES_SCRIPT],
            "DicomModalities": {peer.name: peer.modality() | {"Host": hosts[peer.name]} for peer in args.peers},
        }
        if args.commits:
            computed["PythonScript"] = _COMMITMENT_SCRIPT
        if args.index:
            computed["PostgreSQL"] = {
                "Host": args.index.host,
                "Port": args.index.port,
                "Database": args.index.database,
                "Username": args.index.database,
                # With it, the secret file's ConnectionUri is what counts, and verifies the server's certificate.
                "EnableSsl": args.index.trust is not None,
            }
        if args.tls:
            computed |= args.tls.options()
        return overlay(args.options, computed)

    return pulumi.Output.all(**{peer.name: peer.endpoint.host for peer in args.peers}).apply(configuration)


def _as_file(configuration: Mapping[str, Any]) -> str:
    """As JSON without a `$`: upstream's entry point puts variables in before it reads it (generateConfiguration.py), also for `$NAME`, so
    that the AE title `CT$1` would be `CT`. Orthanc itself knows `${NAME}` alone, which the settings refuse.
    """
    return json.dumps(configuration, sort_keys=True, indent=1).replace("$", r"\u0024")


def _revision(made_of: Sequence[Any]) -> str:
    """A short mark of an image and a configuration, less what its links are: one more sender does not concern all the others."""
    image, configuration = made_of
    told = {key: value for key, value in configuration.items() if key not in OF_LINKS}
    return hashlib.sha256(f"{image}\n{_as_file(told)}".encode()).hexdigest()[:12]


def _scripts(args: OrthancNodeArgs) -> list[File]:
    commitment = [File(path=_COMMITMENT_SCRIPT, content=_COMMITMENT_SOURCE.read_text(encoding="utf-8"))] if args.commits else []
    return [*commitment, File(path=_ROLES_SCRIPT, content=_roles(args))]


def _trusted(args: OrthancNodeArgs) -> dict[str, Trust]:
    """Whom the node knows by a certificate: its peers, and its database."""
    database = {args.index.host: args.index.trust} if args.index and args.index.trust else {}
    return {**(args.tls.trusted if args.tls else {}), **database}


def _trust(args: OrthancNodeArgs) -> list[File]:
    database = [File(path=_DB_TRUSTED, content=args.index.trust.pem)] if args.index and args.index.trust else []
    return [*database, *(args.tls.files() if args.tls else [])]


def _roles(args: OrthancNodeArgs) -> str:
    """The script's data, and the script. Neither a user's name nor a role holds a character that Lua would read otherwise."""
    roles = "".join(f"  ['{user}'] = '{said.role}',\n" for user, said in sorted(args.users.items()))
    return f"local ROLES = {{\n{roles}}}\nlocal DELETES = {str(args.deletes).lower()}\n\n{_ROLES_SOURCE.read_text(encoding='utf-8')}"


def _secret(args: OrthancNodeArgs) -> pulumi.Output[str]:
    """The secret part of the node's configuration. An admin is its first user: as that one, the images' probes ask for the changes."""
    users = sorted(args.users, key=lambda user: (args.users[user].role != "admin", user))
    secrets: dict[str, Any] = {"RegisteredUsers": {user: args.users[user].password for user in users}}
    if args.index:
        secrets["PostgreSQL"] = {"ConnectionUri": args.index.uri()} if args.index.trust else {"Password": args.index.password}
    return pulumi.Output.secret(pulumi.Output.json_dumps(secrets))
