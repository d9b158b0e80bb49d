"""kill -9 of ingest in the middle of a batch: sent again, all of it counts once, whatever the log held of it.

On PostgreSQL a batch is one transaction. On Kafka it is many records: a kill may leave the first of them there.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer

from tests.acceptance.hostile import Hospital
from tests.acceptance.load import arrived
from tests.acceptance.setting import ScaledOut, scaled_out
from tests.corpus.answers import bodies
from tests.services.kafka import KafkaCluster
from tocengine.config_file import load_config
from tocengine.eventlog.kafka_topics import topic_name
from tocengine.eventlog.topics import Topic
from tocengine.formats.hl7v2.ack import read_ack
from tocengine.formats.hl7v2.batch import read_remains
from tocengine.formats.mllp import frame
from tocengine.simulation.day import Expected
from tocengine.simulation.receivers import Receivers

pytestmark = [pytest.mark.crash, pytest.mark.kafka, pytest.mark.timeout(600)]
MESSAGES = 600  # some megabytes of records: many requests to the broker
ATTEMPTS = 5


async def test_a_batch_cut_short_on_kafka_counts_once_when_it_is_sent_again(
    folder: Path, receivers: Receivers, secret: bytes, postgres_dsn: str, kafka: KafkaCluster
) -> None:
    setting = scaled_out(folder, receivers, secret, postgres_dsn, kafka.bootstrap, 1)
    try:
        await setting.apply()
        await asyncio.gather(*(process.start(deadline_s=90) for process in setting.processes.values()))
        hospital, sent, left = Hospital(), 0, 0
        while not 0 < left < MESSAGES and sent < ATTEMPTS * MESSAGES:
            messages = hospital.messages(MESSAGES)
            batch = b"".join([b"BHS|^~\\&|ADTOUT|STJ\r", *messages, b"BTS|%d\r" % MESSAGES])
            left = await _killed_in_the_middle(setting, batch)
            answers = read_remains(await _answer(setting, batch)).messages
            assert [read_ack(each).code for each in answers] == ["AA"] * MESSAGES
            sent += MESSAGES
        assert 0 < left < MESSAGES
        expected = [Expected("patel", f"H{number:05}", "INPATIENT_ADMIT") for number in range(1, sent + 1)]
        tally = await arrived(expected, receivers, 120)
        assert (tally.lost, tally.duplicated, tally.disordered) == (0, 0, 0)
        connection = await asyncpg.connect(postgres_dsn)
        assert await connection.fetchval("select count(distinct message_id) from message_seen") == sent
        await connection.close()
    finally:
        await setting.stop()


async def _killed_in_the_middle(setting: ScaledOut, batch: bytes) -> int:
    """Kills ingest when the first record of the batch is in the log; how many messages of it the log then holds."""
    async with _messages(setting) as consumer:
        reader, writer = await asyncio.open_connection("127.0.0.1", setting.ports.mllp)
        writer.write(frame(batch))
        async with asyncio.timeout(60):
            await consumer.getone()
        await setting.processes["ingest"].killed()
        with suppress(ConnectionError):
            assert await reader.read() == b""  # nobody was told that it was taken
        writer.close()
        left = 1
        while more := await consumer.getmany(timeout_ms=1000):
            left += sum(map(len, more.values()))
    await setting.processes["ingest"].start(deadline_s=90)
    return left


@asynccontextmanager
async def _messages(setting: ScaledOut) -> AsyncIterator[AIOKafkaConsumer]:
    """What comes into the log from now on."""
    kafka = load_config(setting.folder / "tocengine.toml").event_log.kafka
    consumer = AIOKafkaConsumer(
        topic_name(kafka, Topic.MESSAGES),
        bootstrap_servers=kafka.bootstrap_servers,
        group_id=f"watching-{secrets.token_hex(4)}",
        auto_offset_reset="latest",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        await asyncio.gather(*(consumer.position(each) for each in consumer.assignment()))
        yield consumer
    finally:
        await consumer.stop()


async def _answer(setting: ScaledOut, batch: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", setting.ports.mllp)
    writer.write(frame(batch))
    writer.write_eof()
    async with asyncio.timeout(60):
        answered = await reader.read()
    writer.close()
    (answer,) = bodies(answered)
    return answer
