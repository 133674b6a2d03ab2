"""The stack that the short tests of faults share; each leaves it idle."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from random import Random, SystemRandom

import pytest

from tests.faults.sender import Sender
from tests.faults.world import SERVER, World, make_world

#: ``client`` has its index in SQLite, ``second`` in PostgreSQL. ``room`` has two destinations, of which one forwards in its turn.
_CLIENTS = (
    {"name": "client", "forwardTo": [SERVER]},
    {"name": "second", "index": "postgresql", "forwardTo": [SERVER], "keep": "until-confirmed"},
    {"name": "room", "forwardTo": ["client", "spare"]},
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows what the forwarders said last."""
    report = yield
    world = getattr(item, "funcargs", {}).get("world")
    if report.failed and isinstance(world, World):
        forwarders = [f"{client}-forwarder" for client in world.clients]
        report.sections += [(name, world.part(name).log("--tail", "30")) for name in forwarders]
    return report


@pytest.fixture(scope="package")
def world(program: Path) -> Iterator[World]:
    """The stack."""
    made = make_world(program, _CLIENTS, [{"name": "spare"}, {"name": "lonely"}])
    try:
        made.deploy()
        made.archive.count_stores()
        yield made
    finally:
        made.stack.wipe()


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> Random:
    """What happens by chance in a test; FAULTS_SEED repeats it. Printed where the test fails."""
    seed = os.environ.get("FAULTS_SEED") or SystemRandom().randrange(10**6)
    print(f"FAULTS_SEED={seed}")
    return Random(f"{seed} {request.node.name}")


@pytest.fixture
def scanner(world: World) -> Sender:
    return Sender(world.ledger)
