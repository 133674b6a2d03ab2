"""Backup, restore, check and drill: of a stack that works, on an engine that has lost everything, and after each was broken off."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets as randomness
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from configs import names
from configs.settings import ImageSettings
from ops.backup.restic import Repository
from ops.setup.console import SetupError
from ops.setup.images import ensure_restic
from ops.stack.probes import Node, nodes_of
from tests.stack.dicom import as_file, ct_series
from tests.stack.engine import docker, eventually, free_ports
from tests.stack.test_backends import Commands, copy_commands

pytestmark = pytest.mark.slow("a stack is backed up, destroyed with its volumes and its state, restored, drilled, damaged: 8 min")

_LABEL = names.LABEL_STACK
_IMAGES = 120


@dataclass
class Site:
    """A stack, its checkout, and the folder of its backups."""

    name: str
    checkout: Path
    repository: Path
    ports: list[int] = field(default_factory=lambda: free_ports(4))

    def __post_init__(self) -> None:
        archive = {"name": "archive", "aet": "ARCHIVE", "httpPort": self.ports[0], "dicomPort": self.ports[1]}
        client = {"name": "client", "aet": "CLIENT", "index": "sqlite", "httpPort": self.ports[2], "dicomPort": self.ports[3]}
        settings = {
            "environment": "dev",
            "images": {"source": "auto"},
            "backup": {"to": str(self.repository)},
            "nodes": [archive, {**client, "forwardTo": ["archive"]}],
        }
        self.repository.mkdir(exist_ok=True)
        self.file.write_text(yaml.safe_dump({"config": {f"{names.PROJECT}:{key}": value for key, value in settings.items()}}))

    @property
    def file(self) -> Path:
        return self.checkout / f"Pulumi.{self.name}.yaml"

    @property
    def prefix(self) -> str:
        return names.prefix(self.name)

    def at(self, checkout: Path, **env: str) -> Commands:
        """The commands in a checkout, which makes the passphrase of its stacks itself."""
        (checkout / "state").mkdir(exist_ok=True)
        return Commands(checkout, self.name, PULUMI_BACKEND_URL=f"file://{checkout / 'state'}", **env)

    @property
    def it(self) -> Commands:
        return self.at(self.checkout)

    def node(self, name: str) -> Node:
        said = json.loads(self.it.run("outputs", "--show-secrets", separate=True))
        return next(node for node in nodes_of(said) if node.name == name)

    def added(self) -> int:
        """The bytes that the last backup added."""
        text = (self.checkout / "artifacts" / "backup" / f"{self.name}.prom").read_text()
        return int(re.findall(r"^orthanc_stack_backup_added_bytes\S* (\d+)", text, re.MULTILINE)[0])

    def remove(self) -> None:
        """Everything of it that is on the engine, as a fire would."""
        wipe(self.prefix)
        wipe(names.prefix(f"{self.name}.drill"))


def wipe(prefix: str) -> None:
    for kind, remove in {"container": ["--force", "--volumes"], "network": [], "volume": []}.items():
        if left := of_stack(prefix, kind):
            docker(kind, "rm", *remove, *left, check=False)


def of_stack(prefix: str, kind: str) -> list[str]:
    everything = ["--all"] if kind == "container" else []
    return docker(kind, "ls", "--quiet", *everything, "--filter", f"label={_LABEL}={prefix}").split()


def images(node: Node) -> dict[str, str]:
    """The MD5 of each image's file, as the node reads it."""
    found = {}
    with httpx.Client(base_url=node.url, auth=node.login, timeout=30) as client:
        for instance in client.get("/instances").json():
            found[instance] = client.get(f"/instances/{instance}/attachments/dicom/md5").text
            assert client.post(f"/instances/{instance}/attachments/dicom/verify-md5", content=b"").json() == {}
    return found


@contextlib.contextmanager
def sending(node: Node) -> Iterator[list[str]]:
    """Images go to a node one after the other; the identifiers of those that it took."""
    taken: list[str] = []
    done = threading.Event()

    def send() -> None:
        with httpx.Client(base_url=node.url, auth=node.login, timeout=30) as client:
            while not done.is_set():
                for image in ct_series(slices=10, size=32):
                    taken.append(client.post("/instances", content=as_file(image)).json()["ID"])
                    done.wait(0.02)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield taken
    finally:
        done.set()
        thread.join()


def pause_a_job(node: Node, to: str) -> str:
    """A job of a node that is not ended, and is saved."""
    with httpx.Client(base_url=node.url, auth=node.login, timeout=30) as client:
        wanted = {"Resources": client.get("/instances").json(), "Synchronous": False, "Priority": -1}
        job = str(client.post(f"/modalities/{to}/store", json=wanted).json()["ID"])
        client.post(f"/jobs/{job}/pause", content=b"")
        eventually("the job is paused", lambda: client.get(f"/jobs/{job}").json()["State"] == "Paused")
    return job


def saved_jobs(site: Site) -> list[str]:
    """The jobs that the archive has saved in its database."""
    query = "SELECT value FROM ServerProperties WHERE property = 5"
    psql = ("psql", "-h", "/var/run/postgresql", "-U", "postgres", "-AtXqc", query, "orthanc_archive")
    said = docker("exec", "--user", "postgres", f"{site.prefix}-db", *psql)
    return list(json.loads(said)["Jobs"]) if said.strip() else []


def delivered(site: Site) -> bool:
    (client,) = json.loads(site.it.run("status", "--json", separate=True))
    (link,) = client["links"]
    return not (link["waiting"] or link["inFlight"] or link["more"] or link["unconfirmed"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A stack with images, all delivered."""
    folder = tmp_path_factory.mktemp("backup")
    (folder / "checkout").mkdir()
    site = Site(f"test-backup-{randomness.token_hex(3)}", copy_commands(folder / "checkout"), folder / "repository")
    try:
        site.it.run("up")
        for number, image in enumerate(ct_series(slices=_IMAGES, size=96)):
            (folder / "images").mkdir(exist_ok=True)
            (folder / "images" / f"{number}.dcm").write_bytes(as_file(image))
        site.it.run("send", "client", str(folder / "images"))
        eventually("all is delivered", lambda: delivered(site))
        yield site
    finally:
        site.remove()


def test_a_stack_comes_back_from_its_recovery_sheet(site: Site, tmp_path: Path) -> None:
    """Under load, twice; then containers, volumes, networks, stack file, state and passphrase are gone."""
    client, archive = site.node("client"), site.node("archive")
    with sending(client) as taken:
        eventually("images arrive", lambda: len(taken) > 20)
        before = list(taken)
        sheet = site.it.run("backup")
        during = len(taken) - len(before)
    assert during > 20
    assert "RECOVERY SHEET" in sheet
    stood = re.findall(r"client stood still for (\d\.\d+) s", sheet)
    assert len(stood) == 1
    assert float(stood[0]) < 2
    first = site.added()
    eventually("all is delivered", lambda: delivered(site))
    jobs = [pause_a_job(client, "archive"), *saved_jobs(site)]
    assert len(jobs) > 1
    time.sleep(11)  # Orthanc saves what has become of a job every ten seconds
    # The second one has what came since, and little else.
    assert "RECOVERY SHEET" not in site.it.run("backup")
    assert site.added() < first / 2
    assert of_stack(site.prefix, "container") == docker("ps", "-aq", "--filter", f"name={site.prefix}-").split()
    assert not docker("volume", "ls", "-q", "--filter", f"name={site.prefix}-backup.index").split()
    told = {name: json.loads(site.it.run("outputs", "--show-secrets", separate=True))[name] for name in ("nodes", "users")}
    was = {node.name: images(node) for node in (client, archive)}
    assert {*before} <= was["client"].keys()
    assert was["client"].keys() == was["archive"].keys()

    password = re.findall(r"^ +password +(\S+)$", sheet, re.MULTILINE)[0]
    assert password not in (site.checkout / "artifacts" / "backup" / f"{site.name}.prom").read_text()
    site.remove()
    (tmp_path / "clone").mkdir()
    clone = copy_commands(tmp_path / "clone")
    other = site.at(clone)
    origin = ("--from", str(site.repository))
    assert "RESTIC_PASSWORD" in other.run("restore", *origin, status=1)
    assert "has another password" in other.run("restore", *origin, status=1, RESTIC_PASSWORD="wrong")
    (tmp_path / "empty").mkdir()
    assert "there is no backup" in other.run("restore", "--from", str(tmp_path / "empty"), status=1, RESTIC_PASSWORD=password)
    assert "no complete backup before" in other.run("restore", *origin, "--at", "2020-01-01", status=1, RESTIC_PASSWORD=password)
    assert of_stack(site.prefix, "container") == []
    # A clone has a stack file of the name, which nobody has used.
    (clone / site.file.name).write_text("config: {}\n")
    said = other.run("restore", *origin, RESTIC_PASSWORD=password)
    assert "checks, all ok" in said
    site.checkout = clone
    assert {name: json.loads(site.it.run("outputs", "--show-secrets", separate=True))[name] for name in told} == told
    assert {name: images(site.node(name)) for name in was} == was
    eventually("the forwarder has looked at everything", lambda: delivered(site))
    (status,) = json.loads(site.it.run("status", "--json", separate=True))
    assert status["links"][0]["delivered"] == 0, "nothing is sent again"
    site.it.run("check-data")
    again = httpx.get(f"{client.url}/jobs", auth=site.node("client").login).json()
    assert not {*jobs} & {*again, *saved_jobs(site)}, "saved jobs would run again"


def test_nothing_is_overwritten(site: Site) -> None:
    assert "a restore overwrites nothing" in site.it.run("restore", status=1)
    site.it.run("check-data")


def begin(it: Commands, command: str, said: Path, until: str, *options: str) -> subprocess.Popen[bytes]:
    """A command that is at work, and has printed this."""
    with said.open("w") as out:
        started = it.start(command, out, *options)
    while until not in said.read_text() and started.poll() is None:
        time.sleep(0.05)
    return started


def test_a_backup_that_is_broken_off_is_none_and_the_next_is_whole(site: Site, tmp_path: Path) -> None:
    """At twenty moments, spread evenly over a run."""
    it, said = site.it, tmp_path / "said"
    whole = begin(it, "backup", said, "\n")
    began = time.monotonic()
    assert whole.wait(120) == 0, said.read_text()
    seconds = time.monotonic() - began
    signals = (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT)
    for moment in range(20):
        number = signals[moment % len(signals)]
        run = begin(it, "backup", said, "\n")
        time.sleep(seconds * moment / 20)
        (os.killpg if number == signal.SIGKILL else os.kill)(run.pid, number)
        # On a machine that has less to do than before, the last one may have ended.
        assert run.wait(60) in (-signal.SIGKILL if number == signal.SIGKILL else 130, 0), (moment, said.read_text())
        if number != signal.SIGKILL:
            assert not of_stack_role(site), moment
        paused = ("ps", "-q", "--filter", f"name={site.prefix}", "--filter", "status=paused")
        eventually("no node stands still", lambda paused=paused: not docker(*paused))  # type: ignore[misc]
    it.run("backup")
    assert not of_stack_role(site)


def of_stack_role(site: Site) -> list[str]:
    return docker("ps", "-aq", "--filter", f"label={_LABEL}={site.prefix}", "--filter", f"label={names.LABEL_ROLE}=backup").split()


def test_a_drill_leaves_nothing_and_only_reads(site: Site) -> None:
    site.it.run("backup")  # the test before this one has broken off twenty
    before = {kind: of_stack(site.prefix, kind) for kind in ("container", "volume", "network")}
    file = site.file.read_bytes()
    said = site.it.run("drill")
    assert re.search(r"\+00:00 .* 0$", said, re.MULTILINE), said
    assert {kind: of_stack(site.prefix, kind) for kind in before} == before
    assert site.file.read_bytes() == file
    assert [of_stack(names.prefix(f"{site.name}.drill"), kind) for kind in ("container", "volume", "network")] == [[], [], []]
    assert "checks, all ok" in site.it.run("verify")


def inside(site: Site, node: str, script: str) -> str:
    # Docker may call a node paused for some seconds after it was let go.
    paused = ("ps", "-q", "--filter", f"name={site.prefix}-{node}", "--filter", "status=paused")
    eventually("the engine calls it running", lambda: not docker(*paused))
    return docker("exec", f"{site.prefix}-{node}", "sh", "-ec", f"cd /var/lib/orthanc/db; set -- $(ls -d [0-9a-f][0-9a-f]/*/*); {script}")


@pytest.mark.parametrize("node", ["archive", "client"])
def test_what_is_missing_damaged_or_orphaned_is_found(site: Site, node: str) -> None:
    orphan, young = (str(f"ffffffff-0000-0000-0000-00000000000{i}") for i in range(2))
    gone, flipped, longer = inside(site, node, "echo $1 $2 $3").split()
    inside(site, node, "cp -p $1 $2 $3 /tmp; rm $1; printf x | dd of=$2 bs=1 seek=500 conv=notrunc 2>&1; printf x >> $3; mkdir -p ff/ff")
    inside(site, node, f"cp /etc/hostname ff/ff/{orphan}; touch -d '2 days ago' ff/ff/{orphan}; cp /etc/hostname ff/ff/{young}")
    try:
        found = json.loads(site.it.run("check-data", "--json", separate=True, status=3))
        faults = {Path(one["file"]).name: one for one in next(one for one in found if one["node"] == node)["faults"]}
        assert {name: one["what"] for name, one in faults.items()} == {
            Path(gone).name: "missing",
            Path(flipped).name: "damaged",
            Path(longer).name: "damaged",
            orphan: "orphaned",
        }
        assert faults[Path(gone).name]["patient"]
        ask = httpx.Client(base_url=site.node(node).url, auth=site.node(node).login)
        image = ask.get(f"/instances/{faults[Path(gone).name]['instance']}").json()
        assert image["ParentSeries"] == faults[Path(gone).name]["series"]
        assert "missing" in site.it.run("check-data", "--sample", "0", status=3)
    finally:
        back = "; ".join(f"cp -p /tmp/{Path(one).name} {one}" for one in (gone, flipped, longer))
        inside(site, node, f"{back}; rm -f ff/ff/{orphan} ff/ff/{young}")
    site.it.run("check-data")


def test_a_check_that_was_killed_goes_on(site: Site, tmp_path: Path) -> None:
    volume = f"{site.prefix}-backup.check-100"
    run = begin(site.it, "check-data", tmp_path / "said", "archive: ", "--rate", "1")
    os.killpg(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL, (tmp_path / "said").read_text()
    assert docker("volume", "ls", "-q", "--filter", f"name={volume}").split() == [volume]
    # A sample is another check, which goes its own way.
    assert "goes on" not in site.it.run("check-data", "--sample", "5")
    said = site.it.run("check-data")
    assert "goes on with the check that began" in said
    found = re.findall(r"archive: (\d+) files, 0 not as they should be \((\d+) of (\d+) MD5s were compared before\)", said)
    assert len(set(found[0])) == 1
    assert not docker("volume", "ls", "-q", "--filter", f"name={volume}")
    assert "goes on" not in site.it.run("check-data")
    text = (site.checkout / "artifacts" / "backup" / f"{site.name}-check.prom").read_text()
    assert f'orthanc_stack_check_faults{{stack="{site.name}"}} 0' in text.splitlines()


def test_a_dump_that_fails_makes_no_snapshot(tmp_path: Path) -> None:
    prefix = names.prefix(f"test-dump-{randomness.token_hex(3)}")
    repository = Repository(str(tmp_path), ensure_restic(ImageSettings(source="auto")), prefix, "a password")

    def dump(error: Exception | None) -> Iterator[bytes]:
        yield b"x" * 5_000_000
        if error:
            raise error

    try:
        assert repository.ensure()
        with pytest.raises(SetupError, match="the dump failed"):
            repository.save(repository.backup("--stdin", tags=("a",)), dump(SetupError("the dump failed")))
        assert repository.snapshots() == []
        assert repository.save(repository.backup("--stdin", tags=("a",)), dump(None)).size == 5_000_000
        assert len(repository.snapshots("a")) == 1
        assert not repository.ensure()
    finally:
        wipe(prefix)


def test_what_a_drill_that_was_killed_leaves_is_removed_by_the_next_command(site: Site, tmp_path: Path) -> None:
    it, second = site.at(site.checkout, TMPDIR=str(tmp_path)), names.prefix(f"{site.name}.drill")
    it.run("backup")
    run = begin(it, "drill", tmp_path / "said", "files, 0 not as")  # its nodes were verified before that
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert of_stack(second, "volume")
    assert list(tmp_path.glob("orthanc-stack-drill-*"))
    published = docker("ps", "--format", "{{.Ports}}", "--filter", f"label={_LABEL}={second}")
    assert "127.0.0.1" not in published, "its ports are open for no longer than they are needed"
    it.run("backup")
    assert [of_stack(second, kind) for kind in ("container", "volume", "network")] == [[], [], []]
    assert not list(tmp_path.glob("orthanc-stack-drill-*"))


def test_one_backup_at_a_time(site: Site, tmp_path: Path) -> None:
    run = begin(site.it, "backup", tmp_path / "said", "the repository")
    os.killpg(run.pid, signal.SIGSTOP)  # it takes its time
    try:
        assert "is at work on this engine" in site.it.run("drill", status=1)
    finally:
        os.killpg(run.pid, signal.SIGCONT)
    assert run.wait(120) == 0, (tmp_path / "said").read_text()


def test_a_restore_that_is_broken_off_goes_on(site: Site, tmp_path: Path) -> None:
    was = {name: images(site.node(name)) for name in ("client", "archive")}
    site.it.run("backup")
    volumes = of_stack(site.prefix, "volume")
    docker("rm", "--force", *of_stack(site.prefix, "container"))
    docker("network", "rm", *of_stack(site.prefix, "network"))
    # Here the state has outlived the containers. Volumes that hold images are not touched.
    assert "which may hold images" in site.it.run("restore", status=1)
    assert of_stack(site.prefix, "volume") == volumes
    docker("volume", "rm", *volumes)
    for until, seconds in (("db-container creating", 0.5), ("db-roles created", 1.0), ("archive:", 0.3)):
        run = begin(site.it, "restore", tmp_path / "said", until)
        assert run.poll() is None, (tmp_path / "said").read_text()
        time.sleep(seconds)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        for lock in (site.checkout / "state" / ".pulumi" / "locks").rglob("*.json"):
            lock.unlink()
    said = site.it.run("restore")
    assert "checks, all ok" in said
    assert {name: images(site.node(name)) for name in was} == was


def test_a_repository_with_a_flipped_byte_is_told(site: Site) -> None:
    """Last: the repository is of no use afterwards."""
    packs: list[Any] = sorted((site.repository / "data").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(packs[-1].read_bytes())
    content[len(content) // 2] ^= 1
    packs[-1].chmod(0o600)
    packs[-1].write_bytes(content)
    assert re.search("(?i)hash|ciphertext|checksum|damaged", site.it.run("drill", status=3))
