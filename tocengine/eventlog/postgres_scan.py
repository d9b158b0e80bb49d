"""Owns reading the messages of the log in PostgreSQL again: a stretch of time, found by halving, in bounded portions.

It takes no lock and moves no position: what reads the log for routing does not notice.
"""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

import asyncpg
import msgspec

from tocengine.errors import UnavailableError
from tocengine.eventlog.postgres_session import close_session, open_session
from tocengine.eventlog.topics import TOPIC_NUMBERS, Topic
from tocengine.formats.packing import unpack
from tocengine.ports import LogRecord
from tocengine.postgres import CONNECTION_ERRORS, load_queries

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_SQL = load_queries(__package__)
_decode_headers = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], ...]).decode
_MESSAGES: Final = TOPIC_NUMBERS[Topic.MESSAGES]
MAX_PORTION_BYTES: Final = 4 * 1024 * 1024


class PostgresMessageScanner:
    """Implements `ports.MessageScanner`."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def messages(
        self, since: datetime, until: datetime, portion: int = 200
    ) -> AsyncGenerator[Sequence[LogRecord], None]:
        """What was appended from `since` until `until`, as far as the log went when it was asked.

        Raises UnavailableError.
        """
        connection: Connection | None = None
        try:
            connection = await open_session(self._dsn, "log scanner")
            head = await connection.fetchrow(_SQL["heads"], [_MESSAGES])
            assert head is not None
            if head["first_position"] is None:
                return
            position = await _first_since(connection, head["first_position"], head["next_position"], since)
            end = await _first_since(connection, position, head["next_position"], until)
            while position < end:
                rows = await connection.fetch(
                    _SQL["read_records"], [_MESSAGES], [position], min(portion, end - position), MAX_PORTION_BYTES
                )
                if not rows:
                    return
                position = rows[-1]["position"] + 1
                yield [
                    LogRecord(
                        topic=Topic.MESSAGES,
                        key=row["key"],
                        value=unpack(row["value"]),
                        headers=_decode_headers(row["headers"]),
                    )
                    for row in rows
                ]
        except CONNECTION_ERRORS as error:
            raise UnavailableError("the event log cannot be read: no connection to the database") from error
        finally:
            await close_session(connection)


async def _first_since(connection: "Connection", first: int, end: int, moment: datetime) -> int:
    """The first position in [first, end) that was appended at `moment` or later, else `end`: a binary search, for
    positions rise with time."""
    while first < end:
        middle = (first + end) // 2
        appended_at = await connection.fetchval(_SQL["appended_at"], _MESSAGES, middle)
        if appended_at is not None and appended_at < moment:
            first = middle + 1
        else:
            end = middle
    return first
