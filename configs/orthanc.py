"""Orthanc's own options: the YAML files under configs/orthanc/, laid over each other, and what a stack file may not touch."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from configs.fields import unreachable
from configs.problems import NO_VALUE, Problem, nearest, path_of
from configs.secrets import needs_certificate
from configs.settings import NodeSettings, StackSettings

_FOLDER = Path(__file__).parent / "orthanc"

#: What the program computes from the topology and the secrets, or what its safety rests on: no stack file overrides it. With each, where to
#: say it instead.
COMPUTED: Mapping[tuple[str, ...], str] = {
    ("Name",): "it is the node's name",
    ("DicomAet",): "set the node's aet",
    ("DicomPort",): "set the node's dicomPort",
    ("DicomServerEnabled",): "every node speaks DICOM",
    ("HttpBindAddresses",): "set bind; inside its container, a node listens everywhere",
    ("HttpPort",): "set the node's httpPort",
    ("HttpServerEnabled",): "every node speaks HTTP",
    ("DicomModalities",): "set forwardTo of the nodes, or the stack's modalities",
    ("DicomModalitiesInDatabase",): "modalities are computed from the stack file",
    ("DicomAlwaysAllowEcho",): "list the device under modalities",
    ("DicomAlwaysAllowStore",): "list the device under modalities",
    ("DicomAlwaysAllowFind",): "list the device under modalities",
    ("DicomAlwaysAllowFindWorklist",): "list the device under modalities",
    ("DicomAlwaysAllowGet",): "list the device under modalities",
    ("DicomAlwaysAllowMove",): "list the device under modalities",
    ("RegisteredUsers",): "set the node's users and their secrets",
    ("AuthenticationEnabled",): "users always log in",
    ("RemoteAccessAllowed",): "set bind",
    ("DatabaseServerIdentifier",): "it is made from the stack's and the node's name",
    ("StorageDirectory",): "it is where the node's volume is mounted",
    ("IndexDirectory",): "it is where the node's volume is mounted",
    ("PythonScript",): "the stack's own script is Orthanc's only one",
    ("LuaScripts",): "the stack's own script says what each user may do; set the users' roles",
    ("SslEnabled",): "set the node's tls",
    ("SslCertificate",): "set the node's tls",
    ("SslVerifyPeers",): "users log in with passwords",
    ("SslTrustedClientCertificates",): "users log in with passwords",
    ("DicomTlsEnabled",): "set the node's tls",
    ("DicomTlsCertificate",): "set the node's tls",
    ("DicomTlsPrivateKey",): "set the node's tls",
    ("DicomTlsTrustedCertificates",): "set the node's tls, and that of those that it is linked to",
    ("DicomTlsRemoteCertificateRequired",): "with tls, both sides show a certificate",
    ("Plugins",): "the image knows where its plugins are",
    ("PostgreSQL", "EnableIndex"): "set the node's index",
    ("PostgreSQL", "EnableStorage"): "images stay in the node's volume",
    ("PostgreSQL", "ConnectionUri"): "the node's database is computed",
    ("PostgreSQL", "EnableSsl"): "set indexDb.tls",
    ("PostgreSQL", "Host"): "the node's database is computed",
    ("PostgreSQL", "Port"): "the node's database is computed",
    ("PostgreSQL", "Database"): "the node's database is computed",
    ("PostgreSQL", "Username"): "the node's database is computed",
    ("PostgreSQL", "Password"): "it is the secret dbPassword.<node>",
}

#: Orthanc's default of ConcurrentJobs.
_CONCURRENT_JOBS = 2
#: Orthanc's default of HttpThreadsCount.
_HTTP_THREADS = 50

#: Orthanc reads them as a C++ int, and refuses a negative one at its start (GetUnsignedIntegerParameter).
_MAX_INTEGER = 2**31 - 1

#: The options that change with a node's links.
OF_LINKS = frozenset({"ConcurrentJobs", "DicomModalities", "DicomThreadsCount", "HttpThreadsCount"})

_TYPES: Mapping[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "boolean or text": (bool, str),
    "integer": (int,),
    "list": (list,),
    "object": (dict,),
    "text": (str,),
    "text in any case": (str,),
}
_PEER = re.compile(r"[A-Za-z0-9_-]*")
#: More words than this are not listed.
_MOST_WORDS = 30


@cache
def _load(name: str) -> dict[str, Any]:
    with (_FOLDER / f"{name}.yaml").open(encoding="utf-8") as file:
        loaded: dict[str, Any] = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    return loaded


def overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """One set of options laid over another: objects key by key, everything else replaced, as Orthanc's images merge their files."""
    merged = dict(below)
    for key, value in above.items():
        mine = merged.get(key)
        merged[key] = overlay(mine, value) if isinstance(mine, Mapping) and isinstance(value, Mapping) else value
    return merged


def baseline(*, index: bool, tls: bool) -> dict[str, Any]:
    """The options that make a node safe, whoever deploys it: no unknown AE title is served, users log in, files are written through.

    Args:
        index: the node's index is in PostgreSQL.
        tls: the node speaks TLS with one peer at least.
    """
    options = overlay(_load("base"), _load("postgresql") if index else {})
    return overlay(options, _load("tls") if tls else {})


def options_of(node: NodeSettings, settings: StackSettings) -> dict[str, Any]:
    """A node's options, less what is computed: baseline, environment, image, room for its links, and its own block, in this order."""
    indexed = node.index == "postgresql"
    options = overlay(baseline(index=indexed, tls=needs_certificate(node, settings)), _load(settings.environment))
    if indexed and settings.images.source == "registry":
        options = overlay(options, _load("postgresql-registry"))
    return overlay(overlay(options, _room_for_links(node, settings, options)), node.orthanc)


def _room_for_links(node: NodeSettings, settings: StackSettings, options: Mapping[str, Any]) -> dict[str, int]:
    """Options of a node that forwards, or is forwarded to, so that its links take nothing away from its other users.

    Sending is a job of the sender, and answering a request for storage commitment is a job of the receiver: with the two jobs at once
    that Orthanc runs by default, a slow destination would hold up the others, and the answers. An association holds a thread of the
    receiver for as long as it lasts: each link brings its own, and one to ask for storage commitment with.
    """
    sent, received = node.forward_to, settings.links_to(node.name)
    room = {}
    if sent or received:
        room["ConcurrentJobs"] = _CONCURRENT_JOBS + sum(link.associations for link in sent) + len(received)
    if sent:
        # Of the forwarder, which keeps a connection for each of its threads; Orthanc gives each connection a thread.
        room["HttpThreadsCount"] = _HTTP_THREADS + sum(link.associations + 3 for link in sent)
    if received:
        room["DicomThreadsCount"] = int(options["DicomThreadsCount"]) + sum(link.associations + 1 for link in received)
    return room


def check_options(options: Mapping[str, Any], path: str) -> list[Problem]:
    """What is wrong with the ``orthanc:`` block of a node.

    Args:
        options: the block.
        path: its path in the stack file.
    """
    problems = [
        Problem(f"{path}.{path_of(key)}", f"is computed and cannot be overridden: {instead}.")
        for key, instead in COMPUTED.items()
        if _at(options, *key) is not NO_VALUE
    ]
    problems += _variables(options, (path,))
    problems += _section(options, _load("options"), path, ())
    return problems + [
        problem
        for section, peers in (("OrthancPeers", options.get("OrthancPeers")), ("DicomWeb.Servers", _at(options, "DicomWeb", "Servers")))
        for problem in _peers(peers, f"{path}.{section}")
    ]


def words_of(option: str) -> tuple[str, ...]:
    """The words that Orthanc takes for an option."""
    return tuple(_load("options")[option].partition(", one of ")[2].split())


def _section(options: Mapping[str, Any], known: Mapping[str, Any], path: str, keys: tuple[str, ...]) -> Iterator[Problem]:
    """What is wrong with a section, whose keys and what Orthanc takes for each are known."""
    for name, value in options.items():
        if (*keys, name) in COMPUTED:
            continue
        wanted = known.get(name, known.get("*"))
        if wanted is None:
            yield Problem(f"{path}.{name}", f"is not an option of Orthanc{''.join(f', in {key}' for key in keys)}.{nearest(name, known)}")
        elif isinstance(wanted, str):
            yield from _value(value, wanted, f"{path}.{name}")
        elif isinstance(value, Mapping):
            yield from _section(value, wanted, f"{path}.{name}", (*keys, name))
        else:
            yield from _value(value, "object", f"{path}.{name}")


def _value(value: object, wanted: str, path: str) -> Iterator[Problem]:
    """What is wrong with a value, by a line of options.yaml."""
    kind, _, rest = wanted.partition(", ")
    shown = value if isinstance(value, (str, int, float, bool)) else NO_VALUE
    if not _is_a(value, _TYPES[kind]):
        yield Problem(path, f"is not of the type that Orthanc wants: {kind}.", shown)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            if not isinstance(item, str) or not item:
                yield Problem(f"{path}[{i}]", "is not text, or is empty: Orthanc wants a list of text.")
    elif isinstance(value, str) and rest:
        words = rest.removeprefix("one of ").split()
        if value not in words and not (kind == "text in any case" and value.upper() in map(str.upper, words)):
            known = f"There are: {', '.join(words)}." if len(words) < _MOST_WORDS else f"Such as: {', '.join(words[1:4])}."
            yield Problem(path, f"is none of the words that Orthanc takes there. {known}", value)
    elif isinstance(value, int) and not isinstance(value, bool):
        low, high = map(int, rest.split(" to ")) if rest else (0, _MAX_INTEGER)
        if not low <= value <= high:
            yield Problem(path, f"is out of range; Orthanc takes {low} to {high}.", value)


def _peers(peers: object, path: str) -> Iterator[Problem]:
    """Other web servers that Orthanc calls: one that is its own container, or that Orthanc ends at (WebServiceParameters.cpp)."""
    for name, peer in peers.items() if isinstance(peers, Mapping) else ():
        if isinstance(peer, Mapping):
            url = peer.get("Url") or peer.get("URL")
        else:
            url = peer[0] if isinstance(peer, list) and len(peer) in (1, 3) else None
        if not _PEER.fullmatch(str(name)):
            yield Problem(f"{path}.{name}", "is no name of a server; Orthanc takes letters, digits, '-' and '_'.")
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            wanted = "[URL], [URL, user, password] or {Url: …}, and the URL begins with http:// or https://"
            yield Problem(f"{path}.{name}", f"is not what Orthanc takes for a server: {wanted}.")
            continue
        with contextlib.suppress(ValueError):  # brackets that hold no address
            if why := unreachable(urlsplit(url).hostname or ""):
                yield Problem(f"{path}.{name}", why)


def _variables(value: object, place: tuple[str | int, ...]) -> Iterator[Problem]:
    """``${NAME}`` anywhere, in keys as well: Orthanc would put its environment there (OrthancConfiguration.cpp, SubstituteVariables), and a
    text that nobody wrote could end the value that it stands in.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _variables(key, (*place, key))
            yield from _variables(inner, (*place, key))
    elif isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            yield from _variables(inner, (*place, i))
    elif isinstance(value, str) and "${" in value:
        yield Problem(path_of(place), "holds '${', which begins a variable of Orthanc's environment; write the value itself.", value)


def index_connections(node: NodeSettings, settings: StackSettings) -> int:
    """How many connections a node keeps open to PostgreSQL."""
    section = options_of(node, settings).get("PostgreSQL", {})
    count = section.get("IndexConnectionsCount") if isinstance(section, Mapping) else None
    return count if isinstance(count, int) else 0


def _at(options: Mapping[str, Any], *keys: str) -> Any:
    """What stands at a place; NO_VALUE where nothing does."""
    current: Any = options
    for part in keys:
        if not isinstance(current, Mapping) or part not in current:
            return NO_VALUE
        current = current[part]
    return current


def _is_a(value: object, types: tuple[type, ...]) -> bool:
    """isinstance, but for true and false, which are no integers in JSON."""
    return isinstance(value, types) and (bool in types or not isinstance(value, bool))
