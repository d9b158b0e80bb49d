"""What holds of the log in Kafka alone: groups rebalance, brokers die, offsets go out of range, topics are checked."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from tests.conformance.event_logs import KafkaHarness
from tests.conformance.test_event_log import PATIENCE_S, poll_some, read, record
from tests.services.fixtures import settings_for
from tests.services.kafka import JavaKafka, KafkaCluster
from tocengine.config import EventLogSettings
from tocengine.errors import ConfigurationError, LogGapError, PositionLostError, UnavailableError
from tocengine.eventlog import Topic, open_event_log
from tocengine.eventlog.kafka_client import connection_options
from tocengine.eventlog.kafka_consumer import KafkaLogConsumer
from tocengine.eventlog.kafka_topics import prepare_topics, topic_name
from tocengine.ports import Batch, EventLog
from tocengine.postgres import Pool

pytestmark = pytest.mark.kafka


@pytest.fixture
def harness(postgres_dsn: str, pool: Pool, kafka: KafkaCluster) -> KafkaHarness:
    return KafkaHarness(postgres_dsn, pool, kafka)


class Router:
    """A stand-in for the routing worker: writes what it read in the transaction that moves the positions."""

    def __init__(self, consumer: KafkaLogConsumer, pool: Pool) -> None:
        self._consumer, self._pool = consumer, pool
        self.stopped = False
        self.applied = 0

    async def run(self) -> None:
        while not self.stopped:
            try:
                batches = await self._consumer.poll(20, 0.2)
                if batches:
                    await self._apply(batches)
            except (PositionLostError, UnavailableError):
                await self._consumer.rewind()

    async def _apply(self, batches: Sequence[Batch]) -> None:
        records = [each.value.decode() for batch in batches for each in batch.records]
        async with self._pool.acquire() as connection, connection.transaction():
            await self._consumer.commit(connection, batches)
            await connection.execute("insert into effect select unnest($1::text[])", records)
        self.applied += len(records)


async def effects(pool: Pool) -> Counter[str]:
    return Counter(row["value"] for row in await pool.fetch("select value from effect"))


async def until_effects(pool: Pool, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while await pool.fetchval("select count(*) from effect") < count:
        assert time.monotonic() < deadline, "the routers did not get there in time"
        await asyncio.sleep(0.05)


async def test_a_rebalance_in_mid_load_loses_and_repeats_nothing(harness: KafkaHarness, pool: Pool) -> None:
    await pool.execute("create table effect (value text)")
    log = await harness.log()
    routers = [Router(await harness.consumer(), pool)]
    tasks = [asyncio.create_task(routers[0].run())]

    async def write(first: int) -> None:
        for number in range(first, first + 400, 20):
            await log.append([record(f"k{n % 50}", f"{n}") for n in range(number, number + 20)])

    await write(0)
    second_consumer = await harness.consumer()
    routers.append(Router(second_consumer, pool))
    tasks.append(asyncio.create_task(routers[1].run()))
    written = 400
    deadline = time.monotonic() + PATIENCE_S
    while routers[1].applied < 400:
        assert time.monotonic() < deadline, "the second router never got its share"
        await write(written)
        written += 400
    routers[1].stopped = True
    await tasks[1]
    await second_consumer.close()  # leaves: the first one takes everything back
    for first in (written, written + 400):
        await write(first)
    written += 800
    await until_effects(pool, written)
    routers[0].stopped = True
    await tasks[0]
    await routers[0]._consumer.close()
    await log.close()
    assert await effects(pool) == Counter({str(n): 1 for n in range(written)})


async def test_an_offset_out_of_range_stops_the_consumer(harness: KafkaHarness) -> None:
    log = await harness.log()
    consumer = await harness.consumer()
    await log.append([record("a", f"{number}") for number in range(5)])
    batch = (await poll_some(consumer))[0]
    await consumer.close()
    admin = AIOKafkaAdminClient(**connection_options(harness.settings.kafka))
    await admin.start()
    partition = TopicPartition(topic_name(harness.settings.kafka, Topic.EVENTS), batch.partition)
    await admin.delete_records({partition: RecordsToDelete(before_offset=3)})
    await admin.close()
    successor = await harness.consumer()
    with pytest.raises(LogGapError, match="the stored position is 0, but the log holds 3 to 5"):
        await poll_some(successor)
    await successor.close()
    await log.close()


async def test_another_number_of_partitions_is_refused(harness: KafkaHarness) -> None:
    await prepare_topics(harness.settings.kafka)
    changed = msgspec.structs.replace(harness.settings.kafka, partitions=harness.settings.kafka.partitions + 1)
    with pytest.raises(ConfigurationError, match="partitions"):
        await prepare_topics(changed)


async def test_more_replicas_than_brokers_are_refused(kafka: KafkaCluster) -> None:
    settings = msgspec.structs.replace(settings_for(kafka).kafka, replication_factor=kafka.brokers + 1)
    with pytest.raises(ConfigurationError, match="cannot be created"):
        await prepare_topics(settings)


async def test_more_insync_than_replicas_is_a_contradiction(kafka: KafkaCluster) -> None:
    settings = msgspec.structs.replace(settings_for(kafka).kafka, min_insync=kafka.brokers + 1)
    with pytest.raises(ConfigurationError, match="min_insync"):
        await prepare_topics(settings)


async def test_no_broker_is_unavailable(postgres_dsn: str) -> None:
    settings = EventLogSettings(kind="kafka")
    nobody = msgspec.structs.replace(settings.kafka, bootstrap_servers="127.0.0.1:1", request_timeout_s=2.0)
    started = time.monotonic()
    with pytest.raises(UnavailableError):
        await open_event_log(msgspec.structs.replace(settings, kafka=nobody), postgres_dsn)
    assert time.monotonic() - started < 10


class Senders:
    """Senders that wait for each answer, as MLLP senders do."""

    def __init__(self, log: EventLog, count: int = 8) -> None:
        self._log = log
        self.acknowledged: list[str] = []
        self.refused = 0
        self._stopped = False
        self._tasks = [asyncio.create_task(self._send(number)) for number in range(count)]

    async def _send(self, sender: int) -> None:
        number = 0
        while not self._stopped:
            number += 1
            value = f"{sender}-{number}"
            try:
                await self._log.append([record(f"s{sender}", "raw", Topic.MESSAGES), record(f"s{sender}", value)])
            except UnavailableError:
                self.refused += 1
                await asyncio.sleep(0.05)
            else:
                self.acknowledged.append(value)

    async def get_on(self, count: int = 100) -> float:
        """Returns once `count` more are acknowledged; the seconds that took."""
        started, goal = time.monotonic(), len(self.acknowledged) + count
        while len(self.acknowledged) < goal:
            assert time.monotonic() < started + PATIENCE_S, "the senders do not get on"
            await asyncio.sleep(0.02)
        return time.monotonic() - started

    async def until_refused(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not self.refused:
            assert time.monotonic() < deadline, "nothing was refused although the log is gone"
            await asyncio.sleep(0.02)

    async def stop(self) -> list[str]:
        self._stopped = True
        await asyncio.gather(*self._tasks)
        return self.acknowledged


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> JavaKafka:
    owned: JavaKafka = request.getfixturevalue("own_kafka" if request.param == 1 else "three_kafka_brokers")
    return owned


@pytest.mark.crash
@pytest.mark.parametrize("cluster", [1], indirect=True)
async def test_the_only_broker_killed_and_started_again(postgres_dsn: str, pool: Pool, cluster: JavaKafka) -> None:
    harness = KafkaHarness(postgres_dsn, pool, cluster)
    harness.settings = settings_for(cluster, request_timeout_s=2.0)
    log, consumer = await harness.log(), await harness.consumer()
    senders = Senders(log)
    await senders.get_on()
    await read(harness, consumer, 10)
    cluster.kill_broker(0)
    await senders.until_refused()
    started = time.monotonic()
    with pytest.raises(UnavailableError):
        await log.append([record("a", "x")])
    assert time.monotonic() - started < 4
    cluster.start_broker(0)
    assert await senders.get_on() < 10
    acknowledged = await senders.stop()
    await _assert_all_there(harness, consumer, acknowledged)
    await log.close()


@pytest.mark.crash
@pytest.mark.parametrize("cluster", [3], indirect=True)
async def test_one_of_three_brokers_killed(postgres_dsn: str, pool: Pool, cluster: JavaKafka) -> None:
    harness = KafkaHarness(postgres_dsn, pool, cluster)
    harness.settings = settings_for(cluster, request_timeout_s=15.0)
    log, consumer = await harness.log(), await harness.consumer()
    senders = Senders(log)
    await senders.get_on()
    cluster.kill_broker(1)
    assert await senders.get_on() < 15
    cluster.start_broker(1)
    await senders.get_on()
    acknowledged = await senders.stop()
    assert not senders.refused
    await _assert_all_there(harness, consumer, acknowledged)
    await log.close()


async def _assert_all_there(harness: KafkaHarness, consumer: KafkaLogConsumer, acknowledged: list[str]) -> None:
    """Everything acknowledged is read in the order of its sender; a repeat may be there."""
    await consumer.rewind()
    await consumer.close()
    reader = await harness.consumer(group="whole")
    await harness._pool.execute("delete from log_position")
    found: list[str] = []
    deadline = time.monotonic() + PATIENCE_S
    while not set(acknowledged) <= set(found):
        assert time.monotonic() < deadline, f"{len(set(acknowledged) - set(found))} acknowledged records are missing"
        for batch in await reader.poll(500, 0.5):
            found += [each.value.decode() for each in batch.records]
    await reader.close()
    for sender in range(8):
        numbers = [int(value.split("-")[1]) for value in dict.fromkeys(found) if value.startswith(f"{sender}-")]
        assert numbers == sorted(numbers)
