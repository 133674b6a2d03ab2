"""All series of a node, page by page, without a gap while series come and go."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

from forwarder.orthanc import Orthanc

_PAGE = 100
#: By how much a page goes back into the one before it.
_OVERLAP = 10
#: How many identifiers are remembered to tell that a page follows on what was seen.
_REMEMBERED = 1000


def pages(orthanc: Orthanc, stopping: threading.Event) -> Iterator[list[str]]:
    """The identifiers of all series that are there from the beginning to the end; some of them more than once.

    Orthanc counts pages by position: a series that is deleted meanwhile moves all that follow it, in PostgreSQL's order also one that is
    new. A page follows without a gap when it holds something that was seen; where it does not, this goes back a page.
    """
    start = 0
    seen: deque[str] = deque(maxlen=_REMEMBERED)
    while not stopping.is_set():
        ids: list[str] = orthanc.get(f"/series?since={start}&limit={_PAGE}")
        known = set(seen)
        if start and known.isdisjoint(ids):
            start = max(0, start - _PAGE)
            continue
        if new := [one for one in ids if one not in known]:
            yield new
            seen.extend(new)
        if len(ids) < _PAGE:
            return
        start += _PAGE - _OVERLAP
