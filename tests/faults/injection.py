"""What can happen to the parts of a stack: each a context, in which it lasts; after it the part is reachable again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from tests.faults.losing import Loss, losing
from tests.faults.parts import run
from tests.faults.world import SERVER, World
from tests.stack.harness import docker

_STORAGE = "/var/lib/orthanc/db"
#: For a shell in a container's network namespace: other ones after each time that it was cut off. A part has one for each network.
_DEVICES = "$(ip -o link show | sed 's/^[0-9]*: //; s/[@:].*//' | grep -v '^lo$')"


def _on_each(command: str) -> str:
    """A command of tc for each of a container's network devices, $d; ends at the first that fails."""
    return f"for d in {_DEVICES}; do tc {command} || exit; done"


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
    with ThreadPoolExecutor(len(parts)) as pool:
        list(pool.map(lambda name: world.part(name).stop(), parts))
    try:
        yield
    finally:
        for name in parts:
            world.part(name).start()
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


@contextlib.contextmanager
def lossy(world: World, name: str, percent: int) -> Iterator[str]:
    """A line that loses packets on their way to a part; how it was done.

    Raises:
        ImpossibleError: the kernel has neither way.
    """
    part = world.part(name)
    rule = f"INPUT ! -i lo -m statistic --mode random --probability {percent / 100} -j DROP"
    ways = (
        ("tc netem", _on_each(f"qdisc add dev $d root netem loss {percent}% delay 20ms"), _on_each("qdisc del dev $d root")),
        ("iptables statistic", f"iptables -A {rule}", f"iptables -D {rule}"),
    )
    answers = {}
    for way, begin, end in ways:
        answers[way] = part.inside(f"{begin} && echo done", "net", check=False)
        if answers[way].endswith("done"):
            undo = end
            break
    else:
        raise ImpossibleError(str(answers))
    try:
        yield way
    finally:
        # After a restart it is another namespace, without the loss.
        part.inside(undo, "net", check=False)
        world.await_service(name)


@contextlib.contextmanager
def slow(world: World, name: str, kilobits: int) -> Iterator[None]:
    """A slow line away from a part, with a long queue: every answer waits.

    Raises:
        ImpossibleError: the kernel has no such queue.
    """
    part, queue = world.part(name), f"tbf rate {kilobits}kbit burst 4kb latency 2000ms"
    answer = part.inside(f"{_on_each(f'qdisc add dev $d root {queue}')} && echo done", "net", check=False)
    if not answer.endswith("done"):
        raise ImpossibleError(f"tc tbf: {answer}")
    try:
        yield
    finally:
        part.inside(_on_each("qdisc del dev $d root"), "net", check=False)
        world.await_service(name)


@contextlib.contextmanager
def disk_full(world: World, name: str) -> Iterator[None]:
    """Nothing more fits on a node's disk.

    A small file system that is full to the last byte lies over the node's images, in the node's own view alone. So its images cannot
    be read meanwhile, either; they are there again afterwards.
    """
    part = world.part(name)
    part.inside(f"mount -t tmpfs -o size=64k none {_STORAGE} && cat /dev/zero > {_STORAGE}/full; true", "mount", "pid")
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


def can_lose_packets() -> bool:
    """Whether this machine has what lossy() and slow() need; they tell what the kernel lacks."""
    return not run("sh", "-c", "command -v nsenter iptables tc >/dev/null || echo missing", check=False)
