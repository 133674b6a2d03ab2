"""Recorded previews as the tests of the report use them: as they are, and edited."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from configs import names
from ops.preview.events import read
from ops.preview.report import Report, build
from ops.preview.settings import settings_after

FOLDER = Path(__file__).with_name("previews")
Event = dict[str, Any]


def recorded(name: str) -> str:
    """The text of a recorded preview."""
    packed = FOLDER / f"{name}.gz"
    if packed.exists():
        return gzip.decompress(packed.read_bytes()).decode()
    return (FOLDER / name).read_text(encoding="utf-8")


def events_of(name: str) -> list[Event]:
    """A recorded preview's events."""
    return [json.loads(line) for line in recorded(f"{name}.jsonl").splitlines()]


def text_of(events: Iterable[Event]) -> str:
    """Events as an event log."""
    return "\n".join(json.dumps(event) for event in events)


def report_of(name: str, edit: Callable[[list[Event]], Any] = lambda events: events) -> Report:
    """The report of a recorded preview, whose events may be edited before."""
    events = events_of(name)
    edit(events)
    return build(read(text_of(events)))


def earlier(events: Iterable[Event]) -> Any:
    """The settings of the last deployment, in the stack's outputs, to be edited."""
    return next(step for step in steps_of(events) if step["type"] == "pulumi:pulumi:Stack")["old"]["outputs"]["settings"]


def steps_of(events: Iterable[Event]) -> list[dict[str, Any]]:
    """The steps that a preview tells of."""
    return [event["resourcePreEvent"]["metadata"] for event in events if "resourcePreEvent" in event]


def step_of(events: Iterable[Event], name: str, type_: str = "") -> dict[str, Any]:
    """The step of a resource, by its logical name and the end of its type."""
    steps = (step for step in steps_of(events) if step["urn"].endswith(f"::{name}") and step["type"].endswith(type_))
    return next(step for step in steps if step.get("logical"))


def changed(events: Iterable[Event], name: str, type_: str = "", *, op: str = "update", **more: Any) -> Any:
    """Let a resource change, in the way that `more` says; its new inputs, to be edited."""
    step = step_of(events, name, type_)
    step |= {"op": op, "new": copy.deepcopy(step["old"]), **more}
    return step["new"]["inputs"]


def replaced(events: Iterable[Event], name: str, *keys: str) -> Any:
    """Let a resource be replaced because of some of its inputs; its new inputs."""
    return changed(events, name, op="replace", keys=list(keys), diffs=list(keys))


def deployed(events: list[Event]) -> list[Event]:
    """A preview in which everything is new, as the one after its update: everything stays as it is.

    What only the update knows (the images' IDs, and the forwarders' configurations) is given a value.
    """
    settings = settings_after(read(text_of(events)))
    assert settings is not None
    links = {names.forwarder_of(node["name"]): node["forwardTo"] for node in settings["nodes"]}
    unknown = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"

    def known(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: known(inner) for key, inner in value.items()}
        return [known(inner) for inner in value] if isinstance(value, list) else "sha256:0123" if value == unknown else value

    for step in steps_of(events):
        if step["op"] == "create":
            step["op"] = "same"
            step["old"] = known(step.pop("new"))
            if step["type"].endswith(":Forwarder"):
                told = [{**link, "record": 10000, "revision": "0123"} for link in links[step["urn"].rpartition("::")[2]]]
                step["old"]["inputs"]["configuration"] = {"links": told, "deleteAfterSeconds": None}
        if step["type"] == "pulumi:pulumi:Stack":
            step["old"] = {**(step.get("old") or {}), "outputs": {"settings": settings}}
    return events
