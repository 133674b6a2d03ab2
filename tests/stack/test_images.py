"""The local images honour what the program uses of the official images' contracts: run here on the real engine.

Each container runs with the capabilities that the program leaves it, and gets its files as the program uploads them.
"""

from __future__ import annotations

import http.cookiejar
import io
import json
import os
import secrets
import subprocess
import tarfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import images
from images import ROLES, images_hash, local_image
from ops.setup.console import SetupError
from ops.setup.debian_base import apt_sources, ensure_base
from ops.setup.images import ensure_local_images
from tests.stack.harness import adminer_login

#: The capabilities that are left; all others are dropped.
CAPABILITIES = {"orthanc": ("DAC_OVERRIDE",), "postgres": ("CHOWN", "DAC_OVERRIDE", "SETUID", "SETGID"), "adminer": ()}
#: images/README.md tells why it is this address.
ADMINER_PROBE = "exit(@file_get_contents('http://127.0.0.1:8080/')===false?1:0);"
PROBE = "/probes/test-aliveness.py"
PASSWORD = f"pw-{secrets.token_hex(8)}"
USERS = {"RegisteredUsers": {"admin": PASSWORD}}
#: A clean stop takes less; one that is killed takes the 20 s of grace that the tests give.
STOP_WITHIN_S = 5


def docker(*arguments: str, status: int | None = 0, stdin: bytes | None = None, timeout: float = 90) -> str:
    """Run the client; what it prints on both channels. A status of None takes any."""
    done = subprocess.run(
        ["docker", *arguments], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=timeout
    )
    text = done.stdout.decode(errors="replace")
    assert status in (None, done.returncode), f"docker {' '.join(arguments)} ended with {done.returncode}: {text}"
    return text


def succeeds(*arguments: str) -> bool:
    """Whether the client's command ends with 0."""
    return subprocess.run(["docker", *arguments], capture_output=True, check=False, timeout=90).returncode == 0


def wait_for(what: str, probe: Callable[[], Any], seconds: float = 40) -> None:
    """Ask until the answer is true."""
    end = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.2)


class Lab:
    """Containers, volumes and a network with names that are this run's own."""

    def __init__(self) -> None:
        self.prefix = f"images-test-{secrets.token_hex(4)}"
        self.network = docker("network", "create", f"--label={self.prefix}", self.prefix).strip()

    def create(
        self, role: str, name: str, *command: str, options: tuple[str, ...] = (), files: Mapping[str, str | bytes] | None = None
    ) -> str:
        """Make a container of a role, upload its files (root's, mode 0444), and return its name."""
        full = f"{self.prefix}-{name}"
        drop = ["--cap-drop=ALL", *(f"--cap-add={c}" for c in CAPABILITIES[role]), "--security-opt=no-new-privileges"]
        network = [f"--network={self.network}", f"--network-alias={name}", f"--label={self.prefix}"]
        docker("create", f"--name={full}", *drop, *network, *options, local_image(role), *command)
        docker("cp", "-", f"{full}:/", stdin=_tar(files or {}))
        return full

    def start(
        self, role: str, name: str, *command: str, options: tuple[str, ...] = (), files: Mapping[str, str | bytes] | None = None
    ) -> str:
        """create(), and start it."""
        full = self.create(role, name, *command, options=options, files=files)
        docker("start", full)
        return full

    def orthanc(self, name: str, config: Mapping[str, Any], options: tuple[str, ...] = ()) -> str:
        """A node with one public file and the users in a secret one."""
        return self.start("orthanc", name, options=options, files=node_files(config))

    def postgres(self, name: str, *options: str, files: Mapping[str, str | bytes] | None = None) -> str:
        """A database server with the superuser `boss`, the database `index` and a volume of its own."""
        settings = ("POSTGRES_PASSWORD_FILE=/run/secrets/password", "POSTGRES_USER=boss", "POSTGRES_DB=index")
        volume = f"--volume={self.prefix}-{name}:/var/lib/postgresql/data"
        options = (*(f"--env={s}" for s in settings), volume, *options)
        return self.start(
            "postgres",
            name,
            "postgres",
            "-c",
            "max_connections=37",
            options=options,
            files={"/run/secrets/password": PASSWORD, **(files or {})},
        )

    def remove(self) -> None:
        """Remove all of it."""
        wanted = ("--quiet", f"--filter=label={self.prefix}")
        left = docker("ps", "--all", *wanted).split()
        if left:
            docker("rm", "--force", "--volumes", *left)
        volumes = docker("volume", "ls", "--quiet", f"--filter=name={self.prefix}").split()
        if volumes:
            docker("volume", "rm", "--force", *volumes)
        docker("network", "rm", self.network)


def _tar(files: Mapping[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(data), 0o444
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def node_files(config: Mapping[str, Any]) -> dict[str, str | bytes]:
    """The two files of a node."""
    return {"/etc/orthanc/orthanc.json": json.dumps(config), "/run/secrets/orthanc.json": json.dumps(USERS)}


def ended(container: str) -> int:
    """Wait for the container's end; its exit status."""
    return int(docker("wait", container, timeout=20))


def stop(container: str) -> tuple[float, int]:
    """Stop with 20 s of grace: how long it took, and the exit status."""
    started = time.monotonic()
    docker("stop", "--time=20", container)
    return time.monotonic() - started, int(docker("inspect", "--format={{.State.ExitCode}}", container))


def accepts(container: str, user: str = "boss") -> bool:
    """The program's own health check of a database."""
    return succeeds("exec", container, "pg_isready", "-q", "-h", "127.0.0.1", "-U", user)


def query(container: str, sql: str, *, password: str | None = PASSWORD, host: str = "127.0.0.1", status: int | None = 0) -> str:
    """Ask the database `index` with a password over TCP, as Orthanc does."""
    login = f"postgresql://boss@{host}/index" if host.startswith("/") is False else "dbname=index user=boss"
    return docker("exec", f"--env=PGPASSWORD={password or ''}", container, "psql", "-wAtX", login, "-c", sql, status=status).strip()


def configuration(container: str) -> dict[str, Any]:
    """What Orthanc was started with."""
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
    """A ready database server."""
    container = lab.postgres("db")
    wait_for("the database answers over TCP", lambda: accepts(container))
    return container


@pytest.fixture(scope="module")
def node(lab: Lab, database: str) -> str:
    """Orthanc on that database."""
    section = {"Host": "db", "Database": "index", "Username": "boss", "Password": PASSWORD, "IndexConnectionsCount": 2}
    container = lab.orthanc("node", {"PostgreSQL": {**section, "ConnectionRetryInterval": 1}})
    wait_for("the node is alive", lambda: succeeds("exec", container, PROBE))
    return container


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


@pytest.mark.parametrize("role", ROLES)
def test_image_tells_neither_where_it_was_built_nor_a_secret(lab: Lab, role: str) -> None:
    image = local_image(role)
    told = docker("history", "--no-trunc", image) + docker("image", "inspect", image)
    assert images_hash() in told  # the label: what is read is what is meant
    hosts = {urllib.parse.urlsplit(uri).hostname or uri for uri, _ in apt_sources()}
    assert hosts
    names = [option for host in sorted(hosts) for option in ("-e", host)]
    found = docker("run", "--rm", "--user=0", "--entrypoint=grep", image, "-rlF", *names, "/etc", "/var", "/usr/local", status=None)
    assert found == "", f"files that name a mirror: {found}"
    assert not [host for host in hosts if host in told]
    left = "ls -A /etc/ssl/private /var/lib/apt/lists/*_* /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | grep -v :"
    assert docker("run", "--rm", "--user=0", "--entrypoint=sh", image, "-c", left, status=None).strip() == ""


def test_a_mirror_without_debians_signature_is_refused(tmp_path: Path) -> None:
    """Also where it is past its Valid-Until, when that check is off."""
    (tmp_path / "dists/forky").mkdir(parents=True)
    said = "Origin: Debian\nSuite: testing\nCodename: forky\nValid-Until: Fri, 06 Nov 2020 08:08:01 UTC\nComponents: main\n"
    (tmp_path / "dists/forky/InRelease").write_text(f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{said}")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        env = {**os.environ, "DEBIAN_MIRROR": f"http://127.0.0.1:{server.server_port}"}
        with pytest.raises(SetupError, match="is not signed"):
            ensure_base("forky", ("docker",), env, {}, "")
        server.shutdown()


def test_orthanc_merges_files_in_order_and_fills_what_is_missing(lab: Lab) -> None:
    files = {
        "/etc/orthanc/20.json": '{"Name": "public", /* a\n comment */ "DicomModalities": {"a": ["A", "http://h//x", 1]},'
        ' "DicomWeb": {"Root": "/w/"}}',
        "/etc/orthanc/10.json": '{"Name": "under", "DicomAet": "LOW", "DicomModalities": {"a": ["OLD", "h", 2],'
        ' "b": ["B", "h", 3]}} // end',
        "/run/secrets/00.json": json.dumps({**USERS, "Name": "secret", "StorageDirectory": "/tmp/files"}),
    }
    node = lab.start("orthanc", "merge", files=files)
    wait_for("Orthanc is alive", lambda: succeeds("exec", node, PROBE))
    got = configuration(node)
    assert (got["Name"], got["DicomAet"], got["StorageDirectory"]) == ("secret", "LOW", "/tmp/files")
    assert got["DicomModalities"] == {"a": ["A", "http://h//x", 1], "b": ["B", "h", 3]}
    assert got["DicomWeb"] == {"Root": "/w/", "Enable": True}
    assert (got["RemoteAccessAllowed"], got["AuthenticationEnabled"]) == (True, True)
    assert "PostgreSQL" not in got
    assert docker("exec", node, "ls", "/usr/share/orthanc/plugins").split() == ["libOrthancDicomWeb.so"]
    assert docker("exec", node, "stat", "-c", "%a %U", "/tmp/orthanc.json").split() == ["600", "root"]
    assert docker("exec", node, "stat", "-c", "%s", "/etc/hostid").strip() == "4"
    assert docker("exec", node, "sh", "-c", "readlink /proc/1/exe").strip() == "/usr/sbin/Orthanc"
    assert not succeeds("exec", node, PROBE, "--pwd=wrong"), "the probe takes an answer other than 200"


def test_orthanc_has_upstreams_owners_and_modes() -> None:
    """orthanc-builder, docker/orthanc/Dockerfile: all that its entry point writes is user 999's, and a volume's folder is the engine's."""
    paths = ("/etc/hostid", "/tmp", "/usr/share/orthanc/plugins", "/usr/share/orthanc/plugins-available", "/var/lib/orthanc")
    read = f"stat -c '%u:%g %a' {' '.join(paths)}; cat /etc/hostid; ls /var/lib/orthanc; id -u"
    said = docker("run", "--rm", "--network=none", "--entrypoint=sh", local_image("orthanc"), "-c", read).splitlines()
    assert said == ["999:999 644", "999:999 1777", *["999:999 755"] * 3, "not-generated", "0"]


def test_orthanc_does_not_start_without_its_capability(lab: Lab) -> None:
    """As upstream's, which stops at the same file."""
    container = f"{lab.prefix}-bare"
    docker("create", f"--name={container}", f"--label={lab.prefix}", "--cap-drop=ALL", local_image("orthanc"))
    docker("cp", "-", f"{container}:/", stdin=_tar(node_files({})))
    docker("start", container)
    assert ended(container) != 0
    assert "/etc/hostid: Permission denied" in docker("logs", container)


def test_orthanc_fills_the_database_section(node: str) -> None:
    got = configuration(node)
    assert got["StorageDirectory"] == "/var/lib/orthanc/db"
    section = got["PostgreSQL"]
    assert (section["EnableIndex"], section["EnableStorage"], section["Lock"], section["Port"]) == (True, False, False, 5432)
    assert (section["Host"], section["Password"]) == ("db", PASSWORD)
    assert docker("exec", node, "ls", "/usr/share/orthanc/plugins").split() == [
        "libOrthancPostgreSQLIndex.so",
        "libOrthancPostgreSQLStorage.so",
    ]


def statistics(lab: Lab, volume: str) -> list[list[str]]:
    """What SQLite is told of an index in a volume, while no Orthanc has it open."""
    read = "import json, sqlite3; print(json.dumps(sqlite3.connect('/index/index').execute('SELECT * FROM sqlite_stat1').fetchall()))"
    options = ("--rm", "--network=none", f"--volume={volume}:/index", "--entrypoint=python3")
    found: list[list[str]] = json.loads(docker("run", *options, local_image("orthanc"), "-c", read))
    return found


def test_orthanc_finds_by_identifier_in_sqlite_from_its_first_start(lab: Lab) -> None:
    """images/orthanc/index_statistics.py tells why. An index that was killed, or that somebody analysed, gets them as well."""
    volume = f"{lab.prefix}-sqlite"
    container = lab.orthanc("sqlite", {}, (f"--volume={volume}:/var/lib/orthanc/db",))
    wait_for("the node is alive", lambda: succeeds("exec", container, PROBE))
    docker("kill", container)
    wanted = [["DicomIdentifiers", "DicomIdentifiersIndex2", "1000000 300000 250000"], ["Resources", "ResourceTypeIndex", "1000000 250000"]]
    assert sorted(statistics(lab, volume)) == wanted
    analyse = "import sqlite3; sqlite3.connect('/index/index', isolation_level=None).execute('ANALYZE')"
    docker("run", "--rm", "--network=none", f"--volume={volume}:/index", "--entrypoint=python3", local_image("orthanc"), "-c", analyse)
    assert sorted(statistics(lab, volume)) != wanted
    docker("start", container)
    wait_for("the node is alive again", lambda: succeeds("exec", container, PROBE))
    stop(container)
    assert sorted(statistics(lab, volume)) == wanted
    assert "without statistics" not in docker("logs", container)


def test_no_statistics_keep_orthanc_from_starting(lab: Lab) -> None:
    files = {**node_files({"IndexDirectory": "/index"}), "/index/index": "no index"}
    container = lab.start("orthanc", "no-index", files=files)
    ended(container)
    log = docker("logs", container)
    assert "the index in SQLite is left without statistics, and will be slower: DatabaseError" in log
    assert "Orthanc version" in log


def test_an_index_in_postgresql_leaves_none_in_sqlite(node: str) -> None:
    assert "index" not in docker("exec", node, "ls", "/var/lib/orthanc/db").split()


def test_orthanc_without_users_refuses(lab: Lab) -> None:
    node = lab.start("orthanc", "nobody", files={"/etc/orthanc/orthanc.json": "{}"})
    assert ended(node) == 253
    assert "RegisteredUsers" in docker("logs", node)


def test_orthanc_names_the_file_that_is_no_json(lab: Lab) -> None:
    node = lab.start("orthanc", "broken", files={**node_files({}), "/etc/orthanc/site.json": '{\n/* two\nlines */ "A": 1,\n}'})
    assert ended(node) == 255
    last = docker("logs", node).splitlines()[-1]
    assert "/etc/orthanc/site.json" in last, last
    assert "line 3" in last or "line 4" in last, last


def test_orthanc_takes_one_argument(lab: Lab) -> None:
    assert ended(lab.start("orthanc", "two", "a", "b", files=node_files({}))) == 2


def test_probe_fails_before_orthanc_listens(lab: Lab) -> None:
    sleeper = lab.start("orthanc", "sleeper", "30", options=("--entrypoint=sleep",))
    assert "Connection refused" in docker("exec", sleeper, PROBE, status=1)


def test_probe_speaks_tls_without_verifying(lab: Lab) -> None:
    pem = docker(
        *("run", "--rm", "--network=none", "--entrypoint=sh", local_image("orthanc"), "-c"),
        "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=elsewhere -days 2 -keyout /tmp/k -out /tmp/c 2>/dev/null; cat /tmp/k /tmp/c",
    )
    config = {"SslEnabled": True, "SslCertificate": "/run/secrets/node.pem"}
    node = lab.start("orthanc", "tls", files={**node_files(config), "/run/secrets/node.pem": pem})
    wait_for("Orthanc with TLS is alive", lambda: succeeds("exec", node, PROBE))
    assert not succeeds("exec", node, PROBE, "--http_scheme=http"), "it does not serve TLS: the test proves nothing"


def test_probe_follows_the_database(node: str, database: str) -> None:
    docker("stop", "--time=20", database)
    try:
        wait_for("the probe notices", lambda: not succeeds("exec", node, PROBE), seconds=20)
    finally:
        docker("start", database)
    wait_for("the probe passes again", lambda: succeeds("exec", node, PROBE))


def test_orthanc_stops_cleanly(lab: Lab) -> None:
    node = lab.orthanc("stopping", {})
    wait_for("Orthanc is alive", lambda: succeeds("exec", node, PROBE))
    took, status = stop(node)
    assert took < STOP_WITHIN_S
    assert status == 0
    assert "Orthanc has stopped" in docker("logs", node)


def test_postgres_takes_the_password_from_its_file(database: str) -> None:
    assert query(database, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == "t"
    assert query(database, "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'index'") == "boss"
    assert query(database, "SHOW max_connections") == "37"
    assert query(database, "SHOW server_encoding") == "UTF8"
    assert query(database, "SELECT count(*) FROM pg_authid WHERE rolpassword LIKE 'SCRAM-SHA-256$%'") == "1"
    assert "password" in query(database, "SELECT 1", password="wrong", status=2)
    assert "password" in query(database, "SELECT 1", password="wrong", host="db", status=2)
    environment = docker("exec", "--user=postgres", database, "cat", "/proc/1/environ") + docker("inspect", database)
    assert PASSWORD not in environment
    assert docker("exec", database, "stat", "-c", "%U", "/proc/1").strip() == "postgres"


def test_postgres_without_password_refuses(lab: Lab) -> None:
    container = lab.start("postgres", "open")
    assert ended(container) == 1
    assert "POSTGRES_PASSWORD_FILE" in docker("logs", container)


def test_postgres_stops_cleanly_and_keeps_its_data(lab: Lab) -> None:
    container = lab.postgres("keep")
    wait_for("the database answers", lambda: accepts(container))
    query(container, "CREATE TABLE kept AS SELECT 42 AS n")
    client = subprocess.Popen(
        ["docker", "exec", container, "psql", "-U", "boss", "index", "-c", "SELECT pg_sleep(60)"], stderr=subprocess.PIPE
    )
    wait_for("a client is busy", lambda: query(container, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%(60)'") == "1")
    took, status = stop(container)
    client.communicate(timeout=10)
    assert took < STOP_WITHIN_S, "it waited for its clients"
    assert status == 0
    assert "database system is shut down" in docker("logs", container)
    docker("start", container)
    wait_for("the database answers again", lambda: accepts(container))
    assert query(container, "SELECT n FROM kept") == "42"
    assert docker("logs", container).count("the cluster is made") == 1


def test_postgres_recovers_from_an_interrupted_start(lab: Lab) -> None:
    # The first start hangs in the scripts, where the temporary server runs, and is killed there.
    scripts: dict[str, str | bytes] = {
        "/docker-entrypoint-initdb.d/1.sql": "CREATE TABLE made (n int);",
        "/docker-entrypoint-initdb.d/2.sh": "if [ ! -e /tmp/again ]; then touch /tmp/again; sleep 60; fi",
        "/docker-entrypoint-initdb.d/3.sql": "INSERT INTO made VALUES (7);",
    }
    container = lab.postgres("torn", files=scripts)
    wait_for("the first start hangs", lambda: succeeds("exec", container, "test", "-e", "/tmp/again"))
    assert succeeds("exec", container, "pg_isready", "-q"), "no temporary server on the socket: the test proves nothing"
    assert not accepts(container), "the temporary server is taken for the real one"
    docker("kill", container)
    docker("start", container)
    wait_for("the second start finishes", lambda: accepts(container))
    assert query(container, "SELECT n FROM made") == "7"

    # Killed later, between the mark and the last move: what was moved back here is what such a start leaves.
    docker("stop", "--time=20", container)
    half = "mkdir $1; mv PG_VERSION base postgresql.conf pg_wal $1; touch $1/orthanc-stack-complete"
    volume = f"--volume={lab.prefix}-torn:/v"
    docker(
        "run",
        "--rm",
        volume,
        "--workdir=/v",
        "--user=postgres",
        "--entrypoint=sh",
        local_image("postgres"),
        "-ec",
        half,
        "sh",
        ".orthanc-stack-init",
    )
    docker("start", container)
    wait_for("the moving is finished", lambda: accepts(container))
    assert query(container, "SELECT n FROM made") == "7"
    assert not succeeds("exec", container, "test", "-e", "/var/lib/postgresql/data/.orthanc-stack-init")


def test_postgres_leaves_a_strange_folder_alone(lab: Lab) -> None:
    container = lab.postgres("stray", files={"/var/lib/postgresql/data/precious": "data"})
    assert ended(container) == 1
    assert "precious" in docker("logs", container)


def test_postgres_runs_another_program(lab: Lab) -> None:
    container = lab.start("postgres", "tool", "psql", "--version")
    assert ended(container) == 0
    assert docker("logs", container).startswith("psql (PostgreSQL) 17.")


def test_adminer_offers_the_default_server_and_logs_in(lab: Lab, database: str) -> None:
    container = lab.start("adminer", "adminer", options=("--env=ADMINER_DEFAULT_SERVER=db",))
    wait_for("Adminer is healthy", lambda: succeeds("exec", container, "php", "-n", "-r", ADMINER_PROBE), seconds=15)
    address = docker("inspect", "--format={{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container).strip()
    cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    browser = urllib.request.build_opener(urllib.request.ProxyHandler({}), cookies)
    with browser.open(f"http://{address}:8080/", timeout=10) as page:
        form = page.read().decode()
    assert "name='auth[server]' value='db'" in form
    assert '<option value="pgsql" selected' in form
    assert form.count(" selected") == form.count('" selected>English') + 1, "two systems are selected"
    login = {"driver": "pgsql", "server": "db", "username": "boss", "password": PASSWORD, "db": "index"}
    wait_for("the database answers", lambda: accepts(database))
    with browser.open(f"http://{address}:8080/", adminer_login(form, login), timeout=10) as page:
        inside = page.read().decode()
    assert "auth[password]" not in inside, "it is still the log-in form"
    assert "index" in inside
    assert docker("exec", container, "id", "-un").strip() == "adminer"
    took, _ = stop(container)
    assert took < STOP_WITHIN_S


def test_adminer_probe_fails_where_nothing_listens(lab: Lab) -> None:
    container = lab.start("adminer", "quiet", "sleep", "30")
    assert not succeeds("exec", container, "php", "-n", "-r", ADMINER_PROBE)
