"""Owns one harness per event log, so that the conformance suite asks each of them the same questions."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, cast

import asyncpg
import pytest

from tests.services.fixtures import settings_for
from tests.services.kafka import KafkaCluster
from tocengine.config import EventLogSettings
from tocengine.eventlog import Topic, open_event_log, open_progress
from tocengine.eventlog.kafka_consumer import KafkaLogConsumer
from tocengine.eventlog.kafka_topics import prepare_topics
from tocengine.eventlog.memory import MemoryEventLog, MemoryLogConsumer, MemoryTransaction
from tocengine.eventlog.postgres_consumer import PostgresLogConsumer
from tocengine.ports import EventLog, LogConsumer, LogProgress, Transaction
from tocengine.postgres import Pool


class LogHarness(Protocol):
    """What the suite needs of an event log."""

    name: str

    async def log(self) -> EventLog:
        """The writing side."""

    async def consumer(self, topics: Sequence[Topic] = (Topic.EVENTS,)) -> LogConsumer:
        """A reading side."""

    async def progress(self) -> LogProgress:
        """How far whoever reads the events is."""

    async def usurper(self, owner: LogConsumer) -> LogConsumer:
        """Another reading side that may take what `owner` reads, while `owner` does not notice."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """A transaction that commits when its block ends and rolls back when it raises."""


class MemoryHarness:
    """The log in memory."""

    name = "memory"

    def __init__(self) -> None:
        self._log = MemoryEventLog(partitions=4)

    async def log(self) -> EventLog:
        return self._log

    async def consumer(self, topics: Sequence[Topic] = (Topic.EVENTS,)) -> LogConsumer:
        return MemoryLogConsumer(self._log, topics)

    async def progress(self) -> LogProgress:
        pytest.skip("nobody is held back before a log in memory")

    async def usurper(self, owner: LogConsumer) -> LogConsumer:
        return await self.consumer()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        async with MemoryTransaction() as transaction:
            yield cast(Transaction, transaction)


class DatabaseHarness:
    """What the logs share whose positions are in PostgreSQL."""

    def __init__(self, dsn: str, pool: Pool) -> None:
        self._dsn, self._pool = dsn, pool

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        async with self._pool.acquire() as connection, connection.transaction():
            yield connection


class PostgresHarness(DatabaseHarness):
    """The log in PostgreSQL."""

    name = "postgres"

    async def log(self) -> EventLog:
        return await open_event_log(EventLogSettings(), self._dsn, topics=[Topic.EVENTS])

    async def consumer(self, topics: Sequence[Topic] = (Topic.EVENTS,)) -> LogConsumer:
        return PostgresLogConsumer(self._dsn, topics)

    async def progress(self) -> LogProgress:
        return await open_progress(EventLogSettings(), self._pool, Topic.EVENTS)

    async def usurper(self, owner: LogConsumer) -> LogConsumer:
        await end_sessions(self._pool, "tocengine log reader")
        return await self.consumer()


class KafkaHarness(DatabaseHarness):
    """The log in Kafka."""

    name = "kafka"

    def __init__(self, dsn: str, pool: Pool, cluster: KafkaCluster) -> None:
        super().__init__(dsn, pool)
        self.settings = settings_for(cluster)

    async def log(self) -> EventLog:
        return await open_event_log(self.settings, self._dsn)

    async def consumer(
        self, topics: Sequence[Topic] = (Topic.EVENTS,), group: str = "tocengine.route"
    ) -> KafkaLogConsumer:
        cluster_id = await prepare_topics(self.settings.kafka)
        return KafkaLogConsumer(self.settings.kafka, self._pool, topics, cluster_id=cluster_id, group=group)

    async def progress(self) -> LogProgress:
        return await open_progress(self.settings, self._pool, Topic.EVENTS)

    async def usurper(self, owner: LogConsumer) -> LogConsumer:
        return await self.consumer(group="another")  # both groups assign every partition


async def end_sessions(pool: Pool, name: str) -> int:
    """Ends the server's side of all connections with this application name, as a failing network would."""
    ended: int = await pool.fetchval(
        """select count(pg_terminate_backend(pid)) from pg_stat_activity
           where application_name like $1 || '%' and datname = current_database()""",
        name,
    )
    return ended


async def stored_positions(pool: Pool) -> list[asyncpg.Record]:
    """The rows of log_position."""
    return await pool.fetch("select * from log_position order by topic, partition")
