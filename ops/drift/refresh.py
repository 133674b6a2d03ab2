"""What Pulumi's refresh, in a preview only, finds changed, and this project has no words for: told as Pulumi tells it, never left out.

`pulumi refresh --preview-only --json` writes nothing, neither to the state nor to the engine (as do `--run-program` and `pulumi preview
--refresh`, which run the program as well and need three times as long). A step has `detailedDiff` with what would be another deployment;
the provider also fills in values that it never read before, which are none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from ops.drift.deployed import Deployed
from ops.drift.engine import Engine
from ops.drift.findings import EVERYTHING, Finding, code

#: A preview's steps that are no change of a resource.
_NO_CHANGE: Final = frozenset({"same", "refresh", "read", "read-discard"})


def check_refresh(
    steps: Iterable[Mapping[str, Any]], deployed: Sequence[Deployed], engine: Engine, found: Iterable[Finding]
) -> Iterator[Finding]:
    """What of a refresh no finding covers.

    Args:
        steps: the preview's.
        deployed: what the state knows.
        engine: what the engine holds.
        found: what was found already.
    """
    covered: dict[str, set[str]] = {}
    for finding in found:
        covered.setdefault(finding.urn, set()).update(finding.covers)
    known = {one.urn: one for one in deployed}
    for step in sorted(steps, key=lambda step: str(step["urn"])):
        one = known.get(str(step["urn"]))
        if one is None:
            continue  # the components, the provider and the stack: the engine has none of them
        done = covered.get(one.urn, set())
        if EVERYTHING in done:
            continue
        changed = set(step.get("detailedDiff") or ())
        for path in sorted(changed):
            if path.partition(".")[0].partition("[")[0] not in done and not _unlimited_swap(path, step, engine):
                yield Finding(one.part, "other", f"{one.said} has another {code(path)}: {_values(path, step)}.", one.name, urn=one.urn)
        if not changed and step["op"] not in _NO_CHANGE:
            yield Finding(one.part, "other", f"Pulumi's refresh would {code(step['op'])} it.", one.name, urn=one.urn)


def _unlimited_swap(path: str, step: Mapping[str, Any], engine: Engine) -> bool:
    """An engine that cannot limit swap reads every limit back as none: a difference after each refresh, by nobody's hand."""
    return path == "memorySwap" and not engine.limits_swap and _of(step, "newState", path) == -1


def _values(path: str, step: Mapping[str, Any]) -> str:
    return f"{code(json.dumps(_of(step, 'newState', path)))} instead of {code(json.dumps(_of(step, 'oldState', path)))}"


def _of(step: Mapping[str, Any], state: str, path: str) -> Any:
    """A property's value; of a nested one, that of its whole property. Pulumi has put its mark in the place of secrets."""
    name = path.partition(".")[0].partition("[")[0]
    return ((step.get(state) or {}).get("outputs") or {}).get(name)
