"""A preview from what Pulumi tells programs of it.

Two forms are read. The engine's events, one JSON document a line (`--event-log`, which Pulumi's Automation API uses), have everything.
The document of `pulumi preview --json` has no results of policies, and what stays as it is with `--show-sames` alone (seen with 3.256).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ops.preview.steps import SECRET, Preview, State, Step, Violation

#: In the place of a secret, events have a mapping with this signature; the document has the text SECRET.
_SIGNATURE_KEY: Final = "4dabf18193072939515e22adb298388d"
_SECRET_SIGNATURE: Final = "1b47061264138c4ac30d75fd1eb44270"

STACK_TYPE: Final = "pulumi:pulumi:Stack"
_PROVIDERS: Final = "pulumi:providers:"
#: The halves of a replacement, which `replace` stands for.
_HALVES: Final = frozenset({"create-replacement", "delete-replaced", "read-replacement", "discard-replaced", "remove-pending-replace"})
#: What Pulumi notes in inputs about itself.
_INTERNAL: Final = frozenset({"__defaults", "__meta", "__pulumi_raw_state_delta", "__internal"})


def read(text: str) -> Preview:
    """A preview from either form.

    Raises:
        ValueError: it is neither.
    """
    beginning = text.lstrip()[:1]
    if beginning != "{":
        raise ValueError("this is no preview: it should be the JSON of `pulumi preview --json --show-sames`, or an event log")
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if isinstance(document, dict) and ("steps" in document or "changeSummary" in document):
        return _from_document(document)
    try:
        # An event in which the engine's debugging stands is long, and one of hundreds: only its beginning is looked at.
        events = [json.loads(line) for line in text.splitlines() if line.strip() and '"severity":"debug"' not in line]
    except ValueError as error:
        raise ValueError(f"this is no preview, or it is cut off: {error}") from None
    return _from_events(events)


def _from_events(events: Iterable[Mapping[str, Any]]) -> Preview:
    steps: list[Mapping[str, Any]] = []
    errors: list[str] = []
    warnings: list[str] = []
    violations: list[Violation] = []
    config: Mapping[str, str] = {}
    outputs: Mapping[str, Any] = {}
    packs: set[str] = set()
    ok = False
    for event in events:
        if prelude := event.get("preludeEvent"):
            config = prelude.get("config") or {}
        elif said := event.get("diagnosticEvent"):
            kind = {"error": errors, "warning": warnings}.get(said.get("severity", ""))
            if kind is not None:
                kind.append(_message(said.get("message", "")))
        elif broken := event.get("policyEvent"):
            violations.append(_violation(broken))
            packs.add(str(broken.get("policyPackName", "")))
        elif before := event.get("resourcePreEvent"):
            steps.append(before["metadata"])
        elif after := event.get("resOutputsEvent"):
            if after["metadata"].get("type") == STACK_TYPE:
                outputs = ((after["metadata"].get("new") or {}).get("outputs")) or {}
        elif summary := event.get("summaryEvent"):
            packs |= {str(pack).partition("|")[0] for pack in summary.get("PolicyPacks") or {}}
            ok = summary.get("result", "succeeded") == "succeeded"
    made = [_step(raw, raw.get("old"), raw.get("new")) for raw in _logical(steps)]
    return Preview(
        stack=_stack_of(steps),
        ok=ok and not errors,
        steps=_sorted(made),
        config=config,
        errors=_told(errors),
        warnings=_told(warnings),
        packs=tuple(sorted(packs)),
        violations=tuple(sorted(violations, key=lambda v: (not v.mandatory, v.pack, v.rule, v.resource, v.message))),
        outputs=(_old_outputs(steps), _plain(outputs)),
    )


def _from_document(document: Mapping[str, Any]) -> Preview:
    steps = list(document.get("steps") or ())
    said = [(each.get("severity"), _message(each.get("message", ""))) for each in document.get("diagnostics") or ()]
    errors = [text for severity, text in said if severity == "error"]
    made = [_step(raw, raw.get("oldState"), raw.get("newState")) for raw in _logical(steps)]
    told = sum(step.op == "same" for step in made)
    return Preview(
        stack=_stack_of(steps),
        ok=not errors,
        steps=_sorted(made),
        config=document.get("config") or {},
        errors=_told(errors),
        warnings=_told([text for severity, text in said if severity == "warning"]),
        outputs=(_old_outputs(steps), {}),
        complete=told >= ((document.get("changeSummary") or {}).get("same") or 0) - 1,
    )


def _logical(steps: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One step for each resource: a replacement's halves are left out where the replacement itself is told."""
    found = list(steps)
    whole = {step["urn"] for step in found if step["op"] not in _HALVES}
    return [step for step in found if step["op"] not in _HALVES or step["urn"] not in whole]


def _step(raw: Mapping[str, Any], old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> Step:
    urn = str(raw["urn"])
    before, after = _state(old), _state(new)
    if raw["op"] == "same":
        after = after or before
    detailed = {_root(path) for path in raw.get("detailedDiff") or {}}
    differs = {*(raw.get("diffs") or raw.get("diffReasons") or ()), *detailed}
    return Step(
        op=str(raw["op"]),
        type=_type_of(urn),
        name=urn.rpartition("::")[2],
        old=before,
        new=after,
        causes=tuple(sorted(raw.get("keys") or raw.get("replaceReasons") or ())),
        differs=tuple(sorted(differs)),
    )


def _state(raw: Mapping[str, Any] | None) -> State | None:
    if not raw:
        return None
    return State(
        inputs=_plain(raw.get("inputs") or {}),
        outputs=_plain(raw.get("outputs") or {}),
        protect=bool(raw.get("protect")),
        retain=bool(raw.get("retainOnDelete")),
    )


def _plain(value: Any) -> Any:
    """A value with its secrets as SECRET and without Pulumi's own notes."""
    if isinstance(value, Mapping):
        if value.get(_SIGNATURE_KEY) == _SECRET_SIGNATURE:
            return SECRET
        return {key: _plain(inner) for key, inner in value.items() if key not in _INTERNAL}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _violation(raw: Mapping[str, Any]) -> Violation:
    return Violation(
        pack=str(raw.get("policyPackName", "")),
        rule=str(raw.get("policyName", "")),
        resource=str(raw.get("resourceUrn", "")).rpartition("::")[2],
        mandatory=raw.get("enforcementLevel") == "mandatory",
        message=_message(raw.get("message", "")),
    )


def _message(raw: object) -> str:
    return str(raw).strip().removeprefix("error: ").removeprefix("warning: ")


def _told(messages: Iterable[str]) -> tuple[str, ...]:
    """Each message once, in the order in which they came; what only says that there was another is left out when there was."""
    found = list(dict.fromkeys(message for message in messages if message))
    telling = [message for message in found if message != "preview failed" and not message.startswith("an unhandled error occurred: ")]
    return tuple(telling or found)


def _sorted(steps: Iterable[Step]) -> tuple[Step, ...]:
    kept = [step for step in steps if not step.type.startswith(_PROVIDERS) and step.type != STACK_TYPE]
    return tuple(sorted(kept, key=lambda step: (step.type, step.name, step.op)))


def _old_outputs(steps: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    for step in steps:
        if _type_of(str(step["urn"])) == STACK_TYPE:
            outputs: Mapping[str, Any] = _plain(((step.get("old") or step.get("oldState")) or {}).get("outputs") or {})
            return outputs
    return {}


def _stack_of(steps: Iterable[Mapping[str, Any]]) -> str:
    for step in steps:
        return str(step["urn"]).removeprefix("urn:pulumi:").partition("::")[0]
    return ""


def _type_of(urn: str) -> str:
    """The type of a resource: the last of the types in its URN, which begin with its parents'."""
    return urn.split("::")[2].rpartition("$")[2] if urn.count("::") >= 3 else ""


def _root(path: str) -> str:
    """The input that a path of a detailed diff begins with: ``ports`` for ``ports[0].external``."""
    return path.partition(".")[0].partition("[")[0]
