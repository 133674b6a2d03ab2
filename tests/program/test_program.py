"""The whole program under mocks: dev, prod, and a topology of five nodes."""

from __future__ import annotations

import json

import pulumi
import pytest

from configs.images import candidates
from configs.preflight import Engine, Volume
from tests.program.harness import OWNER_ID, ROOT, SECRET, Run, raw_stack_file, run_program
from tests.unit.stacks import node, stack

FIVE = stack(
    node("archive", 0),
    node("research", 1),
    node("ct-room", 2, forwardTo=["archive", "research"], index="sqlite"),
    node("mr-room", 3, forwardTo=["archive"]),
    node("teaching", 4, index="sqlite"),
)


@pytest.fixture(scope="module")
def dev() -> Run:
    return run_program(raw_stack_file("dev"), "dev")


@pytest.fixture(scope="module")
def prod() -> Run:
    return run_program(raw_stack_file("prod"), "prod")


@pytest.fixture(scope="module")
def five() -> Run:
    return run_program(FIVE, "five")


@pytest.fixture(params=["dev", "prod", "five"])
def run(request: pytest.FixtureRequest) -> Run:
    found: Run = request.getfixturevalue(request.param)
    return found


def tree(run: Run) -> list[str]:
    """Type and name of every resource below its parent's type: what a change of would replace every resource of its users."""
    return sorted(urn.partition("::")[2].partition("::")[2].removeprefix("pulumi:pulumi:Stack$") for urn in run.resources)


def test_urns_and_parents_of_dev_are_pinned(dev: Run) -> None:
    assert tree(dev) == [
        "orthanc-stack:index:Adminer$docker:index/container:Container::adminer-container",
        "orthanc-stack:index:Adminer::adminer",
        "orthanc-stack:index:Forwarder$docker:index/container:Container::client-forwarder-container",
        "orthanc-stack:index:Forwarder::client-forwarder",
        "orthanc-stack:index:OrthancIndexDb$docker:index/container:Container::db-container",
        "orthanc-stack:index:OrthancIndexDb$docker:index/container:Container::db-roles",
        "orthanc-stack:index:OrthancIndexDb$docker:index/volume:Volume::db-data",
        "orthanc-stack:index:OrthancIndexDb::db",
        "orthanc-stack:index:OrthancNode$docker:index/container:Container::client-container",
        "orthanc-stack:index:OrthancNode$docker:index/container:Container::server-container",
        "orthanc-stack:index:OrthancNode$docker:index/volume:Volume::client-data",
        "orthanc-stack:index:OrthancNode$docker:index/volume:Volume::server-data",
        "orthanc-stack:index:OrthancNode::client",
        "orthanc-stack:index:OrthancNode::server",
        "orthanc-stack:index:StackImages$docker:index/remoteImage:RemoteImage::images-adminer",
        "orthanc-stack:index:StackImages$docker:index/remoteImage:RemoteImage::images-orthanc",
        "orthanc-stack:index:StackImages$docker:index/remoteImage:RemoteImage::images-postgres",
        "orthanc-stack:index:StackImages::images",
        "orthanc-stack:index:StackNetwork$docker:index/network:Network::network-adminer",
        "orthanc-stack:index:StackNetwork$docker:index/network:Network::network-db",
        "orthanc-stack:index:StackNetwork$docker:index/network:Network::network-db.server",
        "orthanc-stack:index:StackNetwork$docker:index/network:Network::network-link.client.server",
        "orthanc-stack:index:StackNetwork$docker:index/network:Network::network-node.client",
        "orthanc-stack:index:StackNetwork$docker:index/network:Network::network-node.server",
        "orthanc-stack:index:StackNetwork::network",
        "pulumi:index:Stash::owner",
    ]


def test_prod_has_no_adminer_and_a_database_for_each_node(prod: Run) -> None:
    assert [r.name for r in prod.resources.values() if "adminer" in r.urn] == []
    assert prod.one("db").inputs["databases"] == {"client": "orthanc_client", "server": "orthanc_server"}
    assert prod.outputs["adminerUrl"] is None


def test_five_nodes(five: Run) -> None:
    assert [r.name for r in five.of_type("OrthancNode")] == ["archive", "ct-room", "mr-room", "research", "teaching"]
    assert five.one("db").inputs["databases"] == {
        "archive": "orthanc_archive",
        "mr-room": "orthanc_mr_room",
        "research": "orthanc_research",
    }
    known = {
        name: sorted(five.configuration(name)["DicomModalities"]) for name in ("archive", "research", "ct-room", "mr-room", "teaching")
    }
    assert known == {
        "archive": ["ct-room", "mr-room"],
        "research": ["ct-room"],
        "ct-room": ["archive", "research"],
        "mr-room": ["archive"],
        "teaching": [],
    }


def test_a_stack_without_postgresql_has_no_database() -> None:
    run = run_program(stack(node("a", index="sqlite")), "small")
    assert [r.name for r in run.of_type("Container")] == ["a-container"]
    assert run.outputs["indexDb"] is None
    assert "PostgreSQL" not in run.configuration("a")


# --- what pulumi-docker would otherwise get wrong ---


def test_every_container(run: Run) -> None:
    for container in run.of_type("Container"):
        inputs, request = container.inputs, container.request
        assert inputs["destroyGraceSeconds"] >= 10, "a replaced container is killed at once without it"
        assert request.deleteBeforeReplace
        assert "healthcheck" in request.replaceOnChanges
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
        assert {"cpuPeriod", "cpuQuota"} <= set(request.replaceOnChanges), "the provider shows them as an update and never makes it"
        assert inputs.get("networkMode") is None
        assert {label["label"] for label in inputs["labels"]} == {"orthanc-stack.owner", "orthanc-stack.role", "orthanc-stack.stack"}
        assert inputs["envs"] == sorted(inputs["envs"])
        if container.name == "db-roles":
            assert (inputs["attach"], inputs["mustRun"], inputs["restart"]) == (True, False, "no")
        else:
            assert inputs["wait"]
            assert inputs["waitTimeout"] >= 60
            assert inputs["healthcheck"]["tests"]
            assert inputs["restart"] == "unless-stopped"


def test_a_node_has_the_one_capability_that_its_image_needs(run: Run) -> None:
    for this in run.of_type("OrthancNode"):
        assert run.one(f"{this.name}-container").inputs["capabilities"] == {"adds": ["CAP_DAC_OVERRIDE"], "drops": ["ALL"]}


def test_stop_grace_of_what_holds_data(run: Run) -> None:
    assert run.one("db-container").inputs["destroyGraceSeconds"] >= 60
    for this in run.of_type("OrthancNode"):
        assert run.one(f"{this.name}-container").inputs["destroyGraceSeconds"] >= 30


def test_every_port_is_said_and_bound_to_loopback(run: Run) -> None:
    for container in run.of_type("Container"):
        for port in container.inputs.get("ports", []):
            assert set(port) == {"external", "internal", "ip", "protocol"}
            assert port["ip"] == "127.0.0.1"
        if container.name.startswith("db"):
            assert not container.inputs.get("ports"), "the database is on no port of the host"


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
    for this in run.of_type("OrthancNode"):
        edges = set(run.input_edges(f"{this.name}-container"))
        assert ("networksAdvanced", f"network-node.{this.name}") in edges
        assert ("volumes", f"{this.name}-data") in edges
        assert [edge for edge in edges if edge[1].startswith("db")] == []
        others = {r.name for r in run.of_type("OrthancNode")} - {this.name}
        assert [edge for edge in edges if edge[1].removesuffix("-container") in others] == [], "nodes start side by side"
        on_db = "PostgreSQL" in run.configuration(this.name)
        # A node starts after db-roles and stops before the database.
        assert {"db-container", "db-roles"} <= run.depends_on(f"{this.name}-container") or not on_db
        assert on_db or not {"db-container", "db-roles"} & run.depends_on(f"{this.name}-container")
        # Its component depends on nothing: with a protected volume in it, it would keep that from being destroyed.
        assert run.depends_on(this.name) == set()


def test_the_roles_are_made_after_the_database(run: Run) -> None:
    assert "db-container" in run.depends_on("db-roles")
    assert [edge for edge in run.input_edges("db-roles") if edge[1] == "db-container"] == []


def test_images_stay_on_the_engine(run: Run) -> None:
    assert {image.inputs["keepLocally"] for image in run.of_type("RemoteImage")} == {True}


# --- networks and limits ---


def networks_at(run: Run, container: str) -> list[str]:
    prefix = run.one("network-db").inputs["name"].removesuffix("-db")
    return [network["name"].removeprefix(f"{prefix}-") for network in run.one(container).inputs["networksAdvanced"]]


def test_a_container_is_read_only_where_no_file_is_copied_into_it(dev: Run) -> None:
    containers = {container.name: container.inputs for container in dev.of_type("Container")}
    read_only = {name: inputs["tmpfs"] for name, inputs in containers.items() if inputs["readOnly"]}
    assert read_only == {"adminer-container": {"/tmp": "size=192m"}}
    assert {name for name, inputs in containers.items() if not inputs["uploads"]} == set(read_only)


def test_a_container_that_is_not_roots_can_read_its_files(run: Run) -> None:
    """The engine copies files as root's, whatever owner is asked for."""
    for container in run.of_type("Container"):
        if container.inputs.get("user"):
            assert {upload["permissions"] for upload in container.inputs["uploads"]} == {"0444"}


def test_which_networks_lead_out(dev: Run) -> None:
    networks = {network.inputs["name"]: network.inputs for network in dev.of_type("Network")}
    out = {name: network.get("options") for name, network in networks.items() if not network["internal"]}
    assert out == {
        "orthanc-stack-dev-adminer": {"com.docker.network.bridge.enable_ip_masquerade": "false"},
        "orthanc-stack-dev-node.client": None,
        "orthanc-stack-dev-node.server": None,
    }
    assert {network["driver"] for network in networks.values()} == {"bridge"}


def test_who_is_on_which_network(five: Run) -> None:
    assert networks_at(five, "db-container") == ["db", "db.archive", "db.mr-room", "db.research"]
    assert networks_at(five, "db-roles") == ["db"]
    assert networks_at(five, "archive-container") == ["db.archive", "link.ct-room.archive", "link.mr-room.archive", "node.archive"]
    assert networks_at(five, "mr-room-container") == ["db.mr-room", "link.mr-room.archive", "node.mr-room"]
    assert networks_at(five, "ct-room-forwarder-container") == ["node.ct-room"]
    assert networks_at(five, "teaching-container") == ["node.teaching"]


def test_a_link_concerns_the_networks_of_its_ends_alone(five: Run) -> None:
    changed = json.loads(json.dumps(FIVE))
    changed["nodes"][3]["forwardTo"] = ["archive", "research"]
    after = run_program(changed, "five")
    names = [c.name for c in five.of_type("Container")]
    moved = [n for n in names if five.one(n).inputs["networksAdvanced"] != after.one(n).inputs["networksAdvanced"]]
    assert moved == ["mr-room-container", "research-container"]


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
    assert all("#initerror" in container.request.replaceOnChanges for container in run.of_type("Container"))


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


def test_the_public_configuration_is_an_input_of_the_component(run: Run) -> None:
    for this in run.of_type("OrthancNode"):
        assert this.inputs["configuration"] == run.configuration(this.name)
        assert this.secret_inputs == frozenset(), "a preview would show [secret]"


def test_an_ae_title_concerns_the_nodes_that_know_it_and_no_others(five: Run) -> None:
    changed = json.loads(json.dumps(FIVE))
    changed["nodes"][0]["aet"] = "NEW_ARCHIVE"
    after = run_program(changed, "five")
    names = [this.name for this in five.of_type("OrthancNode")]
    assert [n for n in names if five.configuration(n) != after.configuration(n)] == ["archive", "ct-room", "mr-room"]


def test_a_hosts_port_concerns_its_node_alone(five: Run) -> None:
    changed = json.loads(json.dumps(FIVE))
    changed["nodes"][0]["dicomPort"] = 11112
    after = run_program(changed, "five")
    assert [u for u in five.resources if five.resources[u].inputs != after.resources[u].inputs and "Container" in u] == [
        urn for urn in five.resources if urn.endswith("::archive-container")
    ]


# --- secrets ---


def test_secrets_are_in_files_alone_and_marked(run: Run) -> None:
    for resource in run.resources.values():
        for key, value in resource.inputs.items():
            assert SECRET not in json.dumps(value) or (key == "uploads" and key in resource.secret_inputs), f"{resource.name}.{key}"
        for upload in resource.inputs.get("uploads", []):
            assert SECRET not in upload["content"] or upload["file"].startswith("/run/secrets/")
    assert run.secret_outputs == ["users"]
    assert SECRET not in json.dumps({key: value for key, value in run.outputs.items() if key != "users"})


def test_the_superusers_password_is_no_nodes(run: Run) -> None:
    for this in run.of_type("OrthancNode"):
        assert f'{SECRET}-dbPassword"' not in json.dumps(run.one(f"{this.name}-container").inputs).replace("\\", "")


def test_two_runs_give_the_same(run: Run, request: pytest.FixtureRequest) -> None:
    raw = {"dev": raw_stack_file("dev"), "prod": raw_stack_file("prod"), "five": FIVE}
    name = request.node.callspec.params["run"]
    again = run_program(raw[name], name)
    assert {u: r.inputs for u, r in again.resources.items()} == {u: r.inputs for u, r in run.resources.items()}


# --- outputs, images, previews ---


def test_outputs_of_dev_are_the_contract(dev: Run) -> None:
    assert sorted(dev.outputs) == ["adminerUrl", "images", "indexDb", "nodes", "topology", "users"]
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
    assert {key: dev.outputs["indexDb"][key] for key in ("host", "port", "database")} == {
        "host": "db",
        "port": 5432,
        "database": "orthanc_server",
    }
    assert sorted(dev.outputs["users"]["server"]) == ["orthanc"]


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
    assert (
        run.one("images-orthanc").inputs["name"].startswith("orthanc-stack/orthanc:local-" if runs == "local" else "orthancteam/orthanc:")
    )


def test_a_preview_knows_the_whole_configuration() -> None:
    run = run_program(raw_stack_file("dev"), "dev", preview=True)
    assert run.configuration("client")["DicomModalities"]["server"]["Host"] == "server"


def test_a_refused_stack_file_registers_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    held = {"orthanc-stack-x-db": Volume("postgresql-16", OWNER_ID)}
    with pytest.raises(pulumi.RunError, match=r"indexDb\.majorVersion = '17'[\s\S]*PostgreSQL 16 wrote"):
        run_program(stack(node("a")), "x", Engine(volumes=held))


def test_the_program_is_a_table_of_contents() -> None:
    lines = (ROOT / "__main__.py").read_text().splitlines()
    assert len(lines) <= 60


def test_durations_are_written_as_docker_gives_them_back(dev: Run) -> None:
    """Otherwise each refresh finds another health check, and replaces every container."""
    for container in dev.of_type("Container"):
        for key in ("interval", "timeout", "startPeriod"):
            written = container.inputs.get("healthcheck", {}).get(key, "1s").replace("500ms", "1s")
            minutes, _, seconds = written.rpartition("m")
            assert int(seconds.removesuffix("s")) < 60, written
            assert written == (f"{minutes}m{seconds}" if minutes else seconds)


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
def test_addresses_can_be_opened_from_where_they_are_read(
    bind: str, engine: str, host: str, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr("pulumi.log.warn", warnings.append)
    raw = stack(node("a", forwardTo=["b"], metricsPort=9100), node("b", 1), bind=bind, adminer={"port": 8080})
    outputs = run_program(raw, "x", Engine(host=engine)).outputs
    a = outputs["nodes"]["a"]
    assert outputs["adminerUrl"] == f"http://{host}:8080"
    assert (a["httpUrl"], a["metricsUrl"]) == (f"http://{host}:8000", f"http://{host}:9100/metrics")
    assert a["dicomHost"] == host.strip("[]")
    assert [text for text in warnings if "open on that machine alone" in text] == warnings
    assert len(warnings) == told


def test_a_preview_tells_of_a_link_whose_ends_accept_other_images(monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr("pulumi.log.warn", warnings.append)
    run_program(stack(node("a", forwardTo=["b"], orthanc={"UnknownSopClassAccepted": True}), node("b", 1)), "x", preview=True)
    assert ["UnknownSopClassAccepted" in text for text in warnings] == [True]
