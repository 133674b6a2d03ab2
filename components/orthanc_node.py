"""One Orthanc server: its data volume, its configuration in two files, its container."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_docker as docker

from components.container import (
    PAYLOAD,
    START_SECONDS,
    File,
    Limits,
    PublishedArgs,
    container,
    data_volume,
    of_component,
    safe_password,
    shown,
)
from components.index_db import IndexDatabase
from components.network import DicomEndpoint, reached_on
from components.ownership import Ownership
from components.tls import NodeTls
from configs import names
from configs.fields import USER_NAME
from configs.orthanc import OF_LINKS, baseline, computed_in, overlay
from configs.plan import PERMISSIONS
from configs.secrets import Certificate
from configs.settings import Role

#: DCMTK reads these two; Orthanc's own TcpNoDelay is for HTTP. Without the first, small writes wait for delayed acknowledgements: one
#: association carried 17 images/s of a CT series, 97 with the first, 123 with both.
_TRANSPORT = {"TCP_BUFFER_LENGTH": "1048576", "TCP_NODELAY": "1"}
#: The name of the machine that runs the engine. Docker Desktop resolves it by itself, engines on Linux from 20.10 on by this entry.
_ENGINE_HOST = {"host.docker.internal": "host-gateway"}
#: The images' files are another user's (999), and Orthanc runs as root: without it, not even /etc/hostid could be written.
_CAPABILITIES = ("DAC_OVERRIDE",)

#: The script in Python that guards what is stored, and the script in Lua that decides what each user may do; both images run them.
_STORAGE_SCRIPT = "/etc/orthanc/storage.py"
_ROLES_SCRIPT = "/etc/orthanc/roles.lua"
_STORAGE = "/var/lib/orthanc/db"
_DB_TRUSTED = "/etc/orthanc/tls-database.pem"


#: The roles of users: a stack file's, and the forwarder's.
_ROLES = sorted((*Role, names.FORWARDER_USER))


@dataclass(frozen=True)
class User:
    """A user of a node's web interface and REST API."""

    role: str  #: admin, viewer, uploader or forwarder: payload/roles.lua has the requests of each.
    password: pulumi.Input[str]


@dataclass(frozen=True)
class Peer:
    """A DICOM application that a node knows: an entry of its DicomModalities."""

    endpoint: DicomEndpoint  #: Where it is reached.
    permissions: frozenset[str] = frozenset()  #: What it may ask of the node, as Orthanc names it (``AllowStore``); the rest is refused.
    tls: bool = False  #: Whether it is reached by DICOM TLS.

    def modality(self, host: str) -> dict[str, object]:
        """The entry in the long form of Orthanc's configuration."""
        return {
            "AET": self.endpoint.aet,
            "Host": host,
            "Port": self.endpoint.port,
            **{permission: permission in self.permissions for permission in PERMISSIONS},
            **({"UseDicomTls": True} if self.tls else {}),
        }


@dataclass(frozen=True, kw_only=True)
class OrthancNodeArgs(PublishedArgs):
    """The arguments of an OrthancNode."""

    aet: str  #: Its AE title.
    network: pulumi.Input[str]  #: The network where others reach it, and the host its ports.
    users: Mapping[str, User]  #: The users of its web interface and REST API, by name. At least one is an admin.
    http_port: int  #: The host's port for HTTP.
    dicom_port: int  #: The host's port for DICOM.
    peers: Mapping[str, Peer] = field(default_factory=dict)  #: The DICOM applications that it knows, by name. All others are refused.
    #: Orthanc's options. They replace those of the baseline that makes a node safe, and not those that are computed here.
    options: Mapping[str, Any] = field(default_factory=dict)
    deletes: bool = False  #: Whether its forwarder deletes what all destinations have confirmed.
    unsafe: Sequence[str] = ()  #: The options that weaken it on purpose, for a preview to show.
    tls: NodeTls | None = None  #: Its certificate, and those that it accepts; None for a node that never uses TLS.
    index: IndexDatabase | None = None  #: The database for its index; None for an index in SQLite, in its data volume.
    data: docker.Volume | None = None  #: Its data volume; made here when left out.
    #: Orthanc's DatabaseServerIdentifier, the key of its saved jobs; the node's physical name when left out. Another one forgets the jobs.
    #: Orthanc's own default is made from the MAC address, which a new container changes.
    server_id: str = ""
    limits: Limits = field(default_factory=Limits)  #: What its container may use of the machine.
    start_seconds: int = START_SECONDS  #: How long it may take to become healthy.

    @property
    def trusts(self) -> dict[str, Certificate]:
        """The certificates that the node accepts: of its peers, and of its database."""
        database = {self.index.host: self.index.certificate} if self.index and self.index.certificate else {}
        return {**(self.tls.trusts if self.tls else {}), **database}


class OrthancNode(pulumi.ComponentResource):
    """An Orthanc with a data volume.

    Its configuration is in two files, a public one and a secret one, which both the upstream image and this project's merge. The public
    one is also an input of this component, so that a preview shows which option changes: of the container's files, pulumi-docker shows
    none as soon as one of them is secret.

    It does not forward by itself: Forwarder does. It does not create its database: OrthancIndexDb does.
    """

    name: str  #: Its name, which is its host name on its networks.
    endpoint: DicomEndpoint  #: Where the other nodes reach it.
    peers: Mapping[str, Peer]  #: The DICOM applications that it knows, by name.
    scu_timeout: int  #: The seconds that it waits for a peer's answer (DicomScuTimeout); 0 is without end.
    tls_certificate: Certificate | None  #: The certificate of the TLS that it serves; None where it serves none.
    http_url: pulumi.Output[str]  #: Its web interface, from the host.
    dicom_host: pulumi.Output[str]  #: Where the host publishes its DICOM port.
    dicom_port: pulumi.Output[int]  #: That port.
    revision: pulumi.Output[str]  #: Changes with the node's image and public configuration, its links excepted.

    def __init__(self, name: str, args: OrthancNodeArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        if wrong := _mistakes(args):
            raise pulumi.RunError(f"OrthancNode {name}: {'; '.join(wrong)}")
        data_format = names.postgresql_format() if args.index else names.sqlite_format()
        configuration = _public(name, args)
        super().__init__("orthanc-stack:index:OrthancNode", name, _inputs(args, configuration), opts)
        data = args.data or data_volume(f"{name}-data", data_format=data_format, stack=args.stack, opts=of_component(self, opts))
        self.name, self.endpoint, self.peers = name, DicomEndpoint(args.aet, reached_on(args.network, name)), args.peers
        self.scu_timeout = int({**baseline(index=False, tls=False), **args.options}["DicomScuTimeout"])
        self.tls_certificate = args.tls.certificate if args.tls and args.tls.serves else None
        # shown(): a forwarder reads the revision of its destinations. Without a dependency on this node's resources, Pulumi does not
        # replace the forwarder each time it replaces this node's container, and may make both at the same time.
        self.revision = shown(pulumi.Output.all(args.image, configuration).apply(_revision))
        made = container(
            f"{name}-container",
            self,
            args,
            name=name,
            role="node",
            networks=[args.network, *([args.index.network] if args.index else [])],
            limits=args.limits,
            start_seconds=args.start_seconds,
            starts_slowly=True,
            environment=_TRANSPORT,
            files=[
                File(path="/etc/orthanc/orthanc.json", content=configuration.apply(_as_file)),
                File(path="/run/secrets/orthanc.json", content=_secret(args), mode="0400"),
                *_scripts(args),
                *([File(path=_DB_TRUSTED, content=args.index.certificate.trust)] if args.index and args.index.certificate else []),
                *(args.tls.files() if args.tls else []),
            ],
            volumes=[(data.name, _STORAGE)],
            ports={names.HTTP_PORT: args.http_port, names.DICOM_PORT: args.dicom_port},
            address=args.address,
            hosts=_ENGINE_HOST,
            # The image's own probe reads the user from the configuration: no password on a command line.
            probe="/probes/test-aliveness.py",
            # Orthanc ends its associations and saves its jobs.
            grace_seconds=60,
            capabilities=_CAPABILITIES,
            after=args.index.after if args.index else (),
        )
        # Outputs of the container: they exist when it serves.
        self.http_url = made.name.apply(lambda _: args.url(args.http_port, tls=self.tls_certificate is not None))
        self.dicom_host = made.name.apply(lambda _: args.reached_at)
        self.dicom_port = made.name.apply(lambda _: args.dicom_port)
        self.register_outputs({"dicomHost": self.dicom_host, "dicomPort": self.dicom_port, "httpUrl": self.http_url})


def _inputs(args: OrthancNodeArgs, configuration: pulumi.Output[dict[str, Any]]) -> dict[str, Any]:
    """What a preview shows of a node besides its container."""
    trusts = {name: certificate.trust_fingerprint for name, certificate in sorted(args.trusts.items())}
    return {
        "configuration": shown(configuration),
        "roles": {name: user.role for name, user in sorted(args.users.items())},
        **({"unsafe": sorted(args.unsafe)} if args.unsafe else {}),
        **({"certificate": args.tls.certificate.shown()} if args.tls else {}),
        **({"trusts": trusts} if trusts else {}),
    }


def _mistakes(args: OrthancNodeArgs) -> list[str]:
    """Arguments that would make a node unsafe or useless. In a stack file, they were refused before."""
    safe = baseline(index=args.index is not None, tls=args.tls is not None)
    wrong = [f"options: {option} is computed and cannot be overridden: {instead}" for option, instead in computed_in(args.options, safe)]
    wrong += [f"users: {user!r} is no user name" for user in args.users if not USER_NAME.fullmatch(user)]
    wrong += [f"users: {user.role!r} is no role; there are {', '.join(_ROLES)}" for user in args.users.values() if user.role not in _ROLES]
    if not any(user.role == Role.ADMIN for user in args.users.values()):
        wrong.append("users: one at least is an admin")
    asked = {permission for peer in args.peers.values() for permission in peer.permissions}
    wrong += [f"peers: {one!r} is no permission; there are {', '.join(PERMISSIONS)}" for one in sorted(asked - set(PERMISSIONS))]
    return wrong


def _public(name: str, args: OrthancNodeArgs) -> pulumi.Output[dict[str, Any]]:
    """The node's configuration without its secrets: the baseline, replaced by its own options, replaced by what is computed here.

    Only the peers' hosts are outputs. They are resolved first: outputs inside a large mapping cost the program tens of milliseconds for
    each node.
    """

    def configuration(hosts: Mapping[str, str]) -> dict[str, Any]:
        computed: dict[str, Any] = {
            "Name": name,
            "DicomAet": args.aet,
            "DicomPort": names.DICOM_PORT,
            "HttpPort": names.HTTP_PORT,
            "StorageDirectory": _STORAGE,
            "DatabaseServerIdentifier": args.server_id or (args.stack or Ownership()).physical(name),
            "LuaScripts": [_ROLES_SCRIPT],
            "PythonScript": _STORAGE_SCRIPT,
            # Else a C-STORE, which holds Orthanc's lock for plugins and waits for Python's, and an answer to storage commitment, which
            # holds Python's and waits for Orthanc's, wait for each other for ever.
            "Python": {"AllowThreads": True},
            "DicomModalities": {peer: args.peers[peer].modality(hosts[peer]) for peer in sorted(args.peers)},
        }
        if args.index:
            computed["PostgreSQL"] = {
                "Host": args.index.host,
                "Port": args.index.port,
                "Database": args.index.database,
                "Username": args.index.database,
                # With TLS, the plugin uses the secret file's ConnectionUri, which verifies the server's certificate.
                "EnableSsl": args.index.certificate is not None,
            }
        if args.tls:
            computed |= args.tls.options()
        return overlay(overlay(baseline(index=args.index is not None, tls=args.tls is not None), args.options), computed)

    return pulumi.Output.all(**{name: peer.endpoint.host for name, peer in args.peers.items()}).apply(configuration)


def _as_file(configuration: Mapping[str, Any]) -> str:
    """JSON without a `$`: upstream's entry point expands `$NAME` before it reads the file (generateConfiguration.py), and the AE title
    `CT$1` would become `CT`. Orthanc itself expands `${NAME}` alone, which the settings refuse.
    """
    return json.dumps(configuration, sort_keys=True, indent=1).replace("$", r"\u0024")


def _revision(made_of: Sequence[Any]) -> str:
    """A digest of an image and a configuration without its links: one more sender does not concern all the others."""
    image, configuration = made_of
    digested = {key: value for key, value in configuration.items() if key not in OF_LINKS}
    return hashlib.sha256(f"{image}\n{_as_file(digested)}".encode()).hexdigest()[:12]


def _scripts(args: OrthancNodeArgs) -> list[File]:
    storage, lua = ((PAYLOAD / file).read_text(encoding="utf-8") for file in ("storage.py", "roles.lua"))
    # The Lua script's data comes first. Users' names and roles have no characters with a meaning in Lua.
    roles = "".join(f"  ['{name}'] = '{user.role}',\n" for name, user in sorted(args.users.items()))
    data = f"local ROLES = {{\n{roles}}}\nlocal DELETES = {str(args.deletes).lower()}\n\n"
    return [File(path=_STORAGE_SCRIPT, content=storage), File(path=_ROLES_SCRIPT, content=data + lua)]


def _secret(args: OrthancNodeArgs) -> pulumi.Output[str]:
    """The secret part of the node's configuration. An admin is its first user: the images' probes log in as the first one."""
    users = sorted(args.users, key=lambda user: (args.users[user].role != "admin", user))
    secrets: dict[str, Any] = {"RegisteredUsers": {user: safe_password(args.users[user].password) for user in users}}
    if args.index:
        secrets["PostgreSQL"] = (
            {"ConnectionUri": _uri(args.index)} if args.index.certificate else {"Password": safe_password(args.index.password)}
        )
    return pulumi.Output.secret(pulumi.Output.json_dumps(secrets))


def _uri(index: IndexDatabase) -> pulumi.Output[str]:
    """libpq's URI of a database whose server's certificate is verified: the plugin's own options cannot do that."""
    server = f"{index.host}:{index.port}/{index.database}?sslmode=verify-full&sslrootcert={_DB_TRUSTED}"
    return pulumi.Output.concat(f"postgresql://{index.database}:", safe_password(index.password), "@", server)
