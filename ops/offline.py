"""`make preview-offline`: what a stack file would deploy, found out without an engine, a state or a secret.

For whoever has none of them, as a fork's pull request. With BASE=<commit> also how that differs from what that commit would deploy.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ops.comment import FOLDER
from ops.offline_report import Change, Report, markdown, write
from ops.setup.console import ROOT, SetupError, say

#: Beyond any real program: a fork's that never ends must not hold a runner.
_SECONDS = 120
_ABSENT = "(not set)"


def preview_offline(stack: str, root: Path = ROOT, environ: Mapping[str, str] = os.environ) -> int:
    """Write the report on a stack file as Markdown and JSON; the exit status: 1 where the program refuses it, or breaks a rule.

    Raises:
        SetupError: the program ended with an error of its own, or there is no such commit.
    """
    base = environ.get("BASE", "")
    made = report(stack, root, base)
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(made)
    (folder / f"{stack}.md").write_text(f"{text}\n", encoding="utf-8")
    (folder / f"{stack}.json").write_text(write(made), encoding="utf-8")
    print(f"\n{text}\n")
    say("Report", f"{FOLDER}/{stack}.md, {FOLDER}/{stack}.json")
    return 1 if made.refused or made.violations else 0


def report(stack: str, root: Path, base: str = "") -> Report:
    """What a checkout deploys for a stack, and how it differs from what a commit of it deploys.

    Args:
        stack: the stack's name.
        root: the checkout, as it lies there.
        base: a commit, by any name that git knows; "" for none.
    """
    new = _deploy(stack, root)
    before = _before(stack, root, base) if base else {}
    if "refused" in new:
        return Report(stack, base=base, refused=new["refused"])
    kinds = Counter(_kind(resource) for resource in new["resources"])
    return Report(
        stack=stack,
        base=base,
        counts=tuple(sorted(kinds.items())),
        changes=tuple(changes(before.get("resources", ()), new["resources"])),
        violations=tuple((rule, name, message) for rule, name, message in new["violations"]),
    )


def changes(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> Iterator[Change]:
    """How two lists of resources differ, in the order of type and name."""
    old, new = ({(_kind(resource), str(resource["name"])): resource for resource in resources} for resources in (before, after))
    for kind, name in sorted(old.keys() | new.keys()):
        was, now = old.get((kind, name)), new.get((kind, name))
        if was is None:
            yield Change("add", kind, name)
        elif now is None:
            yield Change("remove", kind, name)
        elif different := tuple(_differences(_inputs(was), _inputs(now))):
            yield Change("change", kind, name, different)


def _inputs(resource: Mapping[str, Any]) -> dict[str, Any]:
    return {**resource["inputs"], "(protected)": resource["protected"]}


def _differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key, _Absent), new.get(key, _Absent), f"{path}.{key}" if path else str(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (was, now) in enumerate(zip(old, new, strict=True)):
            yield from _differences(was, now, f"{path}[{i}]")
    elif old != new:
        yield path, _shown(old), _shown(new)


class _Absent:
    """Stands for an input that is not given; null is one that is."""


def _shown(value: Any) -> str:
    if value is _Absent:
        return _ABSENT
    # Pulumi's numbers all come back as floats.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _kind(resource: Mapping[str, Any]) -> str:
    return str(resource["type"]).rpartition(":")[2]


def _before(stack: str, root: Path, base: str) -> dict[str, Any]:
    """What a commit deploys. A stack file that it does not have, or refuses, deploys nothing."""
    with tempfile.TemporaryDirectory() as folder:
        # Not a worktree, which would leave a note of itself in the repository. No option can be made of a commit's name.
        done = subprocess.run(["git", "archive", "--format=tar", "--end-of-options", base], cwd=root, capture_output=True, check=False)
        if done.returncode != 0:
            raise SetupError(f"BASE={base}: {done.stderr.decode(errors='replace').strip()}")
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(folder, filter="data")
        try:
            return _deploy(stack, Path(folder))
        except SetupError as error:
            raise SetupError(f"BASE={base}: {error}\nTake a commit whose program is closer to this one, or leave BASE out.") from None


def _deploy(stack: str, checkout: Path) -> dict[str, Any]:
    """What a checkout's own ops/mocked.py prints."""
    command = [sys.executable, str(checkout / "ops" / "mocked.py"), stack]
    try:
        done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise SetupError(f"the program did not end within {_SECONDS} s.") from None
    last = (done.stdout.splitlines() or [""])[-1]
    try:
        answer = json.loads(last) if done.returncode == 0 else None
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise SetupError(f"the program ended with an error (exit status {done.returncode}):\n{done.stderr.strip()}")
    return answer
