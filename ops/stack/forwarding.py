"""`status`, `retry`, `recheck`: what the forwarders of a running stack say, and what they are asked for."""

import calendar
import json
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ops.setup.console import SetupError, say
from ops.stack.engine import FORWARDER_ASK, Container, containers_of
from ops.stack.stack import deployed
from ops.stack.terminal import NOT_WELL, table


def status(name: str, *, as_json: bool) -> int:
    """Print how each link does, as a table or as JSON; NOT_WELL where a forwarder does not answer."""
    answers = _ask_all(_forwarders(name), "status")
    said = [json.loads(text) for text in answers.values() if text]
    if as_json:
        print(json.dumps(said, indent=1))
    else:
        report(said, time.time())
    return _silent(answers) or (0 if all(node["nodeAnswers"] for node in said) else NOT_WELL)


def ask(name: str, what: str) -> int:
    """Have every forwarder of a stack try everything now (`retry`), or ask again for what was confirmed (`recheck`)."""
    answers = _ask_all(_forwarders(name), what)
    for forwarder in sorted(one for one, text in answers.items() if text):
        say(what.capitalize(), forwarder)
    return _silent(answers)


def _silent(answers: Mapping[str, str]) -> int:
    """Name the forwarders that do not answer, beside what is for programs."""
    silent = sorted(name for name, text in answers.items() if not text)
    for forwarder in silent:
        print(f"  {forwarder} does not answer; see: docker logs --tail 30 {forwarder}", file=sys.stderr)
    return NOT_WELL if silent else 0


def report(said: Sequence[Mapping[str, Any]], now: float) -> None:
    """Print the table of all links, and below it the images that are set aside."""
    rows, aside = [], []
    for node in sorted(said, key=lambda node: str(node["node"])):
        for link in sorted(node["links"], key=lambda link: str(link["to"])):
            title = f"{node['node']} -> {link['to']}"
            counts = _counts(link, now) if node["nodeAnswers"] else ["?"] * 9  # what it last knew is no answer
            rows.append((title, *counts, _state(node, link)))
            aside += [(title, one["image"], str(one["tries"]), one["nextTry"], one["reason"]) for one in link["aside"]]
    table(
        (
            "link",
            "confirmed by",
            "waiting",
            "in flight",
            "set aside",
            "not confirmed",
            "oldest",
            "last delivered",
            "tries",
            "next try",
            "state",
        ),
        rows,
    )
    if aside:
        print()
        table(("set aside", "image (its identifier at the node)", "tries", "next try", "reason"), aside)


def _counts(link: Mapping[str, Any], now: float) -> list[str]:
    ages = [f"{_span(now - _seconds(link[key]))} ago" if link[key] else "-" for key in ("oldestWaiting", "lastDelivered")]
    next_try = f"in {_span(_seconds(link['nextTry']) - now)}" if link["nextTry"] else "-"
    waiting = f"{link['waiting']}{'+' if link['more'] else ''}"
    counts = [waiting, str(link["inFlight"]), str(link["setAside"]), str(link.get("unconfirmed", 0))]
    return [_confirmed_by(link), *counts, *ages, str(link["tries"]), next_try]


def _confirmed_by(link: Mapping[str, Any]) -> str:
    """How the destination confirms; a forwarder from before an upgrade does not say."""
    used = str(link.get("confirmedBy") or "-")
    return f"auto: {used}" if link.get("confirm") == "auto" else used


def _state(node: Mapping[str, Any], link: Mapping[str, Any]) -> str:
    if not node["nodeAnswers"]:
        return f"{node['node']} does not answer"
    state = "all delivered"
    if link["tries"]:
        state = str(link["reason"])
    elif link["waiting"] or link["inFlight"]:
        state = "sending"
    elif link["setAside"] or link.get("unconfirmed"):
        counts = ((link.get("unconfirmed"), "stored, not confirmed"), (link["setAside"], "set aside"))
        state = ", ".join(f"{count} {what}" for count, what in counts if count)
    return "; ".join(filter(None, (state, link.get("note"))))


def _span(seconds: float) -> str:
    whole = max(0, round(seconds))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if whole >= 2 * size:
            return f"{whole // size} {unit}"
    return f"{whole} s"


def _seconds(moment: str) -> float:
    return calendar.timegm(time.strptime(moment, "%Y-%m-%dT%H:%M:%SZ"))


def _forwarders(name: str) -> list[Container]:
    stack = deployed(name)
    found = containers_of(stack)
    if forwarders := [one for one in found if one.role == "forwarder"]:
        return forwarders
    raise SetupError(f"no forwarder of the stack {name} is on the engine: no node has forwardTo, or `./orthanc-stack up {name}` is due.")


def _ask_all(forwarders: Sequence[Container], what: str) -> dict[str, str]:
    """What each forwarder answers, by its container's name; nothing where it does not."""

    def answer(forwarder: Container) -> str:
        try:
            return forwarder.run([*FORWARDER_ASK, what])
        except SetupError:
            return ""

    with ThreadPoolExecutor(8) as threads:
        return dict(zip((one.name for one in forwarders), threads.map(answer, forwarders), strict=True))
