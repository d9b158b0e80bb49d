"""Owns the rows of tracking: which messages are new, which patients and encounters are locked, and how they are read
and written, a batch at a time.

Patients (`postgres_identity`) are locked before encounters, both inserted if absent and then locked in id order, so
that two routing processes never interleave on one encounter.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from itertools import chain

import asyncpg
import msgspec

from tocengine.encounters.edges import Edge, keys_of, merges_patients, moved_from, rekeyed_visits, rekeys
from tocengine.encounters.identity import Register
from tocengine.encounters.joining import concerns_others, may_turn
from tocengine.encounters.machine import WATCHED_AFTER_CLOSE
from tocengine.encounters.postgres_identity import know, write_edges, write_patients
from tocengine.encounters.rows import Row, Stored, is_statement, visits_of
from tocengine.encounters.state import EncounterBody, Folded
from tocengine.encounters.steps import settled
from tocengine.encounters.tracker import Batch
from tocengine.errors import EventDataError
from tocengine.formats.packing import pack, unpack
from tocengine.model.encounter import EncounterState, Transition
from tocengine.model.event import Event, EventRecord
from tocengine.model.identity import VisitKey
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
        [event.visit.encounter_id if event.visit and event.handled else None for event in events],
        [event.patient.patient_id if event.patient else None for event in events],
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


async def lock_encounters(
    transaction: Transaction,
    events: Sequence[Event],
    register: Register,
    homes: Mapping[EncounterId, object],
    visit_edges: Sequence[Edge],
    now: datetime,
) -> dict[EncounterId, Row]:
    """The encounters `events` touch with those merged into them, locked; absent ones are inserted first."""
    new: dict[EncounterId, tuple[VisitKey, Event]] = {}
    for event in events:
        for visit in (*visits_of(event), *rekeyed_visits(event)):
            new.setdefault(visit.encounter_id, (visit, event))
    people, leaving = _numbers(events, register)
    if not new and not people and not homes:
        return {}
    if new:
        await _insert_encounters(transaction, new, now)
    earliest = min((event.recorded.at for event in events), default=now) - WATCHED_AFTER_CLOSE
    wanted = {*new, *homes, *(EncounterId(key) for edge in visit_edges for key in (edge.prior, edge.surviving))}
    rows: dict[EncounterId, Row] = {}
    while True:  # a merge that committed while we waited leads to a survivor that is not locked yet
        found = await transaction.fetch(
            SQL["lock_encounters"], sorted(wanted), list(people), earliest - timedelta(minutes=1), list(leaving)
        )
        await know(transaction, register, (row["patient_id"] for row in found))
        rows = {row["encounter_id"]: _row(row, register) for row in found}
        survivors = {row.survivor_id for row in rows.values() if row.survivor_id is not None}
        concerned = _also_concerned(events, rows, register)
        if survivors <= wanted and concerned <= people:
            return rows
        wanted |= survivors
        people |= concerned


def _also_concerned(events: Sequence[Event], rows: Mapping[EncounterId, Row], register: Register) -> set[PatientId]:
    """The numbers whose visits an event may concern as its own visit stands: it names another patient than the owner,
    so that the visit may change hands, takes it away by a merge, or does what its trigger rarely does."""
    found: set[PatientId] = set()
    for event in events:
        for visit in rekeyed_visits(event):
            home = rows[visit.encounter_id]
            found.update(register.family(rows.get(home.root_id, home).patient_id))
        for visit in visits_of(event) if event.patient is not None else ():
            home = rows[visit.encounter_id]
            row = rows.get(home.root_id, home)
            named = register.root(event.patient) if event.patient is not None else row.patient_id
            changes_hands = visit == event.visit and row.folded.last is not None and row.patient_id != named
            if changes_hands or may_turn(row.folded, event):
                found.update(register.family(row.patient_id))
                found.update(register.family(named))
    return found


def _numbers(events: Sequence[Event], register: Register) -> tuple[set[PatientId], set[PatientId]]:
    """The numbers whose open visits `events` may touch, and those all of whose visits may go to somebody else."""
    roots = {
        register.root(event.patient)
        for event in events
        if event.patient and (is_statement(event) or concerns_others(event))
    }
    leaving: set[PatientId] = set()
    for event in events:
        if rekeys(event):
            roots.update(register.root(key) for key in keys_of(event))
            leaving.update(register.root(key) for key in moved_from(event))
            if merges_patients(event):
                roots |= register.regrouping()
    numbers = {number for root in roots for number in register.family(root)}
    return numbers, {number for root in leaving for number in register.family(root)}


async def _insert_encounters(
    transaction: Transaction, new: Mapping[EncounterId, tuple[VisitKey, Event]], now: datetime
) -> None:
    ids = sorted(new)
    await transaction.execute(
        SQL["insert_encounters"],
        ids,
        [new[i][0].domain for i in ids],
        [new[i][0].value for i in ids],
        [patient.patient_id if (patient := new[i][1].patient) else None for i in ids],
        [new[i][1].feed for i in ids],
        [new[i][1].facility for i in ids],
        now,
        _UNTOLD,
    )


def _row(row: asyncpg.Record, register: Register) -> Row:
    visit = VisitKey(row["domain"], row["visit_number"])
    body: EncounterBody = _decode_body(unpack(row["body"]))
    if body.folded.visit is None:
        body = EncounterBody(folded=Folded(visit=visit))
    return Row(
        encounter_id=row["encounter_id"],
        visit=visit,
        owner_id=row["patient_id"],
        patient_id=register.root_of(row["patient_id"]),
        survivor_id=row["survivor_id"],
        body=body,
    )


Homes = dict[EncounterId, list[tuple[MessageId, int]]]


async def former_homes(transaction: Transaction, events: Sequence[Event]) -> Homes:
    """Where earlier revisions of re-normalized events were folded, if not where the new ones belong."""
    again = {(event.message_id, event.part): event for event in events if event.revision}
    homes: Homes = {}
    if again:
        for row in await transaction.fetch(SQL["former_homes"], [message_id for message_id, _ in again]):
            event = again.get((row["message_id"], row["part"]))
            if event and row["encounter_id"] not in {visit.encounter_id for visit in visits_of(event)}:
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
    await write_patients(transaction, batch.register.rows(), now)
    await write_edges(transaction, batch.rekeying.edges)
    if rows:
        await transaction.execute(
            SQL["update_encounters"],
            [row.encounter_id for row in rows],
            [row.owner_id for row in rows],
            [row.folded.feed or (row.event.feed if row.event else "") for row in rows],
            [row.folded.facility or (row.event.facility if row.event else "") for row in rows],
            [row.folded.state if row.survivor_id is None else EncounterState.MERGED for row in rows],
            [pack(_encode(row.body)) for row in rows],
            [row.folded.opened_at for row in rows],
            [_ended_at(row) for row in rows],
            now,
            [row.survivor_id for row in rows],
        )
    if batch.stored:
        await _store_events(transaction, batch.stored)
    if batch.stated:
        records = [record for _, record in batch.stated]
        await transaction.execute(
            SQL["store_statements"], [patient_id for patient_id, _ in batch.stated], *_columns(records)
        )


def _ended_at(row: Row) -> datetime | None:
    folded = row.folded
    if row.survivor_id is not None:
        return row.event.recorded.at if row.event else None
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
