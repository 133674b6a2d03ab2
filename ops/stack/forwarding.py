"""`status`, `retry`, `recheck`: what the forwarders of a running stack say, and what they are asked for."""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Final

from ops.setup.console import SetupError, say
from ops.stack.engine import FORWARDER_ASK, Container, containers_of
from ops.stack.stack import deployed
from ops.stack.terminal import NOT_WELL, table

_LINKS: Final = (
    *("link", "confirmed by", "waiting", "in flight", "set aside", "not confirmed"),
    *("oldest", "last delivered", "tries", "next try", "state"),
)
_IMAGES: Final = ("set aside", "series (identifiers at the node)", "image", "reason", "tries", "last tried")
#: What mends images that are set aside, by how the reason begins (forwarder/trouble.py, forwarder/dicom.py). The first that fits counts.
_MENDS: Final = (
    (("no presentation context", "DIMSE status 0x0122"), "Let the device accept this SOP class, or leave it out: not: {sopClass: [...]}"),
    ("the destination does not take its transfer syntax", "Let the device accept this transfer syntax, or have images stored in another"),
    (("DIMSE status 0xA7", "DIMSE status 0x0213"), "Make room at the device"),
    ("DIMSE status", "See the device's log for what it refuses: correct the images, or leave them out with not:"),
    ("its file in this node cannot be read", "Restore the node's volume, or delete the images at the node and send them to it again"),
    ("sent twice within the hour", "The device, or one behind it, sends images back: take the route away, or retry"),
    ("the destination took it, and says that it has it not", "Does the device change SOP instance UIDs (lossy compression on arrival)?"),
    ("the connection broke at this image", "See the device's log for why it ends the association, or leave the images out with not:"),
    ("", "See the device's log, then retry"),
)


def status(name: str, *, as_json: bool, every_image: bool) -> int:
    """Print how each link does, `every_image` that is set aside as well; NOT_WELL where a forwarder or its node does not answer."""
    forwarders = _forwarders(name)
    said = {one: json.loads(text) for one, text in _ask_all(forwarders, "status").items()}
    well = [one for one in forwarders if one.name in said and said[one.name]["nodeAnswers"]]
    lists = _ask_all(well, "aside") if every_image else {}
    for one, text in lists.items():
        said[one] |= json.loads(text)
    if as_json:
        print(json.dumps(list(said.values()), indent=1))
    else:
        report(said.values(), time.time())
    return 0 if len(lists if every_image else well) == len(forwarders) else NOT_WELL


def ask(name: str, what: str) -> int:
    """Have every forwarder of a stack try everything now (`retry`), or ask again for what was confirmed (`recheck`)."""
    forwarders = _forwarders(name)
    for forwarder in (answers := _ask_all(forwarders, what)):
        say(what.capitalize(), forwarder)
    return 0 if len(answers) == len(forwarders) else NOT_WELL


def report(said: Iterable[Mapping[str, Any]], now: float) -> None:
    """Print the table of all links, and below it what mends them; then the images that are set aside, where `said` lists them."""
    links, images, notes = [], [], list[tuple[str, ...]]()
    for node in sorted(said, key=lambda node: str(node["node"])):
        for link in sorted(node["links"], key=lambda link: str(link["to"])):
            # Of a node that does not answer, what was last known is no answer.
            cells = [*_counts(link, now), _state(link)] if node["nodeAnswers"] else [*["?"] * 9, f"{node['node']} does not answer"]
            links.append((f"{node['node']} -> {link['to']}", *cells))
        notes += _notes(node)
        for one in node.get("aside", ()):
            images.append((f"{node['node']} -> {one['to']}", *(str(one[key]) for key in ("series", "image", "reason", "tries", "at"))))
    if links:
        table(_LINKS, links)
    for columns, rows in ((("link or node", "images", "note", "what mends it"), notes), (_IMAGES, sorted(images))):
        if rows:
            print()
            table(columns, rows)


def _notes(node: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """What is to be told of a node and its links; a forwarder from before an upgrade says less."""
    for link in sorted(node["links"], key=lambda link: str(link["to"])):
        title = f"{node['node']} -> {link['to']}"
        if link.get("note"):
            yield title, "", link["note"], ""
        for one in link.get("reasons", ()):
            mends = next(mends for beginning, mends in _MENDS if one["reason"].startswith(beginning))
            yield title, str(one["images"]), f"set aside: {one['reason']}", mends
        if older := link.get("older"):
            yield title, str(older), "the device may keep an older version (it had the UID before)", "Delete them there, then recheck"
    if unmatched := node.get("unmatched"):
        yield node["node"], str(unmatched), "go to no destination, and stay here", "To send them, change only: or not: of a link"
    for one in node.get("kept", ()):
        yield node["node"], str(one["images"]), f"not deleted: {one['reason']}", ""


def summary(link: Mapping[str, Any]) -> str:
    """A link in a line."""
    counts = [f"{link['waiting'] + link['inFlight']} on their way", *_undelivered(link)]
    return f"to {link['to']}: {', '.join(counts)}" + (f" ({link['note']})" if link.get("note") else "")


def _counts(link: Mapping[str, Any], now: float) -> list[str]:
    used = str(link.get("confirmedBy") or "-")
    waiting = f"{link['waiting']}{'+' if link['more'] else ''}"
    counts = [str(link.get(key, 0)) for key in ("inFlight", "setAside", "unconfirmed")]
    ages = [f"{_span(link[key], now)} ago" if link[key] else "-" for key in ("oldestWaiting", "lastDelivered")]
    next_try = f"in {_span(link['nextTry'], now)}" if link["nextTry"] else "-"
    return [f"auto: {used}" if link.get("confirm") == "auto" else used, waiting, *counts, *ages, str(link["tries"]), next_try]


def _state(link: Mapping[str, Any]) -> str:
    if link["tries"]:
        return str(link["reason"])
    if link["waiting"] or link["inFlight"] or link["more"]:
        return "sending"
    return ", ".join(_undelivered(link)) or "all delivered"


def _undelivered(link: Mapping[str, Any]) -> list[str]:
    """The images that are not on their way, and not delivered for certain: how many, and why."""
    counts = (("unconfirmed", "stored, not confirmed"), ("setAside", "set aside"), ("older", "maybe in an older version"))
    return [f"{link[key]} {what}" for key, what in counts if link.get(key)]


def _span(moment: str, now: float) -> str:
    seconds = round(abs(datetime.fromisoformat(moment).timestamp() - now))
    unit, size = next((one for one in (("d", 86400), ("h", 3600), ("min", 60)) if seconds >= 2 * one[1]), ("s", 1))
    return f"{seconds // size} {unit}"


def _forwarders(name: str) -> list[Container]:
    if forwarders := [one for one in containers_of(deployed(name)) if one.role == "forwarder"]:
        return forwarders
    raise SetupError(f"no forwarder of the stack {name} is on the engine: no node has forwardTo, or `./orthanc-stack up {name}` is due.")


def _ask_all(forwarders: Sequence[Container], what: str) -> dict[str, str]:
    """What each forwarder answers, by its container's name; those that do not answer are named on standard error."""

    def answer(forwarder: Container) -> str:
        try:
            return forwarder.run([*FORWARDER_ASK, what])
        except SetupError:
            print(f"  {forwarder.name} does not answer `{what}`; see: docker logs --tail 30 {forwarder.name}", file=sys.stderr)
            return ""

    with ThreadPoolExecutor(8) as threads:
        return {one.name: text for one, text in zip(forwarders, threads.map(answer, forwarders), strict=True) if text}
