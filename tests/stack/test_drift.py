"""What somebody did by hand to a running stack, against what `./orthanc-stack drift` reports; and what puts it right."""

from __future__ import annotations

import hashlib
import json
import os
import secrets as randomness
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from configs.settings import ImageSettings
from images import ROLES, candidates, choose
from ops.drift import command
from ops.setup.console import ROOT
from ops.stack.stack import Stack as Operated
from ops.stack.terminal import NOT_WELL, drawn
from tests.stack.engine import docker, free_ports
from tests.stack.harness import Stack
from tests.stack.sending import operated_on

pytestmark = pytest.mark.slow("a stack like dev, changed by hand in 20 ways, and put right three times by the report's own commands")

#: A finding: part, name, kind of change.
Key = tuple[str, str, str]
#: Commands of docker, with what each must be reported as.
Steps = Sequence[tuple[str, set[Key]]]

#: What a nightly clean-up does: the container that makes the database's roles has ended.
PRUNED: Steps = [
    ("container prune --force --filter label=orthanc-stack.stack={p}", {("database", "", "removed")}),
]
#: Nothing of the nodes is removed, and all but one goes on.
EDITS: Steps = [
    ("cp {edited} {p}-client:/etc/orthanc/orthanc.json", {("node", "client", "file")}),
    ("network connect {p}-index {p}-client", {("node", "client", "on-network")}),
    ("stop {p}-client-forwarder", {("node", "client", "stopped")}),
    ("update --memory 1g --memory-swap 1g {p}-server", {("node", "server", "memory"), ("node", "server", "memorySwap")}),
    ("update --restart no {p}-server", {("node", "server", "restart")}),
    ("update --cpus 1.5 {p}-db", {("database", "", "cpus")}),
    ("update --pids-limit 500 {p}-db", {("database", "", "limit")}),
    ("network disconnect {p}-admin {p}-adminer", {("adminer", "", "off-network")}),
    ("network rm {p}-admin", {("network", "admin", "recreated")}),
    ("network create {p}-admin", set()),
    ("network connect {p}-admin {p}-adminer", set()),
    ("rename {p}-adminer {p}-page", {("adminer", "", "name")}),
    (
        "run --name {p}-stranger --network {p}-dicom {sleeping} {postgres} infinity",
        {("network", "dicom", "stranger")},
    ),
]
#: A node is removed with its network and its data, another made again otherwise; a tag is moved.
LOSSES: Steps = [
    ("rm --force {p}-client {p}-client-forwarder", {("node", "client", "removed")}),
    ("volume rm {p}-client", {("node", "client", "volume-removed")}),
    ("rm --force {p}-server", {("node", "server", "recreated")}),
    ("network rm {p}-dicom", {("network", "dicom", "removed")}),
    (
        "run --name {p}-server --memory 2g --memory-swap 2g --cpu-shares 1024 --restart unless-stopped --hostname server "
        "--volume /var/lib/orthanc/db --publish 127.0.0.1:{port}:4242 --env SPY=let-me-in {sleeping} {orthanc} infinity",
        {("node", "server", change) for change in ("volume", "environment", "off-network", "on-network", "file")},
    ),
    ("network disconnect {p}-index {p}-db", {("database", "", "off-network")}),
    ("commit {p}-adminer {adminer}", {("image", "{adminer}", "moved")}),
    ("pause {p}-adminer", {("adminer", "", "paused")}),
]


@dataclass
class Hands:
    """A stack with images of names of its own, and somebody who changes it with the docker command."""

    stack: Stack
    images: Mapping[str, str]

    def words(self) -> dict[str, str]:
        """What stands for the words in braces; a container that sleeps does nothing, and ends at once when it is told to."""
        edited = self.stack.program / "edited.json"
        sleeping = "--detach --stop-signal SIGKILL --entrypoint sleep"
        return {**self.images, "p": self.stack.prefix, "edited": str(edited), "sleeping": sleeping, "port": str(free_ports(1)[0])}

    def change(self, steps: Steps) -> None:
        words = self.words()
        options = json.loads(docker("exec", f"{self.stack.prefix}-client", "cat", "/etc/orthanc/orthanc.json"))
        Path(words["edited"]).write_text(json.dumps(options | {"StableAge": 99, "RegisteredUsers": {"mallory": "let-me-in"}}))
        for step, _ in steps:
            docker(*step.format(**words).split())

    def held(self) -> str:
        """All that a command which only looks leaves as it is."""
        state = self.stack.program / "state"
        files = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(state.rglob("*")) if path.is_file()}
        identity = "{{.Id}} {{.Name}} {{.State.StartedAt}} {{.State.Status}} {{json .HostConfig}} {{json .NetworkSettings.Networks}}"
        named = docker("ps", "--all", "--quiet", "--no-trunc", "--filter", f"name=^/{self.stack.prefix}-").split()
        return json.dumps([files, docker("inspect", "--format", identity, *named), self.stack.networks(), sorted(self.stack.volumes())])

    def drift(self) -> tuple[int, dict[str, Any], str]:
        """The command: its exit status and its two files."""
        status = command.drift(self.stack.name)
        file = ROOT / "artifacts" / "drift" / f"{self.stack.name}.json"
        report = json.loads(file.read_text())
        assert report["drifted"] == (status == NOT_WELL)
        return status, report, file.with_suffix(".md").read_text()

    def repair(self, report: Mapping[str, Any]) -> None:
        """Do what the report says; the answers to pulumi's questions are the test's."""
        commands = "\n".join(one for one in report["repair"] if not one.startswith("eval "))
        # What that command runs where a container of the state is missing (ops/stack/up.py).
        commands = commands.replace(f"./orthanc-stack up {self.stack.name}", "pulumi up --refresh --run-program")
        commands = commands.replace("pulumi up", "pulumi up --yes --skip-preview --non-interactive --suppress-outputs")
        commands = commands.replace("pulumi refresh", "pulumi refresh --yes --skip-preview --non-interactive")
        environment = os.environ | self.stack.environment | {"PULUMI_STACK": self.stack.name}
        script = ["sh", "-e", "-c", commands]
        done = subprocess.run(script, cwd=self.stack.program, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        self.stack._outputs = None


@pytest.fixture(scope="module")
def hands(program: Path) -> Iterator[Hands]:
    """A stack like dev, whose images' names are nobody else's: a tag is moved."""
    held = docker("images", "--format", "{{.Repository}}:{{.Tag}}").splitlines()
    chosen, tag = choose(ImageSettings(source="auto"), set(held) & set(candidates())), randomness.token_hex(3)
    images = {role: f"orthanc-stack-test/{role}:17.{tag}" for role in ROLES}
    for role, name in images.items():
        if (image := str(getattr(chosen, role))) not in held:
            docker("pull", image)
        docker("tag", image, name)
    stack = Stack(program, "dev", images={"source": "registry", **images})
    with operated_on(stack) as operated, pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "deployed_stack", lambda name: Operated(name, operated.tools, operated.root))
        try:
            stack.up()
            yield Hands(stack, images)
        finally:
            docker("rm", "--force", "--volumes", *(f"{stack.prefix}-{name}" for name in ("server", "page", "stranger")), check=False)
            stack.wipe()
            for suffix in ("json", "md"):
                (ROOT / "artifacts" / "drift" / f"{stack.name}.{suffix}").unlink(missing_ok=True)
            # By name: by its identifier, an image would go that has one other name, and is somebody else's.
            docker("rmi", *images.values(), check=False)


@dataclass
class Round:
    """Some changes by hand at once, and what the command made of them."""

    expected: dict[str, set[Key]]
    found_before: list[Any]
    status: int
    report: dict[str, Any]
    text: str
    untouched: bool

    def found(self) -> dict[Key, str]:
        """What was reported, with the sentence that says it."""
        return {(one["part"], one["name"], one["change"]): one["said"] for one in self.report["findings"]}


@pytest.fixture(scope="module")
def rounds(hands: Hands, artifacts: Path) -> list[Round]:
    """Everything that is tried, one after the other; each time, the report's own commands put the stack right."""
    done: list[Round] = []
    for steps in (PRUNED, EDITS, LOSSES):
        _, before, _ = hands.drift()
        hands.change(steps)
        held = hands.held()
        status, report, text = hands.drift()
        expected = {step: {(part, name.format(**hands.images), change) for part, name, change in keys} for step, keys in steps}
        done.append(Round(expected, before["findings"], status, report, text, hands.held() == held))
        hands.repair(report)
    rows = [
        (f"docker {step.replace('{p}-', '')}", "; ".join(said for key, said in one.found().items() if key in keys) or "NOTHING")
        for one in done
        for step, keys in one.expected.items()
        if keys
    ]
    (artifacts / "drift-table.txt").write_text(drawn(("changed by hand", "reported"), rows) + "\n")
    return done


def test_all_that_was_changed_is_reported_of_the_right_part_and_nothing_else(rounds: list[Round]) -> None:
    assert [set(one.found()) for one in rounds] == [set.union(*one.expected.values()) for one in rounds]


def test_drift_has_a_status_of_its_own(rounds: list[Round]) -> None:
    assert [one.status for one in rounds] == [3, 3, 3]


def test_the_command_changes_neither_the_state_nor_the_engine(rounds: list[Round]) -> None:
    assert [one.untouched for one in rounds] == [True, True, True]


def test_what_the_report_says_puts_the_stack_right(hands: Hands, rounds: list[Round]) -> None:
    status, report, text = hands.drift()
    assert [*(one.found_before for one in rounds), report["findings"]] == [[], [], [], []]
    assert status == 0
    assert "nothing drifted" in text
    hands.stack.preview(expect_no_changes=True)


def test_lost_data_comes_first(hands: Hands, rounds: list[Round]) -> None:
    assert "data is gone" not in rounds[0].text + rounds[1].text
    text = rounds[2].text
    assert "data is gone" in text.partition("## ")[0]
    assert text.index(f"{hands.stack.prefix}-client` was removed, with all that was in it") < text.index("## Node")


def test_a_container_that_has_ended_and_was_pruned_is_made_again(hands: Hands, rounds: list[Round]) -> None:
    assert rounds[0].report["repair"] == [f"./orthanc-stack up {hands.stack.name}"]


def test_what_a_container_took_without_its_volume_is_saved(hands: Hands, rounds: list[Round]) -> None:
    assert (hands.stack.program / f"saved-{hands.stack.prefix}-server").is_dir()


def test_no_secret_and_nothing_that_was_typed_in_by_hand_is_shown(hands: Hands, rounds: list[Round]) -> None:
    shown = "".join(one.text + json.dumps(one.report) for one in rounds)
    assert "`StableAge`" in shown
    assert "`RegisteredUsers`" in shown
    assert "`SPY`" in shown
    assert [word for word in ("let-me-in", "mallory") if word in shown] == []
    assert hands.stack.secrets_in(shown) == []


def test_a_run_that_is_still_at_work_blocks_nothing(hands: Hands, rounds: list[Round]) -> None:
    """Nor does one that ended in the middle: the state names what it was changing, and has its lock."""
    file = hands.stack.program / "state" / ".pulumi" / "stacks" / "orthanc-stack" / f"{hands.stack.name}.json"
    content = json.loads(file.read_text())
    held = content["checkpoint"]["latest"]
    named = {one["urn"].rpartition("::")[2]: one for one in held["resources"]}
    operations = (("updating", "client-container"), ("creating", "adminer-container"))
    held["pending_operations"] = [{"resource": named[name], "type": kind} for kind, name in operations]
    file.write_text(json.dumps(content))
    lock = hands.stack.program / "state" / ".pulumi" / "locks" / "organization" / "orthanc-stack" / hands.stack.name / "other.json"
    lock.write_text(json.dumps({"pid": 1, "username": "nobody", "hostname": "elsewhere", "timestamp": "2026-01-01T00:00:00Z"}))
    status, report, text = hands.drift()
    assert (status, report["findings"]) == (0, [])
    assert "it was changing `adminer-container`, `client-container`." in text
