"""What a change in the stack file, or by hand, does to a running stack, and what it leaves alone; and that the report said so before."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from ops.preview.report import Level
from tests.stack.dicom import Study, as_file, ct_series, echo
from tests.stack.forwarding import await_delivery
from tests.stack.harness import docker, eventually
from tests.stack.like_dev import COUNT, WORKSTATION, Dev, Forwarded
from tests.stack.reviewing import Reviewed

# In this order: each begins with what the one before has left.


@pytest.fixture(scope="module")
def reviewed(dev: Dev, forwarded: Forwarded, artifacts: Path) -> Reviewed:
    """The stack, holding the study, with the report of each update."""
    return Reviewed(dev.stack, artifacts / "report-against-truth-shared.md")


@pytest.fixture(scope="module")
def before(dev: Dev) -> dict[str, Any]:
    """Its settings as they were."""
    return copy.deepcopy(dev.stack.settings)


@pytest.mark.usefixtures("before")
def test_a_node_and_a_device_are_added(dev: Dev, reviewed: Reviewed, study: Study, forwarded: Forwarded) -> None:
    assert not echo(dev.client, "SCANNER")
    dev.stack.node_settings("server")["forwardTo"] = ["backup"]
    dev.stack.add_node("backup", index="postgresql")
    scanner = {"name": "scanner", "aet": "SCANNER", "host": "host.docker.internal", "port": 11113, "nodes": ["client"]}
    dev.stack.settings["modalities"].append(scanner)
    report = reviewed.update("a node and a device added")
    # The server's wiring changed: it forwards to the new node. The client knows the scanner; for its forwarder nothing has changed.
    assert report.restarted == {"client", "db-roles", "server"}
    assert "New: backup." in str(report.verdict)
    assert "dbPassword.backup" in report.new_secrets
    assert dev.server.echoes("backup")
    assert dev.stack.node("backup").echoes("server")
    assert {aet: echo(dev.client, aet) for aet in ("SCANNER", WORKSTATION)} == {"SCANNER": True, WORKSTATION: True}
    assert not echo(dev.server, "SCANNER")
    # What the server held before goes to the new node, too.
    await_delivery(dev.stack, "server", "backup")
    assert dev.stack.node("backup").holds(study.uids) == forwarded.identifiers
    assert dev.stack.sql(COUNT, database="orthanc_backup") == str(len(study.uids))


@pytest.mark.parametrize(("role", "database"), [("server", "backup"), ("backup", "server")])
def test_no_role_enters_a_database_of_another(dev: Dev, reviewed: Reviewed, role: str, database: str) -> None:
    password = dev.stack.secrets[f"dbPassword.{role}"]
    own = dev.stack.sql("select current_user", database=f"orthanc_{role}", role=f"orthanc_{role}", password=password)
    assert own == f"orthanc_{role}"
    other = dev.stack.sql("select current_user", database=f"orthanc_{database}", role=f"orthanc_{role}", password=password)
    assert "permission denied for database" in other
    rights = "select bool_or(rolsuper or rolcreatedb or rolcreaterole) from pg_roles where rolname like 'orthanc%'"
    assert dev.stack.sql(rights, database="postgres") == "f"


def test_an_ae_title(dev: Dev, reviewed: Reviewed) -> None:
    dev.stack.node_settings("server")["aet"] = "ARCHIVE"
    report = reviewed.update("an AE title")
    assert {down.node: down.aet for down in report.downtime} == {
        "server": "ORTHANC_SERVER",
        "client": "ORTHANC_CLIENT",
        "backup": "BACKUP",
    }
    assert report.restarted == {"server", "client", "client-forwarder", "backup"}
    # Both ends of the link know it, and images go on.
    image = ct_series(slices=1, size=16)[0]
    study = dev.client.post("/instances", as_file(image))["ParentStudy"]
    await_delivery(dev.stack, "client", "server")
    assert dev.server.get("/system")["DicomAet"] == "ARCHIVE"
    assert dev.server.holds([image.SOPInstanceUID])
    await_delivery(dev.stack, "server", "backup")
    for node in dev.stack.nodes().values():
        node.ask(f"/studies/{study}", method="DELETE")


def test_the_databases_settings_restart_no_node(dev: Dev, reviewed: Reviewed, study: Study, forwarded: Forwarded) -> None:
    dev.stack.settings["indexDb"] = {"maxConnections": 60}
    report = reviewed.update("indexDb.maxConnections")
    assert (report.level, report.restarted) == (Level.QUIET, {"db"})
    assert any("503" in str(words) for words in report.waits)
    eventually("the server serves again", lambda: dev.server.ask("/tools/find", {"Level": "Study", "Query": {}})[0] == 200)
    assert dev.server.holds(study.uids) == forwarded.identifiers
    assert dev.stack.sql("show max_connections", database="postgres") == "60"


def test_a_node_is_removed_with_its_data(dev: Dev, reviewed: Reviewed, before: dict[str, Any]) -> None:
    """With all else as it was before these tests."""
    dev.stack.settings = before
    report = reviewed.update("a node removed, and all else as before")
    assert [down.node for down in report.downtime if down.for_good] == ["backup"]
    assert [risk.volume for risk in report.data if risk.lost] == [f"{dev.stack.prefix}-backup"]
    assert dev.stack.volumes() == {"client", "db", "server"}


@pytest.mark.parametrize("by_hand", [("stop",), ("rm", "--force")], ids=" ".join)
def test_a_container_that_goes_by_hand_comes_back_with_its_data(dev: Dev, study: Study, forwarded: Forwarded, by_hand: list[str]) -> None:
    before = dev.stack.containers()
    docker(*by_hand, f"{dev.stack.prefix}-client")
    dev.stack.up(refresh=True)
    eventually("the client serves", lambda: dev.client.ask("/system")[0] == 200)
    assert dev.client.holds(study.uids) == forwarded.identifiers
    assert {name for name, one in dev.stack.containers().items() if one != before[name]} <= {"client"}
    dev.stack.preview(expect_no_changes=True)
