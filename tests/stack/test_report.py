"""The report against the truth (reviewing.py): one stack goes through all changes that dev/test_changes.py leaves to the slow size."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.preview.command import run
from ops.preview.page import markdown
from ops.preview.report import Level, Report
from ops.setup.prepare import Tools
from ops.setup.state import State
from ops.stack.stack import Stack as Deployed
from tests.stack import record_previews as changes
from tests.stack.harness import Stack, copy_program, need_pulumi
from tests.stack.reviewing import Reviewed

pytestmark = pytest.mark.slow("fifteen changes of a stack, each previewed and deployed: 4 minutes")


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory: pytest.TempPathFactory, artifacts: Path) -> Iterator[Reviewed]:
    """The stack, on a copy of the program that one of the changes edits."""
    need_pulumi()
    changes.tag_images()
    stack = Stack(copy_program(tmp_path_factory.mktemp("reviewed")), "dev", images=changes.images())
    try:
        with stack.deployed():
            yield Reviewed(stack, artifacts / "report-against-truth-own.md")
    finally:
        changes.untag_images()


def settings(report: Report) -> dict[str, tuple[str | None, str | None]]:
    return {f"{each.part}: {each.path}": (each.old, each.new) for each in report.settings}


def why(report: Report) -> dict[str, str]:
    """Why each container is replaced."""
    replaced = [each for each in report.resources if each.type == "Container" and each.op == "replace"]
    return {name: "; ".join(map(str, each.why)) for each in replaced for name in each.names}


# In this order: each begins with what the one before has left.


def test_nothing(reviewed: Reviewed) -> None:
    report = reviewed.update("nothing")
    assert (report.level, report.containers, report.settings, report.notes) == (Level.NOTHING, (), (), ())


def test_an_option(reviewed: Reviewed) -> None:
    changes.change_option(reviewed.stack)
    report = reviewed.update("an Orthanc option")
    assert settings(report) == {"node client: orthanc.StableAge": (None, "20")}
    assert report.restarted == {"client"}


def test_passwords(reviewed: Reviewed) -> None:
    """Of a user and of a forwarder, which is in its node's file as well."""
    changes.rotate_secret(reviewed.stack)
    reviewed.stack.secrets["forwarderPassword.client"] = "rotated-too-1"
    report = reviewed.update("a user's password, and a forwarder's")
    assert report.settings == ()
    assert report.secret_files == ("client", "client-forwarder", "server")
    assert reviewed.stack.secrets["userPassword.server.orthanc"] not in markdown(report)[0]


def test_a_port(reviewed: Reviewed) -> None:
    before = reviewed.ports()["client"]
    changes.change_port(reviewed.stack)
    report = reviewed.update("a DICOM port")
    (down,) = report.downtime
    assert (down.node, down.dicom) == ("client", f"127.0.0.1:{before}")
    assert str(reviewed.ports()["client"]) in str(down.words)


def test_memory_is_changed_in_place(reviewed: Reviewed) -> None:
    reviewed.stack.node_settings("server")["memory"] = 1536
    report = reviewed.update("memory")
    assert (report.level, report.restarted) == (Level.QUIET, set())
    assert settings(report) == {"node server: memory": ("2048", "1536")}


def test_a_node_is_added(reviewed: Reviewed) -> None:
    changes.add_node(reviewed.stack)
    report = reviewed.update("a node added")
    assert "New: research." in str(report.verdict)
    assert "dbPassword.research" in report.new_secrets


def test_another_major_version_of_postgresql(reviewed: Reviewed) -> None:
    with reviewed.stack.trying():
        changes.new_major_version(reviewed.stack)
        report = reviewed.refuse("PostgreSQL's major version")
    assert report.level is Level.FAILED
    assert any("indexDb.majorVersion = '16'" in error for error in report.errors)
    assert report.containers == ()


def test_an_image(reviewed: Reviewed) -> None:
    changes.change_image(reviewed.stack)
    report = reviewed.update("another image of Orthanc")
    assert report.restarted == {"client", "client-forwarder", "research", "server"}
    assert any("back up first" in str(words) for words in report.cautions)


def test_a_node_is_renamed(reviewed: Reviewed) -> None:
    changes.rename_node(reviewed.stack)
    report = reviewed.update("a node renamed")
    assert [risk.volume for risk in report.data if risk.lost] == [f"{reviewed.stack.prefix}-client"]
    assert "client" not in reviewed.stack.volumes()
    assert any("renamed" in str(words) for words in report.cautions)


def test_a_node_is_removed(reviewed: Reviewed) -> None:
    settings = reviewed.stack.settings
    settings["nodes"] = [node for node in settings["nodes"] if node["name"] != "research"]
    reviewed.stack.node_settings("gateway")["forwardTo"] = ["server"]
    report = reviewed.update("a node removed")
    assert [down.node for down in report.downtime if down.for_good] == ["research"]
    assert [risk.volume for risk in report.data if risk.lost] == [f"{reviewed.stack.prefix}-research"]
    assert "research" not in reviewed.stack.volumes()


def test_a_volume_is_renamed(reviewed: Reviewed) -> None:
    """No stack file can: an edit of the program can."""
    base = reviewed.stack.program / "components" / "container.py"
    text = base.read_text()
    # A node with its index in PostgreSQL would not start on it: its database knows the volume.
    made = "name=name or stack.physical(logical_name),"
    edited = text.replace(made, 'name=name + ("-images" if name.endswith("-gateway") else ""),')
    edited = edited.replace('ignore_changes=["labels", "name"]', 'ignore_changes=["labels"]')
    assert edited.count("-images") == 1
    base.write_text(edited)
    report = reviewed.update("a volume renamed")
    assert [(risk.volume, risk.lost) for risk in report.data] == [(f"{reviewed.stack.prefix}-gateway", True)]
    assert "gateway" in report.restarted
    assert "gateway" not in reviewed.stack.volumes()
    assert "gateway-images" in reviewed.stack.volumes()


def test_tls_is_turned_on(reviewed: Reviewed) -> None:
    changes.turn_tls_on(reviewed.stack)
    report = reviewed.update("TLS turned on")
    assert report.restarted == {"db", "db-roles", "gateway", "gateway-forwarder", "server"}
    tls = {path: values for path, values in settings(report).items() if path.endswith("tls")}
    assert tls == dict.fromkeys(("node gateway: tls", "node server: tls", "database: indexDb.tls"), (None, "true")) | {
        path: ("false", "true") for path in tls if path.startswith("stack: modalities.")
    }
    assert report.secret_files == ()
    assert {"tlsKey.db", "tlsKey.gateway", "tlsKey.server"} <= set(report.new_secrets)
    assert "PRIVATE KEY" not in markdown(report)[0]


def test_a_certificate_is_renewed(reviewed: Reviewed) -> None:
    changes.renew_certificate(reviewed.stack, "gateway")
    report = reviewed.update("a certificate renewed")
    assert report.restarted == {"gateway", "gateway-forwarder", "server"}
    assert (report.settings, report.secret_files) == ((), ())
    assert "certificate.sha256" in why(report)["gateway"]
    assert why(report)["server"] == "what it knows of gateway changes: certificate"


def test_a_plan_is_refused_when_the_stack_file_says_something_else_meanwhile(reviewed: Reviewed) -> None:
    plan = reviewed.stack.program / "reviewed.plan.json"
    reviewed.stack.node_settings("server")["aet"] = "REVIEWED"
    report, done = reviewed.preview(plan)
    assert done.ok
    assert report.restarted
    config = json.loads(plan.read_text())["config"]
    assert all("secure" in config[key] for key in config if "assword" in key)
    reviewed.stack.node_settings("server")["aet"] = "UNREVIEWED"
    reviewed.stack._write()
    before = reviewed.stack.containers()
    done = reviewed.stack.command("up", "--yes", "--skip-preview", "--plan", str(plan))
    assert not done.ok
    assert "UNREVIEWED" in done.text
    assert reviewed.stack.containers() == before


def test_the_command_shows_pulumis_own_and_reads_it_in_one_run(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    stack = Stack(program, "dev")
    stack._write()
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    tools = Tools(Path(shutil.which("pulumi") or ""), State(stack.environment["PULUMI_BACKEND_URL"], "the tests' own"))
    try:
        status, report = run(Deployed(stack.name, tools, program), tmp_path / "plan.json")
    finally:
        stack.wipe()
    assert (status, report.level, report.packs) == (0, Level.QUIET, ("orthanc-stack",))
    assert {name for name, _ in report.containers} == {"adminer", "client", "client-forwarder", "db", "db-roles", "server"}
    shown = capfd.readouterr().out
    assert shown.count("Previewing update") == 1
    assert "to create" in shown
    assert "✅ orthanc-stack@v1.0.0" in shown
    assert (tmp_path / "plan.json").exists()
    assert stack.secrets_in((tmp_path / "plan.json").read_text()) == []
