"""Owns the rows of tracking: which messages are new, which patients and encounters are locked, and how they are read
and written, a batch at a time.

Patients are locked before encounters, both inserted if absent and then locked in id order, so that two routing
processes never interleave on one encounter.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from itertools import chain

import asyncpg
import msgspec

from tocengine.encounters.identity import Patient, Register, encounter_id_of, keys_of, patient_id_of
from tocengine.encounters.joining import concerns_others
from tocengine.encounters.machine import WATCHED_AFTER_CLOSE
from tocengine.encounters.state import EncounterBody, Folded
from tocengine.encounters.steps import settled
from tocengine.encounters.tracker import Batch, Row, Stored, is_statement, visits_of
from tocengine.errors import EventDataError
from tocengine.formats.packing import pack, unpack
from tocengine.model.encounter import EncounterState, Transition
from tocengine.model.event import Event, EventRecord
from tocengine.model.identity import PatientKey, VisitKey
from tocengine.model.ids import EncounterId, MessageId, PatientId
from tocengine.model.message import Problem
from tocengine.ports import LogRecord, Transaction
from tocengine.postgres import load_queries

SQL = load_queries(__package__)

_encode = msgspec.json.Encoder().encode
_UNTOLD = pack(b"{}")  # the body of an encounter before its first event
_encode_headers = msgspec.msgpack.Encoder().encode  # as eventlog/relay.py reads them
_decode_body = msgspec.json.Decoder(EncounterBody).decode
_decode_event = msgspec.json.Decoder(Event).decode


def problem(reason: str, text: str, location: str = "") -> Problem:
    return Problem(reason=reason, text=text, location=location, stage="track")


def checked(record: EventRecord) -> EventRecord:
    """`record` with wrong clocks settled. Raises EventDataError for what no table could hold."""
    event = record.summary
    try:
        date.fromisoformat(event.message_day)
    except ValueError:
        raise EventDataError(problem("message_day_invalid", "The message's day is no date", "message_day")) from None
    keys = keys_of(event)
    texts = chain(
        (event.feed, event.control_id, event.trigger, event.answered),
        chain.from_iterable((key.domain, key.value) for key in keys),
        (event.visit.domain, event.visit.value) if event.visit else (),
    )
    if any("\x00" in text for text in texts):
        raise EventDataError(problem("data_rejected", "A key or identifier contains the character NUL"))
    if event.handled and event.visit is not None and event.patient is None:
        raise EventDataError(problem("patient_missing", "An event about a visit names no patient", "patient"))
    settled_event = settled(event)
    return record if settled_event is event else msgspec.structs.replace(record, summary=settled_event)


async def mark_fresh(
    transaction: Transaction, records: Sequence[EventRecord]
) -> tuple[list[EventRecord], list[EventRecord]]:
    """Those that were never tracked before, and the repeats; of two in one batch the first one counts."""
    events = [record.summary for record in records]
    marked = await transaction.fetch(
        SQL["mark_seen"],
        [date.fromisoformat(event.message_day) for event in events],
        [event.message_id for event in events],
        [event.revision for event in events],
        [event.part for event in events],
        [event.feed for event in events],
        [event.control_id for event in events],
        [event.trigger for event in events],
        [event.answered for event in events],
        [event.received_at for event in events],
        ["TRACKED" if event.handled else "NOT_HANDLED" for event in events],
        [encounter_id_of(event.visit) if event.visit and event.handled else None for event in events],
        [patient_id_of(event.patient) if event.patient else None for event in events],
    )
    left = {(row["message_id"], row["revision"], row["part"]) for row in marked}
    fresh: list[EventRecord] = []
    repeats: list[EventRecord] = []
    for record in records:
        event = record.summary
        key = (event.message_id, event.revision, event.part)
        (fresh if key in left else repeats).append(record)
        left.discard(key)
    return fresh, repeats


async def lock_patients(transaction: Transaction, events: Sequence[Event], now: datetime) -> list[Patient]:
    """The patients `events` name with their families, locked; absent ones are inserted first."""
    keys: dict[PatientId, PatientKey] = {patient_id_of(key): key for event in events for key in keys_of(event)}
    if not keys:
        return []
    ids = sorted(keys)
    await transaction.execute(
        SQL["insert_patients"], ids, [keys[i].domain for i in ids], [keys[i].value for i in ids], now
    )
    held: set[PatientId] = set()
    wanted = set(ids)
    found: list[Patient] = []
    while not wanted <= held:  # a merge that committed while we waited leads to a survivor that is not locked yet
        held.update(row["patient_id"] for row in await transaction.fetch(SQL["lock_patients"], sorted(wanted)))
        found = await read_families(transaction, held)
        roots = {patient.survivor_id or patient.patient_id for patient in found if patient.patient_id in held}
        if wanted <= held and roots <= held:
            break
        wanted |= roots
    return found


async def read_families(transaction: Transaction, ids: Iterable[PatientId]) -> list[Patient]:
    return [
        Patient(
            patient_id=row["patient_id"],
            key=PatientKey(row["domain"], row["value"]),
            survivor_id=row["survivor_id"],
            statements=row["statements"],
        )
        for row in await transaction.fetch(SQL["families"], list(ids))
    ]


async def lock_encounters(
    transaction: Transaction,
    events: Sequence[Event],
    register: Register,
    homes: Mapping[EncounterId, object],
    now: datetime,
) -> dict[EncounterId, Row]:
    """The encounters `events` touch, locked; absent ones are inserted first."""
    new: dict[EncounterId, tuple[VisitKey, PatientId, Event]] = {}
    for event in events:
        for visit in visits_of(event):
            assert event.patient is not None
            new.setdefault(encounter_id_of(visit), (visit, register.root(event.patient), event))
    people = {register.root(event.patient) for event in events if is_statement(event) and event.patient}
    people |= {register.root(event.patient) for event in events if event.patient and concerns_others(event)}
    people |= {register.root(merge.surviving) for event in events for merge in event.merges}
    ceasing = {register.root(merge.prior) for event in events for merge in event.merges}
    if not new and not people and not homes:
        return {}
    ids = sorted(new)
    if ids:
        await transaction.execute(
            SQL["insert_encounters"],
            ids,
            [new[i][0].domain for i in ids],
            [new[i][0].value for i in ids],
            [new[i][1] for i in ids],
            [new[i][2].feed for i in ids],
            [new[i][2].facility for i in ids],
            now,
            _UNTOLD,
        )
    earliest = min((event.recorded.at for event in events), default=now) - WATCHED_AFTER_CLOSE
    found = await transaction.fetch(
        SQL["lock_encounters"], [*ids, *homes], list(people), earliest - timedelta(minutes=1), list(ceasing)
    )
    return {row["encounter_id"]: _row(row) for row in found}


def _row(row: asyncpg.Record) -> Row:
    visit = VisitKey(row["domain"], row["visit_number"])
    body: EncounterBody = _decode_body(unpack(row["body"]))
    if body.folded.visit is None:
        body = EncounterBody(folded=Folded(visit=visit))
    return Row(encounter_id=row["encounter_id"], visit=visit, patient_id=row["patient_id"], body=body)


async def read_statements(
    transaction: Transaction, register: Register, roots: Iterable[PatientId]
) -> dict[PatientId, list[Event]]:
    """What was said of patients under any of their keys, by surviving patient."""
    owners = {patient_id: root for root in roots for patient_id in register.family(root)}
    if not owners:
        return {}
    said: dict[PatientId, list[Event]] = {}
    for row in await transaction.fetch(SQL["read_statements"], list(owners)):
        said.setdefault(owners[row["patient_id"]], []).append(_decode_event(unpack(row["summary"])))
    return said


Homes = dict[EncounterId, list[tuple[MessageId, int]]]


async def former_homes(transaction: Transaction, events: Sequence[Event]) -> Homes:
    """Where earlier revisions of re-normalized events were folded, if not where the new ones belong."""
    again = {(event.message_id, event.part): event for event in events if event.revision}
    homes: Homes = {}
    if again:
        for row in await transaction.fetch(SQL["former_homes"], [message_id for message_id, _ in again]):
            event = again.get((row["message_id"], row["part"]))
            if event and row["encounter_id"] not in {encounter_id_of(visit) for visit in visits_of(event)}:
                homes.setdefault(row["encounter_id"], []).append((row["message_id"], row["part"]))
    return homes


async def leave_homes(transaction: Transaction, batch: Batch, events: Sequence[Event], homes: Homes) -> None:
    if not homes:
        return
    again = {(event.message_id, event.part): event for event in events}
    gone = [(encounter_id, *identity) for encounter_id, left in homes.items() for identity in left]
    for encounter_id, message_id, part in gone:
        batch.remove(encounter_id, again[message_id, part])
    await transaction.execute(SQL["forget_events"], *(list(column) for column in zip(*gone, strict=True)))


async def write_batch(transaction: Transaction, batch: Batch, now: datetime) -> None:
    rows = [row for _, row in sorted(batch.rows.items()) if row.touched]
    if patients := batch.register.rows():
        await transaction.execute(
            SQL["update_patients"],
            [patient.patient_id for patient in patients],
            [patient.survivor_id for patient in patients],
            [patient.statements for patient in patients],
            now,
        )
    if rows:
        await transaction.execute(
            SQL["update_encounters"],
            [row.encounter_id for row in rows],
            [row.patient_id for row in rows],
            [row.folded.feed or (row.event.feed if row.event else "") for row in rows],
            [row.folded.facility or (row.event.facility if row.event else "") for row in rows],
            [row.folded.state for row in rows],
            [pack(_encode(row.body)) for row in rows],
            [row.folded.opened_at for row in rows],
            [_ended_at(row.folded) for row in rows],
            now,
        )
    if batch.stored:
        await _store_events(transaction, batch.stored)
    if batch.stated:
        records = [record for _, record in batch.stated]
        await transaction.execute(
            SQL["store_statements"], [patient_id for patient_id, _ in batch.stated], *_columns(records)
        )


def _ended_at(folded: Folded) -> datetime | None:
    return folded.cancelled_at if folded.state is EncounterState.CANCELLED else folded.closed_at


async def _store_events(transaction: Transaction, stored: Sequence[Stored]) -> None:
    last = {(s.encounter_id, s.record.summary.message_id, s.record.summary.part): s for s in stored}
    kept = list(last.values())  # of two revisions in one batch the second one
    message_ids, parts, revisions, recorded, received, summaries, fhir = _columns([s.record for s in kept])
    linked = [s.linked for s in kept]
    contents = [b"" if s.linked else content for s, content in zip(kept, fhir, strict=True)]
    await transaction.execute(
        SQL["store_events"],
        [s.encounter_id for s in kept],
        *(message_ids, parts, revisions, recorded, received, linked, summaries, contents),
    )


def _columns(records: Sequence[EventRecord]) -> tuple[list[object], ...]:
    events = [record.summary for record in records]
    return (
        [event.message_id for event in events],
        [event.part for event in events],
        [event.revision for event in events],
        [event.recorded.at for event in events],
        [event.received_at for event in events],
        [pack(_encode(event)) for event in events],
        [pack(bytes(record.fhir)) for record in records],
    )


async def store_transitions(
    transaction: Transaction, transitions: Sequence[Transition], published: Sequence[LogRecord]
) -> None:
    if transitions:
        await transaction.execute(
            SQL["store_transitions"],
            [t.transition_id for t in transitions],
            [t.encounter_id for t in transitions],
            [t.kind for t in transitions],
            [t.status for t in transitions],
            [t.fact_kind for t in transitions],
            [t.occurrence for t in transitions],
            [t.watched for t in transitions],
            [t.snapshot_id for t in transitions],
            [t.supersedes for t in transitions],
            [t.message_id for t in transitions],
            [t.effective.text for t in transitions],
            [t.received_at for t in transitions],
        )
    if published:
        await transaction.execute(
            SQL["fill_outbox"],
            [record.topic for record in published],
            [record.key for record in published],
            [_encode_headers(record.headers) for record in published],
            [pack(record.value) for record in published],
        )


async def read_history(transaction: Transaction, rows: Mapping[EncounterId, Row], late: Iterable[EncounterId]) -> None:
    """Gives the rows that have to fold anew their earlier events."""
    for encounter_id in late:
        rows[encounter_id].history = {}
    for found in await transaction.fetch(SQL["read_history"], list(late)):
        event = _decode_event(unpack(found["summary"]))
        history = rows[found["encounter_id"]].history
        assert history is not None
        history[event.message_id, event.part] = event
