"""One suite for every event log: what intake and routing rely on, whichever log is configured."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from uuid import uuid4

import pytest

from tests.conformance.event_logs import KafkaHarness, LogHarness, MemoryHarness, PostgresHarness
from tocengine.errors import ContentError, PositionLostError, UnavailableError
from tocengine.eventlog import Topic
from tocengine.eventlog.topics import MAX_RECORD_BYTES
from tocengine.ports import Batch, EventLog, LogConsumer, LogRecord

PATIENCE_S = 30.0


@pytest.fixture(params=["memory", "postgres", pytest.param("kafka", marks=pytest.mark.kafka)])
def harness(request: pytest.FixtureRequest) -> LogHarness:
    if request.param == "memory":
        return MemoryHarness()
    dsn, pool = request.getfixturevalue("postgres_dsn"), request.getfixturevalue("pool")
    if request.param == "postgres":
        return PostgresHarness(dsn, pool)
    return KafkaHarness(dsn, pool, request.getfixturevalue("kafka"))


@pytest.fixture
async def log(harness: LogHarness) -> AsyncIterator[EventLog]:
    log = await harness.log()
    yield log
    await log.close()


@pytest.fixture
async def consumer(harness: LogHarness) -> AsyncIterator[LogConsumer]:
    consumer = await harness.consumer()
    yield consumer
    await consumer.close()


def record(key: str, value: bytes | str, topic: Topic = Topic.EVENTS) -> LogRecord:
    content = value.encode() if isinstance(value, str) else value
    return LogRecord(topic=topic, key=key.encode(), value=content, headers=(("content-type", b"text/plain"),))


async def poll_some(consumer: LogConsumer, max_records: int = 100) -> Sequence[Batch]:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if batches := await consumer.poll(max_records, 0.5):
            return batches
    raise AssertionError("nothing was read in time")


async def read(harness: LogHarness, consumer: LogConsumer, count: int) -> list[LogRecord]:
    """Reads and commits `count` records."""
    records: list[LogRecord] = []
    while len(records) < count:
        batches = await poll_some(consumer)
        async with harness.transaction() as transaction:
            await consumer.commit(transaction, batches)
        records += [each for batch in batches for each in batch.records]
    return records


def values(batches: Sequence[Batch]) -> list[bytes]:
    return [each.value for batch in batches for each in batch.records]


async def test_what_was_appended_is_read_as_it_was(harness: LogHarness, log: EventLog, consumer: LogConsumer) -> None:
    written = LogRecord(
        topic=Topic.EVENTS, key=b"\x00\xffkey", value=b"\x0b\x00\xff", headers=(("a", b"1"), ("b", b""))
    )
    await log.append([written])
    assert await read(harness, consumer, 1) == [written]


async def test_each_key_keeps_its_order(harness: LogHarness, log: EventLog, consumer: LogConsumer) -> None:
    async def write(key: str) -> None:
        for number in range(30):
            await log.append([record(key, f"{number}a"), record(key, f"{number}b")])

    await asyncio.gather(*(write(f"patient-{number}") for number in range(8)))
    by_key = defaultdict(list)
    for each in await read(harness, consumer, 8 * 60):
        by_key[each.key].append(each.value.decode())
    expected = [f"{number}{half}" for number in range(30) for half in "ab"]
    assert all(held == expected for held in by_key.values())
    assert len(by_key) == 8


async def test_appends_not_waited_for_keep_their_order(
    harness: LogHarness, log: EventLog, consumer: LogConsumer
) -> None:
    await asyncio.gather(*(log.append([record("one", f"{number}" + "x" * 2000)]) for number in range(400)))
    numbers = [int(each.value.rstrip(b"x")) for each in await read(harness, consumer, 400)]
    assert numbers == sorted(numbers)


async def test_many_concurrent_appends_are_all_there(harness: LogHarness, log: EventLog, consumer: LogConsumer) -> None:
    written = {f"{number}".encode() for number in range(1500)}
    await asyncio.gather(
        *(log.append([record(f"m{n!r}", b"raw", Topic.MESSAGES), record(f"k{n[-2:]!r}", n)]) for n in written)
    )
    assert {each.value for each in await read(harness, consumer, 1500)} == written


async def test_the_same_record_may_be_appended_again(harness: LogHarness, log: EventLog, consumer: LogConsumer) -> None:
    await log.append([record("a", "same")])
    await log.append([record("a", "same")])
    assert [each.value for each in await read(harness, consumer, 2)] == [b"same", b"same"]


async def test_a_large_record_passes(harness: LogHarness, log: EventLog, consumer: LogConsumer) -> None:
    frame = uuid4().bytes * (5 * 1024 * 1024 // 16)
    await log.append([record("a", frame, Topic.MESSAGES), record("a", frame + frame), record("a", "after")])
    assert [len(each.value) for each in await read(harness, consumer, 2)] == [2 * len(frame), 5]


async def test_too_large_a_record_is_refused_and_harms_nothing(
    harness: LogHarness, log: EventLog, consumer: LogConsumer
) -> None:
    with pytest.raises(ContentError):
        await log.append([record("a", b"x" * (MAX_RECORD_BYTES + 1))])
    await log.append([record("a", "fine")])
    assert [each.value for each in await read(harness, consumer, 1)] == [b"fine"]


async def test_poll_returns_at_most_what_was_asked_for(log: EventLog, consumer: LogConsumer) -> None:
    await log.append([record("a", f"{number}") for number in range(10)])
    first = await poll_some(consumer, max_records=4)
    second = await poll_some(consumer, max_records=4)
    assert values(first) == [b"0", b"1", b"2", b"3"]
    assert values(second) == [b"4", b"5", b"6", b"7"]
    assert second[0].first_offset == first[0].next_offset


async def test_poll_of_an_empty_log_ends_in_time(consumer: LogConsumer) -> None:
    await consumer.poll(10, 0.1)  # joins the group, where there is one
    started = time.monotonic()
    assert not await consumer.poll(10, 0.3)
    assert time.monotonic() - started < 3


async def test_poll_is_woken_by_an_append(log: EventLog, consumer: LogConsumer) -> None:
    await log.append([record("a", "first")])
    await poll_some(consumer)
    waiting = asyncio.create_task(poll_some(consumer))
    await log.append([record("a", "second")])
    assert values(await waiting) == [b"second"]


async def test_a_rolled_back_transaction_moves_nothing(
    harness: LogHarness, log: EventLog, consumer: LogConsumer
) -> None:
    await log.append([record("a", f"{number}") for number in range(5)])
    batches = await poll_some(consumer)

    async def apply() -> None:
        async with harness.transaction() as transaction:
            await consumer.commit(transaction, batches)
            raise RuntimeError("trouble")

    with pytest.raises(RuntimeError, match="trouble"):
        await apply()
    await consumer.rewind()
    assert values(await poll_some(consumer)) == values(batches)


async def test_rewind_starts_at_what_was_committed(harness: LogHarness, log: EventLog, consumer: LogConsumer) -> None:
    await log.append([record("a", f"{number}") for number in range(6)])
    first = await poll_some(consumer, max_records=2)
    async with harness.transaction() as transaction:
        await consumer.commit(transaction, first)
    assert values(await poll_some(consumer, max_records=2)) == [b"2", b"3"]
    await consumer.rewind()
    assert values(await poll_some(consumer, max_records=10)) == [b"2", b"3", b"4", b"5"]


async def test_a_crash_before_the_commit_replays_the_batch(harness: LogHarness, log: EventLog) -> None:
    await log.append([record("a", f"{number}") for number in range(5)])
    crashed = await harness.consumer()
    seen = values(await poll_some(crashed))
    await crashed.close()
    successor = await harness.consumer()
    assert values(await poll_some(successor)) == seen
    await successor.close()


async def test_a_zombie_cannot_commit(harness: LogHarness, log: EventLog, consumer: LogConsumer) -> None:
    await log.append([record("a", f"{number}") for number in range(5)])
    batches = await poll_some(consumer)
    usurper = await harness.usurper(consumer)
    taken = await poll_some(usurper)
    assert values(taken) == values(batches)
    with pytest.raises(PositionLostError):
        async with harness.transaction() as transaction:
            await consumer.commit(transaction, batches)
    async with harness.transaction() as transaction:
        await usurper.commit(transaction, taken)
    await usurper.close()


async def test_a_batch_cannot_be_committed_twice(harness: LogHarness, log: EventLog, consumer: LogConsumer) -> None:
    await log.append([record("a", "once")])
    batches = await poll_some(consumer)
    async with harness.transaction() as transaction:
        await consumer.commit(transaction, batches)
    with pytest.raises(PositionLostError):
        async with harness.transaction() as transaction:
            await consumer.commit(transaction, batches)


async def test_lag_counts_what_is_not_committed(harness: LogHarness, log: EventLog, consumer: LogConsumer) -> None:
    await log.append([record("a", f"{number}") for number in range(7)])
    batches = await poll_some(consumer, max_records=3)
    assert sum((await consumer.lag()).values()) == 7
    async with harness.transaction() as transaction:
        await consumer.commit(transaction, batches)
    assert sum((await consumer.lag()).values()) == 4


async def idle_of_key(consumer: LogConsumer, partition: int) -> list[Batch]:
    return [batch for batch in await consumer.idle() if batch.partition == partition]


async def test_what_is_read_to_its_end_is_idle(harness: LogHarness, log: EventLog, consumer: LogConsumer) -> None:
    await log.append([record("k", "a")])
    (batch,) = await poll_some(consumer)
    assert not await idle_of_key(consumer, batch.partition)
    async with harness.transaction() as transaction:
        await consumer.commit(transaction, [batch])

    (idle,) = await idle_of_key(consumer, batch.partition)
    assert (idle.topic, idle.records) == (Topic.EVENTS, ())
    async with harness.transaction() as transaction:
        await consumer.commit(transaction, [idle])

    await log.append([record("k", "b")])
    assert not await idle_of_key(consumer, batch.partition)
    assert values(await poll_some(consumer)) == [b"b"]


async def test_what_another_has_taken_is_not_idle_here(
    harness: LogHarness, log: EventLog, consumer: LogConsumer
) -> None:
    await log.append([record("k", "a")])
    await read(harness, consumer, 1)
    mine = await consumer.idle()
    assert mine
    other = await harness.usurper(consumer)
    await log.append([record("k", "b")])
    theirs = await poll_some(other)
    async with harness.transaction() as transaction:
        await other.commit(transaction, theirs)
    with pytest.raises((PositionLostError, UnavailableError)):
        async with harness.transaction() as transaction:
            await consumer.commit(transaction, mine)
    await other.close()


async def test_two_topics_are_read_by_one_consumer(harness: LogHarness, log: EventLog) -> None:
    consumer = await harness.consumer([Topic.EVENTS, Topic.QUARANTINE])
    await log.append([record("a", "event"), record("a", "raw", Topic.MESSAGES), record("b", "bad", Topic.QUARANTINE)])
    read_back = await read(harness, consumer, 2)
    assert {(each.topic, each.value) for each in read_back} == {(Topic.EVENTS, b"event"), (Topic.QUARANTINE, b"bad")}
    await consumer.close()


async def test_close_flushes_what_is_under_way(harness: LogHarness, consumer: LogConsumer) -> None:
    log = await harness.log()
    appends = [asyncio.create_task(log.append([record("a", f"{number}")])) for number in range(50)]
    await asyncio.sleep(0)  # lets them begin
    await log.close()
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    acknowledged = sum(outcome is None for outcome in outcomes)
    assert all(outcome is None or isinstance(outcome, UnavailableError) for outcome in outcomes)
    assert len(await read(harness, consumer, acknowledged)) >= acknowledged


async def test_a_closed_log_takes_nothing(harness: LogHarness) -> None:
    log = await harness.log()
    await log.close()
    with pytest.raises(UnavailableError):
        await log.append([record("a", "late")])


async def test_progress_counts_what_was_appended_and_what_was_applied(harness: LogHarness) -> None:
    progress = await harness.progress()
    try:
        log = await harness.log()
        before = await progress.look()
        await log.append([record(f"key-{number}", "x") for number in range(20)])
        appended = await progress.look()
        assert (appended.appended, appended.applied) == (before.appended + 20, before.applied)
        consumer = await harness.consumer()
        await read(harness, consumer, 20)
        applied = await progress.look()
        assert (applied.appended, applied.applied) == (before.appended + 20, before.applied + 20)
        await asyncio.gather(log.close(), consumer.close())
    finally:
        await progress.close()
