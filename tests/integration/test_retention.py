"""What is old goes, what is needed stays, and weeks come and go as partitions."""

import asyncio
import time
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import asyncpg

from tocengine.config import RetentionSettings
from tocengine.postgres import Pool
from tocengine.retention.worker import RetentionWorker
from tocengine.telemetry import Metrics

NOW = datetime.now(UTC)
EVENTS, MESSAGES = 2, 1
TOPICS = {MESSAGES: "toc.messages.v1", EVENTS: "toc.events.v1"}
SEEN = """insert into message_seen (day, message_id, revision, part, feed, control_id, trigger, answered, received_at,
          disposition) values ($1, $2, 0, 0, 'stj-adt', '1', 'A03', 'AA', now(), 'TRACKED')"""


async def _round(pool: Pool, now: datetime = NOW, batch_records: int = 3) -> Metrics:
    metrics = Metrics()
    worker = RetentionWorker(pool, TOPICS, RetentionSettings(batch_records=batch_records), metrics, lambda: now)
    async with pool.acquire() as connection:
        await worker.remove(connection, now)
    return metrics


async def _partitions(pool: Pool) -> set[str]:
    rows = await pool.fetch("select tableoid::regclass::text as name from message_seen")
    return {row["name"] for row in rows}


async def _append(pool: Pool, topic: int, count: int, age_days: int) -> None:
    await pool.execute(
        """insert into log_record (topic, position, key, headers, value, octets, appended_at)
           select $1, n, '', '', '', 0, $3 from generate_series(
               (select coalesce(max(position) + 1, 0) from log_record where topic = $1),
               (select coalesce(max(position), -1) from log_record where topic = $1) + $2) as n""",
        topic,
        count,
        NOW - timedelta(days=age_days),
    )


async def _positions(pool: Pool, topic: int) -> list[int]:
    rows = await pool.fetch("select position from log_record where topic = $1 order by position", topic)
    return [row["position"] for row in rows]


async def _week(pool: Pool, day: date) -> tuple[date, date] | None:
    """The days of the partition that holds `day`; None where none was prepared."""
    row = await pool.fetchrow("select * from message_seen_weeks() where first_day <= $1 and $1 < end_day", day)
    return (row["first_day"], row["end_day"]) if row else None


async def test_the_days_to_come_have_a_partition_from_the_start(pool: Pool) -> None:
    for days in (-1, 0, 7):
        await pool.execute(SEEN, NOW.date() + timedelta(days=days), uuid4())
    assert "message_seen_other" not in await _partitions(pool)
    await pool.execute(SEEN, NOW.date() + timedelta(days=30), uuid4())
    assert "message_seen_other" in await _partitions(pool)


async def test_a_week_of_days_has_one_partition(pool: Pool) -> None:
    monday = date(2031, 3, 3)
    assert (
        await pool.fetchval("select prepare_message_seen($1, $2)", monday + timedelta(days=2), date(2031, 3, 16)) == 2
    )
    assert await _week(pool, monday) == (monday, monday + timedelta(days=7))
    assert await _week(pool, date(2031, 3, 16)) == (monday + timedelta(days=7), monday + timedelta(days=14))
    assert await pool.fetchval("select prepare_message_seen($1, $2)", monday, date(2031, 3, 16)) == 0
    assert await pool.fetchval("select count(*) from message_seen_weeks() where name = 'message_seen_other'") == 0


async def test_weeks_fill_what_partitions_of_single_days_leave(pool: Pool) -> None:
    await pool.execute(
        "create table message_seen_20310305 partition of message_seen for values from ('2031-03-05') to ('2031-03-06')"
    )  # as they were made before
    assert await pool.fetchval("select prepare_message_seen($1, $2)", date(2031, 3, 4), date(2031, 3, 7)) == 2
    assert await _week(pool, date(2031, 3, 4)) == (date(2031, 3, 3), date(2031, 3, 5))
    assert await _week(pool, date(2031, 3, 9)) == (date(2031, 3, 6), date(2031, 3, 10))


async def test_what_came_before_its_week_was_prepared_moves_there_and_stays_a_repeat(pool: Pool) -> None:
    ahead, message_id = NOW.date() + timedelta(days=20), uuid4()
    await pool.execute(SEEN, ahead, message_id)
    assert await _partitions(pool) == {"message_seen_other"}
    await _round(pool, NOW + timedelta(days=14))
    assert "message_seen_other" not in await _partitions(pool)
    assert await pool.execute(SEEN + " on conflict do nothing", ahead, message_id) == "INSERT 0 0"
    assert await pool.fetchval("select count(*) from message_seen where message_id = $1", message_id) == 1


async def test_repeats_of_old_weeks_are_forgotten_by_dropping_the_week(pool: Pool) -> None:
    today, young = NOW.date(), NOW.date() - timedelta(days=400)
    for day in (today, young, young - timedelta(days=14)):
        await pool.fetchval("select prepare_message_seen($1, $1)", day)
        await pool.execute(SEEN, day, uuid4())
    metrics = await _round(pool)
    days = await pool.fetch("select day from message_seen order by day")
    assert [row["day"] for row in days] == [young, today]
    assert await _week(pool, young - timedelta(days=14)) is None
    assert metrics.registry.get_sample_value("tocengine_retention_removed_total", {"kind": "weeks"}) == 1


async def test_a_message_of_long_ago_is_known_for_a_repeat_as_long_as_any(pool: Pool) -> None:
    await pool.execute(SEEN, NOW.date() - timedelta(days=1400), uuid4())  # of a day that never had a partition
    await _round(pool, NOW + timedelta(days=399))
    assert await _partitions(pool) == {"message_seen_other"}
    await _round(pool, NOW + timedelta(days=401))
    assert await _partitions(pool) == set()


async def test_two_that_remove_at_once_do_no_harm(pool: Pool) -> None:
    today, message_id = NOW.date(), uuid4()
    await pool.execute(SEEN, today, message_id)
    for days in range(410, 440):
        await pool.fetchval("select prepare_message_seen($1, $1)", today - timedelta(days=days))
    results = await asyncio.gather(*(_round(pool) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(each, Metrics | asyncpg.PostgresError) for each in results)
    await _round(pool)  # whoever gave way comes again
    assert await pool.fetchval("select min(first_day) from message_seen_weeks()") > today - timedelta(days=8)
    assert await pool.fetchval("select message_id from message_seen") == message_id


async def test_messages_seen_are_not_held_up_by_one_that_reads_them_for_long(pool: Pool) -> None:
    old = NOW.date() - timedelta(days=420)
    await pool.fetchval("select prepare_message_seen($1, $1)", old)
    worker = RetentionWorker(pool, TOPICS, RetentionSettings(every_s=0.05), Metrics(), lambda: NOW)
    stop = asyncio.Event()
    async with pool.acquire() as backup:
        reading = backup.transaction()
        await reading.start()
        await backup.fetchval("select count(*) from message_seen")
        running = asyncio.create_task(worker.run(stop))
        slowest = 0.0
        for _ in range(20):
            began = time.monotonic()
            await pool.execute(SEEN, NOW.date(), uuid4())
            slowest = max(slowest, time.monotonic() - began)
            await asyncio.sleep(0.05)  # so that they are spread over many of the worker's rounds
        assert await _week(pool, old) is not None
        assert slowest < 5  # not for as long as it is read
        await reading.rollback()
    deadline = time.monotonic() + 20
    while await _week(pool, old) is not None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    stop.set()
    await running
    assert await pool.fetchval("select count(*) from message_seen") == 20


async def test_old_records_of_the_log_go_once_they_are_read(pool: Pool) -> None:
    await _append(pool, EVENTS, 8, age_days=31)
    await _append(pool, EVENTS, 2, age_days=29)
    await pool.execute(
        "insert into log_position (topic, partition, next_offset, epoch) values ('toc.events.v1', 0, 5, 1)"
    )
    metrics = await _round(pool)
    assert await _positions(pool, EVENTS) == [5, 6, 7, 8, 9]  # the next one to read is 5
    assert metrics.registry.get_sample_value("tocengine_retention_removed_total", {"kind": "records"}) == 5
    await pool.execute("update log_position set next_offset = 10")
    await _round(pool)
    assert await _positions(pool, EVENTS) == [8, 9]


async def test_the_newest_record_stays_because_the_next_position_follows_from_it(pool: Pool) -> None:
    await _append(pool, MESSAGES, 7, age_days=100)
    await _round(pool)
    assert await _positions(pool, MESSAGES) == [6]


async def _codes(pool: Pool, age_days: int, count: int, *, settled: bool) -> None:
    await pool.execute(
        """insert into code_unmapped (feed, table_name, code, message_id, received_at, settled_at)
           select 'stj-adt', 'class', 'QQ', gen_random_uuid(), $1, case when $3 then now() end
           from generate_series(1, $2)""",
        NOW - timedelta(days=age_days),
        count,
        settled,
    )


async def test_messages_that_had_an_unknown_code_are_remembered_while_they_can_be_read_again(pool: Pool) -> None:
    await _codes(pool, 29, 1, settled=True)
    await _codes(pool, 31, 7, settled=True)
    await _codes(pool, 31, 2, settled=False)
    await _codes(pool, 399, 3, settled=False)
    await _codes(pool, 401, 7, settled=False)
    metrics = await _round(pool)
    left = await pool.fetch("select ($1 - received_at) as age, settled_at from code_unmapped order by 1", NOW)
    assert [(row["age"].days, row["settled_at"] is None) for row in left] == [
        (29, False), (31, True), (31, True), (399, True), (399, True), (399, True),
    ]  # fmt: skip
    assert metrics.registry.get_sample_value("tocengine_retention_removed_total", {"kind": "codes"}) == 14


async def _renormalized(pool: Pool, age_days: int, count: int, *, published: bool) -> None:
    await pool.execute(
        """insert into renormalized (message_id, part, revision, digest, run_id, cause, requested_by, requested_at,
                                     topic, key, headers, value)
           select gen_random_uuid(), 0, 1, '', gen_random_uuid(), 'REPLAY', 'me', $1, 't', '', '',
                  case when $3 then null else '\\x01'::bytea end
           from generate_series(1, $2)""",
        NOW - timedelta(days=age_days),
        count,
        published,
    )


async def test_where_events_came_from_is_remembered_as_long_as_their_messages(pool: Pool) -> None:
    await _renormalized(pool, 402, 1, published=False)  # it waits for an engine that publishes it
    await _renormalized(pool, 401, 8, published=True)
    await _renormalized(pool, 399, 2, published=True)
    metrics = await _round(pool, batch_records=4)
    rows = await pool.fetch("select ($1 - requested_at) as age from renormalized order by renormalized_id", NOW)
    assert [row["age"].days for row in rows] == [402, 399, 399]
    assert metrics.registry.get_sample_value("tocengine_retention_removed_total", {"kind": "lineage"}) == 8


async def _set_aside(pool: Pool, age_days: int, count: int, state: str) -> None:
    await pool.execute(
        """insert into quarantine (message_id, stage, feed, control_id, reason, location, code, text, answered,
                                   content_type, body, received_at, revision, state)
           select gen_random_uuid(), 'normalize', 'stj-adt', '1', 'trigger_missing', '', '', '', 'AA', 'x', '', $1, -1,
                  $3
           from generate_series(1, $2)""",
        NOW - timedelta(days=age_days),
        count,
        state,
    )


async def test_what_was_set_aside_goes_when_it_is_old_settled_or_not(pool: Pool) -> None:
    for state in ("OPEN", "DISCARDED"):
        await _set_aside(pool, 399, 2, state)
        await _set_aside(pool, 401, 4, state)
    metrics = await _round(pool)
    left = await pool.fetch("select ($1 - received_at) as age from quarantine", NOW)
    assert [row["age"].days for row in left] == [399] * 4
    assert metrics.registry.get_sample_value("tocengine_retention_removed_total", {"kind": "quarantine"}) == 8
