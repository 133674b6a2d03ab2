"""The settings of one stack, as they stand in its stack file. The rules between them are in rules.py.

The descriptions are the reference: docs/settings.md and docs/settings.schema.json are made from them.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from configs.fields import (
    SECONDS,
    Address,
    AeTitle,
    DeviceHost,
    Distinct,
    FromList,
    Host,
    HostKey,
    Image,
    Keep,
    NodeName,
    Patterns,
    Port,
    Repository,
    Settings,
    Timeout,
    UidPatterns,
    UserName,
    or_name,
)

#: A network of the engine is a Linux bridge, which has 1024 ports; a node and its forwarder take two.
MAX_NODES = 500
MAX_MODALITIES = 2000
#: MiB. Below 256, an Orthanc or a PostgreSQL without load is killed at the first request.
Memory = Annotated[int, Field(ge=256, le=1_048_576)]
#: A tenth of a CPU is the least with which a probe ends in time.
Cpus = Annotated[float, Field(ge=0.1, le=1024)]


class Operation(StrEnum):
    """What one DICOM node may ask of another."""

    ECHO = "echo"
    STORE = "store"
    FIND = "find"
    GET = "get"
    MOVE = "move"
    WORKLIST = "worklist"
    COMMIT = "commit"


class ImageSettings(Settings):
    """Which container images the stack runs, and where they come from."""

    source: Literal["auto", "registry", "local"] = "registry"
    """'registry': pull the images named here. 'local': the ones built from images/ out of Debian's packages, for sites without access to a
    registry. 'auto' (dev only): the locally built ones where the engine holds them, else the registry's."""
    orthanc: Image = "orthancteam/orthanc:26.8.1"
    """the registry's image of Orthanc, with an exact tag."""
    postgres: Image = "postgres:17.11"
    """the registry's image of PostgreSQL, with an exact tag that begins with indexDb.majorVersion."""
    adminer: Image = "adminer:6.0.1"
    """the registry's image of Adminer, with an exact tag."""
    restic: Image = "restic/restic:0.18.1"
    """the registry's image of restic, with an exact tag, for backups."""


class IndexDbSettings(Settings):
    """The PostgreSQL server that holds the index of each node with ``index: postgresql``."""

    major_version: Annotated[int, Field(ge=14, le=18)] = 17
    """PostgreSQL's major version, 14 to 18. The data volume belongs to one major version: a stack file that changes it is refused as long
    as the volume exists. `./orthanc-stack upgrade-db STACK` moves the data to the next one, and writes it here."""
    volume: str = "db"
    """which of the stack's volumes has the data: 'db', and after an upgrade 'db.18'. Only `./orthanc-stack upgrade-db STACK` changes it: a
    change by hand is refused."""
    max_connections: Annotated[int, Field(ge=20, le=5000)] = 100
    """PostgreSQL's max_connections, 20 to 5000: at least the sum of the nodes' PostgreSQL.IndexConnectionsCount, and 13 in reserve."""
    tls: bool | None = None
    """whether PostgreSQL takes connections by TLS only, and each node verifies its certificate: true or false; true in prod and false in
    dev when left out."""
    memory: Memory = 2048
    """MiB that PostgreSQL's container may use, 256 to 1048576, without swap; beyond it, it is killed and started again. 128 are its shared
    buffers; each connection takes 5 to 15; a quarter of it may be /dev/shm, for parallel queries."""
    start_timeout: Timeout = 120
    """how long PostgreSQL may take until it serves, in seconds, or as 10m or 2h: 5 seconds to 24 hours. The one-shot that makes the nodes'
    roles may take as long. Beyond it `up` fails, and the next `up` waits again."""
    cpus: Cpus | None = None
    """how many CPUs' time PostgreSQL gets at most, 0.1 to 1024; all there is when left out."""


class RuleSettings(Settings):
    """The images that match every key; in a list, one pattern is enough. `*` is any text, `?` any character; case does not count."""

    modality: Patterns = ()
    """patterns for Modality (0008,0060): `[CT, "M*"]`."""
    calling_aet: Patterns = ()
    """patterns for the AE title that sent the image to the node. An image that came by HTTP has none, and matches `*` alone."""
    station: Patterns = ()
    """patterns for StationName (0008,1010)."""
    study_description: Patterns = ()
    """patterns for StudyDescription (0008,1030): `["*chest*"]`. If the study's first image has none, the link waits until the study is
    stable (`StableAge` seconds without a new image), and then judges each image by the one in its own file."""
    sop_class: UidPatterns = ()
    """patterns for the SOP class UID (0008,0016): `[1.2.840.10008.5.1.4.1.1.2]` is CT, `["*.5.1.4.1.1.88.*"]` structured reports."""
    origin: Literal["received", "created"] | None = None
    """'created': images that this node made of others, by anonymization or modification. 'received': all others. Both, when left out."""


class LinkSettings(Settings):
    """One destination of a node. A name alone, ``server``, is short for ``{to: server}``."""

    to: str
    """the destination's name: a node, or one of the stack's modalities that has this node among its `nodes`."""
    only: RuleSettings = Field(default_factory=RuleSettings)
    """which images the destination gets: those that match; all, when left out. An image that no link takes stays at the node."""
    but_not: RuleSettings = Field(default_factory=RuleSettings, alias="not")
    """which of these images it does not get: those that match every key of `not`. `{modality: [SR], callingAet: [CT1]}` leaves out only the
    SR that CT1 sent. When left out, it gets all of them."""
    associations: Annotated[int, Field(ge=1, le=16)] = 2
    """how many associations may send to the destination at once, 1 to 16."""
    confirm: Literal["auto", "commitment", "query", "stored"] = "auto"
    """what counts as arrived. 'commitment': the destination says by DICOM storage commitment that it keeps the image. 'query': it lists the
    image when it is asked (C-FIND). 'stored': it acknowledged the transfer; nothing is asked afterwards. 'auto': 'commitment' for a node
    of the stack; for a device, the first of the three that it turns out to have. What it lacks is tried again every 15 minutes.
    `./orthanc-stack status` says which one is in use."""

    @property
    def may_commit(self) -> bool:
        """Whether the destination is asked for storage commitment, as far as it has that."""
        return self.confirm in ("auto", "commitment")


_link = or_name(lambda name: {"to": name}, "a destination's name, or {to: name, …}")
_Link = Annotated[LinkSettings, BeforeValidator(_link, json_schema_input_type=str | LinkSettings)]


class Role(StrEnum):
    """What a user may ask of a node's web interface and REST API; components/payload/roles.lua has each request."""

    ADMIN = "admin"
    VIEWER = "viewer"
    UPLOADER = "uploader"


class UserSettings(Settings):
    """One user of a node. A name alone, ``orthanc``, is short for ``{name: orthanc, role: admin}``."""

    name: UserName
    """the user's name, unique at the node: 1 to 32 letters, digits, '_' and '-', beginning with a letter. 'forwarder' is taken."""
    role: Annotated[Role, Field(strict=False)]
    """'admin': everything. 'viewer': looks, searches and downloads; changes nothing, sends nothing to others. 'uploader': sends images to
    the node by HTTP, and sees none."""


_user = or_name(lambda name: {"name": name, "role": Role.ADMIN}, "a user's name, or {name: name, role: viewer}")
_User = Annotated[UserSettings, BeforeValidator(_user, json_schema_input_type=str | UserSettings)]


class NodeSettings(Settings):
    """One Orthanc."""

    name: NodeName
    """the node's name, unique; also its host name for those it is linked to. 1 to 32 lower-case letters, digits and hyphens."""
    aet: AeTitle
    """the node's AE title, unique without regard to case: 1 to 16 ASCII characters, no backslash."""
    http_port: Port
    """the host's port for Orthanc's web interface and REST API, 1 to 65535."""
    dicom_port: Port
    """the host's port for DICOM associations, 1 to 65535."""
    index: Literal["postgresql", "sqlite"] = "postgresql"
    """where the node keeps its index: 'postgresql' (a database of its own on the stack's server) or 'sqlite' (in its volume). Fixed once
    the node's volume exists."""
    forward_to: Annotated[tuple[_Link, ...], FromList, Field(max_length=64)] = ()
    """the destinations of the node's images, each a name or a mapping as below. The node's forwarder sends until each has confirmed. Both
    ends are put into each other's DicomModalities."""
    keep: Keep = "forever"
    """how long the node keeps images that it has forwarded. 'forever'. 'until-confirmed': until every destination has confirmed them by
    storage commitment. 'until-confirmed after 7d': the same, but at least until 7 days after the last image of their series came (a
    number, and s, m, h or d)."""
    metrics_port: Port | None = None
    """the host's port for the forwarder's status and Prometheus metrics, 1 to 65535; on no port when left out."""
    bind: Address | None = None
    """the host's IP address that the node's ports are bound to; the stack's `bind` when left out."""
    tls: bool | None = None
    """whether the node speaks TLS only: HTTPS, and DICOM TLS with a certificate on both sides. true or false; true in prod and false in dev
    when left out. docs/tls.md says how its certificate is made, or given."""
    tls_names: Annotated[tuple[Host, ...], FromList, Distinct, Field(max_length=32)] = ()
    """host names and IP addresses that the node is reached by from outside, besides `bind` and localhost: `./orthanc-stack certs STACK`
    makes its certificate for them, too."""
    memory: Memory = 2048
    """MiB that the node's container may use, 256 to 1048576, without swap; beyond it, it is killed and started again. docs/containers.md
    says how to size it."""
    start_timeout: Timeout = 120
    """how long the node may take until it serves, in seconds, or as 10m or 2h: 5 seconds to 24 hours. An upgrade of a large index takes
    minutes. Beyond it `up` fails, the node goes on, and the next `up` waits again."""
    cpus: Cpus | None = None
    """how many CPUs' time the node gets at most, 0.1 to 1024; all there is when left out."""
    users: Annotated[tuple[_User, ...], FromList, Field(min_length=1, max_length=100)] = Field(("orthanc",), validate_default=True)
    """the users of the web interface and the REST API, each a mapping as below, or a name alone for an admin; each has a secret
    userPassword.<node>.<user>. At least one is an admin."""
    unsafe: Annotated[tuple[str, ...], FromList, Distinct] = ()
    """the names of those options of the `orthanc` block that weaken the node's protection on purpose. In prod, such an option is refused
    unless it is named here; a preview shows the list."""
    orthanc: dict[str, Any] = Field(default_factory=dict)
    """further options of Orthanc, by their names in Orthanc's configuration; laid over configs/orthanc/."""

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of the destinations, in the stack file's order."""
        return tuple(link.to for link in self.forward_to)

    @property
    def delete_after(self) -> int | None:
        """How many seconds after its last image came the node deletes a confirmed series; None: never."""
        after = self.keep.partition(" after ")[2]
        if self.keep == "forever":
            return None
        return int(after[:-1]) * SECONDS[after[-1]] if after else 0


class ModalitySettings(Settings):
    """A DICOM device outside the stack: a scanner, a workstation, another archive."""

    name: NodeName
    """the device's name in each node's DicomModalities, unique among nodes and modalities."""
    aet: AeTitle
    """the device's AE title, unique among nodes and modalities."""
    host: DeviceHost
    """the device's host name or IP address as the nodes' containers reach it; host.docker.internal is the machine that runs the Docker
    engine, and localhost the container itself, which is refused."""
    port: Port
    """the device's DICOM port, 1 to 65535."""
    nodes: Annotated[tuple[str, ...], FromList, Distinct, Field(min_length=1, max_length=MAX_NODES)]
    """the names of the nodes that know the device; all others refuse it."""
    tls: bool = False
    """whether the device speaks DICOM TLS, with a certificate of its own, which `./orthanc-stack certs STACK` makes: true or false."""
    allow: Annotated[tuple[Annotated[Operation, Field(strict=False)], ...], FromList, Distinct] = (Operation.ECHO,)
    """what the device may ask of those nodes: any of echo, store, find, get, move, worklist, and commit (storage commitment); each must be
    named. A device that a node forwards to may also echo, and report what it has committed to storage."""


class AdminerSettings(Settings):
    """A web page on the index database, for development."""

    port: Port = 8080
    """the host's port, 1 to 65535."""
    bind: Address | None = None
    """the host's IP address that it is bound to; the stack's `bind` when left out."""


class KeepBackupsSettings(Settings):
    """Which backups are kept: the last one of so many days, weeks and months. All others are removed after a backup."""

    daily: Annotated[int, Field(ge=1, le=10_000)] = 7
    """of how many days, 1 to 10000."""
    weekly: Annotated[int, Field(ge=0, le=10_000)] = 5
    """of how many weeks, 0 to 10000."""
    monthly: Annotated[int, Field(ge=0, le=10_000)] = 12
    """of how many months, 0 to 10000."""


class BackupSettings(Settings):
    """Where `./orthanc-stack backup` puts the stack's data."""

    to: Repository
    """a restic repository: a folder of the engine's machine (`/srv/backup`), a REST server (`rest:https://backup:8000/`), S3
    (`s3:https://host/bucket`), or SFTP (`sftp://user@host:22//srv/backup`). Its password is the secret `backupPassword`; a login of the
    server is `backupKey` (the user, or the access key) and `backupSecret`. For SFTP, `backupKey` is a private key without a passphrase."""
    host_key: HostKey | None = None
    """the SSH server's public key, required for SFTP: what `ssh-keyscan -t ed25519 HOST` prints after the host."""
    keep: KeepBackupsSettings = Field(default_factory=KeepBackupsSettings)
    """which backups are kept."""


class StackSettings(Settings):
    """One environment: everything that its stack file says, less the secrets."""

    environment: Literal["dev", "prod"] = "prod"
    """'dev' or 'prod'. prod keeps its data volumes when the stack is destroyed, refuses weak secrets, Adminer and
    `images.source: auto`, and requires `bind`. configs/orthanc/<environment>.yaml is laid over base.yaml."""
    bind: Address | None = None
    """the host's IP address that every port is bound to unless a node says otherwise; 127.0.0.1 in dev, required in prod."""
    images: ImageSettings = Field(default_factory=ImageSettings)
    """the container images."""
    index_db: IndexDbSettings = Field(default_factory=IndexDbSettings)
    """the index database."""
    nodes: Annotated[tuple[NodeSettings, ...], FromList]
    """a list of at least one Orthanc node."""
    modalities: Annotated[tuple[ModalitySettings, ...], FromList] = ()
    """a list of DICOM devices outside the stack; anyone who is neither a node nor listed here is refused."""
    adminer: AdminerSettings | None = None
    """Adminer, in dev only; left out, there is none."""
    backup: BackupSettings | None = None
    """where backups go; left out, there are none."""
    adopt: Annotated[tuple[str, ...], FromList, Distinct, Field(max_length=MAX_NODES)] = ()
    """the names of volumes on the engine that another state made, or an older version, and that this stack takes over: they are refused
    otherwise. What made them must no longer use them."""
    release_data: bool = False
    """whether the data volumes of a stack that was prod are no longer protected once `environment` is dev: true or false. With true,
    `pulumi destroy`, and a node that is removed, delete patients' images."""

    @property
    def is_prod(self) -> bool:
        """Whether production's rules hold."""
        return self.environment == "prod"

    def bind_of(self, part: NodeSettings | AdminerSettings) -> str:
        """The host's address that a part's ports are bound to."""
        return part.bind or self.bind or "127.0.0.1"

    def tls_of(self, part: NodeSettings | ModalitySettings | IndexDbSettings) -> bool:
        """Whether a node, the index database or a device speaks TLS only."""
        return self.is_prod if part.tls is None else part.tls

    @property
    def db_tls(self) -> bool:
        """Whether there is an index database, and it speaks TLS only."""
        return bool(self.index_nodes) and self.tls_of(self.index_db)

    @property
    def forwarding_nodes(self) -> tuple[NodeSettings, ...]:
        """The nodes that forward, in the stack file's order."""
        return tuple(node for node in self.nodes if node.forward_to)

    def links_to(self, name: str) -> tuple[LinkSettings, ...]:
        """The links that arrive at a node or a modality, in the stack file's order."""
        return tuple(link for node in self.nodes for link in node.forward_to if link.to == name)

    @property
    def index_nodes(self) -> tuple[NodeSettings, ...]:
        """The nodes whose index is in PostgreSQL, in the stack file's order."""
        return tuple(node for node in self.nodes if node.index == "postgresql")
