"""The route role on PostgreSQL: one transaction per poll, poison set aside, replay, the race with a sender."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import asyncpg
import msgspec
import pytest

from tests.integration.route_bench import DEADLINE_S, DIRECTORY, FEED, HUGE, NOW, RECORDS, TOPICS, Bench, Interrupted
from tocengine.audit.postgres import PostgresAuditTrail
from tocengine.config import EventLogSettings
from tocengine.encounters.holdback import Window
from tocengine.eventlog import open_event_log
from tocengine.model.audit import AuditRecord
from tocengine.model.identity import VisitKey
from tocengine.model.message import Problem
from tocengine.postgres import Pool
from tocengine.routing.apply import apply, plan
from tocengine.routing.directory_file import load_directory_file
from tocengine.routing.postgres import MAX_TEXT


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


async def test_a_batch_looks_on_no_day_but_its_own_while_nothing_is_set_aside(bench: Bench) -> None:
    await bench.pool.fetchval("select prepare_message_seen($1, $1)", NOW.date() - timedelta(days=30))
    name = await bench.pool.fetchval(
        "select name from message_seen_weeks() where first_day <= $1 and $1 < end_day", NOW.date() - timedelta(days=30)
    )
    async with bench.pool.acquire() as other, other.transaction():
        await other.execute(f"lock table {name} in access exclusive mode")  # who looks there waits
        await bench.log.append([bench.event("A01", "V1"), bench.event("A03", "V1", minutes=60)])
        assert await asyncio.wait_for(bench.drain(await bench.worker()), DEADLINE_S) == 2


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
