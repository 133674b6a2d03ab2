"""What a stack file may say. No Pulumi.

What is printed for what is refused is in docs/wrong-stack-files.md, made from the files in tests/wrong; that page is compared below, and is
the proof of what is in those files. Here is what they do not show: where each limit is, and what is taken.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from configs.loader import load, load_stack_file
from configs.names import record_number
from configs.orthanc import COMPUTED, options_of
from configs.problems import SettingsError
from configs.promises import PROTECTIONS, RULES, unlike_ends
from configs.secrets import check_secret, is_secret_key, secret_keys
from configs.settings import Operation
from dev.reference import pages, wrong_stack_files
from forwarder.config import Lists, Rules
from tests.unit.stacks import node, place_of, problems_of, settings_of, stack

PACS = {"name": "pacs", "aet": "PACS", "host": "10.0.0.7", "port": 104, "nodes": ["a"]}
BY_QUERY = {"to": "pacs", "confirm": "query"}
PROD = {"environment": "prod", "bind": "127.0.0.1", "images": {"source": "local"}}


def saying(path: str, value: Any) -> dict[str, Any]:
    """A node a that forwards to b and pacs, a node b, and c, which is on no link; with a value at a path."""
    raw = stack(node("a", 0, forwardTo=[{"to": "b"}, "pacs"]), node("b", 1), node("c", 2), modalities=[dict(PACS)])
    *parts, last = place_of(path)
    holder: Any = raw
    for part in parts:
        holder = holder.setdefault(part, {}) if isinstance(holder, dict) else holder[part]
    holder[last] = value
    return raw


# --- one value ---

MEMORY = ([256, 1_048_576], [255, 1_048_577, "2048", 2048.5])
CPUS = ([2, 0.5], [0, math.nan, math.inf, "2"])
START = ([300, "24h", "5s"], ["25h", "4s", "300", 300.0, True])
NAMES = ["", "A", "a_b", "-a", "a-", "a.b", "a b", "db", "adminer", "db-roles", "localhost", "x" * 33, "ä"]
KEPT = ["forever", "until-confirmed", "until-confirmed after 0s", "until-confirmed after 7d"]
AFTER = "until-confirmed after "
NOT_KEPT = ["", "7d", "confirmed", "confirmed 7d", AFTER, "until-confirmed after", f"{AFTER}7", f"{AFTER}d", f"{AFTER}7D", f"{AFTER}7 d"]
NOT_KEPT += [f"{AFTER}-7d", f"{AFTER}1.5d", f"{AFTER}\u0667d", f"{AFTER}7d ", f" {AFTER}7d", f"{AFTER}7d\n", f"{AFTER}1234567d", "Forever"]
DIGEST = "@sha256:" + "a" * 64
IMAGES = ["orthancteam/orthanc:26.8.1", "mirror.local:5000/orthancteam/orthanc:26.8.1"]
IMAGES += [f"orthancteam/orthanc{DIGEST}", f"orthancteam/orthanc:26.8.1{DIGEST}"]
NO_IMAGES = ["orthancteam/orthanc", "orthancteam/orthanc:latest", "mirror.local:5000/orthancteam/orthanc", "a b:1", ""]
SERVERS = [["http://peer:8042/"], ["https://peer/", "user", "password"], {"Url": "http://[fd00::7]:8042"}]
NO_SERVERS: list[Any] = [["http://localhost:8042/"], {"URL": "https://user@[::1]:8042"}, ["http://peer/", "user"], ["ftp://peer/"]]
NO_SERVERS += [{}, "http://peer/"]


@pytest.mark.parametrize(
    ("path", "taken", "refused"),
    [
        ("nodes[2].name", ["x", "a-1", "x" * 32], NAMES),
        ("nodes[2].httpPort", [1, 65535], [0, 65536, -1, "8042", 8042.0, True, None, [8042]]),
        ("nodes[0].metricsPort", [1, 65535], [0, 65536]),
        ("nodes[0].forwardTo[0].associations", [1, 16], [0, 17, "2", 2.0, True]),
        ("nodes[0].forwardTo[0].only.sopClass", [["1.2.840.10008.5.1.4.1.1.2"], ["*.88.*", "1.2.3?"]], [[], "1.2.3"]),
        ("nodes[0].forwardTo[0].not.origin", ["received", "created"], ["Created", ["created"], "any"]),
        ("nodes[0].forwardTo[0].not.modality", [["SR"]], [[], "SR"]),
        ("nodes[0].keep", KEPT, NOT_KEPT),
        ("nodes[0].memory", *MEMORY),
        ("nodes[0].cpus", *CPUS),
        ("nodes[0].startTimeout", *START),
        ("indexDb.memory", *MEMORY),
        ("indexDb.cpus", *CPUS),
        ("indexDb.startTimeout", *START),
        ("images.orthanc", IMAGES, NO_IMAGES),
        # Orthanc's own ranges and words; tests/stack/test_options.py asks Orthanc.
        ("nodes[2].orthanc.MaximumPduLength", [4096, 131072], [262144, 4095, "16384", True]),
        ("nodes[2].orthanc.DicomThreadsCount", [1], [0, 1001]),
        ("nodes[2].orthanc.DefaultEncoding", ["Utf8", "utf8", "Latin1"], ["UTF-8", ""]),
        ("nodes[2].orthanc.StorageAccessOnFind", ["Always"], ["always"]),
        ("nodes[2].orthanc.OverwriteInstances", [True, "Never"], ["never", 1]),
        ("nodes[2].orthanc.IngestTranscoding", ["1.2.840.10008.1.2.4.70"], ["1.2.840.10008.1.2.4.71", "JPEG"]),
        ("nodes[2].orthanc.PostgreSQL.TransactionMode", ["Serializable"], ["serializable"]),
        ("nodes[2].orthanc.PostgreSQL.IndexConnectionCount", [], [5]),
        ("nodes[2].orthanc.PostgreSQL.IndexConnectionsCount", [1], [0, "2", True, 2.5, None]),
        ("nodes[2].orthanc.Warnings.W001", [], [False]),
        ("nodes[2].orthanc.UserMetadata", [{}], [[1024]]),
        ("nodes[2].orthanc.UserMetadata.mine", [1024], [1023]),
        ("nodes[2].orthanc.OrthancPeers.p", SERVERS, NO_SERVERS),
        ("nodes[2].orthanc.DicomWeb.Servers.p", SERVERS, NO_SERVERS),
    ],
)
def test_what_may_stand_where(path: str, taken: list[Any], refused: list[Any]) -> None:
    for value in taken:
        assert problems_of(saying(path, value)) == {}, value
    for value in refused:
        assert list(problems_of(saying(path, value))) == [path], value


@pytest.mark.parametrize("wrong", ["CTImageStorage", "1.2 ", "", 1.2, "1" * 65])
def test_a_sop_class_is_a_uid(wrong: object) -> None:
    path = "nodes[0].forwardTo[0].not.sopClass"
    assert list(problems_of(saying(path, ["1.2", wrong]))) == [f"{path}[1]"]


@given(st.text(st.sampled_from("ABCabc019_-. "), min_size=1, max_size=17) | st.text(st.characters(max_codepoint=300), max_size=18))
@example("A" * 16)
@example("A" * 17)
@example("A${B")
def test_ae_titles_are_those_of_dicom(aet: str) -> None:
    """PS3.5, 6.2: 1 to 16 characters of ASCII without a backslash; what begins a variable of Orthanc's is refused, too."""
    right = re.fullmatch(r"(?!.* $)[!-\[\]-~][ -\[\]-~]{0,15}", aet) is not None and "${" not in aet
    assert list(problems_of(stack(node("a", aet=aet)))) == ([] if right else ["nodes[0].aet"])
    assert not right or settings_of(stack(node("a", aet=aet))).nodes[0].aet == aet


ITSELF = ["localhost", "LOCALHOST", "a.localhost", "ip6-loopback", "127.0.0.1", "127.1.2.3", "0.0.0.0", "::", "::1", "::ffff:127.0.0.1"]
ITSELF += ["0x7f000001", "127.0.0.0x1"]
NOBODY = ["224.0.0.1", "255.255.255.255", "0.1.2.3", "240.0.0.1", "ff02::1", "fe80::1", "::ffff:224.0.0.1", "localhost."]
OF_THE_STACK = ["a", "B", "db", "adminer", "a-forwarder"]
SOMEBODY = ["host.docker.internal", "localhost-2", "ct.hospital.org", "10.0.0.7", "169.254.1.2", "fd00::7", "::ffff:10.0.0.7"]
SOMEBODY += ["64:ff9b::a00:7"]


@pytest.mark.parametrize("host", [*ITSELF, *NOBODY, *OF_THE_STACK, *SOMEBODY])
def test_a_device_is_where_a_node_can_reach_it(host: str) -> None:
    problems = problems_of(saying("modalities[0].host", host))
    assert list(problems) == ([] if host in SOMEBODY else ["modalities[0].host"])
    assert ("host.docker.internal" in "".join(problems.values())) is (host in ITSELF)


@pytest.mark.parametrize("key", COMPUTED)
def test_no_computed_option_can_be_overridden(key: tuple[str, ...]) -> None:
    path = f"nodes[2].orthanc.{'.'.join(key)}"
    assert "computed" in problems_of(saying(path, "x"))[path]


# --- what does not go together ---


def forwarding(*links: Any, **more: Any) -> dict[str, Any]:
    """A node a that forwards, a node b, and an archive outside, pacs, that knows a."""
    return stack(node("a", 0, forwardTo=list(links), **more), node("b", 1), modalities=[PACS])


def of_two(a: dict[str, Any], b: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Two nodes."""
    return stack(node("a", 0, **a), node("b", 1, **b), **more)


def with_options(options: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A node with options of Orthanc's."""
    return stack(node("a", orthanc=options, **more))


def connected(count: int) -> dict[str, Any]:
    """Two nodes on PostgreSQL, with so many connections together."""
    a, b = ({"orthanc": {"PostgreSQL": {"IndexConnectionsCount": part}}} for part in (7, count - 7))
    return of_two(a, b, indexDb={"maxConnections": 50})


OWN_PROFILE = {"DicomTlsMinimumProtocolVersion": 0}
WEB_DAV: dict[str, Any] = {"unsafe": ["WebDavEnabled"]}
A_FORWARDER = stack(node("a", forwardTo=["b"]), node("b", 1), modalities=[{**PACS, "name": "a-forwarder"}])
MANY = stack(node("a", 0, aet="A\\B"), node("b", 1, forwardTo=["nobody"]), node("c", 1), images={"source": "moon"}, colour="red")
IN_MANY = ["nodes[0].aet", "nodes[1].forwardTo[0]", "nodes[2].httpPort", "nodes[2].dicomPort", "images.source", "colour"]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        # All problems are told at once; a link to what has another mistake is not called unknown.
        (MANY, dict.fromkeys(IN_MANY, "")),
        (of_two({"aet": ""}, {"forwardTo": ["a"]}), {"nodes[0].aet": "empty"}),
        (stack(node("a", forwardTo=["pacs"]), modalities=[{**PACS, "aet": ""}]), {"modalities[0].aet": "empty"}),
        (forwarding("b", {"to": "b", "associations": 4}), {"nodes[0].forwardTo[1]": "twice"}),
        (A_FORWARDER, {"modalities[0].name": "forwarder of the node a"}),
        # Ports of the host, with their addresses.
        (of_two({}, {"httpPort": 8000}), {"nodes[1].httpPort": "same port"}),
        (of_two({"bind": "0.0.0.0"}, {"httpPort": 8000, "bind": "127.0.0.2"}), {"nodes[1].httpPort": "same port"}),
        (of_two({"bind": "::"}, {"httpPort": 8000, "bind": "127.0.0.1"}), {"nodes[1].httpPort": "same port"}),
        (of_two({"bind": "127.0.0.1"}, {"httpPort": 8000}), {"nodes[1].httpPort": "same port"}),
        (forwarding("b", metricsPort=8001), {"nodes[1].httpPort": "metricsPort"}),
        (stack(node("a"), adminer={"port": 8000}), {"adminer.port": "same port"}),
        (connected(38), {"indexDb.maxConnections": "a 7, b 31"}),
        (of_two({"bind": "127.0.0.1"}, {}, environment="prod"), {"bind": "nodes b "}),
        (stack(node("a"), releaseData=True, **PROD), {"releaseData": "prod keeps its data"}),
        # With these, Orthanc does not start.
        (with_options({"AcceptedSopClasses": ["1.2.3", 4]}), {"nodes[0].orthanc.AcceptedSopClasses[1]": ""}),
        (with_options({"SslCiphersAccepted": [""]}), {"nodes[0].orthanc.SslCiphersAccepted[0]": ""}),
        (with_options({"OverwriteInstances": "IfChanged", "StoreMD5ForAttachments": False}), {"nodes[0].orthanc.OverwriteInstances": ""}),
        (with_options({"PatientLevelEnabled": False, "MaximumStorageSize": 1}), {"nodes[0].orthanc.MaximumStorageSize": ""}),
        (with_options(OWN_PROFILE, tls=True), {"nodes[0].orthanc.DicomTlsMinimumProtocolVersion": "ciphers"}),
        # What is named as unsafe has to weaken something.
        (stack(node("a", **WEB_DAV), **PROD), {"nodes[0].unsafe[0]": "not weakened"}),
        (stack(node("a", **WEB_DAV, orthanc={"WebDavEnabled": False}), **PROD), {"nodes[0].unsafe[0]": "not weakened"}),
        (stack(node("a", unsafe=["WebDavEnable"])), {"nodes[0].unsafe[0]": "'WebDavEnabled'"}),
        (stack(node("a", unsafe=WEB_DAV["unsafe"] * 2, orthanc={"WebDavEnabled": True})), {"nodes[0].unsafe": "twice"}),
    ],
)
def test_what_does_not_go_together(raw: dict[str, Any], expected: dict[str, str]) -> None:
    problems = problems_of(raw)
    assert problems.keys() == expected.keys()
    assert [path for path, word in expected.items() if word not in problems[path]] == []


@pytest.mark.parametrize(
    "raw",
    [
        forwarding("b", BY_QUERY, keep="forever"),
        forwarding("b", "pacs", keep="until-confirmed"),
        forwarding("b", {"to": "pacs", "confirm": "commitment"}, keep="until-confirmed"),
        forwarding("b", {"to": "pacs", "confirm": "auto"}, keep="until-confirmed"),
        forwarding("b", metricsPort=8001, bind="127.0.0.2"),
        stack(node("a"), node("b", 1), node("a-forwarder", 2)),
        # Two destinations of one record: another node's records are another database's.
        stack(node("a", forwardTo=["archive-vault"]), node("archive-vault", 1, forwardTo=["north-east"]), node("north-east", 2)),
        of_two({"bind": "127.0.0.1"}, {"httpPort": 8000, "bind": "127.0.0.2"}),
        connected(37),
        with_options({"PostgreSQL": {"IndexConnectionsCount": 1000}}, index="sqlite"),
        of_two({"bind": "127.0.0.1"}, {}, environment="prod", bind="127.0.0.1"),
        stack(node("a", bind="127.0.0.1"), environment="prod"),
        with_options({**OWN_PROFILE, "DicomTlsCiphersAccepted": []}, tls=True),
        with_options(OWN_PROFILE),
    ],
)
def test_what_goes_together(raw: dict[str, Any]) -> None:
    assert problems_of(raw) == {}


#: Option, a value that ends what a link promises, one that does not; and where it does: at the sender a, or at the destination b.
PROMISES: list[tuple[str, object, object, str]] = [
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
    ("DicomScuPreferredTransferSyntax", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.90", "a"),
    ("JobsHistorySize", 0, 20, "a"),
    ("JobsHistorySize", 19, 20, "a"),
    ("StorageCommitmentReportsSize", 1, 0, "a"),
    ("StorageCommitmentReportsSize", 199, 200, "a"),
    ("CheckRevisions", True, False, "a"),
]


@pytest.mark.parametrize(("option", "wrong", "right", "at"), PROMISES)
def test_no_option_ends_what_a_link_promises(option: str, wrong: object, right: object, at: str) -> None:
    def refused(value: object, **link: str) -> str:
        """Where it is; c is on no link."""
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
    assert refused(wrong, confirm="auto") == refused(wrong, confirm="commitment") == at
    # One that is only asked what it has does not promise to keep it.
    assert (
        refused(wrong, confirm="stored")
        == refused(wrong, confirm="query")
        == at.replace("b", "" if option in ("StoreMD5ForAttachments", "MaximumStorageMode") else "b")
    )
    assert {option for option, *_ in PROMISES} == {rule.option for rule in RULES}


def test_reports_are_counted_for_each_destination() -> None:
    def refused(size: int) -> list[str]:
        return list(problems_of(forwarding("b", "pacs", orthanc={"StorageCommitmentReportsSize": size})))

    assert refused(399) == ["nodes[0].orthanc.StorageCommitmentReportsSize"]
    assert refused(400) == refused(0) == []


#: A value that weakens a node, for each option that protects one.
WEAK = {
    "DeidentifyLogs": False,
    "DicomCheckCalledAet": False,
    "DicomTlsMinimumProtocolVersion": 3,
    "ExecuteLuaEnabled": True,
    "HttpsVerifyPeers": False,
    "LimitFindInstances": 0,
    "LimitFindResults": 0,
    "MaximumFileSizeInArchiveMB": 0,
    "MaximumRequestBodySizeMB": 0,
    "MaximumStorageMode": "Recycle",
    "RestApiWriteToFileSystemEnabled": True,
    "ServeFolders": {"/": "/"},
    "SslMinimumProtocolVersion": 1,
    "SyncStorageArea": False,
    "WebDavEnabled": True,
}


@pytest.mark.parametrize("option", sorted(PROTECTIONS))
def test_prod_refuses_what_weakens_unless_it_is_named(option: str) -> None:
    block = {option: WEAK[option]}
    assert list(problems_of(stack(node("a", orthanc=block), **PROD))) == [f"nodes[0].orthanc.{option}"]
    assert problems_of(stack(node("a", orthanc=block, unsafe=[option]), **PROD)) == {}
    assert problems_of(stack(node("a", orthanc=block))) == {}, "dev is a laptop"


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_what_the_project_sets_itself_protects(environment: str) -> None:
    settings = settings_of(stack(node("a"), **{**PROD, "environment": environment}))
    options = options_of(settings.nodes[0], settings)
    said = {name: one for name, one in PROTECTIONS.items() if name in options}
    assert [name for name, one in said.items() if not one.holds(options[name])] == []
    expected = {"DicomCheckCalledAet", "ExecuteLuaEnabled", "RestApiWriteToFileSystemEnabled", "WebDavEnabled", "MaximumStorageMode"}
    assert said.keys() >= expected | ({"LimitFindInstances", "LimitFindResults"} if environment == "prod" else set())


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
    found = unlike_ends(settings_of(stack(node("a", orthanc=sender, forwardTo=["b"]), node("b", 1, orthanc=destination), node("c", 2))))
    assert len(found) == bool(told)
    assert all(text.startswith("a -> b: a accepts images that b refuses") and told in text for text in found)


# --- how it is read ---


@pytest.mark.parametrize("said", [300, "300s", "5m"])
def test_a_start_is_timed_in_seconds_or_with_a_unit(said: Any) -> None:
    settings = settings_of(stack(node("a", startTimeout=said), node("b", 1, startTimeout="2h"), indexDb={"startTimeout": said}))
    assert (settings.nodes[0].start_timeout, settings.nodes[1].start_timeout, settings.index_db.start_timeout) == (300, 7200, 300)


@pytest.mark.parametrize(("keep", "seconds"), [*zip(KEPT, (None, 0, 0, 604800), strict=True), (f"{AFTER}90s", 90), (f"{AFTER}5m", 300)])
def test_how_long_images_are_kept(keep: str, seconds: int | None) -> None:
    assert settings_of(forwarding("b", keep=keep)).nodes[0].delete_after == seconds
    assert settings_of(forwarding("b", keep=f"{AFTER}2h")).nodes[0].delete_after == 7200


def test_a_link_as_it_is_read() -> None:
    only = {"modality": ["CT", "M*"], "callingAet": ["CT1"], "station": ["?"], "studyDescription": ["*chest*"], "sopClass": ["1.2"]}
    link = {"to": "b", "only": {**only, "origin": "created"}, "not": {"modality": ["MG"]}, "associations": 16, "confirm": "query"}
    this = settings_of(forwarding(link, "pacs")).nodes[0]
    assert this.targets == ("b", "pacs")
    long, short = this.forward_to
    assert (long.associations, long.confirm, short.associations, short.confirm) == (16, "query", 2, "auto")
    assert not any((*short.only.model_dump().values(), *short.but_not.model_dump().values()))
    assert settings_of(forwarding({"to": "pacs"})).nodes[0].forward_to == (short,)
    by_default = settings_of(forwarding("b", "pacs")).nodes[0]
    assert [link.confirm for link in by_default.forward_to] == ["commitment", "auto"], "a node of the stack has storage commitment"
    # What the stack file calls its rules, the forwarder calls the same.
    said = long.model_dump(mode="json", by_alias=True)
    assert said["only"].keys() == said["not"].keys() == {*only, "origin"}
    assert Rules.of(said["only"], said["not"]) == Rules(
        modality=("CT", "M*"),
        calling_aet=("CT1",),
        station=("?",),
        study_description=("*chest*",),
        sop_class=("1.2",),
        origin="created",
        but_not=Lists(modality=("MG",)),
    )


def test_records_are_user_metadata_of_orthanc() -> None:
    numbers = {record_number(f"node-{i}") for i in range(2000)}
    assert min(numbers) >= 10000
    assert max(numbers) <= 59999
    # Pinned: another number would send everything again.
    assert record_number("server") == 57638


def test_settings_are_frozen() -> None:
    settings = settings_of(stack(node("a")))
    with pytest.raises(ValueError, match="frozen"):
        settings.nodes[0].aet = "B"  # type: ignore[misc]


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_the_projects_own_stack_files_are_valid(name: str) -> None:
    settings = load_stack_file(name)
    assert settings.environment == name
    assert [node.name for node in settings.nodes] == ["server", "client"]
    assert settings.nodes[1].targets == ("server",)
    assert [node.index for node in settings.nodes] == ["postgresql", "sqlite" if name == "dev" else "postgresql"]
    devices = [(one.aet, one.nodes, one.allow) for one in settings.modalities]
    workstation = ("WORKSTATION", ("server", "client"), (Operation.ECHO, Operation.STORE, Operation.FIND))
    assert devices == ([workstation] if name == "dev" else [])


def test_a_missing_stack_file_names_those_that_there_are() -> None:
    with pytest.raises(SettingsError, match=r"no Pulumi\.nowhere\.yaml.*Pulumi\.dev\.yaml"):
        load_stack_file("nowhere")


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_reference_pages_are_current(page: Any) -> None:
    assert pages()[page] == page.read_text(encoding="utf-8"), "run: ./orthanc-stack dev docs"


def test_every_wrong_stack_file_is_refused() -> None:
    printed = {path.stem: text for path, _, text in wrong_stack_files()}
    assert len(printed) >= 39
    assert [name for name, text in printed.items() if "Nothing was touched" not in text or " 0 problems" in text] == []


# --- secrets ---

GOOD = {"dbPassword": "Xk3Xk3Xk3Xk3X", "dbPassword.a": "Yk3Yk3Yk3Yk3Y", "userPassword.a.orthanc": "Zk3Zk3Zk3Zk3Z"}


def load_with(secrets: dict[str, str], *encrypted: str) -> Any:
    """Load a stack of prod with these secrets, of which some are encrypted."""
    nodes = '[{"name": "a", "aet": "A", "httpPort": 8042, "dicomPort": 4242, "tls": false}]'
    own = {"environment": "prod", "bind": "127.0.0.1", "nodes": nodes, "indexDb": '{"tls": false}', **secrets}
    config = {f"orthanc-stack:{key}": value for key, value in own.items()}
    return load(config, [f"orthanc-stack:{key}" for key in encrypted], "organization/orthanc-stack/prod", datetime.now(UTC)).settings


def test_the_secrets_of_a_stack() -> None:
    a, b = node("a", forwardTo=["b"]), node("b", 1, index="sqlite", users=["x", "y"])
    users = ("userPassword.a.orthanc", "userPassword.b.x", "userPassword.b.y")
    assert secret_keys(settings_of(stack(a, b))) == ("dbPassword", "dbPassword.a", "forwarderPassword.a", *users)
    assert secret_keys(settings_of(stack(b))) == users[1:]
    assert is_secret_key("forwarderPassword.of-a-node-that-is-gone")
    assert not is_secret_key("forwarderPasswords")


@pytest.mark.parametrize("key", GOOD)
def test_a_missing_secret_names_the_command_that_sets_it(key: str) -> None:
    assert load_with(GOOD, *GOOD).nodes[0].name == "a"
    others = {k: v for k, v in GOOD.items() if k != key}
    with pytest.raises(SettingsError, match=f"pulumi config set --secret {key}"):
        load_with(others, *others)


def test_a_setting_that_is_encrypted_is_refused_and_not_shown(tmp_path: Path) -> None:
    """Pulumi would hand it over in clear, and settings are an output of the stack, and in the state, in clear."""
    nodes = '[{"name": "a", "aet": "A", "httpPort": 8042, "dicomPort": 4242, "tls": false, "orthanc": {"WebDav": "hunter2"}}]'
    with pytest.raises(SettingsError, match="no setting is a secret") as refused:
        load_with(GOOD | {"nodes": nodes}, *GOOD, "nodes")
    assert "hunter2" not in str(refused.value)
    (tmp_path / "Pulumi.x.yaml").write_text(
        "config:\n  orthanc-stack:environment: dev\n  orthanc-stack:nodes:\n"
        "    - {name: a, aet: A, httpPort: 8042, dicomPort: 4242, orthanc: {Password: {secure: v1:x}}}\n"
    )
    with pytest.raises(SettingsError, match="no setting is a secret"):
        load_stack_file("x", tmp_path)


def test_a_secret_in_clear_is_refused_and_not_shown() -> None:
    with pytest.raises(SettingsError, match="in clear") as refused:
        load_with(GOOD, "dbPassword", "dbPassword.a")
    assert not any(value in str(refused.value) for value in GOOD.values())


@pytest.mark.parametrize(
    "value",
    ["", "pa$$word1234x", "two words 123", 'quo"te123456', "quo'te123456", "back\\slash12", "12345678901234", "true", "NULL", "1.5", "-3"],
)
def test_secrets_that_the_images_would_misread(value: str) -> None:
    problem = check_secret("dbPassword", value, encrypted=True, strict=False)
    assert problem is not None
    assert value == "" or repr(value) not in str(problem)


@pytest.mark.parametrize("value", ["short1x", "MyPassword2026", "orthanc-orthanc", "changeme-changeme"])
def test_weak_secrets_are_refused_outside_dev(value: str) -> None:
    assert check_secret("dbPassword", value, encrypted=True, strict=True) is not None
    assert check_secret("dbPassword", value, encrypted=True, strict=False) is None


@given(st.text(st.sampled_from("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrtuvwxyz23456789"), min_size=32, max_size=32))
def test_what_make_secrets_sets_is_never_misread(value: str) -> None:
    assert check_secret("dbPassword", f"x{value[1:]}", encrypted=True, strict=False) is None


def test_a_mistake_in_a_node_does_not_make_adminer_one() -> None:
    """The node may be the one whose index Adminer shows: advice to leave Adminer out would come first, and be wrong."""
    long = stack(node("a", aet="TOO_LONG_FOR_AN_AE_TITLE"), adminer={"port": 8080})
    assert list(problems_of(long)) == ["nodes[0].aet"]
    assert list(problems_of(stack(node("a", index="sqlite"), adminer={"port": 8080}))) == ["adminer"]
