"""Owns MSH and EVN: what kind of message it is, when it was recorded and happened, and whether it may be told."""

from datetime import UTC, timedelta

from msgspec import UNSET

from tocengine.errors import UnsupportedError
from tocengine.formats.hl7v2.segments import Segment
from tocengine.model.event import Processing
from tocengine.model.message import Problem
from tocengine.model.time import Timestamp
from tocengine.normalize.reading import Reading, refuse

AHEAD = timedelta(hours=24)
_TEST = frozenset({"T", "D", "N", "V"})
_LOADS = frozenset({"I", "A", "R"})


def read_trigger(header: Segment, event: Segment) -> tuple[str, list[str]]:
    """The trigger event and its flags: MSH-9.2, else EVN-1; where they differ MSH-9 is right (domain 2.1).

    Raises UnsupportedError for a message that is no ADT, ContentError where no trigger is named.
    """
    kind = header.code(9).upper()
    if kind != "ADT":
        raise UnsupportedError(
            Problem(reason="message_type_unsupported", text="Only ADT is taken", location="MSH^1^9^1^1", code="200")
        )
    stated = header.component(9, 2).strip().upper()
    older = event.code(1).upper() if event else ""
    if not (stated or older):
        raise refuse("trigger_missing", "No trigger event is named", "MSH^1^9^1^2")
    return stated or older, ["trigger_mismatch"] if stated and older and stated != older else []


def read_recorded(reading: Reading, header: Segment, event: Segment) -> Timestamp:
    """When it was recorded: EVN-2 (where the feed's can be trusted), else MSH-7, else when it was received.

    More than 24 h ahead of receipt is a wrong clock and counts as received.
    """
    received = reading.message.received_at
    created = reading.time(header[7], "MSH-7")
    sent = created if isinstance(created, Timestamp) else None
    if sent is not None:
        reading.near = sent.at
    found = None
    if event and reading.source.profile.trust_evn2:
        recorded = reading.time(event[2], "EVN-2")
        found = recorded if isinstance(recorded, Timestamp) else None
    found = found or sent
    if found is not None and found.at - received > AHEAD:
        reading.flag("clock_ahead")
        found = None
    return found or Timestamp(received.isoformat(timespec="seconds"), received)


def message_day(reading: Reading) -> str:
    """The UTC day of MSH-7, else of receipt: part of what makes a transmission known again."""
    return reading.near.astimezone(UTC).date().isoformat()


def read_effective(reading: Reading, event: Segment) -> Timestamp | None:
    """When it happened, as far as the message states it: EVN-6, else PV1-44 or PV1-45 by trigger (domain 2.2)."""
    occurred = reading.time(event[6], "EVN-6") if event else UNSET
    if isinstance(occurred, Timestamp):
        return occurred
    field = reading.row.effective if reading.row else ""
    if not field:
        return None
    name, _, number = field.partition("-")
    stated = reading.time(reading.segment(name)[int(number)], field)
    return stated if isinstance(stated, Timestamp) else None


def read_sequence(header: Segment) -> int | None:
    """MSH-13, where it is a number."""
    text = header[13].text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else None


def read_processing(reading: Reading, header: Segment) -> Processing:
    """MSH-11 (tables 0103, 0207) and the names of test patients."""
    field = header[11]
    if field.component(1).strip().upper() in _TEST:
        return Processing.TEST
    patterns = reading.source.profile.test_patient_patterns
    if patterns:
        name = reading.segment("PID")[5].raw.upper()
        if any(pattern.upper() in name for pattern in patterns):
            return Processing.TEST
    if field.component(2).strip().upper() in _LOADS:
        return Processing.INITIAL_LOAD
    return Processing.PRODUCTION
