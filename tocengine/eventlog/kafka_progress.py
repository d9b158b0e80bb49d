"""Owns the question how far routing is with the log in Kafka: where its partitions end, and the stored positions."""

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition

from tocengine.config import KafkaSettings
from tocengine.errors import UnavailableError
from tocengine.eventlog.kafka_client import KAFKA_ERRORS, connection_options, stop_consumer
from tocengine.eventlog.kafka_topics import topic_name
from tocengine.eventlog.positions import PositionStore
from tocengine.eventlog.topics import Topic
from tocengine.ports import Progress
from tocengine.postgres import CONNECTION_ERRORS, Pool


class KafkaLogProgress:
    """Implements `ports.LogProgress` for one topic. Belongs to no group and reads no record."""

    def __init__(self, settings: KafkaSettings, pool: Pool, topic: Topic, *, cluster_id: str) -> None:
        self._settings, self._pool, self._topic = settings, pool, topic
        self._positions = PositionStore(f"kafka/{cluster_id}/{settings.topic_prefix}")
        self._consumer: AIOKafkaConsumer | None = None
        self._partitions: list[TopicPartition] = []

    async def look(self) -> Progress:
        """Over all partitions. Raises UnavailableError while Kafka or PostgreSQL is gone."""
        try:
            async with asyncio.timeout(self._settings.request_timeout_s):
                consumer = await self._started()
                ends = await consumer.end_offsets(self._partitions)
                stored = await self._positions.known(
                    self._pool, [(str(self._topic), each.partition) for each in self._partitions]
                )
                unread = [each for each in self._partitions if (str(self._topic), each.partition) not in stored]
                firsts = await consumer.beginning_offsets(unread) if unread else {}
        except CONNECTION_ERRORS as error:
            raise UnavailableError("positions cannot be read: no connection to the database") from error
        except KAFKA_ERRORS as error:
            await self.close()
            raise UnavailableError(f"Kafka does not say where its partitions end ({type(error).__name__})") from error
        applied = sum(position.next_offset for position in stored.values()) + sum(firsts.values())
        return Progress(appended=sum(ends.values()), applied=applied)

    async def close(self) -> None:
        """Ends the connection; the next look opens another one."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await stop_consumer(consumer)

    async def _started(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            self._consumer = AIOKafkaConsumer(**connection_options(self._settings), enable_auto_commit=False)
            await self._consumer.start()
            name = topic_name(self._settings, self._topic)
            numbers = await self._consumer._client._wait_on_metadata(name)
            self._partitions = [TopicPartition(name, number) for number in sorted(numbers)]
        return self._consumer
