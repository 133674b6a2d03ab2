"""Orthanc's own options: the YAML files under configs/orthanc/, laid over each other, and the check of a node's ``orthanc:`` block."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, reduce
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from configs.fields import unreachable
from configs.problems import NO_VALUE, Problem, nearest, path_of
from configs.secrets import needs_certificate
from configs.settings import LinkSettings, NodeSettings, StackSettings

_FOLDER = Path(__file__).parent / "orthanc"

#: What no stack file overrides, because the program computes it or its safety rests on it; with each option, what to set instead.
COMPUTED: Mapping[tuple[str, ...], str] = {
    tuple(option.split(".")): instead
    for options, instead in (
        ("Name", "it is the node's name"),
        ("DicomAet", "set the node's aet"),
        ("DicomPort", "set the node's dicomPort"),
        ("DicomServerEnabled", "every node speaks DICOM"),
        ("HttpBindAddresses", "set bind; inside its container, a node listens everywhere"),
        ("HttpPort", "set the node's httpPort"),
        ("HttpServerEnabled", "every node speaks HTTP"),
        ("DicomModalities", "set forwardTo of the nodes, or the stack's modalities"),
        ("DicomModalitiesInDatabase", "modalities are computed from the stack file"),
        ("DicomAlwaysAllowEcho DicomAlwaysAllowStore DicomAlwaysAllowFind", "list the device under modalities"),
        ("DicomAlwaysAllowFindWorklist DicomAlwaysAllowGet DicomAlwaysAllowMove", "list the device under modalities"),
        ("RegisteredUsers", "set the node's users and their secrets"),
        ("AuthenticationEnabled", "users always log in"),
        ("RemoteAccessAllowed", "set bind"),
        ("DatabaseServerIdentifier", "it is made from the stack's and the node's name"),
        ("StorageDirectory IndexDirectory", "it is where the node's volume is mounted"),
        ("PythonScript Python.Path Python.AllowThreads", "the stack's own script is Orthanc's only one"),
        ("LuaScripts", "the stack's own script says what each user may do; set the users' roles"),
        ("SslEnabled SslCertificate DicomTlsEnabled DicomTlsCertificate DicomTlsPrivateKey", "set the node's tls"),
        ("SslVerifyPeers SslTrustedClientCertificates", "users log in with passwords"),
        ("DicomTlsTrustedCertificates", "set the node's tls, and that of those that it is linked to"),
        ("DicomTlsRemoteCertificateRequired", "with tls, both sides show a certificate"),
        ("Plugins", "the image knows where its plugins are"),
        ("PostgreSQL.EnableIndex", "set the node's index"),
        ("PostgreSQL.EnableStorage", "images stay in the node's volume"),
        ("PostgreSQL.EnableSsl", "set indexDb.tls"),
        ("PostgreSQL.ConnectionUri PostgreSQL.Host PostgreSQL.Port", "the node's database is computed"),
        ("PostgreSQL.Database PostgreSQL.Username", "the node's database is computed"),
        ("PostgreSQL.Password", "it is the secret dbPassword.<node>"),
    )
    for option in options.split()
}

#: The options that change with a node's links.
OF_LINKS = frozenset(
    {"ConcurrentJobs", "DicomModalities", "DicomThreadsCount", "HttpThreadsCount", "JobsHistorySize", "StorageCommitmentReportsSize"}
)

#: Orthanc's defaults of ConcurrentJobs, HttpThreadsCount and StorageCommitmentReportsSize.
_CONCURRENT_JOBS, _HTTP_THREADS, _REPORTS = 2, 50, 100
#: Reports of storage commitment that a node has to remember for each destination: more than forwarder/link.py waits for (LATE).
REPORTS_OF_A_LINK = 200
#: Orthanc reads a C++ int, and refuses a negative one at its start (GetUnsignedIntegerParameter).
_MAX_INTEGER = 2**31 - 1
#: A message lists at most this many words.
_MOST_WORDS = 30
#: The types in options.yaml, alone or as in "boolean or text".
_TYPES = {"boolean": bool, "integer": int, "list": list, "object": dict, "text": str}


@cache
def _load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] | None = yaml.load((_FOLDER / f"{name}.yaml").read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return loaded or {}


def overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """One set of options laid over another: objects key by key, everything else replaced, as Orthanc's images merge their files."""
    both = {key for key in below.keys() & above.keys() if isinstance(below[key], Mapping) and isinstance(above[key], Mapping)}
    return {**below, **above, **{key: overlay(below[key], above[key]) for key in both}}


def baseline(*, index: bool, tls: bool) -> dict[str, Any]:
    """The options that make a node safe: no unknown AE title is served, users log in, files are written through.

    ``index`` adds those of an index in PostgreSQL, ``tls`` those of a node that speaks TLS with a peer.
    """
    return reduce(overlay, (_load("base"), _load("postgresql") if index else {}, _load("tls") if tls else {}))


def options_of(node: NodeSettings, settings: StackSettings) -> dict[str, Any]:
    """A node's options, except the computed ones: baseline, environment, image, room for its links, its own block, in this order."""
    indexed = node.index == "postgresql"
    image = _load("postgresql-registry") if indexed and settings.images.source == "registry" else {}
    safe = baseline(index=indexed, tls=needs_certificate(node, settings))
    options = reduce(overlay, (safe, _load(settings.environment), image))
    threads, history = int(options["DicomThreadsCount"]), int(options["JobsHistorySize"])
    room = room_for_links(node.forward_to, settings.links_to(node.name), threads, history)
    return reduce(overlay, (options, room, node.orthanc))


def room_for_links(sent: Sequence[LinkSettings], received: Sequence[LinkSettings], threads: int = 4, history: int = 20) -> dict[str, int]:
    """More jobs, threads and reports for a node that sends or receives on links, so that a link takes none from the node's other users.

    Sending is a job of the sender. Answering a request for storage commitment is a job of the receiver. Orthanc runs two jobs at once by
    default: a slow destination would delay the other destinations and the answers. An association holds a thread of the receiver for as
    long as it lasts: each link adds a thread for each of its associations, and one for its requests for storage commitment. ``threads`` are
    those for all other associations.

    A forwarder reads how its jobs ended, and has up to 100 requests for storage commitment open on each link, for up to a day. Orthanc
    forgets the jobs that ended first beyond JobsHistorySize (``history`` for other users), and the reports that nobody asked for longest
    beyond StorageCommitmentReportsSize (JobsRegistry.cpp, StorageCommitmentReports.cpp). A report of 100 images takes 30 kB of memory. A
    finished job of 100 images costs every later job 0.35 ms, because Orthanc saves them all whenever one changes: so there are not more.
    """
    room = {}
    if sent or received:
        room["ConcurrentJobs"] = _CONCURRENT_JOBS + sum(link.associations for link in sent) + len(received)
    if sent:  # each thread of the forwarder keeps a connection, and Orthanc gives each connection a thread
        room["HttpThreadsCount"] = _HTTP_THREADS + sum(link.associations + 3 for link in sent)
        room["JobsHistorySize"] = history + 20 * len(sent)
        room["StorageCommitmentReportsSize"] = _REPORTS + REPORTS_OF_A_LINK * len(sent)
    if received:
        room["DicomThreadsCount"] = threads + sum(link.associations + 1 for link in received)
    return room


def index_connections(node: NodeSettings, settings: StackSettings) -> int:
    """How many connections a node keeps open to PostgreSQL."""
    count = _at(options_of(node, settings), "PostgreSQL", "IndexConnectionsCount")
    return count if isinstance(count, int) else 0


def words_of(option: str) -> tuple[str, ...]:
    """The words that Orthanc takes for an option."""
    return tuple(_load("options")[option].partition(", one of ")[2].split())


def check_options(options: Mapping[str, Any], path: str) -> Iterator[Problem]:
    """What is wrong with a node's ``orthanc:`` block, whose place in the stack file is ``path``."""
    for key, instead in COMPUTED.items():
        if _at(options, *key) is not NO_VALUE:
            yield Problem(f"{path}.{path_of(key)}", f"is computed and cannot be overridden: {instead}.")
    yield from _variables(options, (path,))
    yield from _section(options, _load("options"), path, ())
    yield from _servers(options.get("OrthancPeers"), f"{path}.OrthancPeers")
    yield from _servers(_at(options, "DicomWeb", "Servers"), f"{path}.DicomWeb.Servers")


def computed_in(options: Mapping[str, Any], safe: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The options that may not be set otherwise than in a baseline, each with what to set instead."""
    for key, instead in COMPUTED.items():
        if _at(options, *key) not in (NO_VALUE, _at(safe, *key)):
            yield ".".join(key), instead


def _section(options: Mapping[str, Any], known: Mapping[str, Any], path: str, keys: tuple[str, ...]) -> Iterator[Problem]:
    """What is wrong with a section by a section of options.yaml; ``keys`` leads to it."""
    for name, value in options.items():
        wanted = known.get(name, known.get("*"))
        if (*keys, name) in COMPUTED:
            continue
        if wanted is None:
            yield Problem(f"{path}.{name}", f"is not an option of Orthanc{''.join(f', in {key}' for key in keys)}.{nearest(name, known)}")
        elif isinstance(value, Mapping) and not isinstance(wanted, str):
            yield from _section(value, wanted, f"{path}.{name}", (*keys, name))
        else:
            yield from _value(value, wanted if isinstance(wanted, str) else "object", f"{path}.{name}")


def _value(value: object, wanted: str, path: str) -> Iterator[Problem]:
    """What is wrong with a value, by a line of options.yaml."""
    kind, _, rest = wanted.partition(", ")
    shown = value if isinstance(value, (str, int, float, bool)) else NO_VALUE
    types = [_TYPES[word] for word in kind.removesuffix(" in any case").split(" or ")]
    if not isinstance(value, tuple(types)) or (isinstance(value, bool) and bool not in types):  # true is an integer in Python
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


def _servers(servers: object, path: str) -> Iterator[Problem]:
    """Other web servers that Orthanc calls: refused where it is the node's own container, or where Orthanc would not start with it."""
    for name, server in servers.items() if isinstance(servers, Mapping) else ():
        if isinstance(server, Mapping):  # both forms: WebServiceParameters.cpp
            url = server.get("Url") or server.get("URL")
        else:
            url = server[0] if isinstance(server, list) and len(server) in (1, 3) else None
        if not re.fullmatch(r"[A-Za-z0-9_-]*", str(name)):
            yield Problem(f"{path}.{name}", "is no name of a server; Orthanc takes letters, digits, '-' and '_'.")
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            wanted = "[URL], [URL, user, password] or {Url: …}, and the URL begins with http:// or https://"
            yield Problem(f"{path}.{name}", f"is not what Orthanc takes for a server: {wanted}.")
            continue
        with contextlib.suppress(ValueError):  # brackets that hold no address
            if why := unreachable(urlsplit(url).hostname or ""):
                yield Problem(f"{path}.{name}", why)


def _variables(value: object, place: tuple[str | int, ...]) -> Iterator[Problem]:
    """``${NAME}`` anywhere, also in keys: Orthanc puts a variable of its environment there (OrthancConfiguration.cpp, SubstituteVariables).

    The text of such a variable could end the value that it stands in.
    """
    if isinstance(value, str) and "${" in value:
        yield Problem(path_of(place), "holds '${', which begins a variable of Orthanc's environment; write the value itself.", value)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _variables(key, (*place, key))
            yield from _variables(inner, (*place, key))
    elif isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            yield from _variables(inner, (*place, i))


def _at(options: Mapping[str, Any], *keys: str) -> Any:
    """The value at a place; NO_VALUE where there is none."""
    current: Any = options
    for key in keys:
        current = current.get(key, NO_VALUE) if isinstance(current, Mapping) else NO_VALUE
    return current
