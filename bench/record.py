"""What the program asks of Docker, without Docker: it is run under Pulumi's mocks, and what it registers is printed as JSON.

The compose file is made from this, so that both deploy the same thing whatever the program comes to say. Run as a program of its
own (``python -m bench.record <stack> <folder>``), because Pulumi's runtime keeps its settings in the process.
"""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
import yaml
from pulumi.runtime import config as pulumi_config
from pulumi.runtime import mocks, rpc
from pulumi.runtime.stack import run_pulumi_func

from configs.names import PROJECT


class _Mocks(mocks.Mocks):
    """Docker, as far as outputs are asked for. An image's ID is its name here: compose takes either, and the name can be read."""

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        more = {"imageId": args.inputs["name"]} if args.typ.endswith(":RemoteImage") else {}
        if args.typ == "pulumi:index:Stash":
            more = {"output": args.inputs["input"]}
        return f"{args.name}-id", {**args.inputs, **more}

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        assert args.token == "pulumi:pulumi:readStackResourceOutputs", f"the program calls a function: {args.token}"
        owner = {"type": "pulumi:index:Stash", "outputs": {"input": {"owner": "of-the-bench", "keepsData": False}}}
        return {"outputs": {"owner": owner}}, []


class _Monitor(mocks.MockMonitor):
    def __init__(self) -> None:
        super().__init__(_Mocks())
        self.seen: list[dict[str, Any]] = []
        self._of: dict[str, frozenset[str]] = {}

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802
        answer = super().RegisterResource(request)  # type: ignore[no-untyped-call]
        dependencies = {urn.rpartition("::")[2] for urn in request.dependencies} | self._of.get(request.parent, frozenset())
        self._of[answer.urn] = frozenset(dependencies)
        self.seen.append(
            {
                "type": request.type.rpartition(":")[2],
                "name": request.name,
                "inputs": _plain(rpc.deserialize_properties(request.object)),
                # A child is registered after its parent, and so after what its parent waits for.
                "dependencies": sorted(dependencies),
            }
        )
        return answer


def _plain(value: Any) -> Any:
    """Values without the mark of a secret; the protocol knows no integers."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if rpc.is_rpc_secret(value):
        return _plain(rpc.unwrap_rpc_secret(value))
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _no_hook(_: object) -> asyncio.Future[None]:
    """Mocks have no server for the callbacks of error hooks."""
    done: asyncio.Future[None] = asyncio.get_event_loop().create_future()
    done.set_result(None)
    return done


def record(stack: str, program: Path, secrets: Mapping[str, str]) -> list[dict[str, Any]]:
    """Run a program for a stack, and return the resources that it registers.

    Args:
        stack: the stack's name; its stack file is in the program's folder.
        program: the program's folder; the first of sys.path.
        secrets: its secrets in clear.
    """
    plain = yaml.safe_load((program / f"Pulumi.{stack}.yaml").read_text(encoding="utf-8"))["config"]
    config = {key: value if isinstance(value, str) else json.dumps(value) for key, value in plain.items()}
    config |= {f"{PROJECT}:{key}": value for key, value in secrets.items()}
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    monitor = _Monitor()
    pulumi.resource_hooks.register_error_hook = _no_hook  # type: ignore[assignment,attr-defined]
    mocks.set_mocks(_Mocks(), project=PROJECT, stack=stack, preview=False, monitor=monitor)
    pulumi_config.set_all_config(config, [f"{PROJECT}:{key}" for key in secrets])

    def main() -> None:
        runpy.run_path(str(program / "__main__.py"), run_name="__main__")

    try:
        loop.run_until_complete(run_pulumi_func(main))
    finally:
        loop.close()
    return monitor.seen


if __name__ == "__main__":
    print(json.dumps(record(sys.argv[1], Path(sys.argv[2]), json.loads(os.environ["BENCH_SECRETS"]))))
