"""What is wrong with a stack file: each problem with its place, the value, and what would be right."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails


class SettingsError(Exception):
    """A stack file is refused. The text is the whole report, to be printed as it is."""


#: Stands for "no value to show": the key is missing, or its value is a secret.
NO_VALUE = object()
#: More problems than anybody reads at once. Checks stop here: a hostile file has a problem on every line.
MOST_PROBLEMS = 100
#: How many characters of a value, a path or a message are shown.
_LONGEST = 1000
#: A longer word is no misspelt name, and the time to compare it grows with the square of its length.
_LONGEST_WORD = 64

#: pydantic's errors in the words of a person who writes YAML.
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
    """One thing to put right."""

    path: str  #: the key's path in the stack file: ``nodes[1].aet``
    message: str  #: what is wrong, and what would be right
    value: object = NO_VALUE  #: the wrong value

    def __str__(self) -> str:
        path = visible(self.path)
        where = path if self.value is NO_VALUE else f"{path} = {visible(repr(self.value))}"
        message = visible(self.message, keep="\n")
        return f"  {where}\n      {message}"


def visible(text: str, keep: str = "") -> str:
    """A text that is safe to print, and not too long: what is not printable is escaped, but for the characters of ``keep``.

    A stack file must not clear a terminal, turn the direction of writing, or forge a line of a report.
    """
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"
    return "".join(letter if letter.isprintable() or letter in keep else repr(letter)[1:-1] for letter in cut)


def report(problems: Iterable[Problem], stack_file: str) -> str:
    """All problems as one message, sorted by their paths. Of too many, it shows those that were found first."""
    found = list(problems)
    count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
    if len(found) > MOST_PROBLEMS:
        count = f"more than {MOST_PROBLEMS} problems, of which these are some"
    found = sorted(found[:MOST_PROBLEMS], key=lambda problem: (problem.path, problem.message))
    return "\n".join([f"{visible(stack_file)}: {count}. Nothing was touched.", "", *map(str, found), ""])


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt word, " Did you mean 'x'?", or the empty string."""
    folded = {name.lower(): name for name in sorted(known) if len(name) <= _LONGEST_WORD}
    match = difflib.get_close_matches(word.lower(), folded, n=1) if len(word) <= _LONGEST_WORD else []
    return f" Did you mean {folded[match[0]]!r}?" if match else ""


def path_of(parts: Sequence[str | int]) -> str:
    """A key's path as people write it: ``nodes[1].forwardTo[0]``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")


def from_validation(error: ValidationError, model: type[BaseModel], prefix: Sequence[str | int] = ()) -> list[Problem]:
    """pydantic's errors for a value of a model as problems; ``prefix`` is the place of the value in the stack file."""
    return [_problem(details, model, prefix) for details in error.errors(include_url=False)[: MOST_PROBLEMS + 1]]


def described(field: FieldInfo) -> str:
    """The description of a setting, on one line."""
    return " ".join((field.description or "").split())


def _problem(details: ErrorDetails, model: type[BaseModel], prefix: Sequence[str | int]) -> Problem:
    place, value = details["loc"], details["input"]
    path = path_of([*prefix, *place])
    keys = [part for part in place if isinstance(part, str)]
    known = _settings_beside(model, keys)
    meaning = f"It is: {described(known[keys[-1]])}" if keys and keys[-1] in known else ""
    match details["type"]:
        case "extra_forbidden":
            hint = (nearest(keys[-1], known) or f" Known here: {', '.join(sorted(known))}.") if known else ""
            return Problem(path, f"is not a setting.{hint}")
        case "missing":
            return Problem(path, f"is missing. {meaning}")
        case "value_error":
            return Problem(path, str(details["ctx"]["error"]), value)
        case "int_type" if isinstance(value, str) and value.isdecimal():
            return Problem(path, "is text; write the number without quotes.", value)
        case kind:
            wrong = _WRONG.get(kind) or f"{details['msg'].replace('Input should be', 'is not')}."
            return Problem(path, f"{wrong} {meaning}".strip(), value)


def _settings_beside(model: type[BaseModel], keys: Sequence[str]) -> dict[str, FieldInfo]:
    """The settings that exist where the last of some nested keys stands; empty where the models leave the keys open (``orthanc:``)."""
    settings = {field.alias or name: field for name, field in model.model_fields.items()}
    if len(keys) < 2:
        return settings
    inner = _model_in(settings[keys[0]].annotation) if keys[0] in settings else None
    return _settings_beside(inner, keys[1:]) if inner else {}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model inside an annotation such as ``Model | None`` or ``tuple[Model, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in getattr(annotation, "__args__", ()) if (found := _model_in(inner))), None)
