"""A preview as plain data, read from what Pulumi's engine writes to an event log: one JSON document a line (`--event-log`).

The document of `pulumi preview --json` is not read: it has no results of policies (seen with Pulumi 3.256).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

#: What Pulumi puts in the place of a value that a preview cannot know (sdk/go/common/resource/plugin, UnknownStringValue).
UNKNOWN: Final = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
#: What stands for a secret here. In an event, a mapping with this signature does.
SECRET: Final = "[secret]"
_SIGNATURE: Final = ("4dabf18193072939515e22adb298388d", "1b47061264138c4ac30d75fd1eb44270")

_STACK: Final = "pulumi:pulumi:Stack"
#: The halves of a replacement, which `replace` stands for.
_HALVES: Final = frozenset({"create-replacement", "delete-replaced", "read-replacement", "discard-replaced", "remove-pending-replace"})
#: What Pulumi notes in inputs about itself.
_INTERNAL: Final = frozenset({"__defaults", "__meta", "__pulumi_raw_state_delta", "__internal"})


@dataclass(frozen=True)
class State:
    """A resource before or after."""

    inputs: Mapping[str, Any]  #: what the program asks for; secrets are SECRET, what is not known yet is UNKNOWN
    parent: str = ""  #: the URN of the component that it is part of
    protect: bool = False  #: whether Pulumi refuses to delete it
    retain: bool = False  #: whether it stays on the engine when Pulumi forgets it


@dataclass(frozen=True)
class Step:
    """What would be done to one resource."""

    op: str  #: Pulumi's word: same, create, update, replace, delete, or another
    urn: str
    old: State | None  #: None for a new one
    new: State | None  #: None for one that goes
    causes: frozenset[str] = frozenset()  #: the inputs that make a new resource of it
    differs: frozenset[str] = frozenset()  #: all inputs that the provider finds different

    @property
    def type(self) -> str:
        """The resource's type token: the last of the types in its URN, which begin with its parents'."""
        return self.urn.split("::")[2].rpartition("$")[2] if self.urn.count("::") >= 3 else ""

    @property
    def name(self) -> str:
        """The resource's logical name."""
        return self.urn.rpartition("::")[2]

    @property
    def changes(self) -> bool:
        """Whether anything is done."""
        return self.op != "same"

    @property
    def state(self) -> State:
        """The resource as it will be, or as it was when it goes."""
        return self.new or self.old or State({})


@dataclass(frozen=True)
class Violation:
    """A rule of a policy pack that is broken."""

    pack: str
    rule: str
    resource: str  #: the logical name of the resource that breaks it
    mandatory: bool  #: whether it stops an update
    message: str


@dataclass(frozen=True)
class Preview:
    """All that a preview tells."""

    stack: str  #: the stack's name, without the organization
    ok: bool  #: whether it succeeded
    steps: tuple[Step, ...]  #: sorted by type and name
    config: Mapping[str, str]  #: the stack's configuration as text, secrets masked
    outputs: Mapping[str, Any]  #: the stack's outputs as the last deployment left them
    errors: tuple[str, ...] = ()  #: what went wrong, each a whole message
    warnings: tuple[str, ...] = ()  #: what the program warns of
    packs: tuple[str, ...] = ()  #: the policy packs that ran
    violations: tuple[Violation, ...] = ()  #: the rules that are broken, mandatory ones first


def read(text: str) -> Preview:
    """A preview from an event log.

    Raises:
        ValueError: it is none.
    """
    try:
        # An event with the engine's debugging is long, and one of hundreds.
        events = [json.loads(line) for line in text.splitlines() if line.strip() and '"severity":"debug"' not in line]
    except ValueError as error:
        raise ValueError(f"this is no event log of a preview, or it is cut off: {error}") from None
    if not events or not all(isinstance(event, dict) for event in events):
        raise ValueError("this is no event log of a preview: `pulumi preview --event-log <file>` writes one")
    told = {kind: [event[kind] for event in events if kind in event] for kind in sorted({kind for event in events for kind in event})}
    raw = [each["metadata"] for each in told.get("resourcePreEvent", ())]
    said = [(each.get("severity"), _message(each.get("message", ""))) for each in told.get("diagnosticEvent", ())]
    errors = [message for severity, message in said if severity == "error"]
    summary = (told.get("summaryEvent") or [{}])[-1]
    violations = [_violation(each) for each in told.get("policyEvent", ())]
    stack: Mapping[str, Any] = next((each for each in raw if each["type"] == _STACK), {})
    steps = [step for step in map(_step, _logical(raw)) if step.type != _STACK and not step.type.startswith("pulumi:providers:")]
    return Preview(
        stack=str(raw[0]["urn"]).removeprefix("urn:pulumi:").partition("::")[0] if raw else "",
        ok=summary.get("result", "succeeded" if summary else "failed") == "succeeded" and not errors,
        steps=tuple(sorted(steps, key=lambda step: (step.type, step.name, step.op))),
        config=(told.get("preludeEvent") or [{}])[0].get("config") or {},
        outputs=_plain((stack.get("old") or {}).get("outputs") or {}),
        errors=_telling(errors),
        warnings=_telling(message for severity, message in said if severity == "warning"),
        packs=tuple(sorted({pack.partition("|")[0] for pack in summary.get("PolicyPacks") or {}} | {each.pack for each in violations})),
        violations=tuple(sorted(violations, key=lambda each: (not each.mandatory, each.pack, each.rule, each.resource, each.message))),
    )


def _logical(raw: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One step for each resource: a replacement's halves are left out where the replacement itself is told."""
    found = list(raw)
    whole = {step["urn"] for step in found if step["op"] not in _HALVES}
    return [step for step in found if step["op"] not in _HALVES or step["urn"] not in whole]


def _step(raw: Mapping[str, Any]) -> Step:
    before, after = _state(raw.get("old")), _state(raw.get("new"))
    detailed = {path.partition(".")[0].partition("[")[0] for path in raw.get("detailedDiff") or {}}
    return Step(
        op=str(raw["op"]),
        urn=str(raw["urn"]),
        old=before,
        new=(after or before) if raw["op"] == "same" else after,
        causes=frozenset(raw.get("keys") or ()),
        differs=frozenset(raw.get("diffs") or ()) | detailed,
    )


def _state(raw: Mapping[str, Any] | None) -> State | None:
    if not raw:
        return None
    inputs = _plain(raw.get("inputs") or {})
    return State(inputs, str(raw.get("parent") or ""), protect=bool(raw.get("protect")), retain=bool(raw.get("retainOnDelete")))


def _plain(value: Any) -> Any:
    """A value with its secrets as SECRET and without Pulumi's own notes."""
    if isinstance(value, Mapping):
        if value.get(_SIGNATURE[0]) == _SIGNATURE[1]:
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


def _telling(messages: Iterable[str]) -> tuple[str, ...]:
    """Each message once, in their order; one that only says that there was another is left out when there was."""
    found = list(dict.fromkeys(message for message in messages if message))
    telling = [message for message in found if message != "preview failed" and not message.startswith("an unhandled error occurred: ")]
    return tuple(telling or found)
