"""Owns the stage benchmarks: CPU per message of each pure step, in one process, over messages that differ."""

import asyncio
from collections.abc import Callable, Collection, Hashable, Sequence
from datetime import UTC, datetime

import msgspec

from tests.benchmarks import parsers, timing
from tests.benchmarks.timing import row
from tocengine.adapters.hl7v2_feed import HL7Feed
from tocengine.adapters.mllp.session import Session
from tocengine.encounters.fold import diff, fold
from tocengine.encounters.holdback import Window
from tocengine.encounters.identity import Patient, Register
from tocengine.encounters.refolding import refolding
from tocengine.encounters.rows import Row
from tocengine.encounters.state import EncounterBody, Folded
from tocengine.encounters.tracker import Batch
from tocengine.errors import RefusedError
from tocengine.eventlog.records import CloudEventReader, CloudEventRecords, KeyHasher
from tocengine.formats.mllp import Frame, FrameReader, frame
from tocengine.model.event import EventRecord
from tocengine.model.ids import FacilityId, FeedName, MessageId, derive
from tocengine.model.message import ContentType, Disposition, Message, Receipt
from tocengine.model.profile import IdentifierDomain, SendingFacility, Source, SourceProfile
from tocengine.normalize.normalizer import HL7v2Normalizer
from tocengine.routing.directory import Directory
from tocengine.simulation.load.visits import SMALL_BYTES, VARIANTS, Mix, Visits
from tocengine.telemetry import Metrics

NUMBERS = range(1, VARIANTS + 1)
"""Of visits and patients. None is zero: nobody has a record number that is all zeros."""


def measure_parsers(size: int = SMALL_BYTES) -> list[timing.Row]:
    """One row per HL7 v2 library: parse and read 25 fields of the same messages."""
    visits = Visits(Mix(size=size))
    return parsers.measure([visits.discharge(number) for number in NUMBERS])


def measure(size: int = SMALL_BYTES) -> list[timing.Row]:
    """One row per stage, each over the same hundred discharges of about `size` bytes."""
    visits, now = Visits(Mix(size=size)), datetime.now(UTC)
    bodies = [visits.discharge(number) for number in NUMBERS]
    normalizer = HL7v2Normalizer(_source())
    records = CloudEventRecords(KeyHasher(bytes(32)))
    reader = CloudEventReader()
    messages = [_message(body, now) for body in bodies]
    plainer = [_message(body, now) for body in _ten_resources(size)]
    events = [(message, normalizer.normalize(message)) for message in messages]
    stored = [records.events(message, found)[0] for message, found in events]
    framed = [frame(body) for body in bodies]
    mapped = "parse, map, check, serialize"
    return [
        row("bytes to acknowledgment, nothing stored", lambda: asyncio.run(_acknowledge(framed))),
        row("frame", lambda: [FrameReader(2**20).receive(each) for each in framed]),
        row("parse and read 25 fields", lambda: [parsers.read(body) for body in bodies]),
        row(f"{mapped}: {_resources(normalizer, messages)}", lambda: [normalizer.normalize(each) for each in messages]),
        row(f"{mapped}: {_resources(normalizer, plainer)}", lambda: [normalizer.normalize(each) for each in plainer]),
        row("build log records", lambda: [records.events(message, found) for message, found in events]),
        row("decode event", lambda: [reader.event(record) for record in stored]),
        row("track a batch, beyond decode and store", _tracking(visits, normalizer, now)),
        row("fold two events", lambda: [fold(None, [found[0].summary, found[0].summary]) for _, found in events]),
    ]


def _ten_resources(size: int) -> list[bytes]:
    """The same discharges with one diagnosis, one allergy and no insurance, and results up to `size` bytes: Patient,
    Encounter, Organization, Practitioner, two Locations, Condition, AllergyIntolerance, RelatedPerson, Provenance."""
    longer = Visits(Mix(size=size + 2_000))
    return [_plainer(longer.discharge(number), size) for number in NUMBERS]


def _plainer(body: bytes, size: int) -> bytes:
    kept: dict[bytes, list[bytes]] = {}
    for segment in body.splitlines(keepends=True):
        kept.setdefault(segment[:3], []).append(segment)
    kept.pop(b"IN1")
    results = kept.pop(b"OBX")
    plainer = b"".join(segments[0] for segments in kept.values())
    for result in results:
        if len(plainer) + len(result) > size:
            break
        plainer += result
    return plainer


def _resources(normalizer: HL7v2Normalizer, messages: Sequence[Message]) -> str:
    """How many resources the messages give: the least and the most."""
    counts = {bytes(record.fhir).count(b'"fullUrl"') for each in messages for record in normalizer.normalize(each)}
    return f"{min(counts)} resources" if len(counts) == 1 else f"{min(counts)} to {max(counts)} resources"


def _tracking(visits: Visits, normalizer: HL7v2Normalizer, now: datetime) -> Callable[[], Sequence[object]]:
    """A batch of discharges of visits that are open: from the rows as they are read to what routing and writing get."""
    told = [
        [normalizer.normalize(_message(body, now))[0] for body in (visits.admission(number), visits.discharge(number))]
        for number in NUMBERS
    ]
    open_visits = []
    for admission, _ in told:
        event = admission.summary
        assert event.visit is not None
        assert event.patient is not None
        encounter_id, before = event.visit.encounter_id, EncounterBody(folded=Folded(visit=event.visit))
        body = diff(encounter_id, before, fold(event.visit, [event]), event, Directory()).body
        open_visits.append((encounter_id, event.visit, event.patient, event.patient.patient_id, body))

    def track() -> Sequence[object]:
        rows = {
            encounter_id: Row(
                encounter_id=encounter_id, visit=visit, owner_id=patient_id, patient_id=patient_id, body=body
            )
            for encounter_id, visit, _, patient_id, body in open_visits
        }
        register = Register([Patient(patient_id=number, key=patient) for _, _, patient, number, _ in open_visits])
        records = [_as_decoded(discharge) for _, discharge in told]
        late, _, _ = refolding(rows, [record.summary for record in records], register, Window())
        assert not late
        batch = Batch(rows, register, {}, Directory(), now)
        for record in records:
            batch.add(record)
        tracked = batch.tracked()
        assert all(encounter.transitions for encounter in tracked)
        return tracked

    return track


def _as_decoded(record: EventRecord) -> EventRecord:
    """The same event with nothing remembered of it yet."""
    event = record.summary
    assert event.visit is not None
    assert event.patient is not None
    visit, patient = msgspec.structs.replace(event.visit), msgspec.structs.replace(event.patient)
    return EventRecord(msgspec.structs.replace(event, visit=visit, patient=patient), record.fhir)


class _Takes:
    """An intake that takes everything at once: what is measured is all that stands around it."""

    async def turn(self, message: Message) -> None:
        return

    async def accept(self, message: Message, line: Hashable = None) -> Receipt:
        return Receipt(message_id=message.message_id, disposition=Disposition.ACCEPTED, answered=message.answers[0])

    async def accept_whole(self, messages: Sequence[Message], ignored: Collection[int] = ()) -> Sequence[Receipt]:
        return [await self.accept(message) for message in messages]

    async def ignore(self, message: Message, line: Hashable = None) -> Receipt:
        return await self.accept(message)

    async def refuse(self, message: Message, error: RefusedError, line: Hashable = None) -> Receipt:
        raise error


async def _acknowledge(framed: Sequence[bytes]) -> list[bytes]:
    """The answers of one MLLP connection: session, header, gate, identity, acknowledgment."""
    feed = HL7Feed(_source(), _Takes(), lambda: datetime.now(UTC), Metrics())
    session, answers = Session(2**20, max_in_flight=1), []
    for each in framed:
        session.receive(each)
        (arrival,) = session.start()
        assert isinstance(arrival.item, Frame)
        answer = await feed.take(arrival.item.payload, "127.0.0.1")
        session.answered(arrival.number, answer.body)
        answers.append(session.to_write())
    assert all(b"\rMSA|AA|" in answer for answer in answers)
    return answers


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
