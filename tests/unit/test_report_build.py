"""What the report says of recorded previews of real stacks."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from ops.preview import build, read
from ops.preview.command import refused
from ops.preview.markdown import markdown
from ops.preview.model import Fate, Level, Part, Report, as_json, say
from ops.setup.console import ROOT
from tests.unit.reports import Event, changed, events_of, recorded, replaced, report_of, step_of, text_of

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


def part(report: Report, name: str) -> Part:
    return next(part for part in report.parts if part.name == name)


def settings(report: Report, name: str) -> dict[str, tuple[str | None, str | None]]:
    return {change.path: (change.old, change.new) for change in part(report, name).changes}


@pytest.mark.parametrize("name", PREVIEWS)
def test_a_preview_is_told_in_words_and_the_same_each_time(name: str) -> None:
    report = report_of(name)
    assert (report.level, report.restarted) == PREVIEWS[name]
    # There are words for all that a stack file can change.
    assert report.raw == ()
    assert [change for part in report.parts for change in part.changes if change.raw] == []
    # A preview with eight steps at a time may tell them in any order.
    events = events_of(name)
    backwards = [event for event in events if "resourcePreEvent" not in event] + [e for e in reversed(events) if "resourcePreEvent" in e]
    told, again = (json.dumps(as_json(each), sort_keys=True) for each in (report, build(read(text_of(backwards)))))
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
    assert (report.parts, report.downtime, report.data, report.reasons, report.secrets) == ((), (), (), (), ())


def test_an_option_is_told_by_its_path_with_both_values() -> None:
    report = report_of("option-changed")
    assert settings(report, "client") == {"orthanc.StableAge": ("10", "20")}
    (down,) = report.downtime
    assert (down.node, down.aet, down.dicom, down.web) == ("client", "ORTHANC_CLIENT", "127.0.0.1:4243", "127.0.0.1:8043")
    assert not down.for_good
    assert list(map(str, down.why)) == ["its options change: StableAge"]


def test_a_port_is_told_with_where_it_is_now_and_then() -> None:
    report = report_of("port-changed")
    ((path, (old, new)),) = settings(report, "client").items()
    assert (path, old) == ("dicomPort", "4243")
    assert f"DICOM is then at 127.0.0.1:{new}" in str(report.downtime[0].words)


def test_an_ae_title_goes_through_the_chain_of_those_that_know_it() -> None:
    report = report_of("aet-changed")
    assert settings(report, "server") == {"aet": ('"ORTHANC_SERVER"', '"ARCHIVE"')}
    assert settings(report, "client") == {"DicomModalities.server.AET": ('"ORTHANC_SERVER"', '"ARCHIVE"')}
    because = {reason.container: (list(map(str, reason.because)), reason.parts) for reason in report.reasons}
    assert because["server"] == (["its AE title changes"], ())
    assert because["client"] == (["it knows server, whose AE title changes"], ("server",))
    assert because["client-forwarder"][1] == ("server",)


def test_a_node_that_comes() -> None:
    report = report_of("node-added")
    assert str(report.verdict) == "1 node goes down for some seconds: client. No data is at risk. New: research."
    assert part(report, "research").fate is Fate.ADDED
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
    # To the stack, a node with another name is another node.
    report = report_of("node-renamed")
    assert any("renamed to gateway" in str(words) for words in report.cautions)
    assert [risk.volume for risk in report.data if risk.lost] == ["orthanc-stack-dev-client"]


def test_in_prod_the_same_is_refused_and_the_report_says_of_what() -> None:
    report = report_of("prod-node-removed")
    assert str(report.verdict) == "This cannot be deployed: it would delete orthanc-stack-prod-client, which is protected."
    (risk,) = report.data
    assert (risk.protected, risk.retained, risk.lost) == (True, True, False)
    # The preview ended before it told of the node itself: its outputs stand in for it.
    assert [down.node for down in report.downtime if down.for_good] == ["client"]


def test_an_image() -> None:
    report = report_of("image-changed")
    ((path, (old, new)),) = settings(report, "stack").items()
    assert path == "images.orthanc"
    assert (old or "").endswith(':26.8.1"')
    assert (new or "").endswith(':26.8.2"')
    because = {reason.container: list(map(str, reason.because)) for reason in report.reasons}
    assert because["server"] == because["client"] == ["it runs the image images.orthanc, which changes"]
    assert any("back up first" in str(words) for words in report.cautions)
    assert any("another image" in str(words) for words in report.unknown)


def test_a_start_that_failed_is_the_reason_and_not_what_the_provider_had_not_read() -> None:
    report = report_of("nothing", lambda events: replaced(events, "server-container", "#initerror", "command", "entrypoints"))
    (reason,) = report.reasons
    assert (reason.container, reason.because) == ("server", (say("its last start failed"),))


def test_a_broken_rule() -> None:
    report = report_of("policy-broken")
    assert str(report.verdict) == "This cannot be deployed: it breaks the policy version-floor."
    assert [(violation.rule, violation.resource) for violation in report.broken] == [("version-floor", "images-adminer")]


def test_a_refused_stack_file_names_what_is_refused_and_nothing_that_would_change() -> None:
    report = report_of("postgresql-major")
    assert "indexDb.majorVersion = '16'" in report.errors[0]
    assert (report.parts, report.downtime, report.containers) == ((), (), ())
    before_pulumi_runs = refused("organization/project/dev", "Pulumi.dev.yaml: 1 problem.")
    assert as_json(before_pulumi_runs)["errors"] == ["Pulumi.dev.yaml: 1 problem."]
    assert (before_pulumi_runs.stack, before_pulumi_runs.level) == ("dev", Level.FAILED)


class TestSecrets:
    """By name, and only those that can be meant."""

    def test_a_users_password(self) -> None:
        (file,) = report_of("secret-rotated").secrets
        assert (file.container, file.secrets) == ("server", ("userPassword.server.orthanc",))

    def test_a_settings_change_hides_a_secret_and_the_report_says_so(self) -> None:
        report = report_of("option-changed")
        assert report.secrets == ()
        assert any("Whether a secret changes along with the settings, in client" in str(words) for words in report.unknown)

    @pytest.mark.parametrize(
        "meant",
        [
            {"db": ("dbPassword",), "db-roles": ("dbPassword",)},
            {"db-roles": ("dbPassword.server",), "server": ("dbPassword.server", "userPassword.server.orthanc")},
            {"client": ("forwarderPassword.client", "userPassword.client.orthanc"), "client-forwarder": ("forwarderPassword.client",)},
        ],
    )
    def test_one_that_several_hold(self, meant: dict[str, tuple[str, ...]]) -> None:
        def edit(events: list[Event]) -> None:
            for container in meant:
                replaced(events, container if container == "db-roles" else f"{container}-container", "uploads")

        report = report_of("nothing", edit)
        assert {file.container: file.secrets for file in report.secrets} == meant
        assert set(report.restarted) == meant.keys()


class TestWhatThereAreNoWordsFor:
    """It is told as Pulumi says it, and never dropped."""

    def test_a_property_of_a_container(self) -> None:
        report = report_of("nothing", lambda events: changed(events, "server-container", diffs=["shmSize"]).update(shmSize=128))
        (change,) = part(report, "server").changes
        assert (change.path, change.old, change.new, change.raw) == ("container server: shmSize", None, "128", True)
        assert (report.level, report.restarted) == (Level.QUIET, set())

    def test_one_that_only_the_provider_compares(self) -> None:
        def edit(events: list[Event]) -> None:
            changed(events, "server-container", detailedDiff={"mustRun": {"diffKind": "update"}})
            step_of(events, "server-container")["old"]["outputs"]["mustRun"] = False

        (change,) = part(report_of("nothing", edit), "server").changes
        assert (change.path, change.old, change.new, change.raw) == ("container server: mustRun", "false", "true", True)

    def test_an_input_of_a_component(self) -> None:
        report = report_of("nothing", lambda events: changed(events, "server", "OrthancNode").update(colour={"subject": "CN=server"}))
        (change,) = part(report, "server").changes
        assert (change.path, change.raw) == ("server: colour", True)

    @pytest.mark.parametrize("op", ["create", "update", "replace", "delete", "import", "read", "discard-of-the-future"])
    @pytest.mark.parametrize("type_", ["docker:index/volume:Volume", "docker:index/container:Container", "aws:s3/bucket:Bucket"])
    def test_a_resource_of_ones_own(self, op: str, type_: str) -> None:
        state = {"type": type_, "inputs": {"name": "before"}, "outputs": {}}
        step: dict[str, Any] = {"op": op, "urn": f"urn:pulumi:dev::orthanc-stack::{type_}::somebodys-own", "type": type_, "logical": True}
        step |= {} if op == "create" else {"old": state}
        step |= {} if op == "delete" else {"new": {**state, "inputs": {"name": "after"}}}

        report = report_of("nothing", lambda events: events.append({"resourcePreEvent": {"metadata": step}}))
        assert report.level is not Level.NOTHING
        told = json.dumps(as_json(report))
        at_risk = type_.endswith(":Volume") and op in ("replace", "delete", "discard-of-the-future")
        assert ("before" in told) if at_risk else ("somebodys-own" in told or op == "create")
        assert bool(report.raw) or type_.endswith(":Volume")

    def test_a_volume_that_an_unknown_step_may_take(self) -> None:
        report = report_of("nothing", lambda events: step_of(events, "server-data").update(op="discard-of-the-future"))
        assert [risk.volume for risk in report.data] == ["orthanc-stack-dev-server"]

    def test_a_secret_in_it_is_not_shown(self) -> None:
        masked = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "hunter2"}
        report = report_of("nothing", lambda events: changed(events, "server-container", diffs=["sysctls"]).update(sysctls=masked))
        assert [(change.old, change.new) for change in part(report, "server").changes] == [(None, "[secret]")]
        assert "hunter2" not in json.dumps(as_json(report))


def test_a_links_rules() -> None:
    def edit(events: list[Event]) -> None:
        changed(events, "client-forwarder")["configuration"]["links"][0]["only"]["modality"] = ["CT"]
        replaced(events, "client-forwarder-container", "uploads")

    report = report_of("nothing", edit)
    assert settings(report, "client") == {"forwardTo.server.only.modality": ("[]", '["CT"]')}
    assert [(link.begin, link.end) for link in report.links if link.fate is Fate.CHANGED] == [("client", "server")]
    assert [str(words) for words in report.reasons[0].because] == ["the rules of its link to server change"]
    assert (report.level, report.restarted) == (Level.QUIET, {"client-forwarder"})


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
    assert (risk.fate, risk.lost) == (Fate.REPLACED, True)
    assert [str(words) for reason in report.reasons for words in reason.because] == ["its volume is replaced: server-data"]


class TestTheTwoForms:
    """Pulumi's events and the document of `--json` make the same report, as far as the document tells."""

    def test_the_same_preview_in_both(self) -> None:
        events, document = build(read(recorded("first.jsonl"))), build(read(recorded("first.json")))
        assert document.parts == events.parts
        assert document.containers == events.containers
        assert document.links == events.links
        assert document.packs is None
        assert events.packs == ("orthanc-stack",)

    def test_a_document_without_what_stays(self) -> None:
        document = json.loads(recorded("first.json"))
        document["changeSummary"] = {"same": 5}
        report = build(read(json.dumps(document)))
        assert any("--show-sames" in str(words) for words in report.unknown)

    @pytest.mark.parametrize("text", ["", "Previewing update (dev):", "[]", '{"steps": [', "null", '{"resourcePreEvent": {'])
    def test_what_is_neither(self, text: str) -> None:
        with pytest.raises(ValueError, match="no preview"):
            read(text)
