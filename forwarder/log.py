"""The log: a line for each event, on standard output. Identifiers are Orthanc's hashes; nothing in it is a patient's data."""

from __future__ import annotations

import time


def say(event: str, **fields: object) -> None:
    """Write one line: the time in UTC, the event, and its fields as ``key=value``."""
    shown = " ".join(f"{key}={_quoted(value)}" for key, value in fields.items())
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {event}: {shown}".rstrip(": "), flush=True)


def _quoted(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return '"' + text.replace('"', "'").replace("\n", " ") + '"' if " " in text else text
