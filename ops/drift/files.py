"""The files that were written into a container, against those that are inside it now.

pulumi-docker never reads them back. The state has what was written, secrets as well, so they are compared with that: no mark on the
container is needed, which anybody who may inspect it could try guesses of a secret on, and whoever replaces a file could replace, too.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ops.drift.deployed import Deployed
from ops.drift.engine import Held, ReadFiles
from ops.drift.findings import Finding, code, listed

_SECRET_FOLDER = "/run/secrets/"
#: Orthanc's own configuration: an option that differs is told by its name.
_OPTIONS = "/etc/orthanc/orthanc.json"


def check_files(one: Deployed, container: str, read: ReadFiles) -> Iterator[Finding]:
    """What differs between a container's files and what was written into it: by name; a content is never shown."""
    written = {str(upload["file"]): upload for upload in one.inputs.get("uploads") or ()}
    held = read(container, written.keys()) if written else {}
    for path, upload in sorted(written.items()):
        if differs := _difference(path, upload, held.get(path)):
            yield Finding(one.part, "file", f"{one.said} has another file {code(path)}: {differs}.", one.name, urn=one.urn, replace=True)


def _difference(path: str, upload: Mapping[str, Any], held: Held | None) -> str:
    """What is different about a file; nothing where it is as it was written."""
    if held is None:
        return "it was removed"
    if held.content is None:
        return "it is no plain file, or far larger"
    wanted = _content(upload)
    if held.content != wanted:
        if path.startswith(_SECRET_FOLDER):
            return "it was edited (it holds secrets: nothing of it is shown)"
        return _options(wanted, held.content) if path == _OPTIONS else "it was edited"
    mode = int(upload.get("permissions") or "0644", 8)
    if held.mode != mode:
        return f"its permissions are {held.mode:04o} instead of {mode:04o}"
    return f"its owner is {held.owner} instead of root" if held.owner else ""


def _content(upload: Mapping[str, Any]) -> bytes:
    if upload.get("contentBase64"):
        return base64.b64decode(upload["contentBase64"])
    return str(upload.get("content") or "").encode()


def _options(wanted: bytes, found: bytes) -> str:
    """Which options differ. Their values stay out: who edits this file by hand may have put a password into it."""
    try:
        paths = sorted(_paths(json.loads(wanted), json.loads(found)))
    except ValueError:
        return "it was edited, and is no JSON"
    return f"options that differ: {listed(paths)}" if paths else "it was edited, and says the same"


def _paths(wanted: Any, found: Any, place: Sequence[str] = ()) -> Iterator[str]:
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in wanted.keys() | found.keys():
            if key in wanted and key in found:
                yield from _paths(wanted[key], found[key], (*place, key))
            else:
                yield ".".join((*place, key))
    elif wanted != found:
        yield ".".join(place)
