"""Where two values differ, by their paths."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ops.preview.steps import SECRET, UNKNOWN

#: There is no value.
ABSENT: Final = object()

#: What is shown for what only the update will know.
LATER: Final = "known at the update"


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The places where two values differ: path, old value, new value, in the order of the paths.

    Mappings are compared key by key, lists of mappings item by item; other lists are one value.
    """
    if old is not ABSENT and new is not ABSENT and old == new:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*map(str, old), *map(str, new)}):
            yield from differences(old.get(key, ABSENT), new.get(key, ABSENT), f"{path}.{key}" if path else key)
    elif _is_records(old) and _is_records(new):
        for i in range(max(len(old), len(new))):
            yield from differences(old[i] if i < len(old) else ABSENT, new[i] if i < len(new) else ABSENT, f"{path}[{i}]")
    else:
        yield path, old, new


def shown(value: Any) -> str | None:
    """A value as it is written in JSON; None for none."""
    if value is ABSENT:
        return None
    if value == UNKNOWN:
        return LATER
    return SECRET if value == SECRET else json.dumps(_without_unknown(value), sort_keys=True, ensure_ascii=False)


def _without_unknown(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_unknown(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_unknown(inner) for inner in value]
    return LATER if value == UNKNOWN else value


def _is_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)
