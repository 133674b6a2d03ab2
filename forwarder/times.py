"""Times as Orthanc writes them: ``20260131T120000``, in UTC, of whole seconds."""

from __future__ import annotations

import calendar
import time

_FORMAT = "%Y%m%dT%H%M%S"


def timestamp() -> str:
    """Now."""
    return time.strftime(_FORMAT, time.gmtime())


def epoch(text: str) -> float:
    """A time in seconds since 1970; now where Orthanc wrote none."""
    try:
        return float(calendar.timegm(time.strptime(text, _FORMAT)))
    except ValueError:
        return time.time()
