"""What a change in the stack file, or by hand, does to a running stack, and what it leaves alone."""

from __future__ import annotations

import pytest

from tests.stack.conftest import WORKSTATION, Dev, Forwarded
from tests.stack.dicom import Study, echo
from tests.stack.forwarding import await_delivery
from tests.stack.harness import docker, eventually


def replaced(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """The containers that are not the ones from before."""
    return {name for name, identifier in after.items() if before.get(name) != identifier}


class TestNothingChanged:
    """A deployed stack is what the stack file says: nothing to do, whoever asks."""

    def test_a_second_preview_shows_nothing(self, dev: Dev) -> None:
        dev.stack.preview(expect_no_changes=True)

    def test_nor_does_one_after_a_refresh(self, dev: Dev) -> None:
        dev.stack.refresh()
        dev.stack.preview(expect_no_changes=True)

    def test_a_second_up_does_nothing(self, dev: Dev) -> None:
        before = dev.stack.containers()
        assert dev.stack.up().steps == {}
        assert dev.stack.containers() == before


def test_a_new_database_container_replaces_no_node(dev: Dev, study: Study, forwarded: Forwarded) -> None:
    before = dev.stack.containers()
    dev.stack.settings["indexDb"] = {"maxConnections": 60}
    done = dev.stack.up()
    assert done.replaced == {"db-container"}
    assert replaced(before, dev.stack.containers()) == {"db"}
    eventually("the server serves again", lambda: dev.server.ask("/tools/find", {"Level": "Study", "Query": {}})[0] == 200)
    assert dev.server.holds(study.uids) == forwarded.identifiers
    assert dev.stack.sql("show max_connections", database="postgres") == "60"


def test_a_scanner_gets_known_by_the_stack_file_alone(dev: Dev) -> None:
    assert not echo(dev.client, "SCANNER")
    with dev.stack.trying() as settings:
        scanner = {"name": "scanner", "aet": "SCANNER", "host": "host.docker.internal", "port": 11113, "nodes": ["client"]}
        settings["modalities"] = [*settings["modalities"], scanner]
        done = dev.stack.up()
        assert done.replaced == {"client-container"}
        assert echo(dev.client, "SCANNER")
        assert not echo(dev.server, "SCANNER")
        assert echo(dev.client, WORKSTATION)


def test_a_node_is_added_to_a_running_stack(dev: Dev, study: Study, forwarded: Forwarded) -> None:
    dev.stack.up()  # whatever the test before tried
    before = dev.stack.containers()
    dev.stack.node_settings("server")["forwardTo"] = ["backup"]
    dev.stack.add_node("backup", index="postgresql")
    dev.stack.up()
    # The server's wiring changed: it forwards to the new node. For the client, it is still the same destination. The database is on one
    # more network, the new node's.
    assert replaced(before, dev.stack.containers()) == {"backup", "db", "db-roles", "server", "server-forwarder"}
    assert dev.server.echoes("backup")
    assert dev.stack.node("backup").echoes("server")
    # What the server held before goes there, too.
    await_delivery(dev.stack, "server", "backup")
    assert dev.stack.node("backup").holds(study.uids) == forwarded.identifiers
    assert dev.stack.sql("select count(*) from globalproperties", database="orthanc_backup") != "0"
    assert {"server", "client", "backup"} == dev.stack.nodes().keys()


class TestDatabaseRoles:
    """Each node's role owns its database and enters no other."""

    @pytest.mark.parametrize(("role", "database"), [("server", "backup"), ("backup", "server")])
    def test_no_role_enters_a_database_of_another(self, dev: Dev, role: str, database: str) -> None:
        if "backup" not in dev.stack.nodes():
            dev.stack.add_node("backup", index="postgresql")
            dev.stack.up()
        password = dev.stack.secrets[f"dbPassword.{role}"]
        own = dev.stack.sql("select current_user", database=f"orthanc_{role}", role=f"orthanc_{role}", password=password)
        assert own == f"orthanc_{role}"
        other = dev.stack.sql("select current_user", database=f"orthanc_{database}", role=f"orthanc_{role}", password=password)
        assert "permission denied for database" in other

    def test_none_is_a_superuser(self, dev: Dev) -> None:
        rights = "select bool_or(rolsuper or rolcreatedb or rolcreaterole) from pg_roles where rolname like 'orthanc%'"
        assert dev.stack.sql(rights, database="postgres") == "f"


class TestByHand:
    """What somebody did to a container with the docker command is put right by `pulumi up --refresh`."""

    def test_a_removed_container_comes_back_with_its_data(self, dev: Dev, study: Study, forwarded: Forwarded) -> None:
        docker("rm", "--force", f"{dev.stack.prefix}-client")
        dev.stack.up(refresh=True)
        assert dev.client.holds(study.uids) == forwarded.identifiers
        dev.stack.preview(expect_no_changes=True)

    def test_a_stopped_container_runs_again(self, dev: Dev, study: Study, forwarded: Forwarded) -> None:
        before = dev.stack.containers()
        docker("stop", f"{dev.stack.prefix}-client")
        dev.stack.up(refresh=True)
        eventually("the client serves", lambda: healthy(f"{dev.stack.prefix}-client"))
        assert dev.client.holds(study.uids) == forwarded.identifiers
        assert replaced(before, dev.stack.containers()) <= {"client"}
        dev.stack.preview(expect_no_changes=True)


def healthy(container: str) -> bool:
    """Whether the engine finds a container healthy."""
    return docker("inspect", "--format", "{{.State.Health.Status}}", container) == "healthy"
