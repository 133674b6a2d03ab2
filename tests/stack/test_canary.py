"""A word in every secret, looked for after a whole life of a stack, wherever somebody else could read it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from configs.loader import parse
from configs.secrets import secret_keys
from configs.tls import is_private_key
from ops.table import table
from tests.stack.dicom import PATIENT, as_file, ct_series
from tests.stack.forwarding import await_delivery
from tests.stack.harness import ROOT, Stack, docker

#: In every secret; no other text holds it.
_CANARY = "C4N4RYx7Qz"
#: In containers where nobody runs but the one who needs it: PostgreSQL (its entry point reads it as root and as postgres), the forwarder.
_READ_BY_ALL = ("/run/secrets/postgres-password", "/run/secrets/forwarder.json")


@dataclass
class Life:
    """What a stack left behind, by where it was found.

    Attributes:
        places: text by place.
        private: a line out of each private key.
        state: the folder of the state backend.
        up_failed: whether the deployment that had to fail did.
    """

    places: dict[str, str] = field(default_factory=dict)
    private: list[str] = field(default_factory=list)
    state: Path = Path()
    up_failed: bool = False


@pytest.fixture(scope="module")
def life(program: Path) -> Life:
    """Deployed, previewed, changed, refreshed, failed, exported, destroyed; with an image on its way."""
    stack = Stack(program, "dev", indexDb={"tls": True})
    for node in stack.settings["nodes"]:
        node["tls"] = True
    del stack.settings["modalities"]
    for number, key in enumerate(secret_keys(parse(stack.settings)[0] or pytest.fail("dev's settings are refused"))):
        stack.secrets[key] = f"{_CANARY}{number:02}"
    found = Life(state=program / "state")
    try:
        found.places["up"] = stack.up().text
        found.private = [value.splitlines()[10] for key, value in stack.secrets.items() if is_private_key(key)]
        stack.node("client").post("/instances", as_file(ct_series(slices=1, size=16)[0]))
        await_delivery(stack, "client", "server")
        with stack.trying():
            stack.secrets["userPassword.client.orthanc"] = f"{_CANARY}changed"
            stack.node_settings("server")["orthanc"] = {"StableAge": 9}
            found.places["preview --diff"] = stack.preview(diff=True).text
            found.places["preview --json"] = stack.command("preview", "--json").text
            found.places["up that changes, its events"] = stack.command("up", "--yes", "--skip-preview", "--json").text
        found.places["refresh"] = stack.refresh().text
        _look_at_containers(stack, found)
        found.places["stack output"] = stack.command("stack", "output", "--json").text
        found.places["stack export"] = stack.command("stack", "export").text
        with stack.trying():
            main = program / "__main__.py"
            before = main.read_text()
            main.write_text(f"{before}\nraise KeyError('a fault of the program')\n")
            try:
                done = stack.try_up()
            finally:
                main.write_text(before)
            found.places["up that fails"], found.up_failed = done.text, not done.ok and "Traceback" in done.text
    finally:
        found.places["destroy"] = stack.destroy().text
        found.places["state, its backups and history"] = _texts(found.state)
        found.places["stack file"] = (program / f"Pulumi.{stack.name}.yaml").read_text()
        stack.remove()
    found.places["git"] = _git()
    return found


def _look_at_containers(stack: Stack, found: Life) -> None:
    containers = stack.containers()
    found.places["docker inspect"] = docker("inspect", *containers.values(), *stack.networks())
    found.places["docker history"] = "".join(
        docker("history", "--no-trunc", image) for image in {json.loads(docker("inspect", one))[0]["Image"] for one in containers.values()}
    )
    found.places["logs"] = "".join(docker("logs", one) for one in containers.values())
    running = {name: one for name, one in containers.items() if name != "db-roles"}
    environments, commands, open_files = "", "", ""
    for one in running.values():
        user = docker("exec", one, "stat", "-c", "%u", "/proc/1")
        environments += docker("exec", "--user", user, one, "cat", "/proc/1/environ")
        commands += docker("top", one, "-eo", "pid,args")
        # Nobody's user, as which a process that broke out of another one's rights would read.
        folders = ("/etc", "/home", "/run", "/tmp", "/usr/local", "/var")
        wanted = [argument for text in (_CANARY, *found.private) for argument in ("-e", text)]
        read = docker("exec", "--user", "65534:65534", one, "grep", "-rsF", *wanted, *folders, check=False)
        open_files += "".join(line for line in read.splitlines(keepends=True) if not line.startswith(_READ_BY_ALL))
    found.places["/proc/1/environ"], found.places["command lines"] = environments, commands
    found.places["files that other users read"] = open_files


def _texts(folder: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in sorted(folder.rglob("*")) if path.is_file())


def _git() -> str:
    """Every file that git has, and what it says of each change."""
    if not (ROOT / ".git").exists():
        return ""
    asked = ["git", "-C", str(ROOT), "grep", "-I", "-F", "-h", _CANARY, "--", ".", ":!tests/stack/test_canary.py"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout


def test_the_life_was_a_whole_one(life: Life) -> None:
    assert life.up_failed, life.places["up that fails"]
    assert "StableAge" in life.places["preview --diff"]
    assert "client-container" in life.places["up that changes, its events"]
    assert "orthanc_server" in life.places["stack export"]
    assert "Orthanc has started" in life.places["logs"]
    assert len(life.places["state, its backups and history"]) > 100_000


def test_no_secret_is_anywhere(life: Life, artifacts: Path) -> None:
    assert len(life.private) == 4, "the authority's, the nodes', the database's"
    rows = [(place, str(len(text)), str(sum(text.count(one) for one in (_CANARY, *life.private)))) for place, text in life.places.items()]
    (artifacts / "canary.txt").write_text(table(("place", "characters", "hits"), rows) + "\n")
    assert [(place, hits) for place, _, hits in rows if hits != "0"] == []


def test_no_patient_is_in_a_log(life: Life) -> None:
    names = {PATIENT, *PATIENT.split("^")}
    assert [name for name in names if name in life.places["logs"] and name != "CT"] == []
