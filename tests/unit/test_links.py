"""What a stack file says of forwarding, and what follows from it for Orthanc. No Pulumi."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.names import forwarder_of, record_number
from configs.orthanc_options import options_of
from configs.promises import RULES, unlike_ends
from configs.secrets import is_secret_key, secret_keys
from configs.settings import NodeSettings, StackSettings
from configs.wiring import PERMISSIONS, DicomEndpoint, mermaid, peers_of
from forwarder.config import Rules
from tests.unit.stacks import node, problems_of, settings_of, stack

PACS = {"name": "pacs", "aet": "PACS", "host": "10.0.0.7", "port": 104, "nodes": ["a"], "allow": ["find"]}


def forwarding(*links: Any, **more: Any) -> dict[str, Any]:
    """A node a that forwards, a node b, and an archive outside, pacs, that knows a."""
    return stack(node("a", 0, forwardTo=list(links), **more), node("b", 1), modalities=[PACS])


def node_a(raw: dict[str, Any]) -> NodeSettings:
    return settings_of(raw).nodes[0]


def allowed(settings: StackSettings, at: str) -> dict[str, set[str]]:
    """What each peer of a node may ask of it."""
    endpoints = {one.name: DicomEndpoint(one.aet, one.name, 4242) for one in settings.nodes}
    endpoints |= {one.name: DicomEndpoint(one.aet, one.host, one.port) for one in settings.modalities}
    this = next(one for one in settings.nodes if one.name == at)
    return {peer.name: {name for name in PERMISSIONS if peer.modality()[name]} for peer in peers_of(this, settings, endpoints)}


# --- settings ---


def test_a_name_is_short_for_a_link() -> None:
    short, long = (node_a(forwarding(link)).forward_to for link in ("b", {"to": "b"}))
    assert short == long
    (link,) = short
    assert (link.to, link.associations, link.confirm) == ("b", 2, "commitment")
    assert not any(link.only.model_dump().values())


def test_a_link_with_everything_said() -> None:
    only = {"modality": ["CT", "M*"], "callingAet": ["CT1"], "station": ["?"], "studyDescription": ["*chest*"]}
    this = node_a(forwarding({"to": "b", "only": only, "associations": 16, "confirm": "query"}, "pacs"))
    assert this.targets == ("b", "pacs")
    link = this.forward_to[0]
    assert (link.associations, link.confirm) == (16, "query")
    assert (link.only.modality, link.only.study_description) == (("CT", "M*"), ("*chest*",))


def test_what_the_stack_file_calls_rules_the_forwarder_calls_the_same() -> None:
    only = {"modality": ["CT"], "callingAet": ["X"], "station": ["S"], "studyDescription": ["*chest*"]}
    said = node_a(forwarding({"to": "b", "only": only})).forward_to[0].only.model_dump(mode="json", by_alias=True)
    assert Rules.of(said) == Rules(modality=("CT",), calling_aet=("X",), station=("S",), study_description=("*chest*",))


@pytest.mark.parametrize("count", [0, 17, "2", 2.0, True])
def test_associations(count: Any) -> None:
    assert list(problems_of(forwarding({"to": "b", "associations": count}))) == ["nodes[0].forwardTo[0].associations"]


@pytest.mark.parametrize("link", [4, None, ["b"], {"to": 4}, {}])
def test_what_is_no_link(link: Any) -> None:
    (path,) = problems_of(forwarding(link))
    assert path.startswith("nodes[0].forwardTo[0]")


@pytest.mark.parametrize(
    ("keep", "seconds"),
    [
        ("forever", None),
        ("until-confirmed", 0),
        ("until-confirmed after 0s", 0),
        ("until-confirmed after 90s", 90),
        ("until-confirmed after 5m", 300),
        ("until-confirmed after 2h", 7200),
        ("until-confirmed after 7d", 604800),
    ],
)
def test_how_long_images_are_kept(keep: str, seconds: int | None) -> None:
    assert node_a(forwarding("b", keep=keep)).delete_after == seconds


@given(st.sampled_from(["", "until-confirmed after ", "until-confirmed after", "7d ", "confirmed "]), st.text(max_size=4))
def test_no_other_text_means_that_something_is_deleted(beginning: str, rest: str) -> None:
    keep = beginning + rest
    problems = problems_of(forwarding("b", keep=keep))
    if problems == {}:
        assert keep in ("forever", "until-confirmed") or (keep[-1] in "smhd" and keep.rpartition(" ")[2][:-1].isdecimal())
    else:
        assert list(problems) == ["nodes[0].keep"]


def test_nothing_is_deleted_that_a_query_alone_confirmed() -> None:
    problems = problems_of(forwarding("b", {"to": "pacs", "confirm": "query"}, keep="until-confirmed"))
    assert "not so: pacs" in problems["nodes[0].keep"]
    assert problems_of(forwarding("b", {"to": "pacs", "confirm": "query"}, keep="forever")) == {}
    assert problems_of(forwarding("b", "pacs", keep="until-confirmed")) == {}


@pytest.mark.parametrize("more", [{"keep": "until-confirmed"}, {"metricsPort": 9042}])
def test_what_only_a_node_that_forwards_can_have(more: dict[str, Any]) -> None:
    assert list(problems_of(forwarding(**more))) == [f"nodes[0].{next(iter(more))}"]
    assert problems_of(forwarding("b", **more)) == {}


def test_the_metrics_port_is_a_port_of_the_host() -> None:
    assert list(problems_of(forwarding("b", metricsPort=8001))) == ["nodes[1].httpPort"]
    assert problems_of(forwarding("b", metricsPort=8001, bind="127.0.0.2")) == {}
    assert list(problems_of(forwarding("b", metricsPort=0))) == ["nodes[0].metricsPort"]


# --- destinations ---


def test_a_link_to_an_archive_outside() -> None:
    assert problems_of(forwarding("pacs")) == {}
    unknown = stack(node("a"), node("b", 1, forwardTo=["pacs"]), modalities=[PACS])
    assert "add b to its `nodes`" in problems_of(unknown)["nodes[1].forwardTo[0]"]


def test_a_link_to_a_modality_with_another_mistake_is_not_called_unknown() -> None:
    raw = stack(node("a", forwardTo=["pacs"]), modalities=[{**PACS, "aet": ""}])
    assert list(problems_of(raw)) == ["modalities[0].aet"]


def test_a_misspelt_destination_is_told_the_nearest() -> None:
    assert "'pacs'" in problems_of(forwarding({"to": "pac"}))["nodes[0].forwardTo[0]"]


def test_a_destination_once() -> None:
    assert "twice" in problems_of(forwarding("b", {"to": "b", "associations": 4}))["nodes[0].forwardTo[1]"]


def test_records_are_user_metadata_of_orthanc() -> None:
    numbers = {record_number(f"node-{i}") for i in range(2000)}
    assert min(numbers) >= 10000
    assert max(numbers) <= 59999
    # Pinned: another number would send everything again.
    assert record_number("server") == 57638


def test_two_destinations_with_one_record() -> None:
    raw = stack(node("a", forwardTo=["archive-vault", "north-east"]), node("archive-vault", 1), node("north-east", 2))
    assert "archive-vault" in problems_of(raw)["nodes[0].forwardTo[1]"]
    raw["nodes"][0]["forwardTo"].pop()
    raw["nodes"][1]["forwardTo"] = ["north-east"]  # another node's records are another database's
    assert problems_of(raw) == {}


def test_the_names_of_forwarders_are_taken() -> None:
    assert forwarder_of("a") == "a-forwarder"
    raw = stack(node("a", forwardTo=["b"]), node("b", 1), node("a-forwarder", 2))
    assert list(problems_of(raw)) == ["nodes[2].name"]
    device = {**PACS, "name": "a-forwarder"}
    assert list(problems_of({**raw, "nodes": raw["nodes"][:2], "modalities": [device]})) == ["modalities[0].name"]
    assert problems_of(stack(node("a"), node("b", 1), node("a-forwarder", 2))) == {}


def test_the_forwarders_user_and_options() -> None:
    assert "logs in" in problems_of(stack(node("a", users=["forwarder"])))["nodes[0].users[0].name"]
    assert "PythonScript" in "".join(problems_of(stack(node("a", orthanc={"PythonScript": "/x.py"}))))
    block = {"CheckRevisions": True}
    assert list(problems_of(forwarding("b", orthanc=block))) == ["nodes[0].orthanc.CheckRevisions"]
    assert problems_of(forwarding(orthanc=block)) == {}


@pytest.mark.parametrize(
    ("option", "wrong", "right", "at"),
    [
        ("StoreDicom", False, True, "ab"),
        ("ReadOnly", True, False, "ab"),
        ("SyncStorageArea", False, True, "ab"),
        ("DicomCheckModalityHost", True, False, "ab"),
        ("OverwriteInstances", False, "Always", "ab"),
        ("OverwriteInstances", "Never", True, "ab"),
        ("OverwriteInstances", "IfChanged", True, "b"),
        ("StoreMD5ForAttachments", False, True, "b"),
        ("IngestTranscoding", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70", "b"),
        ("MaximumStorageMode", "Recycle", "Reject", "ab"),
        ("JobsHistorySize", 0, 10, "a"),
        ("JobsHistorySize", 9, 10, "a"),
        ("DicomEchoChecksFind", True, False, "a"),
        ("CheckRevisions", True, False, "a"),
    ],
)
def test_no_option_ends_what_a_link_promises(option: str, wrong: object, right: object, at: str) -> None:
    def refused(value: object, **link: str) -> str:
        """Where it is: at the sender a, the destination b, at c, which is on no link."""
        found = ""
        for i, name in enumerate("abc"):
            nodes = [node("a", forwardTo=[{"to": "b", **link}]), node("b", 1), node("c", 2)]
            nodes[i]["orthanc"] = {option: value}
            problems = problems_of(stack(*nodes))
            assert list(problems) in ([], [f"nodes[{i}].orthanc.{option}"])
            found += name if problems else ""
        return found

    assert refused(wrong) == at
    assert refused(right) == ""
    # One that is only asked what it has does not promise to keep it.
    assert refused(wrong, confirm="query") == at.replace("b", "" if option in ("StoreMD5ForAttachments", "MaximumStorageMode") else "b")


def test_each_option_of_the_rules_is_tried() -> None:
    (marks,) = test_no_option_ends_what_a_link_promises.pytestmark  # type: ignore[attr-defined]
    assert {case[0] for case in marks.args[1]} == {rule.option for rule in RULES}


SYNTAX = "1.2.840.10008.1.2"


@pytest.mark.parametrize(
    ("sender", "destination", "told"),
    [
        ({}, {}, ""),
        ({"UnknownSopClassAccepted": True}, {}, "UnknownSopClassAccepted"),
        ({"UnknownSopClassAccepted": True}, {"UnknownSopClassAccepted": True}, ""),
        ({}, {"UnknownSopClassAccepted": True}, ""),
        ({}, {"AcceptedSopClasses": ["1.2.3"]}, "AcceptedSopClasses"),
        ({"AcceptedSopClasses": ["1.2.3", "1.2.4"]}, {"AcceptedSopClasses": ["1.2.3"]}, "AcceptedSopClasses"),
        ({"AcceptedSopClasses": ["1.2.3"]}, {"AcceptedSopClasses": ["1.2.*"]}, ""),
        ({"AcceptedSopClasses": ["1.2.3"]}, {}, ""),
        ({}, {"RejectedSopClasses": ["1.2.3"]}, "RejectedSopClasses"),
        ({"RejectedSopClasses": ["1.2.*"]}, {"RejectedSopClasses": ["1.2.3"]}, ""),
        ({}, {"AcceptedTransferSyntaxes": [SYNTAX, f"{SYNTAX}.1"]}, "AcceptedTransferSyntaxes"),
        ({"AcceptedTransferSyntaxes": [f"{SYNTAX}.1"]}, {"AcceptedTransferSyntaxes": [f"{SYNTAX}.?"]}, ""),
        ({}, {"AcceptedTransferSyntaxes": ["*"]}, ""),
    ],
)
def test_ends_that_accept_other_images(sender: dict[str, object], destination: dict[str, object], told: str) -> None:
    settings = settings_of(stack(node("a", orthanc=sender, forwardTo=["b"]), node("b", 1, orthanc=destination), node("c", 2)))
    found = unlike_ends(settings)
    assert len(found) == bool(told)
    assert all(text.startswith("a -> b: a accepts images that b refuses") and told in text for text in found)


def test_each_forwarder_has_a_password() -> None:
    assert secret_keys(settings_of(stack(node("a", index="sqlite", forwardTo=["b"]), node("b", 1, index="sqlite")))) == (
        "forwarderPassword.a",
        "userPassword.a.orthanc",
        "userPassword.b.orthanc",
    )
    assert is_secret_key("forwarderPassword.of-a-node-that-is-gone")
    assert not is_secret_key("forwarderPasswords")


# --- what follows for Orthanc ---


@pytest.mark.parametrize(
    ("confirm", "client_may", "server_may"),
    [
        ("commitment", {"AllowEcho", "AllowStore", "AllowNAction"}, {"AllowEcho", "AllowEventReport"}),
        ("query", {"AllowEcho", "AllowStore", "AllowFind"}, {"AllowEcho"}),
    ],
)
def test_permissions_of_a_link(confirm: str, client_may: set[str], server_may: set[str]) -> None:
    settings = settings_of(forwarding({"to": "b", "confirm": confirm}))
    assert allowed(settings, "b") == {"a": client_may}
    assert allowed(settings, "a")["b"] == server_may


@pytest.mark.parametrize(("confirm", "more"), [("commitment", {"AllowEcho", "AllowEventReport"}), ("query", {"AllowEcho"})])
def test_permissions_of_an_archive_outside(confirm: str, more: set[str]) -> None:
    assert allowed(settings_of(forwarding({"to": "pacs", "confirm": confirm})), "a") == {"pacs": {"AllowFind"} | more}
    assert allowed(settings_of(forwarding()), "a") == {"pacs": {"AllowFind"}}


def test_links_bring_their_own_jobs_and_threads() -> None:
    settings = settings_of(
        stack(
            node("a", 0, forwardTo=[{"to": "c", "associations": 5}, "b"]),
            node("b", 1, forwardTo=[{"to": "c", "associations": 3}]),
            node("c", 2),
            node("d", 3),
        )
    )
    options = {this.name: options_of(this, settings) for this in settings.nodes}
    assert {name: of.get("ConcurrentJobs") for name, of in options.items()} == {"a": 2 + 7, "b": 2 + 3 + 1, "c": 2 + 2, "d": None}
    assert {name: of["DicomThreadsCount"] for name, of in options.items()} == {"a": 4, "b": 4 + 3, "c": 4 + 6 + 4, "d": 4}


def test_the_nodes_own_block_lies_over_the_room_for_links() -> None:
    raw = forwarding("b", orthanc={"ConcurrentJobs": 30})
    raw["nodes"][1]["orthanc"] = {"DicomThreadsCount": 40}
    settings = settings_of(raw)
    a, b = (options_of(this, settings) for this in settings.nodes)
    assert (a["ConcurrentJobs"], b["ConcurrentJobs"], b["DicomThreadsCount"]) == (30, 3, 40)


def test_links_in_the_graph() -> None:
    graph = mermaid(settings_of(forwarding({"to": "pacs", "only": {"modality": ["SECRETRULE"]}}, "b")))
    assert "n_a -->|C-STORE| n_pacs" in graph
    assert "n_a -->|C-STORE| n_b" in graph
    assert "n_pacs -->|find| n_a" in graph
    assert "SECRETRULE" not in graph
