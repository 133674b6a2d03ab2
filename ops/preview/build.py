"""A report from a preview."""

from __future__ import annotations

from ops.preview import changes, data, downtime, links, reasons, secret_files
from ops.preview.model import Code, DataAtRisk, Downtime, Fate, Level, Report, Words, listed, say
from ops.preview.parts import Change
from ops.preview.sides import IMAGE
from ops.preview.steps import Preview


def build(preview: Preview) -> Report:
    """The report of a preview."""
    change = Change.of(preview)
    secrets = secret_files.secret_files(change)
    why = reasons.reasons(change, secrets)
    at_risk = data.at_risk(change)
    down = downtime.downtime(change, why)
    parts = changes.parts(change)
    raw = changes.raw(change)
    anything = any(step.changes for step in preview.steps) or bool(parts)
    level = _level(preview, at_risk, down, anything)
    places, arrows = links.picture(change)
    fates = [(name, fate) for name in sorted(change.containers) if (fate := change.fate(name)) is not None]
    return Report(
        stack=preview.stack,
        level=level,
        verdict=_verdict(change, level, at_risk, down),
        errors=preview.errors,
        warnings=preview.warnings,
        data=at_risk,
        cautions=data.cautions(change),
        downtime=down,
        waits=downtime.waits(change),
        parts=parts,
        reasons=why,
        containers=tuple(fates),
        links=arrows,
        places=places,
        secrets=secrets,
        new_secrets=tuple(sorted(change.new.secrets - change.old.secrets)) if preview.ok else (),
        unused_secrets=tuple(sorted(change.old.secrets - change.new.secrets)) if preview.ok else (),
        packs=preview.packs,
        broken=preview.violations,
        raw=raw,
        unknown=tuple(_unknown(change)),
    )


def _level(preview: Preview, at_risk: tuple[DataAtRisk, ...], down: tuple[Downtime, ...], anything: bool) -> Level:
    if not preview.ok:
        return Level.FAILED
    if at_risk:
        return Level.DATA
    if down:
        return Level.DOWNTIME
    return Level.QUIET if anything else Level.NOTHING


def _verdict(change: Change, level: Level, at_risk: tuple[DataAtRisk, ...], down: tuple[Downtime, ...]) -> Words:
    if level is Level.FAILED:
        return say(*_failure(change, at_risk))
    if level is Level.NOTHING:
        return say("Nothing changes.")
    pieces: list[str | Code | Words] = []
    lost = [risk for risk in at_risk if risk.lost]
    if len(lost) == 1:
        pieces += ["Deleted for good: ", lost[0].holds, ". "]
    elif lost:
        pieces += [f"Deleted for good: the data of {len(lost)} volumes, ", listed(risk.volume for risk in lost), ". "]
    elif at_risk:
        pieces += ["No data is deleted, but the stack loses ", listed(risk.volume for risk in at_risk), ". "]
    pieces += _down(down)
    if level is Level.DOWNTIME:
        pieces += [" No data is at risk."]
    elif level is Level.QUIET:
        pieces = ["No node goes down, and no data is at risk."]
    come = sorted(name for name in change.new.nodes if name not in change.old.nodes)
    pieces += [" New: ", listed(come), "."] if come else []
    return say(*pieces)


def _down(down: tuple[Downtime, ...]) -> list[str | Code | Words]:
    """Who goes down, in half a sentence each."""
    found: list[str | Code | Words] = []
    for for_good, what in ((True, "for good"), (False, "for some seconds")):
        nodes = [each.node for each in down if each.for_good == for_good]
        if nodes:
            count = "1 node goes down" if len(nodes) == 1 else f"{len(nodes)} nodes go down"
            found += [" " if found else "", f"{count} {what}: ", listed(nodes), "."]
    return found or ["No node goes down."]


def _failure(change: Change, at_risk: tuple[DataAtRisk, ...]) -> list[str | Code | Words]:
    broken = sorted({violation.rule for violation in change.preview.violations if violation.mandatory})
    if broken:
        return ["This cannot be deployed: it breaks the policy ", listed(broken), "."]
    refused = [risk.volume for risk in at_risk if risk.protected]
    if refused:
        return [
            "This cannot be deployed: it would delete ",
            listed(refused),
            ", which is protected." if len(refused) == 1 else ", which are protected.",
        ]
    if not any(step.changes for step in change.preview.steps):
        return ["This cannot be deployed: the stack file is refused, or the program ends with an error. Nothing would be touched."]
    return ["This cannot be deployed: the preview failed."]


def _unknown(change: Change) -> list[Words]:
    """What a preview cannot know."""
    found = [
        say(
            "What somebody changed by hand since the last update: a preview compares with Pulumi's state, not with Docker. Run ",
            Code(f"make drift STACK={change.preview.stack}"),
            ".",
        ),
    ]
    if not change.preview.ok:
        found.append(say("What would come after the error: the preview ended there, and this report is of what it had found by then."))
    if not change.preview.complete:
        found.append(say("What stays as it is: this preview was told without it (", Code("--show-sames"), ")."))
    if any(step.op == "replace" for step in change.of_type(IMAGE)):
        found.append(say("Whether the new tag is another image: if the engine finds the same one behind it, its containers stay."))
    hidden = secret_files.hidden(change)
    if hidden and change.preview.ok:
        found.append(
            say("Whether a secret changes along with the settings, in ", listed(hidden), ": Pulumi shows nothing of a file with secrets.")
        )
    if any(fate is Fate.REPLACED for fate in map(change.fate, change.containers)):
        found.append(say("How many seconds exactly: that depends on what a node is doing when it is asked to stop, and on the machine."))
    return found
