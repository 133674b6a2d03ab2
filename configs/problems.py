"""What is wrong with a stack file: each problem with its place, the value, and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails


class SettingsError(Exception):
    """A stack file that is refused. Its text is the whole report, meant to be printed as it is."""


#: Stands for "there is no value to show": the key is missing, or showing it would give a secret away.
NO_VALUE = object()


#: More problems than anybody reads at once. Checks stop looking for more: a hostile file has one on every line.
MOST_PROBLEMS = 100
#: How much of a value, a path or a message is shown.
_LONGEST = 1000
#: A word that is longer is no misspelt name, and comparing it takes time that grows with its square.
_LONGEST_WORD = 64

#: pydantic's errors in a YAML writer's words.
_WRONG = {
    "dict_type": "is not a mapping of keys to values.",
    "int_type": "is not an integer.",
    "model_type": "is not a mapping of keys to values.",
    "string_type": "is not text; put it in quotes.",
    "too_long": "has too many items.",
    "too_short": "is empty.",
    "tuple_type": "is not a list; write it as [a, b].",
}


@dataclass(frozen=True)
class Problem:
    """One thing to put right.

    Attributes:
        path: where, as the key's path in the stack file (``nodes[1].aet``).
        message: what is wrong, and what would be right.
        value: the offending value, or NO_VALUE.
    """

    path: str
    message: str
    value: object = NO_VALUE

    def __str__(self) -> str:
        path = visible(self.path)
        where = path if self.value is NO_VALUE else f"{path} = {visible(repr(self.value))}"
        message = visible(self.message, keep="\n")
        return f"  {where}\n      {message}"


def visible(text: str, keep: str = "") -> str:
    """A text as it can be printed: what a stack file holds must not clear a terminal, turn its writing round, or forge a line of a report.

    Args:
        text: the text; a long one is cut.
        keep: what stays though it is not printable.
    """
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"
    return "".join(letter if letter.isprintable() or letter in keep else repr(letter)[1:-1] for letter in cut)


def report(problems: Iterable[Problem], stack_file: str) -> str:
    """All problems as one message, in the order of their paths; of very many, those that were found first."""
    found = list(problems)
    count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
    if len(found) > MOST_PROBLEMS:
        count = f"more than {MOST_PROBLEMS} problems, of which these are some"
    found = sorted(found[:MOST_PROBLEMS], key=lambda problem: (problem.path, problem.message))
    return "\n".join([f"{visible(stack_file)}: {count}. Nothing was touched.", "", *map(str, found), ""])


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt word, " Did you mean 'x'?", or the empty string."""
    if len(word) > _LONGEST_WORD:
        return ""
    candidates = sorted(name for name in known if len(name) <= _LONGEST_WORD)
    folded = {name.lower(): name for name in candidates}
    match = difflib.get_close_matches(word.lower(), folded, n=1)
    return f" Did you mean {folded[match[0]]!r}?" if match else ""


def path_of(parts: Sequence[str | int]) -> str:
    """A key's path as it is written for people: ``nodes[1].forwardTo[0]``."""
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def from_validation(error: ValidationError, model: type[BaseModel], prefix: Sequence[str | int] = ()) -> list[Problem]:
    """pydantic's errors as problems.

    Args:
        error: what validation of the model raised.
        model: the model that was validated; its fields' descriptions say what would be right.
        prefix: where in the stack file the validated value stands.
    """
    return [_problem(details, model, prefix) for details in error.errors(include_url=False)[: MOST_PROBLEMS + 1]]


def _problem(details: ErrorDetails, model: type[BaseModel], prefix: Sequence[str | int]) -> Problem:
    place = details["loc"]
    path = path_of([*prefix, *place])
    match details["type"]:
        case "extra_forbidden":
            return Problem(path, f"is not a setting.{_nearest_setting(model, place)}")
        case "missing":
            return Problem(path, f"is missing. {_meaning(model, place)}")
        case "value_error":
            return Problem(path, str(details["ctx"]["error"]), details["input"])
        case "int_type" if isinstance(details["input"], str) and details["input"].isdecimal():
            return Problem(path, "is text; write the number without quotes.", details["input"])
        case kind:
            wrong = _WRONG.get(kind) or f"{details['msg'].replace('Input should be', 'is not')}."
            return Problem(path, f"{wrong} {_meaning(model, place)}".strip(), details["input"])


def _owner(model: type[BaseModel], place: Sequence[str | int]) -> type[BaseModel] | None:
    """The model that holds the last key of a place, or None where it is not a model."""
    current: Any = model
    for part in place[:-1]:
        if isinstance(part, int):
            continue
        field = next((f for f in current.model_fields.values() if f.alias == part), None)
        found = _model_in(field.annotation) if field else None
        if found is None:
            return None
        current = found
    return current if isinstance(current, type) else None


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model inside an annotation such as ``Model | None`` or ``tuple[Model, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        if (found := _model_in(inner)) is not None:
            return found
    return None


def _nearest_setting(model: type[BaseModel], place: Sequence[str | int]) -> str:
    owner = _owner(model, place)
    if owner is None:
        return ""
    known = [field.alias or name for name, field in owner.model_fields.items()]
    return nearest(str(place[-1]), known) or f" Known here: {', '.join(sorted(known))}."


def _meaning(model: type[BaseModel], place: Sequence[str | int]) -> str:
    """The description of the setting at a place: what would be right there."""
    names = [part for part in place if isinstance(part, str)]
    owner = _owner(model, names) if names else None
    if owner is None:
        return ""
    for field in owner.model_fields.values():
        if field.alias == names[-1]:
            return f"It is: {field.description}"
    return ""
