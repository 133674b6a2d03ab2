"""What the report says of recorded previews of real stacks."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from ops.preview.change import Fate
from ops.preview.events import read
from ops.preview.page import markdown
from ops.preview.report import Level, Report, build, plain
from ops.preview.settings import changes
from ops.setup.console import ROOT
from tests.unit.reports import Event, changed, earlier, events_of, replaced, report_of, step_of, steps_of, text_of
from tests.unit.stacks import node, settings_of, stack

#: How much there is to worry about in each, and the containers that are stopped.
PREVIEWS = {
    "nothing": (Level.NOTHING, set()),
    "node-added": (Level.DOWNTIME, {"client", "client-forwarder", "db-roles"}),
    "node-removed": (Level.DATA, {"client", "client-forwarder", "server"}),
    "node-renamed": (Level.DATA, {"client", "client-forwarder", "server"}),
    "aet-changed": (Level.DOWNTIME, {"client", "client-forwarder", "server"}),
    "port-changed": (Level.DOWNTIME, {"client"}),
    "image-changed": (Level.DOWNTIME, {"client", "client-forwarder", "server"}),
    "option-changed": (Level.DOWNTIME, {"client"}),
    "secret-rotated": (Level.DOWNTIME, {"server"}),
    "prod-image-changed": (Level.DOWNTIME, {"client", "client-forwarder", "server"}),
    "policy-broken": (Level.FAILED, {"adminer"}),
    "postgresql-major": (Level.FAILED, set()),
    "prod-node-removed": (Level.FAILED, {"client", "client-forwarder", "db-roles", "server"}),
}
EXAMPLES = ROOT / "docs" / "examples"


def settings(report: Report) -> dict[tuple[str, str], tuple[str | None, str | None]]:
    """The settings that change, by part and path."""
    return {(str(each.part), each.path): (each.old, each.new) for each in report.settings}


def why(report: Report) -> dict[str, list[str]]:
    """The reasons why each container is replaced."""
    replaced = [each for each in report.resources if each.type == "Container" and each.op == "replace"]
    return {name: list(map(str, each.why)) for each in replaced for name in each.names}


@pytest.mark.parametrize("name", PREVIEWS)
def test_a_preview_is_told_the_same_each_time(name: str) -> None:
    report = report_of(name)
    assert (report.level, report.restarted) == PREVIEWS[name]
    # A preview with eight steps at a time may tell them in any order.
    events = events_of(name)
    backwards = [event for event in events if "resourcePreEvent" not in event] + [e for e in reversed(events) if "resourcePreEvent" in e]
    told, again = (json.dumps(plain(each), sort_keys=True) for each in (report, build(read(text_of(backwards)))))
    assert told == again


@pytest.mark.parametrize("name", ["aet-changed", "node-added", "node-removed", "prod-node-removed"])
def test_an_example_in_the_docs_is_what_the_report_says_today(name: str) -> None:
    """To the letter. UPDATE_EXAMPLES=1 writes them anew."""
    written, cut = markdown(report_of(name))
    assert not cut
    file = EXAMPLES / f"{name}.md"
    if os.environ.get("UPDATE_EXAMPLES") == "1":
        file.parent.mkdir(exist_ok=True)
        file.write_text(written, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == written, "the report has changed: look at it, then UPDATE_EXAMPLES=1"
    assert len(list(EXAMPLES.glob("*.md"))) == 4


def test_nothing() -> None:
    report = report_of("nothing")
    assert str(report.verdict) == "Nothing changes."
    assert (report.settings, report.downtime, report.data, report.resources, report.secret_files, report.notes) == ((), (), (), (), (), ())


def test_an_option_is_told_by_its_path_with_both_values() -> None:
    report = report_of("option-changed")
    assert settings(report) == {("node client", "orthanc.StableAge"): (None, "20")}
    # What an option was without the stack file is in the step.
    assert any("configuration.StableAge: 10 → 20" in str(each.why[0]) for each in report.resources if each.type == "OrthancNode")
    (down,) = report.downtime
    assert (down.node, down.aet, down.dicom, down.web) == ("client", "ORTHANC_CLIENT", "127.0.0.1:4243", "127.0.0.1:8043")
    assert not down.for_good
    assert list(map(str, down.why)) == ["its settings change: StableAge"]


def test_a_port_is_told_with_where_it_is_now_and_then() -> None:
    report = report_of("port-changed")
    ((where, (old, new)),) = settings(report).items()
    assert (where, old) == (("node client", "dicomPort"), "4243")
    assert f"DICOM is then at 127.0.0.1:{new}" in str(report.downtime[0].words)
    assert why(report) == {"client": ["it is published elsewhere"]}


def test_an_ae_title_goes_through_the_chain_of_those_that_know_it() -> None:
    report = report_of("aet-changed")
    assert settings(report) == {("node server", "aet"): ('"ORTHANC_SERVER"', '"ARCHIVE"')}
    assert why(report) == {
        "server": ["its settings change: DicomAet"],
        "client": ["what it knows of server changes: AET"],
        "client-forwarder": ["what it knows of server changes: aet, revision"],
    }


def test_a_node_that_comes() -> None:
    report = report_of("node-added")
    assert str(report.verdict) == "1 node goes down for some seconds: client. No data is at risk. New: research."
    assert ("research", Fate.ADDED) in report.containers
    told = settings(report)
    assert told["node client", "forwardTo.research"] == (None, '{"confirm": "commitment", "to": "research"}')
    before, after = told["node research", "nodes.research"]
    assert (before, json.loads(after or "")["aet"]) == (None, "RESEARCH")
    assert why(report)["client"][0] == "it gets to know research"
    added = [(link.begin, link.end) for link in report.links if link.fate is Fate.ADDED and link.label == "C-STORE"]
    assert added == [("client", "research")]
    assert report.new_secrets == ("dbPassword.research", "userPassword.research.orthanc")


def test_a_new_container_of_the_database_stops_no_node_and_the_one_whose_index_it_holds_waits() -> None:
    report = report_of("nothing", lambda events: replaced(events, "db-container", "command"))
    assert report.downtime == ()
    assert "server can neither store nor answer (503)" in " ".join(map(str, report.waits))


def test_a_node_that_goes_takes_its_images_along_in_dev() -> None:
    report = report_of("node-removed")
    (risk,) = report.data
    assert (risk.volume, risk.fate, risk.lost) == ("orthanc-stack-dev-client", Fate.REMOVED, True)
    assert str(risk.holds) == "the images of client and their index"
    assert str(report.verdict).startswith("Deleted for good: the images of client and their index. 1 node goes down for good: client.")
    assert report.unused_secrets == ("forwarderPassword.client", "userPassword.client.orthanc")
    # To the stack, a node with another name is another node.
    report = report_of("node-renamed")
    (caution,) = map(str, report.cautions)
    assert caution.startswith("It looks as if client were renamed to gateway.")
    assert caution.endswith("the images of client do not move along.")
    assert [risk.volume for risk in report.data if risk.lost] == ["orthanc-stack-dev-client"]


def test_a_node_that_stays_is_no_renamed_one() -> None:
    """It takes over the AE title of one that goes."""

    def edit(events: list[Event]) -> None:
        step_of(events, "server", "OrthancNode")["new"]["inputs"]["configuration"]["DicomAet"] = "ORTHANC_CLIENT"

    assert report_of("node-removed", edit).cautions == ()


def test_in_prod_the_same_is_refused_and_the_report_says_of_what() -> None:
    report = report_of("prod-node-removed")
    assert str(report.verdict) == "This cannot be deployed: it would delete orthanc-stack-prod-client, which is protected."
    (risk,) = report.data
    assert (risk.protected, risk.retained, risk.lost) == (True, True, False)
    assert [(down.node, down.aet) for down in report.downtime if down.for_good] == [("client", "ORTHANC_CLIENT")]


def test_an_image() -> None:
    report = report_of("image-changed")
    ((where, (old, new)),) = settings(report).items()
    assert where == ("stack", "images.orthanc")
    assert (old or "").endswith(':26.8.1"')
    assert (new or "").endswith(':26.8.2"')
    assert why(report)["server"] == why(report)["client"] == ["its image changes"]
    assert "its configuration is only known at the update" in why(report)["client-forwarder"]
    assert any("back up first" in str(words) for words in report.cautions)
    assert any("another image" in str(words) for words in report.unknown)


def test_a_start_that_failed_is_the_reason_and_not_what_the_provider_had_not_read() -> None:
    report = report_of("nothing", lambda events: replaced(events, "server-container", "#initerror", "command", "entrypoints"))
    assert why(report) == {"server": ["its last start failed"]}


def test_a_broken_rule() -> None:
    report = report_of("policy-broken")
    assert str(report.verdict) == "This cannot be deployed: it breaks the policy version-floor."
    assert [(violation.rule, violation.resource) for violation in report.broken] == [("version-floor", "images-adminer")]
    assert "Every rule" not in markdown(report)[0]


def test_a_refused_stack_file_names_what_is_refused_and_nothing_that_would_be_done() -> None:
    report = report_of("postgresql-major")
    assert "indexDb.majorVersion = '16'" in report.errors[0]
    assert settings(report)["database", "indexDb.majorVersion"] == ("17", "16")
    assert (report.resources, report.downtime, report.containers) == ((), (), ())


class TestWhatAnEarlierRunLeft:
    def test_an_interrupted_run_is_told_in_one_line(self) -> None:
        report = build(read(text_of(events_of("aet-changed"))), ["client-forwarder", "server-container"])
        (note,) = map(str, report.notes)
        assert note.startswith("An earlier run was interrupted while it was changing client-forwarder, server-container:")
        assert f"- {note.split(' client')[0]} `client-forwarder`" in markdown(report)[0]
        assert report.level is Level.DOWNTIME

    def test_a_deployment_that_kept_no_settings(self) -> None:
        def forget(events: list[Event]) -> None:
            next(step for step in steps_of(events) if step["type"] == "pulumi:pulumi:Stack")["old"]["outputs"].pop("settings")

        report = report_of("aet-changed", forget)
        assert [str(note).partition(":")[0] for note in report.notes] == ["No earlier settings"]
        # All else is Pulumi's to tell.
        assert (report.settings, report.new_secrets, report.unused_secrets) == ((), (), ())
        assert [(down.node, down.aet, down.dicom) for down in report.downtime] == [
            ("client", "ORTHANC_CLIENT", "127.0.0.1:4243"),
            ("server", "ORTHANC_SERVER", "127.0.0.1:4242"),
        ]

    def test_a_stack_that_is_not_deployed_yet_has_everything_new(self) -> None:
        report = report_of("first")
        assert report.notes == ()
        assert {str(each.part) for each in report.settings} >= {"node client", "node server", "Adminer", "stack"}
        assert all(each.old is None for each in report.settings)
        assert "dbPassword" in report.new_secrets
        assert {place.fate for place in report.places if place.kind != "device"} == {Fate.ADDED}


class TestSettings:
    """What of two settings is a change."""

    OLD = stack(
        node("a", forwardTo=["b"]), node("b", 1), modalities=[{"name": "ct", "aet": "CT", "host": "ct", "port": 104, "nodes": ["a"]}]
    )

    def told(self, old: Any, new: Any) -> dict[str, tuple[str | None, str | None]]:
        return {each.path: (each.old, each.new) for each in changes(old, new)}

    def plain(self, raw: Any = OLD, **more: Any) -> Any:
        return settings_of({**raw, **more}).model_dump(mode="json", by_alias=True)

    def test_things_in_lists_are_known_by_their_names(self) -> None:
        backwards = self.plain(nodes=self.OLD["nodes"][::-1])
        assert self.told(self.plain(), backwards) == {}
        link = {"to": "b", "only": {"modality": ["CT"]}, "associations": 3}
        new = self.plain(nodes=[node("a", forwardTo=[link, "c"]), node("b", 1), node("c", 2)])
        assert self.told(self.plain(), new) == {
            "forwardTo.b.associations": ("2", "3"),
            "forwardTo.b.only.modality": ("[]", '["CT"]'),
            "forwardTo.c": (None, '{"confirm": "commitment", "to": "c"}'),
            "nodes.c": (
                None,
                '{"aet": "C", "dicomPort": 4002, "httpPort": 8002, "name": "c", "users": [{"name": "orthanc", "role": "admin"}]}',
            ),
        }
        assert self.told(self.plain(), self.plain(modalities=[])) == {
            "modalities.ct": ('{"aet": "CT", "host": "ct", "name": "ct", "nodes": ["a"], "port": 104}', None)
        }

    @pytest.mark.parametrize("keys", [("releaseData",), ("indexDb",), ("nodes", 0, "memory"), ("nodes", 0, "forwardTo", 0, "only")])
    def test_what_another_version_left_out_is_no_change_where_it_is_the_default(self, keys: tuple[str | int, ...]) -> None:
        without = part = self.plain()
        for key in keys[:-1]:
            part = part[key]
        del part[keys[-1]]
        assert self.told(without, self.plain()) == self.told(self.plain(), without) == {}

    def test_an_empty_option_of_orthancs_is_another_than_none(self) -> None:
        nodes = [node("a", forwardTo=["b"], orthanc={"Warnings": {}, "AcceptedTransferSyntaxes": []}), node("b", 1)]
        assert self.told(self.plain(), self.plain(nodes=nodes)) == {
            "orthanc.AcceptedTransferSyntaxes": (None, "[]"),
            "orthanc.Warnings": (None, "{}"),
        }
        assert self.told(self.plain() | {"ofThePast": []}, self.plain()) == {}

    def test_a_part_that_has_nothing_but_defaults_is_still_a_part(self) -> None:
        assert self.told(self.plain(), self.plain(adminer={})) == {"adminer": (None, '{"port": 8080}')}
        assert self.told(self.plain(adminer={}), self.plain()) == {"adminer": ('{"port": 8080}', None)}

    def test_a_setting_of_another_version_that_said_something(self) -> None:
        assert self.told(self.plain() | {"ofThePast": 1}, self.plain()) == {"ofThePast": ("1", None)}

    def test_first_nodes_then_the_database_and_what_is_of_all(self) -> None:
        new = self.plain(
            nodes=[node("a", forwardTo=["b"], memory=999), node("b", 1, memory=999)],
            images={"source": "local"},
            indexDb={"memory": 999},
            adminer={"port": 1},
        )
        told = [(str(each.part), each.path) for each in changes(self.plain(), new)]
        assert told == [
            *(("node a", "memory"), ("node b", "memory"), ("database", "indexDb.memory")),
            *(("Adminer", "adminer"), ("stack", "images.source")),
        ]


class TestSecrets:
    """A secret file is named by its container; which secret of it changed is not guessed."""

    def test_a_users_password(self) -> None:
        report = report_of("secret-rotated")
        assert report.secret_files == ("server",)
        assert why(report) == {"server": ["a file with secrets changes"]}
        assert "A secret file of `server` changes" in markdown(report)[0]

    def test_a_settings_change_hides_a_secret_and_the_report_says_so(self) -> None:
        report = report_of("option-changed")
        assert report.secret_files == ()
        assert any("Whether a secret changes along with a setting" in str(words) for words in report.unknown)

    def test_one_that_several_hold(self) -> None:
        def edit(events: list[Event]) -> None:
            for container in ("client-container", "client-forwarder-container", "db-roles"):
                replaced(events, container, "uploads")

        report = report_of("nothing", edit)
        assert set(report.secret_files) == set(report.restarted) == {"client", "client-forwarder", "db-roles"}


class TestWhatTheStackFileDoesNotSay:
    """It is told as Pulumi says it, and never dropped."""

    def test_a_property_of_a_container(self) -> None:
        report = report_of("nothing", lambda events: changed(events, "server-container", diffs=["shmSize"]).update(shmSize=128))
        (resource,) = report.resources
        assert (resource.op, resource.type, resource.names) == ("update", "Container", ("server",))
        assert list(map(str, resource.why)) == ["shmSize: - → 128"]
        assert (report.level, report.restarted) == (Level.QUIET, set())

    def test_one_that_only_the_provider_compares(self) -> None:
        report = report_of("nothing", lambda events: changed(events, "server-container", detailedDiff={"mustRun": {"diffKind": "update"}}))
        assert list(map(str, report.resources[0].why)) == ["mustRun"]

    def test_an_input_of_a_component(self) -> None:
        report = report_of("nothing", lambda events: changed(events, "server", "OrthancNode").update(colour={"subject": "CN=server"}))
        assert [(each.type, str(each.why[0])) for each in report.resources] == [("OrthancNode", 'colour: - → {"subject": "CN=server"}')]

    def test_a_volume_that_is_no_longer_protected(self) -> None:
        def edit(events: list[Event]) -> None:
            changed(events, "client-data")
            step_of(events, "client-data")["new"]["protect"] = True

        assert [str(each.why[0]) for each in report_of("nothing", edit).resources] == ["protect: False → True"]

    @pytest.mark.parametrize("op", ["create", "update", "replace", "delete", "import", "read", "discard-of-the-future"])
    @pytest.mark.parametrize("type_", ["docker:index/volume:Volume", "docker:index/container:Container", "aws:s3/bucket:Bucket"])
    def test_a_resource_of_ones_own(self, op: str, type_: str) -> None:
        state = {"type": type_, "inputs": {"name": "before"}, "outputs": {}}
        step: dict[str, Any] = {"op": op, "urn": f"urn:pulumi:dev::orthanc-stack::{type_}::somebodys-own", "type": type_, "logical": True}
        step |= {} if op == "create" else {"old": state}
        step |= {} if op == "delete" else {"new": {**state, "inputs": {"name": "after"}}}

        report = report_of("nothing", lambda events: events.append({"resourcePreEvent": {"metadata": step}}))
        assert report.level is not Level.NOTHING
        (resource,) = report.resources
        assert (resource.op, type_.endswith(resource.type)) == (op, True)
        name = {"create": "after", "delete": "before"}.get(op, "after") if resource.type == "Container" else "somebodys-own"
        assert resource.names == (name,)
        at_risk = type_.endswith(":Volume") and op in ("replace", "delete", "discard-of-the-future")
        assert [risk.volume for risk in report.data] == (["before"] if at_risk else [])

    def test_a_volume_that_an_unknown_step_may_take(self) -> None:
        report = report_of("nothing", lambda events: step_of(events, "server-data").update(op="discard-of-the-future"))
        assert [risk.volume for risk in report.data] == ["orthanc-stack-dev-server"]

    def test_a_secret_in_it_is_not_shown(self) -> None:
        masked = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "hunter2"}
        report = report_of("nothing", lambda events: changed(events, "server-container", diffs=["sysctls"]).update(sysctls=masked))
        assert list(map(str, report.resources[0].why)) == ["sysctls: - → [secret]"]
        assert "hunter2" not in json.dumps(plain(report))


def test_a_links_rules() -> None:
    def edit(events: list[Event]) -> None:
        changed(events, "client-forwarder")["configuration"]["links"][0]["only"]["modality"] = ["CT"]
        replaced(events, "client-forwarder-container", "uploads")
        link = next(node for node in earlier(events)["nodes"] if node["name"] == "client")["forwardTo"][0]
        link["only"]["modality"] = ["MR"]

    report = report_of("nothing", edit)
    assert settings(report) == {("node client", "forwardTo.server.only.modality"): ('["MR"]', "[]")}
    assert [(link.begin, link.end) for link in report.links if link.fate is Fate.CHANGED] == [("client", "server")]
    assert why(report) == {"client-forwarder": ["what it knows of server changes: only.modality"]}
    assert (report.level, report.restarted) == (Level.QUIET, {"client-forwarder"})
    assert "Forwarding from client pauses" in str(report.waits[0])


@pytest.mark.parametrize(
    ("protect", "retain", "lost", "said"),
    [
        (False, False, True, "nothing protects it"),
        (False, True, False, "stays on the engine"),
        (True, False, False, "the update would stop there"),
    ],
)
def test_what_stands_between_an_update_and_a_volume(protect: bool, retain: bool, lost: bool, said: str) -> None:
    def edit(events: list[Event]) -> None:
        step_of(events, "db-data")["op"] = "delete"
        step_of(events, "db-data")["old"] |= {"protect": protect, "retainOnDelete": retain}

    (risk,) = report_of("nothing", edit).data
    assert (risk.volume, risk.lost, str(risk.holds)) == ("orthanc-stack-dev-db", lost, "the indexes of server")
    assert said in str(risk.words)


def test_a_volume_that_is_replaced_takes_its_node_along() -> None:
    def edit(events: list[Event]) -> None:
        replaced(events, "server-data", "name")["name"] = "elsewhere"
        replaced(events, "server-container", "volumes")["volumes"][0]["volumeName"] = "elsewhere"

    report = report_of("nothing", edit)
    (risk,) = report.data
    assert (risk.fate, risk.lost, str(risk.holds)) == (Fate.REPLACED, True, "the images of server")
    assert why(report) == {"server": ["its volume is another one"]}


@pytest.mark.parametrize("text", ["", "Previewing update (dev):", "[]", '{"steps": [', "null", '{"resourcePreEvent": {', "1"])
def test_what_is_no_event_log(text: str) -> None:
    with pytest.raises(ValueError, match="no event log"):
        read(text)


def test_a_log_that_ends_early_is_no_success() -> None:
    events = [event for event in events_of("option-changed") if "summaryEvent" not in event]
    assert build(read(text_of(events))).level is Level.FAILED
