"""What the drift report makes of a recorded stack, and of each change to what was recorded."""

import copy
import io
import json
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from docker import DockerClient
from docker.errors import APIError, NotFound

from configs.held import OWNER, STASH
from configs.names import BACKUP, LABEL_OWNER, LABEL_ROLE
from ops.drift import command
from ops.drift.containers import Held, read_file
from ops.drift.deployed import Engine, State, look, state_of
from ops.drift.findings import Finding, Part, code, listed, markdown, ordered, repair, report_json
from ops.drift.refresh import check_refresh
from ops.setup.console import SetupError

_RECORDED = json.loads((Path(__file__).parent / "drift_recorded.json").read_text())
_PREFIX = str(_RECORDED["prefix"])
_CLIENT = f"{_PREFIX}-client"
_OWN, _LINK = f"{_PREFIX}-node.client", f"{_PREFIX}-link.client.server"
_SCRIPT, _SECRETS, _OPTIONS = "/etc/orthanc/roles.lua", "/run/secrets/orthanc.json", "/etc/orthanc/orthanc.json"
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
        self.resources.append({"urn": f"urn::{OWNER}", "type": STASH, "outputs": {"input": {OWNER: "me", "keepsData": False}}})
        for container in self.containers.values():
            container["Config"]["Labels"][LABEL_OWNER] = "me"
        # Not the state's networks' other members: their containers are not among what was recorded.
        for network in self.networks.values():
            known = {one["Id"] for one in self.containers.values()}
            network["Containers"] = {key: value for key, value in network["Containers"].items() if key in known}
        self.files: dict[tuple[str, str], Held] = {}
        for one in self.state.deployed:
            for upload in one.inputs.get("uploads") or ():
                content, mode = str(upload["content"]).encode(), int(upload["permissions"], 8)
                self.files[one.id, upload["file"]] = Held(content, mode, 0)

    @property
    def client(self) -> dict[str, Any]:
        return self.containers[_CLIENT]

    @property
    def state(self) -> State:
        return state_of(self.resources, _PREFIX)

    @property
    def engine(self) -> Engine:
        found: dict[tuple[str, str], dict[str, Any]] = {("volume", name): one for name, one in self.volumes.items()}
        found |= {("image", name): one for name, one in self.images.items()}
        for kind, things in (("container", self.containers), ("network", self.networks)):
            for one in things.values():
                found |= {(kind, one["Name"].removeprefix("/")): one, (kind, one["Id"]): one}
        return found

    def urn(self, name: str) -> str:
        """A resource's name in the state, by its end."""
        return next(str(one["urn"]) for one in self.resources if one["urn"].endswith(f"::{name}"))

    def step(self, resource: str, op: str = "update", **changed: tuple[object, object]) -> None:
        """A refresh finds properties of a resource changed: what each is now, and what it was."""
        states = [{"outputs": {key: values[i] for key, values in changed.items()}} for i in (0, 1)]
        step = {"op": op, "urn": self.urn(resource), "detailedDiff": {key: {} for key in changed}}
        self.refresh.append(step | {"newState": states[0], "oldState": states[1]})

    def file(self, path: str, content: bytes | None = None, *, mode: int | None = None, owner: int = 0) -> None:
        key = (self.containers[_CLIENT]["Id"], path)
        before = self.files[key]
        self.files[key] = Held(content if content is not None else before.content, before.mode if mode is None else mode, owner)

    def findings(self) -> list[Finding]:
        """What the report says."""
        found = command.compare(self.state, self.engine, lambda container, path: self.files.get((container, path)))
        return ordered([*found, *check_refresh(self.refresh, self.state, found, limits_swap=self.limits_swap)])

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
    assert len(world.state.deployed) == 7
    assert world.findings() == []


def _host(**values: Any) -> Change:
    return lambda world: world.client["HostConfig"].update(values)


def _on_link(**values: Any) -> Change:
    return lambda world: world.client["NetworkSettings"]["Networks"][_LINK].update(values)


def _state(container: str, status: str) -> Change:
    return lambda world: world.containers[container]["State"].update(Status=status)


_NODE = ("node", "client")
_NETWORK = ("network", "link.client.server")


@pytest.mark.parametrize(
    ("change", "part", "kind"),
    [
        (_state(_CLIENT, "paused"), _NODE, "paused"),
        (_state(_CLIENT, "restarting"), _NODE, "restarting"),
        (_host(CpuQuota=50_000, CpuPeriod=100_000), _NODE, "limit"),
        (_host(PidsLimit=7), _NODE, "limit"),
        (_host(CpusetMems="0"), _NODE, "limit"),
        (lambda world: world.client["NetworkSettings"]["Networks"].pop(_LINK), _NODE, "off-network"),
        (lambda world: world.client["NetworkSettings"]["Networks"].update(bridge={}), _NODE, "on-network"),
        (_on_link(Aliases=["0123"]), _NODE, "alias"),
        (_on_link(NetworkID="other"), _NODE, "off-network"),
        (lambda world: world.client.update(Mounts=[]), _NODE, "volume"),
        (lambda world: world.client["Mounts"].append({"Destination": "/host", "Source": "/"}), _NODE, "mount"),
        (lambda world: world.client["Config"]["Env"].append("SPY=1"), _NODE, "environment"),
        (lambda world: world.client["Config"]["Env"].remove("TCP_NODELAY=1"), _NODE, "environment"),
        (lambda world: world.files.pop((world.client["Id"], _SCRIPT)), _NODE, "file"),
        (lambda world: world.file(_SCRIPT, b"-- anybody"), _NODE, "file"),
        (lambda world: world.file(_SECRETS, mode=0o444), _NODE, "file"),
        (lambda world: world.file(_SECRETS, owner=33), _NODE, "file"),
        (lambda world: world.volumes[_CLIENT].update(Labels=None), _NODE, "volume-recreated"),
        (lambda world: world.networks[_LINK].update(Id="other"), _NETWORK, "recreated"),
        (lambda world: world.networks[_LINK]["Containers"].update(x={"Name": "spy"}), _NETWORK, "stranger"),
        (lambda world: world.images[_ORTHANC].update(Id="sha256:other"), ("image", _ORTHANC), "moved"),
        (lambda world: world.step("client-container", mustRun=(False, True), ports=([], [{"internal": 4242}])), _NODE, "stopped"),
        (lambda world: world.step("client-container", ports=([], [{"internal": 4242}])), _NODE, "ports"),
        (lambda world: world.step("client-container", memory=(1024, 2048)), _NODE, "memory"),
        (lambda world: world.step("client-container", cpus=("1.5", None)), _NODE, "cpus"),
        (lambda world: world.step("client-container", name=("other", _CLIENT)), _NODE, "name"),
        (lambda world: world.step("client-container", image=("sha256:other", "sha256:this")), _NODE, "image"),
        (lambda world: world.step("client-container", restart=("no", "unless-stopped")), _NODE, "restart"),
        (lambda world: world.step("client-container", "replace"), _NODE, "other"),
        (lambda world: world.step("client-container", "delete"), _NODE, "removed"),
        (lambda world: world.step("db-roles", "delete"), ("database", ""), "removed"),
        (lambda world: world.step("client-data", "delete"), _NODE, "volume-removed"),
        (lambda world: world.step("images-orthanc", "delete"), ("image", _ORTHANC), "removed"),
    ],
)
def test_each_change_is_told_of_its_part_and_nothing_else(world: World, change: Change, part: tuple[str, str], kind: str) -> None:
    change(world)
    assert world.keys() == {(*part, kind)}


def test_variables_of_an_image_that_is_gone_are_not_taken_for_somebodys(world: World) -> None:
    world.images.clear()
    assert world.findings() == []


def test_off_a_network_and_on_another_of_its_name_are_told_apart(world: World) -> None:
    networks = world.client["NetworkSettings"]["Networks"]
    networks.pop(_LINK)
    networks[_OWN]["NetworkID"] = "other"
    assert world.said() == [
        "It is on another network, made under the name `node.client`.",
        "It was taken off the network `link.client.server`.",
    ]


class TestAnotherOfTheName:
    """What has the name of one of the stack's things, and was made by somebody else."""

    def test_a_container_made_by_hand(self, world: World) -> None:
        """Whether the stack's own was removed or renamed."""
        world.step("client-container", "delete")
        world.client["Id"] = "f" * 64
        world.client["Config"]["Labels"] = {}
        world.client["Config"]["Env"].append("PASSWORD=let-me-in")
        assert world.keys() == {("node", "client", kind) for kind in ("recreated", "environment", "file")}
        report = markdown("recorded", world.findings())
        assert "`PASSWORD`" in report
        assert "let-me-in" not in report
        assert f"docker stop -t 60 {_CLIENT}\ndocker rm {_CLIENT}\n" in report

    def test_one_beside_the_stacks_own_which_was_renamed(self, world: World) -> None:
        world.containers["spy"] = copy.deepcopy(world.client) | {"Id": "e" * 64}
        world.client["Name"] = "/renamed"
        assert world.keys() == {("node", "client", "recreated")}

    @pytest.mark.parametrize("kind", ["container", "network", "volume"])
    def test_no_command_touches_what_another_checkout_made(self, world: World, kind: str) -> None:
        things: dict[str, Any] = {"container": world.client, "network": world.networks[_LINK], "volume": world.volumes[_CLIENT]}
        things[kind] |= {"Id": "f" * 64, "Labels": {LABEL_OWNER: "another"}}
        if kind == "container":
            world.client["Config"]["Labels"] = {LABEL_OWNER: "another"}
            world.client["NetworkSettings"]["Networks"]["bridge"] = {}
        (found,) = (one for one in world.findings() if one.change.endswith("recreated"))
        assert "another checkout" in found.said
        assert [one for one in world.findings() if one.by_hand] == []

    def test_nothing_is_replaced_that_is_made_again_in_any_case(self, world: World) -> None:
        world.step("client-container", "delete")
        world.client["Id"] = "f" * 64
        assert {"recreated", "file"} <= {one.change for one in world.findings()}
        assert repair("dev", world.findings())[-1] == "pulumi up --refresh --run-program"

    def test_what_the_state_does_not_know(self, world: World) -> None:
        world.containers["spy"] = copy.deepcopy(world.client) | {"Id": "e" * 64, "Name": "/spy"}
        (found,) = world.findings()
        assert (found.part.of, found.change) == ("unknown", "unknown-container")
        assert found.by_hand == ("docker stop -t 60 spy", "docker rm spy")

    def test_a_backup_that_is_at_work_is_no_drift(self, world: World) -> None:
        spy = world.containers["spy"] = copy.deepcopy(world.client) | {"Id": "e" * 64, "Name": "/spy"}
        spy["Config"]["Labels"][LABEL_ROLE] = BACKUP
        assert list(world.findings()) == []

    def test_what_the_state_does_not_know_of_another_checkout(self, world: World) -> None:
        world.networks["spy"] = copy.deepcopy(world.networks[_LINK]) | {"Id": "e" * 64, "Name": "spy"}
        (found,) = world.findings()
        assert (found.change, found.by_hand) == ("unknown-network", ())


@pytest.mark.parametrize("mount", [None, {"Type": "volume", "Name": "0" * 64}])
def test_what_would_go_with_a_container_is_saved_first(world: World, mount: dict[str, Any] | None) -> None:
    (volume,) = (one for one in world.client["Mounts"] if one.get("Name") == _CLIENT)
    world.client["Mounts"] = [volume | mount] if mount else []
    (found,) = world.findings()
    assert (found.data, found.by_hand) == (True, ())
    assert "It took nothing" in found.said
    world.files[world.client["Id"], volume["Destination"]] = Held(None)
    (found,) = world.findings()
    assert found.data
    identifier = world.client["Id"][:12]
    assert repair("dev", [found])[:2] == [
        f"docker stop -t 60 {identifier}",
        f"docker cp {identifier}:{volume['Destination']} ./saved-{_CLIENT}",
    ]


def test_a_mount_that_stays_is_not_copied(world: World) -> None:
    (volume,) = (one for one in world.client["Mounts"] if one.get("Name") == _CLIENT)
    volume["Name"] = "elsewhere"
    (found,) = world.findings()
    assert (found.data, found.by_hand) == (True, ())
    assert "`elsewhere`" in found.said


@pytest.mark.parametrize(
    ("path", "held", "said"),
    [
        (_OPTIONS, b"{", "is no JSON"),
        (_OPTIONS, b"\xff", "is no JSON"),
        (_OPTIONS, b"[1]", "is no JSON object"),
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
    assert sentence.endswith("options that differ: `DicomModalities`, `RegisteredUsers`.")


class TestRefresh:
    """What Pulumi's refresh finds is told in words."""

    def test_a_recorded_one(self, world: World) -> None:
        world.refresh = copy.deepcopy(_RECORDED["refresh_after"])
        assert world.said() == [
            "It has `cpuShares` `77` instead of `1024`.",
            "It has `memory` `1024` instead of `2048`.",
            "It has `memoryReservation` `128` instead of `0`.",
            "It has `memorySwap` `1024` instead of `2048`.",
            'It has `restart` `"always"` instead of `"unless-stopped"`.',
            "Its forwarder was stopped.",
            "The container that makes its roles was removed.",
        ]

    def test_off_a_network_follows_that_it_publishes_no_port(self, world: World) -> None:
        world.client["NetworkSettings"]["Networks"].pop(_LINK)
        world.step("client-container", ports=([], [{"internal": 4242}]))
        assert world.keys() == {("node", "client", "off-network")}

    def test_no_variable_and_no_file_is_shown(self, world: World) -> None:
        world.step("client-container", envs=(["PASSWORD=let-me-in"], []), uploads=([{"content": "let-me-in"}], []))
        assert world.findings() == []

    def test_an_engine_that_cannot_limit_swap_drifts_by_nobodys_hand(self, world: World) -> None:
        world.step("client-container", memorySwap=(-1, 2048))
        assert world.keys() == {("node", "client", "memorySwap")}
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
            texts.add(markdown("s", ordered(shuffled)) + report_json("s", ordered(shuffled)))
        assert len(texts) == 1

    def test_a_large_one_fits_into_an_issue(self) -> None:
        said = f"It has another file {code('/x' * 60)}: options that differ: {listed(['o' * 80] * 10)}."
        findings = [
            Finding(Part("node", f"{i % 500:032}"), "file", f"{said[:300]} {i}", "t", data=i < 600, urn=f"{i:0150}", replace=True)
            for i in range(3000)
        ]
        text = markdown("s", ordered(findings))
        assert 29_000 < len(text) < 65_536 / 2  # the reports of two stacks are one issue
        assert text.endswith("The JSON file beside this has all.\n")
        assert text.index("## Data") < text.index("It has another file")
        report = json.loads(report_json("s", ordered(findings)))
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
        world.step("client-data", "delete")
        world.step("client-container", "delete")
        assert world.findings()[0].data
        noted = markdown("recorded", world.findings(), "A note.")
        assert "**data is gone or at risk**.\n\nA note.\n" in noted
        # What a run has half made is no drift: no command is told.
        assert "## To put it right" not in noted
        assert json.loads(report_json("recorded", world.findings(), "A note."))["repair"] == []
        text = markdown("recorded", world.findings())
        assert text.index("was removed, with all that was in it") < text.index("## Node `client`")
        assert text.index("# Restore a backup first, into: docker volume create --label") < text.index("\npulumi refresh\n")

    def test_what_up_puts_right_is_left_to_it(self, world: World) -> None:
        world.step("client-container", mustRun=(False, True))
        world.step("db-roles", "delete")
        assert repair("dev", world.findings()) == ["./orthanc-stack up dev"]
        world.step("images-orthanc", "delete")
        assert repair("dev", world.findings())[-1] == "pulumi up --refresh --run-program"

    def test_what_a_refresh_does_not_see_is_replaced(self, world: World) -> None:
        world.file(_SCRIPT, b"-- anybody")
        (urn,) = (one["urn"] for one in world.resources if one["urn"].endswith("client-container"))
        assert repair("dev", world.findings())[-1] == f"pulumi up --refresh --run-program \\\n  --replace '{urn}'"


class _Asked:
    """An engine's API that hands over one archive, and knows no more."""

    def __init__(self, archive: bytes | None, mode: int = 0o444, size: int = 1) -> None:
        self.archive, self.status = archive, {"mode": mode, "size": size}

    def get_archive(self, container: str, path: str) -> tuple[list[bytes], dict[str, int]]:
        if self.archive is None:
            raise NotFound("404: Could not find the file")
        return [self.archive[:100], self.archive[100:]], self.status

    def __getattr__(self, name: str) -> Callable[..., object]:
        def answer(*arguments: object, **filters: object) -> object:
            if name.startswith("inspect_"):
                raise NotFound("404: there is none")
            return [{"Id": "removed meanwhile"}]

        return answer


def _client(asked: object) -> DockerClient:
    return cast("DockerClient", SimpleNamespace(api=asked))


def _archive(member: tarfile.TarInfo, content: bytes = b"") -> bytes:
    written, member.size = io.BytesIO(), len(content)
    with tarfile.open(fileobj=written, mode="w") as archive:
        archive.addfile(member, io.BytesIO(content))
    return written.getvalue()


class TestFileReader:
    """A file of a container, as the engine hands it over; tests/stack/test_drift.py reads real ones."""

    def test_a_file(self) -> None:
        member = tarfile.TarInfo("x")
        member.mode, member.uid = 0o440, 33
        assert read_file(_client(_Asked(_archive(member, b"content"))), "c1", "/etc/x") == Held(b"content", 0o440, 33)

    def test_a_link_is_no_file(self) -> None:
        member = tarfile.TarInfo("x")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        held = read_file(_client(_Asked(_archive(member))), "c1", "/etc/x")
        assert held is not None
        assert held.content is None

    @pytest.mark.parametrize(("mode", "size"), [(1 << 31 | 0o755, 4096), (0o644, 1 << 30)])
    def test_a_folder_or_a_far_too_large_file_is_not_read(self, mode: int, size: int) -> None:
        assert read_file(_client(_Asked(b"not an archive", mode, size)), "c1", "/etc/x") == Held(None)

    def test_one_that_is_not_there(self) -> None:
        assert read_file(_client(_Asked(None)), "c1", "/etc/x") is None

    def test_what_fails_is_no_removed_file(self) -> None:
        with pytest.raises(SetupError, match="did not hand over /etc/x"):
            read_file(_client(_Asked(b"broken")), "c1", "/etc/x")

        class Refusing:
            def get_archive(self, container: str, path: str) -> object:
                raise APIError("500: permission denied")

        with pytest.raises(SetupError, match="permission denied"):
            read_file(_client(Refusing()), "c1", "/etc/x")


def test_what_a_run_at_work_removes_meanwhile_is_not_there(world: World) -> None:
    assert look(_client(_Asked(None)), world.state) == {}


class TestCommand:
    """The exit status, and the files."""

    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(command, "ROOT", tmp_path)
        monkeypatch.setattr(command, "deployed_stack", lambda name: SimpleNamespace(name=name, unfinished=[]))
        return tmp_path / "artifacts" / "drift"

    @pytest.mark.parametrize(("change", "status"), [(False, 0), (True, 3)])
    def test_status_and_files_agree(self, folder: Path, world: World, monkeypatch: pytest.MonkeyPatch, change: bool, status: int) -> None:
        if change:
            world.step("client-container", "delete")
        monkeypatch.setattr(command, "look_for_drift", lambda stack: world.findings())
        assert command.drift("organization/orthanc-stack/dev") == status
        assert json.loads((folder / "dev.json").read_text())["drifted"] is change
        report = (folder / "dev.md").read_text()
        assert report.startswith("# Drift of organization/orthanc-stack/dev\n")
        assert ("nothing drifted" in report) is not change

    def test_json_alone_is_printed_for_programs(
        self, folder: Path, world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(command, "look_for_drift", lambda stack: world.findings())
        assert command.drift("dev", as_json=True) == 0
        assert json.loads(capsys.readouterr().out) == json.loads((folder / "dev.json").read_text())

    def test_after_an_error_there_is_no_report_of_an_earlier_run(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder.mkdir(parents=True)
        (folder / "dev.json").write_text("{}")

        def fail(stack: object) -> list[Finding]:
            raise SetupError("the engine does not answer")

        monkeypatch.setattr(command, "look_for_drift", fail)
        with pytest.raises(SetupError):
            command.drift("dev")
        assert not (folder / "dev.json").exists()

    def test_a_run_that_has_not_ended_is_told(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        stack = SimpleNamespace(name="dev", unfinished=["a", "b"])
        monkeypatch.setattr(command, "ROOT", tmp_path)
        monkeypatch.setattr(command, "deployed_stack", lambda _: stack)
        monkeypatch.setattr(command, "look_for_drift", lambda _: [])
        assert command.drift("dev") == 0
        assert "it was changing `a`, `b`." in (tmp_path / "artifacts" / "drift" / "dev.md").read_text()

    def test_another_engine_is_an_error_and_no_advice(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        exported = json.dumps({"deployment": {"resources": world.resources}})
        stack: Any = SimpleNamespace(name="dev", prefix=_PREFIX, ask=lambda *words: exported if words[0] == "stack" else "{}")
        monkeypatch.setattr(command, "client", lambda: _client(_Asked(None)))
        with pytest.raises(SetupError, match="holds nothing of the stack dev"):
            command.look_for_drift(stack)
