"""Owns the dedicated connections of the event log: their locks end with them, so a lost connection loses its office."""

import asyncio
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import asyncpg

from tocengine.postgres import CONNECTION_ERRORS, load_queries

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_SQL = load_queries(__package__)

CONNECT_TIMEOUT_S: Final = 3.0
STATEMENT_TIMEOUT_S: Final = 10.0
LOG_CHANNEL: Final = "toc_log"
OUTBOX_CHANNEL: Final = "outbox"


class LockClass(IntEnum):
    """First half of the advisory lock keys ("toc" in ASCII and a number); the second half says which one."""

    APPENDER = 0x746F6301
    READER = 0x746F6302
    RELAY = 0x746F6303


async def open_session(dsn: str, name: str) -> "Connection":
    """A connection of its own, shown as `name` in pg_stat_activity. Raises CONNECTION_ERRORS."""
    return await asyncpg.connect(
        dsn,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=STATEMENT_TIMEOUT_S,
        server_settings={"application_name": f"tocengine {name}"},
    )


async def try_locks(connection: "Connection", lock: LockClass, numbers: Sequence[int]) -> bool:
    """Takes all the locks, or none. They are held until the connection ends."""
    taken: list[int] = []
    for number in sorted(numbers):
        if not await connection.fetchval(_SQL["try_lock"], int(lock), number):
            for held in taken:
                await connection.fetchval(_SQL["unlock"], int(lock), held)
            return False
        taken.append(number)
    return True


async def listen(connection: "Connection", channel: str, woken: Callable[[str], None]) -> None:
    """Calls `woken` with the payload of each notification on `channel`."""

    def notified(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        woken(str(payload))

    await connection.add_listener(channel, notified)


async def close_session(connection: "Connection | None", timeout_s: float = 2.0) -> None:
    """Ends a connection in whatever state it is, within the time given."""
    if connection is None or connection.is_closed():
        return
    try:
        await asyncio.wait_for(connection.close(), timeout_s)
    except CONNECTION_ERRORS:
        connection.terminate()
    except asyncio.CancelledError:
        connection.terminate()
        raise
