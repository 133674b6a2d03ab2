"""Options of Orthanc that would break what a node promises.

- RULES: what a link promises. A node keeps an acknowledged image until its destinations have it, and a destination has what it confirmed.
- PROTECTIONS: what keeps a node safe. In prod, a stack file that weakens a protection names the option under ``unsafe``.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from configs.orthanc import REPORTS_OF_A_LINK, options_of, words_of
from configs.problems import NO_VALUE, Problem, nearest
from configs.secrets import needs_certificate
from configs.settings import NodeSettings, StackSettings

FORWARDS = "a node that forwards"
RECEIVES = "a node that others forward to"
COMMITS = "a node that others forward to with confirm: commitment"
LINKED = "either end of a link"

#: Orthanc gives an image another SOP instance UID when it compresses it so (IDicomTranscoder.cpp, GetTranscodingType). Its own
#: transcoder compresses to no other lossy transfer syntax (DcmtkTranscoder.cpp).
_LOSSY = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 81, 91, 93))


@dataclass(frozen=True)
class Rule:
    """Values of an option that break a promise of a link."""

    option: str  #: Orthanc's name of it
    at: str  #: the nodes that the rule is for: FORWARDS, RECEIVES, COMMITS or LINKED
    values: Callable[[int], Container[object]]  #: the values that break the promise, by the number of the node's destinations
    wrong: str  #: the same, in words
    because: str  #: what would happen


def _rule(option: str, at: str, values: Sequence[object], because: str, wrong: str = "") -> Rule:
    named = " or ".join(str(value).lower() if isinstance(value, bool) else str(value) for value in values)
    return Rule(option, at, lambda _: values, wrong or named, because)


#: Each row has the values that are refused. Where two rows refuse a value, the first is reported. SaveJobs and StorageCompression may have
#: any value, and have no row: without saved jobs, a restart costs the forwarder one repetition, and no image.
RULES = (
    _rule("StoreDicom", LINKED, (False,), "it acknowledges images, and keeps none"),
    _rule("ReadOnly", LINKED, (True,), "it takes no image, and can write no record of what was confirmed"),
    _rule("SyncStorageArea", LINKED, (False,), "a power failure loses what it has acknowledged or confirmed"),
    _rule("DicomCheckModalityHost", LINKED, (True,), "it compares the caller's IP address with the other end's host name, and refuses it"),
    _rule(
        "OverwriteInstances",
        RECEIVES,
        (False, "Never", "IfChanged"),
        "it answers with success, and stores nothing, when an image comes again because its file here is broken or its content is new",
    ),
    _rule("OverwriteInstances", FORWARDS, (False, "Never"), "it acknowledges a corrected image, and neither keeps nor forwards it"),
    _rule("StoreMD5ForAttachments", COMMITS, (False,), "without it, the node cannot check a file before it confirms the image"),
    _rule(
        "IngestTranscoding",
        RECEIVES,
        _LOSSY,
        "it keeps each image under another SOP instance UID, and never has the one that was sent",
        f"lossy ({', '.join(_LOSSY)})",
    ),
    _rule(
        "DicomScuPreferredTransferSyntax",
        FORWARDS,
        _LOSSY,
        "an image that is compressed so for a destination gets another SOP instance UID with each transfer, and is never confirmed",
        f"lossy ({', '.join(_LOSSY)})",
    ),
    _rule("MaximumStorageMode", FORWARDS, ("Recycle",), "a full node deletes its oldest patient, forwarded or not"),
    _rule("MaximumStorageMode", COMMITS, ("Recycle",), "a full node deletes its oldest patient, which it has promised to keep"),
    _rule("JobsHistorySize", FORWARDS, range(20), "Orthanc forgets a job before its forwarder has read how it ended", "less than 20"),
    Rule(
        "StorageCommitmentReportsSize",
        FORWARDS,
        lambda links: range(1, REPORTS_OF_A_LINK * links),
        f"less than {REPORTS_OF_A_LINK} for each destination (0 is without end)",
        "Orthanc forgets a report that its forwarder waits for",
    ),
    _rule("CheckRevisions", FORWARDS, (True,), "its forwarder writes metadata without revisions"),
)


def check_promises(node: NodeSettings, settings: StackSettings, path: str) -> Iterator[Problem]:
    """The options of a node that break a promise of its links, and those that Orthanc refuses together at its start.

    ``path`` is the place of the node's ``orthanc:`` block in the stack file.
    """
    links = settings.links_to(node.name)
    holds = {
        FORWARDS: bool(node.forward_to),
        RECEIVES: bool(links),
        COMMITS: any(link.may_commit for link in links),
        LINKED: bool(node.forward_to or links),
    }
    said, count = node.orthanc, len(node.forward_to)
    broken = [rule for rule in RULES if holds[rule.at] and rule.option in said and said[rule.option] in rule.values(count)]
    for option, rule in {rule.option: rule for rule in reversed(broken)}.items():
        yield Problem(f"{path}.{option}", f"cannot be {rule.wrong} at {rule.at}: {rule.because}. Leave it out.", node.orthanc[option])
    for option, value, reason in _conflicts(options_of(node, settings), tls=needs_certificate(node, settings)):
        yield Problem(f"{path}.{option}", reason, value)


def _conflicts(options: Mapping[str, Any], *, tls: bool) -> Iterator[tuple[str, object, str]]:
    """Options that Orthanc takes one by one, and refuses together at its start (main.cpp, DicomTls.cpp): option, value, reason."""
    needs = "needs {}, or Orthanc does not start: leave one of the two out."
    if options.get("StoreMD5ForAttachments") is False:
        for option, wrong in (("OverwriteInstances", "IfChanged"), ("CheckRevisions", True)):
            if options.get(option) == wrong:
                yield option, wrong, needs.format("StoreMD5ForAttachments")
    if options.get("PatientLevelEnabled") is False:
        for option in ("MaximumPatientCount", "MaximumStorageSize"):
            if value := options.get(option):
                yield option, value, needs.format("PatientLevelEnabled")
    if tls and options.get("DicomTlsMinimumProtocolVersion") == 0 and options.get("DicomTlsCiphersAccepted"):
        reason = "is DICOM's own profile, with which Orthanc takes no ciphers, and does not start"
        yield "DicomTlsMinimumProtocolVersion", 0, f"{reason}: leave it out, or set DicomTlsCiphersAccepted to []."


def unlike_ends(settings: StackSettings) -> list[str]:
    """For each link between two nodes, what the sender accepts and the destination refuses: such images would be set aside."""
    options = {node.name: options_of(node, settings) for node in settings.nodes if node.forward_to or settings.links_to(node.name)}
    return [
        f"{node.name} -> {target}: {node.name} accepts images that {target} refuses ({'; '.join(more)}). They would be set aside. "
        "Set the same at both."
        for node in settings.forwarding_nodes
        for target in node.targets
        if target in options and (more := list(_more(options[node.name], options[target])))
    ]


def _more(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    """What a node accepts by its options and its destination does not."""
    if ours.get("UnknownSopClassAccepted") and not theirs.get("UnknownSopClassAccepted"):
        yield "UnknownSopClassAccepted: SOP classes that Orthanc does not know"
    refused = [uid for uid in theirs.get("RejectedSopClasses", ()) if not _matches(uid, ours.get("RejectedSopClasses", ()))]
    if refused:
        yield f"RejectedSopClasses: {_first(refused)}"
    accepted = theirs.get("AcceptedSopClasses") or ["*"]
    if any(not _matches(uid, accepted) for uid in ours.get("AcceptedSopClasses") or ["*"]):
        yield f"AcceptedSopClasses: it takes {_first(accepted)} alone"
    syntaxes, taken = ours.get("AcceptedTransferSyntaxes", ["*"]), theirs.get("AcceptedTransferSyntaxes", ["*"])
    refused = [uid for uid in words_of("IngestTranscoding") if _matches(uid, syntaxes) and not _matches(uid, taken)]
    if refused:
        yield f"AcceptedTransferSyntaxes: {_first(refused)}, unless it can be transcoded"


def _first(uids: Sequence[str]) -> str:
    return f"{', '.join(uids[:3])}{' …' if len(uids) > 3 else ''}"


def _matches(uid: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern matches a UID, or a pattern of UIDs: ``*`` is any text, ``?`` any character."""
    return any(fnmatchcase(uid, pattern) for pattern in patterns)


@dataclass(frozen=True)
class Protection:
    """An option that protects a node."""

    holds: Callable[[Any], bool]  #: whether the node is protected with a value of the option
    wanted: str  #: the values that protect, in words
    against: str  #: what another value allows


def _is(wanted: object, against: str) -> Protection:
    return Protection(lambda value: value is wanted, str(wanted).lower(), against)


def _bounded(against: str) -> Protection:
    return Protection(lambda value: isinstance(value, int) and value > 0, "more than 0", against)


def _modern(what: str) -> Protection:
    return Protection(lambda value: value in (4, 5), "4 or 5", f"{what} over protocols that are broken (before TLS 1.2)")


#: From the Orthanc Book (faq/security.html) and the CVEs of the options. The values that protect are in configs/orthanc/.
PROTECTIONS: Mapping[str, Protection] = {
    "DeidentifyLogs": _is(True, "patients' names get into the log"),
    "DicomCheckCalledAet": _is(True, "a caller that was set up for another node is served"),
    "DicomTlsMinimumProtocolVersion": _modern("DICOM goes"),
    "ExecuteLuaEnabled": _is(False, "a script that is posted to the node runs as Orthanc"),
    "HttpsVerifyPeers": _is(True, "anybody may pass for a server that the node calls"),
    "LimitFindInstances": _bounded("one open query lists the whole archive"),
    "LimitFindResults": _bounded("one open query lists the whole archive"),
    "MaximumFileSizeInArchiveMB": _bounded("a small ZIP file that is uploaded fills the memory (CVE-2026-5439)"),
    "MaximumRequestBodySizeMB": _bounded("an upload of any size is taken into memory (CVE-2026-5438)"),
    "MaximumStorageMode": Protection(lambda value: value == "Reject", "Reject", "a full node deletes its oldest patient in silence"),
    "RestApiWriteToFileSystemEnabled": _is(False, "a request writes over Orthanc's own files (CVE-2023-33466)"),
    "ServeFolders": Protection(lambda _: False, "nothing", "files of the container are served by HTTP"),
    "SslMinimumProtocolVersion": _modern("passwords go"),
    "SyncStorageArea": _is(True, "a power failure loses an image that was acknowledged"),
    "WebDavEnabled": _is(False, "a network drive shows patients, whatever the users' roles allow"),
}


def check_protection(node: NodeSettings, path: str, *, strict: bool) -> Iterator[Problem]:
    """Options that weaken a node and are not named under ``unsafe``, where that is wanted (``strict``); names there that weaken nothing.

    ``path`` is the node's place in the stack file.
    """
    weak = {name for name, value in node.orthanc.items() if name in PROTECTIONS and not PROTECTIONS[name].holds(value)}
    for name in sorted(weak.difference(node.unsafe) if strict else ()):
        protection, value = PROTECTIONS[name], node.orthanc[name]
        yield Problem(
            f"{path}.orthanc.{name}",
            f"is not safe in prod: {protection.against}. Safe is: {protection.wanted}. Leave it out; or, if it has to be, name it under "
            f"{path}.unsafe.",
            value if isinstance(value, (str, int, bool)) else NO_VALUE,
        )
    for i, name in enumerate(node.unsafe):
        if name not in PROTECTIONS:
            yield Problem(f"{path}.unsafe[{i}]", f"is no option that protects a node.{nearest(name, PROTECTIONS)}", name)
        elif name not in weak:
            yield Problem(f"{path}.unsafe[{i}]", f"is not weakened by this node's orthanc.{name}; leave it out.", name)
