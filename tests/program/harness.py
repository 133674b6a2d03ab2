"""Runs the whole program under Pulumi's mocks, and records every request: inputs, options, parents, dependencies."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from components.engine import Engine
from configs.loader import parse
from configs.secrets import is_setting, secret_keys
from tests.program import mocked
from tests.program.mocked import Resource
from tests.unit.certificates import certificates_for
from tests.unit.stacks import settings_of

ROOT = Path(__file__).resolve().parents[2]

#: The owner that the state holds, unless a test says otherwise.
OWNER_ID = "0123456789abcdef"

#: Found in what a secret must not be in.
SECRET = "S3CR3Tcanary"


class Run(mocked.Run):
    """What the program registered and exported, with ways to find it."""

    def of_type(self, short: str) -> list[Resource]:
        """The resources whose type ends with a name, sorted by name: ``Container``, ``OrthancNode``."""
        return sorted((r for r in self.resources.values() if r.type.rpartition(":")[2] == short), key=lambda r: r.name)

    def one(self, name: str) -> Resource:
        """The resource of a logical name."""
        (found,) = (r for r in self.resources.values() if r.name == name)
        return found

    def files(self, container: str) -> dict[str, dict[str, Any]]:
        """What is written into a container, by path."""
        return {upload["file"]: upload for upload in self.one(container).inputs["uploads"]}

    def configuration(self, node: str) -> dict[str, Any]:
        """A node's public configuration, as its file holds it."""
        loaded: dict[str, Any] = json.loads(self.files(f"{node}-container")["/etc/orthanc/orthanc.json"]["content"])
        return loaded

    def forwarder(self, node: str) -> dict[str, Any]:
        """The public configuration of a node's forwarder, as its file holds it."""
        loaded: dict[str, Any] = json.loads(self.files(f"{node}-forwarder-container")["/etc/forwarder.json"]["content"])
        return loaded

    def depends_on(self, name: str) -> set[str]:
        """The names of the resources that one depends on in any way."""
        return {urn.rpartition("::")[2] for urn in self.one(name).request.dependencies}

    def input_edges(self, name: str) -> Iterator[tuple[str, str]]:
        """The edges by output of a resource: (input, name of the resource that it comes from). These cascade replacements."""
        for key, dependencies in self.one(name).request.propertyDependencies.items():
            for urn in dependencies.urns:
                yield key, urn.rpartition("::")[2]


def raw_stack_file(stack: str) -> dict[str, Any]:
    """What one of the project's stack files says, less the namespace and the secrets."""
    config = yaml.safe_load((ROOT / f"Pulumi.{stack}.yaml").read_text())["config"]
    raw = {key.partition(":")[2]: value for key, value in config.items()}
    return {key: value for key, value in raw.items() if is_setting(key)}


def run_program(raw: Mapping[str, Any], stack: str, engine: Engine | None = None, *, preview: bool = False, run: Run | None = None) -> Run:
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
    mocked.run_mocked({**raw, **made.plain}, secrets | dict(made.secret), stack, engine, root=ROOT, preview=preview, run=run)
    return run
