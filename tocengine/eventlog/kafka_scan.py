"""Owns reading the messages of the log in Kafka again: every partition from the offset of a time to that of another.

It belongs to no group and commits nothing: what reads the log for routing does not notice.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime

from aiokafka import AIOKafkaConsumer, TopicPartition

from tocengine.config import KafkaSettings
from tocengine.errors import UnavailableError
from tocengine.eventlog.kafka_client import KAFKA_ERRORS, connection_options, log_templates_only, stop_consumer
from tocengine.eventlog.kafka_topics import FETCH_BYTES, topic_name
from tocengine.eventlog.topics import Topic
from tocengine.ports import LogRecord

Offsets = dict[TopicPartition, int]


class KafkaMessageScanner:
    """Implements `ports.MessageScanner`."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings

    async def messages(
        self, since: datetime, until: datetime, portion: int = 200
    ) -> AsyncGenerator[Sequence[LogRecord], None]:
        """What was appended from `since` until `until`, as far as the log went when it was asked.

        Raises UnavailableError when the brokers give nothing in time.
        """
        log_templates_only()
        consumer = AIOKafkaConsumer(
            **connection_options(self._settings),
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_bytes=FETCH_BYTES,
            max_partition_fetch_bytes=FETCH_BYTES,
        )
        try:
            async with asyncio.timeout(self._settings.request_timeout_s):
                await consumer.start()
                left = await self._stretch(consumer, since, until)
            while left:
                async for records in self._portion(consumer, left, portion):
                    yield records
        except KAFKA_ERRORS as error:
            raise UnavailableError(f"Kafka cannot be read ({type(error).__name__})") from error
        finally:
            await stop_consumer(consumer)

    async def _stretch(self, consumer: AIOKafkaConsumer, since: datetime, until: datetime) -> Offsets:
        """Stands each partition at its first record; returns where each one with something to read ends."""
        name = topic_name(self._settings, Topic.MESSAGES)
        numbers = await consumer._client._wait_on_metadata(name)
        partitions = [TopicPartition(name, number) for number in sorted(numbers)]
        consumer.assign(partitions)
        ends: Offsets = await consumer.end_offsets(partitions)
        firsts = await self._offsets_at(consumer, partitions, since, ends)
        lasts = await self._offsets_at(consumer, partitions, until, ends)
        left = {tp: lasts[tp] for tp in partitions if firsts[tp] < lasts[tp]}
        for tp in partitions:
            if tp in left:
                consumer.seek(tp, firsts[tp])
            else:
                consumer.pause(tp)
        return left

    async def _offsets_at(
        self, consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], moment: datetime, ends: Offsets
    ) -> Offsets:
        milliseconds = int(moment.timestamp() * 1000)
        found = await consumer.offsets_for_times(dict.fromkeys(partitions, milliseconds))
        return {tp: found[tp].offset if found.get(tp) is not None else ends[tp] for tp in partitions}

    async def _portion(
        self, consumer: AIOKafkaConsumer, left: Offsets, portion: int
    ) -> AsyncGenerator[Sequence[LogRecord], None]:
        async with asyncio.timeout(self._settings.request_timeout_s):
            while not (fetched := await consumer.getmany(*left, timeout_ms=500, max_records=portion)):
                for tp in [tp for tp, end in left.items() if await consumer.position(tp) >= end]:
                    del left[tp]  # the last offsets were no records
                if not left:
                    return
        for tp, records in fetched.items():
            wanted = [record for record in records if record.offset < left[tp]]
            if records[-1].offset + 1 >= left[tp]:
                del left[tp]
                consumer.pause(tp)
            if wanted:
                yield [
                    LogRecord(
                        topic=Topic.MESSAGES,
                        key=record.key or b"",
                        value=record.value or b"",
                        headers=tuple(record.headers),
                    )
                    for record in wanted
                ]
