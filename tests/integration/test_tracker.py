"""Tracking on a real PostgreSQL: repeats, batches, late arrivals, merges, locks, and the number of statements."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

import msgspec
import pytest
from msgspec import Raw
from msgspec.structs import replace

from tests.fixtures.visits import CONVERTED, DIRECTORY, ED, INP, SNF, Visit, at, record
from tocengine.encounters.fold import fold
from tocengine.encounters.postgres import PostgresTracker
from tocengine.errors import EventDataError
from tocengine.formats.packing import unpack
from tocengine.model.audit import AuditAction, AuditRecord
from tocengine.model.encounter import Snapshot, TrackedEncounter, Transition, TransitionKind
from tocengine.model.event import Event, EventRecord, Merge, Processing
from tocengine.model.facts import Location, PatientFacts
from tocengine.model.identity import PatientKey, Practitioner
from tocengine.model.work import WorkItem, WorkKind
from tocengine.ports import LogRecord, Transaction
from tocengine.postgres import Pool, is_unavailable

NOW = at("20:00").at
K = TransitionKind


class Collected:
    """Stands in for the ports beside the tracker, which belong to other stages."""

    def __init__(self) -> None:
        self.items: list[WorkItem] = []
        self.audited: list[AuditRecord] = []
        self.published: list[tuple[Transition, Snapshot, bytes]] = []

    async def open(self, transaction: Transaction, items: Sequence[WorkItem]) -> None:
        self.items += items

    async def close_subjects(
        self, transaction: Transaction, kind: WorkKind, subjects: Sequence[str], by: str, resolution: str, now: datetime
    ) -> int:
        return 0

    async def record(self, transaction: Transaction, records: Sequence[AuditRecord]) -> None:
        self.audited += records

    def transition(self, transition: Transition, snapshot: Snapshot, fhir: bytes) -> LogRecord:
        self.published.append((transition, snapshot, fhir))
        return LogRecord(topic="toc.transitions.v1", key=b"k", value=fhir)


class Engine:
    """The tracker as the route role drives it: a transaction per batch, then what was said is stored."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.beside = pool, Collected()
        self.tracker = PostgresTracker(DIRECTORY, self.beside, self.beside, self.beside)

    async def take(self, *events: Event | EventRecord, now: datetime = NOW) -> Sequence[TrackedEncounter]:
        records = [event if isinstance(event, EventRecord) else record(event) for event in events]
        async with self.pool.acquire() as connection, connection.transaction():
            return await self.track(connection, records, now)

    async def track(
        self, connection: Transaction, records: Sequence[EventRecord], now: datetime = NOW
    ) -> Sequence[TrackedEncounter]:
        tracked = await self.tracker.track(connection, records, now)
        snapshots = [encounter.snapshot for encounter in tracked if encounter.transitions]
        transitions = [transition for encounter in tracked for transition in encounter.transitions]
        await self.tracker.store(connection, snapshots, transitions)
        return tracked

    async def said(self, *events: Event) -> list[tuple[str, str]]:
        """The transitions of a batch."""
        return [
            (transition.status.value, transition.kind.value)
            for encounter in await self.take(*events)
            for transition in encounter.transitions
        ]

    async def state(self, visit: Visit) -> str:
        query = "select state from encounter where encounter_id = $1"
        return cast(str, await self.pool.fetchval(query, visit.key.encounter_id))


@pytest.fixture
def engine(pool: Pool) -> Engine:
    return Engine(pool)


def bundle(**resource: Any) -> Raw:
    entry = [{"fullUrl": "urn:uuid:1", "resource": {"resourceType": "Encounter", "id": "1", **resource}}]
    return Raw(msgspec.json.encode({"resourceType": "Bundle", "type": "collection", "entry": entry}))


async def test_repeats_are_dropped_and_audited(engine: Engine) -> None:
    admission = Visit().event("A01", "09:00", INP)
    assert await engine.said(admission, admission) == [("NEW", "INPATIENT_ADMIT")]
    assert await engine.said(admission) == []
    actions = [record.action for record in engine.beside.audited]
    assert actions.count(AuditAction.MESSAGE_REPEATED) == 2
    assert actions.count(AuditAction.MESSAGE_TRACKED) == 1


async def test_a_batch_of_many_patients(engine: Engine) -> None:
    visits = [Visit(f"V{n}", f"M{n}") for n in range(40)]
    arrivals = [visit.event("A04", "09:00", ED) for visit in visits]
    admissions = [visit.event("A06", "10:00", INP) for visit in visits]
    discharges = [visit.event("A03", "15:00", INP, disposition=SNF) for visit in visits]
    tracked = await engine.take(*arrivals, *admissions, *discharges)
    assert len(tracked) == 40
    for encounter in tracked:
        assert [fact.kind for fact in encounter.facts] == [K.ED_REGISTRATION, K.INPATIENT_ADMIT, K.INPATIENT_DISCHARGE]
        assert len(encounter.message_ids) == 3
    assert await engine.pool.fetchval("select count(*) from transition") == 120
    assert await engine.pool.fetchval("select count(*) from outbox") == 120
    assert await engine.pool.fetchval("select count(*) from snapshot") == 40
    assert await engine.pool.fetchval("select count(*) from encounter where state = 'DISCHARGED'") == 40


async def test_a_late_arrival_folds_the_stored_history_anew(engine: Engine) -> None:
    visit = Visit()
    assert await engine.said(visit.event("A04", "10:00", ED), visit.event("A08", "14:03:00", ED)) == [
        ("NEW", "ED_REGISTRATION")
    ]
    assert await engine.said(visit.event("A06", "14:02:58", INP)) == [("NEW", "INPATIENT_ADMIT")]
    assert await engine.state(visit) == "INPATIENT"


async def test_the_order_of_batches_does_not_matter(engine: Engine) -> None:
    visit, other = Visit("V1", "M1"), Visit("V2", "M2")

    def told(visit: Visit) -> list[Event]:
        return [
            visit.event("A04", "08:00", ED),
            visit.event("A06", "09:00", INP),
            visit.event("A03", "15:00", INP, disposition=SNF),
            visit.event("A13", "16:00", INP),
            visit.event("A03", "18:00", INP, disposition=SNF),
        ]

    for event in told(visit):
        await engine.take(event)
    await engine.take(*reversed(told(other)))
    rows = await engine.pool.fetch("select encounter_id, state, body from encounter order by domain, visit_number")
    assert [row["state"] for row in rows] == ["DISCHARGED", "DISCHARGED"]
    bodies = [msgspec.json.decode(unpack(row["body"])) for row in rows]
    watched = [{entry["fact"]["kind"]: entry["fact"]["watched"] for entry in body["announced"]} for body in bodies]
    assert watched[0] == watched[1]


async def test_the_chart_overlays_the_bundles_of_all_events(engine: Engine) -> None:
    visit = Visit()
    first = EventRecord(visit.event("A01", "09:00", INP), bundle(status="in-progress", length=1))
    await engine.take(first)
    assert engine.beside.published[-1][2] == bytes(first.fhir)
    await engine.take(EventRecord(visit.event("A03", "15:00", INP), bundle(status="finished")))
    chart = msgspec.json.decode(engine.beside.published[-1][2])
    assert chart["entry"][0]["resource"] == {"resourceType": "Encounter", "id": "1", "status": "finished", "length": 1}
    stored = await engine.pool.fetchval("select fhir from snapshot order by created_at desc limit 1")
    assert msgspec.json.decode(unpack(stored)) == chart


async def test_bed_moves_are_published_and_not_handed_on(engine: Engine) -> None:
    visit = Visit()
    await engine.take(visit.event("A01", "09:00", INP, location=Location("ICU")))
    (tracked,) = await engine.take(visit.event("A02", "10:00", INP, location=Location("3N")))
    assert tracked.transitions == ()
    assert [t.kind for t, _, _ in engine.beside.published] == [K.INPATIENT_ADMIT, K.LOCATION_CHANGE]
    assert await engine.pool.fetchval("select snapshot_id from transition where kind = 'LOCATION_CHANGE'") is None


async def test_an_ed_visit_closed_after_its_inpatient_visit_opened(engine: Engine) -> None:
    ed, stay = Visit("V100"), Visit("V200")
    await engine.take(ed.event("A04", "10:00", ED))
    await engine.take(stay.event("A01", "14:00", INP, alternate_visit="V100"))
    (tracked,) = await engine.take(ed.event("A03", "17:30", ED))
    assert tracked.transitions == ()
    assert {fact.kind: fact.covered_by for fact in tracked.facts}[K.ED_DISCHARGE] == "CONVERSION_NOT_DISCHARGE"


async def test_the_link_may_come_before_the_visit_it_names(engine: Engine) -> None:
    ed, stay = Visit("V100"), Visit("V200")
    tracked = await engine.take(stay.event("A01", "14:00", INP, alternate_visit="V100"))
    assert [encounter.encounter_id for encounter in tracked] == [stay.key.encounter_id]
    assert await engine.said(ed.event("A04", "10:00", ED)) == [("NEW", "ED_REGISTRATION")]
    assert await engine.said(ed.event("A03", "17:30", ED, disposition=CONVERTED)) == []


# --- persons


async def test_what_was_said_of_the_person_before_the_visit_counts(engine: Engine) -> None:
    visit = Visit()
    patel = Practitioner("PATEL", npi="1234567893")
    await engine.take(visit.statement("A28", "08:00", person=PatientFacts(pcp=(patel,))))
    (tracked,) = await engine.take(visit.event("A04", "10:00", ED))
    assert tracked.snapshot.patient.pcp == (patel,)


async def test_a_death_stated_of_the_person_reaches_the_open_visit_only(engine: Engine) -> None:
    old, current = Visit("V1"), Visit("V2")
    await engine.take(
        old.event("A01", "08:00", INP, day="2026-01-01"), old.event("A03", "09:00", INP, day="2026-01-02")
    )
    await engine.take(current.event("A01", "08:00", INP))
    tracked = await engine.take(current.statement("A31", "12:00", person=PatientFacts(deceased=True)))
    assert [(e.encounter_id, e.deceased) for e in tracked] == [(current.key.encounter_id, True)]
    assert [t.kind for t in tracked[0].transitions] == [K.PATIENT_EXPIRED]


async def test_a_merge_gives_the_open_visit_to_the_survivor(engine: Engine) -> None:
    trauma = Visit("V9", "T999")
    resident = PatientKey("STJ", "7770")
    await engine.take(trauma.event("A04", "10:00", ED))
    merge = replace(
        trauma.statement("A40", "10:30", merges=(Merge(prior=trauma.patient, surviving=resident),)), patient=resident
    )
    (tracked,) = await engine.take(merge)
    assert tracked.patient_keys == (resident, trauma.patient)
    assert tracked.patient_id == resident.patient_id
    assert tracked.transitions == ()
    assert [record.action for record in engine.beside.audited][-1] is AuditAction.PATIENT_MERGED
    (later,) = await engine.take(trauma.event("A03", "15:00", ED))  # under the old number
    assert later.patient_keys[0] == resident


async def test_a_merge_is_known_before_any_visit_is(engine: Engine) -> None:
    visit, survivor = Visit(mrn="5551"), PatientKey("STJ", "7770")
    event = replace(
        visit.statement("A40", "08:00", merges=(Merge(prior=visit.patient, surviving=survivor),)), patient=survivor
    )
    assert await engine.take(event) == []
    (tracked,) = await engine.take(visit.event("A01", "09:00", INP))
    assert tracked.patient_keys == (survivor, visit.patient)


async def test_chains_are_followed_and_circles_refused(engine: Engine) -> None:
    visit = Visit(mrn="A")
    a, b, c = (PatientKey("STJ", value) for value in "ABC")
    await engine.take(visit.event("A01", "08:00", INP))

    def merge(prior: PatientKey, surviving: PatientKey, recorded: str) -> Event:
        said = Visit(mrn=surviving.value)
        return said.statement("A40", recorded, merges=(Merge(prior=prior, surviving=surviving),))

    await engine.take(merge(a, b, "09:00"))
    (tracked,) = await engine.take(merge(b, c, "09:10"))
    assert tracked.patient_keys == (c, a, b)
    assert not engine.beside.items
    await engine.take(merge(a, b, "09:20"))  # the same again
    assert not engine.beside.items
    await engine.take(merge(c, a, "09:30"))
    assert [item.kind for item in engine.beside.items] == [WorkKind.MERGE_REFUSED]
    survivors = await engine.pool.fetch("select value, survivor_id from patient order by value")
    assert [row["survivor_id"] for row in survivors] == [c.patient_id, c.patient_id, None]


async def test_a_message_of_another_patient_brings_no_patient_data(engine: Engine) -> None:
    mine, stranger = Visit("V1", "M1"), Visit("V1", "M2")
    await engine.take(mine.event("A01", "08:00", INP))
    strange = stranger.event("A03", "15:00", INP, person=PatientFacts(birth_date="2001-01-01"))
    (tracked,) = await engine.take(strange)
    assert tracked.patient_keys == (mine.patient,)
    assert tracked.snapshot.patient.birth_date == "1940-01-02"
    assert [t.kind for t in tracked.transitions] == [K.INPATIENT_DISCHARGE]
    assert [item.kind for item in engine.beside.items] == [WorkKind.ENCOUNTER_FLAGGED]


# --- silence


async def test_test_messages_and_loads_are_suppressed(engine: Engine) -> None:
    test, load, shadow = Visit("V1", "M1"), Visit("V2", "M2"), Visit("V3", "M3")
    tracked = await engine.take(
        test.event("A01", "09:00", INP, processing=Processing.TEST),
        load.event("A01", "09:00", INP, processing=Processing.INITIAL_LOAD),
        replace(shadow.event("A01", "09:00", INP), shadow=True),
    )
    by_id = {encounter.encounter_id: encounter for encounter in tracked}
    assert by_id[test.key.encounter_id].suppressed == "TEST_MESSAGE"
    assert by_id[load.key.encounter_id].suppressed == "INITIAL_LOAD"
    assert (by_id[shadow.key.encounter_id].suppressed, by_id[shadow.key.encounter_id].shadow) == ("", True)
    (later,) = await engine.take(load.event("A03", "15:00", INP))
    assert later.suppressed == ""
    assert [fact.covered_by for fact in later.facts] == ["INITIAL_LOAD", ""]


async def test_what_is_not_handled_yet_is_marked(engine: Engine) -> None:
    visit = Visit()
    assert await engine.take(visit.event("A60", "09:00", INP, handled=False)) == []
    assert await engine.pool.fetchval("select disposition from message_seen") == "NOT_HANDLED"
    assert await engine.pool.fetchval("select count(*) from encounter") == 0


async def test_a_renormalized_event_replaces_its_earlier_revision(engine: Engine) -> None:
    wrong, right = Visit("V1"), Visit("V2")
    admission = wrong.event("A01", "09:00", INP)
    await engine.take(admission, wrong.event("A08", "10:00", INP))
    mapped = replace(admission, revision=1, encounter_facts=replace(admission.encounter_facts, patient_class=ED))  # type: ignore[type-var]
    assert await engine.said(mapped) == [
        ("NEW", "ED_REGISTRATION"),
        ("UPDATED", "INPATIENT_ADMIT_CORRECTED"),  # the update of class inpatient is the admission now
    ]
    assert await engine.pool.fetchval("select count(*) from encounter_event") == 2
    await engine.take(replace(mapped, revision=2, visit=right.key))
    assert await engine.state(right) == "ED"
    assert (
        await engine.pool.fetchval(
            "select count(*) from encounter_event where encounter_id = $1", wrong.key.encounter_id
        )
        == 1
    )


# --- what cannot be tracked


@pytest.mark.parametrize(
    "change",
    [
        {"message_day": "2026-02-30"},
        {"control_id": "A\x00B"},
        {"patient": None},
        {"control_id": "\ud800"},
    ],
)
async def test_a_poisonous_event_is_named_as_such(engine: Engine, change: dict[str, Any]) -> None:
    with pytest.raises(EventDataError):
        await engine.take(replace(Visit().event("A01", "09:00", INP), **change))
    assert await engine.said(Visit().event("A01", "09:00", INP)) == [("NEW", "INPATIENT_ADMIT")]


async def test_an_outage_is_not_the_fault_of_an_event(engine: Engine) -> None:
    async with engine.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await engine.pool.execute("select pg_terminate_backend($1)", connection.get_server_pid())
        with pytest.raises(Exception) as raised:  # noqa: PT011 - asyncpg has many ways to say so
            await engine.track(connection, [record(Visit().event("A01", "09:00", INP))])
        assert is_unavailable(raised.value)


# --- two processes, and cost


async def test_two_transactions_never_interleave_on_one_encounter(pool: Pool) -> None:
    one, two = Engine(pool), Engine(pool)
    visit = Visit()
    async with pool.acquire() as first, pool.acquire() as second:
        opened = first.transaction()
        await opened.start()
        await one.track(first, [record(visit.event("A04", "10:00", ED))])

        async def other() -> Sequence[TrackedEncounter]:
            async with second.transaction():
                return await two.track(second, [record(visit.event("A06", "14:00", INP))])

        waiting = asyncio.create_task(other())
        await _until_blocked(pool, second.get_server_pid())
        assert not waiting.done()
        await opened.commit()
        (tracked,) = await waiting
    assert [transition.kind for transition in tracked.transitions] == [K.INPATIENT_ADMIT]
    assert [fact.kind for fact in tracked.facts] == [K.ED_REGISTRATION, K.INPATIENT_ADMIT]


async def test_many_transactions_on_the_same_encounters(pool: Pool) -> None:
    visits = [Visit(f"V{n}", f"M{n}") for n in range(6)]
    streams = [
        [visit.event(trigger, f"{hour:02}:{minute:02}", INP) for visit in visits[::direction]]
        for minute, direction in ((1, 1), (2, -1), (3, 1), (4, -1))
        for hour, trigger in ((9, "A01"), (12, "A08"), (15, "A03"), (16, "A13"))
    ]

    async def run(events: list[Event]) -> None:
        await Engine(pool).take(*events)

    await asyncio.gather(*(run(events) for events in streams))
    rows = await pool.fetch(
        "select encounter_id, body, (select array_agg(summary) from encounter_event e "
        "where e.encounter_id = encounter.encounter_id) as summaries from encounter"
    )
    assert len(rows) == 6
    for row in rows:
        assert len(row["summaries"]) == len(streams)
        history = [msgspec.json.decode(unpack(summary), type=Event) for summary in row["summaries"]]
        expected = fold(history[0].visit, history)
        stored = msgspec.json.decode(unpack(row["body"]))["folded"]
        assert stored == msgspec.json.decode(msgspec.json.encode(expected))


async def test_the_number_of_statements_does_not_grow_with_the_batch(pool: Pool) -> None:
    async def statements(count: int, prefix: str) -> int:
        seen: list[object] = []
        visits = [Visit(f"{prefix}{n}", f"{prefix}{n}") for n in range(count)]
        engine = Engine(pool)
        async with pool.acquire() as connection, connection.transaction():
            with connection.query_logger(seen.append):
                for hour, trigger in ((9, "A04"), (10, "A06"), (15, "A03"), (12, "A08")):
                    events = [visit.event(trigger, f"{hour:02}:00", INP) for visit in visits]
                    await engine.track(connection, [record(event) for event in events])
        return len(seen)

    await statements(1, "W")  # asyncpg asks for types and prepares once
    few, many = await statements(2, "A"), await statements(50, "B")
    assert few == many


async def _until_blocked(pool: Pool, pid: int) -> None:
    deadline = asyncio.get_running_loop().time() + 10
    while not await pool.fetchval("select cardinality(pg_blocking_pids($1)) > 0", pid):
        assert asyncio.get_running_loop().time() < deadline, "the second transaction was never blocked"
