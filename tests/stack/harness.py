"""Stacks of the tests' own: deployed through Pulumi's Automation API, with names, ports and state that are nobody else's."""

from __future__ import annotations

import base64
import contextlib
import copy
import json
import os
import re
import secrets as randomness
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pulumi.automation as auto
import yaml

from configs import names
from configs.loader import parse
from configs.secrets import CA_CERTIFICATE, certificate_key, is_certificate, is_private_key, private_key_key, secret_keys
from images import candidates
from ops.stack.authority import make
from tests.stack.engine import PATIENCE_SECONDS, TEST_PORTS, Watch, docker, eventually, free_ports, need_pulumi
from tests.stack.web import opener_of

__all__ = ["ROOT", "Done", "Node", "Stack", "Watch", "copy_program", "docker", "eventually", "free_ports", "need_pulumi", "without_nodes"]

ROOT = Path(__file__).resolve().parents[2]

#: The local parts of the program: what `pulumi up` reads.
_PROGRAM = ("__main__.py", "Pulumi.yaml", "Pulumi.dev.yaml", "Pulumi.prod.yaml", "components", "configs", "forwarder", "images", "policy")


def copy_program(folder: Path, root: Path = ROOT) -> Path:
    """Copy the program of a checkout into an empty folder, so that stack files of tests lie beside it and nobody edits it meanwhile."""
    for part in _PROGRAM:
        source = root / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / part)
    # Pulumi.yaml and policy/PulumiPolicy.yaml both name the environment by its place beside the program.
    (folder / ".venv").symlink_to(sys.prefix)
    held = docker("images", "--format", "{{.Repository}}:{{.Tag}}").splitlines()
    if set(candidates()) <= set(held):  # as `./orthanc-stack up STACK` decides where no registry answers; dev's "auto" decides it by itself
        production = folder / "Pulumi.prod.yaml"
        production.write_text(production.read_text().replace("source: registry", "source: local"))
    (folder / "state").mkdir()
    return folder


@dataclass
class Done:
    """What an operation of Pulumi did.

    Attributes:
        ok: whether it succeeded.
        text: everything that it printed.
        steps: the operations on each resource that was touched, by the resource's logical name.
        seconds: how long it took.
    """

    ok: bool = True
    text: str = ""
    steps: dict[str, set[str]] = field(default_factory=dict)
    seconds: float = 0.0

    def touched(self, kind: str) -> set[str]:
        """The resources whose names end in this (``-container``), less it."""
        return {name.removesuffix(kind) for name in self.steps if name.endswith(kind)}

    @property
    def replaced(self) -> set[str]:
        """The resources that were replaced."""
        return {name for name, operations in self.steps.items() if "replace" in operations}


@dataclass(frozen=True)
class Node:
    """A node of a running stack, as its outputs describe it.

    Attributes:
        trust: what its certificate is known by; empty for one without TLS.
        as_device: how a device that has a certificate speaks DICOM TLS with it.
    """

    name: str
    aet: str
    host: str
    port: int
    url: str
    login: tuple[str, str]
    trust: str = ""
    as_device: ssl.SSLContext | None = None

    def ask(
        self,
        path: str,
        body: bytes | Mapping[str, Any] | list[str] | None = None,
        *,
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Send a request to the REST API; any status is an answer."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method, headers=dict(headers or {}))
        request.add_header("Authorization", self.authorization)
        try:
            with opener_of(self.trust, self.name).open(request, timeout=PATIENCE_SECONDS) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def get(self, path: str) -> Any:
        """GET JSON."""
        return json.loads(self.read(path))

    def read(self, path: str) -> bytes:
        """GET bytes."""
        status, body = self.ask(path)
        assert status == 200, f"GET {self.name}{path}: {status} {body[:300]!r}"
        return body

    def post(self, path: str, body: bytes | Mapping[str, Any] | list[str]) -> Any:
        """POST, and the JSON that answers."""
        status, answer = self.ask(path, body)
        assert status == 200, f"POST {self.name}{path}: {status} {answer[:300]!r}"
        return json.loads(answer)

    def echoes(self, peer: str) -> bool:
        """Whether a C-ECHO from inside the node reaches a peer."""
        status, _ = self.ask(f"/modalities/{peer}/echo", {})
        return status == 200

    def holds(self, uids: Iterable[str]) -> dict[str, str]:
        """The instances that the node holds of these: SOP instance UID -> Orthanc's identifier."""
        found = self.post("/tools/find", {"Level": "Instance", "Query": {}, "Expand": True})
        wanted = set(uids)
        known = {instance["MainDicomTags"]["SOPInstanceUID"]: instance["ID"] for instance in found}
        return {uid: known[uid] for uid in wanted & known.keys()}

    @property
    def authorization(self) -> str:
        """The Authorization header of the node's user."""
        return "Basic " + base64.b64encode(":".join(self.login).encode()).decode()


class Stack:
    """A stack with a name, ports, passwords and state of its own.

    Attributes:
        like: "dev" or "prod": whose stack file it began with.
        settings: what its stack file says, less the secrets: edit it, then up() or preview().
        secrets: its secrets in clear; those that are missing are made at random.
        secrets_ever: each value that a secret has had, with its key.
        printed: everything that Pulumi has printed of it.
        certificates: its certificates; those that are missing are made.
    """

    def __init__(self, program: Path, like: str, *, name: str = "", **settings: Any) -> None:
        """Begin with the settings of dev or prod, on free ports.

        Args:
            program: the copy of the program.
            like: "dev" or "prod": whose stack file to begin with.
            name: its name; by default one that nobody else has.
            settings: what to say otherwise.
        """
        self.like = like
        self.name = name or f"test-{like}-{randomness.token_hex(3)}"
        self.prefix = names.prefix(self.name)
        self.program = program
        self.environment = {
            "PULUMI_BACKEND_URL": f"file://{program / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE": randomness.token_hex(8),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }
        self.secrets: dict[str, str] = {}
        self.secrets_ever: set[tuple[str, str]] = set()
        self.printed: list[str] = []
        self.certificates: dict[str, str] = {}
        self.settings = _settings_like(program, like) | copy.deepcopy(settings)
        self.give_ports()
        self.makes_certificates = True
        self._set: dict[str, str] = {}
        self._outputs: dict[str, Any] | None = None
        self.file.write_text("config: {}\n")
        self._workspace = auto.LocalWorkspace(work_dir=str(program), env_vars=self.environment)
        self._stack = auto.Stack.create(self.name, self._workspace)

    # --- what the stack file says ---

    def give_ports(self) -> None:
        """Free ports for whatever has not got one of its own yet."""
        holders = [(node, key) for node in self.settings["nodes"] for key in ("httpPort", "dicomPort")]
        holders += [(modality, "port") for modality in self.settings.get("modalities", [])]
        holders += [(self.settings["adminer"], "port")] if self.settings.get("adminer") else []
        without = [(holder, key) for holder, key in holders if holder.get(key, 0) not in TEST_PORTS]
        for (holder, key), port in zip(without, free_ports(len(without)), strict=True):
            holder[key] = port

    def node_settings(self, name: str) -> dict[str, Any]:
        """The settings of a node."""
        return cast("dict[str, Any]", next(node for node in self.settings["nodes"] if node["name"] == name))

    def add_node(self, name: str, **settings: Any) -> None:
        """Add a node, on free ports."""
        self.settings["nodes"].append({"name": name, "aet": name.upper().replace("-", "_"), **settings})
        self.give_ports()

    @contextlib.contextmanager
    def trying(self) -> Iterator[dict[str, Any]]:
        """Settings that are taken back afterwards."""
        before = copy.deepcopy(self.settings), dict(self.secrets), dict(self.certificates)
        try:
            yield self.settings
        finally:
            self.settings, self.secrets, self.certificates = before

    @property
    def file(self) -> Path:
        """The stack file."""
        return self.program / f"Pulumi.{self.name}.yaml"

    def _write(self) -> None:
        """The stack file from settings and secrets; secrets are encrypted by Pulumi itself."""
        content = yaml.safe_load(self.file.read_text()) or {}
        held = {key: value for key, value in (content.get("config") or {}).items() if isinstance(value, dict) and "secure" in value}
        settings, _, _ = parse(self.settings)
        for key in secret_keys(settings) if settings else ():
            self.secrets.setdefault(key, "pw" + randomness.token_hex(12))
        if settings and self.makes_certificates:
            made = make(settings, self.certificates | self.secrets, datetime.now(UTC), only_needed=True)
            self.certificates.update(made.plain)
            self.secrets.update(made.secret)
        self.secrets_ever |= set(self.secrets.items())
        plain = {f"{names.PROJECT}:{key}": value for key, value in (self.settings | self.certificates).items()}
        self.file.write_text(yaml.safe_dump(content | {"config": held | plain}, sort_keys=False))
        changed = {key: value for key, value in self.secrets.items() if self._set.get(key) != value}
        if changed:
            self._stack.set_all_config({f"{names.PROJECT}:{key}": auto.ConfigValue(value, secret=True) for key, value in changed.items()})
            self._set.update(changed)

    def words(self) -> list[tuple[str, str]]:
        """What to look for where no secret may be: each value that a secret has had, with its key.

        Of a private key it is a line out of the middle: the first ones are public, and the whole is written in many ways.
        """
        found = []
        for key, value in sorted(self.secrets_ever):
            lines = value.splitlines()
            found.append((key, lines[len(lines) // 2] if is_private_key(key) else value))
        return found

    def secrets_in(self, text: str) -> list[str]:
        """The keys of the secrets that stand in a text in clear."""
        return [key for key, word in self.words() if word in text]

    def adopt_certificates(self) -> None:
        """Take over what somebody else has put into the stack file: certificates, and with them private keys."""
        held = {key: value for key, value in self._stack.get_all_config().items() if key.startswith(f"{names.PROJECT}:")}
        values = {key.partition(":")[2]: value.value for key, value in held.items()}
        self.certificates.update({key: value for key, value in values.items() if is_certificate(key)})
        self.secrets.update({key: value for key, value in values.items() if is_private_key(key)})
        self._set.update(self.secrets)

    # --- Pulumi ---

    def variable(self, name: str, value: str) -> None:
        """Set an environment variable for Pulumi."""
        self.environment[name] = value
        self._workspace.env_vars = self.environment

    def up(self, **options: Any) -> Done:
        """pulumi up; fails the test when it fails."""
        done = self.try_up(**options)
        assert done.ok, done.text
        return done

    def try_up(self, **options: Any) -> Done:
        """pulumi up."""
        self._write()
        return self._run(self._stack.up, **options)

    def preview(self, **options: Any) -> Done:
        """pulumi preview; fails the test when it fails."""
        done = self.try_preview(**options)
        assert done.ok, done.text
        return done

    def try_preview(self, **options: Any) -> Done:
        """pulumi preview."""
        self._write()
        return self._run(self._stack.preview, **options)

    def refresh(self) -> Done:
        """pulumi refresh; fails the test when it fails."""
        done = self._run(self._stack.refresh)
        assert done.ok, done.text
        return done

    def rename(self, name: str) -> None:
        """pulumi stack rename, which renames the stack file, too."""
        done = self.command("stack", "rename", name)
        assert done.ok, done.text
        self.name, self.prefix = name, names.prefix(name)
        self._stack = auto.Stack.select(name, self._workspace)

    def destroy(self, **options: Any) -> Done:
        """pulumi destroy."""
        return self._run(self._stack.destroy, **options)

    def command(self, *arguments: str) -> Done:
        """The pulumi command as a user types it: unlike the Automation API's, its changes begin after a preview without errors."""
        self._outputs = None
        started = time.monotonic()
        done = subprocess.run(
            ["pulumi", *arguments, "--stack", self.name, "--color", "never", "--non-interactive"],
            cwd=self.program,
            env=os.environ | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        self.printed.append(done.stdout)
        return Done(done.returncode == 0, done.stdout, seconds=time.monotonic() - started)

    def outputs(self) -> dict[str, Any]:
        """The stack's outputs, secrets in clear."""
        if self._outputs is None:
            self._outputs = {key: output.value for key, output in self._stack.outputs().items()}
        return self._outputs

    def state(self) -> str:
        """The state as the backend keeps it."""
        return (self.program / "state" / ".pulumi" / "stacks" / names.PROJECT / f"{self.name}.json").read_text()

    def kept_files(self) -> str:
        """All that the backend keeps of it: the state, its backups, its history."""
        files = sorted(path for path in (self.program / "state").rglob(f"*{self.name}*") if path.is_file())
        folders = sorted(path for folder in (self.program / "state").rglob(self.name) for path in folder.rglob("*") if path.is_file())
        return "".join(path.read_text(errors="replace") for path in dict.fromkeys(files + folders))

    def _run(self, operation: Callable[..., Any], **options: Any) -> Done:
        self._outputs = None
        done, lines, started = Done(), cast("list[str]", []), time.monotonic()

        def note(event: auto.EngineEvent) -> None:
            if event.resource_pre_event:
                step = event.resource_pre_event.metadata
                if step.op != auto.OpType.SAME and "pulumi:providers" not in step.type:
                    done.steps.setdefault(step.urn.rpartition("::")[2], set()).add(step.op.value)

        try:
            operation(on_output=lines.append, on_error=lines.append, on_event=note, color="never", **options)
        except auto.CommandError as error:
            done.ok = False
            lines.append(str(error) if not lines else "")
        done.text, done.seconds = "\n".join(lines), time.monotonic() - started
        self.printed.append(done.text)
        return done

    # --- what runs ---

    def node(self, name: str) -> Node:
        """A node, as the outputs describe it."""
        outputs = self.outputs()
        said = outputs["nodes"][name]
        user = next((user, password) for user, password in outputs["users"][name].items() if said["roles"][user] == "admin")
        address = said["dicomHost"], int(said["dicomPort"]), said["httpUrl"]
        return Node(name, said["aet"], *address, user, said.get("tlsTrust", ""))

    def device(self, name: str) -> ssl.SSLContext:
        """How a device outside speaks DICOM TLS: with its own certificate, trusting the stack's authority."""
        context = ssl.create_default_context(cadata=self.certificates[CA_CERTIFICATE])
        context.check_hostname = False  # as DCMTK, and most that speak DICOM
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(self.certificates[certificate_key(name)] + self.secrets[private_key_key(name)])
            file.flush()
            context.load_cert_chain(file.name)
        return context

    def nodes(self) -> dict[str, Node]:
        """All nodes by name."""
        return {name: self.node(name) for name in self.outputs()["nodes"]}

    def containers(self) -> dict[str, str]:
        """The identifier of each container, by its name in the stack file."""
        listed = docker(
            "ps", "--all", "--no-trunc", "--filter", f"label={names.LABEL_STACK}={self.prefix}", "--format", "{{.Names}} {{.ID}}"
        )
        return {name.removeprefix(f"{self.prefix}-"): id_ for name, id_ in (line.split() for line in listed.splitlines())}

    def volumes(self) -> set[str]:
        """The volumes, by their names in the stack file."""
        listed = docker("volume", "ls", "--quiet", "--filter", f"label={names.LABEL_STACK}={self.prefix}").split()
        return {name.removeprefix(f"{self.prefix}-") for name in listed}

    def networks(self) -> list[str]:
        """The networks."""
        return docker("network", "ls", "--quiet", "--filter", f"label={names.LABEL_STACK}={self.prefix}").split()

    def sql(self, query: str, *, database: str, role: str = names.DB_SUPERUSER, password: str = "") -> str:
        """What psql inside the database's container answers; over TCP where a password is given: not at 127.0.0.1, where upstream's image
        trusts everybody.
        """
        login = ["-h", names.DB_HOST] if password else ["-h", "/var/run/postgresql"]
        return docker(
            *["exec", "--user", "postgres", "--env", f"PGPASSWORD={password}", f"{self.prefix}-db", "psql", *login],
            *["-U", role, "-d", database, "-AtXqc", query],
            check=False,
        )

    @contextlib.contextmanager
    def deployed(self) -> Iterator[Stack]:
        """Deploy it, and leave nothing behind, whatever happens meanwhile."""
        try:
            self.up()
            yield self
        finally:
            self.wipe()

    def wipe(self) -> None:
        """Remove all that bears the stack's label, without Pulumi: how a stack is destroyed is a test's matter."""
        if containers := self.containers():
            docker("rm", "--force", "--volumes", *containers.values(), check=False)
        if networks := self.networks():
            docker("network", "rm", *networks, check=False)
        if volumes := self.volumes():
            docker("volume", "rm", *(f"{self.prefix}-{name}" for name in volumes), check=False)
        self.file.unlink(missing_ok=True)


def without_nodes(program: Path, like: str = "dev", *, name: str = "", **settings: Any) -> Stack:
    """A stack to which nodes are to be added: it has none yet, nor a device, nor Adminer."""
    stack = Stack(program, like, name=name, nodes=[], modalities=[], **settings)
    stack.settings.pop("adminer", None)
    return stack


def _settings_like(program: Path, environment: str) -> dict[str, Any]:
    """What the stack file of dev or prod says, less its secrets."""
    config = yaml.safe_load((program / f"Pulumi.{environment}.yaml").read_text())["config"]
    return {
        key.partition(":")[2]: value
        for key, value in config.items()
        if key.startswith(f"{names.PROJECT}:") and not (isinstance(value, dict) and "secure" in value)
    }


def adminer_login(form: str, login: Mapping[str, str]) -> bytes:
    """What a browser sends from Adminer's log-in form: from 6.0 on with the form's token, without which it shows the form again."""
    token = re.search(r"name='token' value='([^']*)'", form)
    fields = {f"auth[{key}]": value for key, value in login.items()} | ({"token": token[1]} if token else {})
    return urllib.parse.urlencode(fields).encode()
