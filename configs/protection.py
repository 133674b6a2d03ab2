"""Options of Orthanc's that protect a node: what weakens each, and that a stack file says so on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from configs.problems import NO_VALUE, Problem, nearest
from configs.settings import NodeSettings


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
