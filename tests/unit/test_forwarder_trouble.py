"""What a failure means, and how long the pauses are: for ever, and never so often that it hurts."""

from __future__ import annotations

import pytest

from forwarder import trouble
from forwarder.orthanc import AnswerError
from forwarder.trouble import NOT_THERE, Backoff, Failure, Fault, ask_again_after, failure_of, pause_after, rest_after
from tests.unit.peers import PATIENT

IMAGE, DESTINATION, BROKEN, UNCLEAR = Fault.IMAGE, Fault.DESTINATION, Fault.BROKEN, Fault.UNCLEAR
#: Failures of PS3.4, table B.2-1, and of PS3.7, annex C, with what is said of them; a status without words is told by its number.
STATUSES = {
    UNCLEAR: {
        "A700": "out of resources",
        "a7ff": "out of resources",
        "0110": "processing failure",
        "0111": "duplicate SOP instance",
        "0112": "no such SOP instance",
        "0124": "not authorized",
        "0210": "duplicate invocation",
        "0212": "mistyped argument",
        "0213": "resource limitation",
        **dict.fromkeys(("0113", "0114", "0123", "FE00", "FF00"), ""),
    },
    Fault.WARNING: dict.fromkeys(("0001", "0107", "0116", "B001"), ""),
    IMAGE: {
        "A900": "data set does not match SOP class",
        "a9ff": "data set does not match SOP class",
        "C000": "cannot understand",
        "CFFF": "cannot understand",
        "0105": "no such attribute",
        "0106": "invalid attribute value",
        "0115": "invalid argument value",
        "0117": "invalid SOP instance",
        "0118": "no such SOP class",
        "0119": "class-instance conflict",
        "0120": "missing attribute",
        "0121": "missing attribute value",
        "0122": "SOP class not supported",
        "0211": "unrecognized operation",
    },
}
UNCONVERTED = "the destination does not take its transfer syntax, and this node cannot convert it"
NO_CONTEXT = "no presentation context was accepted for its SOP class and transfer syntax"
STORE, CONNECT = 'DicomAssociation - C-STORE to AET "X": ', 'DicomAssociation - connecting to AET "X": '


def _meaning(code: int, details: str) -> Failure:
    return failure_of(AnswerError(500, code, f"{details} {PATIENT}"))


@pytest.mark.parametrize(("fault", "status"), [(fault, status) for fault, statuses in STATUSES.items() for status in statuses])
def test_what_a_status_means_and_whose_fault_it_is(fault: Fault, status: str) -> None:
    words = STATUSES[fault][status]
    reason = f"DIMSE status 0x{status.upper()}" + (f", {words}" if words else "")
    expected = Failure(fault, reason, refuses_class=status in ("0118", "0122"))
    assert _meaning(9, f'C-STORE SCU to AET "X" has failed with DIMSE status 0x{status}') == expected


@pytest.mark.parametrize(
    ("code", "details", "expected"),
    [
        (2, "Cannot transcode instance of SOPClassUID 1.2", Failure(IMAGE, UNCONVERTED, refuses_class=True)),
        (-1, "Internal error: Cannot transcode instance of SOPClassUID 1.2", Failure(IMAGE, UNCONVERTED, refuses_class=True)),
        (-1, "Internal error: Unknown transfer syntax from DCMTK", Failure(IMAGE, UNCONVERTED, refuses_class=True)),
        (2015, "Cannot C-Store an instance of SOPClassUID 1.2", Failure(IMAGE, NO_CONTEXT, refuses_class=True)),
        (9, "No valid presentation context was negotiated for SOP class UID [1.2]", Failure(IMAGE, NO_CONTEXT, refuses_class=True)),
        (2014, "", Failure(IMAGE, "it has no SOP class or instance UID")),
        (15, "Bad file format: Cannot parse an invalid DICOM file (size: 7 bytes)", trouble.UNREADABLE),
        (15, "Cannot parse PEM file with own certificate for DICOM TLS", Failure(BROKEN, "error 15 of this node's Orthanc")),
        (13, "Cannot read file with own private key for DICOM TLS", Failure(BROKEN, "error 13 of this node's Orthanc")),
        (-1, "Internal error", Failure(BROKEN, "error -1 of this node's Orthanc")),
        (37, "This job was canceled", Failure(BROKEN, "error 37 of this node's Orthanc")),
        (9, STORE + "Peer aborted Association (or never connected)", Failure(BROKEN, "association aborted")),
        (9, STORE + "DIMSE No data available (timeout in non-blocking mode)", Failure(BROKEN, "timeout")),
        (9, CONNECT + "Association Rejected", Failure(DESTINATION, "association rejected")),
        (9, CONNECT + "Peer aborted Association (or never connected)", Failure(DESTINATION, "association aborted")),
        (9, CONNECT + "TCP Initialization Error: Connection refused", Failure(DESTINATION, "connection refused")),
        (9, CONNECT + "TCP Initialization Error: Connection timed out", Failure(DESTINATION, "timeout")),
        (9, CONNECT + "TCP Initialization Error: unknown host: X", Failure(DESTINATION, "unknown host: it does not run")),
        (9, "cannot connect", Failure(DESTINATION, "no connection")),
        (9, "something else", Failure(DESTINATION, "network error")),
        (0, "", Failure(DESTINATION, "network error")),
    ],
)
def test_what_orthanc_says_means_and_only_what_is_known_is_repeated(code: int, details: str, expected: Failure) -> None:
    assert _meaning(code, details) == expected


def test_a_destination_that_is_away_for_72_hours_is_tried_for_72_hours() -> None:
    backoff, now, gaps = Backoff("destination"), 0.0, []
    while now < 72 * 3600:
        backoff.failed(now, "no connection")
        gaps.append(backoff.until - now)
        now = backoff.until
    assert 0.0 < min(gaps) <= max(gaps) <= 300.0
    assert 72 * 3600 / 300 <= len(gaps) <= 72 * 3600 / 225 + 12
    assert backoff.tries == len(gaps)
    backoff.succeeded()
    assert (backoff.tries, backoff.reason, backoff.until) == (0, "", 0.0)
    backoff.failed(100.0, "no connection")
    assert backoff.until <= 101.0


@pytest.mark.parametrize("tries", [*range(40), 10**6])
def test_pauses_double_from_one_second_to_five_minutes_and_each_is_by_chance_up_to_a_quarter_shorter(tries: int) -> None:
    longest = min(300, 2 ** min(tries, 9))
    pauses = [pause_after(tries) for _ in range(200)]
    assert min(pauses) >= longest * 0.75
    assert max(pauses) <= longest
    assert max(pauses) - min(pauses) > longest * 0.1


@pytest.mark.parametrize("tries", [5, 6, 8, 100])
def test_what_is_set_aside_rests_a_day_or_five_minutes_and_ever_longer_where_each_try_may_leave_a_copy(tries: int) -> None:
    day = 24 * 3600.0
    assert rest_after(tries, "DIMSE status 0xC000", refused=True) == day
    assert rest_after(tries, "DIMSE status 0xA700", refused=False) == 300.0
    assert rest_after(tries, f"{NOT_THERE}: it is not there", refused=False) == min(day, 300.0 * 2 ** (tries - 5))


@pytest.mark.parametrize("asked", [0, 1, 5, 12, 10**6])
def test_a_destination_is_asked_again_after_a_second_and_at_least_each_hour(asked: int) -> None:
    longest = min(3600, 2 ** min(asked, 20))
    assert all(0.75 * longest <= ask_again_after(asked) <= longest for _ in range(100))
