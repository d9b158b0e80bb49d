"""Owns the stage benchmarks: CPU per message of each pure step, in one process, over messages that differ."""

from datetime import UTC, datetime

from tests.benchmarks import parsers
from tests.benchmarks.timing import Row, row
from tocengine.encounters.fold import fold
from tocengine.eventlog.records import CloudEventReader, CloudEventRecords, KeyHasher
from tocengine.formats.mllp import FrameReader, frame
from tocengine.model.ids import FacilityId, FeedName, MessageId, derive
from tocengine.model.message import ContentType, Message
from tocengine.model.profile import IdentifierDomain, SendingFacility, Source, SourceProfile
from tocengine.normalize.normalizer import HL7v2Normalizer
from tocengine.simulation.load.visits import SMALL_BYTES, VARIANTS, Mix, Visits


def measure_parsers(size: int = SMALL_BYTES) -> list[Row]:
    """One row per HL7 v2 library: parse and read 25 fields of the same messages."""
    visits = Visits(Mix(size=size))
    return parsers.measure([visits.discharge(number) for number in range(VARIANTS)])


def measure(size: int = SMALL_BYTES) -> list[Row]:
    """One row per stage, each over the same hundred discharges of about `size` bytes."""
    visits, now = Visits(Mix(size=size)), datetime.now(UTC)
    bodies = [visits.discharge(number) for number in range(VARIANTS)]
    normalizer = HL7v2Normalizer(_source())
    records = CloudEventRecords(KeyHasher(bytes(32)))
    reader = CloudEventReader()
    messages = [_message(body, now) for body in bodies]
    events = [(message, normalizer.normalize(message)) for message in messages]
    stored = [records.events(message, found)[0] for message, found in events]
    framed = [frame(body) for body in bodies]
    return [
        row("frame", lambda: [FrameReader(2**20).receive(each) for each in framed]),
        row("parse and read 25 fields", lambda: [parsers.read(body) for body in bodies]),
        row("parse, map, check, serialize", lambda: [normalizer.normalize(message) for message in messages]),
        row("build log records", lambda: [records.events(message, found) for message, found in events]),
        row("decode event", lambda: [reader.event(record) for record in stored]),
        row("fold two events", lambda: [fold(None, [found[0].summary, found[0].summary]) for _, found in events]),
    ]


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
