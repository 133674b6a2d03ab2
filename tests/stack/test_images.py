"""The local images honour what the program uses of the official images' contracts: run here on the real engine.

Each container runs with the capabilities that the program leaves it, and gets its files as the program uploads them.
"""

from __future__ import annotations

import io
import json
import re
import secrets
import subprocess
import tarfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import pytest

import images
from images import ROLES, images_hash, local_image
from ops.setup.console import SetupError
from ops.setup.debian_base import apt_sources, ensure_base
from ops.setup.images import ensure_local_images
from tests.stack.engine import docker, eventually

slow = pytest.mark.slow("starts, stops and kills containers of each image, and waits for PostgreSQL and Orthanc to serve")

#: The capabilities that are left; all others are dropped.
CAPABILITIES = {"orthanc": ("DAC_OVERRIDE",), "postgres": ("CHOWN", "DAC_OVERRIDE", "SETUID", "SETGID"), "adminer": ()}
#: images/README.md tells why it is this address.
ADMINER_PROBE = ("php", "-n", "-r", "exit(@file_get_contents('http://127.0.0.1:8080/')===false?1:0);")
PROBE = "/probes/test-aliveness.py"
PASSWORD = f"pw-{secrets.token_hex(8)}"
USERS = {"RegisteredUsers": {"admin": PASSWORD}}
#: A clean stop takes less; one that is killed takes the 20 s of grace that the tests give.
STOP_WITHIN_S = 5

Files = Mapping[str, str]


def upload(container: str, files: Files) -> None:
    """Put files into a container: root's, mode 0444."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, content in files.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(content.encode()), 0o444
            archive.addfile(entry, io.BytesIO(content.encode()))
    subprocess.run(["docker", "cp", "-", f"{container}:/"], input=buffer.getvalue(), check=True, capture_output=True, timeout=90)


def succeeds(container: str, *command: str) -> bool:
    """Whether a command inside a container ends with 0."""
    return subprocess.run(["docker", "exec", container, *command], capture_output=True, check=False, timeout=90).returncode == 0


def inside(role: str, *arguments: str, options: tuple[str, ...] = ()) -> str:
    """What a program of a role's image prints, in a container of its own without a network."""
    program, *rest = arguments
    return docker("run", "--rm", "--network=none", *options, f"--entrypoint={program}", local_image(role), *rest, check=False)


class Lab:
    """Containers, volumes and a network with names that are this run's own."""

    def __init__(self) -> None:
        self.prefix = f"images-test-{secrets.token_hex(4)}"
        self.network = docker("network", "create", f"--label={self.prefix}", self.prefix)

    def start(
        self, role: str, name: str, *command: str, options: tuple[str, ...] = (), files: Files | None = None, capable: bool = True
    ) -> str:
        """Make a container of a role, upload its files, start it, and return its name."""
        full = f"{self.prefix}-{name}"
        adds = [f"--cap-add={one}" for one in CAPABILITIES[role] if capable]
        network = [f"--network={self.network}", f"--network-alias={name}", f"--label={self.prefix}"]
        hardened = ["--cap-drop=ALL", *adds, "--security-opt=no-new-privileges"]
        docker("create", f"--name={full}", *hardened, *network, *options, local_image(role), *command)
        upload(full, files or {})
        docker("start", full)
        return full

    def orthanc(self, name: str, config: Mapping[str, Any], *options: str) -> str:
        container = self.start("orthanc", name, options=options, files=node_files(config))
        await_node(container)
        return container

    def postgres(self, name: str, files: Files | None = None) -> str:
        """A database server with the superuser `boss`, the database `index` and a volume of its own."""
        settings = ("POSTGRES_PASSWORD_FILE=/run/secrets/password", "POSTGRES_USER=boss", "POSTGRES_DB=index")
        options = (*(f"--env={one}" for one in settings), f"--volume={self.prefix}-{name}:/var/lib/postgresql/data")
        files = {"/run/secrets/password": PASSWORD, **(files or {})}
        return self.start("postgres", name, "postgres", "-c", "max_connections=37", options=options, files=files)

    def remove(self) -> None:
        if left := docker("ps", "--all", "--quiet", f"--filter=label={self.prefix}").split():
            docker("rm", "--force", "--volumes", *left)
        if volumes := docker("volume", "ls", "--quiet", f"--filter=name={self.prefix}").split():
            docker("volume", "rm", "--force", *volumes)
        docker("network", "rm", self.network)


def node_files(config: Mapping[str, Any]) -> dict[str, str]:
    """The two files of a node: a public one, and the users in a secret one."""
    return {"/etc/orthanc/orthanc.json": json.dumps(config), "/run/secrets/orthanc.json": json.dumps(USERS)}


def await_node(container: str) -> None:
    eventually("Orthanc is alive", lambda: succeeds(container, PROBE))


def accepts(container: str) -> bool:
    return succeeds(container, "pg_isready", "-q", "-h", "127.0.0.1", "-U", "boss")


def await_database(container: str) -> None:
    eventually("the database answers over TCP", lambda: accepts(container))


def stop(container: str) -> None:
    """It stops by itself, and soon."""
    started = time.monotonic()
    docker("stop", "--time=20", container)
    assert time.monotonic() - started < STOP_WITHIN_S
    assert docker("inspect", "--format={{.State.ExitCode}}", container) == "0"


def query(container: str, sql: str, *, password: str = PASSWORD, host: str = "127.0.0.1") -> str:
    """Ask the database `index` with a password over TCP, as Orthanc does."""
    command = ["psql", "-wAtX", f"postgresql://boss@{host}/index", "-c", sql]
    return docker("exec", f"--env=PGPASSWORD={password}", container, *command, check=False)


def configuration(container: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("exec", container, "cat", "/tmp/orthanc.json"))
    return found


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """The engine with the images built, cleaned of everything that the tests make."""
    ensure_local_images(ROLES)
    lab = Lab()
    try:
        yield lab
    finally:
        lab.remove()


@pytest.fixture(scope="module")
def database(lab: Lab) -> str:
    container = lab.postgres("db")
    await_database(container)
    return container


@pytest.fixture(scope="module")
def node(lab: Lab, database: str) -> str:
    section = {"Host": "db", "Database": "index", "Username": "boss", "Password": PASSWORD, "IndexConnectionsCount": 2}
    return lab.orthanc("node", {"PostgreSQL": {**section, "ConnectionRetryInterval": 1}})


def test_the_hash_follows_what_is_built_from_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_FOLDER", tmp_path)
    for folder in ("orthanc", "__pycache__"):
        (tmp_path / folder).mkdir()
    (tmp_path / "orthanc/Dockerfile").write_text("FROM scratch")
    first = images_hash()
    (tmp_path / "README.md").write_text("words")
    (tmp_path / "__pycache__/a.pyc").write_text("compiled")
    assert images_hash() == first
    (tmp_path / "orthanc/Dockerfile").rename(tmp_path / "orthanc/Dockerfile2")
    assert images_hash() != first
    with pytest.raises(ValueError, match="orthanc, postgres, adminer"):
        local_image("nginx")


def test_a_mirror_without_debians_signature_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is past its Valid-Until, when that check is off."""
    (tmp_path / "dists/forky").mkdir(parents=True)
    said = "Origin: Debian\nSuite: testing\nCodename: forky\nValid-Until: Fri, 06 Nov 2020 08:08:01 UTC\nComponents: main\n"
    (tmp_path / "dists/forky/InRelease").write_text(f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{said}")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("DEBIAN_MIRROR", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(SetupError, match="is not signed"):
            ensure_base("forky", {}, "")
        server.shutdown()


@slow
@pytest.mark.parametrize("role", ROLES)
def test_image_tells_neither_where_it_was_built_nor_a_secret(lab: Lab, role: str) -> None:
    image = local_image(role)
    told = docker("history", "--no-trunc", image) + docker("image", "inspect", image)
    assert images_hash() in told  # the label: what is read is what is meant
    hosts = {urllib.parse.urlsplit(uri).hostname or uri for uri, _ in apt_sources()}
    assert hosts
    wanted = [option for host in sorted(hosts) for option in ("-e", host)]
    assert inside(role, "grep", "-rlF", *wanted, "/etc", "/var", "/usr/local", options=("--user=0",)) == ""
    assert not [host for host in hosts if host in told]
    left = "ls -A /etc/ssl/private /var/lib/apt/lists/*_* /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | grep -v :"
    assert inside(role, "sh", "-c", left, options=("--user=0",)) == ""


class End(NamedTuple):
    """How a container is started, and how it ends by itself: its status, and what its log says in these words."""

    role: str
    status: int
    says: str
    files: Files
    command: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    capable: bool = True


ENDS = {
    "Orthanc without users": End("orthanc", 253, "RegisteredUsers", {"/etc/orthanc/orthanc.json": "{}"}),
    "Orthanc with a file that is no JSON": End(
        *("orthanc", 255, r"/etc/orthanc/site\.json.*line [34].*\Z"),
        {**node_files({}), "/etc/orthanc/site.json": '{\n/* two\nlines */ "A": 1,\n}'},
    ),
    "Orthanc with two arguments": End("orthanc", 2, "", node_files({}), ("a", "b")),
    # As upstream's, which stops at the same file.
    "Orthanc without its capability": End("orthanc", 2, "/etc/hostid: Permission denied", node_files({}), capable=False),
    "PostgreSQL without a password": End("postgres", 1, "POSTGRES_PASSWORD_FILE", {}),
    "PostgreSQL in a folder that holds something": End(
        "postgres", 1, "precious", {"/var/lib/postgresql/data/precious": "data"}, options=("--env=POSTGRES_PASSWORD=pw",)
    ),
    "PostgreSQL's image with another program": End("postgres", 0, r"\Apsql \(PostgreSQL\) 17\.", {}, ("psql", "--version")),
}


@slow
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_it_ends_and_says_why(lab: Lab, end: End) -> None:
    name = f"ends-{secrets.token_hex(3)}"
    container = lab.start(end.role, name, *end.command, options=end.options, files=end.files, capable=end.capable)
    assert int(docker("wait", container)) == end.status
    assert re.search(end.says, docker("logs", container))


@slow
class TestOrthanc:
    """The image of the nodes and of the forwarders."""

    def test_it_merges_files_in_order_and_fills_what_is_missing(self, lab: Lab) -> None:
        files = {
            "/etc/orthanc/20.json": '{"Name": "public", /* a\n comment */ "DicomModalities": {"a": ["A", "http://h//x", 1]},'
            ' "DicomWeb": {"Root": "/w/"}}',
            "/etc/orthanc/10.json": '{"Name": "under", "DicomAet": "LOW", "DicomModalities": {"a": ["OLD", "h", 2],'
            ' "b": ["B", "h", 3]}} // end',
            "/run/secrets/00.json": json.dumps({**USERS, "Name": "secret", "StorageDirectory": "/tmp/files"}),
        }
        node = lab.start("orthanc", "merge", files=files)
        await_node(node)
        got = configuration(node)
        assert (got["Name"], got["DicomAet"], got["StorageDirectory"]) == ("secret", "LOW", "/tmp/files")
        assert got["DicomModalities"] == {"a": ["A", "http://h//x", 1], "b": ["B", "h", 3]}
        assert got["DicomWeb"] == {"Root": "/w/", "Enable": True}
        assert (got["RemoteAccessAllowed"], got["AuthenticationEnabled"]) == (True, True)
        assert "PostgreSQL" not in got
        assert docker("exec", node, "ls", "/usr/share/orthanc/plugins").split() == ["libOrthancDicomWeb.so"]
        assert docker("exec", node, "stat", "-c", "%a %U", "/tmp/orthanc.json").split() == ["600", "root"]
        assert docker("exec", node, "stat", "-c", "%s", "/etc/hostid") == "4"
        assert docker("exec", node, "readlink", "/proc/1/exe") == "/usr/sbin/Orthanc"
        assert not succeeds(node, PROBE, "--pwd=wrong"), "the probe takes an answer other than 200"

    def test_it_has_upstreams_owners_and_modes(self, lab: Lab) -> None:
        """As in orthanc-builder's Dockerfile: all that its entry point writes is user 999's, and a volume's folder is the engine's."""
        paths = ("/etc/hostid", "/tmp", "/usr/share/orthanc/plugins", "/usr/share/orthanc/plugins-available", "/var/lib/orthanc")
        said = inside("orthanc", "sh", "-c", f"stat -c '%u:%g %a' {' '.join(paths)}; cat /etc/hostid; ls /var/lib/orthanc; id -u")
        assert said.splitlines() == ["999:999 644", "999:999 1777", *["999:999 755"] * 3, "not-generated", "0"]

    def test_it_fills_the_database_section(self, node: str) -> None:
        got = configuration(node)
        assert got["StorageDirectory"] == "/var/lib/orthanc/db"
        section = got["PostgreSQL"]
        assert (section["EnableIndex"], section["EnableStorage"], section["Lock"], section["Port"]) == (True, False, False, 5432)
        assert (section["Host"], section["Password"]) == ("db", PASSWORD)
        plugins = docker("exec", node, "ls", "/usr/share/orthanc/plugins").split()
        assert plugins == ["libOrthancPostgreSQLIndex.so", "libOrthancPostgreSQLStorage.so"]
        assert "index" not in docker("exec", node, "ls", "/var/lib/orthanc/db").split(), "it left an index in SQLite"

    def test_it_finds_by_identifier_in_sqlite_from_its_first_start(self, lab: Lab) -> None:
        """images/orthanc/index_statistics.py tells why. An index that was killed, or that somebody analysed, gets them as well."""
        mount = f"--volume={lab.prefix}-sqlite:/var/lib/orthanc/db"
        wanted = [
            ["DicomIdentifiers", "DicomIdentifiersIndex2", "1000000 300000 250000"],
            ["Resources", "ResourceTypeIndex", "1000000 250000"],
        ]

        def on_the_index(sql: str) -> list[list[str]]:
            """What SQLite answers while no Orthanc has the index open."""
            ask = f"import json, sqlite3; print(json.dumps(sqlite3.connect('/var/lib/orthanc/db/index').execute('{sql}').fetchall()))"
            return sorted(json.loads(inside("orthanc", "python3", "-c", ask, options=(mount,))))

        container = lab.orthanc("sqlite", {}, mount)
        docker("kill", container)
        assert on_the_index("SELECT * FROM sqlite_stat1") == wanted
        on_the_index("ANALYZE")
        assert on_the_index("SELECT * FROM sqlite_stat1") != wanted
        docker("start", container)
        await_node(container)
        stop(container)
        assert on_the_index("SELECT * FROM sqlite_stat1") == wanted
        assert "without statistics" not in docker("logs", container)
        assert "Orthanc has stopped" in docker("logs", container)

    def test_no_statistics_keep_it_from_starting(self, lab: Lab) -> None:
        container = lab.start("orthanc", "no-index", files={**node_files({"IndexDirectory": "/index"}), "/index/index": "no index"})
        docker("wait", container)
        log = docker("logs", container)
        assert "the index in SQLite is left without statistics, and will be slower: DatabaseError" in log
        assert "Orthanc version" in log

    def test_the_probe_fails_before_it_listens(self, lab: Lab) -> None:
        sleeper = lab.start("orthanc", "sleeper", "30", options=("--entrypoint=sleep",))
        assert not succeeds(sleeper, PROBE)
        assert "Connection refused" in docker("exec", sleeper, PROBE, check=False)

    def test_the_probe_speaks_tls_without_verifying(self, lab: Lab) -> None:
        made = (
            "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=elsewhere -days 2 -keyout /tmp/k -out /tmp/c 2> /dev/null; cat /tmp/[kc]"
        )
        files = node_files({"SslEnabled": True, "SslCertificate": "/run/secrets/node.pem"})
        node = lab.start("orthanc", "tls", files=files | {"/run/secrets/node.pem": inside("orthanc", "sh", "-c", made)})
        await_node(node)
        assert not succeeds(node, PROBE, "--http_scheme=http"), "it does not serve TLS: the test proves nothing"

    def test_the_probe_follows_the_database(self, node: str, database: str) -> None:
        docker("stop", "--time=20", database)
        try:
            eventually("the probe notices", lambda: not succeeds(node, PROBE), seconds=20)
        finally:
            docker("start", database)
        eventually("the probe passes again", lambda: succeeds(node, PROBE))


@slow
class TestPostgres:
    """The image of the database."""

    def test_it_takes_the_password_from_its_file(self, database: str) -> None:
        await_database(database)
        assert query(database, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == "t"
        assert query(database, "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'index'") == "boss"
        assert query(database, "SHOW max_connections") == "37"
        assert query(database, "SHOW server_encoding") == "UTF8"
        assert query(database, "SELECT count(*) FROM pg_authid WHERE rolpassword LIKE 'SCRAM-SHA-256$%'") == "1"
        for host in ("127.0.0.1", "db"):
            assert "password authentication failed" in query(database, "SELECT 1", password="wrong", host=host)
        environment = docker("exec", "--user=postgres", database, "cat", "/proc/1/environ") + docker("inspect", database)
        assert PASSWORD not in environment
        assert docker("exec", database, "stat", "-c", "%U", "/proc/1") == "postgres"

    def test_it_stops_cleanly_and_keeps_its_data(self, lab: Lab) -> None:
        container = lab.postgres("keep")
        await_database(container)
        query(container, "CREATE TABLE kept AS SELECT 42 AS n")
        docker("exec", "--detach", container, "psql", "-U", "boss", "index", "-c", "SELECT pg_sleep(60)")
        busy = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%(60)'"
        eventually("a client is busy", lambda: query(container, busy) == "1")
        stop(container)  # and does not wait for its clients
        assert "database system is shut down" in docker("logs", container)
        docker("start", container)
        await_database(container)
        assert query(container, "SELECT n FROM kept") == "42"
        assert docker("logs", container).count("the cluster is made") == 1

    def test_it_recovers_from_an_interrupted_start(self, lab: Lab) -> None:
        # The first start hangs in the scripts, where the temporary server runs, and is killed there.
        scripts = {
            "/docker-entrypoint-initdb.d/1.sql": "CREATE TABLE made (n int);",
            "/docker-entrypoint-initdb.d/2.sh": "if [ ! -e /tmp/again ]; then touch /tmp/again; sleep 60; fi",
            "/docker-entrypoint-initdb.d/3.sql": "INSERT INTO made VALUES (7);",
        }
        container = lab.postgres("torn", files=scripts)
        eventually("the first start hangs", lambda: succeeds(container, "test", "-e", "/tmp/again"))
        assert succeeds(container, "pg_isready", "-q"), "no temporary server on the socket: the test proves nothing"
        assert not accepts(container), "the temporary server is taken for the real one"
        docker("kill", container)
        docker("start", container)
        await_database(container)
        assert query(container, "SELECT n FROM made") == "7"

        # Killed later, between the mark and the last move: what was moved back here is what such a start leaves.
        docker("stop", "--time=20", container)
        half = "d=.orthanc-stack-init; mkdir $d; mv PG_VERSION base postgresql.conf pg_wal $d; touch $d/orthanc-stack-complete"
        options = (f"--volume={lab.prefix}-torn:/v", "--workdir=/v", "--user=postgres")
        assert inside("postgres", "sh", "-ec", half, options=options) == ""
        docker("start", container)
        await_database(container)
        assert query(container, "SELECT n FROM made") == "7"
        assert not succeeds(container, "test", "-e", "/var/lib/postgresql/data/.orthanc-stack-init")


@slow
class TestAdminer:
    """The image of Adminer; tests/stack/dev/test_web.py and test_access.py log in with it."""

    def test_it_offers_the_default_server(self, lab: Lab) -> None:
        container = lab.start("adminer", "adminer", options=("--env=ADMINER_DEFAULT_SERVER=db",))
        eventually("Adminer is healthy", lambda: succeeds(container, *ADMINER_PROBE), seconds=15)
        address = docker("inspect", "--format={{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container)
        browser = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with browser.open(f"http://{address}:8080/", timeout=10) as page:
            form = page.read().decode()
        assert "name='auth[server]' value='db'" in form
        assert '<option value="pgsql" selected' in form
        assert form.count(" selected") == form.count('" selected>English') + 1, "two systems are selected"
        assert docker("exec", container, "id", "-un") == "adminer"
        stop(container)

    def test_its_probe_fails_where_nothing_listens(self, lab: Lab) -> None:
        assert not succeeds(lab.start("adminer", "quiet", "sleep", "30"), *ADMINER_PROBE)
