"""Owns the log in PostgreSQL: append-only tables, one appender for each group of topics, many appends in one commit.

The appender holds an advisory lock on the connection it writes through: who loses the connection loses the office
and cannot write any more. It assigns positions without gaps, in the order in which `append` was called.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import asyncpg
import msgspec
import structlog

from tocengine.config import EventLogSettings
from tocengine.errors import UnavailableError
from tocengine.eventlog.in_flight import InFlight
from tocengine.eventlog.postgres_session import (
    STATEMENT_TIMEOUT_S,
    LockClass,
    close_session,
    open_session,
    try_locks,
)
from tocengine.eventlog.topics import (
    GROUP_NUMBERS,
    TOPIC_GROUPS,
    TOPIC_NUMBERS,
    Topic,
    TopicGroup,
    record_bytes,
)
from tocengine.formats.packing import pack
from tocengine.ports import LogRecord
from tocengine.postgres import CONNECTION_ERRORS, load_queries
from tocengine.telemetry import Metrics

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

log = structlog.get_logger()
_SQL = load_queries(__package__)
_encode_headers = msgspec.msgpack.Encoder().encode

APPEND_DEADLINE_S: Final = 10.0
"""How long an append outlives a lost connection before it is given up; senders time out after 30 s or more."""
CLOSE_DEADLINE_S: Final = 5.0
MAX_BATCH_BYTES: Final = 8 * 1024 * 1024
_RETRY_FIRST_S, _RETRY_MAX_S = 0.1, 1.0


class _HeldElsewhereError(Exception):
    """Another process is the appender of this group."""


class _Pending(msgspec.Struct, eq=False):
    records: Sequence[LogRecord]
    size: int
    started: float  # monotonic
    durable: asyncio.Future[None]


class PostgresEventLog:
    """The writing side. Appenders start with the first append to their group, or with `start`."""

    def __init__(self, dsn: str, settings: EventLogSettings, metrics: Metrics | None = None) -> None:
        self._dsn, self._settings, self._metrics = dsn, settings, metrics
        self._appenders: dict[TopicGroup, Appender] = {}
        self._closed = False

    async def start(self, topics: Sequence[Topic]) -> None:
        """Becomes the appender of these topics. Raises UnavailableError when that does not succeed in time."""
        for group in {TOPIC_GROUPS[topic] for topic in topics}:
            await self._appender(group).ready()

    async def append(self, records: Sequence[LogRecord]) -> None:
        """Returns when all records are durable, in order per key. Raises UnavailableError when that is not certain,
        at once while the database is gone; ContentError for a record larger than topics.MAX_RECORD_BYTES."""
        groups = {TOPIC_GROUPS[Topic(record.topic)] for record in records}
        if len(groups) == 1:
            await self._appender(groups.pop()).append(records)
        elif groups:
            raise ValueError("records of one append belong to one group of topics")

    async def close(self) -> None:
        """Flushes what is under way, bounded in time."""
        self._closed = True
        await asyncio.gather(*(appender.close() for appender in self._appenders.values()))

    def _appender(self, group: TopicGroup) -> "Appender":
        if self._closed:
            raise UnavailableError("the event log is closed")
        if group not in self._appenders:
            self._appenders[group] = Appender(self._dsn, group, self._settings, self._metrics)
        return self._appenders[group]


class Appender:
    """Writes the topics of one group, a batch in one commit, over one connection."""

    def __init__(self, dsn: str, group: TopicGroup, settings: EventLogSettings, metrics: Metrics | None) -> None:
        self._dsn, self._group, self._metrics = dsn, group, metrics
        self._window_s = settings.batch_window_ms / 1000
        self._batch_records = settings.batch_records
        self._in_flight = InFlight(max_records=max(1024, 4 * settings.batch_records))
        self._pending: deque[_Pending] = deque()
        self._pending_records = 0
        self._awaited = 1  # records that wake the writer
        self._company = 1  # records of the last batch: how many to expect together
        self._wake = asyncio.Event()
        self._connection: Connection | None = None
        self._writable = False
        self._opened = asyncio.Event()
        self._closing = False
        self._next: dict[Topic, int] = {}
        self._task = asyncio.create_task(self._run(), name=f"eventlog-appender-{group}")

    async def ready(self) -> None:
        """Returns once this process is the appender; raises UnavailableError after APPEND_DEADLINE_S."""
        try:
            await asyncio.wait_for(self._opened.wait(), APPEND_DEADLINE_S)
        except TimeoutError:
            raise UnavailableError(f"the event log ({self._group}) cannot be opened") from None

    async def append(self, records: Sequence[LogRecord]) -> None:
        """See PostgresEventLog.append."""
        size = sum(map(record_bytes, records))
        started = time.monotonic()
        if not self._opened.is_set():
            await self.ready()
        self._refuse_unless_writable()
        await self._in_flight.enter(len(records), size)
        try:
            self._refuse_unless_writable()
            pending = _Pending(records, size, started, asyncio.get_running_loop().create_future())
            self._pending.append(pending)
            self._pending_records += len(records)
            if self._pending_records >= self._awaited:
                self._wake.set()
            await pending.durable
        finally:
            self._in_flight.leave(len(records), size)

    async def close(self) -> None:
        """Writes what is pending, then gives the office up; whatever is left after CLOSE_DEADLINE_S fails."""
        self._closing = True
        self._wake.set()
        await asyncio.wait([self._task], timeout=CLOSE_DEADLINE_S)
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._fail_pending(float("inf"))
        await close_session(self._connection)

    def _refuse_unless_writable(self) -> None:
        if self._closing or not self._writable:
            raise UnavailableError(f"the event log ({self._group}) has no connection to the database")

    async def _run(self) -> None:
        """Keeps a connection as long as the appender lives; a batch of unknown outcome is written again."""
        wait_s, told = _RETRY_FIRST_S, False
        while not self._closing or self._pending:
            try:
                await self._open()
                wait_s, told = _RETRY_FIRST_S, False
                await self._write_until_closed()
            except _HeldElsewhereError:
                if not told:
                    log.warning("event_log_held_by_another_process", topic=self._group, state="waiting")
                told = True
            except CONNECTION_ERRORS as error:
                if not told:
                    log.warning("event_log_unavailable", topic=self._group, error_type=type(error).__name__)
                told = True
            except Exception as error:  # a defect here must not leave senders waiting without an answer
                log.error("event_log_failed", topic=self._group, error_type=type(error).__name__)
            self._writable = False
            connection, self._connection = self._connection, None
            await close_session(connection)
            self._fail_pending(time.monotonic() - APPEND_DEADLINE_S)
            if not self._closing or self._pending:
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _RETRY_MAX_S)

    async def _open(self) -> None:
        """Takes the office: connection, lock, and the positions that come next."""
        self._connection = connection = await open_session(self._dsn, f"log appender {self._group}")
        if not await try_locks(connection, LockClass.APPENDER, [GROUP_NUMBERS[self._group]]):
            raise _HeldElsewhereError
        await connection.execute(_SQL["durable_commits"])
        topics = [topic for topic, group in TOPIC_GROUPS.items() if group is self._group]
        numbers = {TOPIC_NUMBERS[topic]: topic for topic in topics}
        rows = await connection.fetch(_SQL["tails"], list(numbers))
        self._next = {numbers[row["topic"]]: row["next_position"] for row in rows}
        connection.add_termination_listener(self._terminated)
        self._writable = True
        self._opened.set()
        if self._pending:
            self._wake.set()
        log.info("event_log_opened", topic=self._group)

    def _terminated(self, connection: object) -> None:
        if connection is self._connection:
            self._writable = False
            self._wake.set()

    async def _write_until_closed(self) -> None:
        assert self._connection is not None
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._connection.is_closed():
                raise ConnectionResetError
            if self._pending:
                await self._gather_company()
                await self._write(self._connection, self._take_batch())
                if self._pending:
                    self._wake.set()  # they came while the last batch was being written
            elif self._closing:
                return

    async def _gather_company(self) -> None:
        """Waits, for the batch window at most, for as many records as came together last time.

        So a lone sender never waits, and sixteen that wait for their answers share one commit.
        """
        expected = min(self._company, self._batch_records)
        if self._pending_records >= expected or self._closing:
            return
        self._awaited = expected
        try:
            await asyncio.wait_for(self._wake.wait(), self._window_s)
        except TimeoutError:
            pass
        finally:
            self._awaited = 1
            self._wake.clear()

    def _take_batch(self) -> list[_Pending]:
        batch: list[_Pending] = []
        records = size = 0
        while self._pending:
            head = self._pending[0]
            if batch and (records + len(head.records) > self._batch_records or size + head.size > MAX_BATCH_BYTES):
                break
            batch.append(self._pending.popleft())
            records += len(head.records)
            size += head.size
        self._pending_records -= records
        self._company = records
        return batch

    async def _write(self, connection: "Connection", batch: list[_Pending]) -> None:
        """Makes a batch durable and says so; puts it back in its place before raising what went wrong."""
        records = [record for pending in batch for record in pending.records]
        positions, following = self._assign(records)
        touched = {TOPIC_NUMBERS[Topic(record.topic)] for record in records}
        try:
            await asyncio.wait_for(
                connection.execute(
                    _SQL["append_records"],
                    [TOPIC_NUMBERS[Topic(record.topic)] for record in records],
                    positions,
                    [record.key for record in records],
                    [_encode_headers(record.headers) for record in records],
                    [pack(record.value) for record in records],
                    [len(record.value) for record in records],
                    " ".join(map(str, sorted(touched))),
                ),
                STATEMENT_TIMEOUT_S,
            )
        except BaseException:
            self._pending.extendleft(reversed(batch))
            self._pending_records += len(records)
            raise
        self._next = following
        for pending in batch:
            if not pending.durable.done():
                pending.durable.set_result(None)
        self._observe(batch, len(records))

    def _assign(self, records: Sequence[LogRecord]) -> tuple[list[int], dict[Topic, int]]:
        following = dict(self._next)
        positions = []
        for record in records:
            topic = Topic(record.topic)
            positions.append(following[topic])
            following[topic] += 1
        return positions, following

    def _observe(self, batch: Sequence[_Pending], records: int) -> None:
        if self._metrics is not None:
            now = time.monotonic()
            self._metrics.append_records.labels("postgres").observe(records)
            seconds = self._metrics.append_seconds.labels("postgres")
            for pending in batch:
                seconds.observe(now - pending.started)

    def _fail_pending(self, started_before: float) -> None:
        """Gives up the appends that began before that moment."""
        kept = deque(pending for pending in self._pending if pending.started >= started_before)
        for pending in self._pending:
            if pending.started < started_before and not pending.durable.done():
                pending.durable.set_exception(UnavailableError("the event log did not confirm in time"))
        self._pending = kept
        self._pending_records = sum(len(pending.records) for pending in kept)
