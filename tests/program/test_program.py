"""The whole program under mocks: dev, prod, and a topology of five nodes."""

from __future__ import annotations

import importlib
import json
import re
import time
from collections.abc import Callable
from typing import Any

import pulumi
import pytest

from components.engine import Engine, Volume
from images import candidates
from tests.program.harness import OWNER_ID, ROOT, SECRET, Run, raw_stack_file, run_program
from tests.unit.hostile_files import VALUES, Path, as_config, put, valid
from tests.unit.stacks import node, settings_of, stack

FIVE = stack(
    node("archive", 0),
    node("research", 1),
    node("ct-room", 2, forwardTo=["archive", "research"], index="sqlite"),
    node("mr-room", 3, forwardTo=["archive"]),
    node("teaching", 4, index="sqlite"),
)
RAW = {"dev": raw_stack_file("dev"), "prod": raw_stack_file("prod"), "five": FIVE}


@pytest.fixture(scope="module")
def dev() -> Run:
    return run_program(RAW["dev"], "dev")


@pytest.fixture(scope="module")
def prod() -> Run:
    return run_program(RAW["prod"], "prod")


@pytest.fixture(scope="module")
def five() -> Run:
    return run_program(FIVE, "five")


@pytest.fixture(params=RAW)
def run(request: pytest.FixtureRequest) -> Run:
    found: Run = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the program warns of."""
    told: list[str] = []
    monkeypatch.setattr("pulumi.log.warn", told.append)
    return told


def nodes_of(run: Run) -> list[str]:
    return [this.name for this in run.of_type("OrthancNode")]


# --- what there is ---


def test_urns_and_parents_of_dev_are_pinned(dev: Run) -> None:
    """Each resource below its parent's type: a change here would replace every resource of every user."""
    own, docker = "orthanc-stack:index:", "docker:index/"
    container, volume = f"{docker}container:Container", f"{docker}volume:Volume"
    expected = {
        f"{own}Adminer": "adminer",
        f"{own}Adminer${container}": "adminer-container",
        f"{own}Forwarder": "client-forwarder",
        f"{own}Forwarder${container}": "client-forwarder-container",
        f"{own}OrthancIndexDb": "db",
        f"{own}OrthancIndexDb${container}": "db-container db-roles",
        f"{own}OrthancNode": "client server",
        f"{own}OrthancNode${container}": "client-container server-container",
        f"{own}StackImages": "images",
        f"{own}StackImages${docker}remoteImage:RemoteImage": "images-adminer images-orthanc images-postgres",
        f"{docker}network:Network": "admin dicom index",
        volume: "client-data db-data server-data",
        "pulumi:index:Stash": "owner",
    }
    urns = [urn.partition("::")[2].partition("::")[2].removeprefix("pulumi:pulumi:Stack$") for urn in dev.resources]
    assert sorted(urns) == sorted(f"{kind}::{name}" for kind, names in expected.items() for name in names.split())


def test_each_node_on_postgresql_has_a_database_and_prod_no_adminer(prod: Run, five: Run) -> None:
    assert prod.one("db").inputs["databases"] == {"client": "orthanc_client", "server": "orthanc_server"}
    databases = {"archive": "orthanc_archive", "mr-room": "orthanc_mr_room", "research": "orthanc_research"}
    assert five.one("db").inputs["databases"] == databases
    assert [r.name for r in prod.resources.values() if "adminer" in r.urn] == []
    assert prod.outputs["adminerUrl"] is None


def test_a_stack_without_postgresql_has_no_database() -> None:
    run = run_program(stack(node("a", index="sqlite")), "small")
    assert [r.name for r in run.of_type("Container")] == ["a-container"]
    assert run.outputs["indexDb"] is None
    assert "PostgreSQL" not in run.configuration("a")


def test_two_runs_give_the_same(run: Run, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params["run"]
    again = run_program(RAW[name], name)
    assert {u: r.inputs for u, r in again.resources.items()} == {u: r.inputs for u, r in run.resources.items()}


def test_the_program_is_a_table_of_contents() -> None:
    assert len((ROOT / "__main__.py").read_text().splitlines()) <= 40


# --- what pulumi-docker would otherwise get wrong ---


def test_every_container(run: Run) -> None:
    for container in run.of_type("Container"):
        inputs, request = container.inputs, container.request
        assert inputs["destroyGraceSeconds"] >= 10, "a replaced container is killed at once without it"
        assert request.deleteBeforeReplace
        assert {"#initerror", "healthcheck"} <= set(request.replaceOnChanges)
        assert {"cpuPeriod", "cpuQuota"} <= set(request.replaceOnChanges), "the provider shows them as an update and never makes it"
        assert list(request.hooks.on_error) == ["explain"]
        assert inputs["logOpts"] == {"max-file": "3", "max-size": "10m"}
        assert inputs["capabilities"]["drops"] == ["ALL"]
        assert all(name.startswith("CAP_") for name in inputs["capabilities"].get("adds", []))
        assert inputs["image"].startswith("sha256:")
        assert {tuple(network["aliases"]) for network in inputs["networksAdvanced"]} == {(inputs["hostname"],)}
        assert inputs["securityOpts"] == ["no-new-privileges:true"]
        assert inputs["memory"] >= 256
        assert inputs["memorySwap"] == inputs["memory"], "no swap"
        assert inputs["cpuShares"] >= 256
        assert inputs.get("networkMode") is None
        assert {label["label"] for label in inputs["labels"]} == {"orthanc-stack.owner", "orthanc-stack.role", "orthanc-stack.stack"}
        assert inputs["envs"] == sorted(inputs["envs"])
        for port in inputs.get("ports", []):
            assert set(port) == {"external", "internal", "ip", "protocol"}
            assert port["ip"] == "127.0.0.1"
        if inputs.get("user"):  # the engine copies files as root's, whatever owner is asked for
            assert {upload["permissions"] for upload in inputs["uploads"]} == {"0444"}
        if container.name == "db-roles":
            assert (inputs["attach"], inputs["mustRun"], inputs["restart"]) == (True, False, "no")
        else:
            assert inputs["wait"]
            assert inputs["waitTimeout"] >= 60
            assert inputs["healthcheck"]["tests"]
            assert inputs["restart"] == "unless-stopped"


def test_the_containers_that_hold_data(run: Run) -> None:
    database = run.one("db-container").inputs
    assert database["destroyGraceSeconds"] >= 60
    for name in ("db-container", "db-roles"):
        assert not run.one(name).inputs.get("ports"), "the database is on no port of the host"
    for name in nodes_of(run):
        inputs = run.one(f"{name}-container").inputs
        assert inputs["destroyGraceSeconds"] >= 30
        assert inputs["capabilities"] == {"adds": ["CAP_DAC_OVERRIDE"], "drops": ["ALL"]}, "the one that the image needs"


def test_durations_are_written_as_docker_gives_them_back(dev: Run) -> None:
    """Otherwise each refresh finds another health check, and replaces every container."""
    for container in dev.of_type("Container"):
        for key in ("interval", "timeout", "startPeriod"):
            written = container.inputs.get("healthcheck", {}).get(key, "1s").replace("500ms", "1s")
            minutes, _, seconds = written.rpartition("m")
            assert int(seconds.removesuffix("s")) < 60, written
            assert written == (f"{minutes}m{seconds}" if minutes else seconds)


def test_volumes_are_kept_in_prod_and_neither_labels_nor_a_renamed_stack_replace_them(dev: Run, prod: Run) -> None:
    for run, keep in ((dev, False), (prod, True)):
        volumes = run.of_type("Volume")
        assert [v.name for v in volumes] == ["client-data", "db-data", "server-data"]
        for volume in volumes:
            assert volume.request.protect is keep
            assert volume.request.retainOnDelete is keep
            assert list(volume.request.ignoreChanges) == ["labels", "name"]


@pytest.mark.parametrize(
    ("major", "path"), [(16, "/var/lib/postgresql/data"), (17, "/var/lib/postgresql/data"), (18, "/var/lib/postgresql")]
)
def test_the_databases_volume_is_where_the_image_keeps_its_data(major: int, path: str) -> None:
    raw = stack(node("a"), indexDb={"majorVersion": major}, images={"postgres": f"postgres:{major}.1"})
    (volume,) = run_program(raw, "x").one("db-container").inputs["volumes"]
    assert volume["containerPath"] == path


def test_edges_that_cascade_and_edges_that_do_not(run: Run) -> None:
    """Networks and volumes by output: their users are replaced with them. The database by its alias: replacing it replaces no node."""
    for name in nodes_of(run):
        edges = set(run.input_edges(f"{name}-container"))
        assert ("networksAdvanced", "dicom") in edges
        assert ("volumes", f"{name}-data") in edges
        assert [edge for edge in edges if edge[1].startswith("db")] == []
        others = set(nodes_of(run)) - {name}
        assert [edge for edge in edges if edge[1].removesuffix("-container") in others] == [], "nodes start side by side"
        # A node starts after db-roles and stops before the database.
        database = {"db-container", "db-roles"}
        assert database & run.depends_on(f"{name}-container") == (database if "PostgreSQL" in run.configuration(name) else set())
        # Its component depends on nothing: what it came from could not be destroyed before it.
        assert run.depends_on(name) == set()
    assert "db-container" in run.depends_on("db-roles")
    assert [edge for edge in run.input_edges("db-roles") if edge[1] == "db-container"] == []


def test_images_stay_on_the_engine(run: Run) -> None:
    assert {image.inputs["keepLocally"] for image in run.of_type("RemoteImage")} == {True}


def test_a_container_is_read_only_where_no_file_is_copied_into_it(dev: Run) -> None:
    containers = {container.name: container.inputs for container in dev.of_type("Container")}
    read_only = {name: inputs["tmpfs"] for name, inputs in containers.items() if inputs["readOnly"]}
    assert read_only == {"adminer-container": {"/tmp": "size=192m"}}
    assert {name for name, inputs in containers.items() if not inputs["uploads"]} == set(read_only)


# --- networks and limits ---


#: Who is on each network besides Orthanc's nodes and their forwarders, which are on `dicom`, and the nodes on PostgreSQL, on `index`.
OTHERS = {"dicom": set[str](), "index": {"adminer", "db", "db-roles"}, "admin": {"adminer"}}


def test_each_container_is_on_the_networks_that_it_needs(run: Run) -> None:
    made = {network.name: network.inputs for network in run.of_type("Network")}
    assert [(name, made[name]["internal"]) for name in made if name != "admin"] == [("dicom", False), ("index", True)]
    no_way_out = {"com.docker.network.bridge.enable_ip_masquerade": "false"}
    assert {name: network.get("options") for name, network in made.items() if network.get("options")} == (
        {"admin": no_way_out} if "admin" in made else {}
    )
    containers = {container.inputs["hostname"]: container.inputs for container in run.of_type("Container")}
    on_dicom = {name for name in containers if name not in OTHERS["index"]}
    on_index = {name for name in nodes_of(run) if "PostgreSQL" in run.configuration(name)}
    members = {"dicom": on_dicom, "index": on_index | OTHERS["index"] & containers.keys(), "admin": OTHERS["admin"] & containers.keys()}
    for short, network in made.items():
        found = {name for name, one in containers.items() if network["name"] in [on["name"] for on in one["networksAdvanced"]]}
        assert found == members[short], short


def test_a_peers_host_is_an_output_of_what_makes_it_reachable(run: Run) -> None:
    for name in nodes_of(run):
        others = set(run.configuration(name)["DicomModalities"]) & set(nodes_of(run))
        assert ("uploads", "dicom") in run.input_edges(f"{name}-container") or not others


def test_starts_have_the_time_that_the_stack_file_gives() -> None:
    raw = stack(node("a", startTimeout="2h"), node("b", 1, forwardTo=["a"]), indexDb={"startTimeout": "5m"})
    run = run_program(raw, "x")
    waits = {name: run.one(f"{name}-container").inputs["waitTimeout"] for name in ("a", "b", "b-forwarder", "db")}
    assert waits == {"a": 7200, "b": 120, "b-forwarder": 120, "db": 300}
    # Within an hour, another limit is not another health check, which would replace the container.
    checks = {name: run.one(f"{name}-container").inputs["healthcheck"]["startPeriod"] for name in ("a", "b", "db")}
    assert checks == {"a": "2h0m0s", "b": "1h0m0s", "db": "1h0m0s"}
    # The provider gives up a creation after 20 minutes, unless it is said otherwise.
    limits = {name: run.one(name).request.customTimeouts.create for name in ("a-container", "db-roles")}
    assert limits == {"a-container": "7260s", "db-roles": "300s"}


def test_limits_are_what_the_stack_file_says() -> None:
    run = run_program(stack(node("a", memory=4096, cpus=1.5), node("b", 1), indexDb={"memory": 1024, "cpus": 2}), "x")
    keys = ("memory", "memorySwap", "cpuPeriod", "cpuQuota")
    said = {name: tuple(run.one(f"{name}-container").inputs.get(key) for key in keys) for name in ("a", "b", "db")}
    assert said == {"a": (4096, 4096, 100_000, 150_000), "b": (2048, 2048, None, None), "db": (1024, 1024, 100_000, 200_000)}


# --- configuration ---


def test_every_node_is_configured_for_the_topology(run: Run) -> None:
    identifiers = set()
    for this in run.of_type("OrthancNode"):
        configuration = run.configuration(this.name)
        assert this.inputs["configuration"] == configuration
        assert this.secret_inputs == frozenset(), "a preview would show [secret]"
        identifiers.add(configuration["DatabaseServerIdentifier"])
        assert configuration["Name"] == this.name
        assert (configuration["HttpPort"], configuration["DicomPort"]) == (8042, 4242)
        assert {"TCP_NODELAY=1", "TCP_BUFFER_LENGTH=1048576"} <= set(run.one(f"{this.name}-container").inputs["envs"])
        for name, entry in configuration["DicomModalities"].items():
            if name != "workstation":
                other = run.configuration(name)
                assert (entry["AET"], entry["Host"], entry["Port"]) == (other["DicomAet"], name, other["DicomPort"])
                assert this.name in other["DicomModalities"], "who is known knows"
        if "PostgreSQL" in configuration:
            assert configuration["PostgreSQL"]["Host"] == "db"
            assert configuration["PostgreSQL"]["Username"] == f"orthanc_{this.name.replace('-', '_')}"
    assert len(identifiers) == len(run.of_type("OrthancNode"))


def test_no_dollar_sign_is_left_for_the_images_entry_point_to_replace() -> None:
    content = run_program(stack(node("a", aet="CT$1")), "x").files("a-container")["/etc/orthanc/orthanc.json"]["content"]
    assert "$" not in content
    assert json.loads(content)["DicomAet"] == "CT$1"


def configurations(run: Run) -> dict[str, Any]:
    return {name: run.configuration(name) for name in nodes_of(run)}


def containers(run: Run) -> dict[str, Any]:
    return {one.name: one.inputs for one in run.of_type("Container")}


#: The two ends, the forwarder, and research's links of before: their forwarder asks research again for what it had refused.
MR_TO_RESEARCH = ["mr-room-container", "mr-room-forwarder-container", "research-container"]


@pytest.mark.parametrize(
    ("where", "value", "of", "changed"),
    [
        (("nodes", 0, "aet"), "NEW_ARCHIVE", configurations, ["archive", "ct-room", "mr-room"]),
        (("nodes", 0, "dicomPort"), 11112, containers, ["archive-container"]),
        (("nodes", 3, "forwardTo"), ["archive", "research"], containers, MR_TO_RESEARCH),
    ],
    ids=["an AE title: who knows it", "a host's port: its node alone", "a link: its ends"],
)
def test_whom_a_change_concerns(five: Run, where: Path, value: Any, of: Callable[[Run], dict[str, Any]], changed: list[str]) -> None:
    before, after = of(five), of(run_program(put(FIVE, where, value), "five"))
    assert [name for name, said in before.items() if after[name] != said] == changed


ADDED = {"a linked node": node("new", 5, forwardTo=["archive"]), "one that is linked to none": node("new", 5)}


@pytest.mark.parametrize(("how", "concerned"), [("a linked node", {"archive-container"}), ("one that is linked to none", set())])
def test_a_node_more_or_less_restarts_no_node_that_is_not_linked_to_it_and_never_the_database(
    five: Run, how: str, concerned: set[str]
) -> None:
    """Docker removes and adds networks only where a stack file adds the first of a kind."""
    more = run_program({**FIVE, "nodes": [*FIVE["nodes"], ADDED[how]]}, "five")
    before, after = containers(five), containers(more)
    changed = {name for name, inputs in before.items() if _less_secrets(after[name]) != _less_secrets(inputs)}
    assert changed == concerned | {"db-roles"}, "the roles are made again, for the new node's"
    assert [network.inputs for network in five.of_type("Network")] == [network.inputs for network in more.of_type("Network")]


def _less_secrets(inputs: dict[str, Any]) -> str:
    """With one more node, the tests number other secrets otherwise."""
    return re.sub(rf"{SECRET}\d+", SECRET, json.dumps(inputs))


# --- secrets ---


def test_secrets_are_in_files_alone_and_marked(run: Run) -> None:
    for resource in run.resources.values():
        for key, value in resource.inputs.items():
            assert SECRET not in json.dumps(value) or (key == "uploads" and key in resource.secret_inputs), f"{resource.name}.{key}"
        for upload in resource.inputs.get("uploads", []):
            assert SECRET not in upload.get("content", "") or upload["file"].startswith("/run/secrets/")
    assert run.secret_outputs == ["users"]
    assert SECRET not in json.dumps({key: value for key, value in run.outputs.items() if key != "users"})


def test_the_superusers_password_is_no_nodes(run: Run) -> None:
    (password,) = {run.files(name)["/run/secrets/postgres-password"]["content"] for name in ("db-container", "db-roles")}
    assert password == f"{SECRET}0"
    for name in nodes_of(run):
        assert f'{password}"' not in json.dumps(run.one(f"{name}-container").inputs).replace("\\", "")


# --- outputs, images, previews ---


def test_outputs_of_dev_are_the_contract(dev: Run) -> None:
    assert sorted(dev.outputs) == ["adminerUrl", "images", "indexDb", "nodes", "settings", "topology", "users"]
    assert dev.outputs["nodes"]["client"] == {
        "aet": "ORTHANC_CLIENT",
        "dicomHost": "127.0.0.1",
        "dicomPort": 4243,
        "forwardTo": ["server"],
        "httpUrl": "http://127.0.0.1:8043",
        "index": "sqlite",
        "indexDatabase": None,
        "roles": {"orthanc": "admin"},
    }
    assert dev.outputs["indexDb"].items() >= {"host": "db", "port": 5432, "database": "orthanc_server"}.items()
    assert sorted(dev.outputs["users"]["server"]) == ["orthanc"]


def test_the_settings_are_an_output_with_their_defaults(run: Run) -> None:
    raw = RAW["five" if len(run.outputs["settings"]["nodes"]) == 5 else run.outputs["settings"]["environment"]]
    assert run.outputs["settings"] == settings_of(raw).model_dump(mode="json", by_alias=True)
    for said, written in zip(run.outputs["settings"]["nodes"], raw["nodes"], strict=True):
        assert (said["aet"], said["httpPort"], said["startTimeout"]) == (written["aet"], written["httpPort"], 120)
        assert [link["to"] for link in said["forwardTo"]] == written.get("forwardTo", [])


@pytest.mark.parametrize(
    ("source", "held", "runs"),
    [
        ("auto", candidates(), "local"),
        ("auto", candidates()[:2], "registry"),
        ("local", candidates(), "local"),
        ("registry", candidates(), "registry"),
    ],
)
def test_where_images_come_from(source: str, held: tuple[str, ...], runs: str) -> None:
    run = run_program(stack(node("a"), images={"source": source}), "x", Engine(images=frozenset(held)))
    assert run.outputs["images"]["source"] == runs
    beginning = {"local": "orthanc-stack/orthanc:local-", "registry": "orthancteam/orthanc:"}[runs]
    assert run.one("images-orthanc").inputs["name"].startswith(beginning)


def test_a_preview_knows_the_whole_configuration() -> None:
    run = run_program(RAW["dev"], "dev", preview=True)
    assert run.configuration("client")["DicomModalities"]["server"]["Host"] == "server"


@pytest.mark.parametrize(
    ("bind", "engine", "host", "told"),
    [
        ("127.0.0.1", "", "127.0.0.1", False),
        ("0.0.0.0", "", "127.0.0.1", False),
        ("::", "", "[::1]", False),
        ("fd00::7", "", "[fd00::7]", False),
        ("0.0.0.0", "docker7", "docker7", False),
        ("::", "fd00::9", "[fd00::9]", False),
        ("127.0.0.1", "docker7", "127.0.0.1", True),
    ],
)
def test_addresses_can_be_opened_from_where_they_are_read(bind: str, engine: str, host: str, told: bool, warnings: list[str]) -> None:
    raw = stack(node("a", forwardTo=["b"], metricsPort=9100), node("b", 1), bind=bind, adminer={"port": 8080})
    outputs = run_program(raw, "x", Engine(host=engine)).outputs
    a = outputs["nodes"]["a"]
    assert outputs["adminerUrl"] == f"http://{host}:8080"
    assert (a["httpUrl"], a["metricsUrl"]) == (f"http://{host}:8000", f"http://{host}:9100/metrics")
    assert a["dicomHost"] == host.strip("[]")
    assert ["open on that machine alone" in text for text in warnings] == [True] * told


def test_a_preview_tells_of_a_link_whose_ends_accept_other_images(warnings: list[str]) -> None:
    run_program(stack(node("a", forwardTo=["b"], orthanc={"UnknownSopClassAccepted": True}), node("b", 1)), "x", preview=True)
    assert ["UnknownSopClassAccepted" in text for text in warnings] == [True]


# --- what is refused ---

#: A volume that PostgreSQL 16 wrote, where the stack file says 17.
HELD = {"orthanc-stack-x-db": Volume("postgresql-16", OWNER_ID)}


def test_what_does_not_fit_the_engine_is_refused() -> None:
    with pytest.raises(pulumi.RunError, match=r"indexDb\.majorVersion = '17'[\s\S]*PostgreSQL 16 wrote"):
        run_program(stack(node("a")), "x", Engine(volumes=HELD))


#: Instead of a port, one of each kind of malformed values that Pulumi can hand over (tests/unit/test_hostile_stack_files.py reads all).
MALFORMED = {kind: put(valid(), ("nodes", 1, "httpPort"), values[0]) for kind, values in VALUES.items()}


@pytest.mark.parametrize("kind", [kind for kind, raw in MALFORMED.items() if as_config(raw)])
def test_of_a_malformed_stack_file_nothing_is_registered(kind: str) -> None:
    run = Run()
    with pytest.raises(pulumi.RunError, match=r"Pulumi\.x\.yaml: \d+ problem.*Nothing was touched"):
        run_program(MALFORMED[kind], "x", run=run)
    assert (run.resources, run.outputs) == ({}, {})


def test_what_the_malformed_are_made_from_registers_its_resources() -> None:
    run = Run()
    assert run_program(valid(), "x", run=run) is run
    assert nodes_of(run) == ["archive", "ct"]


def test_a_refusal_waits_for_the_import_that_goes_on_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """An import that outlives the program shows a traceback: runpy shortens sys.path under it."""
    done: list[str] = []

    def slow(name: str) -> None:
        time.sleep(0.3)
        done.append(name)

    monkeypatch.setattr(importlib, "import_module", slow)
    with pytest.raises(pulumi.RunError, match="PostgreSQL 16 wrote"):
        run_program(stack(node("a")), "x", Engine(volumes=HELD))
    assert done == ["components.stack"]
