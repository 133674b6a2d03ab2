"""A stack's data out of a backup: volumes and database are made, and filled, before there is a node."""

import time
from typing import Final

from configs.names import DB_HOST, DB_SUPERUSER
from configs.settings import StackSettings
from ops.backup.data import COUNT_POSTGRESQL, COUNT_SQLITE, DATA, INDEX, INDEX_FILES, PSQL
from ops.backup.found import Found, forgotten
from ops.backup.oneshot import OneShot, feed, output, volume
from ops.backup.restic import RESTORES
from ops.setup.console import SetupError, say
from ops.setup.images import chosen
from ops.stack.interrupted import put_right
from ops.stack.stack import Stack

_LABEL: Final = "Restore"
OPTIONS: Final = ("--yes", "--skip-preview", "--non-interactive", "--suppress-outputs")
#: Saved jobs would run again (Orthanc's GlobalProperty_JobsRegistry; in PostgreSQL among the properties of each server).
_JOBS: Final = "DELETE FROM {} WHERE property = 5"
_SQLITE: Final = """import sqlite3, sys
index = sqlite3.connect(sys.argv[1])
index.execute(sys.argv[2])
index.commit()
print(*index.execute(sys.argv[3]).fetchone())"""
#: The files of patients, and all below them. The other tables' rows go with the resources.
_FILES_OF: Final = """WITH RECURSIVE gone(id) AS (SELECT internalId FROM Resources WHERE publicId IN ({})
UNION SELECT r.internalId FROM Resources r JOIN gone ON r.parentId = gone.id)
SELECT a.uuid FROM AttachedFiles a JOIN gone ON a.id = gone.id"""
_ERASE: Final = "DELETE FROM Resources WHERE publicId IN ({})"
#: These triggers tell Orthanc what it deletes: they want functions, or tables, of a session of Orthanc's. Those that count stay at work.
_TRIGGERS: Final = {"AttachedFiles": "AttachedFileDeleted", "Resources": "ResourceDeleted"}
_ERASE_SQLITE: Final = f"""import sqlite3, sys
index = sqlite3.connect(sys.argv[1], isolation_level=None)
index.execute("PRAGMA foreign_keys = ON")
index.execute("BEGIN")
triggers = index.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name IN {tuple(_TRIGGERS.values())}").fetchall()
for name, _ in triggers: index.execute(f"DROP TRIGGER {{name}}")
for row in index.execute(sys.argv[2]).fetchall(): print(*row)
index.execute(sys.argv[3])
for _, sql in triggers: index.execute(sql)
index.execute("COMMIT")"""
_REMOVE: Final = f"""import pathlib, sys
for name in sys.stdin.read().split(): pathlib.Path("{DATA}", name[:2], name[2:4], name).unlink(missing_ok=True)"""


def load(stack: Stack, settings: StackSettings, found: Found) -> None:
    """Make the stack's volumes and database, without its nodes, and fill them. Once broken off, it can be done again from the beginning."""
    # The state may have outlived the engine: what it knows, and is gone, would not be made again.
    if stack.pending:
        put_right(stack)
    elif stack.held().volumes and (status := stack.run("refresh", *OPTIONS)):
        raise stack.failure("the state could not be compared with the engine", status)
    parts = [*(node.name for node in settings.nodes), *(f"{node.name}-forwarder" for node in settings.forwarding_nodes), "adminer"]
    excluded = [f"--exclude=**::{part}-container" for part in parts]
    # Without the policy pack, which would meet nodes that have no inputs: the whole `up` has it.
    if status := stack.run("up", *OPTIONS, *excluded):
        raise stack.failure("volumes and database could not be made", status)
    volumes = stack.held().volumes
    image, without = chosen(settings).orthanc, to_erase(found)
    for node, about in sorted(found.manifest["nodes"].items()):
        begun, into, erased = time.monotonic(), volumes[f"{node}-data"], 0
        _files(found, node, into)
        count = _database(stack, found, node) if about["database"] else _sqlite(found, node, into, image)
        if count != about["instances"]:
            raise SetupError(f"{node}: {count} images are in the restored index, and {about['instances']} were in the one that was saved.")
        if without:
            erased = _erase(stack, about["database"], into, image, without)
        say(_LABEL, f"{node}: {count} images, in {time.monotonic() - begun:.1f} s")
        if erased:
            say(_LABEL, f"{node}: {erased} files of patients who were forgotten are erased again")


def _files(found: Found, node: str, into: str) -> None:
    """Put a node's files into its volume, with their owners and modes; what is there already is compared."""
    snapshot = found.manifest["nodes"][node]["snapshots"]["files"]
    mounts = [volume(into, DATA, read_only=False)]
    found.repository.ask("restore", f"{snapshot}:{DATA}/{node}", f"--target={DATA}", mounts=mounts, capabilities=RESTORES)


def _database(stack: Stack, found: Found, node: str) -> int:
    """Load the dump of a node's database, as a whole or not at all; how many instances it lists."""
    about, db = found.manifest["nodes"][node], f"{stack.prefix}-{DB_HOST}"
    database = about["database"]
    dump = found.repository.one_shot("dump", about["snapshots"]["index"], f"/{node}.dump").stream()
    login = ("exec", "--interactive", "--user", "postgres", db)
    options = ("--clean", "--if-exists", "--no-owner", "--single-transaction", f"--role={database}", f"--dbname={database}")
    feed(dump, *login, "pg_restore", "-h", "/var/run/postgresql", "-U", DB_SUPERUSER, *options, what=f"pg_restore {database}")
    statements = (_JOBS.format("ServerProperties"), _JOBS.format("GlobalProperties"), COUNT_POSTGRESQL)
    command = (*login, *PSQL, database, *(f"--command={one}" for one in statements))
    return int(b"".join(output(*command, what=f"psql {database}")))


def _sqlite(found: Found, node: str, into: str, image: str) -> int:
    """Put a node's index in SQLite into its volume; how many instances it lists."""
    about, mounts = found.manifest["nodes"][node], [volume(into, DATA, read_only=False)]
    snapshot, repository = about["snapshots"]["index"], found.repository
    # SQLite would apply the write-ahead log of a restore that was broken off to the index that comes now.
    left = [f"{DATA}/{file}" for file in INDEX_FILES]
    done = OneShot(image, ["-f", *left], repository.prefix, mounts, entrypoint=["rm"], capabilities=["DAC_OVERRIDE"]).run()
    if done.status != 0:
        raise SetupError(f"what a restore that was broken off left in the volume {into} cannot be removed: {done.errors[-2000:]}")
    repository.ask("restore", f"{snapshot}:{INDEX}/{node}", f"--target={DATA}", mounts=mounts, capabilities=RESTORES)
    command = ["-c", _SQLITE, f"{DATA}/index", _JOBS.format("GlobalProperties"), COUNT_SQLITE]
    helper = OneShot(image, command, repository.prefix, mounts, entrypoint=["python3"], capabilities=["DAC_OVERRIDE"])
    return int(b"".join(helper.stream()))


def to_erase(found: Found) -> str:
    """A list for SQL of the patients who are forgotten. Of one who was forgotten before the backup, it has what came afterwards."""
    return ", ".join(f"'{one}'" for one, when in forgotten(found.repository).items() if when >= found.manifest["time"])


def _erase(stack: Stack, database: str, into: str, image: str, patients: str) -> int:
    """Erase patients who were forgotten, before any node runs; how many files that were. `patients` is a list for SQL."""

    def python(*command: str) -> OneShot:
        mounts = [volume(into, DATA, read_only=False)]
        return OneShot(image, ["-c", *command], stack.prefix, mounts, entrypoint=["python3"], capabilities=["DAC_OVERRIDE"])

    files_of, erase = _FILES_OF.format(patients), _ERASE.format(patients)
    if database:
        off, on = ([f"ALTER TABLE {table} {what} TRIGGER {name}" for table, name in _TRIGGERS.items()] for what in ("DISABLE", "ENABLE"))
        commands = (f"--command={one}" for one in (*off, files_of, erase, *on))
        login = ("exec", "--user", "postgres", f"{stack.prefix}-{DB_HOST}", *PSQL, database, "--single-transaction")
        listed = output(*login, *commands, what=f"psql {database}")
    else:
        listed = python(_ERASE_SQLITE, f"{DATA}/index", files_of, erase).stream()
    files = b"".join(listed)
    done = python(_REMOVE).run_with(iter([files]))
    if done.status != 0:
        raise SetupError(f"the files of forgotten patients cannot be removed: {done.errors[-2000:]}")
    return len(files.split())
