"""What can happen to the parts of a stack: each a context, in which it lasts; after it the part is reachable again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from tests.faults.losing import Loss, losing
from tests.faults.world import SERVER, World
from tests.stack.harness import docker

_STORAGE = "/var/lib/orthanc/db"
#: For a shell in a container's network namespace: other ones after each time that it was cut off. A part has one for each network.
_DEVICES = "$(ip -o link show | sed 's/^[0-9]*: //; s/[@:].*//' | grep -v '^lo$')"


class ImpossibleError(Exception):
    """This machine cannot do that; says why."""


@contextlib.contextmanager
def killed(world: World, *parts: str) -> Iterator[None]:
    """kill -9; the engine starts them anew."""
    for name in parts:
        world.part(name).kill()
    try:
        yield
    finally:
        world.await_service(*parts)


@contextlib.contextmanager
def stopped(world: World, *parts: str) -> Iterator[None]:
    """docker stop, of all at once, and docker start."""
    containers = [world.part(name).container for name in parts]
    with ThreadPoolExecutor(len(parts)) as pool:
        list(pool.map(lambda container: docker("stop", "--time", "60", container), containers))
    try:
        yield
    finally:
        docker("start", *containers)
        world.await_service(*parts)


@contextlib.contextmanager
def cut_off(world: World, name: str) -> Iterator[None]:
    """Without a network: connections neither answer nor end."""
    container = world.part(name).container
    networks = docker("inspect", "--format", "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}", container).split()
    for network in networks:
        docker("network", "disconnect", network, container)
    try:
        yield
    finally:
        for network in networks:
            docker("network", "connect", "--alias", name, network, container)
        world.await_service(name)


def lossy(world: World, name: str, percent: int) -> contextlib.AbstractContextManager[None]:
    """A line that loses packets on their way to a part."""
    rule = f"INPUT ! -i lo -m statistic --mode random --probability {percent / 100} -j DROP"
    return _worse_line(world, name, _queue(f"netem loss {percent}% delay 20ms"), (f"iptables -A {rule}", f"iptables -D {rule}"))


def slow(world: World, name: str, kilobits: int) -> contextlib.AbstractContextManager[None]:
    """A slow line away from a part, with a long queue: every answer waits."""
    return _worse_line(world, name, _queue(f"tbf rate {kilobits}kbit burst 4kb latency 2000ms"))


def _queue(discipline: str) -> tuple[str, str]:
    """Commands that begin and end a queue on each of a container's network devices; each ends at the first that fails."""
    commands = (f"add dev $d root {discipline}", "del dev $d root")
    begin, end = (f"for d in {_DEVICES}; do tc qdisc {command} || exit; done" for command in commands)
    return begin, end


@contextlib.contextmanager
def _worse_line(world: World, name: str, *ways: tuple[str, str]) -> Iterator[None]:
    """A line made worse, by the first of some ways that this machine knows: each a command that begins it, and one that ends it.

    Raises:
        ImpossibleError: the kernel has none of them.
    """
    part, answers = world.part(name), list[str]()

    def begins(command: str) -> bool:
        answers.append(part.inside(f"{command} && echo done", "net", check=False))
        return answers[-1].endswith("done")

    end = next((end for begin, end in ways if begins(begin)), None)
    if end is None:
        raise ImpossibleError("; ".join(answers))
    try:
        yield
    finally:
        # After a restart it is another namespace, where there is nothing to end.
        part.inside(end, "net", check=False)
        world.await_service(name)


@contextlib.contextmanager
def disk_full(world: World, name: str) -> Iterator[None]:
    """Nothing more fits on a node's disk.

    A small file system that is full to the last byte lies over the node's images, in the node's own view alone. So its images cannot
    be read meanwhile, either; they are there again afterwards. It is filled before it is put there: an image that came into it in time
    would be confirmed, and then be gone with it.
    """
    part, aside = world.part(name), "/dev/shm/full"
    fill = f"mkdir -p {aside} && mount -t tmpfs -o size=64k none {aside} && ! cat /dev/zero > {aside}/full && ! echo >> {aside}/full"
    part.inside(f"{fill} && mount --bind {aside} {_STORAGE} && umount {aside}", "mount", "pid")
    try:
        yield
    finally:
        # Lazily: Orthanc may have a file open in it. After a restart there is nothing to take away.
        part.inside(f"umount --lazy {_STORAGE}; ! grep -q ' {_STORAGE} tmpfs ' /proc/mounts", "mount", "pid")
        world.await_service(name)


@contextlib.contextmanager
def accepting_and_losing(world: World, most: int) -> Iterator[Loss]:
    """The archive loses the next files that it writes, and does not know."""
    with losing(world.archive.volume, most) as loss:
        yield loss
    world.await_service(SERVER)
