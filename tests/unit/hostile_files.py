"""Malformed stack files, generated and hand-picked, and what is known of each without the code that reads them."""

from __future__ import annotations

import copy
import datetime
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from configs.names import PROJECT

#: Stands for a key that is taken out.
GONE = object()

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class HostileFile:
    """One malformed stack file.

    Attributes:
        kind: the class that it belongs to.
        where: the path that it is wrong at; empty where it is the file itself.
        content: the bytes of the file.
        config: the same as Pulumi hands it over, or None where Pulumi cannot: it is no YAML, or holds what JSON does not.
    """

    kind: str
    where: Path
    content: bytes
    config: dict[str, str] | None = None


def valid() -> dict[str, Any]:
    """A stack file that says everything once. It must load, or nothing that follows proves anything."""
    return {
        "environment": "dev",
        "bind": "127.0.0.1",
        "images": {"source": "registry", "orthanc": "orthancteam/orthanc:26.8.1", "postgres": "postgres:17.9", "adminer": "adminer:5.5.0"},
        "indexDb": {"majorVersion": 17, "maxConnections": 100},
        "nodes": [
            {"name": "archive", "aet": "ARCHIVE", "httpPort": 8042, "dicomPort": 4242, "index": "postgresql"},
            {
                "name": "ct",
                "aet": "CT",
                "httpPort": 8043,
                "dicomPort": 4243,
                "index": "sqlite",
                "keep": "until-confirmed after 7d",
                "metricsPort": 9100,
                "bind": "127.0.0.2",
                "users": ["orthanc", "reader"],
                "forwardTo": [{"to": "archive", "only": {"modality": ["CT", "M*"]}, "associations": 3, "confirm": "commitment"}],
                "orthanc": {"StableAge": 30, "Locale": "C", "PostgreSQL": {"IndexConnectionsCount": 1}, "DicomWeb": {"Root": "/web/"}},
            },
        ],
        "modalities": [{"name": "ct1", "aet": "CT1", "host": "10.20.0.7", "port": 104, "nodes": ["ct"], "allow": ["echo", "store"]}],
        "adminer": {"port": 8080, "bind": "127.0.0.1"},
    }


# --- what may stand where: written down once more, by hand ---


def _text(pattern: str, *not_these: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII) is not None and value not in not_these


def _integer(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _or_nothing(rule: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or rule(value)


def _section(value: Any) -> bool:
    """A plugin's section: it may hold what only the plugin knows."""
    return value in ({}, {"a": {"b": []}}, {"": ""})


def _free(value: Any) -> bool:
    """A value that only a plugin knows: whatever JSON holds, in bounds."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError):
        return False
    if json.loads(text) != value or text.count("[") + text.count("{") > 30 or "${" in text:  # of keys, JSON would make text
        return False
    if isinstance(value, str):
        return not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", value)
    return not isinstance(value, int) or abs(value) < 2**63


def _never(_: Any) -> bool:
    return False


_AET = _text(r"(?!.*\$\{)[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?")
_NAME = _text(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?", "db", "adminer", "db-roles", "localhost")
_PORT = _integer(1, 65535)
_ADDRESS = _or_nothing(_text(r"\d+\.\d+\.\d+\.\d+|[0-9a-f:]*:[0-9a-f:]*"))
_IMAGE = _text(r"[a-z0-9][a-z0-9./:-]*:[\w.-]+")

#: At which path a value may be valid. Whole sections are replaced by values that none of them is.
MAY_BE: dict[Path, Callable[[Any], bool]] = {
    ("environment",): _text("dev|prod"),
    ("bind",): _ADDRESS,
    ("images",): lambda value: value == {},
    ("images", "source"): _text("auto|registry|local"),
    ("images", "orthanc"): _IMAGE,
    ("images", "postgres"): _IMAGE,
    ("images", "adminer"): _IMAGE,
    ("indexDb",): lambda value: value == {},
    ("indexDb", "majorVersion"): _integer(17, 17),
    ("indexDb", "maxConnections"): _integer(20, 5000),
    ("nodes",): _never,
    ("nodes", 1): _never,
    ("nodes", 1, "name"): _NAME,
    ("nodes", 1, "aet"): _AET,
    ("nodes", 1, "httpPort"): _PORT,
    ("nodes", 1, "dicomPort"): _PORT,
    ("nodes", 1, "index"): _text("postgresql|sqlite"),
    ("nodes", 1, "keep"): _text("forever|until-confirmed( after [0-9]{1,6}[smhd])?"),
    ("nodes", 1, "metricsPort"): _or_nothing(_PORT),
    ("nodes", 1, "bind"): _ADDRESS,
    ("nodes", 1, "users"): _never,
    ("nodes", 1, "users", 1): _text("[A-Za-z][A-Za-z0-9_-]{0,31}", "orthanc", "forwarder"),
    ("nodes", 1, "forwardTo"): lambda value: value == [],  # refused, but at `keep` and `metricsPort`
    ("nodes", 1, "forwardTo", 0): _never,
    ("nodes", 1, "forwardTo", 0, "to"): _never,
    ("nodes", 1, "forwardTo", 0, "only"): lambda value: value == {},
    ("nodes", 1, "forwardTo", 0, "only", "modality"): _never,
    ("nodes", 1, "forwardTo", 0, "only", "modality", 0): lambda value: (
        isinstance(value, str) and value.strip() != "" and len(value) <= 256 and not re.search(r"[\x00-\x1f\x7f-\x9f]", value)
    ),
    ("nodes", 1, "forwardTo", 0, "associations"): _integer(1, 16),
    ("nodes", 1, "forwardTo", 0, "confirm"): _text("commitment|query"),
    ("nodes", 1, "orthanc"): lambda value: value == {},
    ("nodes", 1, "orthanc", "StableAge"): _integer(0, 2**31 - 1),
    ("nodes", 1, "orthanc", "Locale"): lambda value: (
        isinstance(value, str) and "${" not in value and not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", value)
    ),
    ("nodes", 1, "orthanc", "PostgreSQL"): _section,
    ("nodes", 1, "orthanc", "PostgreSQL", "IndexConnectionsCount"): _integer(0, 2**31 - 1),
    ("nodes", 1, "orthanc", "DicomWeb"): _section,
    ("nodes", 1, "orthanc", "DicomWeb", "Root"): _free,
    ("modalities",): lambda value: value is None or value == [],
    ("modalities", 0): _never,
    ("modalities", 0, "name"): _NAME,
    ("modalities", 0, "aet"): _AET,
    ("modalities", 0, "host"): _text(r"[A-Za-z0-9.:-]+"),
    ("modalities", 0, "port"): _PORT,
    ("modalities", 0, "nodes"): _never,
    ("modalities", 0, "nodes", 0): _text("ct|archive"),
    ("modalities", 0, "allow"): lambda value: value == [],
    ("modalities", 0, "allow", 0): _text("echo|find|get|move"),
    ("adminer",): lambda value: value is None or value == {},
    ("adminer", "port"): _PORT,
    ("adminer", "bind"): _ADDRESS,
}

#: What is put at each of these paths, by class.
VALUES: dict[str, list[Any]] = {
    "nothing": [None],
    "truth values": [True, False],
    "numbers out of range": [-1, 0, 65536, 2**31, 2**63, 10**30],
    "floats": [8042.0, 1.5, 1e308],
    "no finite number": [float("nan"), float("inf"), float("-inf")],
    "numbers as text": ["8042", "0x1f90", "1e3", "\u096e\u0966\u096a\u0968"],
    "empty and very long text": ["", " ", "x" * 5000, "\t"],
    "control characters": ["a\0b", "a\x1b[2Jb", "a\x7fb", "a\x85b", "a\rb"],
    "new lines": ["A\nB", 'A"\n  aet: "B', "\n"],
    "look-alikes": ["\u0430r\u0441hive", "\uff41\uff52\uff43\uff48\uff49\uff56\uff45", "archive\u200b", "\ufb01le", "\u00dftore"],
    "text turned round": ["\u202eevihcra", "a\u2066b\u2069", "\ufeffarchive"],
    "paths out of a folder": ["../../etc/passwd", "/etc/passwd", "..", "file:///etc/passwd"],
    "shell": ["$(reboot)", "`id`", "; rm -rf /", "a|b", "-rf", "'; drop table resources; --"],
    "Orthanc's variables": ["${HOME}", "a${X:-b}"],
    "addresses": ["fe80::1%eth0", "10.0.0.256", "1.2.3.4.5", ":::::", "[::1]", "http://a:80/", "a..b", "-a.b", "224.0.0.1/4"],
    "other shapes": [[], {}, [[]], [{}], [None], [["archive"]], {"a": {"b": []}}, {"": ""}, [[[[[]]]]]],
    "YAML's own kinds": [datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 2, 3, 4), b"\0\xff", {"a", "b"}],
    "keys that are no text": [{1: 2}, {None: 1}, {True: 1}, {1.5: 1}, {datetime.date(2026, 1, 2): 1}],
    "nested": [json.loads("[" * 100 + "]" * 100), json.loads('{"a":' * 100 + "1" + "}" * 100)],
}


def put(raw: dict[str, Any], where: Path, value: Any) -> dict[str, Any]:
    """A copy of a stack file with another value at a path; GONE takes it out."""
    made = copy.deepcopy(raw)
    holder: Any = made
    for part in where[:-1]:
        holder = holder[part]
    if value is GONE:
        del holder[where[-1]]
    else:
        holder[where[-1]] = value
    return made


def as_yaml(raw: dict[str, Any]) -> bytes:
    """The stack file of some settings."""
    config = {f"{PROJECT}:{key}": value for key, value in raw.items()}
    return yaml.dump({"config": config}, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), allow_unicode=True).encode()


def as_config(raw: dict[str, Any]) -> dict[str, str] | None:
    """The settings as Pulumi hands them over; None where it could not, because they are not JSON."""
    try:
        return {f"{PROJECT}:{k}": v if isinstance(v, str) else _strict(v) for k, v in raw.items() if v is not None}
    except (TypeError, ValueError):
        return None


def _strict(value: Any) -> str:
    text = json.dumps(value, allow_nan=False)
    if json.loads(text) != value:  # keys that JSON would turn into text
        raise ValueError("not JSON")
    return text


def generated() -> Iterator[HostileFile]:
    """Each value at each path, less what may be valid there."""
    base = valid()
    for kind, values in VALUES.items():
        for where, may_be in MAY_BE.items():
            for value in values:
                if not may_be(value):
                    yield _made(kind, where, put(base, where, value), also_of_pulumi=not (len(where) == 1 and value is None))


def built() -> Iterator[HostileFile]:
    """Malformed in how the parts hang together."""
    base = valid()
    required = [("nodes",), *(("nodes", 1, k) for k in ("name", "aet", "httpPort", "dicomPort"))]
    required += [("modalities", 0, k) for k in ("name", "aet", "host", "port", "nodes")]
    for where in [*required, ("nodes", 1, "forwardTo", 0, "to")]:
        yield _made("missing", where, put(base, where, GONE))
    mappings: list[Path] = [(), ("images",), ("indexDb",), ("nodes", 1), ("nodes", 1, "orthanc"), ("modalities", 0), ("adminer",)]
    mappings += [("nodes", 1, "forwardTo", 0), ("nodes", 1, "forwardTo", 0, "only")]
    for place in mappings:
        for key in ("colour", "Name", "__class__", "a.b", "a[0]", "\u202eaet", "x" * 5000, "", " ", "a\nb", "../x", "${HOME}"):
            yield _made("unknown keys", (*place, key), put(base, (*place, key), "x"), exact=False)
    for field in ("name", "aet"):
        yield _made("twice", ("nodes", 1, field), put(base, ("nodes", 1, field), base["nodes"][0][field]), exact=False)
    yield _made("twice", ("nodes", 0, "dicomPort"), put(base, ("nodes", 0, "dicomPort"), 8042))
    yield _made("twice", ("adminer", "port"), put(base, ("adminer", "port"), 8042))
    yield _made("twice", ("nodes", 1, "metricsPort"), put(base, ("nodes", 1, "metricsPort"), 8043))
    yield _made("twice", ("nodes", 1, "users"), put(base, ("nodes", 1, "users"), ["a", "a"]))
    yield _made("twice", ("modalities", 0, "allow"), put(base, ("modalities", 0, "allow"), ["echo", "echo"]))
    yield _made("twice", ("modalities", 0, "nodes"), put(base, ("modalities", 0, "nodes"), ["ct", "ct"]))
    yield _made("twice", ("nodes", 1, "forwardTo", 1), put(base, ("nodes", 1, "forwardTo"), ["archive", "archive"]))
    yield _made("twice", ("nodes", 1), put(base, ("nodes", 0), base["nodes"][1]), exact=False)
    for name in ("db", "adminer", "db-roles", "localhost", "ct-forwarder"):
        yield _made("reserved", ("nodes", 0, "name"), put(base, ("nodes", 0, "name"), name))
    yield _made("reserved", ("nodes", 1, "users", 0), put(base, ("nodes", 1, "users"), ["forwarder"]))
    yield _made("loops", ("nodes", 0, "forwardTo"), put(base, ("nodes", 0, "forwardTo"), ["ct"]))
    yield _made("loops", ("nodes", 1, "forwardTo", 0), put(base, ("nodes", 1, "forwardTo"), ["ct"]))
    many = [{"name": f"n{i}", "aet": f"N{i}", "httpPort": 1024 + 2 * i, "dicomPort": 1025 + 2 * i} for i in range(5000)]
    yield _made("thousands", ("nodes",), put(base, ("nodes",), many), exact=False)
    yield _made("thousands", ("nodes",), put(base, ("nodes",), [base["nodes"][0]] * 3000), exact=False)
    lost = [node | {"forwardTo": [f"nobody-{k}" for k in range(60)]} for node in many[:300]]
    yield _made("thousands", ("nodes",), put(base, ("nodes",), lost), exact=False)
    yield _made("thousands", ("nodes", 1, "forwardTo"), put(base, ("nodes", 1, "forwardTo"), ["archive"] * 20000), exact=False)
    yield _made("thousands", ("nodes", 1, "users"), put(base, ("nodes", 1, "users"), [f"u{i}" for i in range(20000)]))
    devices = [base["modalities"][0] | {"name": f"m{i}", "aet": f"M{i}"} for i in range(3000)]
    yield _made("thousands", ("modalities",), put(base, ("modalities",), devices), exact=False)
    strange = base["nodes"][1] | {f"key{i}": i for i in range(20000)}
    yield _made("thousands", ("nodes", 1), put(base, ("nodes", 1), strange), exact=False)


def _made(kind: str, where: Path, raw: dict[str, Any], *, exact: bool = True, also_of_pulumi: bool = True) -> HostileFile:
    return HostileFile(kind, where if exact else where[:1], as_yaml(raw), as_config(raw) if also_of_pulumi else None)


_GOOD = as_yaml(valid()).decode()
_NODES = f"  {PROJECT}:nodes:\n    - {{name: a, aet: A, httpPort: 8042, dicomPort: 4242"
_LAUGHS = "\n".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}' if i else 'ha'] * 10)}]" for i in range(12))
_LONG = f"x: &x {'ha' * 50000}\ny: [{', '.join(['*x'] * 5000)}]\n"

#: Files that are no YAML, no text, or not a stack file's shape.
BY_HAND: dict[str, list[str | bytes]] = {
    "no text": [
        b"\xff\xfe\x00c",
        b"config:\n  \xe4: 1\n",
        bytes(range(256)),
        b"\x7fELF\x02\x01\x01" + bytes(64),
        b"\x1f\x8b\x08" + bytes(32),
    ],
    "not UTF-8": [_GOOD.encode("utf-16"), _GOOD.encode("utf-32"), _GOOD.replace("ARCHIVE", "ÄRCHIVE").encode("latin-1")],
    "nothing in it": ["", "\n\n", "# only a comment\n", "---\n", "config:\n", "config: {}\n", "config: ~\n", "{}"],
    "another shape": [
        "- 1\n",
        "hello\n",
        "42\n",
        "true\n",
        "config: [1, 2]\n",
        "config: text\n",
        "config: 7\n",
        "2026-01-02\n",
        "[" + _GOOD + "]",
    ],
    "two documents": [_GOOD + "---\n" + _GOOD, _GOOD + "...\n%YAML 9.9\n---\n"],
    "broken YAML": [
        _GOOD[:-40] + "{",
        _GOOD + "\t- a: b\n",
        "config:\n\torthanc-stack:bind: x\n",
        "a: b: c: d",
        "'",
        '"\\x',
        "!",
        "? ? ?",
        "*nobody",
    ],
    "merge conflict": [f"<<<<<<< HEAD\n{_GOOD}=======\n{_GOOD}>>>>>>> other\n"],
    "control characters in the file": [_GOOD + "\0", _GOOD.replace("ARCHIVE", "ARC\x07HIVE"), "\x1b[2J" + _GOOD],
    "tags": [
        f"{_NODES}, aet2: !!python/object/apply:os.system [id]}}\n",
        f"config: !!python/object/new:os.system [id]\n",  # noqa: F541 - beside its like
        f"config:\n  {PROJECT}:bind: !!python/name:os.system\n",
        f"config:\n  {PROJECT}:bind: !Ref x\n",
        f"config:\n  {PROJECT}:indexDb: {{maxConnections: !!int many}}\n",
        f"config:\n  {PROJECT}:bind: !!timestamp later\n",
        f"config:\n  {PROJECT}:bind: !!binary '***'\n",
        f"config:\n  {PROJECT}:bind: !!bool maybe\n",
        f"config:\n  {PROJECT}:bind: !!int ''\n",
        f"config:\n  {PROJECT}:bind: !!float x\n",
        f"config:\n  {PROJECT}:bind: !!pairs [a]\n",
        f"config:\n  {PROJECT}:nodes: !!omap [a: 1]\n",
        f"config:\n  {PROJECT}:nodes: !!set {{a, b}}\n",
    ],
    "values that Python refuses": [
        f"config:\n  {PROJECT}:bind: 2026-13-45\n",
        f"config:\n  {PROJECT}:bind: 2026-02-30T25:61:61\n",
        f"config:\n  {PROJECT}:indexDb: {{maxConnections: {'9' * 6000}}}\n",
        f"config:\n  {PROJECT}:indexDb: {{maxConnections: {'9' * 4000}}}\n",
        f"config:\n  {PROJECT}:indexDb: {{maxConnections: 0x{'f' * 6000}}}\n",
        f"config:\n  {PROJECT}:indexDb: {{maxConnections: 1:{'60:' * 300}1}}\n",
    ],
    "keys": [
        _GOOD + "  5: 6\n",
        _GOOD + "  2026-01-02: 6\n",
        _GOOD + "  ~: 6\n",
        _GOOD + "  true: 6\n",
        _GOOD + "  ? [a, b]\n  : 6\n",
        _GOOD + "  ? {a: b}\n  : 6\n",
        _GOOD + f"  {PROJECT}:: 6\n",
        _GOOD + f"  {PROJECT}:nodes:extra: 6\n",
        _GOOD + f"  {PROJECT}:environment: dev\n",
        _GOOD + f"  {PROJECT}:environment: prod\n",
        _GOOD + "config: {}\n",
        f"config:\n{_NODES}, aet: B}}\n",
        f"config:\n{_NODES}, 'aet': A}}\n",
    ],
    "aliases": [
        f"{_LAUGHS}\nconfig:\n  {PROJECT}:nodes: *l11\n",
        _LAUGHS + "\n" + _GOOD,
        f"config:\n  {PROJECT}:nodes: &a [*a]\n",
        f"config: &a\n  {PROJECT}:nodes: *a\n",
        f"config:\n{_NODES}, orthanc: &x {{DicomWeb: *x}}}}\n",
        f"config:\n  {PROJECT}:nodes: &a\n    - {{<<: *a}}\n",
        "config: &a {<<: *a}\n",
        f"config:\n  <<: [1, 2]\n  {PROJECT}:bind: x\n",
        f"config:\n  <<: text\n",  # noqa: F541
        _LONG + _GOOD,
        "".join(f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 2) if i else ''}], k{i}: 1}}\n" for i in range(40)),
    ],
    "deep and large": [
        "[" * 20000,
        "{a: " * 20000,
        f"config:\n  {PROJECT}:nodes: {'[' * 5000}{']' * 5000}\n",
        "- " * 20000,
        "\n".join(" " * i + "a:" for i in range(1200)),
        f"config:\n  {PROJECT}:bind: {'x' * 900_000}\n",
        f"config:\n  {PROJECT}:bind: {'x' * 1_100_000}\n",
        f"config:\n  {'x' * 900_000}: 1\n",
        f"config:\n  {PROJECT}:{'y' * 900_000}: 1\n",
        f"config:\n  {PROJECT}:nodes: [{'a,' * 300_000}]\n",
        "#" * 2_000_000,
    ],
}


def by_hand() -> Iterator[HostileFile]:
    """The hand-picked ones."""
    for kind, contents in BY_HAND.items():
        for content in contents:
            yield HostileFile(kind, (), content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))


def all_of_them() -> list[HostileFile]:
    """Every one, none twice."""
    return list({file.content: file for file in [*generated(), *built(), *by_hand()]}.values())
