"""The YAML of a stack file, read with limits: whatever the file holds, the result is a mapping or a SettingsError, soon.

Two things are stricter than YAML. A key that stands twice is refused, by Pulumi too. check_plain() refuses the values that are not JSON:
YAML has more of them (dates, sets, bytes, keys that are numbers, a list that holds itself), and so has Python's JSON (NaN). Pulumi's state
and Orthanc's configuration are JSON, so such a value would fail when the first containers are already made.
"""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from configs.problems import NO_VALUE, Problem, SettingsError, path_of, visible

#: Levels below a setting: deeper than any option of Orthanc, and far from the depth at which Python's encoders fail.
MAX_DEPTH = 32
#: A stack of 500 nodes with its secrets has about 400 kB.
MAX_BYTES = 1 << 20
#: Characters and values once every alias is written out. A few lines of aliases of aliases are gigabytes otherwise.
MAX_EXPANDED = 2 << 20

#: Two levels of the file are above the settings: the document and `config:`.
_MAX_DEPTH = MAX_DEPTH + 2
#: JSON has no limit, but Pulumi and Orthanc read integers of 64 bits.
_MAX_INTEGER = 2**63 - 1
#: Control characters except tab and new line, and halves of characters: no terminal, file or database takes them as they are.
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_config(path: Path) -> dict[str, Any]:
    """The mapping under ``config:`` of a stack file.

    Raises:
        FileNotFoundError: there is no such file.
        SettingsError: it is not a file, not text, not YAML, or not a stack file.
    """
    return dict(read(path).get("config") or {})


def read(path: Path) -> dict[str, Any]:
    """A whole stack file: ``config:``, and beside it what Pulumi writes of its encryption. Raises as read_config() does."""
    try:
        content = _content(_text(path))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SettingsError(f"{path.name} cannot be read: {error.strerror}. Correct it, or its permissions.") from None
    except yaml.YAMLError as error:
        raise SettingsError(visible(f"{path.name} is not YAML: {error}", keep="\n")) from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # PyYAML passes on Python's own errors
        reason = error if isinstance(error, ValueError) else "its tag, such as !!timestamp, does not fit it"
        shown = visible(f"holds a value that cannot be read: {reason}.")
        raise SettingsError(f"{path.name} {shown} Put it in quotes where text is meant.") from None
    config = content.get("config") if isinstance(content, dict) else None
    for where, part in (("it", content), ("config", config)):
        if part is not None and not isinstance(part, dict):
            raise SettingsError(f"{path.name} is not a stack file: {where} is not a mapping of keys to values. See README.md, a topology.")
    return content or {}


def _text(path: Path) -> str:
    if path.exists() and not path.is_file():  # reading a pipe would wait
        raise SettingsError(f"{path.name} is not a file.")
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
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
    for event in yaml.parse(text, Loader=_LOADER):  # does not recurse, while composing does
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise _refusal(f"nested more than {_MAX_DEPTH} deep", event)
    loader = _LOADER(text)
    try:
        node = loader.get_single_node()
        if node is not None:
            _measure(node, {})
        return loader.construct_document(node) if node is not None else None
    finally:
        loader.dispose()


def _measure(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
    """The size of a node with its aliases written out; ``known`` has the sizes of nodes, and 0 for those that are being measured."""
    if node in known:
        if not known[node]:
            raise _refusal("an alias that holds itself", node)
        return known[node]
    known[node] = 0
    parts = node.value
    if isinstance(node, yaml.MappingNode):
        keys: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if (key.tag, key.value) in keys:
                    raise _refusal(f"the key {key.value!r} stands twice", key)
                keys.add((key.tag, key.value))
        parts = [part for pair in node.value for part in pair]
    known[node] = 1 + (len(parts) if isinstance(node, yaml.ScalarNode) else sum(_measure(part, known) for part in parts))
    if known[node] > MAX_EXPANDED:
        raise _refusal(f"more than {MAX_EXPANDED} characters with aliases written out", node)
    return known[node]


def _refusal(problem: str, where: Any) -> yaml.YAMLError:
    """An error for YAML that is refused; it names the line, as YAML's own errors do."""
    return yaml.MarkedYAMLError(problem=problem, problem_mark=where.start_mark)


def check_plain(value: object, place: tuple[str | int, ...] = ()) -> Iterator[Problem]:
    """What is not JSON or out of bounds in a value of a stack file, which stands at ``place``."""
    if len(place) > MAX_DEPTH:
        yield Problem(path_of(place), f"is nested more than {MAX_DEPTH} deep.")
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                yield Problem(path_of(place), f"has a key that is {_kind(key)}; keys are text: put it in quotes.", key)
                continue
            if _UNFIT.search(key):
                yield Problem(path_of((*place, key)), "holds a control character, or half of a character; leave it out.")
            yield from check_plain(inner, (*place, key))
    elif isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            yield from check_plain(inner, (*place, i))
    elif isinstance(value, str):
        if _UNFIT.search(value):
            yield Problem(path_of(place), "holds a control character, or half of a character; leave it out.", value)
    elif value is not None and not (isinstance(value, float) and math.isfinite(value)) and not _fits(value):
        shown = NO_VALUE if isinstance(value, int) else value  # Python refuses to print an integer that is very long
        yield Problem(path_of(place), f"is {_kind(value)}, which no setting is; put it in quotes where text is meant.", shown)


def _fits(value: object) -> bool:
    """Whether a value is true, false, or an integer of 64 bits."""
    return isinstance(value, int) and abs(value) <= _MAX_INTEGER


def _kind(value: Any) -> str:
    """What a value is, in the words of a person who writes YAML."""
    if isinstance(value, int) and not isinstance(value, bool):
        return "a number" if _fits(value) else "an integer of more than 64 bits"
    if isinstance(value, float):
        return "a number" if math.isfinite(value) else "no finite number"
    kinds = {"NoneType": "nothing", "bool": "true or false", "date": "a date", "datetime": "a date", "bytes": "binary", "set": "a set"}
    return kinds.get(type(value).__name__, "of a kind of YAML's own")
