"""Owns the log in Kafka, reading side: a group shares the partitions out, PostgreSQL says where each one stands.

Kafka's own offsets are never committed nor read. Partitions are taken and sought to in the poll loop: aiokafka's
rebalance listener swallows exceptions and may fetch before it returns, so it does no more than say that something
changed, and whatever was fetched under another assignment is discarded.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import IllegalStateError, NoOffsetForPartitionError, OffsetOutOfRangeError

from tocengine.config import KafkaSettings
from tocengine.errors import LogGapError, PositionLostError, UnavailableError
from tocengine.eventlog.kafka_client import KAFKA_ERRORS, connection_options, stop_consumer
from tocengine.eventlog.kafka_topics import FETCH_BYTES, topic_name
from tocengine.eventlog.positions import Partition, Position, PositionStore, empty_batch
from tocengine.eventlog.topics import Topic
from tocengine.ports import Batch, LogRecord, Transaction
from tocengine.postgres import CONNECTION_ERRORS, Pool

log = structlog.get_logger()

STALL_S: Final = 15.0
"""A consumer that gets nothing this long while there is something to get is built anew."""


class _Assignments(ConsumerRebalanceListener):  # type: ignore[misc]
    """Notes that the assignment changed, and nothing else."""

    def __init__(self) -> None:
        self.generation = 0
        self.settled = asyncio.Event()

    def on_partitions_revoked(self, revoked: object) -> None:
        self.generation += 1
        self.settled.clear()

    def on_partitions_assigned(self, assigned: object) -> None:
        self.generation += 1
        self.settled.set()


class KafkaLogConsumer:
    """The reading side. `group` is the consumer group; members of one group share the partitions of `topics`."""

    def __init__(
        self,
        settings: KafkaSettings,
        pool: Pool,
        topics: Sequence[Topic],
        *,
        cluster_id: str,
        group: str = "tocengine.route",
    ) -> None:
        self._settings, self._pool = settings, pool
        self._topics = {topic_name(settings, topic): topic for topic in topics}
        self._group = settings.topic_prefix + group
        self._positions = PositionStore(f"kafka/{cluster_id}/{settings.topic_prefix}")
        self._consumer: AIOKafkaConsumer | None = None
        self._assignments = _Assignments()
        self._taken: dict[TopicPartition, Position] = {}
        self._taken_generation = -1
        self._delivered_at = 0.0  # when the consumer last gave something, or was seen to have nothing to give

    async def poll(self, max_records: int, timeout_s: float) -> Sequence[Batch]:
        """At most one batch per partition, `max_records` in all; empty after `timeout_s` without records.

        Raises UnavailableError while Kafka or PostgreSQL is gone, LogGapError where the log lacks what comes next.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                consumer = await self._started()
                if not await self._take_assigned(consumer, deadline):
                    return ()
                batches = await self._fetch(consumer, max_records, deadline)
            except KAFKA_ERRORS as error:
                await self._drop()
                raise UnavailableError(f"Kafka cannot be read ({type(error).__name__})") from error
            if batches or time.monotonic() >= deadline:
                if not batches:
                    await self._look_for_stall()
                return batches

    async def commit(self, transaction: Transaction, batches: Sequence[Batch]) -> None:
        """Moves the positions inside the caller's transaction; raises PositionLostError if one is no longer ours."""
        try:
            await self._positions.advance(transaction, batches)
        except PositionLostError:
            await self.rewind()
            raise

    async def rewind(self) -> None:
        """Forgets what was polled and not committed: the next poll takes the partitions anew, where they stand."""
        self._taken.clear()
        self._taken_generation = -1

    async def lag(self) -> Mapping[tuple[str, int], int]:
        """Records not yet committed, by (topic, partition), of what is assigned here. Raises UnavailableError."""
        consumer = self._consumer
        if consumer is None:
            return {}
        assigned = list(consumer.assignment())
        try:
            async with asyncio.timeout(self._settings.request_timeout_s):
                ends = await consumer.end_offsets(assigned) if assigned else {}
                firsts = await consumer.beginning_offsets(assigned) if assigned else {}
        except KAFKA_ERRORS as error:
            raise UnavailableError("the lag of the event log cannot be read") from error
        stored = await self._known(assigned)
        lags = {}
        for tp in assigned:
            partition = self._partition(tp)
            applied = stored[partition].next_offset if partition in stored else firsts[tp]
            lags[partition] = max(0, ends[tp] - applied)
        return lags

    async def idle(self) -> Sequence[Batch]:
        """An empty batch of every partition that is ours and read to its end. Raises UnavailableError."""
        taken = {self._partition(tp): position for tp, position in self._taken.items()}
        lags = await self.lag() if taken else {}
        return [empty_batch(*each, position) for each, position in taken.items() if not lags.get(each, 1)]

    async def close(self) -> None:
        """Gives the partitions back."""
        await self._drop()

    async def _started(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            self._assignments = _Assignments()
            consumer = AIOKafkaConsumer(
                **connection_options(self._settings),
                group_id=self._group,
                enable_auto_commit=False,
                auto_offset_reset="none",
                partition_assignment_strategy=(RoundRobinPartitionAssignor,),
                session_timeout_ms=int(self._settings.session_timeout_s * 1000),
                heartbeat_interval_ms=int(self._settings.session_timeout_s * 1000 / 5),
                fetch_max_bytes=FETCH_BYTES,
                max_partition_fetch_bytes=FETCH_BYTES,
                fetch_max_wait_ms=250,
            )
            consumer.subscribe(list(self._topics), listener=self._assignments)
            self._consumer = consumer
            await asyncio.wait_for(consumer.start(), self._settings.request_timeout_s)
            self._delivered_at = time.monotonic()
        return self._consumer

    async def _drop(self) -> None:
        consumer, self._consumer = self._consumer, None
        await self.rewind()
        if consumer is not None:
            await stop_consumer(consumer)

    async def _take_assigned(self, consumer: AIOKafkaConsumer, deadline: float) -> bool:
        """Owns what is assigned and stands at its stored position; False while a rebalance outlasts the poll."""
        while True:
            if not self._assignments.settled.is_set():
                left_s = deadline - time.monotonic()
                try:
                    await asyncio.wait_for(self._assignments.settled.wait(), max(left_s, 0.001))
                except TimeoutError:
                    return False
            generation = self._assignments.generation
            if generation == self._taken_generation:
                return True
            assigned = sorted(consumer.assignment())
            taken = await self._take(consumer, assigned)
            if generation != self._assignments.generation:
                continue  # assigned anew while we asked the database
            for tp, position in taken.items():
                try:
                    consumer.seek(tp, position.next_offset)
                except IllegalStateError:
                    break
            else:
                self._taken, self._taken_generation = taken, generation

    async def _take(
        self, consumer: AIOKafkaConsumer, assigned: Sequence[TopicPartition]
    ) -> dict[TopicPartition, Position]:
        """Raises the epochs of these partitions. One that nobody has read starts at its first record."""
        if not assigned:
            return {}
        stored = await self._known(assigned)
        new = [tp for tp in assigned if self._partition(tp) not in stored]
        firsts: dict[TopicPartition, int] = {}
        if new:
            async with asyncio.timeout(self._settings.request_timeout_s):
                firsts = await consumer.beginning_offsets(new)
        try:
            positions = await self._positions.take(
                self._pool, {self._partition(tp): firsts.get(tp, 0) for tp in assigned}
            )
        except CONNECTION_ERRORS as error:
            raise UnavailableError("positions cannot be taken: no connection to the database") from error
        taken = {tp: positions[self._partition(tp)] for tp in assigned}
        for tp, position in taken.items():
            log.info(
                "log_partition_taken",
                topic=tp.topic,
                partition=tp.partition,
                offset=position.next_offset,
                epoch=position.epoch,
            )
        return taken

    async def _known(self, assigned: Sequence[TopicPartition]) -> dict[Partition, Position]:
        try:
            return await self._positions.known(self._pool, [self._partition(tp) for tp in assigned])
        except CONNECTION_ERRORS as error:
            raise UnavailableError("positions cannot be read: no connection to the database") from error

    async def _fetch(self, consumer: AIOKafkaConsumer, max_records: int, deadline: float) -> list[Batch]:
        """What the partitions have; nothing if the assignment changed meanwhile, for then it may not be ours."""
        generation = self._assignments.generation
        left_s = max(deadline - time.monotonic(), 0.001)
        complete = False
        try:
            async with asyncio.timeout(left_s + 1.0):  # it waits without end while a rebalance goes on
                fetched = await consumer.getmany(timeout_ms=int(left_s * 1000) or 1, max_records=max_records)
            complete = generation == self._assignments.generation
        except NoOffsetForPartitionError:
            return []  # left behind by an assignment that was not yet sought
        except OffsetOutOfRangeError as error:
            raise await self._gap(consumer, error.args[0] if error.args else {}) from error
        except TimeoutError:
            return []
        finally:
            if not complete:
                await self.rewind()  # what it may have handed out is lost to us: read it again
        return [batch for tp, records in fetched.items() if (batch := self._batch(tp, records))]

    def _batch(self, tp: TopicPartition, records: Sequence[Any]) -> Batch | None:
        position = self._taken.get(tp)
        if position is None or not records or records[0].offset < position.next_offset:
            return None
        self._delivered_at = time.monotonic()
        following = records[-1].offset + 1
        self._taken[tp] = Position(following, position.epoch)
        topic = self._topics[tp.topic]
        return Batch(
            topic=topic,
            partition=tp.partition,
            first_offset=position.next_offset,  # not the first record's: offsets may have holes
            next_offset=following,
            epoch=position.epoch,
            records=tuple(
                LogRecord(
                    topic=topic,
                    key=record.key or b"",
                    value=record.value or b"",
                    headers=tuple(record.headers),
                )
                for record in records
            ),
        )

    async def _gap(self, consumer: AIOKafkaConsumer, offsets: Mapping[TopicPartition, int]) -> LogGapError:
        parts = []
        async with asyncio.timeout(self._settings.request_timeout_s):
            firsts = await consumer.beginning_offsets(list(offsets))
            ends = await consumer.end_offsets(list(offsets))
        for tp, offset in offsets.items():
            parts.append(
                f"{tp.topic}[{tp.partition}]: the stored position is {offset}, "
                f"but the log holds {firsts.get(tp)} to {ends.get(tp)}"
            )
        return LogGapError("; ".join(parts))

    async def _look_for_stall(self) -> None:
        """Builds the consumer anew if it gives nothing although there is something: its tasks may have died."""
        consumer = self._consumer
        if consumer is None or not self._taken or time.monotonic() - self._delivered_at < STALL_S:
            return
        self._delivered_at = time.monotonic()
        taken = dict(self._taken)
        try:
            async with asyncio.timeout(self._settings.request_timeout_s):
                ends = await consumer.end_offsets(list(taken))
        except KAFKA_ERRORS as error:
            await self._drop()
            raise UnavailableError("Kafka does not say where its partitions end") from error
        if any(ends[tp] > position.next_offset for tp, position in taken.items()):
            log.warning("log_consumer_stalled", count=len(taken))
            await self._drop()

    def _partition(self, tp: TopicPartition) -> Partition:
        return str(self._topics[tp.topic]), tp.partition
