"""Owns the log in Kafka, writing side: an idempotent producer that is dropped and built anew when it gets stuck.

Sends are issued in the order in which `append` was called, so that one key keeps its order; every wait is bounded.
A resend through a new producer can repeat a record: consumers drop repeats by id.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from tocengine.config import EventLogSettings
from tocengine.errors import UnavailableError
from tocengine.eventlog.in_flight import InFlight
from tocengine.eventlog.kafka_client import KAFKA_ERRORS, connection_options, drop_producer
from tocengine.eventlog.kafka_topics import MAX_MESSAGE_BYTES, topic_name
from tocengine.eventlog.topics import Topic, record_bytes
from tocengine.ports import LogRecord
from tocengine.telemetry import Metrics

log = structlog.get_logger()

BATCH_BYTES: Final = 256 * 1024
_RETRY_FIRST_S, _RETRY_MAX_S = 0.2, 2.0


class KafkaEventLog:
    """The writing side. `start` it once the topics are prepared."""

    def __init__(self, settings: EventLogSettings, metrics: Metrics | None = None) -> None:
        self._settings, self._metrics = settings, metrics
        self._options = connection_options(settings.kafka)
        self._names = {topic: topic_name(settings.kafka, topic) for topic in Topic}
        self._deadline_s = settings.kafka.request_timeout_s
        self._in_flight = InFlight()
        self._order = asyncio.Lock()  # fair: first come, first sent
        self._producer: AIOKafkaProducer | None = None
        self._built = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def start(self) -> None:
        """Connects. Raises UnavailableError when no broker answers in time."""
        self._spawn(self._build())
        try:
            await asyncio.wait_for(self._built.wait(), self._deadline_s)
        except TimeoutError:
            await self.close()
            raise UnavailableError(f"Kafka does not answer at {self._settings.kafka.bootstrap_servers}") from None

    async def append(self, records: Sequence[LogRecord]) -> None:
        """Returns when all records are acknowledged by all in-sync replicas, in order per key.

        Raises UnavailableError after `request_timeout_s`, at once while no producer can be built; ContentError for a
        record larger than topics.MAX_RECORD_BYTES.
        """
        if not records:
            return
        size = sum(map(record_bytes, records))
        started = time.monotonic()
        if self._closed:
            raise UnavailableError("the event log is closed")
        self._connected()
        producer: AIOKafkaProducer | None = None
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._in_flight.enter(len(records), size)
                try:
                    while True:
                        producer = self._connected()
                        if await self._sent(producer, records):
                            break
                        self._discard(producer)
                        await self._built.wait()
                finally:
                    self._in_flight.leave(len(records), size)
        except TimeoutError:
            if producer is not None:
                self._discard(producer)
            raise UnavailableError("Kafka did not confirm in time") from None
        if self._metrics is not None:
            self._metrics.append_seconds.labels("kafka").observe(time.monotonic() - started)
            self._metrics.append_records.labels("kafka").observe(len(records))

    async def close(self) -> None:
        """Flushes what is under way, bounded by `request_timeout_s`."""
        self._closed = True
        with suppress(TimeoutError):
            await asyncio.wait_for(self._in_flight.drained(), self._deadline_s)
        producer, self._producer = self._producer, None
        if producer is not None:
            await drop_producer(producer)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise UnavailableError("Kafka cannot be reached")
        return self._producer

    async def _sent(self, producer: AIOKafkaProducer, records: Sequence[LogRecord]) -> bool:
        """Whether all records are acknowledged; False when the producer cannot be used any more."""
        acknowledged: list[asyncio.Future[object]] = []
        try:
            async with self._order:
                for record in records:
                    acknowledged.append(
                        await producer.send(
                            self._names[Topic(record.topic)],
                            value=record.value,
                            key=record.key,
                            headers=list(record.headers),
                        )
                    )
            await asyncio.wait(acknowledged)
        except MessageSizeTooLargeError:
            raise AssertionError("record_bytes admits nothing the producer refuses") from None
        except KafkaError as error:
            log.warning("kafka_send_failed", error_type=type(error).__name__)
            return False
        finally:
            for future in acknowledged:
                future.cancel()  # no effect on those that are done; the others are not of interest any more
        failures = [failure for future in acknowledged if (failure := future.exception()) is not None]
        if failures:
            log.warning("kafka_send_failed", error_type=type(failures[0]).__name__, count=len(failures))
        return not failures

    def _discard(self, producer: AIOKafkaProducer) -> None:
        """Gives a producer up, once, and starts to build the next one."""
        if self._producer is not producer:
            return
        self._producer = None
        self._built.clear()
        log.warning("kafka_producer_dropped")
        self._spawn(drop_producer(producer))
        self._spawn(self._build())

    async def _build(self) -> None:
        """Builds a producer, however long it takes."""
        wait_s = _RETRY_FIRST_S
        while not self._closed:
            producer = AIOKafkaProducer(
                **self._options,
                acks="all",
                enable_idempotence=True,
                compression_type="lz4",
                max_batch_size=BATCH_BYTES,
                max_request_size=MAX_MESSAGE_BYTES,
            )
            try:
                await asyncio.wait_for(producer.start(), self._deadline_s)
            except KAFKA_ERRORS as error:
                log.warning("kafka_unavailable", error_type=type(error).__name__)
                await drop_producer(producer)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _RETRY_MAX_S)
            except asyncio.CancelledError:
                await drop_producer(producer)
                raise
            else:
                self._producer = producer
                self._built.set()
                return

    def _spawn(self, work: "asyncio.Future[None] | object") -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
