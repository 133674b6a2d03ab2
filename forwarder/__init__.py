"""The forwarder: sends what its Orthanc holds to the Orthanc's destinations, until each has confirmed it.

Runs beside an Orthanc, in a container of the same image, with Python's standard library alone. What has still to be sent follows from
Orthanc's own database: the images that it stores, less those that each destination's record names (record.py). A record is a metadata of
a series. Nothing that this program holds in memory is needed to go on after it was killed.

    watch.py      finds series that may hold something new: the changes log, and a sweep for whatever that misses
    look.py       finds what of a series one destination has not confirmed
    record.py     what one destination has confirmed of a series
    backlog.py    the series that wait for it, oldest first; what is sent together
    ledger.py     what is on its way to it, and what came of that, written to the record
    link.py       one destination: the threads that send, and that wait for its confirmation
    dicom.py      asks Orthanc to send images and to have them confirmed
    orthanc.py    Orthanc's REST API
    trouble.py    what a failure means, and when to try again
    retention.py  deletes what every destination has confirmed, where the stack file says so
    web.py        serves status and metrics, and takes `retry` and `recheck`
    config.py     reads what the deployment wrote
"""

from __future__ import annotations

import time


def say(event: str, **fields: object) -> None:
    """Write a line of the log: the time in UTC, the event, and its fields as ``key=value``.

    Identifiers are Orthanc's hashes; nothing in it is a patient's data.
    """
    shown = " ".join(f"{key}={_quoted(value)}" for key, value in fields.items())
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {event}: {shown}".rstrip(": "), flush=True)


def _quoted(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return '"' + text.replace('"', "'").replace("\n", " ") + '"' if " " in text else text
