"""What every container of a stack has in common: pulumi-docker's traps avoided once, for all components.

Numbers in brackets are rows of the table of pulumi-docker's pitfalls in docs/decisions.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_docker as docker

from components.errors import on_error
from components.ownership import Ownership, fresh_identifier
from configs import names
from configs.engine import host_and_port

#: Rotation, so that a chatty container does not fill the host's disk. Said for each container because a daemon's own log-opts would
#: otherwise appear as drift [24].
_LOG_OPTS = {"max-file": "3", "max-size": "10m"}

#: What runs in a container gets no more rights than it began with, by no set-user-ID program and no file's capabilities.
_SECURITY_OPTS = ("no-new-privileges:true",)

#: The kernel's own period of CPU limits, said because the engine wants both numbers.
_CPU_PERIOD_MICROSECONDS = 100_000

#: Seconds between two runs of a probe once the container was healthy.
_PROBE_EVERY_SECONDS = 15
#: Marks, inside a container, that its probe has passed once since the start: the name holds when process 1 began (proc(5), stat).
_PROBE_MARK = "/tmp/.healthy-$(cut -d' ' -f22 /proc/1/stat)"


def child(parent: pulumi.Resource, **extra: Any) -> pulumi.ResourceOptions:
    """The options of a component's child: its parent, and what this child alone needs.

    The caller's options are not handed down: they are for the component (pulumi-kubernetes#2717 is the only written rule of this).
    """
    return pulumi.ResourceOptions(parent=parent, **extra)


def shown(output: pulumi.Output[Any]) -> pulumi.Output[Any]:
    """A value as an input of a component, for a preview to show, without the resources that it comes from.

    A component with a protected volume keeps whatever its inputs come from: `pulumi destroy --exclude-protected` would leave the
    network, because a text of the configuration came from it.
    """
    return pulumi.Output(set(), output.future(), output.is_known(), output.is_secret())


def url_of(host: str, port: int, *, tls: bool = False) -> str:
    """The URL of a port of a host, a name or an address of either kind."""
    return f"{'https' if tls else 'http'}://{host_and_port(host, port)}"


def eager_probe(command: str, *, seconds_to_start: int) -> docker.ContainerHealthcheckArgs:
    """A health check that finds a starting container healthy within half a second, and then costs little.

    Docker's own way, start_interval, needs API 1.44 (Docker 25), and the client refuses to send it to an older engine. So the check
    itself waits before every run but the first ones: a run costs 30 to 60 ms of a core, which each second would be 3 to 6 %.

    Args:
        command: a shell command that succeeds when the container serves.
        seconds_to_start: how long failures are not counted after the start.
    """
    every = _PROBE_EVERY_SECONDS
    return docker.ContainerHealthcheckArgs(
        tests=["CMD-SHELL", f"mark={_PROBE_MARK}; if [ -e $mark ]; then sleep {every - 1}; fi; {command} && touch $mark"],
        # The provider looks each second, from the start on: with 1s, a probe would pass just after each look.
        interval="500ms",
        timeout=f"{every + 10}s",
        start_period=_duration(seconds_to_start),
        retries=3,
    )


def patience(start_seconds: int) -> int:
    """How long failures are not counted at a start that may be slow: PostgreSQL's first initdb, Orthanc's upgrade of an index.

    An hour at least: another limit is then not another health check, which would replace a container in the middle of its upgrade.
    """
    return max(3600, start_seconds)


def _duration(seconds: int) -> str:
    """A duration as Docker gives it back, 1m30s for 90s: any other form would be a difference after a refresh, and a new container."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"


#: How long a container may take to become healthy unless it is said otherwise.
START_SECONDS = 120


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that is written into a container before it starts.

    Attributes:
        path: where, in the container.
        content: what; a secret Output for a secret.
        mode: its permissions, as "0444". Its owner is root [18].
    """

    path: str
    content: pulumi.Input[str]
    mode: str = "0444"


@dataclass(frozen=True, kw_only=True)
class Port:
    """A port of a container that the host publishes."""

    internal: int
    external: int
    address: str


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a container may use of the machine.

    Attributes:
        memory: MiB, at which the kernel kills it, and the engine starts it again; it gets no swap.
        shares: its weight where containers want more CPU time than there is.
        cpus: how many CPUs' time it gets at most; None for as much as there is.
    """

    memory: int
    shares: int
    cpus: float | None = None


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    """One container, as the components describe it.

    Attributes:
        stack: whose it is.
        name: the container's role in the stack; the physical name is ``<stack>-<name>``, and the name on the network.
        role: what it is, for its label: db, db-roles, node, forwarder, adminer.
        image: the image's ID.
        networks: the networks that it is on, by output: a new network brings new containers.
        limits: what it may use of the machine.
        healthcheck: its health check; None for a container that runs once and ends.
        grace_seconds: how long it may take to stop before it is killed [1].
        entrypoint: instead of the image's own; the image's command is then left out, too.
        command: instead of the image's own.
        start_seconds: how long it may take to become healthy, or, without a health check, to end.
        shm: MiB of /dev/shm; None for the engine's default, 64.
        environment: public variables; secrets go into files [16, 17].
        files: files to write into it.
        volumes: its volumes by output, with where each is mounted.
        ports: the ports that the host publishes.
        user: who it runs as, instead of the image's own user; that user cannot read a file of mode 0400.
        read_only_but: where it may write, with each folder's options of tmpfs; None for everywhere. Needs a container without files:
            the engine copies none into one whose root is read-only.
        capabilities: what it needs of root's capabilities; all others are dropped.
        hosts: names that its /etc/hosts gets, with their addresses.
    """

    stack: Ownership
    name: str
    role: str
    image: pulumi.Input[str]
    networks: Sequence[pulumi.Input[str]]
    limits: Limits
    healthcheck: docker.ContainerHealthcheckArgs | None
    grace_seconds: int
    entrypoint: Sequence[str] | None = None
    command: Sequence[str] | None = None
    start_seconds: int = START_SECONDS
    shm: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[File] = ()
    volumes: Sequence[tuple[pulumi.Input[str], str]] = ()
    ports: Sequence[Port] = ()
    user: str | None = None
    read_only_but: Mapping[str, str] | None = None
    capabilities: Sequence[str] = ()
    hosts: Sequence[tuple[str, str]] = ()


def container(logical_name: str, spec: ContainerSpec, parent: pulumi.Resource, **extra: Any) -> docker.Container:
    """Make a container, and wait until it is healthy, or, without a health check, until it has ended.

    Args:
        logical_name: the resource's name.
        spec: the container.
        parent: the component that it belongs to.
        extra: further resource options.
    """
    runs_once = spec.healthcheck is None
    lifetime: dict[str, Any] = (
        {"attach": True, "must_run": False, "restart": "no"}
        if runs_once
        else {
            "healthcheck": spec.healthcheck,
            "must_run": True,
            "restart": "unless-stopped",
            "wait": True,
            "wait_timeout": spec.start_seconds,
        }
    )
    return docker.Container(
        logical_name,
        name=f"{spec.stack.prefix}-{spec.name}",
        hostname=spec.name,
        image=spec.image,
        entrypoints=list(spec.entrypoint) if spec.entrypoint else None,
        command=list(spec.command) if spec.command else None,
        user=spec.user,
        envs=[f"{key}={value}" for key, value in sorted(spec.environment.items())],
        uploads=[
            docker.ContainerUploadArgs(file=file.path, content=file.content, permissions=file.mode)
            for file in sorted(spec.files, key=lambda file: file.path)
        ],
        volumes=[docker.ContainerVolumeArgs(volume_name=volume, container_path=path) for volume, path in spec.volumes],
        # One alias on each network, no network_mode [6].
        networks_advanced=[docker.ContainerNetworksAdvancedArgs(name=network, aliases=[spec.name]) for network in spec.networks],
        ports=[
            # Everything said, in a fixed order [20].
            docker.ContainerPortArgs(internal=port.internal, external=port.external, ip=port.address, protocol="tcp")
            for port in sorted(spec.ports, key=lambda port: port.internal)
        ],
        hosts=[docker.ContainerHostArgs(host=host, ip=address) for host, address in spec.hosts],
        capabilities=docker.ContainerCapabilitiesArgs(
            adds=[f"CAP_{name}" for name in sorted(spec.capabilities)] or None,
            drops=["ALL"],
        ),
        read_only=spec.read_only_but is not None,
        tmpfs=dict(spec.read_only_but) if spec.read_only_but else None,
        security_opts=list(_SECURITY_OPTS),
        shm_size=spec.shm,
        memory=spec.limits.memory,
        # The same, so none of it is swap: a node that swaps serves nobody, and patients' names would be on the host's disk.
        memory_swap=spec.limits.memory,
        cpu_shares=spec.limits.shares,
        # Not `cpus`, which the provider writes otherwise than it reads it [44].
        cpu_period=_CPU_PERIOD_MICROSECONDS if spec.limits.cpus else None,
        cpu_quota=round(spec.limits.cpus * _CPU_PERIOD_MICROSECONDS) if spec.limits.cpus else None,
        labels=[docker.ContainerLabelArgs(label=label, value=value) for label, value in spec.stack.labels({names.LABEL_ROLE: spec.role})],
        log_driver="json-file",
        log_opts=_LOG_OPTS,
        # From the first deployment on: what is deleted is deleted by the old state's value [1].
        destroy_grace_seconds=spec.grace_seconds,
        # No anonymous volume holds anything: each VOLUME of an image has a volume of the stack [40].
        remove_volumes=True,
        opts=child(
            parent,
            delete_before_replace=True,
            # Edits of these are otherwise shown as an update and never made [2]. The last one stands for a start that failed: without it, a
            # container that says both entry point and command would get an empty update, and `up` would be green.
            replace_on_changes=["healthcheck", "tmpfs", "init", "rm", "cpuPeriod", "cpuQuota", "#initerror"],
            hooks=on_error(),
            # The provider's own limit is 20 minutes. It is for the whole creation: a minute for what comes before the wait.
            custom_timeouts=pulumi.CustomTimeouts(create=f"{spec.start_seconds + (0 if runs_once else 60)}s"),
            **extra,
        ),
        **lifetime,
    )


def volume(
    logical_name: str, *, stack: Ownership, name: str, data_format: str, keep: bool, parent: pulumi.Resource, **extra: Any
) -> docker.Volume:
    """Make a data volume.

    Args:
        logical_name: the resource's name.
        stack: whose it is.
        name: its name on the engine.
        data_format: what the data in it is made by, for preflight.py.
        keep: protect it, and leave it on the engine when the stack goes.
        parent: the component that it belongs to.
        extra: further resource options.
    """
    return docker.Volume(
        logical_name,
        name=name,
        labels=[
            docker.VolumeLabelArgs(label=label, value=value)
            for label, value in stack.labels({names.LABEL_FORMAT: data_format, names.LABEL_VOLUME: fresh_identifier()})
        ],
        opts=child(
            parent,
            protect=keep,
            retain_on_delete=keep,
            # A changed label or name would replace the volume, which is to delete its data [3]. The labels say what it was made by; the
            # name stays through `pulumi stack rename`.
            ignore_changes=["labels", "name"],
            **extra,
        ),
    )


def identifier_of(volume: docker.Volume) -> pulumi.Output[str]:
    """A volume's own identifier, from its label; its name for a volume that was made before there was one."""

    def find(said: Sequence[Any]) -> str:
        name, labels = said
        found = {one["label"]: one["value"] for one in labels or ()}
        return str(found.get(names.LABEL_VOLUME, name))

    return pulumi.Output.all(volume.name, volume.labels).apply(find)
