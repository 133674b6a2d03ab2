"""`drill`: restores the newest backup into a second stack beside the real one, checks it, removes it."""

import contextlib
import os
import secrets as randomness
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import yaml

from configs.loader import load_stack_file, parse
from configs.names import PROJECT, own
from configs.problems import SettingsError, report
from configs.secrets import is_setting
from configs.settings import StackSettings
from ops.backup.backup import alone, repository_of
from ops.backup.check import check_stack
from ops.backup.check import report as report_check
from ops.backup.found import Found, find
from ops.backup.load import OPTIONS, load
from ops.backup.oneshot import DRILL_FOLDER, drill_of, mark_drill, remove_drill
from ops.backup.restic import Repository
from ops.setup.console import ROOT, SetupError, say
from ops.setup.images import ensure_images
from ops.setup.prepare import Tools, stack_file
from ops.setup.state import State
from ops.stack.engine import containers_of
from ops.stack.lifecycle import stop
from ops.stack.secrets import ensure_secrets
from ops.stack.stack import Stack, deployed
from ops.stack.terminal import NOT_WELL, table
from ops.stack.verify import verify

_LABEL: Final = "Drill"
#: What Pulumi reads of a checkout.
_PROGRAM: Final = ("__main__.py", "Pulumi.yaml", "components", "configs", "forwarder", "images", "policy")
#: What the second stack has of the settings. It sends nothing, knows no device, and has users and passwords of its own.
_OF_STACK: Final = ("images",)
_OF_DATABASE: Final = ("majorVersion", "maxConnections", "memory", "startTimeout", "cpus")
_OF_NODE: Final = ("name", "aet", "index", "memory", "startTimeout", "cpus")
#: How much of the repository's data is read and verified, besides all that the restore reads.
_SUBSET: Final = "5%"


def drill(name: str) -> int:
    """Restore the newest backup of a stack beside it, and check it; 0, or NOT_WELL where anything differs. It only reads the real one."""
    settings = load_stack_file(name)
    if settings.backup is None:
        raise SetupError(f"Pulumi.{name}.yaml does not say where backups go: there is nothing to restore.")
    source = deployed(name)
    with alone(source):
        repository = repository_of(source, settings, settings.backup)
        repository.exists()  # sooner than anything else would
        return _drill(source, repository, find(repository, ""))


def _drill(source: Stack, repository: Repository, found: Found) -> int:
    started, wrong = time.monotonic(), list[str]()
    say(_LABEL, f"the backup of {found.manifest['time']}")
    with second_stack(source, found) as (stack, settings):
        try:
            ensure_images(settings)
            load(stack, settings, found)
            if status := stack.run("up", *OPTIONS):
                raise stack.failure("the restored stack does not start", status)
            checks = verify(stack, stack.outputs(show_secrets=True))
            # Their ports are not open for longer than they are needed.
            stop([one for one in containers_of(stack) if one.role == "node"], _LABEL)
            wrong += [f"{one.what}: {one.check}: {one.detail}" for one in checks if one.outcome == "FAILED"]
            restored = time.monotonic() - started
            checked = check_stack(stack, 100, datetime.fromisoformat(found.manifest["time"]).timestamp())
            report_check(checked)
            wrong += [f"{one.node}: {len(one.faults)} files are not as its index says" for one in checked if one.faults]
        except SetupError as error:
            wrong.append(str(error))
            restored = time.monotonic() - started
    try:
        repository.ask("check", f"--read-data-subset={_SUBSET}")
    except SetupError as error:
        wrong.append(str(error))
    images = sum(int(node["instances"]) for node in found.manifest["nodes"].values())
    print()
    row = (str(found.manifest["time"]), str(images), f"{restored:.0f}", f"{time.monotonic() - started:.0f}", str(len(wrong)))
    table(("backup", "images", "seconds until restored", "seconds in all", "differences"), [row])
    for one in wrong:
        print(f"  {one}")
    return NOT_WELL if wrong else 0


@contextlib.contextmanager
def second_stack(source: Stack, found: Found) -> Iterator[tuple[Stack, StackSettings]]:
    """A stack beside the real one: a copy of the program, a state, ports and names of its own. Nothing of it is left afterwards.

    What is left where the drill is killed, alone() removes when the next command begins.
    """
    name, before = drill_of(source), dict(os.environ)
    with tempfile.TemporaryDirectory(prefix=DRILL_FOLDER) as folder:
        mark_drill(source, folder)
        try:
            root = Path(folder)
            _copy_program(root)
            raw = _settings_of(found.file("stack.yaml"), source)
            os.environ.update(PULUMI_BACKEND_URL=f"file://{root / 'state'}", PULUMI_CONFIG_PASSPHRASE=randomness.token_hex(16))
            stack = Stack(name, Tools(source.tools.pulumi, State(os.environ["PULUMI_BACKEND_URL"], "the drill's own")), root)
            stack_file(name, root).write_text(yaml.safe_dump({"config": {f"{PROJECT}:{key}": value for key, value in raw.items()}}))
            settings = load_stack_file(name, root)
            stack.create()
            ensure_secrets(stack, settings)
            yield stack, settings
        finally:
            remove_drill(source)
            os.environ.clear()
            os.environ.update(before)


def _copy_program(root: Path) -> None:
    for part in _PROGRAM:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, root / part)
    (root / ".venv").symlink_to(sys.prefix)
    (root / "state").mkdir()


def _settings_of(content: bytes, source: Stack) -> dict[str, Any]:
    """The settings of the second stack, from the stack file in the backup."""
    config = own(yaml.safe_load(content)["config"])
    settings, _, problems = parse({key: value for key, value in config.items() if is_setting(key)})
    if settings is None:
        raise SettingsError(report(problems, f"Pulumi.{source.short}.yaml of the backup"))
    said = settings.model_dump(mode="json", by_alias=True)
    ports = iter(_free_ports(2 * len(said["nodes"])))
    nodes = []
    for node in said["nodes"]:
        connections = (node["orthanc"].get("PostgreSQL") or {}).get("IndexConnectionsCount")
        options = {"orthanc": {"PostgreSQL": {"IndexConnectionsCount": connections}}} if connections else {}
        nodes.append({**_only(_OF_NODE, node), "httpPort": next(ports), "dicomPort": next(ports), **options})
    return {"environment": "dev", **_only(_OF_STACK, said), "indexDb": _only(_OF_DATABASE, said["indexDb"]), "nodes": nodes}


def _only(keys: tuple[str, ...], said: Mapping[str, Any]) -> dict[str, Any]:
    return {key: said[key] for key in keys if said[key] is not None}


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
