"""Runs the whole program under Pulumi's mocks, and records every request: inputs, options, parents, dependencies."""

from __future__ import annotations

import asyncio
import json
import runpy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pulumi
import pytest
import yaml
from pulumi.runtime import config as pulumi_config
from pulumi.runtime import mocks, rpc
from pulumi.runtime.settings import get_root_resource
from pulumi.runtime.stack import Stack, run_pulumi_func

from configs import preflight
from configs.loader import parse
from configs.names import PROJECT
from configs.secrets import is_setting, secret_keys
from tests.unit.certificates import certificates_for
from tests.unit.stacks import settings_of

ROOT = Path(__file__).resolve().parents[2]

#: Found in what a secret must not be in.
SECRET = "S3CR3Tcanary"


@dataclass(frozen=True)
class Resource:
    """One registered resource: its inputs, the names of those that are secret, and the request with its options."""

    urn: str
    type: str
    name: str
    inputs: Mapping[str, Any]
    secret_inputs: frozenset[str]
    request: Any

    @property
    def parent(self) -> str:
        """The parent's URN."""
        return str(self.request.parent)


@dataclass
class Run:
    """What the program registered and exported."""

    resources: dict[str, Resource] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    secret_outputs: list[str] = field(default_factory=list)

    def of_type(self, short: str) -> list[Resource]:
        """The resources whose type ends with a name, sorted by name: ``Container``, ``OrthancNode``."""
        return sorted((r for r in self.resources.values() if r.type.rpartition(":")[2] == short), key=lambda r: r.name)

    def one(self, name: str) -> Resource:
        """The resource of a logical name."""
        (found,) = (r for r in self.resources.values() if r.name == name)
        return found

    def configuration(self, node: str) -> dict[str, Any]:
        """A node's public configuration, as its file holds it."""
        uploads = {u["file"]: u for u in self.one(f"{node}-container").inputs["uploads"]}
        loaded: dict[str, Any] = json.loads(uploads["/etc/orthanc/orthanc.json"]["content"])
        return loaded

    def forwarder(self, node: str) -> dict[str, Any]:
        """The public configuration of a node's forwarder, as its file holds it."""
        uploads = {u["file"]: u for u in self.one(f"{node}-forwarder-container").inputs["uploads"]}
        loaded: dict[str, Any] = json.loads(uploads["/etc/forwarder.json"]["content"])
        return loaded

    def depends_on(self, name: str) -> set[str]:
        """The names of the resources that one depends on in any way."""
        return {urn.rpartition("::")[2] for urn in self.one(name).request.dependencies}

    def input_edges(self, name: str) -> Iterator[tuple[str, str]]:
        """The edges by output of a resource: (input, name of the resource that it comes from). These cascade replacements."""
        for key, dependencies in self.one(name).request.propertyDependencies.items():
            for urn in dependencies.urns:
                yield key, urn.rpartition("::")[2]


class _Mocks(mocks.Mocks):
    """Docker, as far as outputs are asked for: an image has an ID; everything else has what it was given."""

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        more = {"imageId": f"sha256:{args.name}"} if args.typ.endswith(":RemoteImage") else {}
        return f"{args.name}-id", {**args.inputs, **more}

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        raise AssertionError(f"the program calls a function: {args.token}")


class _Monitor(mocks.MockMonitor):
    def __init__(self, run: Run) -> None:
        super().__init__(_Mocks())
        self._run = run

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802
        answer = super().RegisterResource(request)  # type: ignore[no-untyped-call]
        if request.type != "pulumi:pulumi:Stack":
            marked = rpc.deserialize_properties(request.object)
            secret = frozenset(key for key, value in marked.items() if rpc.is_rpc_secret(value))
            self._run.resources[answer.urn] = Resource(answer.urn, request.type, request.name, _unwrap(marked), secret, request)
        return answer


def _unwrap(value: Any) -> Any:
    """Values without the mark of a secret."""
    if rpc.is_rpc_secret(value):
        return _unwrap(rpc.unwrap_rpc_secret(value))
    if isinstance(value, Mapping):
        return {key: _unwrap(inner) for key, inner in value.items()}
    return [_unwrap(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def raw_stack_file(stack: str) -> dict[str, Any]:
    """What one of the project's stack files says, less the namespace and the secrets."""
    config = yaml.safe_load((ROOT / f"Pulumi.{stack}.yaml").read_text())["config"]
    raw = {key.partition(":")[2]: value for key, value in config.items()}
    return {key: value for key, value in raw.items() if is_setting(key)}


def run_program(
    raw: Mapping[str, Any], stack: str, engine: preflight.Engine | None = None, *, preview: bool = False, run: Run | None = None
) -> Run:
    """Run the program for a stack file.

    Args:
        raw: what the stack file says, less the secrets; each secret gets a value with SECRET in it; the first, the superuser's, SECRET0.
        stack: the stack's name.
        engine: what the Docker engine holds; by default, nothing, and it is not this machine's.
        preview: run as in a preview.
        run: where to record what it did, for a program that ends with an error: its stack file may then be a malformed one.
    """
    settings = settings_of(dict(raw)) if run is None else parse(raw)[1].settings
    run = run or Run()
    secrets = {key: f"{SECRET}{i}" for i, key in enumerate(secret_keys(settings))}
    made = certificates_for(settings)
    secrets |= made.secret
    values: dict[str, str] = (
        {key: value if isinstance(value, str) else json.dumps(value) for key, value in raw.items()} | dict(made.plain) | secrets
    )
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preflight, "inspect", lambda *_: engine or preflight.Engine())
        # Mocks have no server for callbacks; that hooks are bound to their resources is seen in the requests.
        patch.setattr(pulumi.resource_hooks, "register_error_hook", _registered)
        mocks.set_mocks(_Mocks(), project=PROJECT, stack=stack, preview=preview, monitor=_Monitor(run))
        pulumi_config.set_all_config({f"{PROJECT}:{key}": value for key, value in values.items()}, [f"{PROJECT}:{key}" for key in secrets])
        try:
            loop.run_until_complete(run_pulumi_func(lambda: _execute(run)))
        finally:
            pulumi_config.set_all_config({}, [])
            loop.close()
    return run


def _registered(_: pulumi.ErrorHook) -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_event_loop().create_future()
    future.set_result(None)
    return future


async def _execute(run: Run) -> None:
    # Pulumi makes one root for all programs of a process: an output that this one has not would be the last one's.
    cast("Stack", get_root_resource()).outputs.clear()
    runpy.run_path(str(ROOT / "__main__.py"), run_name="__main__")
    for name, value in cast("Stack", get_root_resource()).outputs.items():
        output = pulumi.Output.from_input(value)
        run.outputs[name] = await output.future()
        run.secret_outputs += [name] if await output.is_secret() else []
