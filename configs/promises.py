"""Options of Orthanc's that would end what a node promises.

- RULES: what a link promises. An image that a node has acknowledged is kept, and will be at its destination; a destination has what it has
  confirmed.
- PROTECTIONS: what keeps a node safe. In prod, a stack file that weakens one says so under ``unsafe``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from configs.orthanc import options_of, words_of
from configs.problems import NO_VALUE, Problem, nearest
from configs.secrets import needs_certificate
from configs.settings import NodeSettings, StackSettings

FORWARDS = "a node that forwards"
RECEIVES = "a node that others forward to"
COMMITS = "a node that others forward to with confirm: commitment"
LINKED = "either end of a link"

#: Orthanc gives an image another SOP instance UID when it compresses it so (IDicomTranscoder.cpp, GetTranscodingType).
_LOSSY = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 81, 91, 93))


@dataclass(frozen=True)
class Rule:
    """A value that ends a promise.

    Attributes:
        option: the option, by Orthanc's name.
        at: where it does, one of the words above.
        ends: whether a value does.
        wrong: the values that do, for a reader.
        because: what would happen.
    """

    option: str
    at: str
    ends: Callable[[Any], bool]
    wrong: str
    because: str


def _rule(option: str, at: str, wrong: tuple[object, ...], because: str) -> Rule:
    said = [str(value).lower() if isinstance(value, bool) else str(value) for value in wrong]
    return Rule(option, at, lambda value: value in wrong, " or ".join(said), because)


#: The first that fits is told. Not here, because nothing is lost by them: SaveJobs (the forwarder asks again for what a restart lost) and
#: StorageCompression.
RULES = (
    _rule("StoreDicom", LINKED, (False,), "it acknowledges images, and keeps none"),
    _rule("ReadOnly", LINKED, (True,), "it takes no image, and can write no record of what was confirmed"),
    _rule("SyncStorageArea", LINKED, (False,), "what it has acknowledged or confirmed is lost with the power"),
    _rule(
        "DicomCheckModalityHost",
        LINKED,
        (True,),
        "it compares the caller's IP address with the name that the other end has on the stack's network, and refuses it",
    ),
    _rule(
        "OverwriteInstances",
        RECEIVES,
        (False, "Never", "IfChanged"),
        "it answers with success, and stores nothing, when an image comes again because its file here is broken or its content is new",
    ),
    _rule(
        "OverwriteInstances",
        FORWARDS,
        (False, "Never"),
        "it acknowledges an image that was corrected, and neither keeps nor forwards it",
    ),
    _rule("StoreMD5ForAttachments", COMMITS, (False,), "by it the node compares each file before it confirms it"),
    Rule(
        "IngestTranscoding",
        RECEIVES,
        lambda value: value in _LOSSY,
        f"lossy ({', '.join(_LOSSY)})",
        "it keeps each image under another SOP instance UID, and never has the one that was sent",
    ),
    _rule("MaximumStorageMode", FORWARDS, ("Recycle",), "a full node deletes its oldest patient, forwarded or not"),
    _rule("MaximumStorageMode", COMMITS, ("Recycle",), "a full node deletes its oldest patient, which it has promised to keep"),
    Rule(
        "JobsHistorySize",
        FORWARDS,
        lambda value: isinstance(value, int) and value < 10,
        "less than 10",
        "Orthanc has forgotten a job before the forwarder is told how it ended, and everything is sent again",
    ),
    _rule("DicomEchoChecksFind", FORWARDS, (True,), "C-ECHO then also asks for C-FIND, which a destination does not allow: it seems away"),
    _rule("CheckRevisions", FORWARDS, (True,), "its forwarder writes metadata without their revisions"),
)


def check_promises(node: NodeSettings, settings: StackSettings, path: str) -> Iterator[Problem]:
    """The options of a node that end a promise of its links, and those with which Orthanc does not start together.

    Args:
        node: the node.
        settings: the stack that it belongs to.
        path: the path of its ``orthanc:`` block in the stack file.
    """
    links = settings.links_to(node.name)
    holds = {
        FORWARDS: bool(node.forward_to),
        RECEIVES: bool(links),
        COMMITS: any(link.confirm == "commitment" for link in links),
        LINKED: bool(node.forward_to or links),
    }
    told: set[str] = set()
    for rule in RULES:
        value = node.orthanc.get(rule.option, NO_VALUE)
        if holds[rule.at] and value is not NO_VALUE and rule.option not in told and rule.ends(value):
            told.add(rule.option)
            yield Problem(f"{path}.{rule.option}", f"cannot be {rule.wrong} at {rule.at}: {rule.because}. Leave it out.", value)
    yield from _together(options_of(node, settings), path, tls=needs_certificate(node, settings))


def _together(options: Mapping[str, Any], path: str, *, tls: bool) -> Iterator[Problem]:
    """Options that Orthanc takes one by one, and ends at its start when they come together (main.cpp, DicomTls.cpp)."""
    if options.get("StoreMD5ForAttachments") is False:
        for name, wrong in (("OverwriteInstances", "IfChanged"), ("CheckRevisions", True)):
            if options.get(name) == wrong:
                yield Problem(f"{path}.{name}", "needs StoreMD5ForAttachments, or Orthanc does not start: leave one of the two out.", wrong)
    if options.get("PatientLevelEnabled") is False:
        for name in ("MaximumPatientCount", "MaximumStorageSize"):
            if value := options.get(name):
                yield Problem(f"{path}.{name}", "needs PatientLevelEnabled, or Orthanc does not start: leave one of the two out.", value)
    if tls and options.get("DicomTlsMinimumProtocolVersion") == 0 and options.get("DicomTlsCiphersAccepted"):
        name, right = "DicomTlsMinimumProtocolVersion", "leave it out, or set DicomTlsCiphersAccepted to []"
        yield Problem(f"{path}.{name}", f"is DICOM's own profile, with which Orthanc takes no ciphers, and does not start: {right}.", 0)


def unlike_ends(settings: StackSettings) -> list[str]:
    """For each link between two nodes, what the sender accepts and the destination does not: such images would be set aside."""
    linked = {name for node in settings.forwarding_nodes for name in (node.name, *node.targets)}
    options = {node.name: options_of(node, settings) for node in settings.nodes if node.name in linked}
    found = []
    for node in settings.forwarding_nodes:
        for target in node.targets:
            if target in options and (more := list(_more(options[node.name], options[target]))):
                found.append(
                    f"{node.name} -> {target}: {node.name} accepts images that {target} refuses ({'; '.join(more)}). They would be "
                    "set aside. Set the same at both."
                )
    return found


def _more(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    if ours.get("UnknownSopClassAccepted") and not theirs.get("UnknownSopClassAccepted"):
        yield "UnknownSopClassAccepted: SOP classes that Orthanc does not know"
    refused = [uid for uid in theirs.get("RejectedSopClasses", ()) if not _covered(uid, ours.get("RejectedSopClasses", ()))]
    if refused:
        yield f"RejectedSopClasses: {', '.join(refused[:3])}"
    accepted = theirs.get("AcceptedSopClasses") or ["*"]
    if any(not _covered(uid, accepted) for uid in ours.get("AcceptedSopClasses") or ["*"]):
        yield f"AcceptedSopClasses: it takes {', '.join(accepted[:3])}{' …' if len(accepted) > 3 else ''} alone"
    syntaxes = [
        uid
        for uid in words_of("IngestTranscoding")
        if _covered(uid, ours.get("AcceptedTransferSyntaxes", ["*"])) and not _covered(uid, theirs.get("AcceptedTransferSyntaxes", ["*"]))
    ]
    if syntaxes:
        yield f"AcceptedTransferSyntaxes: {', '.join(syntaxes[:3])}{' …' if len(syntaxes) > 3 else ''}, unless it can be transcoded"


def _covered(uid: str, patterns: list[str] | tuple[()]) -> bool:
    """Whether a UID, or whatever a pattern matches, is matched by one of the patterns: ``*`` is any text, ``?`` any character."""
    return any(fnmatchcase(uid, pattern) for pattern in patterns)


@dataclass(frozen=True)
class Protection:
    """What an option protects from.

    Attributes:
        holds: whether a value of it still protects.
        wanted: the values that do, for a reader.
        against: what another value opens.
    """

    holds: Callable[[Any], bool]
    wanted: str
    against: str


def _is(value: object, against: str) -> Protection:
    return Protection(lambda said: said is value, str(value).lower(), against)


def _bounded(against: str) -> Protection:
    return Protection(lambda said: isinstance(said, int) and said > 0, "more than 0", against)


#: Orthanc's security guide (book, faq/security.html) and the CVEs of the options; the values that protect are in configs/orthanc/.
PROTECTIONS: Mapping[str, Protection] = {
    "DeidentifyLogs": _is(True, "patients' names get into the log"),
    "DicomCheckCalledAet": _is(True, "a caller that was set up for another node is served"),
    "DicomTlsMinimumProtocolVersion": Protection(
        lambda said: said in (4, 5), "4 or 5", "DICOM goes over protocols that are broken (before TLS 1.2)"
    ),
    "ExecuteLuaEnabled": _is(False, "a script that is posted to the node runs as Orthanc"),
    "HttpsVerifyPeers": _is(True, "anybody may pass for a server that the node calls"),
    "LimitFindInstances": _bounded("one open query lists the whole archive"),
    "LimitFindResults": _bounded("one open query lists the whole archive"),
    "MaximumFileSizeInArchiveMB": _bounded("a small ZIP file that is uploaded fills the memory (CVE-2026-5439)"),
    "MaximumRequestBodySizeMB": _bounded("an upload of any size is taken into memory (CVE-2026-5438)"),
    "MaximumStorageMode": Protection(lambda said: said == "Reject", "Reject", "a full node deletes its oldest patient in silence"),
    "RestApiWriteToFileSystemEnabled": _is(False, "a request writes over Orthanc's own files (CVE-2023-33466)"),
    "ServeFolders": Protection(lambda _: False, "nothing", "files of the container are served"),
    "SslMinimumProtocolVersion": Protection(
        lambda said: said in (4, 5), "4 or 5", "passwords go over protocols that are broken (before TLS 1.2)"
    ),
    "SyncStorageArea": _is(True, "an image that was acknowledged is lost with the power"),
    "WebDavEnabled": _is(False, "patients are on a network drive, past the users' roles"),
}


def check_protection(node: NodeSettings, path: str, *, strict: bool) -> Iterator[Problem]:
    """What weakens a node without a word, and words that weaken nothing.

    Args:
        node: the node.
        path: its path in the stack file.
        strict: whether an option that weakens must be named under ``unsafe`` (in prod).
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
