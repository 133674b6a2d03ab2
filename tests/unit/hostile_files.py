"""Malformed stack files, generated and hand-picked, and what is known of each without the code that reads them."""

from __future__ import annotations

import copy
import datetime
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from configs.names import PROJECT
from tests.unit.stacks import place_of

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


def _one_of(*values: Any) -> Callable[[Any], bool]:
    return lambda value: value in values


def _pattern(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != "" and len(value) <= 256 and not re.search(r"[\x00-\x1f\x7f-\x9f]", value)


def _option(value: Any) -> bool:
    return isinstance(value, str) and "${" not in value and not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", value)


#: At which path a value may be valid. Whole sections are replaced by values that none of them is.
MAY_BE: dict[Path, Callable[[Any], bool]] = {
    place_of(path): may_be
    for may_be, paths in (
        (_text("dev|prod"), "environment"),
        (_ADDRESS, "bind nodes[1].bind adminer.bind"),
        (_one_of({}), "images indexDb nodes[1].forwardTo[0].only nodes[1].orthanc"),
        (_one_of([]), "nodes[1].forwardTo modalities[0].allow"),  # without links it is refused, but at `keep` and `metricsPort`
        (_one_of(None, []), "modalities"),
        (_one_of(None, {}), "adminer"),
        (_text("auto|registry|local"), "images.source"),
        (_IMAGE, "images.orthanc images.postgres images.adminer"),
        (_integer(17, 17), "indexDb.majorVersion"),
        (_integer(20, 5000), "indexDb.maxConnections"),
        (_never, "nodes nodes[1] nodes[1].users nodes[1].forwardTo[0] nodes[1].forwardTo[0].to nodes[1].forwardTo[0].only.modality"),
        (_never, "modalities[0] modalities[0].nodes"),
        (_NAME, "nodes[1].name modalities[0].name"),
        (_AET, "nodes[1].aet modalities[0].aet"),
        (_PORT, "nodes[1].httpPort nodes[1].dicomPort modalities[0].port adminer.port"),
        (_or_nothing(_PORT), "nodes[1].metricsPort"),
        (_text("postgresql|sqlite"), "nodes[1].index"),
        (_text("forever|until-confirmed( after [0-9]{1,6}[smhd])?"), "nodes[1].keep"),
        (_text("[A-Za-z][A-Za-z0-9_-]{0,31}", "orthanc", "forwarder"), "nodes[1].users[1]"),
        (_pattern, "nodes[1].forwardTo[0].only.modality[0]"),
        (_integer(1, 16), "nodes[1].forwardTo[0].associations"),
        (_text("commitment|query"), "nodes[1].forwardTo[0].confirm"),
        (_integer(0, 2**31 - 1), "nodes[1].orthanc.StableAge nodes[1].orthanc.PostgreSQL.IndexConnectionsCount"),
        (_option, "nodes[1].orthanc.Locale"),
        (_section, "nodes[1].orthanc.PostgreSQL nodes[1].orthanc.DicomWeb"),
        (_free, "nodes[1].orthanc.DicomWeb.Root"),
        (_text(r"[A-Za-z0-9.:-]+"), "modalities[0].host"),
        (_text("ct|archive"), "modalities[0].nodes[0]"),
        (_text("echo|find|get|move"), "modalities[0].allow[0]"),
    )
    for path in paths.split()
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
    """The settings as Pulumi hands them over; None where it could not, because they are not JSON, or are nothing."""
    try:
        said = {f"{PROJECT}:{key}": value if isinstance(value, str) else json.dumps(value, allow_nan=False) for key, value in raw.items()}
    except (TypeError, ValueError):
        return None
    # Of keys that are no text, JSON would make text.
    same = all(isinstance(value, str) or json.loads(said[f"{PROJECT}:{key}"]) == value for key, value in raw.items())
    return said if same and None not in raw.values() else None


def _made(kind: str, where: Path, value: Any, *, at: Path | None = None) -> HostileFile:
    """A value at a path, which makes it wrong there, or at another path that then is to be named."""
    raw = put(valid(), where, value)
    return HostileFile(kind, where if at is None else at, as_yaml(raw), as_config(raw))


def generated() -> Iterator[HostileFile]:
    """Each value at each path, less what may be valid there."""
    for kind, values in VALUES.items():
        for where, may_be in MAY_BE.items():
            yield from (_made(kind, where, value) for value in values if not may_be(value))


#: Of these, each key that there must be is taken out, and keys that there are not are added.
_REQUIRED = "nodes nodes[1].name nodes[1].aet nodes[1].httpPort nodes[1].dicomPort nodes[1].forwardTo[0].to modalities[0].name"
_REQUIRED += " modalities[0].aet modalities[0].host modalities[0].port modalities[0].nodes"
_MAPPINGS = ["", "images", "indexDb", "nodes[1]", "nodes[1].orthanc", "modalities[0]", "adminer", "nodes[1].forwardTo[0]"]
_MAPPINGS += ["nodes[1].forwardTo[0].only"]
_UNKNOWN = ("colour", "Name", "__class__", "a.b", "a[0]", "\u202eaet", "x" * 5000, "", " ", "a\nb", "../x", "${HOME}")


def built() -> Iterator[HostileFile]:
    """Malformed in how the parts hang together."""
    archive, ct = valid()["nodes"]
    device = valid()["modalities"][0]
    nodes, links, users = ("nodes",), ("nodes", 1, "forwardTo"), ("nodes", 1, "users")
    yield from (_made("missing", place_of(path), GONE) for path in _REQUIRED.split())
    unknown = [(*place_of(path), key) for path in _MAPPINGS for key in _UNKNOWN]
    yield from (_made("unknown keys", where, "x", at=where[:1]) for where in unknown)
    yield from (_made("twice", ("nodes", 1, field), archive[field], at=nodes) for field in ("name", "aet"))
    yield _made("twice", ("nodes", 0, "dicomPort"), 8042)
    yield _made("twice", ("adminer", "port"), 8042)
    yield _made("twice", ("nodes", 1, "metricsPort"), 8043)
    yield _made("twice", users, ["a", "a"])
    yield _made("twice", ("modalities", 0, "allow"), ["echo", "echo"])
    yield _made("twice", ("modalities", 0, "nodes"), ["ct", "ct"])
    yield _made("twice", links, ["archive", "archive"], at=(*links, 1))
    yield _made("twice", ("nodes", 0), ct, at=nodes)
    yield from (_made("reserved", ("nodes", 0, "name"), name) for name in ("db", "adminer", "db-roles", "localhost", "ct-forwarder"))
    yield _made("reserved", users, ["forwarder"], at=(*users, 0))
    yield _made("loops", ("nodes", 0, "forwardTo"), ["ct"])
    yield _made("loops", links, ["ct"], at=(*links, 0))
    many = [{"name": f"n{i}", "aet": f"N{i}", "httpPort": 1024 + 2 * i, "dicomPort": 1025 + 2 * i} for i in range(5000)]
    yield _made("thousands", nodes, many)
    yield _made("thousands", nodes, [archive] * 3000)
    yield _made("thousands", nodes, [node | {"forwardTo": [f"nobody-{k}" for k in range(60)]} for node in many[:300]])
    yield _made("thousands", links, ["archive"] * 20000, at=nodes)
    yield _made("thousands", users, [f"u{i}" for i in range(20000)])
    yield _made("thousands", ("modalities",), [device | {"name": f"m{i}", "aet": f"M{i}"} for i in range(3000)])
    yield _made("thousands", ("nodes", 1), ct | {f"key{i}": i for i in range(20000)}, at=nodes)


def _saying(*values: str, key: str = "bind") -> list[str | bytes]:
    """Files that say one thing each."""
    return [f"config:\n  {PROJECT}:{key}: {value}\n" for value in values]


def _more(*lines: str) -> list[str | bytes]:
    """The valid file, and a line more."""
    return [_GOOD + line for line in lines]


_GOOD = as_yaml(valid()).decode()
_NODES = f"  {PROJECT}:nodes:\n    - {{name: a, aet: A, httpPort: 8042, dicomPort: 4242"
_LAUGHS = "\n".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}' if i else 'ha'] * 10)}]" for i in range(12))
_LONG = f"x: &x {'ha' * 50000}\ny: [{', '.join(['*x'] * 5000)}]\n"
_MERGED = "".join(f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 2) if i else ''}], k{i}: 1}}\n" for i in range(40))
_NO_INTEGERS = ("9" * 6000, "9" * 4000, f"0x{'f' * 6000}", f"1:{'60:' * 300}1")
_KEYS = ("5", "2026-01-02", "~", "true", f"{PROJECT}:", f"{PROJECT}:nodes:extra")

#: Files that are no YAML, no text, or not a stack file's shape.
BY_HAND: dict[str, list[str | bytes]] = {
    "no text": [
        *(b"\xff\xfe\x00c", b"config:\n  \xe4: 1\n", bytes(range(256))),
        *(b"\x7fELF\x02\x01\x01" + bytes(64), b"\x1f\x8b\x08" + bytes(32)),
    ],
    "not UTF-8": [_GOOD.encode("utf-16"), _GOOD.encode("utf-32"), _GOOD.replace("ARCHIVE", "ÄRCHIVE").encode("latin-1")],
    "nothing in it": ["", "\n\n", "# only a comment\n", "---\n", "config:\n", "config: {}\n", "config: ~\n", "{}"],
    "another shape": [
        *("- 1\n", "hello\n", "42\n", "true\n", "2026-01-02\n", f"[{_GOOD}]"),
        *("config: [1, 2]\n", "config: text\n", "config: 7\n"),
    ],
    "two documents": _more(f"---\n{_GOOD}", "...\n%YAML 9.9\n---\n"),
    "broken YAML": [
        *(_GOOD[:-40] + "{", _GOOD + "\t- a: b\n", "config:\n\torthanc-stack:bind: x\n"),
        *("a: b: c: d", "'", '"\\x', "!", "? ? ?", "*nobody"),
    ],
    "merge conflict": [f"<<<<<<< HEAD\n{_GOOD}=======\n{_GOOD}>>>>>>> other\n"],
    "control characters in the file": [_GOOD + "\0", _GOOD.replace("ARCHIVE", "ARC\x07HIVE"), "\x1b[2J" + _GOOD],
    "tags": [
        *_saying("!!python/name:os.system", "!Ref x", "!!timestamp later", "!!binary '***'"),
        *_saying("!!bool maybe", "!!int ''", "!!float x", "!!pairs [a]"),
        *_saying("{maxConnections: !!int many}", key="indexDb"),
        *_saying("!!omap [a: 1]", "!!set {a, b}", key="nodes"),
        f"{_NODES}, aet2: !!python/object/apply:os.system [id]}}\n",
        "config: !!python/object/new:os.system [id]\n",
    ],
    "values that Python refuses": [
        *_saying("2026-13-45", "2026-02-30T25:61:61"),
        *_saying(*(f"{{maxConnections: {number}}}" for number in _NO_INTEGERS), key="indexDb"),
    ],
    "keys": [
        *_more(*(f"  {key}: 6\n" for key in _KEYS)),
        *_more("  ? [a, b]\n  : 6\n", "  ? {a: b}\n  : 6\n", f"  {PROJECT}:environment: dev\n", f"  {PROJECT}:environment: prod\n"),
        *_more("config: {}\n"),
        *(f"config:\n{_NODES}, {twin}}}\n" for twin in ("aet: B", "'aet': A")),
    ],
    "aliases": [
        f"{_LAUGHS}\nconfig:\n  {PROJECT}:nodes: *l11\n",
        *(f"{_LAUGHS}\n{_GOOD}", _LONG + _GOOD, _MERGED),
        *_saying("&a [*a]", "&a\n    - {<<: *a}", key="nodes"),
        f"config:\n{_NODES}, orthanc: &x {{DicomWeb: *x}}}}\n",
        *(f"config: &a\n  {PROJECT}:nodes: *a\n", "config: &a {<<: *a}\n"),
        *(f"config:\n  <<: [1, 2]\n  {PROJECT}:bind: x\n", "config:\n  <<: text\n"),
    ],
    "deep and large": [
        *("[" * 20000, "{a: " * 20000, "- " * 20000, "#" * 2_000_000),
        "\n".join(" " * i + "a:" for i in range(1200)),
        *_saying("x" * 900_000, "x" * 1_100_000),
        *_saying("[" * 5000 + "]" * 5000, f"[{'a,' * 300_000}]", key="nodes"),
        *_saying("1", key="y" * 900_000),
        f"config:\n  {'x' * 900_000}: 1\n",
    ],
}

KINDS = (*VALUES, "missing", "unknown keys", "twice", "reserved", "loops", "thousands", *BY_HAND)


@cache
def all_of_them() -> tuple[HostileFile, ...]:
    """Every one, none twice."""
    encoded = {kind: [one if isinstance(one, bytes) else one.encode() for one in contents] for kind, contents in BY_HAND.items()}
    by_hand = [HostileFile(kind, (), content) for kind, contents in encoded.items() for content in contents]
    return tuple({file.content: file for file in [*generated(), *built(), *by_hand]}.values())
