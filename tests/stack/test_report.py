"""The report against the truth: what it says before an update is compared with what the update then does.

One stack goes through all changes, one after the other. Each is previewed with the report and a plan, and the plan is applied; meanwhile
the engine's events and a probe on every DICOM port tell what really happened. artifacts/report-against-truth.md is the table of it.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ops.prepare import Tools
from ops.preview import run
from ops.report import Report, build, read
from ops.report.markdown import markdown
from ops.report.model import Level
from ops.setup.state import State
from ops.stack import Stack as Deployed
from tests.stack import record_previews as changes
from tests.stack.harness import Done, Stack, copy_program, need_pulumi
from tests.stack.outage import Outage, answers


@dataclass
class Row:
    """One change: what the report named, and what was seen."""

    change: str
    containers: set[str]
    stopped: set[str]
    ports: set[int]
    down: dict[int, float]
    seconds: float

    @property
    def wrong(self) -> list[str]:
        """What was named and did not happen, and what happened and was not named."""
        seen = {port for port, seconds in self.down.items() if seconds}
        found = [f"named, but not stopped: {name}" for name in sorted(self.containers - self.stopped)]
        found += [f"stopped, but not named: {name}" for name in sorted(self.stopped - self.containers)]
        found += [f"port named, but always up: {port}" for port in sorted(self.ports - seen)]
        return found + [f"port down, but not named: {port}" for port in sorted(seen - self.ports)]


class Reviewed:
    """The stack, with a preview before each update and a look at what the update does."""

    def __init__(self, program: Path) -> None:
        self.stack = Stack(program, "dev", images=changes.images())
        self.rows: list[Row] = []
        self.nodes: dict[int, str] = {}

    def preview(self, plan: Path | None = None) -> tuple[Report, Done]:
        """The report of the stack file as it stands, as `make preview` makes it."""
        self.stack.variable("PULUMI_DEBUG_COMMANDS", "true")
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "events"
            self.stack._write()
            done = self.stack.command(
                "preview", "--event-log", str(log), "--policy-pack", "policy", *(["--save-plan", str(plan)] if plan else [])
            )
            text = log.read_text()
        for secret in self.stack.secrets.values():
            (line,) = secret.splitlines()[10:11] or [secret]  # of a private key, one
            assert line not in text
            assert plan is None or not plan.exists() or line not in plan.read_text()
        return build(read(text)), done

    def ports(self) -> dict[str, int]:
        """The DICOM port of each node, until now."""
        ports = {name: node.port for name, node in self.stack.nodes().items()}
        self.nodes |= {port: name for name, port in ports.items()}
        return ports

    def update(self, change: str) -> Report:
        """Preview, apply the plan, and note what was named and what was seen."""
        plan = self.stack.program / "reviewed.plan.json"
        report, done = self.preview(plan)
        assert done.ok, done.text
        ports = self.ports()
        assert all(map(answers, ports.values()))
        started = time.monotonic()
        with Outage(self.stack.prefix, ports.values()) as seen:
            done = self.stack.command("up", "--yes", "--skip-preview", "--suppress-outputs", "--policy-pack", "policy", "--plan", str(plan))
            # What was replaced last gets the time to be missed.
            time.sleep(0.5)
        assert done.ok, done.text
        assert min(seen.looks.values()) >= 3
        self._note(change, report, seen, time.monotonic() - started)
        return report

    def refuse(self, change: str) -> Report:
        """Preview what cannot be deployed, try to deploy it all the same, and note the same."""
        report, done = self.preview()
        assert not done.ok
        started = time.monotonic()
        with Outage(self.stack.prefix, self.ports().values()) as seen:
            assert not self.stack.command("up", "--yes", "--skip-preview", "--suppress-outputs", "--policy-pack", "policy").ok
        assert min(seen.looks.values()) >= 3
        self._note(change, report, seen, time.monotonic() - started)
        return report

    def _note(self, change: str, report: Report, seen: Outage, seconds: float) -> None:
        named = {int(down.dicom.rpartition(":")[2]) for down in report.downtime}
        # Where nothing can be deployed, nothing is named.
        containers = report.restarted if report.level is not Level.FAILED else set()
        row = Row(change, containers, seen.stopped, named if report.level is not Level.FAILED else set(), seen.down, seconds)
        self.rows.append(row)
        assert row.wrong == [], f"{change}: {row}"


def table(rows: list[Row], names: Callable[[int], str]) -> str:
    """The rows for people; ports by their nodes' names, since the tests' own are random."""
    lines = [
        "| change | containers named | really stopped | ports named | really down | wrongly named or missed |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        down = [f"{names(port)} {seconds:.1f} s" for port, seconds in sorted(row.down.items(), key=lambda each: names(each[0])) if seconds]
        cells = [
            row.change,
            ", ".join(sorted(row.containers)) or "-",
            ", ".join(sorted(row.stopped)) or "-",
            ", ".join(sorted(map(names, row.ports))) or "-",
            ", ".join(down) or "-",
            str(len(row.wrong)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory: pytest.TempPathFactory, artifacts: Path) -> Iterator[Reviewed]:
    need_pulumi()
    changes.tag_images()
    made = Reviewed(copy_program(tmp_path_factory.mktemp("reviewed")))
    try:
        made.stack.up()
        yield made
    finally:
        (artifacts / "report-against-truth.md").write_text(table(made.rows, lambda port: made.nodes.get(port, str(port))))
        made.stack.remove()
        changes.untag_images()


def secrets_of(report: Report) -> dict[str, tuple[str, ...]]:
    return {file.container: file.secrets for file in report.secrets}


# In this order: each begins with what the one before has left.


def test_nothing(reviewed: Reviewed) -> None:
    report = reviewed.update("nothing")
    assert (report.level, report.containers, report.parts) == (Level.NOTHING, (), ())


def test_an_option(reviewed: Reviewed) -> None:
    changes.change_option(reviewed.stack)
    report = reviewed.update("an Orthanc option")
    (part,) = report.parts
    assert [(change.path, change.old, change.new) for change in part.changes] == [("orthanc.StableAge", "10", "20")]
    assert report.restarted == {"client"}


def test_a_secret(reviewed: Reviewed) -> None:
    changes.rotate_secret(reviewed.stack)
    report = reviewed.update("a user's password")
    assert secrets_of(report) == {"server": ("userPassword.server.orthanc",)}
    assert reviewed.stack.secrets["userPassword.server.orthanc"] not in markdown(report)[0]


def test_a_forwarders_secret(reviewed: Reviewed) -> None:
    reviewed.stack.secrets["forwarderPassword.client"] = "rotated-too-1"
    report = reviewed.update("a forwarder's password")
    assert secrets_of(report)["client-forwarder"] == ("forwarderPassword.client",)
    assert "forwarderPassword.client" in secrets_of(report)["client"]


def test_a_port(reviewed: Reviewed) -> None:
    before = reviewed.ports()["client"]
    changes.change_port(reviewed.stack)
    report = reviewed.update("a DICOM port")
    (down,) = report.downtime
    assert (down.node, down.dicom) == ("client", f"127.0.0.1:{before}")
    assert str(reviewed.ports()["client"]) in str(down.words)


def test_an_ae_title(reviewed: Reviewed) -> None:
    changes.change_aet(reviewed.stack)
    report = reviewed.update("an AE title")
    assert {down.node: down.aet for down in report.downtime} == {"server": "ORTHANC_SERVER", "client": "ORTHANC_CLIENT"}
    assert report.restarted == {"server", "client", "client-forwarder"}


def test_memory_is_changed_in_place(reviewed: Reviewed) -> None:
    reviewed.stack.node_settings("server")["memory"] = 1536
    report = reviewed.update("memory")
    assert (report.level, report.restarted) == (Level.QUIET, set())


def test_a_node_is_added(reviewed: Reviewed) -> None:
    changes.add_node(reviewed.stack)
    report = reviewed.update("a node added")
    assert "New: research." in str(report.verdict)
    assert "dbPassword.research" in report.new_secrets


def test_the_databases_settings(reviewed: Reviewed) -> None:
    reviewed.stack.settings["indexDb"] = {"maxConnections": 60}
    report = reviewed.update("indexDb.maxConnections")
    assert (report.level, report.restarted) == (Level.QUIET, {"db"})
    assert any("503" in str(words) for words in report.waits)


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
    base = reviewed.stack.program / "components" / "base.py"
    text = base.read_text()
    # A node with its index in PostgreSQL would not start on it: its database knows the volume.
    edited = re.sub(r"(?s)(def volume\(.*?name=name)", r'\1 + ("-images" if name.endswith("-gateway") else "")', text)
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
    told = {part.name: {change.path: (change.old, change.new) for change in part.changes} for part in report.parts}
    assert told["server"]["tls"] == told["gateway"]["tls"] == told["db"]["indexDb.tls"] == ("false", "true")
    assert not any(change.raw for part in report.parts for change in part.changes)
    assert {"tlsKey.db", "tlsKey.gateway", "tlsKey.server"} <= set(report.new_secrets)
    assert "PRIVATE KEY" not in markdown(report)[0]


def test_a_certificate_is_renewed(reviewed: Reviewed) -> None:
    changes.renew_certificate(reviewed.stack, "gateway")
    report = reviewed.update("a certificate renewed")
    assert report.restarted == {"gateway", "gateway-forwarder", "server"}
    assert secrets_of(report) == {"gateway": ("tlsKey.gateway",)}
    why = {reason.container: str(reason) for reason in report.reasons}
    assert "another certificate" in why["gateway"]
    assert "knows" in why["server"]


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


def test_make_preview_shows_pulumis_own_and_reads_it_in_one_run(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    stack = Stack(program, "dev")
    stack._write()
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    tools = Tools(Path(shutil.which("pulumi") or ""), State(stack.environment["PULUMI_BACKEND_URL"], "the tests' own"), ("docker",))
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
    assert not any(secret in (tmp_path / "plan.json").read_text() for secret in stack.secrets.values())
