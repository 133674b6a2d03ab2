"""What a container of a stack may do on the machine, and whom it reaches. The exceptions are docs/containers.md's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.stack.docker_bench import CHECKS, documented, inspect
from tests.stack.harness import docker
from tests.stack.like_dev import Dev
from tests.stack.reach import PUBLISHED, Outside, addresses, answering, expected, outside, reached, role_of


@pytest.fixture
def containers(dev: Dev) -> dict[str, dict[str, Any]]:
    """What the engine shows of each container of dev, by its name in the stack."""
    return inspect(dev.stack.containers())


@pytest.mark.parametrize("number", CHECKS)
def test_docker_bench_warns_of_what_is_documented_and_of_nothing_else(containers: dict[str, dict[str, Any]], number: str) -> None:
    warned = {role_of(container) for container in containers.values() if CHECKS[number](container)}
    assert warned == documented().get(number, set()), f"{number}: docs/containers.md, Exceptions, says otherwise"


def test_every_documented_exception_is_of_a_check() -> None:
    assert documented().keys() <= CHECKS.keys()


#: CAP_DAC_OVERRIDE, as a mask (capabilities(7)).
_DAC_OVERRIDE = 1 << 1


def test_no_process_has_a_capability_but_the_nodes_one_or_can_get_one(containers: dict[str, dict[str, Any]]) -> None:
    """Not only asked for: what the kernel says. PostgreSQL's, too, once its entry point has become postgres."""
    for name, container in containers.items():
        if container["State"]["Running"]:
            status = docker("exec", container["Id"], "cat", "/proc/1/status").splitlines()
            said = dict(line.split(":\t", 1) for line in status if ":\t" in line)
            has = _DAC_OVERRIDE if role_of(container) == "node" else 0
            assert (name, said["NoNewPrivs"], int(said["CapEff"], 16), int(said["CapPrm"], 16)) == (name, "1", has, has)


def test_a_limit_is_the_kernels(containers: dict[str, dict[str, Any]]) -> None:
    """What a container sees of its own group: of version 1 or 2."""
    for name, container in containers.items():
        if container["State"]["Running"]:
            files = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"
            assert (name, int(docker("exec", container["Id"], "sh", "-c", files))) == (name, container["HostConfig"]["Memory"])


@pytest.mark.slow("deploys three times: 40 s")
def test_memory_is_changed_without_a_new_container_and_cpus_with_one(dev: Dev) -> None:
    before = dev.stack.containers()
    with dev.stack.trying():
        client = dev.stack.node_settings("client")
        client["memory"] = 1024
        assert dev.stack.up().replaced == set()
        assert dev.stack.containers() == before
        assert limits_of(dev, "client") == (1024 << 20, 1024 << 20, 0)
        client["cpus"] = 1.5
        assert dev.stack.up().replaced == {"client-container"}
        assert limits_of(dev, "client") == (1024 << 20, 1024 << 20, 150_000)
        dev.stack.refresh()
        dev.stack.preview(expect_no_changes=True)
    assert dev.stack.up().replaced == {"client-container"}
    assert limits_of(dev, "client") == (2048 << 20, 2048 << 20, 0)


def limits_of(dev: Dev, name: str) -> tuple[int, int, int]:
    """Memory, memory and swap, microseconds of CPU in each tenth of a second."""
    host = inspect({name: dev.stack.containers()[name]})[name]["HostConfig"]
    return host["Memory"], host["MemorySwap"], host["CpuQuota"]


def test_adminers_root_is_read_only(containers: dict[str, dict[str, Any]]) -> None:
    adminer = containers["adminer"]["Id"]
    assert "Read-only file system" in docker("exec", "--user", "0", adminer, "sh", "-c", "echo > /var/www/html/x.php", check=False)
    assert docker("exec", adminer, "sh", "-c", "echo kept > /tmp/x && cat /tmp/x && rm /tmp/x") == "kept"


def test_no_container_is_given_another_capability(containers: dict[str, dict[str, Any]]) -> None:
    added = {name: set(container["HostConfig"]["CapAdd"] or ()) for name, container in containers.items()}
    known = {"db": {"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETGID", "CAP_SETUID"}, "node": {"CAP_DAC_OVERRIDE"}}
    assert added == {name: known.get(role_of(container), set()) for name, container in containers.items()}


def test_who_reaches_whom(dev: Dev) -> None:
    found = reached(dev.stack)
    assert found == expected(dev.stack)
    assert {name for name, _ in found["adminer"]} == {"db", "server"}, "Adminer reaches the database, and the nodes whose index is there"


@pytest.fixture(scope="module")
def beside() -> Iterator[Outside]:
    """A machine beside the engine's, on a line with it."""
    with outside() as made:
        yield made


#: Seconds to wait for a port of a machine that refuses at once where nothing listens, and of one that may be silent.
_REFUSING, _SILENT = 5.0, 0.3


class TestOutside:
    """A machine beside the engine's."""

    def test_nodes_reach_it_and_the_database_and_adminer_do_not(self, beside: Outside, containers: dict[str, dict[str, Any]]) -> None:
        with beside.listening(11112) as device:
            found = {name: bool(answering(c, {device})) for name, c in containers.items() if c["State"]["Running"]}
        assert found == {name: role_of(containers[name]) in ("node", "forwarder") for name in found}

    @pytest.mark.slow("deploys twice, and scans every port of the machine twice: 60 s")
    def test_it_finds_the_declared_ports_and_no_others(self, dev: Dev, beside: Outside) -> None:
        """The server's are bound to the address that it sees; everything else to 127.0.0.1. What others have open there stays out."""
        before = beside.scan({beside.engine}, 65535, _REFUSING)
        parts = [*dev.stack.settings["nodes"], dev.stack.settings["adminer"]]
        everything = {
            (beside.engine, part[key]) for part in parts for key in ("httpPort", "dicomPort", "metricsPort", "port") if key in part
        }
        assert before & everything == set(), "bound to 127.0.0.1"
        with dev.stack.trying():
            server = dev.stack.node_settings("server")
            server["bind"] = beside.engine
            declared = {(beside.engine, server[key]) for key in ("httpPort", "dicomPort")}
            try:
                dev.stack.up()
                found = beside.scan({beside.engine}, 65535, _REFUSING)
            finally:
                del server["bind"]
                dev.stack.up()
        assert found - before == declared

    @pytest.mark.slow("scans 10,000 ports of each container: 20 s")
    def test_nor_does_it_at_the_containers_own_addresses(self, beside: Outside, containers: dict[str, dict[str, Any]]) -> None:
        """An engine before 28 lets published ports be reached there, too, by who sends to them by way of its machine: a pitfall of bind."""
        networks = {name for c in containers.values() for name in addresses(c)}
        shown = docker("network", "inspect", "--format", "{{.Name}} {{.Internal}} {{(index .IPAM.Config 0).Subnet}}", *networks)
        lines = [line.split() for line in shown.splitlines()]
        beside.route({subnet for _, _, subnet in lines})
        out = {name for name, internal, _ in lines if internal == "false"}
        at = {(address, role_of(c), name in out) for c in containers.values() for name, address in addresses(c).items()}
        found = beside.scan({address for address, _, _ in at}, 10_000, _SILENT)
        assert found <= {(address, port) for address, role, leads_out in at if leads_out for port in PUBLISHED[role]}
        assert found or int(docker("version", "--format", "{{.Server.Version}}").partition(".")[0]) >= 28, "the scan sees nothing at all"
