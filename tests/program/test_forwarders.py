"""The forwarders of a stack under mocks: which containers are made, what is in them, what replaces them and what does not."""

from __future__ import annotations

import ast
import base64
import bz2
import copy
import io
import json
import sys
import zipfile
from typing import Any

import pytest

from configs.names import record_number
from forwarder.config import Config, Lists, Rules, parse
from ops.stack import authority
from tests.program import mocked
from tests.program.harness import ROOT, SECRET, Run, run_program
from tests.unit.stacks import node, stack

PACS = {"name": "pacs", "aet": "PACS", "host": "10.0.0.7", "port": 104, "nodes": ["ct"]}
#: ct forwards to archive, by rules, and to an archive outside; archive to backup.
CHAIN = stack(
    node("archive", 0, forwardTo=["backup"]),
    node("backup", 1, index="sqlite"),
    node(
        "ct",
        2,
        index="sqlite",
        forwardTo=[
            {"to": "archive", "only": {"modality": ["CT"], "callingAet": ["CT1"]}, "not": {"origin": "created"}, "associations": 3},
            {"to": "pacs", "confirm": "query"},
        ],
        metricsPort=9100,
    ),
    node("mr", 3, index="sqlite"),
    modalities=[PACS],
)


@pytest.fixture(scope="module")
def chain() -> Run:
    return run_program(CHAIN, "chain")


@pytest.fixture(scope="module")
def kept_in_prod() -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(authority, "_KEY_BITS", 2048)  # to make longer keys takes seconds, and proves nothing here
        raw = {**CHAIN, "nodes": CHAIN["nodes"][:3], "modalities": [{**PACS, "tls": True}]}
        return run_program({**raw, "environment": "prod", "bind": "127.0.0.1"}, "prod")


def uploads(run: Run, name: str) -> dict[str, dict[str, Any]]:
    return {upload["file"]: upload for upload in run.one(name).inputs["uploads"]}


def configuration(run: Run, name: str) -> Config:
    """What the forwarder's own code makes of its files."""
    files = uploads(run, f"{name}-forwarder-container")
    return parse(json.loads(files["/etc/forwarder.json"]["content"]), json.loads(files["/run/secrets/forwarder.json"]["content"]))


def changed(number: int = 0, **more: Any) -> Run:
    """The chain with some settings of one node changed, of the archive unless another is named."""
    raw = copy.deepcopy(CHAIN)
    raw["nodes"][number] |= more
    return run_program(raw, "chain")


# --- what is made ---


def test_only_nodes_that_forward_have_a_forwarder_and_only_it_another_entrypoint(chain: Run) -> None:
    assert [one.name for one in chain.of_type("Forwarder")] == ["archive-forwarder", "ct-forwarder"]
    assert {one.type for one in chain.of_type("Forwarder")} == {"orthanc-stack:index:Forwarder"}
    others = [c for c in chain.of_type("Container") if c.inputs.get("entrypoints") is not None]
    assert [c.name for c in others] == ["archive-forwarder-container", "ct-forwarder-container"]


def test_the_container(chain: Run) -> None:
    inputs = chain.one("ct-forwarder-container").inputs
    assert inputs["name"] == "orthanc-stack-chain-ct-forwarder"
    assert inputs["networksAdvanced"] == [{"name": "orthanc-stack-chain-dicom", "aliases": ["ct-forwarder"]}]
    assert inputs["image"] == chain.one("ct-container").inputs["image"]
    assert inputs["entrypoints"][:3] == ["python3", "-SB", "-c"]
    assert inputs["envs"] == ["PYTHONPATH=/tmp/forwarder.zip", "PYTHONUNBUFFERED=1"]
    assert {"label": "orthanc-stack.role", "value": "forwarder"} in inputs["labels"]
    assert inputs["destroyGraceSeconds"] == 30
    assert "find /tmp/forwarder-alive" in inputs["healthcheck"]["tests"][1]
    assert inputs.get("command") is None
    assert not inputs.get("volumes"), "what it holds is in the node's database"
    assert not inputs["capabilities"].get("adds")
    assert inputs["user"] == "999:999"


def test_the_metrics_port_is_published_where_it_is_asked_for(chain: Run) -> None:
    ports = [{"internal": 9042, "external": 9100, "ip": "127.0.0.1", "protocol": "tcp"}]
    assert chain.one("ct-forwarder-container").inputs["ports"] == ports
    assert not chain.one("archive-forwarder-container").inputs["ports"]
    nodes = chain.outputs["nodes"]
    assert nodes["ct"]["metricsUrl"] == "http://127.0.0.1:9100/metrics"
    assert "metricsUrl" not in nodes["archive"] | nodes["backup"]


def test_the_whole_program_is_in_the_container(chain: Run) -> None:
    files = uploads(chain, "ct-forwarder-container")
    assert list(files) == ["/etc/forwarder.json", "/run/secrets/forwarder.json", "/usr/local/lib/orthanc-stack/forwarder.zip.bz2"]
    program = files["/usr/local/lib/orthanc-stack/forwarder.zip.bz2"]
    with zipfile.ZipFile(io.BytesIO(bz2.decompress(base64.b64decode(program["contentBase64"])))) as archive:
        packed = {entry.filename: archive.read(entry).decode() for entry in archive.infolist()}
        assert {(entry.date_time, entry.create_system, entry.compress_type) for entry in archive.infolist()} == {
            ((1980, 1, 1, 0, 0, 0), 3, 0)
        }
    assert packed == {f"forwarder/{file.name}": file.read_text() for file in (ROOT / "forwarder").glob("*.py")}
    assert list(packed) == sorted(packed)
    assert {"forwarder/__init__.py", "forwarder/__main__.py", "forwarder/config.py"} <= set(packed)
    assert program["permissions"] == "0444"


def test_the_program_needs_nothing_but_python_and_itself() -> None:
    """The image has Python, and none of this project's requirements."""
    imported = set()
    for file in (ROOT / "forwarder").glob("*.py"):
        for statement in ast.walk(ast.parse(file.read_text())):
            if isinstance(statement, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in statement.names}
            elif isinstance(statement, ast.ImportFrom):
                imported.add((statement.module or "").partition(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"forwarder"}


# --- what it is told ---


def test_the_forwarder_reads_what_the_stack_file_says(chain: Run) -> None:
    ct = configuration(chain, "ct")
    assert (ct.node, ct.host, ct.port, ct.user, ct.port_status, ct.delete_after) == ("ct", "ct", 8042, "forwarder", 9042, None)
    archive, pacs = ct.links
    assert (archive.to, archive.record, archive.associations, archive.confirm) == ("archive", record_number("archive"), 3, "commitment")
    assert archive.rules == Rules(modality=("CT",), calling_aet=("CT1",), but_not=Lists(origin="created"))
    assert (archive.aet, archive.outside, ct.scu_timeout) == ("ARCHIVE", False, 120)
    assert (pacs.to, pacs.record, pacs.associations, pacs.confirm) == ("pacs", record_number("pacs"), 2, "query")
    assert (pacs.rules, pacs.revision, pacs.aet, pacs.outside) == (Rules(), "", "PACS", True)


def test_the_destinations_are_modalities_of_the_node(chain: Run) -> None:
    for name in ("archive", "ct"):
        known = chain.configuration(name)["DicomModalities"]
        assert {link.to for link in configuration(chain, name).links} <= set(known)


def test_a_node_that_forwards_outside_alone() -> None:
    run = run_program(stack(node("ct", forwardTo=["pacs"], index="sqlite"), modalities=[PACS]), "small")
    assert [(link.to, link.revision, link.confirm) for link in configuration(run, "ct").links] == [("pacs", "", "auto")]
    assert [c.name for c in run.of_type("Container")] == ["ct-container", "ct-forwarder-container"]


def test_how_long_a_node_keeps_its_images() -> None:
    run = changed(keep="until-confirmed after 7d")
    assert configuration(run, "archive").delete_after == 7 * 24 * 3600
    assert configuration(run, "ct").delete_after is None


def test_the_forwarder_can_log_in(chain: Run) -> None:
    for name in ("archive", "ct"):
        users = json.loads(uploads(chain, f"{name}-container")["/run/secrets/orthanc.json"]["content"])["RegisteredUsers"]
        assert users["forwarder"] == configuration(chain, name).password
        assert set(users) == {"forwarder", "orthanc"}
        assert set(chain.outputs["users"][name]) == {"orthanc"}, "the forwarder's password is nobody's to use"
    backup = json.loads(uploads(chain, "backup-container")["/run/secrets/orthanc.json"]["content"])["RegisteredUsers"]
    assert set(backup) == {"orthanc"}


def test_its_password_is_in_one_file_that_it_can_read(chain: Run) -> None:
    for one in chain.of_type("Forwarder"):
        assert SECRET not in json.dumps(dict(one.inputs))
        made = chain.one(f"{one.name}-container")
        assert made.secret_inputs == {"uploads"}
        assert SECRET not in json.dumps({key: value for key, value in made.inputs.items() if key != "uploads"})
        assert [u["file"] for u in made.inputs["uploads"] if SECRET in u.get("content", "")] == ["/run/secrets/forwarder.json"]
        assert uploads(chain, made.name)["/run/secrets/forwarder.json"]["permissions"] == "0444", "it is not root"


def test_a_preview_shows_the_configuration(chain: Run) -> None:
    for name in ("archive", "ct"):
        component = chain.one(f"{name}-forwarder")
        # Pulumi leaves out what is null.
        said = {key: value for key, value in chain.forwarder(name).items() if value is not None}
        assert component.inputs["configuration"] == said
        assert component.secret_inputs == frozenset(), "a preview would show [secret]"
        assert len(component.inputs["program"]) == 12


# --- what runs inside each node ---


def test_each_node_runs_the_stacks_script(chain: Run) -> None:
    script = (ROOT / "components" / "payload" / "storage.py").read_text()
    for name in ("archive", "backup", "ct"):
        assert chain.configuration(name)["PythonScript"] == "/etc/orthanc/storage.py"
        assert chain.configuration(name)["Python"] == {"AllowThreads": True}
        assert uploads(chain, f"{name}-container")["/etc/orthanc/storage.py"]["content"] == script


# --- what replaces a forwarder, and what does not ---


def test_a_forwarder_is_made_after_its_node_and_its_destinations_and_not_replaced_with_them(chain: Run) -> None:
    made = "ct-forwarder-container"
    assert {"ct-container", "archive-container"} <= chain.depends_on(made)
    assert "backup-container" not in chain.depends_on(made)
    assert {source for _, source in chain.input_edges(made)} == {"images-orthanc", "dicom"}


def test_nothing_with_data_depends_on_a_forwarder(kept_in_prod: Run) -> None:
    """`destroy --exclude-protected` keeps what protected volumes and their components come from."""
    forwarders = {one.name for one in kept_in_prod.of_type("Forwarder")}
    forwarders |= {f"{name}-container" for name in forwarders}
    others = [r for r in kept_in_prod.resources.values() if r.name not in forwarders]
    assert [r.name for r in others if kept_in_prod.depends_on(r.name) & forwarders] == []
    for name in forwarders:
        assert not kept_in_prod.one(name).request.protect
    for one in kept_in_prod.of_type("Forwarder"):
        assert kept_in_prod.depends_on(one.name) == set()


def _replaced(before: Run, after: Run) -> list[str]:
    """The containers that would be replaced between two runs."""
    return [c.name for c in before.of_type("Container") if c.inputs != after.one(c.name).inputs]


def test_a_changed_option_concerns_the_node_and_who_sends_to_it(chain: Run) -> None:
    after = changed(orthanc={"StableAge": 33})
    assert _replaced(chain, after) == ["archive-container", "ct-forwarder-container"]
    before_link, after_link = (configuration(run, "ct").links[0] for run in (chain, after))
    assert before_link.revision != after_link.revision
    assert len(after_link.revision) == 12


def test_a_changed_rule_concerns_the_forwarder_alone(chain: Run) -> None:
    archive, pacs = CHAIN["nodes"][2]["forwardTo"]
    assert _replaced(chain, changed(2, forwardTo=[{**archive, "only": {"modality": ["MR"]}}, pacs])) == ["ct-forwarder-container"]


@pytest.mark.parametrize(
    ("number", "change"),
    [(0, {"httpPort": 18042, "users": ["someone"]}), (3, {"forwardTo": ["archive"]})],
    ids=["a port of the host, a password", "one more sender"],
)
def test_what_is_no_new_revision(chain: Run, number: int, change: dict[str, Any]) -> None:
    after = changed(number, **change)
    assert "archive-container" in _replaced(chain, after)
    assert [link.revision for link in configuration(chain, "ct").links] == [link.revision for link in configuration(after, "ct").links]


def test_another_image_is_a_new_revision(chain: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = mocked._Mocks.new_resource

    def newer(self: Any, args: Any) -> Any:
        identifier, outputs = resource(self, args)
        return identifier, {**outputs, **({"imageId": "sha256:newer"} if args.typ.endswith(":RemoteImage") else {})}

    monkeypatch.setattr(mocked._Mocks, "new_resource", newer)
    after = run_program(CHAIN, "chain")
    assert configuration(chain, "ct").links[0].revision != configuration(after, "ct").links[0].revision


def test_a_preview_knows_the_revisions() -> None:
    links = run_program(CHAIN, "chain", preview=True).forwarder("ct")["links"]
    assert [bool(link["revision"]) for link in links] == [True, False]
