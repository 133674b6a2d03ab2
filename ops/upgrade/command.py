"""`upgrade-db`: to the next major version of PostgreSQL, and back until the upgrade is confirmed.

The stack file says which volume the database has; writing it there is the moment from which the new one counts. Where a run was broken
off is seen from what is deployed: the stack file, and the volume that the database's container has.
"""

import os
import secrets as randomness
import sys
from collections.abc import Mapping
from typing import Final

from configs.names import (
    DB_HOST,
    FILLED,
    LABEL_FORMAT,
    LABEL_OWNER,
    LABEL_STACK,
    LABEL_UPGRADED,
    LABEL_VOLUME,
    PROJECT,
    postgresql_folder,
    postgresql_format,
)
from configs.secrets import DB_PASSWORD
from images import is_alpine
from ops.backup.backup import alone, back_up, refuse_undeployed
from ops.backup.data import NodeData, data_of, database_of, remove_volume
from ops.setup.console import SetupError, say
from ops.setup.images import ensure_postgres
from ops.stack.engine import client, engine_errors
from ops.stack.lifecycle import stop
from ops.stack.secrets import refuse_on_runner
from ops.stack.terminal import confirm, table
from ops.stack.up import start_stopped, up
from ops.stack.verify import report, verify
from ops.upgrade.server import LABEL, Table, ask, came_since, contents, copy, differences, free_of, mark, new_server, opened, size_of
from ops.upgrade.situation import Place, Situation

#: Data takes more while it is loaded: write-ahead log, and files to sort what indexes are made from.
_ROOM: Final = 1.3


def upgrade(name: str, *, no_backup: bool) -> int:
    """Move PostgreSQL's data to the next major version; the exit status. Where that is done, and not confirmed, only deploy the stack.

    Raises:
        SetupError: it cannot be done, or the copy differs. The old data is untouched, and the nodes that ran are started again.
    """
    refuse_on_runner(name)
    now = Situation(name)
    with alone(now.stack):
        before = now.before
        # Without a container: the last run had removed the old one, or it was removed by hand since. The new volume may be ahead.
        if before and now.used != now.volume_of(before):
            os.environ[FILLED] = now.volume_of(now.place)
            return _told(now, before, up(name, saves=False))
        if before:
            # Nodes may have stored images in the old data since.
            say(LABEL, "the last run was broken off before the database changed over: beginning anew")
            now.switch(before)
            now = Situation(name)
        if now.used != now.volume_of(now.place):
            raise SetupError(
                f"nothing was touched: the database has its data in {now.used or 'no volume'}, and Pulumi.{now.stack.short}.yaml names "
                f"{now.volume_of(now.place)} (indexDb.volume). After an --undo that was broken off, give that again. Else set indexDb back "
                f"to what is deployed, and give `./orthanc-stack up {name}`."
            )
        now.switch(place := _fill(now, no_backup=no_backup))
        return _told(now, now.place, up(name, saves=False), place)


def _told(now: Situation, before: Place, status: int, place: Place | None = None) -> int:
    command = f"./orthanc-stack upgrade-db {now.stack.name}"
    print()
    say(LABEL, f"PostgreSQL {(place or now.place).major} has the data; {now.volume_of(before)} has that of PostgreSQL {before.major} still")
    say(LABEL, f"when all is well: {command} --done removes that; {command} --undo goes back to it")
    return status


def undo_upgrade(name: str) -> int:
    """Go back to the data that an upgrade has left, as it was then; the exit status. The newer data stays, too, until --done."""
    refuse_on_runner(name)
    now = Situation(name)
    with alone(now.stack):
        # The stack file is back already where an undo was broken off.
        back = now.before or (now.place if now.used in now.spare else None)
        if back is None:
            raise SetupError(f"nothing was touched: {name} has no upgrade that can be taken back.")
        stop([one for one in now.containers if one.role != DB_HOST], LABEL)
        since = {node.database: _came_since(now, node) for node in _indexes(now)} if now.used != now.volume_of(back) else {}
        now.switch(back)
        status = up(name, saves=False)
    print()
    for database, count in since.items():
        say(LABEL, f"{database}: {count} images came since the upgrade, and have files without an entry in the index")
    say(LABEL, f"`./orthanc-stack check-data {name} --mend` takes these in. What was deleted since is listed again, without its files")
    return status


def _indexes(now: Situation) -> list[NodeData]:
    return [node for node in data_of(now.stack, now.stack.outputs(show_secrets=False)) if node.database]


def _came_since(now: Situation, node: NodeData) -> str:
    try:
        return str(came_since(database_of(now.stack), node.database))
    except SetupError:
        return "an unknown number of"


def confirm_upgrade(name: str, *, yes: bool) -> int:
    """Remove the data of the database's that is not in use, after asking unless `yes`; the exit status."""
    now = Situation(name)
    with alone(now.stack):
        if not now.spare:
            raise SetupError(f"nothing was touched: {name} has no upgrade that is to be confirmed.")
        if now.used != now.volume_of(now.place) or report(verify(now.stack, now.stack.outputs(show_secrets=True))):
            raise SetupError(f"nothing was touched: the stack {name} is not well. `./orthanc-stack upgrade-db {name} --undo` goes back.")
        lost = ", ".join(now.spare)
        if not yes:
            confirm(now.stack.name, f"This removes {lost}, with all indexes in it. There is no way back then.", "upgrade-db --done")
        for volume in now.spare:
            now.drop(volume)
    say(LABEL, f"removed {lost}")
    return 0


# --- The new volume --------------------------------------------------------------------------------------------------


def _fill(now: Situation, *, no_backup: bool) -> Place:
    """Fill the volume of the next major version from the server that runs; its place. The nodes are stopped then."""
    stack, place, old = now.stack, now.place.next(), database_of(now.stack)
    target = now.volume_of(place)
    if (runs := int(ask(old, "SHOW server_version_num")[0][0]) // 10000) != now.place.major:
        raise SetupError(f"nothing was touched: indexDb.majorVersion is {now.place.major}, and PostgreSQL {runs} runs. Set it back.")
    backup, nodes = now.settings.backup, _indexes(now)
    if backup is None and not no_backup:
        raise SetupError(f"nothing was touched: Pulumi.{stack.short}.yaml has no `backup:`. Set it (docs/backup.md), or add --no-backup.")
    refuse_undeployed(stack, now.settings, data_of(stack, stack.outputs(show_secrets=False)))
    # Of a run that was broken off, or of an upgrade that was taken back.
    now.drop(target)
    refuse_full(size_of(old), free_of(old))
    image = ensure_postgres(now.settings, place.image, place.major)
    if backup and not no_backup:
        back_up(stack, now.settings, backup, sheet=False)
    try:
        stop([one for one in now.containers if one.role != DB_HOST], LABEL)
        begun = now.runs
        labels = {
            LABEL_STACK: stack.prefix,
            LABEL_OWNER: now.held.owner,
            LABEL_FORMAT: postgresql_format(place.major, alpine=is_alpine(image)),
            LABEL_VOLUME: randomness.token_hex(8),
            LABEL_UPGRADED: f"{now.place.volume} {now.place.major} {now.place.image}",
        }
        with engine_errors():
            client().volumes.create(target, labels=labels)
        password = stack.ask("config", "get", f"{PROJECT}:{DB_PASSWORD}").rstrip("\n")
        mount = (target, postgresql_folder(place.major))
        with new_server(old, image, stack.prefix, mount, password) as new, opened(old, new) as databases:
            copy(new, databases)
            found = compare(contents(old, databases), contents(new, databases))
            for node in nodes:
                if "public.resources" in found[node.database]:
                    mark(new, node.database)
        _refuse_started(now, begun)
    except BaseException:
        remove_volume(target)
        start_stopped(now.containers)
        raise
    return place


def _refuse_started(now: Situation, begun: Mapping[str, str]) -> None:
    """Refuse where a container beside the database was started since."""
    if now.runs != begun:
        raise SetupError("nodes were started meanwhile, and may have stored images in the old data. Give the same command again.")


def refuse_full(needed: int, free: int) -> None:
    """Refuse where the copy of so many bytes has no room."""
    if needed * _ROOM > free:
        raise SetupError(
            f"nothing was touched: the databases have {needed / 1e6:.0f} MB, of which a copy needs {needed * _ROOM / 1e6:.0f} MB, and "
            f"{free / 1e6:.0f} MB are free where the engine keeps its volumes. Make room there."
        )


def compare(old: Mapping[str, Mapping[str, Table]], new: Mapping[str, Mapping[str, Table]]) -> Mapping[str, Mapping[str, Table]]:
    """Print a table of what the databases hold, and return it. A SetupError where two servers differ."""
    wrong = {database: differences(tables, new[database]) for database, tables in old.items()}
    rows = [
        (database or "(server)", str(len(tables)), str(sum(one.rows for one in tables.values())), "DIFFERS" if wrong[database] else "equal")
        for database, tables in old.items()
    ]
    table(("database", "tables and sequences", "rows", "counts and checksums"), rows)
    if told := [f"{database} {one}" for database, ones in wrong.items() for one in ones]:
        raise SetupError("\n".join(("the copy differs, and the old data stays in use (old; new):", *(f"    {one}" for one in told))))
    sys.stdout.flush()
    say(LABEL, "the copy is equal")
    return old
