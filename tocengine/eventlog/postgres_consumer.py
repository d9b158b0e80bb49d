"""Owns reading the log in PostgreSQL: one reader for each topic, woken by NOTIFY, its positions fenced by epochs."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import asyncpg
import msgspec
import structlog

from tocengine.errors import LogGapError, PositionLostError, UnavailableError
from tocengine.eventlog.positions import Position, PositionStore, empty_batch
from tocengine.eventlog.postgres_session import (
    LOG_CHANNEL,
    LockClass,
    close_session,
    listen,
    open_session,
    try_locks,
)
from tocengine.eventlog.topics import TOPIC_NUMBERS, Topic
from tocengine.formats.packing import unpack
from tocengine.ports import Batch, LogRecord, Transaction
from tocengine.postgres import CONNECTION_ERRORS, load_queries

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

log = structlog.get_logger()
_SQL = load_queries(__package__)
_decode_headers = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], ...]).decode

MAX_POLL_BYTES: Final = 8 * 1024 * 1024
_FALLBACK_POLL_S: Final = 1.0
"""How long a lost notification can delay what it announced."""
_STANDBY_POLL_S: Final = 0.5
_PARTITION: Final = 0


class PostgresLogConsumer:
    """The reading side. A second one waits as a standby until the first one's connection ends."""

    def __init__(self, dsn: str, topics: Sequence[Topic]) -> None:
        self._dsn = dsn
        self._topics = {TOPIC_NUMBERS[topic]: topic for topic in topics}
        self._positions = PositionStore()
        self._connection: Connection | None = None
        self._owner = False  # the reader locks are held on this connection
        self._standby_told = False
        self._taken: dict[Topic, Position] = {}
        self._woken = asyncio.Event()
        self._statement = asyncio.Lock()  # `lag` may be asked while `poll` runs

    async def poll(self, max_records: int, timeout_s: float) -> Sequence[Batch]:
        """At most one batch per topic, `max_records` of each; empty after `timeout_s` without records.

        Raises UnavailableError while the database is gone, LogGapError where the log lacks what comes next.
        """
        deadline = time.monotonic() + timeout_s
        try:
            while True:
                self._woken.clear()
                connection = await self._connected()
                pause_s = _STANDBY_POLL_S
                if await self._own(connection):
                    pause_s = _FALLBACK_POLL_S
                    batches = await self._read(connection, max_records)
                    if batches:
                        return batches
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return ()
                try:
                    await asyncio.wait_for(self._woken.wait(), min(left_s, pause_s))
                except TimeoutError:
                    continue
        except CONNECTION_ERRORS as error:
            await self._disconnect()
            raise UnavailableError("the event log cannot be read: no connection to the database") from error

    async def commit(self, transaction: Transaction, batches: Sequence[Batch]) -> None:
        """Moves the positions inside the caller's transaction; raises PositionLostError if one is no longer ours."""
        try:
            await self._positions.advance(transaction, batches)
        except PositionLostError:
            self._taken.clear()
            raise

    async def rewind(self) -> None:
        """Forgets what was polled and not committed: the next poll starts at the stored positions."""
        self._taken.clear()

    async def lag(self) -> Mapping[tuple[str, int], int]:
        """Records not yet committed, by (topic, partition). Raises UnavailableError."""
        try:
            async with self._statement:
                connection = await self._connected()
                stored = await self._positions.known(
                    connection, [(topic, _PARTITION) for topic in self._topics.values()]
                )
                rows = await connection.fetch(_SQL["tails"], list(self._topics))
        except CONNECTION_ERRORS as error:
            raise UnavailableError("the lag of the event log cannot be read") from error
        lags = {}
        for row in rows:
            partition = (str(self._topics[row["topic"]]), _PARTITION)
            applied = stored[partition].next_offset if partition in stored else 0
            lags[partition] = row["next_position"] - applied
        return lags

    async def idle(self) -> Sequence[Batch]:
        """An empty batch of every topic that is ours and read to its end. Raises UnavailableError."""
        taken = dict(self._taken)
        lags = await self.lag() if taken else {}
        return [
            empty_batch(topic, _PARTITION, position)
            for topic, position in taken.items()
            if not lags.get((str(topic), _PARTITION), 1)
        ]

    async def close(self) -> None:
        """Gives the topics back."""
        await self._disconnect()

    async def _connected(self) -> "Connection":
        if self._connection is None or self._connection.is_closed():
            await self._disconnect()
            connection = await open_session(self._dsn, "log reader")
            self._connection = connection
            await listen(connection, LOG_CHANNEL, self._announced)
            connection.add_termination_listener(lambda _connection: self._woken.set())
        return self._connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._owner = False
        self._taken.clear()
        await close_session(connection)

    def _announced(self, payload: str) -> None:
        if any(int(number) in self._topics for number in payload.split()):
            self._woken.set()

    async def _own(self, connection: "Connection") -> bool:
        """Whether this consumer owns its topics; takes them if they are free."""
        if self._taken:
            return True
        async with self._statement:
            if not self._owner:
                self._owner = await try_locks(connection, LockClass.READER, list(self._topics))
                if not self._owner:
                    if not self._standby_told:
                        log.info("event_log_read_by_another_process", state="standby")
                    self._standby_told = True
                    return False
            await self._take(connection)
        return True

    async def _take(self, connection: "Connection") -> None:
        rows = await connection.fetch(_SQL["heads"], list(self._topics))
        stored = {self._topics[row["topic"]]: (row["first_position"] or 0, row["next_position"]) for row in rows}
        taken = await self._positions.take(
            connection, {(str(topic), _PARTITION): first for topic, (first, _) in stored.items()}
        )
        positions = {}
        for topic, (first, following) in stored.items():
            position = taken[str(topic), _PARTITION]
            if not first <= position.next_offset <= following:
                raise LogGapError(
                    f"{topic}: the stored position is {position.next_offset}, but the log holds {first} to {following}"
                )
            positions[topic] = position
            log.info("log_partition_taken", topic=topic, offset=position.next_offset, epoch=position.epoch)
        self._taken = positions
        self._standby_told = False

    async def _read(self, connection: "Connection", max_records: int) -> list[Batch]:
        taken = self._taken
        async with self._statement:
            rows = await connection.fetch(
                _SQL["read_records"],
                [TOPIC_NUMBERS[topic] for topic in taken],
                [position.next_offset for position in taken.values()],
                max_records,
                MAX_POLL_BYTES,
            )
        by_topic: dict[Topic, list[asyncpg.Record]] = {}
        for row in rows:
            by_topic.setdefault(self._topics[row["topic"]], []).append(row)
        return [self._batch(topic, of_topic) for topic, of_topic in by_topic.items()]

    def _batch(self, topic: Topic, rows: Sequence[asyncpg.Record]) -> Batch:
        position = self._taken[topic]
        following = position.next_offset + len(rows)
        if rows[0]["position"] != position.next_offset or rows[-1]["position"] != following - 1:
            raise LogGapError(f"{topic}: records are missing between {position.next_offset} and {following}")
        self._taken[topic] = Position(following, position.epoch)
        return Batch(
            topic=topic,
            partition=_PARTITION,
            first_offset=position.next_offset,
            next_offset=following,
            epoch=position.epoch,
            records=tuple(
                LogRecord(
                    topic=topic, key=row["key"], value=unpack(row["value"]), headers=_decode_headers(row["headers"])
                )
                for row in rows
            ),
        )
