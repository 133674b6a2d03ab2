"""What somebody did by hand to a running stack, against what `make drift` reports; and what puts it right."""

from __future__ import annotations

import hashlib
import json
import os
import secrets as randomness
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from configs.images import choose
from configs.settings import ImageSettings
from images import ROLES, local_image
from ops import stack as operated
from ops.drift import command
from ops.prepare import Tools
from ops.setup.console import ROOT
from ops.setup.state import State
from ops.table import table
from tests.stack.harness import Stack, docker, free_ports

#: A container that does nothing, and ends at once when it is told to.
_SLEEP = ("--detach", "--stop-signal", "SIGKILL", "--entrypoint", "sleep")

#: A finding: part, name, kind of change.
Key = tuple[str, str, str]


@dataclass
class Round:
    """Some changes by hand at once, and what became of them.

    Attributes:
        expected: what has to be reported, by what was done.
        before: what was reported before the changes, which should be nothing.
        status: the command's exit status.
        report: its JSON.
        text: its Markdown.
        untouched: whether state, containers, networks and volumes were the same before and after the command.
        repaired: what the commands of the report said.
    """

    expected: dict[str, set[Key]]
    before: dict[str, Any] = field(default_factory=dict)
    status: int = -1
    report: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    untouched: bool = False
    repaired: str = ""

    def found(self) -> set[Key]:
        """What was reported."""
        return {(one["part"], one["name"], one["change"]) for one in self.report["findings"]}

    def said(self, keys: set[Key]) -> list[str]:
        """The sentences of some findings, each with its part."""
        found = [one for one in self.report["findings"] if (one["part"], one["name"], one["change"]) in keys]
        return [f"{' '.join(filter(None, (one['part'], one['name'])))}: {one['said']}" for one in found]


@dataclass
class Hands:
    """A stack with images of names of its own, and somebody who changes it with the docker command."""

    stack: Stack
    images: Mapping[str, str]
    strangers: list[str] = field(default_factory=list)

    def name(self, part: str) -> str:
        """The engine's name of something of the stack's."""
        return f"{self.stack.prefix}-{part}"

    def edit(self) -> Round:
        """Nothing of the nodes is removed, and all but one goes on."""
        client, page, stranger = self.name("client"), self.name("adminer"), self.name("stranger")
        edited = self.stack.program / "edited.json"
        options = json.loads(docker("exec", client, "cat", "/etc/orthanc/orthanc.json"))
        edited.write_text(json.dumps(options | {"StableAge": 99, "RegisteredUsers": {"mallory": "let-me-in"}}))
        docker("cp", str(edited), f"{client}:/etc/orthanc/orthanc.json")
        docker("network", "connect", self.name("db"), client)
        docker("stop", self.name("client-forwarder"))
        docker("update", "--memory", "1g", "--memory-swap", "1g", self.name("server"))
        docker("update", "--restart", "no", self.name("server"))
        docker("update", "--cpus", "1.5", self.name("db"))
        docker("update", "--pids-limit", "500", self.name("db"))
        docker("network", "disconnect", page, page)
        docker("network", "rm", page)
        docker("network", "create", page)
        docker("network", "connect", page, page)
        docker("rename", page, self.name("page"))
        image = docker("inspect", "--format", "{{.Image}}", self.name("db"))
        self.strangers.append(stranger)
        docker("run", "--name", stranger, "--network", self.name("link.client.server"), *_SLEEP, image, "infinity")
        return Round(
            {
                "docker cp of another orthanc.json into the client": {("node", "client", "file")},
                "docker network connect of the client to the database's": {("node", "client", "on-network")},
                "docker stop of the client's forwarder": {("node", "client", "stopped")},
                "docker update --memory 1g of the server": {("node", "server", "memory")},
                "docker update --restart no of the server": {("node", "server", "restart-policy")},
                "docker update --cpus 1.5 of the database": {("database", "", "cpus")},
                "docker update --pids-limit 500 of the database": {("database", "", "limit")},
                "docker network rm and create of Adminer's": {
                    ("network", "adminer", "recreated"),
                    ("network", "adminer", "options"),
                    ("adminer", "", "off-network"),
                },
                "docker rename of Adminer": {("adminer", "", "renamed")},
                "docker run of a stranger on the link's network": {("network", "link.client.server", "stranger")},
            }
        )

    def remove(self) -> Round:
        """A node is removed with its network and its data, another made again otherwise; a tag is moved."""
        server, volume, ports = self.name("server"), f"{self.name('server')}:/var/lib/orthanc/db", free_ports(1)
        image = docker("inspect", "--format", "{{.Image}}", server)
        docker("rm", "--force", self.name("client"), self.name("client-forwarder"))
        docker("network", "rm", self.name("node.client"))
        docker("volume", "rm", self.name("client"))
        docker("rm", "--force", server)
        limits = ["--memory", "2g", "--memory-swap", "2g", "--cpu-shares", "1024", "--restart", "unless-stopped", "--hostname", "server"]
        run = [*limits, *_SLEEP, "--env", "SPY=let-me-in", "--volume", volume, "--publish", f"127.0.0.1:{ports[0]}:4242"]
        docker("run", "--name", server, *run, image, "infinity")
        docker("network", "disconnect", self.name("db.server"), self.name("db"))
        committed = docker("commit", self.name("adminer"))
        docker("tag", committed, self.images["adminer"])
        docker("pause", self.name("adminer"))
        changes = ("recreated", "port", "environment", "command", "off-network", "on-network", "other", "file")
        return Round(
            {
                "docker rm of the client and its forwarder": {("node", "client", "removed")},
                "docker network rm of the client's own": {("network", "node.client", "removed")},
                "docker volume rm of the client's": {("node", "client", "volume-removed")},
                "docker rm of the server, docker run of another, with another port": {("node", "server", change) for change in changes},
                "docker network disconnect of the database from the server's": {("database", "", "off-network")},
                "docker tag of another image as Adminer's": {("image", self.images["adminer"], "moved")},
                "docker pause of Adminer": {("adminer", "", "paused")},
            }
        )

    def held(self) -> str:
        """All that a command which only looks leaves as it is."""
        state = self.stack.program / "state"
        files = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(state.rglob("*")) if path.is_file()}
        identity = "{{.Id}} {{.Name}} {{.State.StartedAt}} {{.State.Status}} {{json .HostConfig}} {{json .NetworkSettings.Networks}}"
        containers = docker("ps", "--all", "--quiet", "--no-trunc").split()
        theirs = [docker("inspect", "--format", identity, one, check=False) for one in containers]
        ours = sorted(line for line in theirs if f"/{self.stack.prefix}-" in line)
        return json.dumps([files, ours, sorted(self.stack.networks()), sorted(self.stack.volumes())])

    def drift(self) -> tuple[int, dict[str, Any], str]:
        """The command: its exit status and its two files."""
        status = command.drift(self.stack.name)
        file = ROOT / "artifacts" / "drift" / f"{self.stack.name}.json"
        text = file.with_suffix(".md").read_text()
        report = json.loads(file.read_text())
        assert report["drifted"] == (status == command.DRIFTED)
        return status, report, text

    def repair(self, report: Mapping[str, Any]) -> str:
        """Do what the report says; the answers to pulumi's questions are the test's."""
        commands = "\n".join(one for one in report["repair"] if not one.startswith("eval "))
        commands = commands.replace("pulumi up", "pulumi up --yes --skip-preview --non-interactive --suppress-outputs")
        commands = commands.replace("pulumi refresh", "pulumi refresh --yes --skip-preview --non-interactive")
        environment = os.environ | self.stack.environment | {"PULUMI_STACK": self.stack.name}
        script = ["sh", "-e", "-c", commands]
        done = subprocess.run(script, cwd=self.stack.program, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        self.stack._outputs = None
        return done.stdout


@pytest.fixture(scope="module")
def hands(program: Path) -> Iterator[Hands]:
    """A stack like dev, whose images' names are nobody else's: a tag is moved."""
    held = docker("images", "--format", "{{.Repository}}:{{.Tag}}").splitlines()
    chosen, tag = (
        choose(ImageSettings(source="auto"), [name for name in held if name in set(map(local_image, ROLES))]),
        randomness.token_hex(3),
    )
    images = {role: f"orthanc-stack-test/{role}:17.{tag}" for role in ROLES}
    for role, name in images.items():
        if (image := str(getattr(chosen, role))) not in held:
            docker("pull", image)
        docker("tag", image, name)
    stack = Stack(program, "dev", images={"source": "registry", **images})
    hands = Hands(stack, images)
    tools = Tools(Path(str(shutil.which("pulumi"))), State(stack.environment["PULUMI_BACKEND_URL"], ""), ("docker",))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (stack.environment | {"PULUMI_STACK": stack.name}).items():
            patch.setenv(name, value)
        patch.setattr(command, "deployed_stack", lambda name: operated.Stack(name, tools, stack.program))
        try:
            stack.up()
            yield hands
        finally:
            for stranger in hands.strangers:
                docker("rm", "--force", stranger, check=False)
            docker("rm", "--force", "--volumes", *(hands.name(part) for part in ("server", "page")), check=False)
            stack.remove()
            for suffix in ("json", "md"):
                (ROOT / "artifacts" / "drift" / f"{stack.name}.{suffix}").unlink(missing_ok=True)
            # By name: by its identifier, an image would go that has one other name, and is somebody else's.
            docker("rmi", *images.values(), check=False)


@pytest.fixture(scope="module")
def rounds(hands: Hands, artifacts: Path) -> list[Round]:
    """Everything that is tried, one after the other; each time, the report's own commands put the stack right."""
    done = []
    for change in (hands.edit, hands.remove):
        _, before, _ = hands.drift()
        one = change()
        one.before, held = before, hands.held()
        one.status, one.report, one.text = hands.drift()
        one.untouched = hands.held() == held
        done.append(one)
        rows = [(what, "; ".join(one.said(keys)) or "NOTHING") for one in done for what, keys in one.expected.items()]
        (artifacts / "drift-table.txt").write_text(table(("changed by hand", "reported"), rows) + "\n")
        one.repaired = hands.repair(one.report)
    return done


def test_all_that_was_changed_is_reported_of_the_right_part_and_nothing_else(rounds: list[Round]) -> None:
    for one in rounds:
        assert one.found() == set.union(*one.expected.values())


def test_drift_has_a_status_of_its_own(rounds: list[Round]) -> None:
    assert [one.status for one in rounds] == [2, 2]


def test_the_command_changes_neither_the_state_nor_the_engine(rounds: list[Round]) -> None:
    assert [one.untouched for one in rounds] == [True, True]


def test_what_the_report_says_puts_the_stack_right(hands: Hands, rounds: list[Round]) -> None:
    status, report, text = hands.drift()
    left = [one.before["findings"] for one in rounds] + [report["findings"]]
    assert left == [[], [], []]
    assert status == 0
    assert "nothing drifted" in text
    hands.stack.preview(expect_no_changes=True)


def test_lost_data_comes_first(hands: Hands, rounds: list[Round]) -> None:
    assert "data is gone" not in rounds[0].text
    text = rounds[1].text
    assert "data is gone" in text.partition("## ")[0]
    assert text.index(f"{hands.stack.prefix}-client` was removed, with all that was in it") < text.index("## Node")


def test_no_secret_and_nothing_that_was_typed_in_by_hand_is_shown(hands: Hands, rounds: list[Round]) -> None:
    shown = "".join(one.text + json.dumps(one.report) for one in rounds)
    assert "`StableAge`" in shown
    assert "`RegisteredUsers`" in shown
    assert "`SPY`" in shown
    assert [word for word in ("let-me-in", "mallory", *hands.stack.secrets.values()) if word in shown] == []
