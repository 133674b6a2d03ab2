"""The values that a stack file may hold at all: those of JSON, in bounds. Everything behind this may rely on it.

YAML has more (dates, sets, bytes, keys that are numbers, a list that holds itself), and so has Python's JSON (NaN). Pulumi's state and
Orthanc's configuration are JSON and have not: such a value would be found out when the first containers are there already.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from configs.problems import NO_VALUE, Problem, path_of

#: Deeper than any option of Orthanc's, and far from the depth at which Python's encoders give up.
MAX_DEPTH = 32

#: JSON knows no limit, but Pulumi and Orthanc read integers as 64 bits.
_MAX_INTEGER = 2**63 - 1

#: Control characters but for tab and new line, and halves of characters: no terminal, file or database takes them as they are.
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


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
