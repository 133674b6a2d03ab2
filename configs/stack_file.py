"""The YAML of a stack file, read with limits: whatever the file is, the answer is a mapping or a SettingsError, soon.

Stricter than YAML where YAML lets a mistake pass: a key that stands twice, which Pulumi refuses, too. Anchors and aliases may be used.

check_plain() refuses the values that are not JSON: YAML has more (dates, sets, bytes, keys that are numbers, a list that holds itself), and
so has Python's JSON (NaN). Pulumi's state and Orthanc's configuration are JSON: such a value would be found out when the first containers
are there already.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from configs.problems import NO_VALUE, Problem, SettingsError, path_of, visible

#: Deeper than any option of Orthanc's, and far from the depth at which Python's encoders give up.
MAX_DEPTH = 32

#: JSON knows no limit, but Pulumi and Orthanc read integers as 64 bits.
_MAX_INTEGER = 2**63 - 1

#: Control characters but for tab and new line, and halves of characters: no terminal, file or database takes them as they are.
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
#: A stack of 500 nodes with its secrets has about 400 kB.
MAX_BYTES = 1 << 20
#: Characters and values once every alias is written out. A few lines of aliases of aliases are gigabytes otherwise.
MAX_EXPANDED = 2 << 20
#: The file's own levels above the settings: the document, `config:`.
_MAX_DEPTH = MAX_DEPTH + 2

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_config(path: Path) -> dict[str, Any]:
    """The mapping under ``config:`` of a stack file.

    Raises:
        FileNotFoundError: there is none.
        SettingsError: it is no file, no text, no YAML, or not a stack file's shape.
    """
    text = _text(path)
    try:
        content = _content(text)
    except yaml.YAMLError as error:
        raise SettingsError(visible(f"{path.name} is not YAML: {error}", keep="\n")) from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # PyYAML hands on what Python says
        reason = error if isinstance(error, ValueError) else "its tag, such as !!timestamp, does not fit it"
        text = visible(f"holds a value that cannot be read: {reason}.")
        raise SettingsError(f"{path.name} {text} Put it in quotes where text is meant.") from None
    for where, part in (("it", content), ("config", content.get("config") if isinstance(content, dict) else None)):
        if part is not None and not isinstance(part, dict):
            raise SettingsError(f"{path.name} is not a stack file: {where} is not a mapping of keys to values. See README.md, a topology.")
    config: dict[str, Any] = (content or {}).get("config") or {}
    return config


def _text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise SettingsError(f"{path.name} is not a file.")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SettingsError(f"{path.name} cannot be read: {error.strerror}. Correct it, or its permissions.") from None
    if len(content) > MAX_BYTES:
        raise SettingsError(f"{path.name} has more than {MAX_BYTES} bytes, which no stack file has.")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{path.name} is not text in UTF-8: line {line} holds the byte 0x{content[error.start]:02x}.") from None


def _content(text: str) -> Any:
    """The document as Python values."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):  # without recursion, which composing is
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise _refusal(f"nested more than {_MAX_DEPTH} deep", event)
    loader = _LOADER(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _measure(node: yaml.Node, known: dict[int, int | None]) -> int:
    """How large a node is with its aliases written out.

    Args:
        node: the node.
        known: the sizes of nodes by their identity; None for one that is being measured: what meets itself there has no end.
    """
    key = id(node)
    if key in known:
        size = known[key]
        if size is None:
            raise _refusal("an alias that holds itself", node)
        return size
    known[key] = None
    size = 1
    if isinstance(node, yaml.ScalarNode):
        size += len(node.value)
    elif isinstance(node, yaml.MappingNode):
        _refuse_twins(node)
        size += sum(_measure(part, known) for pair in node.value for part in pair)
    else:
        size += sum(_measure(part, known) for part in node.value)
    if size > MAX_EXPANDED:
        raise _refusal(f"more than {MAX_EXPANDED} characters with aliases written out", node)
    known[key] = size
    return size


def _refuse_twins(node: yaml.MappingNode) -> None:
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
            if (key.tag, key.value) in seen:
                raise _refusal(f"the key {key.value!r} stands twice", key)
            seen.add((key.tag, key.value))


def _refusal(problem: str, where: Any) -> yaml.YAMLError:
    """What is YAML, and refused all the same: with its line, as YAML's own errors have it."""
    return yaml.MarkedYAMLError(problem=problem, problem_mark=where.start_mark)


def check_plain(value: object, place: tuple[str | int, ...] = ()) -> Iterator[Problem]:
    """What in a value is not JSON, or out of bounds.

    Args:
        value: what stands in the stack file.
        place: where it stands.
    """
    if len(place) > MAX_DEPTH:
        yield Problem(path_of(place), f"is nested more than {MAX_DEPTH} deep.")
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(key, str):
                yield from _check_text(key, (*place, key), NO_VALUE)
                yield from check_plain(inner, (*place, key))
            else:
                yield Problem(path_of(place), f"has a key that is {_kind(key)}; keys are text: put it in quotes.", key)
    elif isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            yield from check_plain(inner, (*place, i))
    elif isinstance(value, str):
        yield from _check_text(value, place, value)
    elif not _is_plain_scalar(value):
        yield Problem(path_of(place), f"is {_kind(value)}, which no setting is; put it in quotes where text is meant.", _short(value))


def _check_text(text: str, place: tuple[str | int, ...], shown: object) -> Iterator[Problem]:
    if _UNFIT.search(text):
        yield Problem(path_of(place), "holds a control character, or half of a character; leave it out.", shown)


def _is_plain_scalar(value: object) -> bool:
    if isinstance(value, int):  # true and false are integers, too
        return abs(value) <= _MAX_INTEGER
    return value is None or (isinstance(value, float) and math.isfinite(value))


def _short(value: object) -> object:
    """The value, but for an integer that Python itself would refuse to print."""
    return NO_VALUE if isinstance(value, int) else value


def _kind(value: Any) -> str:
    """What a value is, in a YAML writer's words."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int):
        return "an integer of more than 64 bits" if abs(value) > _MAX_INTEGER else "a number"
    if isinstance(value, float):
        return "a number" if math.isfinite(value) else "no finite number"
    return {"date": "a date", "datetime": "a date", "bytes": "binary", "set": "a set"}.get(type(value).__name__, "of a kind of YAML's own")
