"""Records previews of real stacks for the tests of the report: `python -m tests.stack.record_previews`.

Deploys a stack like dev and one like prod, previews changes of each, and writes what Pulumi told of them (its engine events, the source
of ops/preview) to tests/unit/previews/, less what the report does not read. Stack names and ports are those of the project's own stack
files, so that what is recorded does not depend on the machine; identifiers of containers are left out.
"""

from __future__ import annotations

import gzip
import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from configs import names
from configs.loader import parse
from images import local_image
from ops.stack.authority import make
from tests.stack.engine import docker
from tests.stack.harness import ROOT, Stack, copy_program, need_pulumi, without_nodes

FOLDER = ROOT / "tests" / "unit" / "previews"

#: The recorded stacks' images: the ones built here, under names that the policy pack takes for a registry's. Nobody resolves the name.
_REGISTRY = "registry.invalid"
BEFORE: Mapping[str, str] = {"orthanc": "orthancteam/orthanc:26.8.1", "postgres": "postgres:17.11", "adminer": "adminer:5.5.1"}
AFTER: Mapping[str, str] = {"orthanc": "orthancteam/orthanc:26.8.2"}

Change = Callable[[Stack], None]


def tag_images() -> None:
    """Give the images built here the recorded stacks' names; those of AFTER differ from them in nothing but their ID."""
    for role in BEFORE:
        docker("tag", local_image(role), f"{_REGISTRY}/{BEFORE[role]}")
    for role, name in AFTER.items():
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "Dockerfile").write_text(f"FROM {local_image(role)}\nLABEL orthanc-stack.test=after\n")
            docker("build", "--quiet", "--tag", f"{_REGISTRY}/{name}", folder)


def untag_images() -> None:
    docker("rmi", *(f"{_REGISTRY}/{name}" for name in (*BEFORE.values(), *AFTER.values())), check=False)


def images(other: Mapping[str, str] | None = None) -> dict[str, str]:
    """The `images` block of a stack file that runs them: those of BEFORE, but for what is said otherwise."""
    return {"source": "registry", **{role: f"{_REGISTRY}/{name}" for role, name in {**BEFORE, **(other or {})}.items()}}


# --- the changes, each an edit of the stack file ---


def add_node(stack: Stack) -> None:
    """A third node, which the client forwards to as well."""
    stack.add_node("research", index="postgresql")
    stack.node_settings("client")["forwardTo"] = ["server", "research"]


def remove_node(stack: Stack) -> None:
    stack.settings["nodes"].remove(stack.node_settings("client"))
    for modality in stack.settings.get("modalities", []):
        modality["nodes"].remove("client")


def rename_node(stack: Stack) -> None:
    """The client keeps its AE title, but not its ports: the node of the new name is made before the old one goes."""
    node = stack.node_settings("client")
    node["name"] = "gateway"
    del node["dicomPort"], node["httpPort"]
    stack.give_ports()
    for modality in stack.settings.get("modalities", []):
        modality["nodes"] = ["gateway" if name == "client" else name for name in modality["nodes"]]


def change_aet(stack: Stack) -> None:
    """The server's, which the client knows it by."""
    stack.node_settings("server")["aet"] = "ARCHIVE"


def change_port(stack: Stack) -> None:
    del stack.node_settings("client")["dicomPort"]
    stack.give_ports()


def change_image(stack: Stack) -> None:
    stack.settings["images"] = images(AFTER)


def change_option(stack: Stack) -> None:
    stack.node_settings("client")["orthanc"] = {"StableAge": 20}


def rotate_secret(stack: Stack) -> None:
    stack.secrets["userPassword.server.orthanc"] = "recorded-rotated-1"


def new_major_version(stack: Stack) -> None:
    """Another PostgreSQL than the one that wrote the volume."""
    stack.settings["indexDb"] = {"majorVersion": 16}
    stack.settings["images"] |= {"postgres": f"{_REGISTRY}/postgres:16.14"}


def turn_tls_on(stack: Stack) -> None:
    for part in (*stack.settings["nodes"], *stack.settings.get("modalities", []), stack.settings.setdefault("indexDb", {})):
        part["tls"] = True


def renew_certificate(stack: Stack, node: str) -> None:
    settings = parse(stack.settings)[0]
    assert settings is not None
    made = make(settings, stack.certificates | stack.secrets, datetime.now(UTC), [node])
    stack.certificates |= made.plain
    stack.secrets |= made.secret


def break_policy(stack: Stack) -> None:
    """An Adminer with known holes."""
    stack.settings["images"] |= {"adminer": f"{_REGISTRY}/adminer:5.5.0"}


DEV: Mapping[str, Change] = {
    "nothing": lambda _: None,
    "node-added": add_node,
    "node-removed": remove_node,
    "node-renamed": rename_node,
    "aet-changed": change_aet,
    "port-changed": change_port,
    "image-changed": change_image,
    "option-changed": change_option,
    "secret-rotated": rotate_secret,
    "postgresql-major": new_major_version,
    "policy-broken": break_policy,
}
PROD: Mapping[str, Change] = {"prod-node-removed": remove_node, "prod-image-changed": change_image}


def told(stack: Stack, named: Names) -> str:
    """What a preview of the stack file as it stands tells, with the policy pack; it may fail. A line each event."""
    stack.variable("PULUMI_DEBUG_COMMANDS", "true")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "events"
        stack._write()
        stack.command("preview", "--event-log", str(log), "--policy-pack", "policy")
        events = [json.loads(line) for line in log.read_text().splitlines()]
    lines = (json.dumps(event, sort_keys=True, ensure_ascii=False) for event in slim(events))
    return named.apply("\n".join(lines)) + "\n"


# --- what is kept of an event ---

_KEPT = ("preludeEvent", "policyEvent", "policyLoadEvent", "summaryEvent", "diagnosticEvent", "resourcePreEvent", "resOutputsEvent")
_STATE = ("type", "custom", "parent", "protect", "retainOnDelete")


def slim(events: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The events that the report reads, less what it does not read of them."""
    for event in events:
        kind = next((key for key in _KEPT if key in event), None)
        if kind is None or (kind == "diagnosticEvent" and event[kind]["severity"] == "debug"):
            continue
        body = event[kind]
        if kind in ("resourcePreEvent", "resOutputsEvent"):
            step = body["metadata"]
            if "pulumi:providers" in step["type"] or (kind == "resOutputsEvent" and step["type"] != "pulumi:pulumi:Stack"):
                continue
            kept = {key: step[key] for key in ("op", "urn", "type", "keys", "diffs", "detailedDiff", "logical") if step.get(key)}
            body = {"metadata": kept | {side: _state(step[side]) for side in ("old", "new") if step.get(side)}}
            if step["op"] == "same" and kind == "resourcePreEvent":
                body["metadata"].pop("new", None)
        elif kind == "summaryEvent":
            body = body | {"durationSeconds": 0}
        yield {kind: body}


def _state(state: dict[str, Any]) -> dict[str, Any]:
    kept = {key: state[key] for key in _STATE if state.get(key)}
    # A container's outputs repeat its inputs, with the engine's identifiers and addresses.
    outputs = {} if state["type"].startswith("docker:index/container") else state.get("outputs") or {}
    return kept | {"inputs": _plain(state.get("inputs") or {}), "outputs": _plain(outputs)}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items() if key not in ("__defaults", "__meta", "__pulumi_raw_state_delta")}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


class Names:
    """Gives what is random in a test's stack (its name, its ports) the names that it has in the project's stack files."""

    def __init__(self, stack: Stack, like: str) -> None:
        self._others = {stack.prefix: names.prefix(like), stack.name: like, str(stack.program): "."}
        others = count(8080)
        self._ports: dict[str, str] = defaultdict(lambda: str(next(others)))
        for node in stack.settings["nodes"]:
            if node["name"] in (known := ("server", "client")):
                base = known.index(node["name"])
                self._ports |= {str(node["httpPort"]): str(8042 + base), str(node["dicomPort"]): str(4242 + base)}

    def apply(self, text: str) -> str:
        for name, other in self._others.items():
            text = text.replace(name, other)
        return re.sub(r"(?<![0-9A-Za-z])(2\d{4}|3[01]\d{3})(?![0-9A-Za-z])", lambda found: self._ports[found[0]], text)


def record(program: Path, like: str, changes: Mapping[str, Change]) -> None:
    stack = Stack(program, like, images=images())
    with stack.deployed():
        named = Names(stack, like)
        for name, change in changes.items():
            with stack.trying():
                change(stack)
                (FOLDER / f"{name}.jsonl").write_text(told(stack, named))
            print(f"{name} is recorded", flush=True)


def record_first(program: Path) -> None:
    """A stack that is not deployed yet: everything is new."""
    stack = Stack(program, "dev", images=images())
    try:
        (FOLDER / "first.jsonl").write_text(told(stack, Names(stack, "dev")))
    finally:
        stack.wipe()


def record_fifty(program: Path) -> None:
    """A stack of fifty nodes, 49 of which forward to the first. Deploys nothing: everything is new."""
    stack = without_nodes(program, images=images())
    stack.add_node("archive", index="postgresql")
    for i in range(1, 50):
        stack.add_node(f"ward-{i:02}", index="sqlite", forwardTo=["archive"])
    try:
        (FOLDER / "fifty-nodes.jsonl.gz").write_bytes(gzip.compress(told(stack, Names(stack, "dev")).encode(), mtime=0))
    finally:
        stack.wipe()


def main() -> None:
    need_pulumi()
    FOLDER.mkdir(exist_ok=True)
    tag_images()
    try:
        with tempfile.TemporaryDirectory() as folder:
            program = copy_program(Path(folder))
            record_first(program)
            record_fifty(program)
            record(program, "dev", DEV)
            record(program, "prod", PROD)
    finally:
        untag_images()


if __name__ == "__main__":
    main()
