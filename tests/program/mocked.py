"""Runs the whole program under Pulumi's mocks, and records every request: inputs, options, parents, dependencies.

Needs no Docker engine, no state, no secret, no `pulumi` command. As a command (`python ops/mocked.py <stack>`, in a checkout's root) it
prints what that checkout would deploy, as JSON: so another commit's program is run by its own mocks, and nothing of it is imported here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

if __name__ == "__main__":
    sys.path[0] = str(Path.cwd())

import secrets as randomness

import pulumi
from pulumi.runtime import config as pulumi_config
from pulumi.runtime import mocks, rpc
from pulumi.runtime.settings import get_root_resource
from pulumi.runtime.stack import Stack, run_pulumi_func

from components import engine as engines
from components import preflight
from components.engine import Engine
from configs.held import KEEPS_DATA, OWNER
from configs.names import PROJECT

#: What stands for a secret's value in what is printed.
MASK = "[secret]"


#: A stack that was deployed before: the first deployment makes a random owner.
_DEPLOYED = {"owner": {"type": "pulumi:index:Stash", "outputs": {"input": {OWNER: "0123456789abcdef", KEEPS_DATA: False}}}}


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


class _Mocks(mocks.Mocks):
    """Docker, as far as outputs are asked for: an image has an ID; everything else has what it was given."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        super().__init__()
        self.state = state

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        more = {"imageId": f"sha256:{args.name}"} if args.typ.endswith(":RemoteImage") else {}
        if args.typ == "pulumi:index:Stash":
            more = {"output": args.inputs["input"]}
        return f"{args.name}-id", {**args.inputs, **more}

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        assert args.token == "pulumi:pulumi:readStackResourceOutputs", f"the program calls a function: {args.token}"
        return {"outputs": dict(self.state)}, []


class _Monitor(mocks.MockMonitor):
    def __init__(self, run: Run, docker: _Mocks) -> None:
        super().__init__(docker)
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


def run_mocked(
    raw: Mapping[str, Any],
    secrets: Mapping[str, str],
    stack: str,
    engine: Engine | None = None,
    *,
    root: Path,
    main: str = "__main__.py",
    preview: bool = False,
    run: Run | None = None,
    state: Mapping[str, Any] | None = None,
) -> Run:
    """Run the program for a stack file.

    Args:
        raw: what the stack file says, less the secrets.
        secrets: the secrets' values, by key.
        stack: the stack's name.
        engine: what the Docker engine holds; by default, nothing, and it is not this machine's.
        root: the checkout whose program is run; its modules must be those that are imported.
        main: the program's file.
        preview: run as in a preview.
        run: where to record what it did, for a program that ends with an error.
        state: what the stack's state holds: type and outputs of each resource, by URN; by default, an owner alone.

    Raises:
        pulumi.RunError: the program refuses the stack file.
    """
    run = Run() if run is None else run
    values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in raw.items()} | dict(secrets)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    with (
        _replaced(engines, "inspect", lambda *_: engine or Engine()),
        _replaced(randomness, "token_hex", lambda _: "fedcba9876543210"),
        _replaced(preflight, "await_starts", lambda *_: None),
        # Mocks have no server for callbacks; that hooks are bound to their resources is seen in the requests.
        _replaced(pulumi.resource_hooks, "register_error_hook", _registered),
    ):
        docker = _Mocks(_DEPLOYED if state is None else state)
        mocks.set_mocks(docker, project=PROJECT, stack=stack, preview=preview, monitor=_Monitor(run, docker))
        pulumi_config.set_all_config({f"{PROJECT}:{key}": value for key, value in values.items()}, [f"{PROJECT}:{key}" for key in secrets])
        try:
            loop.run_until_complete(run_pulumi_func(lambda: _execute(run, root / main)))
        finally:
            pulumi_config.set_all_config({}, [])
            loop.close()
    return run


@contextlib.contextmanager
def _replaced(module: Any, name: str, replacement: Callable[..., Any]) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, replacement)
    try:
        yield
    finally:
        setattr(module, name, before)


def _registered(_: pulumi.ErrorHook) -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_event_loop().create_future()
    future.set_result(None)
    return future


async def _execute(run: Run, program: Path) -> None:
    # Pulumi makes one root for all programs of a process: an output that this one has not would be the last one's.
    cast("Stack", get_root_resource()).outputs.clear()
    runpy.run_path(str(program), run_name="__main__")
    for name, value in cast("Stack", get_root_resource()).outputs.items():
        output = pulumi.Output.from_input(value)
        run.outputs[name] = await output.future()
        run.secret_outputs += [name] if await output.is_secret() else []


def described(run: Run) -> list[dict[str, Any]]:
    """What a run registered, for people and programs: secret inputs masked whole, in the order of type and name."""
    resources = sorted(run.resources.values(), key=lambda resource: (resource.type, resource.name, resource.urn))
    return [
        {
            "type": resource.type,
            "name": resource.name,
            "protected": bool(resource.request.protect),
            "secret": sorted(resource.secret_inputs),
            "inputs": {key: MASK if key in resource.secret_inputs else value for key, value in sorted(resource.inputs.items())},
        }
        for resource in resources
    ]


def deploy(stack: str, root: Path) -> dict[str, Any]:
    """What the checkout in a folder deploys for a stack: its resources, and what of them breaks its policy pack; or what it refuses.

    Its modules must be those that are imported.
    """
    # Of the checkout, too: its settings decide which secrets there are.
    from configs.loader import parse  # noqa: PLC0415
    from configs.problems import SettingsError, report  # noqa: PLC0415
    from configs.secrets import is_setting, parties_of, private_key_key, secret_keys  # noqa: PLC0415
    from configs.stack_file import read_config  # noqa: PLC0415
    from images import candidates  # noqa: PLC0415

    file = f"Pulumi.{stack}.yaml"
    try:
        config = read_config(root / file)
    except FileNotFoundError:
        return {"refused": f"There is no {file}."}
    except SettingsError as error:
        return {"refused": str(error)}
    own = {key.partition(":")[2]: value for key, value in config.items() if isinstance(key, str) and key.startswith(f"{PROJECT}:")}
    raw = {key: value for key, value in own.items() if is_setting(key)}
    settings, _, problems = parse(raw)
    if settings is None:
        return {"refused": report(problems, file)}
    # Long and unlike each other, as production's rules want them; they open nothing.
    secrets = {key: f"Stands-for-value-{number:04}-of-its-kind" for number, key in enumerate(secret_keys(settings))}
    secrets |= {private_key_key(party.name): f"Stands-for-the-key-of-{party.name}" for party in parties_of(settings)}
    # Images that are built on an engine are chosen only where it holds them.
    held = frozenset(candidates(settings.index_db.major_version)) if settings.images.source == "local" else frozenset()
    try:
        with _without_private_keys({key: value for key, value in own.items() if isinstance(value, str)}):
            run = run_mocked(raw, secrets, stack, Engine(images=held), root=root)
    except pulumi.RunError as error:
        return {"refused": str(error)}
    return {"resources": described(run), "violations": _violations(run, prod=settings.is_prod)}


@contextlib.contextmanager
def _without_private_keys(own: Mapping[str, str]) -> Iterator[None]:
    """Certificates are taken as they stand in the stack file, or by their names where they do not: whether one is valid, and its key's,
    is not looked at.
    """
    from configs import certificates, secrets  # noqa: PLC0415

    def standing_for(loaded: Any, *_: object) -> Any:
        texts = {
            party.name: own.get(secrets.trust_key(party.name), f"trust of {party.name}") for party in secrets.parties_of(loaded.settings)
        }
        made = {
            name: secrets.Certificate(own.get(secrets.certificate_key(name), f"certificate of {name}"), trust, MASK, MASK, MASK)
            for name, trust in texts.items()
        }
        return replace(loaded, certificates=made, authority=own.get(secrets.CA_CERTIFICATE, ""))

    with (
        _replaced(certificates, "check_certificates", lambda *_: iter(())),
        _replaced(certificates, "with_certificates", standing_for),
    ):
        yield


def _violations(run: Run, *, prod: bool) -> list[list[str]]:
    from policy import engine  # noqa: PLC0415
    from policy.resources import Resource as Judged  # noqa: PLC0415
    from policy.rules import violations  # noqa: PLC0415

    found = []
    for made in run.resources.values():
        inputs = {key: engine.marked(value, secret=key in made.secret_inputs) for key, value in made.inputs.items()}
        judged = Judged(type=made.type, name=made.name, inputs=inputs, protected=made.request.protect)
        found += [[rule, made.name, message] for rule, message in violations(judged, prod=prod)]
    return sorted(found)


if __name__ == "__main__":
    print(json.dumps(deploy(sys.argv[1], Path.cwd())))
