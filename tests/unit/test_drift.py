"""What the drift report makes of a recorded stack, and of each change to what was recorded."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ops.drift import command
from ops.drift.deployed import deployed_of
from ops.drift.engine import Engine, Held, ReadFiles, file_reader
from ops.drift.findings import Finding, Part, code, listed
from ops.drift.refresh import check_refresh
from ops.drift.report import as_json, markdown, ordered, repair
from ops.setup.console import SetupError
from ops.stack import recover

_RECORDED = json.loads((Path(__file__).parent / "drift_recorded.json").read_text())
_PREFIX = str(_RECORDED["prefix"])
_CLIENT, _FORWARDER = f"{_PREFIX}-client", f"{_PREFIX}-client-forwarder"
_OWN, _LINK = f"{_PREFIX}-node.client", f"{_PREFIX}-link.client.server"
_SCRIPT, _SECRETS, _OPTIONS = "/etc/orthanc/roles.lua", "/run/secrets/orthanc.json", "/etc/orthanc/orthanc.json"
_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
_ORTHANC = next(name for name in _RECORDED["images"] if "/orthanc:" in name)


class World:
    """A node with its forwarder, the database's one-shot container, two networks, a volume, images: as a real engine showed them."""

    def __init__(self) -> None:
        recorded = copy.deepcopy(_RECORDED)
        self.resources: list[dict[str, Any]] = recorded["resources"]
        self.containers: dict[str, dict[str, Any]] = {one["Name"].removeprefix("/"): one for one in recorded["containers"]}
        self.networks: dict[str, dict[str, Any]] = {one["Name"]: one for one in recorded["networks"]}
        self.volumes: dict[str, dict[str, Any]] = {one["Name"]: one for one in recorded["volumes"]}
        self.images: dict[str, dict[str, Any]] = recorded["images"]
        self.refresh: list[dict[str, Any]] = []
        self.limits_swap = True
        # Not the state's networks' other members: their containers are not among what was recorded.
        for network in self.networks.values():
            known = {one["Id"] for one in self.containers.values()}
            network["Containers"] = {key: value for key, value in network["Containers"].items() if key in known}
        self.files: dict[tuple[str, str], Held] = {}
        for one in deployed_of(self.resources, _PREFIX):
            for upload in one.inputs.get("uploads") or ():
                content, mode = str(upload["content"]).encode(), int(upload["permissions"], 8)
                self.files[one.id, upload["file"]] = Held(content, mode, 0)

    @property
    def client(self) -> dict[str, Any]:
        return self.containers[_CLIENT]

    def read(self, container: str, paths: Collection[str]) -> Mapping[str, Held]:
        return {path: self.files[container, path] for path in paths if (container, path) in self.files}

    def file(self, path: str, content: bytes | None = None, *, mode: int | None = None, owner: int = 0) -> None:
        key = (self.containers[_CLIENT]["Id"], path)
        before = self.files[key]
        self.files[key] = Held(content if content is not None else before.content, before.mode if mode is None else mode, owner)

    def findings(self) -> list[Finding]:
        """What the report says."""
        engine = Engine(
            {one["Id"]: one for one in self.containers.values()},
            {one["Id"]: one for one in self.networks.values()},
            self.volumes,
            self.images,
            self.limits_swap,
        )
        found = command.compare(self.resources, engine, self.read, _PREFIX)
        return ordered([*found, *check_refresh(self.refresh, deployed_of(self.resources, _PREFIX), engine, found)])

    def said(self) -> list[str]:
        return [finding.said for finding in self.findings()]

    def keys(self) -> set[tuple[str, str, str]]:
        """What the report says, less its words."""
        return {(finding.part.of, finding.part.name, finding.change) for finding in self.findings()}


Change = Callable[[World], object]


@pytest.fixture
def world() -> World:
    return World()


def test_a_stack_as_it_was_deployed_has_no_drift(world: World) -> None:
    world.refresh = _RECORDED["refresh"]
    assert len(deployed_of(world.resources, _PREFIX)) == 7
    assert world.findings() == []


def _host(**values: Any) -> Change:
    return lambda world: world.client["HostConfig"].update(values)


def _config(**values: Any) -> Change:
    return lambda world: world.client["Config"].update(values)


def _on_link(**values: Any) -> Change:
    return lambda world: world.client["NetworkSettings"]["Networks"][_LINK].update(values)


def _state(container: str, status: str) -> Change:
    return lambda world: world.containers[container]["State"].update(Status=status)


def _port(inside: str, address: str, port: str) -> Change:
    return lambda world: world.client["HostConfig"]["PortBindings"].update({inside: [{"HostIp": address, "HostPort": port}]})


_NODE = ("node", "client")
_NETWORK = ("network", "link.client.server")


@pytest.mark.parametrize(
    ("change", "part", "kind"),
    [
        (_state(_CLIENT, "exited"), _NODE, "stopped"),
        (_state(_FORWARDER, "created"), _NODE, "stopped"),
        (_state(_CLIENT, "paused"), _NODE, "paused"),
        (_state(_CLIENT, "restarting"), _NODE, "restarting"),
        (lambda world: world.containers.pop(_CLIENT), _NODE, "removed"),
        (lambda world: world.client.update(Name="/other"), _NODE, "renamed"),
        (lambda world: world.client.update(Image="sha256:other"), _NODE, "image"),
        (_port("4242/tcp", "127.0.0.1", "4999"), _NODE, "port"),
        (_port("4242/tcp", "0.0.0.0", "4242"), _NODE, "port"),
        (_port("22/tcp", "127.0.0.1", "2222"), _NODE, "port"),
        (_host(PortBindings={}), _NODE, "port"),
        (_host(Memory=1 << 30, MemorySwap=1 << 30), _NODE, "memory"),
        (_host(MemorySwap=3 << 30), _NODE, "swap"),
        (_host(MemorySwap=-1), _NODE, "swap"),
        (_host(NanoCpus=500_000_000), _NODE, "cpus"),
        (_host(CpuQuota=50_000, CpuPeriod=100_000), _NODE, "cpus"),
        (_host(CpuShares=2), _NODE, "cpu-weight"),
        (_host(PidsLimit=7), _NODE, "limit"),
        (_host(RestartPolicy={"Name": "no"}), _NODE, "restart-policy"),
        (lambda world: world.client["NetworkSettings"]["Networks"].pop(_LINK), _NODE, "off-network"),
        (lambda world: world.client["NetworkSettings"]["Networks"].update(bridge={}), _NODE, "on-network"),
        (_on_link(Aliases=["0123"]), _NODE, "alias"),
        (_on_link(NetworkID="other"), _NODE, "off-network"),
        (lambda world: world.client.update(Mounts=[]), _NODE, "volume"),
        (lambda world: world.client["Mounts"].append({"Destination": "/host", "Source": "/"}), _NODE, "mount"),
        (lambda world: world.client["Config"]["Env"].append("SPY=1"), _NODE, "environment"),
        (lambda world: world.client["Config"]["Env"].remove("TCP_NODELAY=1"), _NODE, "environment"),
        (_config(Cmd=["sleep"]), _NODE, "command"),
        (_config(User="nobody"), _NODE, "user"),
        (lambda world: world.files.pop((world.client["Id"], _SCRIPT)), _NODE, "file"),
        (lambda world: world.file(_SCRIPT, b"-- anybody"), _NODE, "file"),
        (lambda world: world.file(_SECRETS, mode=0o444), _NODE, "file"),
        (lambda world: world.file(_SECRETS, owner=33), _NODE, "file"),
        (lambda world: world.volumes.clear(), _NODE, "volume-removed"),
        (lambda world: world.volumes[_CLIENT].update(Labels=None), _NODE, "volume-recreated"),
        (lambda world: world.networks.pop(_LINK), _NETWORK, "removed"),
        (lambda world: world.networks[_LINK].update(Id="other"), _NETWORK, "recreated"),
        (lambda world: world.networks[_LINK].update(Internal=False), _NETWORK, "internal"),
        (lambda world: world.networks[_OWN].update(Options={_MASQUERADE: "false"}), ("network", "node.client"), "options"),
        (lambda world: world.networks[_LINK]["Containers"].update(x={"Name": "spy"}), _NETWORK, "stranger"),
        (lambda world: world.images.pop(_ORTHANC), ("image", _ORTHANC), "removed"),
        (lambda world: world.images[_ORTHANC].update(Id="sha256:other"), ("image", _ORTHANC), "moved"),
        (lambda world: world.containers.pop(f"{_PREFIX}-db-roles"), ("database", ""), "removed"),
    ],
)
def test_each_change_is_told_of_its_part_and_nothing_else(world: World, change: Change, part: tuple[str, str], kind: str) -> None:
    change(world)
    assert world.keys() == {(*part, kind)}


def test_a_port_that_is_bound_to_no_address_is_on_all(world: World) -> None:
    (binding,) = world.client["HostConfig"]["PortBindings"]["4242/tcp"]
    port, binding["HostIp"] = binding["HostPort"], ""
    assert world.said() == [f"It has `dicomPort` at `0.0.0.0:{port}` instead of `127.0.0.1:{port}`."]


def test_off_a_network_and_on_another_of_its_name_are_told_apart(world: World) -> None:
    networks = world.client["NetworkSettings"]["Networks"]
    networks.pop(_LINK)
    networks[_OWN]["NetworkID"] = "other"
    assert world.said() == [
        "It is on another network, made under the name `node.client`.",
        "It was taken off the network `link.client.server`.",
    ]


def test_a_container_made_by_hand_under_the_name_is_told_as_one(world: World) -> None:
    held = world.client
    held["Id"] = "f" * 64
    held["HostConfig"]["CapDrop"] = None
    held["Config"]["Env"].append("PASSWORD=let-me-in")
    assert world.keys() == {("node", "client", kind) for kind in ("recreated", "environment", "other", "file")}
    report = markdown("recorded", world.findings())
    assert "`PASSWORD`" in report
    assert "let-me-in" not in report
    assert "capabilities." in report
    assert f"docker stop -t 60 {_CLIENT}\ndocker rm {_CLIENT}\n" in report


def test_what_has_the_label_and_is_not_known_is_told(world: World) -> None:
    world.containers["spy"] = copy.deepcopy(world.client) | {"Id": "e" * 64, "Name": "/spy"}
    assert world.keys() == {("unknown", "", "unknown-container")}


@pytest.mark.parametrize(
    ("path", "held", "said"),
    [
        (_OPTIONS, b"{", "is no JSON"),
        (_OPTIONS, b"\xff", "is no JSON"),
        (_OPTIONS, b"[1]", "options that differ"),
        (_SECRETS, b'{"RegisteredUsers": {"mallory": "let-me-in"}}', "it holds secrets"),
        (_SCRIPT, None, "no plain file"),
    ],
)
def test_an_edited_file_is_told_and_never_what_is_in_it(world: World, path: str, held: bytes | None, said: str) -> None:
    world.files[world.client["Id"], path] = Held(held, 0o400, 0)
    (sentence,) = world.said()
    assert said in sentence
    assert not any(hidden in sentence for hidden in ("mallory", "let-me-in", "pw-recorded"))


def test_options_that_were_edited_are_told_by_their_names(world: World) -> None:
    options = json.loads(world.files[world.client["Id"], _OPTIONS].content or b"")
    options["DicomModalities"]["server"]["AET"] = "LET_ME_IN"
    options["RegisteredUsers"] = {"mallory": "let-me-in"}
    world.file(_OPTIONS, json.dumps(options).encode())
    (sentence,) = world.said()
    assert sentence.endswith("options that differ: `DicomModalities.server.AET`, `RegisteredUsers`.")


class TestRefresh:
    """What Pulumi's refresh says is either told in words, or raw."""

    def _changed(self, world: World) -> None:
        for name, held in _RECORDED["changed"].items():
            for key, values in held.items():
                world.containers[name.removeprefix("/")][key].update(copy.deepcopy(values))
        world.containers.pop(f"{_PREFIX}-db-roles")
        world.refresh = copy.deepcopy(_RECORDED["refresh_after"])

    def test_a_recorded_one_adds_nothing_to_what_the_engine_tells(self, world: World) -> None:
        self._changed(world)
        changes = {"memory", "restart-policy", "cpu-weight", "limit", "stopped"}
        assert world.keys() == {("node", "client", change) for change in changes} | {("database", "", "removed")}

    def test_alone_it_is_told_raw(self, world: World) -> None:
        world.refresh = copy.deepcopy(_RECORDED["refresh_after"])
        said = world.said()
        assert "It has another `memory`: `1024` instead of `2048`." in said
        assert "What makes its roles Pulumi's refresh would `delete` it." not in said
        assert any("would `delete`" in sentence for sentence in said)
        assert len(said) == 7

    def test_an_unknown_property_is_not_dropped(self, world: World) -> None:
        self._changed(world)
        step = next(step for step in world.refresh if "client-container" in step["urn"])
        step["detailedDiff"]["shmSize"] = {"kind": "update"}
        step["newState"]["outputs"]["shmSize"], step["oldState"]["outputs"]["shmSize"] = 1, 64
        assert "It has another `shmSize`: `1` instead of `64`." in world.said()

    def test_an_engine_that_cannot_limit_swap_drifts_by_nobodys_hand(self, world: World) -> None:
        urn = next(one["urn"] for one in world.resources if one["urn"].endswith("client-container"))
        values = [{"outputs": {"memorySwap": value}} for value in (2048, -1)]
        world.refresh = [{"op": "update", "urn": urn, "detailedDiff": {"memorySwap": {}}, "oldState": values[0], "newState": values[1]}]
        assert world.keys() == {("node", "client", "other")}
        world.client["HostConfig"]["MemorySwap"] = -1
        assert world.keys() == {("node", "client", "swap")}
        world.limits_swap = False
        assert world.keys() == set()


class TestReport:
    """The report is the same for the same findings, fits, and holds no markup but its own."""

    def test_the_order_of_findings_does_not_matter(self) -> None:
        findings = [Finding(Part("node", f"n{i % 5}"), f"c{i % 3}", f"said {i}", f"t{i}", data=i == 7) for i in range(40)]
        texts = set()
        for seed in range(5):
            shuffled = findings[:]
            random.Random(seed).shuffle(shuffled)
            texts.add(markdown("s", ordered(shuffled)) + as_json("s", ordered(shuffled)))
        assert len(texts) == 1

    def test_a_large_one_fits_into_an_issue(self) -> None:
        said = f"It has another file {code('/x' * 60)}: options that differ: {listed(['o' * 80] * 10)}."
        findings = [
            Finding(Part("node", f"{i % 500:032}"), "file", f"{said[:300]} {i}", "t", data=i < 600, urn=f"{i:0150}", replace=True)
            for i in range(3000)
        ]
        text = markdown("s", ordered(findings))
        assert 40_000 < len(text) < 65_536
        shown = text.count("It has another file")
        assert f"and {3000 - shown} more" in text
        # There is room for some of what is lost, and so for nothing else.
        assert text.index("## Data") < text.index("It has another file")
        assert "## Node" not in text
        report = json.loads(as_json("s", ordered(findings)))
        assert len(report["findings"]) == 3000
        assert report["repair"][-1].count("--replace") == 3000

    @pytest.mark.parametrize("hostile", ["`a`", "a\n# b", "<img src=x>", "@all", "`" * 9, "\x1b[31m", "a" * 500, "```\n</details>"])
    def test_names_end_no_code_and_no_line(self, hostile: str) -> None:
        shown = code(hostile)
        assert shown.startswith("`")
        assert shown.endswith("`")
        assert not set(shown[1:-1]) & set("`\n\r\x1b")
        assert len(shown) <= 82

    def test_data_comes_first(self, world: World) -> None:
        world.volumes.clear()
        world.containers.pop(_CLIENT)
        text = markdown("recorded", world.findings())
        assert "**data is gone or elsewhere**" in text
        assert text.index("was removed, with all that was in it") < text.index("## Node `client`")

    def test_what_make_up_puts_right_is_left_to_it(self, world: World) -> None:
        _state(_CLIENT, "exited")(world)
        world.containers.pop(_FORWARDER)
        assert repair("dev", world.findings()) == ["./orthanc-stack up dev"]

    def test_what_a_refresh_does_not_see_is_replaced(self, world: World) -> None:
        world.file(_SCRIPT, b"-- anybody")
        (urn,) = (one["urn"] for one in world.resources if one["urn"].endswith("client-container"))
        assert repair("dev", world.findings())[-1] == f"pulumi up --refresh --run-program \\\n  --replace '{urn}'"


class TestFileReader:
    """`docker cp`, played by a script."""

    @pytest.fixture
    def reader(self, tmp_path: Path) -> Callable[[str], ReadFiles]:
        """What reads by a docker command that is this script."""

        def playing(script: str) -> ReadFiles:
            command = tmp_path / "docker"
            command.write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
            command.chmod(0o755)
            return file_reader((str(command),))

        return playing

    def test_a_folder_is_copied_once(self, tmp_path: Path, reader: Callable[[str], ReadFiles]) -> None:
        (tmp_path / "orthanc").mkdir()
        for name in ("a.json", "b.lua", "other"):
            (tmp_path / "orthanc" / name).write_text(name)
            (tmp_path / "orthanc" / name).chmod(0o440)
        held = reader('echo "$2" >>asked; exec tar -cf - orthanc')("c1", ["/etc/orthanc/a.json", "/etc/orthanc/b.lua"])
        assert {path: (one.content, one.mode) for path, one in held.items()} == {
            "/etc/orthanc/a.json": (b"a.json", 0o440),
            "/etc/orthanc/b.lua": (b"b.lua", 0o440),
        }
        assert (tmp_path / "asked").read_text() == "c1:/etc/orthanc\n"

    def test_a_link_is_no_file(self, reader: Callable[[str], ReadFiles]) -> None:
        assert reader("ln -s /etc/passwd x; exec tar -cf - x")("c1", ["/etc/x"])["/etc/x"].content is None

    @pytest.mark.parametrize("said", ["No such container:path: c1:/etc/x", "response from daemon: Could not find the file /etc/x"])
    def test_one_that_is_not_there(self, reader: Callable[[str], ReadFiles], said: str) -> None:
        assert reader(f"echo 'Error: {said}' >&2; exit 1")("c1", ["/etc/x"]) == {}

    @pytest.mark.parametrize("script", ["echo 'permission denied' >&2; exit 1", "echo broken", "exit 0"])
    def test_what_fails_is_no_removed_file(self, reader: Callable[[str], ReadFiles], script: str) -> None:
        with pytest.raises(SetupError, match="docker cp c1:/etc/x` failed"):
            reader(script)("c1", ["/etc/x"])


class TestCommand:
    """The exit status, and the files."""

    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(command, "ROOT", tmp_path)
        monkeypatch.setattr(command, "deployed_stack", lambda name: SimpleNamespace(name=name))
        monkeypatch.setattr(recover, "was_interrupted", lambda stack: False)
        return tmp_path / "artifacts" / "drift"

    @pytest.mark.parametrize(("change", "status"), [(False, 0), (True, 2)])
    def test_status_and_files_agree(self, folder: Path, world: World, monkeypatch: pytest.MonkeyPatch, change: bool, status: int) -> None:
        if change:
            world.containers.pop(_CLIENT)
        monkeypatch.setattr(command, "look_for_drift", lambda stack: world.findings())
        assert command.drift("organization/dev") == status
        assert json.loads((folder / "organization-dev.json").read_text())["drifted"] is change
        report = (folder / "organization-dev.md").read_text()
        assert report.startswith("# Drift of organization/dev\n")
        assert ("nothing drifted" in report) is not change

    def test_after_an_error_there_is_no_report_of_an_earlier_run(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder.mkdir(parents=True)
        (folder / "dev.json").write_text("{}")

        def fail(stack: object) -> list[Finding]:
            raise SetupError("the engine does not answer")

        monkeypatch.setattr(command, "look_for_drift", fail)
        with pytest.raises(SetupError):
            command.drift("dev")
        assert not (folder / "dev.json").exists()
