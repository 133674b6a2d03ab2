"""A container, a data volume and an image over pulumi-docker: its traps avoided once, for all components.

Numbers in brackets are rows of the table of pulumi-docker's pitfalls in docs/decisions.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
import pulumi_docker as docker

from components.engine import host_and_port
from components.errors import on_error
from components.ownership import Ownership, fresh_identifier
from configs import names

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


#: What runs inside the containers.
PAYLOAD = Path(__file__).with_name("payload")
#: How long a container may take to become healthy unless it is said otherwise.
START_SECONDS = 120


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that is written into a container before it starts.

    Attributes:
        path: where, in the container.
        content: what; a secret Output for a secret.
        mode: its permissions, as "0444". Its owner is root [18].
        base64: whether the content is bytes, in base64.
    """

    path: str
    content: pulumi.Input[str]
    mode: str = "0444"
    base64: bool = False

    def upload(self) -> docker.ContainerUploadArgs:
        """The file as pulumi-docker takes it."""
        text, data = (None, self.content) if self.base64 else (self.content, None)
        return docker.ContainerUploadArgs(file=self.path, content=text, content_base64=data, permissions=self.mode)


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

    memory: int = 2048
    shares: int = 1024
    cpus: float | None = None


def container(
    logical_name: str,
    parent: pulumi.Resource,
    *,
    stack: Ownership | None,
    name: str,
    role: str,
    image: pulumi.Input[str],
    networks: Sequence[pulumi.Input[str]],
    limits: Limits,
    healthcheck: docker.ContainerHealthcheckArgs | None,
    grace_seconds: int,
    entrypoint: Sequence[str] | None = None,
    command: Sequence[str] | None = None,
    start_seconds: int = START_SECONDS,
    shm: int | None = None,
    environment: Mapping[str, str] | None = None,
    files: Sequence[File] = (),
    volumes: Sequence[tuple[pulumi.Input[str], str]] = (),
    ports: Sequence[Port] = (),
    user: str | None = None,
    read_only_but: Mapping[str, str] | None = None,
    capabilities: Sequence[str] = (),
    hosts: Sequence[tuple[str, str]] = (),
    after: Sequence[pulumi.Resource] = (),
) -> docker.Container:
    """Make a container, and wait until it is healthy, or, without a health check, until it has ended.

    Args:
        logical_name: the resource's name.
        parent: the component that it belongs to. Its provider and its aliases are the container's, too. Its protection is not: a container
            that could not be replaced could not be changed.
        stack: the stack that owns it; None for the stack that Pulumi runs.
        name: its host name, and its name on its networks; the physical name is ``<stack>-<name>``.
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
        after: what it is made after and stopped before, without being replaced with it.
    """
    stack = stack or Ownership()
    runs_once = healthcheck is None
    lifetime: dict[str, Any] = (
        {"attach": True, "must_run": False, "restart": "no"}
        if runs_once
        else {"healthcheck": healthcheck, "must_run": True, "restart": "unless-stopped", "wait": True, "wait_timeout": start_seconds}
    )
    return docker.Container(
        logical_name,
        name=stack.physical(name),
        hostname=name,
        image=image,
        entrypoints=list(entrypoint) if entrypoint else None,
        command=list(command) if command else None,
        user=user,
        envs=[f"{key}={value}" for key, value in sorted((environment or {}).items())],
        uploads=[file.upload() for file in sorted(files, key=lambda file: file.path)],
        volumes=[docker.ContainerVolumeArgs(volume_name=volume, container_path=path) for volume, path in volumes],
        # One alias on each network, no network_mode [6].
        networks_advanced=[docker.ContainerNetworksAdvancedArgs(name=network, aliases=[name]) for network in networks],
        ports=[
            # Everything said, in a fixed order [20].
            docker.ContainerPortArgs(internal=port.internal, external=port.external, ip=port.address, protocol="tcp")
            for port in sorted(ports, key=lambda port: port.internal)
        ],
        hosts=[docker.ContainerHostArgs(host=host, ip=address) for host, address in hosts],
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
        # From the first deployment on: what is deleted is deleted by the old state's value [1].
        destroy_grace_seconds=grace_seconds,
        # No anonymous volume holds anything: each VOLUME of an image has a volume of the stack [40].
        remove_volumes=True,
        opts=pulumi.ResourceOptions(
            parent=parent,
            protect=False,
            depends_on=list(after),
            delete_before_replace=True,
            # Edits of these are otherwise shown as an update and never made [2]. The last one stands for a start that failed: without it, a
            # container that says both entry point and command would get an empty update, and `up` would be green.
            replace_on_changes=["healthcheck", "tmpfs", "init", "rm", "cpuPeriod", "cpuQuota", "#initerror"],
            hooks=on_error(),
            # The provider's own limit is 20 minutes. It is for the whole creation: a minute for what comes before the wait.
            custom_timeouts=pulumi.CustomTimeouts(create=f"{start_seconds + (0 if runs_once else 60)}s"),
        ),
        **lifetime,
    )


def data_volume(
    logical_name: str,
    *,
    data_format: str,
    stack: Ownership | None = None,
    name: str = "",
    opts: pulumi.ResourceOptions | None = None,
) -> docker.Volume:
    """Make a data volume. With ``protect`` among its options, it also stays on the engine when the stack goes.

    Args:
        logical_name: the resource's name.
        data_format: what the data in it is made by, for its label (names.sqlite_format, names.postgresql_format).
        stack: the stack that owns it; None for the stack that Pulumi runs.
        name: its name on the engine; made from the logical name when left out.
        opts: the caller's options.
    """
    stack = stack or Ownership()
    labels = stack.labels({names.LABEL_FORMAT: data_format, names.LABEL_VOLUME: fresh_identifier()})
    own = pulumi.ResourceOptions(
        retain_on_delete=opts.protect if opts else None,
        # A changed label or name would replace the volume, which is to delete its data [3]. The labels say what it was made by; the name
        # stays through `pulumi stack rename`.
        ignore_changes=["labels", "name"],
    )
    return docker.Volume(
        logical_name,
        name=name or stack.physical(logical_name),
        labels=[docker.VolumeLabelArgs(label=label, value=value) for label, value in labels],
        opts=pulumi.ResourceOptions.merge(opts, own),
    )


def identifier_of(volume: docker.Volume) -> pulumi.Output[str]:
    """A volume's own identifier, from its label; its name for a volume that was made before there was one."""

    def find(made: Sequence[Any]) -> str:
        name, labels = made
        found = {one["label"]: one["value"] for one in labels or ()}
        return str(found.get(names.LABEL_VOLUME, name))

    return pulumi.Output.all(volume.name, volume.labels).apply(find)


def image(logical_name: str, name: str, opts: pulumi.ResourceOptions | None = None) -> docker.RemoteImage:
    """An image, pulled where the engine does not hold it, and never removed from the engine, where other stacks may run it.

    Containers refer to it by its ID: a tag that moved on the engine then shows in the next refresh.

    Args:
        logical_name: the resource's name.
        name: the image with its tag.
        opts: the caller's options.
    """
    own = pulumi.ResourceOptions(hooks=on_error())
    return docker.RemoteImage(logical_name, name=name, keep_locally=True, opts=pulumi.ResourceOptions.merge(opts, own))
