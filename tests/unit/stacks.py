"""Stack files for tests, as Python."""

from __future__ import annotations

import re
from typing import Any

from configs.loader import parse
from configs.problems import Problem
from configs.settings import StackSettings


def node(name: str, number: int = 0, **more: Any) -> dict[str, Any]:
    """A node with ports of its own."""
    return {"name": name, "aet": name.upper()[:16], "httpPort": 8000 + number, "dicomPort": 4000 + number, **more}


def stack(*nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A dev stack of some nodes."""
    return {"environment": "dev", "nodes": list(nodes), **more}


def settings_of(raw: dict[str, Any]) -> StackSettings:
    """The settings of a stack that must be valid."""
    settings, _, problems = parse(raw)
    assert settings is not None, "\n".join(map(str, problems))
    return settings


def problems_of(raw: dict[str, Any]) -> dict[str, str]:
    """What is wrong with a stack: message by path."""
    settings, _, problems = parse(raw)
    assert (settings is None) == bool(problems)
    return {problem.path: problem.message for problem in problems}


def only(problems: list[Problem]) -> Problem:
    """The one problem that there must be."""
    assert len(problems) == 1, problems
    return problems[0]


def place_of(path: str) -> tuple[str | int, ...]:
    """A path as a stack file's problems have it, nodes[1].aet, in its parts."""
    return tuple(int(part) if part.isdecimal() else part for part in re.findall(r"\w+", path))
