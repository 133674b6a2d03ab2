"""A server of the new major version beside the old one: filled from it, and compared with it."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from configs.names import DB_PORT, DB_SUPERUSER
from ops.backup.data import PSQL
from ops.backup.oneshot import FILES, OneShot, output, volume
from ops.setup.console import SetupError, say
from ops.stack.engine import Container, engine_errors

LABEL: Final = "Upgrade"
#: The new server's port: it is in the network of the old one's container, and so reaches the old server without leaving it.
_PORT: Final = 5433
_START_SECONDS: Final = 300
#: At its end it writes down what it holds. What is killed meanwhile has to be recovered by the next start.
_STOP_SECONDS: Final = 600
_SECRET: Final = f"{FILES}/password"
#: The entry point begins as root, and reads the password when it has become postgres.
_START: Final = f'chown -R postgres {FILES} && exec docker-entrypoint.sh "$@"'
#: No parallel queries: they run out of the 64 MB of /dev/shm.
_OPTIONS: Final = ("-clisten_addresses=127.0.0.1", "-cmax_parallel_workers=0")
_OLD: Final = f"-h 127.0.0.1 -p {DB_PORT} -U {DB_SUPERUSER}"
_INTO: Final = f"psql -h /var/run/postgresql -U {DB_SUPERUSER} -XAtq --set=ON_ERROR_STOP=1 -d postgres"
#: By the new version's programs (PostgreSQL's manual, Upgrading a Cluster). The superuser is there; its password is then the old one.
_COPY: Final = f"set -euo pipefail; export PGPASSWORD=$(cat {_SECRET})"
_COPY_ROLES: Final = f"{_COPY}; pg_dumpall {_OLD} --globals-only | sed '/^CREATE ROLE {DB_SUPERUSER};$/d' | {_INTO}"
#: Debian's PostgreSQL 17.12 notes a `pg_attver` of its own at each column, which only its own pg_dump leaves out, and 18 does not know.
_OWN_NOTES: Final = r"LC_ALL=C sed -E '/^ALTER TABLE ONLY .* SET \(pg_attver=[0-9]+\);$/d'"
_COPY_DATABASE: Final = f'{_COPY}; pg_dump {_OLD} $1 "$0" | {_OWN_NOTES} | {_INTO}'

_DATABASES: Final = "SELECT datname, datallowconn FROM pg_database WHERE NOT datistemplate ORDER BY 1"
_SIZE: Final = "SELECT sum(pg_database_size(oid)) FROM pg_database"
#: A number of rows, and a sum that does not depend on their order. md5 is the same in each version; PostgreSQL's own hashes need not be.
_SUM: Final = "count(*), coalesce(sum(('x' || left(md5(t::text), 15))::bit(60)::bigint), 0)"
_TABLES: Final = f"""SELECT format('SELECT %L, {_SUM.replace("'", "''")} FROM ONLY %I.%I t', nspname || '.' || relname, nspname, relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind = 'r' AND (nspname !~ '^(pg_|information_schema$)' OR relname = 'pg_largeobject') ORDER BY nspname, relname"""
_SEQUENCES: Final = (
    """SELECT 'sequence ' || schemaname || '.' || sequencename, 1, coalesce(last_value::text, '-') FROM pg_sequences ORDER BY 1"""
)
#: What belongs to no database.
_GLOBAL: Final = (
    f"SELECT 'roles', {_SUM} FROM (SELECT rolname, rolsuper, rolcanlogin, rolcreatedb, rolcreaterole, rolconnlimit, rolpassword "
    "FROM pg_authid WHERE rolname !~ '^pg_') t",
    f"SELECT 'databases', {_SUM} FROM (SELECT datname, pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datconnlimit, "
    "datallowconn, shobj_description(oid, 'pg_database') FROM pg_database WHERE NOT datistemplate) t",
)
#: On a node's table of patients, studies, series and images: the last that was there when it was copied.
_MARK: Final = "upgrade-db: "
_LAST: Final = f"SELECT format('COMMENT ON TABLE resources IS %L', '{_MARK}' || coalesce(max(internalid), 0)) FROM resources"
_SINCE: Final = (
    f"SELECT count(*) FROM resources WHERE resourcetype = 3 "
    f"AND internalid > substr(obj_description('resources'::regclass), {len(_MARK) + 1})::bigint"
)


@dataclass(frozen=True)
class Table:
    """What a table holds, or a sequence."""

    rows: int
    checksum: str


def ask(server: Container, sql: str, database: str = "postgres") -> list[list[str]]:
    """The rows that a query answers."""
    command = ("exec", "--user", "postgres", server.name, *PSQL, database, "-F\t", "-c", sql)
    text = b"".join(output(*command, what=f"psql {database}")).decode()
    return [line.split("\t") for line in text.splitlines()]


def size_of(server: Container) -> int:
    """The bytes that all databases take."""
    return int(ask(server, _SIZE)[0][0])


def free_of(server: Container) -> int:
    """The bytes that are free where the engine keeps the server's volume."""
    return 1024 * int(server.run(["sh", "-c", 'df -Pk "$PGDATA"']).splitlines()[-1].split()[3])


@contextlib.contextmanager
def new_server(old: Container, image: str, prefix: str, mount: tuple[str, str], password: str) -> Iterator[Container]:
    """A server of the new version, while the block runs; it is ended in good order, or a SetupError.

    Args:
        old: the old server's container.
        image: that of the new version.
        prefix: the stack's.
        mount: its volume, and where the image has its data.
        password: the superuser's, in both servers.
    """
    environment = {"POSTGRES_PASSWORD_FILE": _SECRET, "POSTGRES_USER": DB_SUPERUSER, "PGPORT": str(_PORT)}
    one = OneShot(
        image,
        ["sh", "postgres", *_OPTIONS],
        prefix,
        [volume(*mount, read_only=False)],
        {"password": password.encode()},
        environment,
        network=f"container:{old.id}",
        capabilities=("CHOWN", "DAC_OVERRIDE", "SETGID", "SETUID"),
        entrypoint=["sh", "-ec", _START],
        stop_signal="SIGINT",
    )
    with one.made() as made:
        server = Container(str(made.name), str(made.id), "", "running", handle=made)
        with engine_errors():
            made.start()
        _await(server)
        yield server
        with engine_errors():
            made.stop(timeout=_STOP_SECONDS)
            status = int(made.wait()["StatusCode"])
        if status != 0:
            raise SetupError(f"the new server did not end in good order (exit status {status}); the old one is as it was.")


def _await(server: Container) -> None:
    """Wait until it serves. While it makes its cluster, it answers on its socket alone."""
    end = time.monotonic() + _START_SECONDS
    while True:
        with contextlib.suppress(SetupError):
            server.run(["pg_isready", "-q", "-h", "127.0.0.1"])
            return
        with engine_errors():
            server.handle.reload()
            if server.handle.status != "running" or time.monotonic() > end:
                log = server.handle.logs(tail=12).decode(errors="replace")
                raise SetupError(f"the new server does not start; the old one is as it was. Its log ends:\n{log}")
        time.sleep(0.3)


@contextlib.contextmanager
def opened(old: Container, new: Container) -> Iterator[list[str]]:
    """The databases of the old server, which can all be connected to while the block runs; those that are not open are closed in both then.

    Nobody may connect to the database of a node that was removed; it is called <database>.<volume> (components/payload/ensure_roles.sh).
    pg_dump neither reads such a database, nor notes that it is closed.
    """
    databases = {name: allowed == "t" for name, allowed in ask(old, _DATABASES)}
    closed = [name for name, allowed in databases.items() if not allowed or "." in name]
    try:
        for name in closed:
            _allow(old, name, "true")
        yield list(databases)
        for name in closed:
            _allow(new, name, "false")
    finally:
        for name in closed:
            _allow(old, name, "false")


def copy(new: Container, databases: Sequence[str]) -> None:
    """Copy roles and databases from the old server into the new one."""
    _run(new, _COPY_ROLES)
    for name in databases:
        say(LABEL, f"copying {name}")
        _run(new, _COPY_DATABASE, name, "" if name == "postgres" else "--create")
        ask(new, "ANALYZE", name)


def _allow(server: Container, database: str, value: str) -> None:
    ask(server, f'ALTER DATABASE "{database}" WITH ALLOW_CONNECTIONS {value}')


def _run(new: Container, script: str, *arguments: str) -> None:
    for _ in output("exec", new.name, "bash", "-c", script, *arguments, what=script.rpartition("; ")[2]):
        pass


def contents(server: Container, databases: Sequence[str]) -> dict[str, dict[str, Table]]:
    """What each database holds, by table and sequence; and what belongs to none, under an empty name."""
    found = {"": [row for query in _GLOBAL for row in ask(server, query)]}
    for database in databases:
        tables = [row[0] for row in ask(server, _TABLES, database)]
        found[database] = [*(ask(server, " UNION ALL ".join(tables), database)), *ask(server, _SEQUENCES, database)]
    return {database: {name: Table(int(rows), checksum) for name, rows, checksum in tables} for database, tables in found.items()}


def differences(old: Mapping[str, Table], new: Mapping[str, Table]) -> list[str]:
    """The tables and sequences in which two databases differ, sorted, each with what is in the one and in the other."""

    def told(table: Table | None) -> str:
        return "missing" if table is None else f"{table.rows} rows, checksum {table.checksum}"

    return [f"{name}: {told(old.get(name))}; {told(new.get(name))}" for name in sorted({*old, *new}) if old.get(name) != new.get(name)]


def mark(server: Container, database: str) -> None:
    """Note in a node's index which of its entries were copied."""
    ask(server, ask(server, _LAST, database)[0][0], database)


def came_since(server: Container, database: str) -> int:
    """How many images a node's index has that came after it was copied."""
    return int(ask(server, _SINCE, database)[0][0])
