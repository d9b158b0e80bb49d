"""Owns the stage benchmarks: CPU per message of each pure step, in one process, over messages that differ."""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec

from tests.benchmarks.messages import LARGE_BYTES, SMALL_BYTES, VARIANTS, Visits
from tocengine.encounters.fold import fold
from tocengine.eventlog.records import CloudEventReader, CloudEventRecords, KeyHasher
from tocengine.formats import hl7v2
from tocengine.formats.mllp import FrameReader, frame
from tocengine.model.ids import FacilityId, FeedName, MessageId, derive
from tocengine.model.message import ContentType, Message
from tocengine.model.profile import IdentifierDomain, SendingFacility, Source, SourceProfile
from tocengine.normalize.normalizer import HL7v2Normalizer

ROUNDS = 9
READ = (
    "MSH-7 MSH-9.2 MSH-10 EVN-2 EVN-6 PID-3.1 PID-3.4 PID-5.1 PID-5.2 PID-7 PID-8 PID-11.1 PID-13.6 PID-18 "
    "PV1-2 PV1-3.1 PV1-3.2 PV1-7.1 PV1-7.2 PV1-10 PV1-19.1 PV1-36 PV1-37 PV1-44 PV1-45"
).split()


class Row(msgspec.Struct):
    """Microseconds of CPU per message: the best round and the median one."""

    stage: str
    best_us: float
    median_us: float


def measure(size: int = SMALL_BYTES) -> list[Row]:
    """One row per stage, each over the same hundred discharges of about `size` bytes."""
    visits, now = Visits(size), datetime.now(UTC)
    bodies = [visits.discharge(number) for number in range(VARIANTS)]
    normalizer = HL7v2Normalizer(_source())
    records = CloudEventRecords(KeyHasher(bytes(32)))
    reader = CloudEventReader()
    messages = [_message(body, now) for body in bodies]
    events = [(message, normalizer.normalize(message)) for message in messages]
    stored = [records.events(message, found)[0] for message, found in events]
    framed = [frame(body) for body in bodies]
    return [
        _row("frame", lambda: [FrameReader(2**20).receive(each) for each in framed]),
        _row("parse and read 25 fields", lambda: [_read(body) for body in bodies]),
        _row("parse, map, serialize", lambda: [normalizer.normalize(message) for message in messages]),
        _row("build log records", lambda: [records.events(message, found) for message, found in events]),
        _row("decode event", lambda: [reader.event(record) for record in stored]),
        _row("fold two events", lambda: [fold(None, [found[0].summary, found[0].summary]) for _, found in events]),
    ]


def _read(body: bytes) -> list[str]:
    message = hl7v2.parse(body)
    return [message.get(path) for path in READ]


def _row(stage: str, work: Callable[[], Sequence[object]]) -> Row:
    work()
    spent = []
    gc.disable()
    try:
        for _ in range(ROUNDS):
            began = time.process_time()
            count = len(work())
            spent.append((time.process_time() - began) / count * 1e6)
            gc.collect()
    finally:
        gc.enable()
    return Row(stage, round(min(spent), 1), round(statistics.median(spent), 1))


def _source() -> Source:
    domain = IdentifierDomain(name="STJ", system="urn:oid:2.16.840.1.113883.19.5")
    return Source(
        feed=FeedName("stj-adt"),
        facility=SendingFacility(id=FacilityId("stj"), name="St. Jude Hospital"),
        profile=SourceProfile(mrn_authority="STJ"),
        domains={"STJ": domain},
    )


def _message(body: bytes, now: datetime) -> Message:
    return Message(
        message_id=MessageId(derive("benchmark", body)),
        feed=FeedName("stj-adt"),
        facility=FacilityId("stj"),
        content_type=ContentType.HL7V2,
        control_id="1",
        received_at=now,
        body=body,
    )


SIZES = {"2 KB": SMALL_BYTES, "9 KB": LARGE_BYTES}
