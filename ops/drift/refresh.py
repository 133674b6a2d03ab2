"""What Pulumi's refresh, as a preview, finds changed: in words, each property with its value before and after.

`pulumi refresh --preview-only --json` writes nothing, neither to the state nor to the engine. With `--run-program`, or as `pulumi preview
--refresh`, it shows no more, and takes three times as long.
"""

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from ops.drift.deployed import Deployed, State
from ops.drift.findings import Finding, code

#: Properties that ops/drift/containers.py compares, and whose values are never shown.
_COMPARED: Final = frozenset({"envs", "uploads"})


def check_refresh(steps: Iterable[Mapping[str, Any]], state: State, found: Iterable[Finding], *, limits_swap: bool) -> Iterator[Finding]:
    """What the steps of a refresh's preview change, but for what follows from what was found already.

    An engine that cannot limit swap reads each limit back as none: that is left out.
    """
    known = {one.urn: one for one in state.deployed}
    told = {(finding.urn, finding.change) for finding in found}
    for step in steps:
        one = known.get(str(step["urn"]))
        if one is None:
            continue  # the components, the provider and the stack: the engine has none of them
        # Pulumi has put its mark in the place of secrets.
        now, before = ((step.get(key) or {}).get("outputs") or {} for key in ("newState", "oldState"))
        changed = {path.partition(".")[0].partition("[")[0] for path in step.get("detailedDiff") or ()} - _COMPARED
        if step["op"] == "delete":
            if (one.urn, "recreated") not in told:
                yield _removed(one)
            continue
        if not step.get("detailedDiff") and step["op"] not in ("same", "refresh", "read", "read-discard"):
            yield Finding(one.part, "other", f"Pulumi's refresh would {code(step['op'])} it.", one.name, urn=one.urn)
        if stopped := "mustRun" in changed and now.get("mustRun") is False:
            yield Finding(one.part, "stopped", f"{one.said} was stopped.", one.name, urn=one.urn)
        if stopped or (one.urn, "off-network") in told:
            changed -= {"mustRun", "ports"}  # such a container publishes no ports
        if not limits_swap and now.get("memorySwap") == -1:
            changed -= {"memorySwap"}
        for name in changed:
            values = " instead of ".join(code(json.dumps(outputs.get(name))) for outputs in (now, before))
            yield Finding(one.part, name, f"{one.said} has {code(name)} {values}.", one.name, urn=one.urn)


def _removed(one: Deployed) -> Finding:
    if one.kind != "volume":
        return Finding(one.part, "removed", f"{one.said} was removed.", one.name, urn=one.urn)
    labels = " ".join(f"--label {shlex.quote(f'{label}={value}')}" for label, value in sorted(one.labels.items()))
    said = f"**Its data volume {code(one.name)} was removed, with all that was in it.** `up` makes an empty one: restore a backup first."
    by_hand = (f"# Restore a backup first, into: docker volume create {labels} {shlex.quote(one.name)}",)
    return Finding(one.part, "volume-removed", said, one.name, data=True, urn=one.urn, by_hand=by_hand)
