"""A report: what a reviewer has to know of a change, as plain data. build() makes it of a preview."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from typing import Any

from ops.preview.change import IMAGE, STOPS, Change, Fate
from ops.preview.escape import Code, Words, listed, say
from ops.preview.events import Preview, Violation
from ops.preview.picture import Link, Place, topology
from ops.preview.resources import SECRET_FILE, Resource, resources
from ops.preview.risks import DataAtRisk, Downtime, at_risk, cautions, downtime, waits
from ops.preview.settings import Setting, changes, secrets_of


class Level(StrEnum):
    """How much a reviewer has to worry, from the least."""

    NOTHING = "nothing"
    QUIET = "quiet"
    DOWNTIME = "downtime"
    DATA = "data"
    FAILED = "failed"


@dataclass(frozen=True)
class Report:
    """All of a report; of what there is nothing to tell, nothing."""

    stack: str  #: the stack's name
    level: Level
    verdict: Words  #: the report in one line
    errors: tuple[str, ...] = ()  #: why the preview failed
    warnings: tuple[str, ...] = ()  #: what the program warns of
    notes: tuple[Words, ...] = ()  #: what of the stack's past has to be known: a run that was interrupted, no earlier settings
    data: tuple[DataAtRisk, ...] = ()  #: the volumes at risk
    cautions: tuple[Words, ...] = ()  #: what else endangers data
    downtime: tuple[Downtime, ...] = ()  #: the nodes that go down
    waits: tuple[Words, ...] = ()  #: what is interrupted without a node going down
    settings: tuple[Setting, ...] = ()  #: the settings that change
    resources: tuple[Resource, ...] = ()  #: what Pulumi would do to each resource, and why
    containers: tuple[tuple[str, Fate], ...] = ()  #: each container that does not stay as it is
    places: tuple[Place, ...] = ()  #: the picture's boxes
    links: tuple[Link, ...] = ()  #: the picture's arrows
    secret_files: tuple[str, ...] = ()  #: the containers of which a file changes, and no setting says why
    new_secrets: tuple[str, ...] = ()  #: the secrets that the stack needs from now on
    unused_secrets: tuple[str, ...] = ()  #: those that it needs no more
    packs: tuple[str, ...] = ()  #: the policy packs that ran
    broken: tuple[Violation, ...] = ()  #: the rules that are broken
    unknown: tuple[Words, ...] = ()  #: what a preview cannot know

    @property
    def restarted(self) -> set[str]:
        """The containers that were there and are stopped: replaced or removed."""
        return {name for name, fate in self.containers if fate in STOPS}


def build(preview: Preview, unfinished: Sequence[str] = (), schemas: Sequence[Words] = (), *, too_old: bool = False) -> Report:
    """The report of a preview.

    Args:
        preview: what Pulumi told.
        unfinished: the resources that an earlier run was changing when it was interrupted.
        schemas: what a new image does to the schema of databases.
        too_old: whether it is too old for one of them, so that `up` refuses.
    """
    change = Change(preview)
    settings = changes(change.old, change.new) if change.old is not None and change.new is not None else ()
    steps = resources(change)
    data, down = at_risk(change), downtime(change, steps)
    level = Level.FAILED if too_old else _level(preview, data, down, settings)
    places, links = topology(change)
    before, after = secrets_of(change.old), secrets_of(change.new)
    return Report(
        stack=preview.stack,
        level=level,
        verdict=_verdict(change, level, data, down),
        errors=preview.errors,
        warnings=preview.warnings,
        notes=_notes(change, unfinished),
        data=data,
        cautions=(*cautions(change), *schemas),
        downtime=down,
        waits=tuple(waits(change)),
        settings=settings,
        resources=steps,
        containers=tuple((name, fate) for name in sorted(change.containers) if (fate := change.fate(name)) is not None),
        places=places,
        links=links,
        secret_files=tuple(sorted(name for each in steps if SECRET_FILE in each.why for name in each.names)),
        new_secrets=tuple(sorted(after - before)) if before or change.old == {} else (),
        unused_secrets=tuple(sorted(before - after)) if after else (),
        packs=preview.packs,
        broken=preview.violations,
        unknown=_unknown(change),
    )


def plain(value: Any) -> Any:
    """A report as plain JSON: sentences become text, and every key is there."""
    if isinstance(value, Words):
        return str(value)
    if isinstance(value, tuple):
        return [plain(inner) for inner in value]
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return str(value) if isinstance(value, str) else value


def _level(preview: Preview, data: Sequence[DataAtRisk], down: Sequence[Downtime], settings: Sequence[Setting]) -> Level:
    if not preview.ok:
        return Level.FAILED
    if data:
        return Level.DATA
    if down:
        return Level.DOWNTIME
    return Level.QUIET if settings or any(step.changes for step in preview.steps) else Level.NOTHING


def _verdict(change: Change, level: Level, data: Sequence[DataAtRisk], down: Sequence[Downtime]) -> Words:
    if level is Level.FAILED:
        return say("This cannot be deployed: ", _failure(change, data))
    if level is Level.NOTHING:
        return say("Nothing changes.")
    pieces = []
    lost = [risk for risk in data if risk.lost]
    if len(lost) == 1:
        pieces.append(say("Deleted for good: ", lost[0].holds, "."))
    elif lost:
        pieces.append(say(f"Deleted for good: the data of {len(lost)} volumes, ", listed(risk.volume for risk in lost), "."))
    elif data:
        pieces.append(say("No data is deleted, but the stack loses ", listed(risk.volume for risk in data), "."))
    for for_good, how_long in ((True, "for good"), (False, "for some seconds")):
        nodes = [each.node for each in down if each.for_good == for_good]
        if nodes:
            count = "1 node goes down" if len(nodes) == 1 else f"{len(nodes)} nodes go down"
            pieces.append(say(f"{count} {how_long}: ", listed(nodes), "."))
    if not down:
        pieces.append(say("No node goes down.") if data else say("No node goes down, and no data is at risk."))
    elif not data:
        pieces.append(say("No data is at risk."))
    come = [name for name in change.nodes if change.fate(name) is Fate.ADDED]
    pieces += [say("New: ", listed(come), ".")] if come else []
    return Words([piece for sentence in pieces for piece in (" ", *sentence)][1:])


def _failure(change: Change, data: Sequence[DataAtRisk]) -> Words:
    broken = sorted({violation.rule for violation in change.preview.violations if violation.mandatory})
    if broken:
        return say("it breaks the policy ", listed(broken), ".")
    if refused := [risk.volume for risk in data if risk.protected]:
        return say("it would delete ", listed(refused), ", which is protected." if len(refused) == 1 else ", which are protected.")
    if not any(step.changes for step in change.preview.steps):
        return say("the stack file is refused, or the program ends with an error. Nothing would be touched.")
    if change.preview.ok:
        return say("the new image of Orthanc is too old for a database. ", Code("up"), " refuses, and touches nothing.")
    return say("the preview failed.")


def _notes(change: Change, unfinished: Sequence[str]) -> tuple[Words, ...]:
    found = []
    if unfinished:
        what = listed(unfinished)
        found.append(say("An earlier run was interrupted while it was changing ", what, ": what became of them is not in this preview."))
    if change.old is None and change.preview.ok:
        found.append(say("No earlier settings: the last deployment kept none, so which settings change is not told here."))
    return tuple(found)


def _unknown(change: Change) -> tuple[Words, ...]:
    """What a preview cannot know."""
    by_hand = "What somebody changed by hand since the last update: a preview compares with Pulumi's state, not with Docker. Run "
    found = [say(by_hand, Code(f"./orthanc-stack drift {change.preview.stack}"), ".")]
    if not change.preview.ok:
        found.append(say("What would come after the error: the preview ended there, and this report is of what it had found by then."))
    if any(step.op == "replace" for step in change.of_type(IMAGE)):
        found.append(say("Whether the new tag is another image: if the engine finds the same one behind it, its containers stay."))
    if any(change.fate(name) is Fate.REPLACED for name in change.containers):
        found.append(say("Whether a secret changes along with a setting: Pulumi shows nothing of a file with secrets."))
        found.append(say("How many seconds exactly: that depends on what a node is doing when it is asked to stop, and on the machine."))
    return tuple(found)
