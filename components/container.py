"""A container, a data volume and an image over pulumi-docker. Its traps are avoided here once, for all components.

Numbers in brackets are rows of the table of pulumi-docker's pitfalls in docs/decisions.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
import pulumi_docker as docker

from components.engine import host_and_port, reached_at
from components.errors import on_error
from components.ownership import Ownership, fresh_identifier
from configs import names
from configs.secrets import SAFE_SECRET, UNSAFE_SECRET

#: The files that run inside the containers.
PAYLOAD = Path(__file__).with_name("payload")
#: How many seconds a container may take to become healthy, by default.
START_SECONDS = 120

#: Rotation, so that a log does not fill the host's disk. Set on each container: a daemon's own log-opts would appear as drift [24].
_LOG_OPTS = {"max-file": "3", "max-size": "10m"}
#: No program in a container gains rights by a set-user-ID bit or by a file's capabilities.
_SECURITY_OPTS = ("no-new-privileges:true",)
#: The kernel's own period of CPU limits. It is set because the engine wants both numbers.
_CPU_PERIOD_MICROSECONDS = 100_000

#: Seconds between two runs of a health check once the container was healthy.
_PROBE_EVERY_SECONDS = 15
#: How many seconds after a start its failures do not count.
_QUIET_SECONDS = 30
#: Marks, inside a container, that its check has passed once since the start: the name holds when process 1 began (proc(5), stat).
_PROBE_MARK = "/tmp/.healthy-$(cut -d' ' -f22 /proc/1/stat)"


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that is written into a container before it starts. Its owner is root [18]."""

    path: str
    content: pulumi.Input[str]  #: A secret Output for a secret.
    mode: str = "0444"  #: Its permissions.
    base64: bool = False  #: Whether the content is bytes, in base64.

    def upload(self) -> docker.ContainerUploadArgs:
        """The file as pulumi-docker takes it."""
        text, data = (None, self.content) if self.base64 else (self.content, None)
        return docker.ContainerUploadArgs(file=self.path, content=text, content_base64=data, permissions=self.mode)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a container may use of the machine."""

    memory: int = 2048  #: MiB. Beyond it the kernel kills the container, and the engine starts it again. There is no swap.
    shares: int = 1024  #: Its weight where containers want more CPU time than there is. 1024 is Docker's own.
    cpus: float | None = None  #: How many CPUs' time it gets at most; None for no limit.


@dataclass(frozen=True, kw_only=True)
class ComponentArgs:
    """The arguments that all components have. Arguments that are plain (no Input) steer the program."""

    image: pulumi.Input[str]  #: The image's ID.
    stack: Ownership | None = None  #: The stack that owns the component; None for the stack that Pulumi runs.


@dataclass(frozen=True, kw_only=True)
class PublishedArgs(ComponentArgs):
    """The arguments of a component with ports on the host."""

    address: str = "127.0.0.1"  #: The host's IP address that the ports are bound to.
    host: str = ""  #: Where the ports are reached; the address when left out.

    @property
    def reached_at(self) -> str:
        """The host name or address where the ports are reached."""
        return self.host or reached_at(self.address)

    def url(self, port: int, *, tls: bool = False) -> str:
        """The URL of one of the host's ports."""
        return f"{'https' if tls else 'http'}://{host_and_port(self.reached_at, port)}"


def shown(output: pulumi.Output[Any]) -> pulumi.Output[Any]:
    """The same value without its dependencies on resources, for an input of a component that is there for a preview to show.

    `pulumi destroy --exclude-protected` does not destroy what a component with a protected volume depends on. A node's configuration holds
    host names, which are outputs of a network: with the dependency, the network would not be destroyed.
    """
    return pulumi.Output(set(), output.future(), output.is_known(), output.is_secret())


def _healthcheck(probe: str, quiet_seconds: int) -> docker.ContainerHealthcheckArgs:
    """A health check that finds a starting container healthy within half a second, and then costs little.

    Docker's own way, start_interval, needs API 1.44 (Docker 25), and the client refuses to send it to an older engine. So the check
    itself waits before every run but the first ones: a run costs 30 to 60 ms of a core, which each second would be 3 to 6 %. Failures do
    not count in the first quiet_seconds.
    """
    every = _PROBE_EVERY_SECONDS
    return docker.ContainerHealthcheckArgs(
        tests=["CMD-SHELL", f"mark={_PROBE_MARK}; if [ -e $mark ]; then sleep {every - 1}; fi; {probe} && touch $mark"],
        # The provider looks each second, from the start on: with 1s, a check would pass just after each look.
        interval="500ms",
        timeout=f"{every + 10}s",
        start_period=_duration(quiet_seconds),
        retries=3,
    )


def _duration(seconds: int) -> str:
    """A duration as Docker shows it, 1m30s for 90 s. In another form, a refresh would find a difference and replace the container."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"


def container(
    logical_name: str,
    parent: pulumi.Resource,
    args: ComponentArgs,
    *,
    name: str,  # its host name, and its alias on its networks; the physical name is <stack>-<name>
    role: str,  # for its label: db, db-roles, node, forwarder, adminer
    networks: Sequence[pulumi.Input[str]],  # by output: a new network brings new containers
    limits: Limits,
    probe: str | None,  # a shell command that succeeds when the container serves; None for a one-shot container
    grace_seconds: int,  # how long it may take to stop before it is killed [1]
    entrypoint: Sequence[str] = (),  # instead of the image's own; the image's command is then left out, too
    command: Sequence[str] = (),  # instead of the image's own
    start_seconds: int = START_SECONDS,  # how long it may take to become healthy; a one-shot, to end
    starts_slowly: bool = False,  # whether a start may take an hour: PostgreSQL's first initdb, Orthanc's upgrade of an index
    shm: int | None = None,  # MiB of /dev/shm; None for the engine's default, 64
    environment: Mapping[str, str] | None = None,  # public variables; secrets go into files [16, 17]
    files: Sequence[File] = (),
    volumes: Sequence[tuple[pulumi.Input[str], str]] = (),  # each by output, with the folder that it is mounted on
    ports: Mapping[int, int] | None = None,  # the container's ports that are published, each with the host's port
    address: str = "",  # the host's IP address that ports are bound to
    user: str | None = None,  # instead of the image's own; a user but root cannot read a file of mode 0400
    # The folders where it may write, each with its options of tmpfs; None for everywhere. It must have no files: the engine copies none
    # into a container whose root is read-only.
    read_only_but: Mapping[str, str] | None = None,
    capabilities: Sequence[str] = (),  # those of root's that it needs; all others are dropped
    hosts: Mapping[str, str] | None = None,  # more lines of its /etc/hosts: names with their addresses
    after: Sequence[pulumi.Resource] = (),  # it is made after these and stopped before them, and not replaced with them
) -> docker.Container:
    """Make a container, and wait until it is healthy; a one-shot container, until it has ended.

    It gets its parent's provider and aliases. It does not get its parent's protection: a protected container could never be changed.
    """
    stack = args.stack or Ownership()
    lifetime: dict[str, Any] = {"attach": True, "must_run": False, "restart": "no"}
    if probe is not None:
        # An hour at least: so another start_seconds does not change the check, which would replace a container during its upgrade.
        check = _healthcheck(probe, max(3600, start_seconds) if starts_slowly else _QUIET_SECONDS)
        lifetime = {"healthcheck": check, "must_run": True, "restart": "unless-stopped", "wait": True, "wait_timeout": start_seconds}
    return docker.Container(
        logical_name,
        name=stack.physical(name),
        hostname=name,
        image=args.image,
        entrypoints=list(entrypoint) or None,
        command=list(command) or None,
        user=user,
        envs=[f"{key}={value}" for key, value in sorted((environment or {}).items())],
        uploads=[file.upload() for file in sorted(files, key=lambda file: file.path)],
        volumes=[docker.ContainerVolumeArgs(volume_name=volume, container_path=path) for volume, path in volumes],
        # One alias on each network, no network_mode [6].
        networks_advanced=[docker.ContainerNetworksAdvancedArgs(name=network, aliases=[name]) for network in networks],
        ports=[
            # Every field, in a fixed order [20].
            docker.ContainerPortArgs(internal=internal, external=external, ip=address, protocol="tcp")
            for internal, external in sorted((ports or {}).items())
        ],
        hosts=[docker.ContainerHostArgs(host=host, ip=ip) for host, ip in (hosts or {}).items()],
        capabilities=docker.ContainerCapabilitiesArgs(
            adds=[f"CAP_{capability}" for capability in sorted(capabilities)] or None,
            drops=["ALL"],
        ),
        read_only=read_only_but is not None,
        tmpfs=dict(read_only_but) if read_only_but else None,
        security_opts=list(_SECURITY_OPTS),
        shm_size=shm,
        memory=limits.memory,
        # The same, so none of it is swap: a node that swaps serves nobody, and patients' names would be on the host's disk.
        memory_swap=limits.memory,
        cpu_shares=limits.shares,
        # Not `cpus`, which the provider writes otherwise than it reads it [44].
        cpu_period=_CPU_PERIOD_MICROSECONDS if limits.cpus else None,
        cpu_quota=round(limits.cpus * _CPU_PERIOD_MICROSECONDS) if limits.cpus else None,
        labels=[docker.ContainerLabelArgs(label=label, value=value) for label, value in stack.labels({names.LABEL_ROLE: role})],
        log_driver="json-file",
        log_opts=_LOG_OPTS,
        # From the first deployment on: a container is deleted by the value in the old state [1].
        destroy_grace_seconds=grace_seconds,
        # No anonymous volume holds anything: each VOLUME of an image has a volume of the stack [40].
        remove_volumes=True,
        opts=pulumi.ResourceOptions(
            parent=parent,
            # Not as its parent: a container that is kept blocks the next one.
            protect=False,
            retain_on_delete=False,
            depends_on=list(after),
            delete_before_replace=True,
            # Edits of these are otherwise shown as an update and never made [2]. "#initerror" is a start that failed: without it, a
            # container with both an entry point and a command would get an empty update, and `up` would be green.
            replace_on_changes=["healthcheck", "tmpfs", "init", "rm", "cpuPeriod", "cpuQuota", "#initerror"],
            hooks=on_error(),
            # The provider's own limit is 20 minutes. It is for the whole creation: a minute for what comes before the wait.
            custom_timeouts=pulumi.CustomTimeouts(create=f"{start_seconds + (60 if probe else 0)}s"),
        ),
        **lifetime,
    )


def data_volume(
    logical_name: str, *, data_format: str, stack: Ownership | None = None, name: str = "", opts: pulumi.ResourceOptions | None = None
) -> docker.Volume:
    """Make a data volume. With ``protect`` among its options, it also stays on the engine when the stack goes, unless they say otherwise.

    Args:
        logical_name: the resource's name.
        data_format: the format of its data, for its label (names.sqlite_format, names.postgresql_format).
        stack: the stack that owns it; None for the stack that Pulumi runs.
        name: its name on the engine; made from the logical name when left out.
        opts: the caller's options.
    """
    stack = stack or Ownership()
    labels = stack.labels({names.LABEL_FORMAT: data_format, names.LABEL_VOLUME: fresh_identifier()})
    opts = opts or pulumi.ResourceOptions()
    own = pulumi.ResourceOptions(
        retain_on_delete=opts.protect if opts.retain_on_delete is None else opts.retain_on_delete,
        # A changed label or name would replace the volume, and delete its data [3]. The labels tell how it was made; the name stays
        # through `pulumi stack rename`.
        ignore_changes=["labels", "name"],
    )
    return docker.Volume(
        logical_name,
        name=name or stack.physical(logical_name),
        labels=[docker.VolumeLabelArgs(label=label, value=value) for label, value in labels],
        opts=pulumi.ResourceOptions.merge(opts, own),
    )


def of_component(parent: pulumi.Resource, opts: pulumi.ResourceOptions | None) -> pulumi.ResourceOptions:
    """The options of a component's own data volume: protected and kept as the options of the component say."""
    opts = opts or pulumi.ResourceOptions()
    return pulumi.ResourceOptions(parent=parent, protect=opts.protect, retain_on_delete=opts.retain_on_delete)


def safe_password(value: pulumi.Input[str]) -> pulumi.Output[str]:
    """A password as a secret, refused where an image would misread it. In a stack file, it was refused before."""
    return pulumi.Output.secret(pulumi.Output.from_input(value).apply(check_password))


def check_password(text: str) -> str:
    """A password, if every image reads it as it is.

    Raises:
        pulumi.RunError: it is empty or holds another character.
    """
    if not SAFE_SECRET.fullmatch(text):
        raise pulumi.RunError(f"A password {UNSAFE_SECRET}")
    return text


def identifier_of(volume: docker.Volume) -> pulumi.Output[str]:
    """A volume's own identifier, from its label; its name for a volume from before there was this label."""

    def find(made: Sequence[Any]) -> str:
        name, labels = made
        found = {one["label"]: one["value"] for one in labels or ()}
        return str(found.get(names.LABEL_VOLUME, name))

    return pulumi.Output.all(volume.name, volume.labels).apply(find)


def image(logical_name: str, name: str, opts: pulumi.ResourceOptions | None = None) -> docker.RemoteImage:
    """An image by its name with a tag: pulled where the engine does not hold it, and never removed, because other stacks may run it.

    Containers refer to it by its ID: a tag that moved on the engine then shows in the next refresh.
    """
    own = pulumi.ResourceOptions(hooks=on_error())
    return docker.RemoteImage(logical_name, name=name, keep_locally=True, opts=pulumi.ResourceOptions.merge(opts, own))
