"""The YAML of a stack file, read with limits: whatever the file is, the answer is a mapping or a SettingsError, soon.

Stricter than YAML where YAML lets a mistake pass: a key that stands twice, which Pulumi refuses, too. Anchors and aliases may be used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from configs.plain import MAX_DEPTH
from configs.problems import SettingsError, visible

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
