"""The schema of Orthanc's indexes in PostgreSQL, and what the plugin of another image makes of it at its first start.

A plugin moves a database forward to its own revision of the schema, never back. One of version 5.1 or older refuses to start on a newer
revision. Later ones look for older revisions alone: they start, and work on a schema that they do not know (PostgreSQLIndex.cpp of
orthanc-databases, ConfigureDatabase).
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from configs.names import database_of
from configs.settings import StackSettings
from ops.backup.data import PSQL
from ops.backup.data import database_of as server_of
from ops.backup.oneshot import OneShot
from ops.preview.escape import Code, Words, listed, say
from ops.setup.console import SetupError
from ops.setup.engine import holds
from ops.setup.images import chosen, pull
from ops.setup.versions import version
from ops.stack.stack import Stack

#: By revision: the first version of the plugin that has it, and how many minutes it took others to come to it from the one before, with 150
#: million instances (Orthanc Book, plugins/postgresql.html, "Upgrades/Downgrades"; there are no revisions 7 to 9). Plugins from 3.3 to 5.1
#: want exactly revision 1, and write it where there is none, as the source says.
_REVISIONS: Final = {1: ((), 0), 2: ((6, 0), 17), 3: ((7, 0), 7), 4: ((7, 2), 0), 5: ((8, 0), 0), 6: ((9, 0), 22), 10: ((10, 0), 7)}
#: The newest plugin of which the revision is known: 7.2 had another one than 7.1.
_NEWEST: Final = (10, 3, 0)
#: The first plugin that starts on a newer revision than its own.
_STARTS: Final = (6, 0)
#: After the step to this revision, ChildCount entries are updated while Orthanc works: 50 hours for 350,000 studies (there, too).
_IN_BACKGROUND: Final = 6
#: Both images have the plugin there (orthanc-builder, docker/orthanc/Dockerfile). It says its version as it says it to Orthanc.
_ASK_PLUGIN: Final = """import ctypes
ask = ctypes.CDLL("/usr/share/orthanc/plugins-available/libOrthancPostgreSQLIndex.so").OrthancPluginGetVersion
ask.restype = ctypes.c_char_p
print(ask().decode())"""
#: A database that was started just now refuses connections for some seconds.
_ASK: Final = (
    f'for i in $(seq 30); do pg_isready -q -h /var/run/postgresql && break; sleep 1; done; printf %s "$0" | {" ".join(PSQL)} postgres'
)
#: Of one database: its revision (GlobalProperty_DatabasePatchLevel), 0 without one; no line where it is missing, or has no tables.
_REVISION: Final = """SELECT EXISTS (SELECT FROM pg_database WHERE datname = '{0}') AS found \\gset
\\if :found
\\connect {0}
SELECT to_regclass('globalproperties') IS NOT NULL AS found \\gset
\\if :found
SELECT '{0}', coalesce((SELECT value FROM globalproperties WHERE property = 4), '0');
\\endif
\\endif
"""
_HOW: Final = " (docs/operating.md, An older Orthanc)"
_ALONE: Final = " A node does not answer meanwhile: its startTimeout has to be long enough."


@dataclass(frozen=True)
class Move:
    """What the first start of an image makes of the schema of some nodes' databases."""

    nodes: tuple[str, ...]
    before: int  #: the revision in the databases; 0 without one
    after: int | None  #: the plugin's; None where this program does not know it
    plugin: str  #: the version of the image's plugin

    @property
    def back(self) -> bool:
        """Whether the plugin is too old for the databases."""
        return self.after is not None and self.after < self.before

    @property
    def words(self) -> Words:
        """What happens, how long it took others, and whether there is a way back."""
        whose = say(
            "The schema of the database of ", listed(self.nodes), f" is revision {self.before}, and the new image's PostgreSQL plugin "
        )
        if self.after is None:
            known = f"is none of those that are known here, up to {_NEWEST[0]}.{_NEWEST[1]}"
            return say(whose, f"{self.plugin} {known}: it may move the schema forward.", _ALONE)
        if self.back:
            acts = "refuses to start" if version(self.plugin) < _STARTS else "would start, and work on a schema that it does not know"
            back = say(" What leads back: ", self._scripts(), ", or a backup from before the upgrade.")
            return say(whose, f"{self.plugin} knows none after revision {self.after}: it {acts}. Orthanc never moves a schema back.", back)
        took = sum(minutes for revision, (_, minutes) in _REVISIONS.items() if self.before < revision <= self.after)
        hours = ", and 50 hours of work in the background afterwards" if self.before < _IN_BACKGROUND <= self.after else ""
        long = f" It took others about {took} minutes with 150 million instances{hours}." if took else ""
        back = say(" What leads back: a backup", say(", or ", self._scripts()) if self.after > 1 else "", ".")
        return say(whose, f"{self.plugin} moves it to revision {self.after}.{long}", _ALONE, back)

    def _scripts(self) -> Words:
        """Upstream's scripts from the newer revision to the older one. There is none to a database without a revision."""
        low, high = sorted((self.before or 1, self.after or 1))
        steps = [revision for revision in sorted(_REVISIONS, reverse=True) if low <= revision <= high]
        files = [f"Rev{one}ToRev{other}.sql" for one, other in itertools.pairwise(steps)]
        # Of a revision that is not known here, the scripts are not known either.
        return say("upstream's SQL, ", listed(files if high in _REVISIONS else ["PostgreSQL/Plugins/SQL/Downgrades"]), _HOW)


def moves(stack: Stack, settings: StackSettings, *, may_pull: bool = False) -> tuple[Move, ...]:
    """What another image makes of the databases of a deployed stack; nothing where the image stays, and no node comes.

    Args:
        stack: the stack, which need not run.
        settings: those that would be deployed.
        may_pull: whether an image that the engine does not hold is pulled.

    Raises:
        SetupError: the databases, or the image, cannot be asked.
    """
    names = {str(one["urn"]).rpartition("::")[2]: str(one["inputs"].get("name")) for one in stack.resources if one.get("inputs")}
    if not settings.index_nodes or not stack.held().index_volumes:
        return ()
    image = chosen(settings).orthanc
    # Where the image stays, its plugin has moved the schema already. A node that comes may have had its database before.
    other = names.get("images-orthanc", image) != image
    nodes = [node.name for node in settings.index_nodes if other or f"{node.name}-container" not in names]
    if not nodes:
        return ()
    try:
        found = _revisions(stack, nodes)
    except SetupError:
        if any(f"{node}-container" in names for node in nodes):
            raise
        return ()  # an earlier run ended before there was a database
    if not found:
        return ()
    if may_pull:
        pull(image)
    elif not holds(image):
        raise SetupError(f"the engine does not hold {image}, so what it needs is not known yet")
    plugin = _plugin(image, stack.prefix)
    after = revision_of(plugin)
    groups = {before: tuple(node for node in nodes if found.get(node) == before) for before in sorted(set(found.values()))}
    return tuple(Move(group, before, after, plugin) for before, group in groups.items() if before != after)


def told_moves(stack: Stack, settings: StackSettings) -> tuple[tuple[Words, ...], bool]:
    """What moves() finds, in words for a preview, and whether the image is too old for a database; or why that is not known."""
    try:
        found = moves(stack, settings)
    except SetupError as error:
        return (say("What the new image makes of the schema of the databases is not known: ", Code(str(error))),), False
    return tuple(move.words for move in found), any(move.back for move in found)


def _revisions(stack: Stack, nodes: Sequence[str]) -> Mapping[str, int]:
    """The revision of the schema in each node's database that is there and has tables."""
    script = "".join(_REVISION.format(database_of(node)) for node in nodes)
    rows = dict(line.split("|") for line in server_of(stack).run(["sh", "-c", _ASK, script]).splitlines())
    return {node: int(rows[database_of(node)]) for node in nodes if database_of(node) in rows}


def _plugin(image: str, prefix: str) -> str:
    """The version of an image's PostgreSQL plugin."""
    done = OneShot(image, ["-c", _ASK_PLUGIN], prefix, entrypoint=["python3"]).run()
    if done.status != 0:
        raise SetupError(f"the PostgreSQL plugin of {image} cannot be asked for its version: {done.errors.strip()[-500:]}")
    return done.out.strip()


def revision_of(plugin: str) -> int | None:
    """The revision of the schema that a version of the plugin works on; None for a version that is not known here."""
    number = version(plugin)
    if not number or number > _NEWEST:
        return None
    return max(revision for revision, (first, _) in _REVISIONS.items() if number >= first)
