"""Owns the removal of what is old: records of the embedded log, the days within which repeats are recognized, and what
is remembered of messages that had an unknown code or were normalized again, and what was set aside.

One process leads at a time. Weeks of messages seen are partitions and go by being dropped; log records go from their
old end in small transactions, so that the space they leave is used again and no vacuum has to catch up with a great
deletion.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta

import structlog

from tocengine.config import RetentionSettings
from tocengine.ports import Clock, Transaction
from tocengine.postgres import CONNECTION_ERRORS, Pool, load_queries, session
from tocengine.telemetry import Metrics

QUERIES = load_queries(__package__)
LOCK = 0x746F_632D_7265_7465  # "toc-rete": one remover per database

log = structlog.get_logger()


class RetentionWorker:
    """Removes every `every_s` while it leads. `topics` are the log's, by number; empty where the log is not ours."""

    def __init__(
        self, pool: Pool, topics: Mapping[int, str], settings: RetentionSettings, metrics: Metrics, clock: Clock
    ) -> None:
        self._pool, self._topics, self._settings = pool, topics, settings
        self._metrics, self._clock = metrics, clock

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Outages and locks held by others are waited out, never raised."""
        while not stop.is_set():
            try:
                async with session(self._pool) as connection:
                    if await connection.fetchval(QUERIES["lead"], LOCK):
                        await self._lead(connection, stop)
            except CONNECTION_ERRORS as error:
                log.warning("retention waits", error_type=type(error).__name__)
            await self._wait(stop)

    async def _lead(self, connection: Transaction, stop: asyncio.Event) -> None:
        await connection.execute(QUERIES["give_way"])
        while not stop.is_set():
            await self.remove(connection, self._clock())
            await self._wait(stop)

    async def _wait(self, stop: asyncio.Event) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), self._settings.every_s)

    async def remove(self, connection: Transaction, now: datetime) -> None:
        """One round: what is old is removed until none is left. Weeks are prepared and dropped last: who reads them for
        long ends the round."""
        logged, repeats = (
            now - timedelta(days=days) for days in (self._settings.log_days, self._settings.repeats_days)
        )
        for number, topic in self._topics.items():
            await self._remove(connection, "records", "remove_records", number, topic, logged)
        await self._remove(connection, "codes", "remove_codes", logged, repeats)
        await self._remove(connection, "lineage", "remove_lineage", repeats)
        set_aside = now - timedelta(days=self._settings.quarantine_days)
        await self._remove(connection, "quarantine", "remove_quarantine", set_aside)
        await connection.fetchval(QUERIES["prepare_weeks"], now.date())
        await self._drop_weeks(connection, repeats)

    async def _remove(self, connection: Transaction, kind: str, query: str, *arguments: object) -> None:
        """Removes in portions, each a transaction of its own, until one is not full."""
        portion = removed = self._settings.batch_records
        while removed == portion:
            status = await connection.execute(QUERIES[query], *arguments, portion)
            removed = int(status.rpartition(" ")[2])
            self._metrics.retention_removed.labels(kind).inc(removed)

    async def _drop_weeks(self, connection: Transaction, repeats: datetime) -> None:
        first = repeats.date()
        for row in await connection.fetch(QUERIES["weeks_before"], first):
            await connection.execute(f"drop table if exists {row['name']}")  # quoted by the query
            self._metrics.retention_removed.labels("weeks").inc()
            log.info("repeats of a week forgotten", name=row["name"])
        await connection.execute(QUERIES["forget_other_days"], first, repeats, self._settings.batch_records)
