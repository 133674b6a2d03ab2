"""`make status`, `make retry`, `make recheck`: what the forwarders of a running stack say, and what they are asked for."""

from __future__ import annotations

import calendar
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TextIO

from configs.names import prefix
from ops.setup.console import SetupError, say
from ops.setup.engine import ensure_engine
from ops.setup.prepare import stack_config
from ops.stack.containers import FORWARDER_ASK, Container, Docker, docker_runner, list_containers
from ops.stack.table import table

_HEADERS = ("link", "waiting", "in flight", "set aside", "oldest waiting", "last delivered", "tries", "next try", "state")
_THREADS = 8


def status(name: str, out: TextIO) -> int:
    """Write how each link does, as a table, or with JSON=1 as JSON; 1 where a forwarder does not answer."""
    docker, forwarders = _forwarders(name)
    answers = _ask_all(docker, forwarders, "status")
    said = [json.loads(text) for text in answers.values() if text]
    silent = sorted(name for name, text in answers.items() if not text)
    if os.environ.get("JSON") == "1":
        print(json.dumps(said, indent=1), file=out)
    else:
        print(report(said, time.time()), file=out)
    for forwarder in silent:
        # Not among the JSON, which is for programs.
        print(f"  {forwarder} does not answer; see: docker logs --tail 30 {forwarder}", file=sys.stderr)
    return 1 if silent else 0


def ask(name: str, what: str) -> int:
    """Have every forwarder of a stack try everything now (`retry`), or ask again for what was confirmed (`recheck`)."""
    docker, forwarders = _forwarders(name)
    answers = _ask_all(docker, forwarders, what)
    for forwarder, text in sorted(answers.items()):
        say(what.capitalize(), forwarder if text else f"{forwarder} does not answer; see: docker logs --tail 30 {forwarder}")
    return 0 if all(answers.values()) else 1


def report(said: Sequence[Mapping[str, Any]], now: float) -> str:
    """The table of all links, and below it the images that are set aside."""
    rows, aside = [], []
    for node in sorted(said, key=lambda node: str(node["node"])):
        for link in sorted(node["links"], key=lambda link: str(link["to"])):
            title = f"{node['node']} -> {link['to']}"
            rows.append((title, *_row(link, now), _state(node, link)))
            aside += [(title, one["image"], str(one["tries"]), one["nextTry"], one["reason"]) for one in link["aside"]]
    text = table(_HEADERS, rows)
    if aside:
        text += "\n\n" + table(("set aside", "image (its identifier at the node)", "tries", "next try", "reason"), aside)
    return text


def _row(link: Mapping[str, Any], now: float) -> tuple[str, ...]:
    counts = (f"{link['waiting']}{'+' if link['more'] else ''}", str(link["inFlight"]), str(link["setAside"]))
    return (
        *counts,
        _since(link["oldestWaiting"], now),
        _since(link["lastDelivered"], now),
        str(link["tries"]),
        _until(link["nextTry"], now),
    )


def _state(node: Mapping[str, Any], link: Mapping[str, Any]) -> str:
    if not node["nodeAnswers"]:
        return f"{node['node']} does not answer"
    if link["tries"]:
        return str(link["reason"])
    return "sending" if link["waiting"] or link["inFlight"] else "all delivered"


def _since(moment: str | None, now: float) -> str:
    return f"{_span(now - _seconds(moment))} ago" if moment else "-"


def _until(moment: str | None, now: float) -> str:
    return f"in {_span(_seconds(moment) - now)}" if moment else "-"


def _span(seconds: float) -> str:
    whole = max(0, round(seconds))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if whole >= 2 * size:
            return f"{whole // size} {unit}"
    return f"{whole} s"


def _seconds(moment: str) -> float:
    return calendar.timegm(time.strptime(moment, "%Y-%m-%dT%H:%M:%SZ"))


def _forwarders(name: str) -> tuple[Docker, list[Container]]:
    ensure_engine(stack_config(name))
    docker = docker_runner(("docker",))
    found = [one for one in list_containers(docker, prefix(name.rpartition("/")[2])) if one.role == "forwarder"]
    if not found:
        raise SetupError(f"the stack {name} has no forwarder: it is not deployed (`make up STACK={name}`), or no node has forwardTo.")
    return docker, found


def _ask_all(docker: Docker, forwarders: Sequence[Container], what: str) -> dict[str, str]:
    """What each forwarder answers, by its container's name; nothing where it does not."""

    def answer(forwarder: Container) -> str:
        try:
            return docker(["exec", forwarder.name, *FORWARDER_ASK, what])
        except SetupError:
            return ""

    with ThreadPoolExecutor(_THREADS) as threads:
        return dict(zip((one.name for one in forwarders), threads.map(answer, forwarders), strict=True))
