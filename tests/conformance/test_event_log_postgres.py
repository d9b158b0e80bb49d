"""What holds of the log in PostgreSQL alone: its connections die, its offices are held once, its outbox is relayed."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.conformance.event_logs import PostgresHarness, end_sessions
from tests.conformance.test_event_log import PATIENCE_S, poll_some, read, record, values
from tocengine.config import EventLogSettings
from tocengine.errors import LogGapError, UnavailableError
from tocengine.eventlog import Topic, open_event_log
from tocengine.eventlog.memory import MemoryEventLog
from tocengine.eventlog.postgres import PostgresEventLog
from tocengine.eventlog.relay import OutboxRelay, outbox_row
from tocengine.formats.packing import unpack
from tocengine.ports import EventLog
from tocengine.postgres import Pool


@pytest.fixture
def harness(postgres_dsn: str, pool: Pool) -> PostgresHarness:
    return PostgresHarness(postgres_dsn, pool)


@pytest.fixture
async def log(harness: PostgresHarness) -> AsyncIterator[EventLog]:
    log = await harness.log()
    yield log
    await log.close()


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not await holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


async def test_killed_connections_lose_nothing_acknowledged(
    harness: PostgresHarness, log: EventLog, pool: Pool
) -> None:
    acknowledged: list[bytes] = []
    stop = asyncio.Event()

    async def send(sender: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            value = f"{sender}-{number}".encode()
            try:
                await log.append([record(f"s{sender}", b"raw", Topic.MESSAGES), record(f"s{sender}", value)])
            except UnavailableError:
                await asyncio.sleep(0.01)
            else:
                acknowledged.append(value)

    senders = [asyncio.create_task(send(number)) for number in range(8)]
    for _ in range(5):
        before = len(acknowledged)
        await eventually(lambda before=before: _more_than(acknowledged, before + 50))  # type: ignore[misc]
        assert await end_sessions(pool, "tocengine log appender") == 1
    before = len(acknowledged)
    await eventually(lambda: _more_than(acknowledged, before + 50))
    stop.set()
    await asyncio.gather(*senders)

    rows = await pool.fetch("select value from log_record where topic = 2 order by position")
    stored = [unpack(row["value"]) for row in rows]
    assert set(acknowledged) <= set(stored)
    for sender in range(8):
        numbers = [int(value.split(b"-")[1]) for value in dict.fromkeys(stored) if value.startswith(b"%d-" % sender)]
        assert numbers == sorted(numbers)
    positions = (await pool.fetch("select count(*), max(position) + 1 as next from log_record where topic = 2"))[0]
    assert positions["count"] == positions["next"]


async def _more_than(things: list[bytes], count: int) -> bool:
    return len(things) > count


async def test_a_second_appender_waits_for_the_first(
    harness: PostgresHarness, log: EventLog, postgres_dsn: str
) -> None:
    second = PostgresEventLog(postgres_dsn, EventLogSettings())
    waiting = asyncio.create_task(second.start([Topic.EVENTS]))
    await log.append([record("a", "first")])
    done, _ = await asyncio.wait([waiting], timeout=0.5)
    assert not done
    await log.close()
    await waiting
    await second.append([record("a", "second")])
    consumer = await harness.consumer()
    assert [each.value for each in await read(harness, consumer, 2)] == [b"first", b"second"]
    await consumer.close()
    await second.close()


async def test_groups_of_topics_have_appenders_of_their_own(log: EventLog, postgres_dsn: str) -> None:
    other = await open_event_log(EventLogSettings(), postgres_dsn, topics=[Topic.TRANSITIONS])
    await asyncio.gather(log.append([record("a", "x")]), other.append([record("a", "y", Topic.TRANSITIONS)]))
    await other.close()


async def test_a_lone_append_does_not_wait_for_company(postgres_dsn: str) -> None:
    log = await open_event_log(EventLogSettings(batch_window_ms=2000), postgres_dsn, topics=[Topic.EVENTS])
    started = time.monotonic()
    for number in range(5):
        await log.append([record("a", f"{number}")])
    assert time.monotonic() - started < 2
    await log.close()


async def test_a_second_consumer_stands_by(harness: PostgresHarness, log: EventLog) -> None:
    await log.append([record("a", "x")])
    first, second = await harness.consumer(), await harness.consumer()
    assert values(await poll_some(first)) == [b"x"]
    assert not await second.poll(10, 0.2)
    await first.close()
    assert values(await poll_some(second)) == [b"x"]
    await second.close()


async def test_a_consumer_survives_a_lost_connection(harness: PostgresHarness, log: EventLog, pool: Pool) -> None:
    consumer = await harness.consumer()
    await log.append([record("a", "x")])
    await read(harness, consumer, 1)
    await end_sessions(pool, "tocengine log reader")
    await log.append([record("a", "y")])
    try:
        batches = await poll_some(consumer)
    except UnavailableError:  # found out while asking; otherwise it simply connects again
        batches = await poll_some(consumer)
    assert values(batches) == [b"y"]
    await consumer.close()


@pytest.mark.parametrize(
    "damage",
    [
        "delete from log_record where topic = 2 and position < 3",  # removed before it was read
        "update log_position set next_offset = 99",  # another log
    ],
)
async def test_a_gap_stops_the_consumer(harness: PostgresHarness, log: EventLog, pool: Pool, damage: str) -> None:
    await log.append([record("a", f"{number}") for number in range(5)])
    consumer = await harness.consumer()
    await poll_some(consumer)
    await consumer.rewind()
    await pool.execute(damage)
    with pytest.raises(LogGapError, match=r"toc\.events\.v1"):
        await consumer.poll(10, 1)
    await consumer.close()


async def test_the_relay_publishes_the_outbox_in_order_and_empties_it(postgres_dsn: str, pool: Pool) -> None:
    log = MemoryEventLog()
    relays = [asyncio.create_task(OutboxRelay(postgres_dsn, log, batch_records=7).run()) for _ in range(2)]
    written = [record("a", f"{number}", Topic.TRANSITIONS) for number in range(40)]
    for each in written:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "insert into outbox (topic, key, headers, value) values ($1, $2, $3, $4)", *outbox_row(each)
            )
            await connection.execute("notify outbox")

    async def empty() -> bool:
        return not await pool.fetchval("select count(*) from outbox")

    await eventually(empty)
    assert log.of_topic(Topic.TRANSITIONS) == written
    for task in relays:
        task.cancel()
    await asyncio.gather(*relays, return_exceptions=True)


async def test_the_relay_waits_out_a_log_that_is_gone(postgres_dsn: str, pool: Pool) -> None:
    log = MemoryEventLog()
    log.available = False
    relay = asyncio.create_task(OutboxRelay(postgres_dsn, log).run())
    written = record("a", "x", Topic.TRANSITIONS)
    await pool.execute("insert into outbox (topic, key, headers, value) values ($1, $2, $3, $4)", *outbox_row(written))
    await asyncio.wait([relay], timeout=0.5)
    log.available = True

    async def published() -> bool:
        return log.of_topic(Topic.TRANSITIONS) == [written]

    await eventually(published)
    relay.cancel()
    await asyncio.gather(relay, return_exceptions=True)
