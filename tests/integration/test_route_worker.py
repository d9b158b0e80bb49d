"""The route role on PostgreSQL: one transaction per poll, poison set aside, replay, the race with a sender."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import msgspec
import pytest
from msgspec import UNSET

from tocengine.audit.postgres import PostgresAuditTrail
from tocengine.config import EventLogSettings, RoutingSettings
from tocengine.encounters.holdback import Window
from tocengine.encounters.postgres import PostgresTracker
from tocengine.eventlog import Topic, open_consumer, open_event_log
from tocengine.eventlog.records import CloudEventReader, CloudEventRecords, KeyHasher
from tocengine.local_codes.postgres import PostgresLocalCodes
from tocengine.model.audit import AuditRecord
from tocengine.model.encounter import Snapshot, TrackedEncounter, Transition
from tocengine.model.event import Event, EventRecord
from tocengine.model.facts import (
    CareSetting,
    Destination,
    Disposition,
    EncounterFacts,
    Location,
    PatientClass,
    PatientFacts,
    PersonName,
)
from tocengine.model.identity import PatientKey, Practitioner, VisitKey
from tocengine.model.ids import FacilityId, FeedName, MessageId, derive
from tocengine.model.message import ContentType, Message, Problem
from tocengine.model.time import Timestamp
from tocengine.ports import EventLog, LogRecord, Transaction
from tocengine.postgres import Pool
from tocengine.routing.apply import apply, plan
from tocengine.routing.directory_file import load_directory_file
from tocengine.routing.policy import RoutePolicy
from tocengine.routing.postgres import MAX_TEXT, LiveDirectory
from tocengine.routing.worker import RouteWorker
from tocengine.telemetry import Metrics
from tocengine.work_items.postgres import PostgresWorkItems

NOW = datetime(2026, 3, 1, 20, 0, tzinfo=UTC)
FEED, FACILITY = FeedName("stj-adt"), FacilityId("stj")
TOPICS = (Topic.EVENTS, Topic.QUARANTINE)
RECORDS = CloudEventRecords(KeyHasher(b"0123456789abcdef"))
FHIR = msgspec.Raw(b'{"resourceType":"Bundle","type":"collection","entry":[]}')
DEADLINE_S = 20.0
HUGE = "9" * 4_000_000  # more than an index entry holds, compressed too
DIRECTORY = """\
version: 1
facilities:
  - id: sunnyside
    name: Sunnyside Rehab
    type: SNF
    aliases: [SUNNYSIDE]
    endpoints: [{id: sunnyside-hook, channel: webhook, url: "http://127.0.0.1:9/", secret: "env:S"}]
  - id: meadow
    name: Meadow Home
    type: SNF
    aliases: [MEADOW]
    endpoints: [{id: meadow-hook, channel: webhook, url: "http://127.0.0.1:9/", secret: "env:S"}]
practitioners:
  - id: patel
    name: Ravi Patel
    npi: "1234567893"
    endpoints: [{id: patel-hook, channel: webhook, url: "http://127.0.0.1:9/", secret: "env:S"}]
panels:
  - facility: meadow
    members: [{domain: STJ, value: "0012345"}]
"""


class Interrupted:
    """An audit trail whose database goes away at the chosen call, after everything else was written."""

    def __init__(self, fail_at: int) -> None:
        self.inner, self.calls, self.fail_at = PostgresAuditTrail(), 0, fail_at
        self.lost: list[AuditRecord] = []

    async def record(self, transaction: Transaction, records: Sequence[AuditRecord]) -> None:
        await self.inner.record(transaction, records)
        self.calls += 1
        if self.calls == self.fail_at:
            self.lost.extend(records)
            raise ConnectionResetError


class Allergic:
    """A tracker with a defect: it cannot stand the control id "bad"."""

    def __init__(self, inner: PostgresTracker, defect: type[Exception]) -> None:
        self.inner, self.defect = inner, defect

    async def track(
        self, transaction: Transaction, events: Sequence[EventRecord], now: datetime, *, hold: bool = True
    ) -> Sequence[TrackedEncounter]:
        if any(record.summary.control_id == "bad" for record in events):
            raise self.defect
        return await self.inner.track(transaction, events, now, hold=hold)

    async def recall(self, transaction: Transaction, now: datetime) -> Sequence[TrackedEncounter] | None:
        return await self.inner.recall(transaction, now)

    async def remind(self, transaction: Transaction, now: datetime) -> int:
        return await self.inner.remind(transaction, now)

    async def window_ended(self, transaction: Transaction, now: datetime) -> bool:
        return await self.inner.window_ended(transaction, now)

    async def ended(self, transaction: Transaction, until: Mapping[int, datetime]) -> Sequence[EventRecord]:
        return await self.inner.ended(transaction, until)

    async def forget(self, transaction: Transaction, events: Sequence[tuple[MessageId, int]]) -> None:
        await self.inner.forget(transaction, events)

    async def store(
        self, transaction: Transaction, snapshots: Sequence[Snapshot], transitions: Sequence[Transition]
    ) -> None:
        await self.inner.store(transaction, snapshots, transitions)


class Bench:
    """The log, the worker, and a hospital that sends."""

    def __init__(self, pool: Pool, log: EventLog, dsn: str, settings: EventLogSettings) -> None:
        self.pool, self.log, self.dsn, self.settings = pool, log, dsn, settings
        self.metrics = Metrics()
        self.sent = 0

    async def worker(
        self,
        audit: Interrupted | None = None,
        defect: type[Exception] | None = None,
        records: int = 200,
        window: Window | None = None,
    ) -> RouteWorker:
        directory = LiveDirectory(self.pool, 0.0)
        await directory.refresh()
        trail = audit or PostgresAuditTrail()
        tracker = PostgresTracker(directory, PostgresWorkItems(), RECORDS, PostgresAuditTrail(), window)
        return RouteWorker(
            consumer=await open_consumer(self.settings, self.dsn, self.pool, TOPICS),
            pool=self.pool,
            tracker=Allergic(tracker, defect) if defect else tracker,
            audit=trail,
            work_items=PostgresWorkItems(),
            codes=PostgresLocalCodes(),
            reader=CloudEventReader(),
            directory=directory,
            policy=RoutePolicy(),
            settings=RoutingSettings(batch_records=records),
            metrics=self.metrics,
            clock=lambda: NOW,
        )

    def message(self, control_id: str, received: datetime = NOW) -> Message:
        return Message(
            message_id=MessageId(derive("message", control_id)),
            feed=FEED,
            facility=FACILITY,
            content_type=ContentType.HL7V2,
            control_id=control_id,
            received_at=received,
            body=b"MSH|...",
        )

    def event(
        self,
        trigger: str,
        visit: str,
        *,
        minutes: int = 0,
        destination: str = "",
        mrn: str = "0012345",
        control_id: str = "",
        pcp: bool = False,
        part: int = 0,
    ) -> LogRecord:
        self.sent += 1
        control_id = control_id or f"{trigger}-{visit}-{self.sent}"
        moment = NOW - timedelta(hours=2) + timedelta(minutes=minutes)
        message = self.message(control_id, moment)
        stamp = Timestamp(text=moment.isoformat(), at=moment)
        record = EventRecord(
            Event(
                message_id=message.message_id,
                part=part,
                feed=FEED,
                facility=FACILITY,
                content_type=ContentType.HL7V2,
                trigger=trigger,
                control_id=control_id,
                message_day="2026-03-01",
                received_at=moment,
                recorded=stamp,
                effective=stamp,
                answered="AA",
                patient=PatientKey("STJ", mrn),
                visit=VisitKey("STJ", visit),
                patient_facts=PatientFacts(
                    names=(PersonName("O'NEIL", ("MARY",)),),
                    pcp=(Practitioner(family="PATEL", npi="1234567893"),) if pcp else UNSET,
                ),
                encounter_facts=EncounterFacts(
                    patient_class=PatientClass.INPATIENT,
                    location=Location(unit="3N"),
                    disposition=Disposition("03", "03", CareSetting.SNF) if destination else UNSET,
                    destination=Destination(destination) if destination else UNSET,
                ),
            ),
            FHIR,
        )
        (built,) = RECORDS.events(message, [record])
        return built

    async def drain(self, worker: RouteWorker) -> int:
        """Steps until nothing comes; returns how many records were applied."""
        total = 0
        while applied := await worker.step(0.3):
            total += applied
        return total

    async def notices(self) -> list[tuple[str, str, str, str]]:
        """(recipient, status, kind, state) in the order they are sent."""
        rows = await self.pool.fetch("select body, state from notice order by sequence")
        found = []
        for row in rows:
            body = msgspec.json.decode(row["body"])
            found.append((body["recipient_id"], body.get("status", "NEW"), body["kind"], row["state"]))
        return found


@pytest.fixture
async def bench(pool: Pool, postgres_dsn: str, tmp_path: Path) -> AsyncIterator[Bench]:
    path = tmp_path / "directory.yaml"
    path.write_text(DIRECTORY, encoding="utf-8")
    async with pool.acquire() as connection:
        await apply(connection, await plan(connection, load_directory_file(path)), "test", NOW, PostgresAuditTrail())
    settings = EventLogSettings()
    log = await open_event_log(settings, postgres_dsn, topics=TOPICS)
    yield Bench(pool, log, postgres_dsn, settings)
    await log.close()


async def _until(condition: Callable[[], object], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + DEADLINE_S
    while not await _truth(condition):
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.01)


async def _truth(condition: Callable[[], object]) -> object:
    value = condition()
    return await value if asyncio.iscoroutine(value) else value


async def test_stay_is_told_to_everybody_concerned(bench: Bench) -> None:
    await bench.log.append(
        [bench.event("A01", "V1", pcp=True), bench.event("A03", "V1", minutes=60, destination="SUNNYSIDE", pcp=True)]
    )
    worker = await bench.worker()
    assert await bench.drain(worker) == 2
    told = await bench.notices()
    assert sorted(told) == sorted(
        [
            ("facility:meadow", "NEW", "INPATIENT_ADMIT", "QUEUED"),
            ("practitioner:patel", "NEW", "INPATIENT_ADMIT", "QUEUED"),
            ("facility:sunnyside", "NEW", "INPATIENT_DISCHARGE", "QUEUED"),
            ("facility:meadow", "NEW", "INPATIENT_DISCHARGE", "QUEUED"),
            ("practitioner:patel", "NEW", "INPATIENT_DISCHARGE", "QUEUED"),
        ]
    )
    lanes = await bench.pool.fetch("select recipient_id, due_at from lane")
    assert {row["recipient_id"] for row in lanes} == {recipient for recipient, *_ in told}
    assert all(row["due_at"] == NOW for row in lanes)
    assert await bench.pool.fetchval("select count(*) from decision where notice_id is not null") == 5
    assert await bench.pool.fetchval("select count(*) from audit_record where action = 'NOTICES_DECIDED'") >= 1
    assert await bench.pool.fetchval("select count(*) from outbox") == 2


@pytest.mark.parametrize("records", [1, 2, 200])
async def test_batching_does_not_change_what_is_told(bench: Bench, records: int) -> None:
    await bench.log.append(
        [
            bench.event("A03", "V1", minutes=60, destination="SUNNYSIDE", pcp=True),
            bench.event("A01", "V1", pcp=True),
            bench.event("A01", "V2", mrn="77", pcp=True),
        ]
    )
    await bench.drain(await bench.worker(records=records))
    assert sorted((recipient, kind) for recipient, _, kind, _ in await bench.notices()) == [
        ("facility:meadow", "INPATIENT_DISCHARGE"),
        ("facility:sunnyside", "INPATIENT_DISCHARGE"),
        ("practitioner:patel", "INPATIENT_ADMIT"),
        ("practitioner:patel", "INPATIENT_DISCHARGE"),
    ]


async def test_repeated_records_tell_nothing_twice(bench: Bench) -> None:
    record = bench.event("A01", "V1", pcp=True)
    await bench.log.append([record, record])
    worker = await bench.worker()
    await bench.drain(worker)
    await bench.log.append([record])
    assert await bench.drain(worker) == 1
    assert len(await bench.notices()) == 2


async def test_discharge_and_its_cancellation_before_anything_was_sent(bench: Bench) -> None:
    worker = await bench.worker()
    await bench.log.append([bench.event("A03", "V1", minutes=10, destination="SUNNYSIDE")])
    await bench.drain(worker)
    await bench.log.append([bench.event("A13", "V1", minutes=20)])
    await bench.drain(worker)
    assert {state for *_, state in await bench.notices()} == {"CANCELLED"}
    dropped = await bench.pool.fetchval("select count(*) from audit_record where action = 'NOTICE_DROPPED'")
    assert dropped == 2


@pytest.mark.parametrize("poison", ["data", "lookup", "assertion", "undecodable", "control_id"])
async def test_poisonous_event_is_set_aside_and_the_rest_goes_on(bench: Bench, poison: str) -> None:
    bad = bench.event(
        "A01", "V\0" if poison == "data" else "V5", mrn="5", control_id=HUGE if poison == "control_id" else "bad"
    )
    if poison == "undecodable":
        bad = msgspec.structs.replace(bad, value=bad.value[:-20])
    good = [bench.event("A01", f"V{number}", mrn=str(number), pcp=True) for number in range(10, 17)]
    await bench.log.append([*good[:4], bad, *good[4:]])
    defects = {"lookup": KeyError, "assertion": AssertionError}
    worker = await bench.worker(defect=defects.get(poison))
    assert await bench.drain(worker) == 8
    assert len(await bench.notices()) == 7
    (row,) = await bench.pool.fetch("select stage, body, control_id from quarantine")
    assert (row["stage"], row["body"]) == ("track", bad.value)
    kinds = await bench.pool.fetch("select kind from work_item where closed_at is null")
    assert "EVENT_SET_ASIDE" in {row["kind"] for row in kinds}
    assert await bench.pool.fetchval("select count(*) from audit_record where action = 'MESSAGE_QUARANTINED'") == 1
    assert await bench.drain(worker) == 0
    if poison != "undecodable":
        await bench.log.append([bad])
        await bench.drain(worker)
        assert await bench.pool.fetchval("select count(*) from quarantine") == 1


async def test_what_was_held_back_and_cannot_be_read_does_not_stop_a_batch(bench: Bench) -> None:
    worker = await bench.worker(window=Window(by_feed={FEED: timedelta(hours=5)}))
    await bench.log.append(
        [bench.event("A03", "V1", minutes=2, control_id="damaged"), bench.event("A03", "V2", minutes=2)]
    )
    await bench.drain(worker)
    await bench.pool.execute(
        "update held_event set summary = 'x' where encounter_id = $1", VisitKey("STJ", "V1").encounter_id
    )
    await bench.log.append([bench.event("A01", "V1", minutes=1), bench.event("A01", "V2", minutes=1)])
    assert await bench.drain(worker) == 2

    rows = await bench.pool.fetch("select visit_number, state from encounter order by visit_number")
    assert [tuple(row) for row in rows] == [("V1", "INPATIENT"), ("V2", "DISCHARGED")]
    (row,) = await bench.pool.fetch("select stage, control_id, reason, body from quarantine")
    assert tuple(row) == ("track", "damaged", "held_event_unreadable", b"x")
    assert await bench.pool.fetchval("select disposition from message_seen where control_id = 'damaged'") == "SET_ASIDE"
    assert await bench.pool.fetchval("select count(*) from held_event") == 0
    assert bench.metrics.registry.get_sample_value(
        "tocengine_events_tracked_total", {"feed": FEED, "disposition": "set_aside"}
    )


async def test_a_control_id_no_index_takes_does_not_stop_the_role(bench: Bench) -> None:
    message = bench.message(HUGE)
    problem = Problem(reason="visit_missing", text="PV1-19 is empty", location="PV1^1^19", code="101")
    await bench.log.append([RECORDS.quarantined(message, problem, "AA")])
    await bench.drain(await bench.worker())
    assert await bench.pool.fetchval("select control_id from quarantine") == HUGE[:MAX_TEXT]
    assert await bench.pool.fetchval("select body from quarantine") == message.body


async def test_quarantined_message_is_kept_once_and_a_person_told(bench: Bench) -> None:
    message = bench.message("q1")
    problem = Problem(reason="visit_missing", text="PV1-19 is empty", location="PV1^1^19", code="101")
    record = RECORDS.quarantined(message, problem, "AA")
    await bench.log.append([record, record])
    worker = await bench.worker()
    await bench.drain(worker)
    (row,) = await bench.pool.fetch("select stage, reason, location, body, answered from quarantine")
    assert tuple(row.values()) == ("normalize", "visit_missing", "PV1^1^19", message.body, "AA")
    assert await bench.pool.fetchval("select disposition from message_seen") == "QUARANTINED"
    assert await bench.pool.fetchval("select kind from work_item") == "MESSAGE_QUARANTINED"


async def _rows(pool: Pool) -> Mapping[str, list[tuple[object, ...]]]:
    queries = {
        "notice": "select notice_id, recipient_id, encounter_id, snapshot_id, state from notice order by notice_id",
        "decision": "select encounter_id, recipient_id, fact_kind, occurrence, watched, notice_id from decision"
        " order by 1, 2, 3, 4",
        "transition": "select transition_id, kind, snapshot_id from transition order by 1",
        "seen": "select message_id, disposition from message_seen order by 1",
    }
    return {name: [tuple(row) for row in await pool.fetch(query)] for name, query in queries.items()}


def _decided(records: Sequence[AuditRecord]) -> set[str]:
    """The notices an audit record speaks of."""
    decisions = [msgspec.convert(record.detail["decisions"], list[dict[str, object]]) for record in records]
    return {str(decision["notice"]) for some in decisions for decision in some if "notice" in decision}


async def test_crash_before_the_commit_leaves_nothing_and_the_replay_the_same(bench: Bench) -> None:
    records = [bench.event("A01", "V1", pcp=True), bench.event("A03", "V1", minutes=60, destination="SUNNYSIDE")]
    await bench.log.append(records)
    interrupted = Interrupted(fail_at=1)
    worker = await bench.worker(audit=interrupted)
    with pytest.raises(ConnectionResetError):
        await worker.step(1.0)
    assert all(not rows for rows in (await _rows(bench.pool)).values())
    stop = asyncio.Event()
    running = asyncio.create_task((await bench.worker(audit=Interrupted(fail_at=1))).run(stop))
    await worker._consumer.close()  # the crashed process is gone

    async def routed() -> bool:
        return bool(await bench.pool.fetchval("select count(*) from notice"))

    await _until(routed, "the batch was not replayed")
    stop.set()
    await asyncio.wait_for(running, DEADLINE_S)
    replayed = await _rows(bench.pool)
    assert len(replayed["seen"]) == 2
    assert {str(row[0]) for row in replayed["notice"]} == _decided(interrupted.lost)
    assert len(replayed["notice"]) == 5


@contextlib.asynccontextmanager
async def _sending(bench: Bench, recipient_id: str) -> AsyncIterator[None]:
    """A sender in the middle of writing its intent for the recipient's waiting notice."""
    connection = await asyncpg.connect(bench.dsn)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(
        "update notice set state = 'SENDING', possibly_told = true where recipient_id = $1 and state = 'QUEUED'",
        recipient_id,
    )
    try:
        yield
        await transaction.commit()
    finally:
        await connection.close()


async def test_sender_that_was_faster_makes_the_cancellation_be_sent(bench: Bench) -> None:
    worker = await bench.worker()
    await bench.log.append([bench.event("A03", "V1", minutes=10, destination="SUNNYSIDE")])
    await bench.drain(worker)
    await bench.log.append([bench.event("A13", "V1", minutes=20)])

    async def waits() -> bool:
        return bool(await bench.pool.fetchval("select count(*) from pg_locks where not granted"))

    async with _sending(bench, "facility:sunnyside"):
        step = asyncio.create_task(worker.step(2.0))
        await _until(waits, "routing does not wait for the sender")
    await asyncio.wait_for(step, DEADLINE_S)
    assert sorted(await bench.notices()) == [
        ("facility:meadow", "NEW", "INPATIENT_DISCHARGE", "CANCELLED"),
        ("facility:sunnyside", "CANCELLED", "DISCHARGE_CANCELLED", "QUEUED"),
        ("facility:sunnyside", "NEW", "INPATIENT_DISCHARGE", "SENDING"),
    ]
    replaced = await bench.pool.fetchval("select superseded_by from notice where state = 'SENDING'")
    assert replaced == await bench.pool.fetchval("select notice_id from notice where state = 'QUEUED'")
    decided = await bench.pool.fetch(
        "select recipient_id, reason from decision where decided_at is not null order by 1"
    )
    assert ("facility:meadow", "CANCELLED_BEFORE_SEND") in {tuple(row) for row in decided}


async def test_outage_is_waited_out(bench: Bench) -> None:
    worker = await bench.worker()
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    await bench.log.append([bench.event("A01", "V1", pcp=True)])

    async def routed() -> int:
        return int(await bench.pool.fetchval("select count(*) from notice"))

    async def twice() -> bool:
        return await routed() == 4

    await _until(routed, "nothing was routed")
    with contextlib.suppress(asyncpg.PostgresError, OSError):
        await bench.pool.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
    record = bench.event("A03", "V1", minutes=60, pcp=True)
    for _ in range(50):  # the log's own appender lost its connection too
        with contextlib.suppress(Exception):
            await bench.log.append([record])
            break
        await asyncio.sleep(0.05)
    await _until(twice, "routing did not come back")
    stop.set()
    await asyncio.wait_for(running, DEADLINE_S)
