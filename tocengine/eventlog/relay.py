"""Owns the outbox relay: publishes what transactions left in the outbox, in order, then forgets it there.

One process leads at a time. A crash between publishing and forgetting publishes again, under the same ids.
"""

import asyncio
import random
from typing import TYPE_CHECKING, Final

import asyncpg
import msgspec
import structlog

from tocengine.errors import UnavailableError
from tocengine.eventlog.postgres_session import (
    OUTBOX_CHANNEL,
    LockClass,
    close_session,
    listen,
    open_session,
    try_locks,
)
from tocengine.formats.packing import pack, unpack
from tocengine.ports import EventLog, LogRecord
from tocengine.postgres import CONNECTION_ERRORS, load_queries

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

log = structlog.get_logger()
_SQL = load_queries(__package__)
_headers = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], ...])
_encode_headers = msgspec.msgpack.Encoder().encode

MAX_BATCH_BYTES: Final = 8 * 1024 * 1024
_FALLBACK_POLL_S: Final = 1.0
_RETRY_S: Final = 1.0


def outbox_row(record: LogRecord) -> tuple[str, bytes, bytes, bytes]:
    """`topic, key, headers, value` as the outbox table keeps them."""
    return record.topic, record.key, _encode_headers(record.headers), pack(record.value)


class Outbox(msgspec.Struct, frozen=True):
    """A table whose rows wait to be published: who leads, which statements read and release them, what wakes it."""

    lock: int
    read: str
    release: str
    channel: str


TRANSITIONS: Final = Outbox(1, "read_outbox", "delete_published", OUTBOX_CHANNEL)
RENORMALIZED: Final = Outbox(2, "read_renormalized", "keep_lineage", "renormalized")
"""Events of messages that were normalized again: published by whoever may append events."""


class OutboxRelay:
    """Runs in every process that may append; the one that holds the lock publishes, the others stand by."""

    def __init__(
        self, dsn: str, event_log: EventLog, *, outbox: Outbox = TRANSITIONS, batch_records: int = 200
    ) -> None:
        self._dsn, self._log, self._outbox, self._batch_records = dsn, event_log, outbox, batch_records

    async def run(self) -> None:
        """Publishes until cancelled; outages are waited out.

        A leader that cannot append resigns: another process may be the one that can.
        """
        told = False
        while True:
            connection: Connection | None = None
            try:
                connection = await open_session(self._dsn, "outbox relay")
                if await try_locks(connection, LockClass.RELAY, [self._outbox.lock]):
                    told = False
                    await self._lead(connection)
            except (UnavailableError, *CONNECTION_ERRORS) as error:
                if not told:
                    log.warning("outbox_relay_waiting", error_type=type(error).__name__)
                told = True
            finally:
                await close_session(connection)
            await asyncio.sleep(_RETRY_S * random.uniform(0.5, 1.5))  # noqa: S311 - spreads retries, no secret

    async def _lead(self, connection: "Connection") -> None:
        woken = asyncio.Event()
        await listen(connection, self._outbox.channel, lambda _payload: woken.set())
        connection.add_termination_listener(lambda _connection: woken.set())
        while True:
            woken.clear()
            await self.publish(connection)
            try:
                await asyncio.wait_for(woken.wait(), _FALLBACK_POLL_S)
            except TimeoutError:
                continue

    async def publish(self, connection: "Connection") -> int:
        """Publishes what waits, as the leader; returns how many rows that were. Raises UnavailableError."""
        total = 0
        while published := await self._publish(connection):
            total += published
        return total

    async def _publish(self, connection: "Connection") -> int:
        """Moves one batch from the outbox to the log; returns how many rows it had."""
        rows = await connection.fetch(_SQL[self._outbox.read], self._batch_records, MAX_BATCH_BYTES)
        if rows:
            records = [
                LogRecord(
                    topic=row["topic"],
                    key=row["key"],
                    headers=_headers.decode(row["headers"]),
                    value=unpack(row["value"]),
                )
                for row in rows
            ]
            await self._log.append(records)
            await connection.execute(_SQL[self._outbox.release], [row["outbox_id"] for row in rows])
        return len(rows)
