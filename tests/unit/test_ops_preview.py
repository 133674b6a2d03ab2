"""What `./orthanc-stack preview STACK` runs and leaves behind, with a pulumi that tells what was recorded."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest
from ops.stack.containers import Container

from configs.problems import SettingsError
from ops.preview import command
from ops.preview.__main__ import main
from ops.preview.command import Files, run
from ops.setup.console import SetupError
from ops.setup.prepare import Tools
from ops.setup.state import State
from ops.stack.stack import Stack
from ops.stack.up import not_well, plan_file, refuse_unplanned
from tests.unit.reports import recorded, report_of


class Recorded(Stack):
    """A stack whose pulumi tells a recorded preview, and saves a plan where it is asked to."""

    def __init__(self, folder: Path, text: str = "", status: int = 0) -> None:
        super().__init__("dev", Tools(folder / "pulumi", State("", ""), ("docker",)), folder)
        self.text, self.status = text, status
        self.arguments: tuple[str, ...] = ()
        self.env: Mapping[str, str] = {}
        self.log, self.mode = folder, 0

    def marker(self) -> Path:
        return self.root / "running.json"

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> int:
        self.arguments, self.env = arguments, env or {}
        self.log = Path(arguments[arguments.index("--event-log") + 1])
        self.mode = stat.S_IMODE(self.log.parent.stat().st_mode)
        if self.text:
            self.log.write_text(self.text)
        if "--save-plan" in arguments:
            Path(arguments[arguments.index("--save-plan") + 1]).write_text("{}")
        self.marker().write_text("{}")
        return self.status


def test_one_run_shows_the_preview_and_tells_the_report(tmp_path: Path) -> None:
    stack = Recorded(tmp_path, recorded("option-changed.jsonl"))
    status, report = run(stack)
    assert (status, report.restarted) == (0, {"client"})
    assert stack.arguments[:3] == ("preview", "--policy-pack", "policy")
    assert not {"--json", "--save-plan"} & set(stack.arguments)
    assert stack.env == {"PULUMI_DEBUG_COMMANDS": "true"}
    # The events are nobody else's to read, and do not stay.
    assert stack.mode == 0o700
    assert not stack.log.exists()
    assert not stack.marker().exists()


def test_a_plan_is_kept_when_the_preview_succeeds_alone(tmp_path: Path) -> None:
    plan = tmp_path / "dev.plan.json"
    run(Recorded(tmp_path, recorded("option-changed.jsonl")), plan)
    assert plan.exists()
    status, report = run(Recorded(tmp_path, recorded("policy-broken.jsonl"), status=255), plan)
    assert (status, report.level) == (255, "failed")
    assert not plan.exists()


def test_a_pulumi_that_tells_nothing_makes_no_report(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="exit status 1 before it began"):
        run(Recorded(tmp_path, status=1))


def test_what_an_earlier_preview_left_is_removed(tmp_path: Path) -> None:
    files = Files("organization/project/dev", tmp_path)
    for file in (files.markdown, files.whole, files.json, files.plan):
        file.write_text("old")
    files.clear()
    assert list(tmp_path.iterdir()) == []


def test_a_report_and_its_json_and_a_long_one_whole_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPORT_URL", "https://ci.example/run/1")
    files = Files("dev", tmp_path)
    files.write(report_of("aet-changed"))
    assert files.markdown.read_text().startswith("## 🟡 `dev`: 2 nodes go down for some seconds")
    told = json.loads(files.json.read_text())
    assert told["verdict"] == "2 nodes go down for some seconds: client, server. No data is at risk."
    assert [down["node"] for down in told["downtime"]] == ["client", "server"]
    assert not files.whole.exists()
    files.write(report_of("node-removed"), limit=2000)
    assert len(files.markdown.read_bytes()) <= 2000
    assert "[the whole report](https://ci.example/run/1)" in files.markdown.read_text()
    assert len(files.whole.read_bytes()) > 2000


def test_a_stack_file_that_is_refused_leaves_a_report_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "Files", lambda name: Files(name, tmp_path))

    def refuse(_: str) -> None:
        raise SettingsError("Pulumi.dev.yaml: 1 problem. Nothing was touched.")

    monkeypatch.setattr(command, "load_stack_file", refuse)
    with pytest.raises(SettingsError):
        command.preview("dev")
    written = (tmp_path / "dev.md").read_text()
    assert written.startswith("## ⛔ `dev`: This cannot be deployed")
    assert "1 problem" in written


def test_the_command_for_previews_that_were_made_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "preview.json", tmp_path / "report.json"
    source.write_text(recorded("first.json"))
    assert main([str(source), str(target)]) == 0
    assert capsys.readouterr().out.startswith("## 🟢 `dev`: No node goes down")
    assert json.loads(target.read_text())["stack"] == "dev"
    source.write_text("no preview")
    assert main([str(source)]) == 1
    assert "no preview" in capsys.readouterr().err
    assert main([]) == 2


def test_the_plan_of_up(tmp_path: Path) -> None:
    assert plan_file("") is None
    (tmp_path / "plan.json").write_text("{}")
    assert plan_file(str(tmp_path / "plan.json")) == tmp_path / "plan.json"
    with pytest.raises(SetupError, match="./orthanc-stack preview STACK PLAN=1"):
        plan_file(str(tmp_path / "other.json"))


CONTAINER = "docker:index/container:Container"
#: A state of two containers; the stack file may have a node more.
STATE = {"resources": [{"type": CONTAINER, "urn": f"urn::{name}", "inputs": {"name": f"s-{name}"}} for name in ("server", "db-roles")]}
ROLES = Container("s-db-roles", "2", "db-roles", "exited", "Exited (0)")


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (("running", "Up (healthy)"), []),
        (("exited", "Exited (137)"), ["s-server is exited"]),
        (("running", "Up (unhealthy)"), ["s-server is unhealthy"]),
        (None, ["s-server is missing"]),
    ],
)
def test_which_containers_of_a_state_do_not_serve(server: tuple[str, str] | None, said: list[str]) -> None:
    """A plan says what changes of the state as it was: a container that is lost is not in it; one that it makes is not missing."""
    assert not_well(STATE, [*([Container("s-server", "1", "node", *server)] if server else []), ROLES]) == said


def test_a_plan_is_refused_where_something_has_to_be_put_right_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Recorded(tmp_path)
    monkeypatch.setattr(stack, "export", lambda: STATE)
    with pytest.raises(
        SetupError, match=r"s-db-roles is missing, s-server is missing: the plan p.json .* `./orthanc-stack up dev` without"
    ):
        refuse_unplanned(stack, lambda _: "", tmp_path / "p.json", interrupted=False)
    with pytest.raises(SetupError, match="did not end well"):
        refuse_unplanned(stack, lambda _: "", tmp_path / "p.json", interrupted=True)
