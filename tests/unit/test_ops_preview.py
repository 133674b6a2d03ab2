"""What `./orthanc-stack preview` runs and leaves behind, with a pulumi that tells what was recorded."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from configs.problems import SettingsError
from ops.preview import command
from ops.preview.command import file_of, run, write
from ops.setup.console import SetupError
from ops.setup.prepare import Tools
from ops.setup.state import State
from ops.stack.secrets import require_certificates, require_secrets
from ops.stack.stack import Stack
from tests.unit.reports import recorded, report_of
from tests.unit.stacks import node, settings_of, stack


class Recorded(Stack):
    """A stack whose pulumi tells a recorded preview, and saves a plan where it is asked to."""

    def __init__(self, folder: Path, text: str = "", status: int = 0, pending: Any = ()) -> None:
        super().__init__("dev", Tools(folder / "pulumi", State("", "")), folder)
        self.text, self.status, self.begun = text, status, pending
        self.arguments: tuple[str, ...] = ()
        self.env: Mapping[str, str] = {}
        self.log, self.mode = folder, 0

    def export(self) -> dict[str, Any]:
        return {"pending_operations": self.begun}

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> int:
        self.arguments, self.env = arguments, env or {}
        self.log = Path(arguments[arguments.index("--event-log") + 1])
        self.mode = stat.S_IMODE(self.log.parent.stat().st_mode)
        if self.text:
            self.log.write_text(self.text)
        if "--save-plan" in arguments:
            Path(arguments[arguments.index("--save-plan") + 1]).write_text("{}")
        return self.status


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the reports."""
    folder = tmp_path / "reports"
    folder.mkdir()
    monkeypatch.setattr(command, "FOLDER", str(folder))
    return folder


@pytest.fixture
def of_dev(tmp_path: Path, reports: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recorded]:
    """Let the command find this stack, ready."""

    def give(text: str, status: int = 0, pending: Any = ()) -> Recorded:
        found = Recorded(tmp_path, text, status, pending)
        monkeypatch.setattr(command, "load_stack_file", lambda _: settings_of(stack(node("a"))))
        monkeypatch.setattr(command, "deployed", lambda _: found)
        for name in ("require_secrets", "require_certificates"):
            monkeypatch.setattr(command, name, lambda *_: None)
        return found

    return give


def test_one_run_shows_the_preview_and_tells_the_report(tmp_path: Path) -> None:
    stack = Recorded(tmp_path, recorded("option-changed.jsonl"))
    status, report = run(stack)
    assert (status, report.restarted) == (0, {"client"})
    assert stack.arguments[:4] == ("preview", "--suppress-outputs", "--policy-pack", "policy")
    assert not {"--json", "--save-plan"} & set(stack.arguments)
    assert stack.env == {"PULUMI_DEBUG_COMMANDS": "true"}
    # The events are nobody else's to read, and do not stay.
    assert stack.mode == 0o700
    assert not stack.log.exists()


def test_a_plan_is_kept_when_the_preview_succeeds_alone(
    reports: Path, of_dev: Callable[..., Recorded], capsys: pytest.CaptureFixture[str]
) -> None:
    of_dev(recorded("option-changed.jsonl"))
    assert command.preview("organization/orthanc-stack/dev", save_plan=True, as_json=False) == 0
    assert "./orthanc-stack up organization/orthanc-stack/dev --plan" in capsys.readouterr().err
    assert sorted(file.name for file in reports.iterdir()) == ["dev.json", "dev.md", "dev.plan.json"]
    of_dev(recorded("policy-broken.jsonl"), 255)
    assert command.preview("dev", save_plan=True, as_json=False) == 1
    assert "would fail, too" in capsys.readouterr().err
    assert sorted(file.name for file in reports.iterdir()) == ["dev.json", "dev.md"]
    assert (reports / "dev.md").read_text().startswith("## ⛔ `dev`: This cannot be deployed: it breaks the policy `version-floor`.")


def test_the_report_as_json_is_all_of_standard_output(of_dev: Callable[..., Recorded], capfd: pytest.CaptureFixture[str]) -> None:
    of_dev(recorded("aet-changed.jsonl"))
    assert command.preview("dev", save_plan=False, as_json=True) == 0
    shown = capfd.readouterr()
    assert json.loads(shown.out)["level"] == "downtime"
    assert "Report" in shown.err


def test_an_interrupted_run_is_told_and_does_not_stop_a_preview(reports: Path, of_dev: Callable[..., Recorded]) -> None:
    pending = [{"type": "creating", "resource": {"urn": "urn:pulumi:dev::p::docker:index/container:Container::server-container"}}]
    of_dev(recorded("nothing.jsonl"), pending=pending)
    assert command.preview("dev", save_plan=False, as_json=False) == 0
    assert "An earlier run was interrupted while it was changing `server-container`" in (reports / "dev.md").read_text()


def test_a_pulumi_that_tells_nothing_makes_no_report(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="exit status 1 before it began"):
        run(Recorded(tmp_path, status=1))


def test_a_report_and_its_json_and_a_long_one_whole_as_well(reports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPORT_URL", "https://ci.example/run/1")
    write(report_of("aet-changed"), "dev")
    assert file_of("dev", "md").read_text().startswith("## 🟡 `dev`: 2 nodes go down for some seconds")
    told = json.loads((reports / "dev.json").read_text())
    assert told["verdict"] == "2 nodes go down for some seconds: client, server. No data is at risk."
    assert [down["node"] for down in told["downtime"]] == ["client", "server"]
    assert not (reports / "dev.full.md").exists()
    write(report_of("node-removed"), "dev", limit=2500)
    assert len((reports / "dev.md").read_bytes()) <= 2500
    assert "[the whole report](https://ci.example/run/1)" in (reports / "dev.md").read_text()
    assert len((reports / "dev.full.md").read_bytes()) > 2500


def test_what_is_refused_before_pulumi_runs_leaves_a_report_and_nothing_of_an_earlier_preview(
    reports: Path, of_dev: Callable[..., Recorded], monkeypatch: pytest.MonkeyPatch
) -> None:
    for suffix in ("md", "full.md", "json", "plan.json"):
        (reports / f"dev.{suffix}").write_text("old")

    def refuse(_: str) -> None:
        raise SettingsError("Pulumi.dev.yaml: 1 problem. Nothing was touched.")

    of_dev("")
    monkeypatch.setattr(command, "load_stack_file", refuse)
    with pytest.raises(SettingsError):
        command.preview("organization/orthanc-stack/dev", save_plan=True, as_json=False)
    written = (reports / "dev.md").read_text()
    assert written.startswith("## ⛔ `dev`: This cannot be deployed")
    assert "1 problem" in written
    assert sorted(file.name for file in reports.iterdir()) == ["dev.json", "dev.md"]


def test_a_preview_makes_no_secret_and_no_certificate(
    reports: Path, of_dev: Callable[..., Recorded], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_dev("").root.joinpath("Pulumi.dev.yaml").write_text(
        "config:\n  orthanc-stack:dbPassword: {secure: v1:x}\n  orthanc-stack:tlsTrust.a: x\n"
    )
    settings = settings_of(stack(node("a", tls=True)))
    monkeypatch.setattr(command, "load_stack_file", lambda _: settings)
    monkeypatch.setattr(command, "require_secrets", require_secrets)
    message = r"Pulumi.dev.yaml lacks secrets: dbPassword.a, userPassword.a.orthanc. At a desk: `./orthanc-stack secrets dev` sets"
    with pytest.raises(SetupError, match=message):
        command.preview("dev", save_plan=False, as_json=False)
    assert "`./orthanc-stack secrets dev`" in (reports / "dev.md").read_text()
    monkeypatch.setattr(command, "require_secrets", lambda *_: None)
    monkeypatch.setattr(command, "require_certificates", require_certificates)
    with pytest.raises(SetupError, match=r"lacks certificates: tlsKey.a \(there is none\)\. .*`./orthanc-stack certs dev`"):
        command.preview("dev", save_plan=False, as_json=False)
