"""What a failure means, and how long the pauses are: for ever, and never so often that it hurts."""

from __future__ import annotations

import pytest

from forwarder.orthanc import AnswerError
from forwarder.trouble import Backoff, Failure, Fault, failure_of, pause_after
from tests.unit.peers import PATIENT

IMAGE, DESTINATION, UNCLEAR = Fault.IMAGE, Fault.DESTINATION, Fault.UNCLEAR


@pytest.mark.parametrize(
    ("code", "details", "fault", "reason"),
    [
        (9, "C-STORE SCU has failed with DIMSE status 0xA700", UNCLEAR, "DIMSE status 0xA700, out of resources"),
        (9, "C-STORE SCU has failed with DIMSE status 0xa701", UNCLEAR, "DIMSE status 0xA701, out of resources"),
        (9, "C-STORE SCU has failed with DIMSE status 0xA900", IMAGE, "DIMSE status 0xA900, data set does not match SOP class"),
        (9, "C-STORE SCU has failed with DIMSE status 0xC000", IMAGE, "DIMSE status 0xC000, cannot understand"),
        (9, "C-STORE SCU has failed with DIMSE status 0122", IMAGE, "DIMSE status 0x0122, SOP class not supported"),
        (9, "C-STORE SCU has failed with DIMSE status 0x0110", UNCLEAR, "DIMSE status 0x0110, processing failure"),
        (9, "C-STORE SCU has failed with DIMSE status 0x0124", UNCLEAR, "DIMSE status 0x0124, not authorized"),
        (9, "C-STORE SCU has failed with DIMSE status 0x0117", IMAGE, "DIMSE status 0x0117, invalid SOP instance"),
        (9, "C-STORE SCU has failed with DIMSE status 0x0213", UNCLEAR, "DIMSE status 0x0213, resource limitation"),
        (9, "C-STORE SCU has failed with DIMSE status 0xFE00", UNCLEAR, "DIMSE status 0xFE00"),
        (2, "Not implemented yet", IMAGE, "the destination does not take its transfer syntax, and this node cannot convert it"),
        (
            -1,
            "Internal error: Cannot transcode instance of SOPClassUID 1.2 from 1.2.840.10008.1.2.4.90 to one of [ 1.2.840.10008.1.2 ]",
            IMAGE,
            "the destination does not take its transfer syntax, and this node cannot convert it",
        ),
        (-1, "Internal error", DESTINATION, "network error"),
        (2015, "", IMAGE, "no presentation context was accepted for its SOP class and transfer syntax"),
        (15, "", IMAGE, "its file in this node cannot be read"),
        (2014, "", IMAGE, "it has no SOP class or instance UID"),
        (9, "Association Rejected by peer", DESTINATION, "association rejected"),
        (9, "Peer aborted Association", DESTINATION, "association aborted"),
        (9, "TCP Initialization Error: Connection refused", DESTINATION, "connection refused"),
        (9, "Timeout while waiting", DESTINATION, "timeout"),
        (9, "unknown host: archive", DESTINATION, "unknown host: it does not run"),
        (9, "cannot connect", DESTINATION, "no connection"),
        (9, "something else", DESTINATION, "network error"),
        (0, "", DESTINATION, "network error"),
    ],
)
def test_what_a_failure_means_and_that_its_reason_repeats_nothing_that_is_not_known(
    code: int, details: str, fault: Fault, reason: str
) -> None:
    assert failure_of(AnswerError(500, code, f"{details} {PATIENT}")) == Failure(
        fault, reason, refuses_class=code in (2, 2015) or "0122" in details or "transcode" in details
    )


def test_a_destination_that_is_away_for_72_hours_is_tried_for_72_hours() -> None:
    backoff, now, gaps = Backoff(), 0.0, []
    while now < 72 * 3600:
        gaps.append(backoff.failed(now, "no connection"))
        assert backoff.until == now + gaps[-1]
        now = backoff.until
    assert max(gaps) <= 300.0
    assert 72 * 3600 / 300 <= len(gaps) <= 72 * 3600 / 225 + 12
    assert backoff.tries == len(gaps)
    backoff.succeeded()
    assert (backoff.tries, backoff.reason, backoff.until) == (0, "", 0.0)
    assert backoff.failed(100.0, "no connection") <= 1.0


@pytest.mark.parametrize("tries", [*range(40), 10**6])
def test_pauses_double_from_one_second_to_five_minutes_and_each_is_by_chance_up_to_a_quarter_shorter(tries: int) -> None:
    longest = min(300, 2 ** min(tries, 9))
    pauses = [pause_after(tries) for _ in range(200)]
    assert min(pauses) >= longest * 0.75
    assert max(pauses) <= longest
    assert max(pauses) - min(pauses) > longest * 0.1
